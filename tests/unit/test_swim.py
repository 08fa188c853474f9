"""Membership in a data center as its users notice it: joining, silence, pauses, partitions, restarts, farewells, clones."""

import pytest

from dislocate.core.boundary.events import CloneDetected, MemberDied, MemberForgotten, MemberLeft, MemberSuspected
from dislocate.core.boundary.inputs import ClockRead, Stopped
from dislocate.core.boundary.requests import Done, Forget, Leave, Refused, Register, ReplaceConfigured
from dislocate.core.boundary.values import InstanceSpec, MemberState
from dislocate.core.errors import LocalError
from dislocate.core.membership.suspicion import minimum
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND
from tests.support.tiny_fleet import TinyFleet

ALIVE, SUSPECT, DEAD, LEFT = MemberState.ALIVE, MemberState.SUSPECT, MemberState.DEAD, MemberState.LEFT


def settled_fleet(size, **settings):
    fleet = TinyFleet(size, **settings)
    fleet.run("20s")
    assert fleet.is_whole()
    return fleet


# ---- joining


def test_a_joiner_is_known_everywhere_within_a_second():
    fleet = settled_fleet(20)
    fleet.start("fra/b1", seeds=("fra-a3:1",))
    fleet.run_until(fleet.is_whole, "1s")


def test_a_joiner_greets_until_its_seed_is_there():
    fleet = TinyFleet()
    fleet.start("fra/a2", seeds=("fra-a1:1",))
    fleet.run("7s")
    fleet.start("fra/a1")
    fleet.run_until(fleet.is_whole, "11s")


def test_a_seed_in_another_data_center_is_answered_with_contacts():
    fleet = TinyFleet(3)
    fleet.start("wdc/a1", seeds=("fra-a1:1",))
    fleet.start("wdc/a2", seeds=("fra-a1:1",))
    fleet.run("10s")
    assert fleet.state("wdc/a1", "wdc/a2") is ALIVE
    assert fleet.state("wdc/a2", "wdc/a1") is ALIVE
    assert fleet.state("wdc/a1", "fra/a1") is ALIVE


def test_an_agent_that_lost_its_seeds_comes_back_by_what_its_disk_remembers():
    fleet = settled_fleet(4)
    records = tuple(record for record in fleet.hosts["fra/a3"].stored if record.key.startswith("member/"))
    assert {record.key for record in records} == {"member/fra/a1", "member/fra/a2", "member/fra/a4"}
    fleet.kill("fra/a3")
    fleet.run("2s")
    fleet.start("fra/a3", boot=2, records=records)
    fleet.run_until(fleet.is_whole, "3s")


def test_what_the_disk_remembers_is_not_believed_unseen():
    fleet = settled_fleet(3)
    records = tuple(fleet.hosts["fra/a1"].stored)
    alone = TinyFleet()
    alone.start("fra/a1", boot=2, records=records)
    alone.run("30s")
    assert set(alone.hosts["fra/a1"].node.members) == {"fra/a1"}


# ---- silence


@pytest.mark.parametrize("size", [3, 4, 20])
def test_a_vanished_host_is_dead_by_silence_within_the_formula(size):
    fleet = settled_fleet(size)
    fleet.vanish("fra/a2")
    vanished = fleet.now
    fleet.run_until(lambda: fleet.everyone_says("fra/a2", DEAD), "30s")
    first = min(at for at, _, _ in fleet.events(MemberDied))
    suspected = min(at for at, _, _ in fleet.events(MemberSuspected, since=vanished))
    assert suspected - vanished <= 6 * SECOND  # somebody's ring comes round to it, and its period ends
    assert minimum(size) <= first - suspected <= minimum(size) + 2 * SECOND
    assert {event.member.path for _, _, event in fleet.events(MemberDied)} == {"fra/a2"}


@pytest.mark.parametrize("size", [3, 20])
def test_a_pause_of_four_seconds_kills_nobody(size):
    fleet = settled_fleet(size)
    fleet.pause("fra/a2")
    fleet.run("4s")
    fleet.resume("fra/a2")
    fleet.run("30s")
    assert not fleet.events(MemberDied)
    assert fleet.is_whole()


