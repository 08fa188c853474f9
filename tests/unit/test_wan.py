"""Data centers that find, lose and find each other again."""

import pytest

from dislocate.core.boundary.effects import SendDatagram, SendMessage
from dislocate.core.boundary.events import DatacenterChanged, MemberDied
from dislocate.core.boundary.inputs import LinkOpened
from dislocate.core.boundary.values import MemberState
from dislocate.core.catalog.messages import DrainOrder
from dislocate.core.identity import NodeId
from dislocate.core.membership.forwarding import Forwarding, is_needed
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import (
    Alive,
    FactsForwarded,
    Forgotten,
    Freshness,
    MemberRecord,
    Suspect,
    WanReport,
    WanRow,
)
from dislocate.core.membership.reach import Reach
from dislocate.core.membership.relays import Relays, relay_rank
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.tunables import DATAGRAM_BUDGET, MESSAGE_BUDGET, UNREACHABLE_FLOOR
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.core.wire import FactMemo, decode_envelope, encode_envelope, encode_fact
from tests.support.tiny_wan import TinyWan, path_at

DELAYS = {
    frozenset(("fra", "wdc")): 44 * MILLISECOND,
    frozenset(("wdc", "tok")): 70 * MILLISECOND,
    frozenset(("fra", "tok")): 118 * MILLISECOND,
}
ALL = ("fra", "wdc", "tok")


def fleet(*datacenters, nodes=3, cuts=()):
    """`nodes` agents in each data center; the first of each knows the first of all."""
    wan = TinyWan(DELAYS)
    for cut in cuts:
        wan.cut(*cut)
    for datacenter in datacenters:
        for i in range(1, nodes + 1):
            near = [f"{datacenter}/a1"] if i > 1 else []
            far = ["wdc/a1"] if i == 1 and datacenter != "wdc" else []
            wan.add(f"{datacenter}/a{i}", *near, *far)
    return wan


def sees(wan, origin, target):
    """Every agent in `origin` says that `target` is reachable."""
    nodes = [node for path, node in wan.nodes.items() if path.startswith(origin)]
    return all(target in node.datacenters and node.datacenters[target].reachable for node in nodes)


def changes(wan, path, datacenter, since=0):
    """What `path` told about `datacenter` after `since`: its verdicts in order."""
    told = [event for at, event in wan.events[path] if at > since and isinstance(event, DatacenterChanged)]
    return [event.reachable for event in told if event.datacenter == datacenter]


def age(wan, path, datacenter):
    return wan.now - wan.nodes[path].datacenters[datacenter].as_of


def long_links(wan):
    """Links between data centers."""
    return [link for link in wan.links if len({path.split("/")[0] for path in link}) == 2]


def member(path, boot=1):
    datacenter, name = path.split("/")
    record = MemberRecord(NodeId(datacenter, name, boot), 1, 1, path, path, path, path, bytes(32), (), (1, 1))
    return Member(record, MemberState.ALIVE, 0)


# ---- finding each other


def test_three_data_centers_find_each_other_from_one_seed_within_5_s():
    wan = fleet(*ALL)
    assert wan.run(5 * SECOND, lambda: all(sees(wan, a, b) for a in ALL for b in ALL))
    assert wan.run(5 * SECOND, lambda: all(len(node.members) == 9 for node in wan.nodes.values()))


def test_a_data_center_that_was_up_before_its_seed_finds_it_within_2_s():
    """Meanwhile its agents answer each other, which is no reason to stop asking."""
    wan = fleet()
    wan.add("wdc/a1", "fra/a1")
    for name in ("a2", "a3"):
        wan.add(f"wdc/{name}", "wdc/a1", "fra/a1")
    wan.run(100 * MILLISECOND)
    wan.add("fra/a1")
    assert wan.run(2 * SECOND, lambda: all(len(node.members) == 4 for node in wan.nodes.values()))


def test_a_link_measures_the_round_trip_and_counts_the_members():
    wan = fleet("fra", "wdc")
    wan.run(5 * SECOND)
    view = wan.nodes["fra/a2"].datacenters["wdc"]
    assert view.rtt == pytest.approx(88 * MILLISECOND, rel=0.01)
    assert view.measured
    assert view.hears
    assert view.members == 3
    assert len(view.relays) == 3
    assert age(wan, "fra/a2", "wdc") < 2 * SECOND


