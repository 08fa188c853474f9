"""A gate holds, fails, or has no data: three answers."""

import msgspec
import pytest

from dislocate.core.boundary.spec import Gate
from dislocate.core.boundary.values import Load
from dislocate.core.runs.control.gates import Reading, Verdict, judge
from dislocate.core.runs.control.picture import Seen
from dislocate.core.units import MILLISECOND
from tests.support.tiny_runs import instances

HALF = Gate(service="web", passing=0.5)
ALL = Gate(service="web")
CALM = Gate(service="web", passing=0.0, utilization=0.8)


def reading(gate, text, nodes="fra/a1 fra/a2", **changes):
    found = instances(text)
    if changes:
        first, *rest = found["web"]
        found = {"web": (msgspec.structs.replace(first, **changes), *rest)}
    return judge(gate, nodes.split(), Seen(unix=1, instances=found), 0)


@pytest.mark.parametrize(
    ("gate", "text", "verdict"),
    [
        (ALL, "fra/a1 passing, fra/a2 passing", Verdict.HOLDS),
        (ALL, "fra/a1 passing, fra/a2 critical", Verdict.FAILS),
        (ALL, "fra/a1 passing, fra/a2 starting", Verdict.FAILS),
        (ALL, "fra/a1 passing, fra/a2 unattended", Verdict.NO_DATA),
        (HALF, "fra/a1 passing, fra/a2 unattended", Verdict.HOLDS),
        (HALF, "fra/a1 critical, fra/a2 unattended", Verdict.NO_DATA),
        (HALF, "fra/a1 critical, fra/a2 critical", Verdict.FAILS),
        (CALM, "fra/a1 passing 0.5, fra/a2 passing 0.7", Verdict.HOLDS),
        (CALM, "fra/a1 passing 0.5, fra/a2 passing 0.9", Verdict.FAILS),
        (CALM, "fra/a1 passing 0.5, fra/a2 passing", Verdict.NO_DATA),
        (CALM, "fra/a1 passing, fra/a2 passing 0.9", Verdict.FAILS),
    ],
)
def test_a_gate_reads_health_and_load(gate, text, verdict):
    assert reading(gate, text).verdict is verdict


def test_only_instances_on_the_changed_nodes_count():
    assert reading(ALL, "fra/a1 passing, wdc/b1 critical", nodes="fra/a1").verdict is Verdict.HOLDS


def test_a_service_without_instances_on_these_nodes_has_no_data():
    assert reading(ALL, "wdc/b1 passing") == Reading(Verdict.NO_DATA, "there is no web on fra/a1, fra/a2")


def test_an_instance_that_is_out_of_reach_or_suspected_tells_nothing():
    both = "fra/a1 passing, fra/a2 passing"
    assert reading(ALL, both, reachable=False).verdict is Verdict.NO_DATA
    assert reading(ALL, both, suspected=True).verdict is Verdict.NO_DATA
    assert "nobody knows about those on fra/a1" in reading(ALL, both, suspected=True).words


def test_critical_is_certain_and_starting_may_end():
    assert reading(ALL, "fra/a1 passing, fra/a2 critical").is_certain
    assert not reading(ALL, "fra/a1 passing, fra/a2 starting").is_certain
    assert not reading(HALF, "fra/a1 starting, fra/a2 critical").is_certain


def test_words_name_the_instances_that_are_not_passing():
    words = reading(ALL, "fra/a1 passing, fra/a2 critical").words
    assert words == "1 of 2 web passing, 2 wanted: fra/a2 critical"


def test_another_gauge_is_asked_too_and_the_worst_reading_counts():
    class Errors:
        def judge(self, gate, nodes, seen, since):
            return Reading(Verdict.FAILS, "3 % of requests fail", True)

    seen = Seen(unix=1, instances=instances("fra/a1 passing"))
    assert judge(ALL, ["fra/a1"], seen, 0, [Errors()]) == Reading(Verdict.FAILS, "3 % of requests fail", True)


