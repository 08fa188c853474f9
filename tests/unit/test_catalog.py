"""The catalog as a user of one agent, and as its neighbours, notice it."""

import msgspec
import pytest

from dislocate.core.boundary.inputs import LoadReported
from dislocate.core.boundary.requests import (
    Deregister,
    Done,
    Heartbeat,
    Refused,
    Register,
    ReplaceConfigured,
    ReportLoad,
    SetDraining,
    SetMaintenance,
)
from dislocate.core.boundary.values import CheckSpec, Load, MemberState, Status
from dislocate.core.catalog import own
from dislocate.core.catalog.messages import DrainOrder, InstanceRecord, LoadNote, Manifest
from dislocate.core.catalog.publisher import split_manifest
from dislocate.core.catalog.validation import check_instance
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.core.tunables import CAUSE_LIMIT, RECORD_BUDGET
from dislocate.core.units import HOUR, MILLISECOND, MINUTE, SECOND
from dislocate.core.wire import encoded_size
from tests.support.catalog_host import HTTP, TTL, Host, spec

S = Status


def two_hosts():
    """Two agents of one data center; the first hosts one instance that both know."""
    a1, a2 = Host("a1"), Host("a2")
    a1.sees(a2)
    a2.sees(a1)
    a1.ask(Register(spec()))
    a2.hear(a1.take_said())
    return a1, a2


# ---- registration


def test_an_instance_without_a_check_is_passing_at_the_advertised_address():
    a1 = Host()
    assert a1.ask(Register(spec())) == Done(3)
    (view,) = a1.catalog.service("shop.web").instances
    assert (view.status, view.address, view.node, view.reachable) == (S.PASSING, "10.0.0.1", "fra/a1", True)


def test_a_registration_is_visible_and_said_only_once_it_is_durable():
    a1 = Host()
    a1.take_said()
    a1.catalog.register(1, Register(spec()))
    assert a1.catalog.service("shop.web") is None
    assert a1.out.news == []
    a1.settle()
    assert a1.replies[1] == Done(3)
    assert [type(fact) for fact in a1.take_said()] == [InstanceRecord, Manifest]


def test_a_failing_disk_refuses_the_registration_and_changes_nothing():
    a1 = Host()
    a1.take_said()
    a1.disk_fails = True
    answer = a1.ask(Register(spec()))
    assert (answer.kind, a1.catalog.names(), a1.take_said()) == ("storage", (), [])


def test_registering_the_same_again_writes_and_says_nothing():
    a1 = Host()
    a1.ask(Register(spec()))
    a1.take_said()
    a1.disk_fails = True
    assert isinstance(a1.ask(Register(spec())), Done)
    assert a1.take_said() == []


def test_a_process_that_registers_while_its_predecessor_deregisters_stays_registered():
    a1 = Host()
    a1.ask(Register(spec()))
    a1.catalog.deregister(98, Deregister("web-1"))
    a1.catalog.register(99, Register(spec()))
    a1.settle()
    assert isinstance(a1.replies[99], Done)
    assert a1.status() is S.PASSING
    assert "instance/web-1" in a1.disk


def test_new_tags_keep_the_health_and_a_new_port_starts_anew():
    a1 = Host()
    a1.ask(Register(spec(check=HTTP)))
    a1.run(2 * SECOND)
    a1.ask(Register(spec(check=HTTP, tags=("blue",))))
    assert a1.status() is S.PASSING
    a1.verdict = None
    a1.ask(Register(spec(check=HTTP, port=9090)))
    assert a1.status() is S.STARTING


def test_an_instance_that_moves_to_another_service_leaves_the_first():
    a1, a2 = two_hosts()
    a1.ask(Register(spec(service="shop.api")))
    a2.hear(a1.take_said())
    for host in (a1, a2):
        assert host.catalog.names() == ("shop.api",)
        assert host.catalog.service("shop.web").instances == ()


def test_what_was_deregistered_is_gone_everywhere_and_late_records_do_not_bring_it_back():
    a1, a2 = two_hosts()
    record = a1.catalog.facts_of("fra/a1")[0]
    assert isinstance(a1.ask(Deregister("web-1")), Done)
    a2.hear(a1.take_said())
    assert a2.statuses() == {}
    assert a2.hear([record]) == [False]
    assert a1.ask(Deregister("web-1")).kind == "unknown"