def test_who_was_paused_for_long_comes_back_and_accuses_nobody():
    fleet = settled_fleet(8)
    fleet.pause("fra/a2")
    fleet.run("30s")
    assert fleet.everyone_says("fra/a2", DEAD)
    fleet.resume("fra/a2")
    fleet.run_until(fleet.is_whole, "25s")
    assert {event.member.path for _, _, event in fleet.events(MemberDied)} == {"fra/a2"}


@pytest.mark.parametrize("loss", [0.75, 0.9, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_a_half_deaf_member_kills_nobody(seed, loss):
    # With all rumours of a refutation missed, a lone accusation once ran out at somebody who never asked.
    fleet = settled_fleet(10)
    fleet.run(f"{137 * seed + 1}ms")
    stream = Streams(f"half-deaf/{seed}")["loss"]
    fleet.loses = lambda _source, target: target == "fra/a2" and stream.chance(loss)
    fleet.run("120s")
    assert {event.member.path for _, path, event in fleet.events(MemberDied) if path != "fra/a2"} <= {"fra/a2"}


def seconds_until_suspected(fleet, path):
    """From the loss of a host to the first accusation, while all clocks agree."""
    vanished = fleet.now
    fleet.vanish(path)
    for _ in range(10):
        run_with_clocks(fleet, "1s")
    return (min(at for at, _, _ in fleet.events(MemberSuspected, since=vanished)) - vanished) / SECOND


def run_with_clocks(fleet, duration):
    for path, host in fleet.hosts.items():
        if host.runs:
            fleet.give(path, ClockRead(1_700_000_000 * SECOND + fleet.now))
    fleet.run(duration)


@pytest.mark.parametrize("moment", ["0ms", "150ms", "300ms", "450ms", "600ms", "750ms", "900ms"])
def test_while_clocks_agree_nobody_is_left_unasked_for_two_periods(moment):
    fleet = settled_fleet(20)
    run_with_clocks(fleet, "1s")
    run_with_clocks(fleet, "1s")
    fleet.run(moment)
    assert seconds_until_suspected(fleet, "fra/a7") <= 3.0  # two periods at most, and that of the probe


# ---- partitions


@pytest.mark.parametrize("duration", ["20s", "300s"])
def test_halves_that_were_cut_find_each_other_again(duration):
    fleet = settled_fleet(10)
    one, other = [f"fra/a{i}" for i in range(1, 6)], [f"fra/a{i}" for i in range(6, 11)]
    fleet.cut(one, other)
    fleet.run(duration)
    died_apart = len(fleet.events(MemberDied))
    fleet.heal()
    healed = fleet.now
    fleet.run_until(fleet.is_whole, "60s")
    fleet.run("60s")
    assert fleet.is_whole()
    assert not fleet.events(MemberDied, since=healed)
    if duration == "20s":
        assert not died_apart


# ---- restarts and farewells


def test_a_restart_with_a_higher_boot_wins_at_once():
    fleet = settled_fleet(5)
    fleet.kill("fra/a2")
    fleet.start("fra/a2", boot=2, seeds=("fra-a1:1",))
    fleet.run_until(lambda: all(fleet.hosts[p].node.members["fra/a2"].node.boot == 2 for p in fleet.running()), "2s")
    fleet.run("20s")
    assert fleet.is_whole()


def test_a_lower_boot_from_its_own_address_takes_the_heard_one_plus_one():
    fleet = settled_fleet(3)
    fleet.kill("fra/a2")
    fleet.run("1s")
    fleet.start("fra/a2", boot=7, seeds=("fra-a1:1",))
    fleet.run("2s")
    fleet.kill("fra/a2")
    fleet.run("1s")
    fleet.start("fra/a2", boot=3, seeds=("fra-a1:1",))
    fleet.run("12s")
    assert fleet.hosts["fra/a1"].node.members["fra/a2"].node.boot == 8
    assert fleet.is_whole()


def test_an_announced_restart_makes_nobody_suspect_or_dead():
    fleet = settled_fleet(6)
    fleet.give("fra/a2", Stopped("SIGTERM"))
    fleet.kill("fra/a2")
    fleet.run("15s")
    assert fleet.everyone_says("fra/a2", ALIVE)
    assert all(fleet.hosts[path].node.members["fra/a2"].restarting for path in fleet.running())
    fleet.start("fra/a2", boot=2, seeds=("fra-a1:1",))
    fleet.run("40s")
    assert fleet.is_whole()
    assert not fleet.events(MemberDied)
    assert not fleet.events(MemberSuspected)


def test_an_announced_restart_that_does_not_come_is_a_death():
    fleet = settled_fleet(6)
    fleet.give("fra/a2", Stopped("SIGTERM"))
    fleet.kill("fra/a2")
    fleet.run("29s")
    assert not fleet.events(MemberDied)
    fleet.run("3s")
    assert fleet.everyone_says("fra/a2", DEAD)


def test_who_leaves_is_gone_at_once_and_nobody_suspected_it():
    fleet = settled_fleet(6)
    fleet.request("fra/a2", Leave())
    assert fleet.hosts["fra/a2"].results[1] == Done()
    fleet.kill("fra/a2")
    fleet.run("1s")
    assert fleet.everyone_says("fra/a2", LEFT)
    fleet.run("20s")
    assert {path for _, path, _ in fleet.events(MemberLeft)} >= set(fleet.running())
    assert not fleet.events(MemberDied)
    assert not fleet.events(MemberSuspected)


def test_forgetting_drops_the_dead_everywhere_and_refuses_the_living():
    fleet = settled_fleet(4)
    fleet.request("fra/a1", Forget("fra/a2"), 1)
    assert isinstance(fleet.hosts["fra/a1"].results[1], Refused)
    fleet.kill("fra/a2")
    fleet.run("2s")
    fleet.request("fra/a1", Forget("fra/a2"), 2)
    fleet.run("2s")
    assert fleet.hosts["fra/a1"].results[2] == Done()
    assert fleet.everyone_says("fra/a2", None)
    assert len(fleet.events(MemberForgotten)) == 3
    fleet.start("fra/a2", boot=2, seeds=("fra-a1:1",))
    fleet.run_until(fleet.is_whole, "2s")


def test_new_tags_reach_everybody_and_tags_that_fit_no_datagram_are_refused():
    fleet = settled_fleet(4)
    fleet.request("fra/a1", ReplaceConfigured((), ("rack=7",)))
    fleet.run("2s")
    fleet.request("fra/a1", ReplaceConfigured((), ("x" * 600,)))
    fleet.run("2s")
    assert all(fleet.hosts[path].node.members["fra/a1"].tags == ("rack=7",) for path in fleet.running())
    with pytest.raises(LocalError, match=r"node\.tags"):
        fleet.start("fra/b1", tags=("x" * 600,))


# ---- clones


def test_a_clone_is_reported_and_the_older_keeps_the_name():
    fleet = settled_fleet(4)
    fleet.start("fra/a2", boot=9, host="elsewhere", seeds=("fra-a1:1",))
    fleet.run("10s")
    assert all(
        fleet.hosts[path].node.members["fra/a2"].address == "fra-a2:1" for path in ("fra/a1", "fra/a3", "fra/a4")
    )
    reports = [event for _, _, event in fleet.events(CloneDetected)]
    assert reports
    assert {(event.kept, event.rejected) for event in reports} == {("fra-a2:1", "elsewhere:1")}
    assert not fleet.events(MemberDied)


@pytest.mark.parametrize(
    ("boot", "seed"),
    [(9, "fra-a2:1"), (9, "fra-a1:1"), (1, "fra-a2:1")],
    ids=["greets the older", "greets another", "a copied disk greets the older"],
)
@pytest.mark.parametrize("size", [2, 4])
def test_both_claimants_of_a_name_are_told(boot, size, seed):
    fleet = settled_fleet(size)
    fleet.start("fra/a2", boot=boot, nonce=9, host="elsewhere", seeds=(seed,))
    fleet.run("30s")
    reports = [(path, event.kept, event.rejected) for _, path, event in fleet.events(CloneDetected)]
    for path in ("fra/a2", "fra/a2@elsewhere"):
        assert reports.count((path, "fra-a2:1", "elsewhere:1")) == 1, reports


@pytest.mark.parametrize("ports", [(), (9090,)], ids=["without services", "with one at another port"])
def test_a_clone_says_nothing_of_the_services_of_the_older(ports):
    fleet = settled_fleet(4)
    fleet.request("fra/a2", Register(web(8080)))
    fleet.run("2s")
    fleet.start("fra/a2", boot=9, host="elsewhere", seeds=("fra-a1:1",), services=tuple(map(web, ports)))
    for _ in range(20):
        fleet.run("500ms")
        assert ports_everywhere(fleet, besides="fra/a2@elsewhere") == [8080]
    fleet.kill("fra/a2@elsewhere")
    fleet.run("5s")
    fleet.request("fra/a2", Register(web(8081)))
    fleet.run("5s")
    assert ports_everywhere(fleet) == [8081]
    assert len({fleet.hosts[path].node.digest for path in fleet.running()}) == 1


def test_who_outlives_a_clone_that_others_believed_gets_its_name_and_services_back():
    fleet = settled_fleet(4)
    fleet.request("fra/a2", Register(web(8080)))
    fleet.run("2s")
    fleet.pause("fra/a2")
    fleet.start("fra/a2", boot=9, host="elsewhere", seeds=("fra-a1:1",), services=(web(9090),))
    fleet.run("3s")
    fleet.resume("fra/a2")
    fleet.run("10s")
    assert ports_everywhere(fleet, besides="fra/a2") == [9090]
    fleet.kill("fra/a2@elsewhere")
    fleet.run("90s")
    assert fleet.everyone_says("fra/a2", ALIVE)
    assert ports_everywhere(fleet) == [8080]
    fleet.run("60s")
    reports = len(fleet.events(CloneDetected))
    fleet.run("200s")
    assert len(fleet.events(CloneDetected)) == reports


def test_a_clone_that_greets_another_data_center_leaves_nothing_behind_there():
    fleet = settled_fleet(4)
    for name in ("nyc/b1", "nyc/b2"):
        fleet.start(name, seeds=("fra-a1:1", "nyc-b1:1"))
    fleet.request("fra/a2", Register(web(8080)))
    fleet.run("20s")
    fleet.start("fra/a2", boot=9, host="elsewhere", seeds=("nyc-b1:1",), services=(web(9090),))
    fleet.run("30s")
    fleet.kill("fra/a2@elsewhere")
    fleet.run("100s")
    assert ports_everywhere(fleet) == [8080]
    assert all(fleet.hosts[path].node.members["fra/a2"].address == "fra-a2:1" for path in fleet.running())
    reports = len(fleet.events(CloneDetected))
    fleet.run("200s")
    assert len(fleet.events(CloneDetected)) == reports


def test_a_restart_is_no_clone_and_says_its_services_at_once():
    fleet = settled_fleet(4)
    fleet.request("fra/a2", Register(web(8080)))
    fleet.run("2s")
    fleet.kill("fra/a2")
    fleet.start("fra/a2", boot=9, seeds=("fra-a1:1",), services=(web(9090),))
    fleet.run_until(lambda: ports_everywhere(fleet) == [9090], "1s")


def web(port):
    return InstanceSpec(id="web-1", service="shop.web", port=port)


def ports_everywhere(fleet, besides=None):
    """The ports at which shop.web is answered by the agents that run; [None] where there is no instance."""
    answered = {
        instance and instance.port
        for path in fleet.running()
        if path != besides
        for instance in fleet.hosts[path].node.catalog.service("shop.web").instances or (None,)
    }
    return sorted(answered, key=str)


def test_a_machine_that_moved_keeps_its_name_when_the_old_address_is_silent():
    fleet = settled_fleet(4)
    fleet.vanish("fra/a2")
    fleet.start("fra/a2", boot=9, host="elsewhere", seeds=("fra-a1:1",))
    fleet.run("3s")
    others = ("fra/a1", "fra/a3", "fra/a4")
    assert all(fleet.hosts[path].node.members["fra/a2"].address == "elsewhere:1" for path in others)
    assert not fleet.events(CloneDetected)