def test_every_relay_has_one_link_to_every_relay_of_the_other_data_center():
    wan = fleet("fra", "wdc")
    wan.run(60 * SECOND)
    assert len(long_links(wan)) == 9


def test_an_agent_that_is_no_relay_spends_no_message():
    wan = fleet("fra", "wdc", nodes=6)
    wan.run(60 * SECOND)
    linked = {path for link in long_links(wan) for path in link}
    for path, node in wan.nodes.items():
        assert node.is_relay == (path in linked), path
        assert node.is_relay == (path in node.datacenters[path[:3]].relays)


def test_two_fleets_of_one_seed_send_the_same_bytes():
    one, other = fleet("fra", "wdc"), fleet("fra", "wdc")
    one.run(20 * SECOND)
    other.run(20 * SECOND)
    assert one.bytes == other.bytes
    assert one.events == other.events


# ---- cuts


def test_a_cut_data_center_is_unreachable_after_the_floor_and_nobody_dies_of_it():
    wan = fleet(*ALL)
    wan.run(10 * SECOND)
    start = wan.now
    wan.cut("fra", "wdc")
    wan.cut("fra", "tok")
    wan.run(9 * SECOND)
    assert sees(wan, "fra", "wdc")
    assert wan.run(5 * SECOND, lambda: not any(wan.nodes[f"fra/a{i}"].datacenters["wdc"].reachable for i in (1, 2, 3)))
    wan.run(30 * SECOND)
    for path in wan.nodes:
        other = "wdc" if path.startswith("fra") else "fra"
        assert changes(wan, path, other, start) == [False], path
        assert len(wan.nodes[path].members) == 9
        assert all(view.state is MemberState.ALIVE for view in wan.nodes[path].members.values())
        assert not any(isinstance(event, MemberDied) for _, event in wan.events[path])
    assert sees(wan, "wdc", "tok")


def test_the_age_of_a_cut_data_center_grows_and_its_distance_stays_known():
    wan = fleet("fra", "wdc")
    wan.run(10 * SECOND)
    wan.cut("fra", "wdc")
    wan.run(60 * SECOND)
    assert 58 * SECOND < age(wan, "fra/a1", "wdc") <= 62 * SECOND
    assert wan.nodes["fra/a1"].datacenters["wdc"].rtt == pytest.approx(88 * MILLISECOND, rel=0.01)


@pytest.mark.parametrize("length", [12 * SECOND, 45 * SECOND, 300 * SECOND])
def test_a_healed_cut_is_over_within_5_s(length):
    wan = fleet(*ALL)
    wan.run(10 * SECOND)
    wan.cut("fra", "wdc")
    wan.cut("fra", "tok")
    wan.run(length)
    wan.heal()
    start = wan.now
    assert wan.run(5 * SECOND, lambda: all(sees(wan, a, b) for a in ALL for b in ALL))
    wan.run(20 * SECOND)
    for path in wan.nodes:
        for other in ALL:
            assert changes(wan, path, other, start) in ([], [True])


def test_two_lonely_agents_that_redial_rarely_by_then_find_each_other_within_5_s_of_the_heal():
    wan = fleet("fra", "wdc", nodes=1)
    wan.run(10 * SECOND)
    for _ in range(3):
        wan.cut("fra", "wdc")
        wan.run(300 * SECOND)
        wan.heal()
        assert wan.run(5 * SECOND, lambda: sees(wan, "fra", "wdc") and sees(wan, "wdc", "fra"))


def test_what_happened_during_a_cut_is_known_within_5_s_of_the_heal():
    wan = fleet("fra", "wdc")
    wan.run(10 * SECOND)
    wan.cut("fra", "wdc")
    wan.run(20 * SECOND)
    wan.add("fra/a9", "fra/a1")
    wan.run(20 * SECOND)
    wan.heal()
    relays = [node for path, node in wan.nodes.items() if path.startswith("wdc")]
    assert wan.run(5 * SECOND, lambda: all("fra/a9" in node.members for node in relays))