def test_api_instances_survive_a_restart_and_erased_ones_do_not_come_back():
    a1 = Host()
    a1.ask(Register(spec("web-1")))
    a1.ask(Register(spec("web-2")))
    a1.ask(Deregister("web-1"))
    assert list(a1.restarted().statuses()) == ["fra/a1/web-2"]


def test_a_restarted_agent_keeps_its_services_up():
    a1 = Host()
    a1.ask(Register(spec(check=HTTP)))
    a1.run(2 * SECOND)
    assert a1.status() is S.PASSING
    assert a1.restarted().status() is S.PASSING


def test_a_status_from_before_the_restart_does_not_outlive_the_first_failing_check():
    a1 = Host()
    a1.ask(Register(spec(check=HTTP)))
    a1.run(2 * SECOND)
    again = a1.restarted()
    again.verdict = S.CRITICAL
    again.run(1 * SECOND)
    assert again.status() is S.CRITICAL


def test_configured_instances_belong_to_the_file():
    a1 = Host(services=(spec("web-1"), spec("web-2")))
    assert a1.ask(Register(spec("web-1", port=1))).kind == "conflict"
    assert a1.ask(Deregister("web-1")).kind == "conflict"
    assert isinstance(a1.ask(ReplaceConfigured((spec("web-2"), spec("web-3")), ())), Done)
    assert list(a1.statuses()) == ["fra/a1/web-2", "fra/a1/web-3"]


def test_reading_the_configuration_again_leaves_api_instances_alone():
    a1 = Host(services=(spec("web-1"),))
    a1.ask(Register(spec("api-1")))
    a1.ask(ReplaceConfigured((), ()))
    assert list(a1.statuses()) == ["fra/a1/api-1"]
    assert list(a1.restarted().statuses()) == ["fra/a1/api-1"]


