"""When checks and heartbeats change a status, and when they run."""

from itertools import pairwise

from dislocate.core.boundary.inputs import CheckCompleted
from dislocate.core.boundary.requests import Deregister, Done, Heartbeat, Register, SetDraining, SetMaintenance
from dislocate.core.boundary.values import CheckOutcome, MemberState, Status
from dislocate.core.catalog.fate import Fate, fate_after, seen_as
from dislocate.core.catalog.health import Health, decayed
from dislocate.core.tunables import FLAP_HALF_LIFE
from dislocate.core.units import HOUR, MINUTE, SECOND
from tests.support.catalog_host import HTTP, TTL, Host, spec

S = Status
P, W, C = S.PASSING, S.WARNING, S.CRITICAL


def judged(start, *found, every=5 * SECOND):
    """The status after each of the results, `every` apart."""
    health = Health(start)
    statuses = []
    for at, one in enumerate(found):
        health.observe(one, at * every)
        statuses.append(health.status)
    return statuses


# ---- the rules


def test_two_successes_bring_up_and_three_failures_take_down():
    assert judged(S.STARTING, P, P) == [S.STARTING, P]
    assert judged(P, C, C, C) == [P, P, C]
    assert judged(P, C, C, P, C, C, C) == [P, P, P, P, P, C]
    assert judged(C, P, C, P, P) == [C, C, C, P]


def test_a_warning_is_a_success_of_its_own_kind():
    assert judged(S.STARTING, W, W) == [S.STARTING, W]
    assert judged(P, W, W) == [P, W]
    assert judged(P, W, P, W, P) == [P, P, P, P]
    assert judged(C, P, W) == [C, W]