def test_a_cut_in_one_direction_is_unreachable_on_both_sides_and_one_side_still_hears():
    wan = fleet("fra", "wdc")
    wan.run(10 * SECOND)
    wan.cut("fra", "wdc", oneway=True)
    wan.run(14 * SECOND)
    assert not sees(wan, "fra", "wdc")
    assert not sees(wan, "wdc", "fra")
    wan.run(30 * SECOND)
    assert not sees(wan, "fra", "wdc")
    assert not sees(wan, "wdc", "fra")
    assert wan.nodes["fra/a1"].datacenters["wdc"].hears
    assert not wan.nodes["wdc/a1"].datacenters["fra"].hears
    wan.heal()
    assert wan.run(5 * SECOND, lambda: sees(wan, "fra", "wdc") and sees(wan, "wdc", "fra"))


def test_a_pause_of_the_own_process_makes_nobody_unreachable():
    wan = fleet("fra", "wdc", nodes=1)
    wan.run(10 * SECOND)
    sleeper, start = wan.nodes.pop("fra/a1"), wan.now
    wan.run(30 * SECOND)
    wan.nodes["fra/a1"] = sleeper
    wan.run(10 * SECOND)
    assert changes(wan, "fra/a1", "wdc", start) == []


# ---- relays die, data centers do not


def test_the_death_of_all_relays_is_not_the_death_of_the_data_center():
    wan = fleet("fra", "wdc", nodes=6)
    wan.run(10 * SECOND)
    start = wan.now
    gone = [path for path, node in wan.nodes.items() if node.is_relay and path.startswith("fra")]
    for path in gone:
        wan.kill(path)
    for path in list(wan.nodes):  # this wire carries no refusals: the word of their home, as it would come
        for dead in gone:
            bury(wan, path, dead)
    wan.run(20 * SECOND)
    assert sum(node.is_relay for path, node in wan.nodes.items() if path.startswith("fra")) == 3
    assert sees(wan, "fra", "wdc")
    assert sees(wan, "wdc", "fra")
    for path in wan.nodes:
        assert changes(wan, path, "wdc", start) == changes(wan, path, "fra", start) == []


def bury(wan, path, dead):
    """Tell `path` as Swim does that `dead` is dead."""
    node = wan.nodes[path]
    entry = node._members.get(dead)
    if entry is not None:
        node._members.set_state(entry, MemberState.DEAD, wan.now)
        node._wan.member_changed(entry, MemberState.ALIVE)


def test_relays_are_the_highest_ranked_living_members():
    members = Members("fra")
    relays = Relays(members)
    everybody = [member(f"fra/a{i}") for i in range(20)]
    for one in everybody:
        members.add(one)
        relays.member_changed(one)
    ranked = sorted((m.path for m in everybody), key=relay_rank, reverse=True)
    assert relays.of("fra") == tuple(ranked[:3])
    first = members.get(ranked[0])
    members.set_state(first, MemberState.DEAD, 1)
    relays.member_changed(first)
    assert relays.of("fra") == tuple(ranked[1:4])
    members.set_state(first, MemberState.ALIVE, 2)
    relays.member_changed(first)
    assert relays.of("fra") == tuple(ranked[:3])
    assert relays.of("nowhere") == ()


# ---- the mesh may be partial


def test_a_data_center_without_a_direct_link_is_known_through_a_third():
    wan = fleet(*ALL, cuts=[("fra", "tok")])
    assert wan.run(10 * SECOND, lambda: len(wan.nodes["fra/a1"].members) == 9)
    wan.run(30 * SECOND)
    view = wan.nodes["fra/a1"].datacenters["tok"]
    assert not view.reachable
    assert age(wan, "fra/a1", "tok") < 4 * SECOND
    assert sees(wan, "fra", "wdc")
    wan.add("tok/a9", "tok/a1")
    assert wan.run(5 * SECOND, lambda: "tok/a9" in wan.nodes["fra/a1"].members)


def test_the_age_of_a_data_center_known_through_a_third_grows_when_the_third_loses_it():
    wan = fleet(*ALL, cuts=[("fra", "tok")])
    wan.run(20 * SECOND)
    wan.cut("wdc", "tok")
    wan.run(30 * SECOND)
    assert 28 * SECOND < age(wan, "fra/a1", "tok") < 34 * SECOND
    assert age(wan, "fra/a1", "wdc") < 2 * SECOND