def test_a_bad_configuration_is_refused_whole():
    a1 = Host(services=(spec("web-1"),))
    answer = a1.ask(ReplaceConfigured((spec("web-2"), spec("web-2")), ()))
    assert (answer.kind, answer.field) == ("invalid", "service[1].id")
    assert list(a1.statuses()) == ["fra/a1/web-1"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"instance_id": ""}, "id"),
        ({"instance_id": "a/b"}, "id"),
        ({"service": "Shop"}, "service"),
        ({"port": 0}, "port"),
        ({"port": 65536}, "port"),
        ({"address": "10.0.0.1:80"}, "address"),
        ({"weight": -1}, "weight"),
        ({"tags": ("",)}, "tags"),
        ({"meta": {"key": "x" * 300}}, "meta.key"),
        ({"meta": {f"k{n}": "x" * 100 for n in range(9)}}, "meta"),
        ({"check": CheckSpec()}, "check"),
        ({"check": CheckSpec(ttl=SECOND, tcp="h:1")}, "check"),
        ({"check": CheckSpec(http="ftp://x")}, "check.http"),
        ({"check": CheckSpec(tcp="nowhere")}, "check.tcp"),
        ({"check": CheckSpec(tcp="h:1", interval=99 * MILLISECOND)}, "check.interval"),
        ({"check": CheckSpec(tcp="h:1", timeout=11 * MINUTE)}, "check.timeout"),
        ({"check": CheckSpec(tcp="h:1", body="ok")}, "check.statuses"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_name(fields, field):
    with pytest.raises(LocalError) as caught:
        check_instance(spec(**fields), "service[2].")
    assert caught.value.field == "service[2]." + field
    answer = Host().ask(Register(spec(**fields)))
    assert (answer.kind, answer.field) == ("invalid", field)


def test_the_largest_accepted_record_fits_a_datagram():
    label = "x" * 63
    owner = NodeId(label, label, 1 << 62)
    large = spec("i" * 120, service=f"{label}.{label}", meta={"k": "\u00e9" * 94})
    check_instance(large)
    with pytest.raises(LocalError):
        check_instance(msgspec.structs.replace(large, meta={"k": "\u00e9" * 98}))
    advertised, cause = "f" * 45, "c" * CAUSE_LIMIT
    record = InstanceRecord(
        owner, 1 << 62, large.id, large.service, advertised, 65535, (), large.meta, 65535, S.MAINTENANCE, cause, 1 << 62
    )
    assert encoded_size(record) <= RECORD_BUDGET


def test_a_long_manifest_is_split_into_parts_that_fit():
    label = "x" * 63
    ids = [(f"{'i' * 120}{n}", n) for n in range(1_000)]
    parts = split_manifest(NodeId(label, label, 1 << 62), 1 << 62, ids)
    assert [entry for part in parts for entry in part.ids] == ids
    assert all(encoded_size(part) <= RECORD_BUDGET for part in parts)


def test_a_change_of_status_costs_one_record_and_no_manifest():
    a1 = Host()
    a1.ask(Register(spec(check=TTL)))
    a1.take_said()
    a1.ask(Heartbeat("web-1"))
    assert [type(fact) for fact in a1.take_said()] == [InstanceRecord]


def test_a_burst_of_registrations_does_not_pass_the_limit_while_the_disk_is_busy(monkeypatch):
    monkeypatch.setattr(own, "INSTANCES_PER_OWNER", 3)
    a1 = Host(services=(spec("web-1"), spec("web-2")))
    for number in (91, 92, 93):
        a1.catalog.register(number, Register(spec(f"late-{number % 2}")))
    a1.settle()
    assert [type(a1.replies[number]) for number in (91, 92, 93)] == [Done, Refused, Done]
    assert a1.replies[92].kind == "conflict"
    assert len(a1.statuses()) == 3


# ---- whose word it is


def test_what_a_clone_said_before_its_name_was_known_gives_way_to_the_living_member():
    elder, clone, other = Host("a1"), Host("a1", boot=9, services=(spec(port=9090),)), Host("a2")
    elder.ask(Register(spec()))
    other.hear(clone.take_said())
    assert other.status() is S.PASSING
    other.sees(elder)
    assert other.statuses() == {}
    assert not any(other.hear(clone.catalog.facts_of("fra/a1")))
    other.hear(elder.catalog.facts_of("fra/a1"))
    assert [one.port for one in other.catalog.service("shop.web").instances] == [8080]


def test_what_a_restart_says_before_its_member_record_is_here_is_taken_when_it_is_repeated():
    a1, a2 = two_hosts()
    again = a1.restarted(services=(spec("web-2"),))
    assert not any(a2.hear(again.take_said()))
    a2.sees(again)
    a2.hear(again.catalog.facts_of("fra/a1"), repaired=True)
    assert set(a2.statuses()) == {"fra/a1/web-1", "fra/a1/web-2"}


# ---- others


def test_news_is_passed_on_once_and_repairs_are_not():
    a1, a2 = two_hosts()
    facts = a2.take_said()
    assert [type(fact) for fact in facts] == [Manifest, Manifest, InstanceRecord, Manifest]  # a2's own, then a1's
    assert a2.hear(facts[1:]) == [False, False, False]
    a3 = Host("a3")
    a3.take_said()
    a3.hear(a1.catalog.facts_of("fra/a1"), repaired=True)
    assert a3.status() is S.PASSING
    assert a3.take_said() == []


def test_equal_knowledge_is_equal_in_the_ledger_whatever_the_way_there():
    a1, a2 = two_hosts()
    a1.ask(Register(spec("web-2")))
    a1.ask(Deregister("web-1"))
    a2.hear(reversed(a1.take_said()))
    assert a2.ledger.get("c/fra/a1") == a1.ledger.get("c/fra/a1") is not None
    a1.ask(Deregister("web-2"))
    a2.hear(reversed(a1.take_said()))
    assert a2.ledger.get("c/fra/a1") == a1.ledger.get("c/fra/a1") is not None


def test_an_owner_with_nothing_left_is_in_the_ledger_so_that_who_remembers_otherwise_is_repaired():
    a1 = Host("a1")
    assert a1.ledger.get("c/fra/a1") is not None


def test_a_restarted_owner_replaces_what_was_known_of_its_earlier_start():
    _, a2 = two_hosts()
    again = Host("a1", boot=2, services=(spec("web-9"),))
    a2.sees(again)
    assert list(a2.statuses()) == ["fra/a1/web-1"]  # as recorded, until the new start has spoken
    a2.hear(again.take_said())
    assert list(a2.statuses()) == ["fra/a1/web-9"]


def test_a_restart_alone_wakes_nobody():
    a1, a2 = Host("a1"), Host("a2")
    a2.sees(a1)
    a1.ask(Register(spec(address="10.0.0.9")))
    a2.hear(a1.take_said())
    changes = a2.changes_of()
    again = a1.restarted()
    a2.sees(again)
    assert any(a2.hear(again.take_said()))
    assert a2.changes_of() == changes


def test_nobody_else_can_change_own_instances():
    a1, _ = two_hosts()
    record = msgspec.structs.replace(a1.catalog.facts_of("fra/a1")[0], version=99, port=1)
    assert a1.hear([record]) == [False]
    assert a1.catalog.service("shop.web").instances[0].port == 8080


def test_a_refused_agent_leaves_its_services_unattended_then_critical_then_dropped():
    a1, a2 = two_hosts()
    a2.sees(a1, MemberState.DEAD, refused=True)
    assert a2.status() is S.UNATTENDED
    assert a2.ledger.get("c/fra/a1") is None
    a2.run(59 * SECOND)
    assert a2.status() is S.UNATTENDED
    a2.run(2 * SECOND)
    assert a2.status() is S.CRITICAL
    a2.run(8 * MINUTE)
    assert a2.status() is S.CRITICAL
    a2.run(2 * MINUTE)
    assert a2.statuses() == {}
    assert "owner/fra/a1" not in a2.disk


def test_the_brake_keeps_the_last_known_good():
    a1, a2 = two_hosts()
    held = {"fra": True}
    a2.catalog.brake = lambda datacenter: "too many at once" if held[datacenter] else ""
    a2.sees(a1, MemberState.DEAD, refused=True)
    a2.run(1 * HOUR)
    assert a2.status() is S.CRITICAL
    held["fra"] = False
    a2.run(11 * SECOND)
    assert a2.statuses() == {}


def test_a_silent_agent_makes_its_services_critical_at_once_and_remembered_for_72_hours():
    a1, a2 = two_hosts()
    a2.sees(a1, MemberState.DEAD)
    assert a2.status() is S.CRITICAL
    a2.run(71 * HOUR)
    assert a2.status() is S.CRITICAL
    a2.run(2 * HOUR)
    assert a2.statuses() == {}


def test_who_comes_back_is_as_recorded():
    a1, a2 = two_hosts()
    for refused in (True, False):
        a2.sees(a1, MemberState.DEAD, refused=refused)
        a2.run(30 * SECOND)
        a2.sees(a1)
        assert a2.status() is S.PASSING
        a2.run(11 * MINUTE)
        assert a2.status() is S.PASSING


def test_who_left_took_his_services_along_and_rumours_do_not_bring_them_back():
    a1, a2 = two_hosts()
    facts = a1.catalog.facts_of("fra/a1")
    a2.sees(a1, MemberState.LEFT)
    assert a2.statuses() == {}
    assert a2.hear(facts, repaired=True) == [False, False]
    a2.sees(a1)
    assert a2.hear(facts, repaired=True) == [True, True]
    assert a2.status() is S.PASSING


def test_a_forgotten_owner_stays_forgotten():
    a1, a2 = two_hosts()
    a2.sees(a1, MemberState.DEAD)
    facts = a2.catalog.facts_of("fra/a1")
    a2.forgets(a1)
    assert a2.statuses() == {}
    assert a2.hear(facts, repaired=True) == [False, False]


def test_facts_that_overtake_their_member_are_shown_and_kept_only_if_it_comes():
    a1, a3 = Host("a1", services=(spec(),)), Host("a3")
    a3.hear(a1.take_said())
    assert a3.status() is S.PASSING
    a3.run(30 * SECOND)
    a3.sees(a1)
    a3.run(5 * MINUTE)
    assert a3.status() is S.PASSING
    a4 = Host("a4")
    a4.hear(a1.catalog.facts_of("fra/a1"))
    a4.run(61 * SECOND)
    assert a4.statuses() == {}


# ---- the disk's memory of others


def test_a_restarted_agent_answers_with_the_age_of_what_it_remembers():
    a1, a2 = two_hosts()
    a2.run(5 * MINUTE)
    again = a2.restarted(after=10 * MINUTE, now=3 * SECOND)
    (view,) = again.catalog.service("shop.web").instances
    assert view.status is S.PASSING
    assert 10 * MINUTE <= again.out.now - view.as_of <= 11 * MINUTE
    assert again.catalog.facts_of("fra/a1") == []
    assert again.ledger.get("c/fra/a1") is None
    again.sees(a1)
    assert again.ledger.get("c/fra/a1") is None
    again.hear(a1.catalog.facts_of("fra/a1"), repaired=True)
    assert again.catalog.facts_of("fra/a1") != []
    assert again.ledger.get("c/fra/a1") == a1.ledger.get("c/fra/a1")
    again.run(SECOND)
    assert again.catalog.service("shop.web").instances[0].as_of == again.out.now


def test_others_records_are_written_seldom():
    a1, a2 = two_hosts()
    a2.run(10 * SECOND)
    assert "owner/fra/a1" in a2.disk
    stores = a2.out._store_seq
    for port in range(1_000, 1_100):
        a1.ask(Register(spec(port=port)))
        a2.hear(a1.take_said())
        a2.run(40 * MILLISECOND)
    assert a2.out._store_seq - stores <= 1


def test_an_unreadable_disk_record_is_reported_and_skipped():
    disk = {"instance/x": b"\xc1", "owner/fra/a9": b"junk", "drain/fra": b"", "draining/x": b"\xc1"}
    a1 = Host(disk=disk, services=(spec("x"),))
    assert a1.status("fra/a1/x") is S.PASSING
    assert a1.out.counters["input_dropped"] == 4


# ---- drains and maintenance


def test_a_drained_instance_says_so_until_its_time_is_over():
    a1, a2 = two_hosts()
    a1.ask(SetDraining("web-1", "instance", True, expires=60 * SECOND, reason="upgrade"))
    a2.hear(a1.take_said())
    (view,) = a2.catalog.service("shop.web").instances
    assert (view.status, view.output, view.drain_until) == (S.DRAINING, "upgrade", a2.out.now + 60 * SECOND)
    a1.run(61 * SECOND)
    assert a1.status() is S.PASSING
    assert "draining/web-1" not in a1.disk


def test_a_drain_and_maintenance_survive_a_restart():
    a1 = Host(services=(spec("web-1"), spec("web-2")))
    a1.ask(SetDraining("web-1", "instance", True, expires=60 * SECOND))
    a1.ask(SetMaintenance("web-2", True))
    again = a1.restarted(after=30 * SECOND, services=(spec("web-1"), spec("web-2")))
    assert again.statuses() == {"fra/a1/web-1": S.DRAINING, "fra/a1/web-2": S.MAINTENANCE}
    again.run(31 * SECOND)
    again.ask(SetMaintenance("", False))
    assert set(again.statuses().values()) == {S.PASSING}


def test_a_drained_node_obeys_from_afar_and_comes_back():
    a1, a2 = two_hosts()
    a2.take_said()
    assert isinstance(a2.ask(SetDraining("fra/a1", "node", True, reason="disk swap")), Done)
    (order,) = a2.take_said()
    a1.hear([order])
    assert a1.status() is S.DRAINING
    assert a1.restarted().status() is S.DRAINING
    a2.ask(SetDraining("fra/a1", "node", False))
    a1.hear(a2.take_said())
    assert a1.status() is S.PASSING
    assert a1.hear([order]) == [False]


def test_a_drained_datacenter_ends_by_itself():
    a1, a2 = two_hosts()
    a2.ask(SetDraining("fra", "datacenter", True, expires=60 * SECOND))
    orders = [fact for fact in a2.take_said() if isinstance(fact, DrainOrder)]
    a1.hear(orders)
    assert a1.status() is S.DRAINING
    assert a1.ledger.get("d/fra") == a2.ledger.get("d/fra") is not None
    a1.run(30 * SECOND)
    (told,) = a1.catalog.drains_of("fra")
    assert told.left == 30 * SECOND
    a1.run(31 * SECOND)
    assert a1.status() is S.PASSING
    assert a1.ledger.get("d/fra") is None


def test_drains_of_nobody_known_are_refused():
    a1 = Host()
    assert a1.ask(SetDraining("fra/zz", "node", True)).kind == "unknown"
    assert a1.ask(SetDraining("wdc", "datacenter", True)).kind == "unknown"
    assert a1.ask(SetDraining("zz", "instance", True)).kind == "unknown"
    assert a1.ask(SetDraining("zz", "planet", True)).kind == "invalid"


# ---- load


def test_load_is_told_coarsely_and_at_most_once_a_second():
    a1, a2 = two_hosts()
    for step in range(100):
        a1.ask(ReportLoad("web-1", Load(step / 100, step)))
        a1.run(20 * MILLISECOND)
    a1.run(2 * SECOND)
    notes = a1.take_said()
    assert 3 <= len(notes) <= 4
    a2.hear(notes)
    (view,) = a2.catalog.service("shop.web").instances
    assert view.load == Load(1.0, 96, 0)
    a1.ask(ReportLoad("web-1", Load(0.98, 100)))
    a1.run(2 * SECOND)
    assert a1.take_said() == []


def test_the_load_of_the_host_stands_in_for_instances_that_report_none():
    a1, a2 = two_hosts()
    a1.ask(Register(spec("web-2")))
    a1.catalog.host_load_reported(LoadReported(Load(0.5)))
    a1.ask(ReportLoad("web-1", Load(0.25)))
    facts = a1.take_said()
    a2.hear(facts)
    for host in (a1, a2):
        loads = {view.id: view.load.utilization for view in host.catalog.service("shop.web").instances}
        assert loads == {"web-1": 0.25, "web-2": 0.5}
    older = msgspec.structs.replace(next(f for f in facts if isinstance(f, LoadNote)), stamp=0)
    assert a2.hear([older]) == [False]


def test_absurd_loads_are_refused():
    a1, _ = two_hosts()
    for load in (Load(float("nan")), Load(-1.0), Load(float("inf")), Load(0.5, -1), Load(0.5, 1, float("nan"))):
        assert a1.ask(ReportLoad("web-1", load)).kind == "invalid"
    for load, field in (
        (Load(0.5, 1, 1e9), "load.rate"),
        (Load(0.5, 1, float("inf")), "load.rate"),
        (Load(0.5, 1, -1.0), "load.rate"),
        (Load(0.5, 10**9), "load.in_flight"),
    ):
        refusal = a1.ask(ReportLoad("web-1", load))
        assert (refusal.kind, refusal.field, "0 to 1000000" in refusal.expected) == ("invalid", field, True)
    assert isinstance(a1.ask(ReportLoad("nobody", Load())), Refused)


def test_load_moves_no_index():
    a1, _ = two_hosts()
    index = a1.catalog.service("shop.web").index
    a1.ask(ReportLoad("web-1", Load(0.5)))
    view = a1.catalog.service("shop.web")
    assert (view.index, view.instances[0].load.utilization) == (index, 0.5)


# ---- the steady state


def test_without_checks_and_changes_a_lone_agent_wants_no_timer():
    a1 = Host(services=(spec(),))
    assert a1.out.deadline() == 1 << 62


def test_a_newcomer_is_told_by_repair_how_busy_an_instance_is():
    a1, a2 = two_hosts()
    a1.ask(ReportLoad("web-1", Load(0.5, 3, 20.0)))
    a2.hear(a1.take_said())
    newcomer = Host("a3")
    newcomer.sees(a1)
    newcomer.hear(a2.catalog.facts_of("fra/a1"), repaired=True)
    assert newcomer.catalog.service("shop.web").instances[0].load == a2.catalog.service("shop.web").instances[0].load
    assert newcomer.catalog.service("shop.web").instances[0].load.utilization == 0.5


def test_the_load_of_a_host_may_come_before_its_first_instance():
    a1, a2 = two_hosts()
    a1.catalog.host_load_reported(LoadReported(Load(0.25)))
    a1.settle()
    newcomer = Host("a3")
    newcomer.sees(a1)
    facts = a2.catalog.facts_of("fra/a1")
    newcomer.hear([fact for fact in a1.take_said() if isinstance(fact, LoadNote)])
    newcomer.hear(facts, repaired=True)
    assert newcomer.catalog.service("shop.web").instances[0].load.utilization == 0.25