def test_a_starting_instance_is_not_condemned_before_three_ordinary_intervals():
    health = Health(S.STARTING, patient_until=10 * SECOND)
    for tick in range(19):
        health.observe(C, tick * SECOND // 2)
    assert health.status is S.STARTING
    health.observe(C, 10 * SECOND)
    assert health.status is C


def test_the_flap_penalty_halves_each_minute():
    assert abs(decayed(4.0, FLAP_HALF_LIFE) - 2.0) < 1e-12
    assert abs(decayed(4.0, 2 * FLAP_HALF_LIFE) - 1.0) < 1e-12


def test_what_flaps_stays_down_until_it_has_been_quiet():
    health = Health(P)
    now = 0
    for _ in range(4):
        for found in (C, C, C, P, P):
            now += SECOND
            health.observe(found, now)
    assert health.status is C
    assert health.damping.is_holding
    while health.status is C:
        now += 5 * SECOND
        health.observe(P, now)
    assert 90 * SECOND < now < 3 * MINUTE
    assert not health.damping.is_holding


def test_fate_is_a_timeline_of_the_agents_state():
    assert fate_after(MemberState.ALIVE, False, HOUR)[0] is Fate.ATTENDED
    assert fate_after(MemberState.SUSPECT, False, HOUR)[0] is Fate.SUSPECTED
    assert fate_after(MemberState.LEFT, False, 0)[0] is Fate.GONE
    refused = [fate_after(MemberState.DEAD, True, at)[0] for at in (0, 60 * SECOND, 600 * SECOND)]
    assert refused == [Fate.UNATTENDED, Fate.LOST, Fate.GONE]
    silent = [fate_after(MemberState.DEAD, False, at)[0] for at in (0, 71 * HOUR, 72 * HOUR)]
    assert silent == [Fate.LOST, Fate.LOST, Fate.GONE]


def test_an_unattended_drain_or_failure_is_not_made_better():
    assert seen_as(S.DRAINING, Fate.UNATTENDED) is S.DRAINING
    assert seen_as(S.CRITICAL, Fate.UNATTENDED) is S.CRITICAL
    assert seen_as(S.WARNING, Fate.UNATTENDED) is S.UNATTENDED
    assert seen_as(S.DRAINING, Fate.LOST) is S.CRITICAL


# ---- checks


def test_a_fresh_instance_whose_check_passes_is_up_within_a_second():
    a1 = Host()
    a1.ask(Register(spec(check=HTTP)))
    assert a1.status() is S.STARTING
    a1.run(1 * SECOND)
    assert a1.status() is P


def test_a_slow_starter_is_up_within_two_seconds_of_being_ready():
    a1 = Host()
    a1.verdict = C
    a1.ask(Register(spec(check=HTTP)))
    a1.run(8 * SECOND)
    assert a1.status() is S.STARTING
    a1.verdict = P
    a1.run(2 * SECOND)
    assert a1.status() is P


def test_a_failing_instance_is_critical_after_three_checks_and_says_why():
    a1 = Host()
    a1.ask(Register(spec(check=HTTP)))
    a1.run(1 * SECOND)
    a1.verdict = C
    a1.run(17 * SECOND)
    (view,) = a1.catalog.service("shop.web").instances
    assert (view.status, view.output) == (C, "said critical")


def test_intervals_are_jittered_by_a_tenth():
    a1 = Host()
    a1.ask(Register(spec(check=HTTP)))
    a1.run(2 * SECOND)
    at = []
    while len(at) < 30:
        before = len(a1.checks)
        a1.run(SECOND // 100)
        at += [a1.out.now] * (len(a1.checks) - before)
    gaps = [b - a for a, b in pairwise(at)]
    assert all(4.4 * SECOND <= gap <= 5.6 * SECOND for gap in gaps)
    assert len(set(gaps)) > 5


def test_one_check_is_in_flight_and_results_of_an_earlier_registration_are_ignored():
    a1 = Host()
    a1.verdict = None
    a1.ask(Register(spec(check=HTTP)))
    a1.run(1 * MINUTE)
    assert len(a1.checks) == 1
    a1.ask(Register(spec(check=HTTP, port=9090)))
    assert len(a1.checks) == 2
    for _ in range(3):
        a1.catalog.check_completed(CheckCompleted(a1.checks[0].check_id, CheckOutcome(P)))
    a1.settle()
    assert a1.out.counters["check_results_outdated"] == 3
    assert a1.status() is S.STARTING


def test_a_deregistered_instance_is_checked_no_more():
    a1 = Host()
    a1.ask(Register(spec(check=HTTP)))
    a1.run(10 * SECOND)
    a1.ask(Deregister("web-1"))
    checks = len(a1.checks)
    a1.run(1 * MINUTE)
    assert len(a1.checks) == checks


# ---- heartbeats


def test_a_heartbeat_counts_at_once_and_so_does_silence():
    a1 = Host()
    a1.ask(Register(spec(check=TTL)))
    assert a1.status() is S.STARTING
    assert isinstance(a1.ask(Heartbeat("web-1")), Done)
    assert a1.status() is P
    for _ in range(5):
        a1.run(9 * SECOND)
        a1.ask(Heartbeat("web-1"))
    assert a1.status() is P
    a1.run(11 * SECOND)
    (view,) = a1.catalog.service("shop.web").instances
    assert (view.status, view.output) == (C, "no heartbeat for 10s")
    a1.ask(Heartbeat("web-1", W, "disk nearly full"))
    assert a1.status() is W


def test_who_never_calls_in_is_critical_after_the_ttl():
    a1 = Host()
    a1.ask(Register(spec(check=TTL)))
    a1.run(11 * SECOND)
    assert a1.status() is C


def test_an_instance_that_flaps_is_held_down_and_says_so():
    a1 = Host(services=(spec(check=TTL),))
    for _ in range(4):
        for status in (P, C):
            a1.ask(Heartbeat("web-1", status, "queue"))
            a1.run(SECOND)
    a1.ask(Heartbeat("web-1", P))
    assert a1.status() is C
    assert a1.catalog.history.of("fra/a1/web-1")[-1].why.startswith("flapping")
    for _ in range(30):
        a1.run(5 * SECOND)
        a1.ask(Heartbeat("web-1", P))
    assert a1.status() is P


def test_heartbeats_that_make_no_sense_are_refused():
    a1 = Host(services=(spec(check=HTTP), spec("ttl-1", check=TTL)))
    assert a1.ask(Heartbeat("nobody")).kind == "unknown"
    assert a1.ask(Heartbeat("web-1")).field == "id"
    assert a1.ask(Heartbeat("ttl-1", S.DRAINING)).field == "status"


# ---- what operators say


def test_maintenance_hides_everything_and_a_drain_all_but_a_failure():
    a1 = Host(services=(spec(check=TTL),))
    a1.ask(Heartbeat("web-1"))
    a1.ask(SetDraining("web-1", "instance", True))
    assert a1.status() is S.DRAINING
    a1.ask(Heartbeat("web-1", C))
    assert a1.status() is C
    a1.ask(SetMaintenance("web-1", True, "new disk"))
    assert a1.status() is S.MAINTENANCE
    a1.ask(Heartbeat("web-1", P))
    a1.ask(SetMaintenance("web-1", False))
    a1.ask(SetDraining("web-1", "instance", False))
    assert a1.status() is P