def test_a_fact_goes_on_only_where_it_is_needed():
    assert is_needed("fra", ("fra",), "wdc", ("fra",))  # who it is about tells everybody
    assert not is_needed("fra", ("fra", "wdc"), "fra", ())  # never back
    assert not is_needed("fra", ("fra", "wdc"), "tok", ("fra",))  # it has that first hand
    assert is_needed("fra", ("fra", "wdc"), "tok", ())  # it has not
    assert is_needed("", ("wdc",), "tok", ("fra",))  # an operator may speak from anywhere
    assert not is_needed("fra", ("fra", "a", "b", "c"), "tok", ())  # too many hops


def test_suspicions_and_reports_stay_in_their_data_center():
    forwarding = Forwarding("fra")
    assert forwarding.add((), Suspect(NodeId("fra", "a1", 1), 1, ("fra/a2",)))
    assert forwarding.add((), WanReport(NodeId("fra", "a1", 1), 1, ()))
    assert len(forwarding) == 0


def test_gossip_from_another_relay_is_not_taken_for_our_own_word():
    forwarding = Forwarding("fra")
    forwarding.add((), Alive(member("wdc/a1").record))
    assert not list(forwarding.messages_for("wdc", ()))
    assert [message.path for message in forwarding.messages_for("tok", ())] == [("wdc", "fra")]


def test_forwarded_facts_come_in_messages_that_fit():
    forwarding = Forwarding("fra")
    for i in range(3_000):
        forwarding.add((), Alive(member(f"fra/a{i}").record))
    forwarding.add((), Forgotten(NodeId("tok", "a1", 1)))
    forwarding.add((), DrainOrder("tok", True, 1, NodeId("fra", "a1", 1), 0))
    messages = list(forwarding.messages_for("wdc", ()))
    sender = NodeId("d" * 63, "n" * 63, 1 << 50)
    assert len(messages) > 3
    assert max(len(encode_envelope(sender, message)) for message in messages) <= MESSAGE_BUDGET
    assert sum(len(message.facts) for message in messages) == 3_002


def test_a_fact_crosses_to_each_data_center_on_three_links_at_most():
    wan = fleet("fra", "wdc", nodes=4)
    wan.run(10 * SECOND)
    heard = []
    for path, node in wan.nodes.items():
        if path.startswith("wdc"):
            spy(node, lambda body: heard.append(body) if isinstance(body, FactsForwarded) else None)
    wan.add("fra/a9", "fra/a1")
    wan.run(2 * SECOND)
    facts = [FactMemo().decode(raw, "x") for body in heard for raw in body.facts]
    joined = [fact for fact in facts if isinstance(fact, Alive) and fact.record.node.name == "a9"]
    assert 1 <= len(joined) <= 3


def spy(node, look):
    """Let `look` see every body that `node` receives."""
    handle = node.handle

    def watched(input_, now):
        if hasattr(input_, "data"):
            look(decode_envelope(input_.data, "spy").body)
        return handle(input_, now)

    node.handle = watched


def spy_facts(node, look):
    """Let `look` see (sender, report) of every `WanReport` that `node` receives."""
    handle = node.handle

    def watched(input_, now):
        if hasattr(input_, "data"):
            envelope = decode_envelope(input_.data, "spy")
            for raw in envelope.facts:
                fact = FactMemo().decode(raw, "spy")
                if isinstance(fact, WanReport):
                    look(envelope.sender.path, fact)
        return handle(input_, now)

    node.handle = watched


# ---- reports and ages


def reach(now=100 * SECOND):
    out = Outbox(NodeId("fra", "a9", 1), Rumors())
    out.now = now
    members = Members("fra")
    for path in ("fra/a1", "fra/a2", "wdc/a1", "tok/a1"):
        members.add(member(path))
    return out, Reach(out, members, "fra")


def report(relay, version, *rows, boot=1):
    return WanReport(NodeId("fra", relay, boot), version, rows)


def row(datacenter="wdc", reachable=True, age=0, rtt=0):
    return WanRow(datacenter, reachable, reachable, rtt, age, 3)


def test_one_relay_with_a_live_link_is_enough():
    _, here = reach()
    assert not here.is_reached("wdc")
    assert here.reported(report("a1", 1, row(reachable=False)))
    assert here.reported(report("a2", 1, row(reachable=True, rtt=5)))
    assert here.is_reached("wdc")
    assert here.measured_rtt("wdc") == 5


def test_an_older_report_says_nothing_new():
    _, here = reach()
    assert here.reported(report("a1", 2, row()))
    assert not here.reported(report("a1", 1, row(reachable=False)))
    assert not here.reported(report("a1", 2, row(reachable=False)))
    assert here.is_reached("wdc")
    assert here.reported(report("a1", 1, row(reachable=False), boot=2))
    assert not here.reported(report("a1", 9, row()))
    assert not here.is_reached("wdc")