def test_a_gate_that_no_gauge_knows_has_no_data():
    assert judge(ALL, ["fra/a1"], Seen(unix=1), 0, []).verdict is Verdict.NO_DATA


# ---- what callers say

FEW = Gate(service="web", passing=0.0, errors=0.02)
QUICK = Gate(service="web", passing=0.0, p99=200 * MILLISECOND)


def called(gate, changed="fra/a1", **loads):
    """What the gate reads of instances on nodes `dc_name` with (errors, p99 in seconds), or None: nobody calls it."""
    found = instances(", ".join(f"{name.replace('_', '/')} passing" for name in loads))["web"]
    told = tuple(
        msgspec.structs.replace(one, load=Load(0.5, 1, 10.0, *(given or (0.0, 0.0))))
        for one, given in zip(found, (loads[one.node.replace("/", "_")] for one in found), strict=True)
    )
    seen = Seen(unix=1, instances={"web": told}, changed=frozenset(changed.split()))
    return judge(gate, changed.split(), seen, 0)


@pytest.mark.parametrize(
    ("gate", "canary", "verdict"),
    [
        (FEW, (0.01, 0.1), Verdict.HOLDS),
        (FEW, (0.05, 0.1), Verdict.FAILS),
        (FEW, (1.0, 0.0), Verdict.FAILS),
        (FEW, None, Verdict.NO_DATA),
        (QUICK, (0.0, 0.15), Verdict.HOLDS),
        (QUICK, (0.0, 0.25), Verdict.FAILS),
        (QUICK, None, Verdict.NO_DATA),
    ],
)
def test_a_gate_reads_what_callers_say_and_an_instance_that_nobody_calls_has_no_data(gate, canary, verdict):
    assert called(gate, fra_a1=canary).verdict is verdict


def test_one_bad_instance_counts_more_than_one_that_nobody_calls():
    assert called(FEW, "fra/a1 fra/a2", fra_a1=None, fra_a2=(0.5, 0.1)).verdict is Verdict.FAILS
    assert called(FEW, "fra/a1 fra/a2", fra_a1=None, fra_a2=(0.0, 0.1)).verdict is Verdict.NO_DATA


@pytest.mark.parametrize(
    ("canary", "control", "verdict"),
    [
        ((0.05, 0.1), (0.001, 0.1), Verdict.FAILS),
        ((0.05, 0.1), (0.04, 0.1), Verdict.HOLDS),
        ((0.09, 0.1), (0.04, 0.1), Verdict.FAILS),
        ((0.01, 0.1), (0.001, 0.1), Verdict.HOLDS),
        ((0.05, 0.1), None, Verdict.FAILS),
    ],
)
def test_a_canary_is_compared_with_those_beside_it_that_are_not_changed(canary, control, verdict):
    gate = msgspec.structs.replace(FEW, control=1.5)
    assert called(gate, fra_a1=canary, fra_a2=control).verdict is verdict


def test_neither_another_data_center_nor_a_changed_node_is_a_control():
    gate = msgspec.structs.replace(FEW, control=1.5)
    assert called(gate, fra_a1=(0.05, 0.1), wdc_b1=(0.05, 0.1)).verdict is Verdict.FAILS
    assert called(gate, "fra/a1 fra/a2", fra_a1=(0.05, 0.1), fra_a2=(0.05, 0.1)).verdict is Verdict.FAILS


def test_the_words_have_both_figures():
    gate = msgspec.structs.replace(QUICK, control=2.0)
    words = called(gate, fra_a1=(0.0, 0.5), fra_a2=(0.0, 0.1)).words
    assert words == "web answering within 200 ms (p99) is exceeded: fra/a1 500 ms, 100 ms without the change"


def test_instances_out_of_reach_tell_nothing_of_their_callers_either():
    both = instances("fra/a1 passing, fra/a2 passing")["web"]
    lost = tuple(msgspec.structs.replace(one, load=Load(0.5, 1, 1.0, 0.9, 0.1), reachable=False) for one in both)
    assert judge(FEW, ["fra/a1"], Seen(unix=1, instances={"web": lost}), 0).verdict is Verdict.NO_DATA