def test_a_relay_that_steps_down_voids_its_rows_and_the_verdict_is_held_for_the_floor():
    out, here = reach()
    here.reported(report("a1", 1, row()))
    assert here.reported(report("a1", 2))
    assert not here.reported(report("a1", 1, row()))
    assert here.rows("wdc") == []
    assert here.is_reached("wdc")
    assert here.hold_ends("wdc") == out.now + UNREACHABLE_FLOOR
    out.now += UNREACHABLE_FLOOR
    assert not here.is_reached("wdc")


def test_age_adds_up_and_only_better_knowledge_replaces_it():
    out, here = reach()
    here.heard_of("wdc", out.now - 3 * SECOND)
    here.heard_of("wdc", out.now - 5 * SECOND)
    out.now += SECOND
    assert here.ages() == (Freshness("wdc", 4 * SECOND),)
    assert here.as_of("fra") == out.now


def test_nobody_fills_the_memory_with_invented_data_centers():
    out, here = reach()
    for i in range(100):
        here.heard_of(f"dc{i}", out.now)
    assert here.ages() == ()


def test_ages_of_many_data_centers_take_turns():
    out, here = reach()
    for i in range(20):
        here._members.add(member(f"dc{i}/a1"))
        here.heard_of(f"dc{i}", out.now)
    told = [row.datacenter for _ in range(3) for row in here.some_ages()]
    assert len(told) == 24
    assert len(set(told)) == 20


def test_a_report_with_the_longest_names_fits_a_datagram():
    coordinate = (0.123456789,) * 10
    longest = WanRow("d" * 63, True, True, 10**9, 10**15, 10**6, (), coordinate, "x" * 200, True)
    assert len(bytes(encode_fact(WanReport(NodeId("d" * 63, "n" * 63, 1 << 50), 1 << 40, (longest,))))) < 900


def test_a_joiner_is_told_what_gossip_said_before_it_came():
    wan = fleet("fra", "wdc")
    wan.run(30 * SECOND)
    wan.add("fra/a9", "fra/a1")
    assert wan.run(2 * SECOND, lambda: wan.nodes["fra/a9"]._wan.is_reachable("wdc"))


def test_a_report_that_only_drifted_is_told_to_each_member_once_a_minute_and_not_gossiped_on():
    wan = fleet("fra", "wdc")
    wan.run(30 * SECOND)
    heard = {path: [] for path in wan.nodes if path.startswith("fra/")}
    for path, told in heard.items():
        spy_facts(wan.nodes[path], lambda source, fact, told=told: told.append((source, fact.relay.path, fact.version)))
    wan.run(120 * SECOND)
    for path, told in heard.items():
        assert {relay for _, relay, _ in told} == heard.keys() - {path}
        assert all(source == relay for source, relay, _ in told)
        assert len(told) == 8, "by two relays, in two minutes, of two data centers"
        assert len({version for _, relay, version in told if relay == told[0][1]}) >= 2, "renewed each minute"


# ---- what arrives is not trusted


def test_a_link_to_an_agent_nobody_told_us_of_is_answered_with_a_heartbeat():
    wan = fleet("fra", nodes=1)
    effects = wan.nodes["fra/a1"].handle(LinkOpened(NodeId("wdc", "zz", 7)), SECOND)
    assert [type(effect) for effect in effects] == [SendMessage]


def test_rumours_of_the_data_center_do_not_ride_on_greetings_between_data_centers():
    wan = fleet("fra", "wdc")
    outside = []
    for path, node in wan.nodes.items():
        handle = node.handle

        def watched(input_, now, handle=handle, path=path):
            effects = handle(input_, now)
            for effect in effects:
                if isinstance(effect, SendDatagram):
                    assert len(effect.data) <= DATAGRAM_BUDGET
                    if path_at(effect.address)[:3] != path[:3]:
                        outside.append(decode_envelope(effect.data, path))
            return effects

        node.handle = watched
    wan.run(5 * SECOND)
    greetings = [envelope for envelope in outside if type(envelope.body).__name__ == "Hello"]
    assert greetings
    assert not any(envelope.facts for envelope in greetings)
