"""Any nodes that fail, go away and come back, any operators, and leaders that die: what the controller never does, and that
it always comes to an end once everybody is back."""

from hypothesis import given, note, settings
from hypothesis import strategies as st

from dislocate.core.boundary.runs import OVER, Direction, Hold, NodeState, RunState, Verb
from dislocate.core.boundary.spec import Gate, OnFailure
from dislocate.core.runs.control.picture import REPORTED
from dislocate.core.runs.ledger.transitions import IN_FLIGHT
from dislocate.core.runs.steps import OpenBatch, RunStep
from dislocate.core.tunables import RUN_RETRY
from dislocate.core.units import SECOND
from tests.support.tiny_control import TinyRun, TinyStore, ahead
from tests.support.tiny_runs import instances, picture, said

PLANS = (
    "canary: fra/a1 | fra: fra/a2 fra/a3 | wdc: wdc/b1 wdc/b2",
    "fra: fra/a1 fra/a2 fra/a3 wdc/b1 wdc/b2",
    "fra+wdc: fra/a1 wdc/b1 | fra+wdc: fra/a2 wdc/b2 | fra+wdc: fra/a3",
)
NODES = ("fra/a1", "fra/a2", "fra/a3", "wdc/b1", "wdc/b2")
FLOOR = 0.5
HEALTHS = ("passing", "critical", "starting", "unattended")

NODE = st.sampled_from(NODES)
PLACE = st.sampled_from((*NODES, "fra/*", "wdc/*"))
STEPS = (Verb.PAUSE, Verb.RESUME, Verb.PROMOTE, Verb.SKIP, Verb.RETRY)
TIMES = st.sampled_from(("0s", "1s", "3s", "6s", "15s"))
HAPPENINGS = st.one_of(
    st.tuples(st.just("works"), TIMES),  # nodes begin what they are granted, and report
    st.tuples(st.just("idles"), TIMES),  # they do not
    st.tuples(st.just("begins"), NODE),
    st.tuples(st.just("breaks"), NODE),
    st.tuples(st.just("away"), PLACE),
    st.tuples(st.just("back"), PLACE),
    st.tuples(st.sampled_from(("leader", "lost")), st.none()),
    st.tuples(st.just("health"), st.tuples(NODE, st.sampled_from(HEALTHS))),
    st.tuples(st.sampled_from(STEPS), NODE),
)
BAD = st.lists(NODE, max_size=3, unique=True)
AWAY = st.lists(PLACE, max_size=2)


class Watched(TinyStore):
    """Judges each step at the moment when it is proposed."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, int] = {}  # by version: when a step for it was proposed
        self.now = 0
        self.loses = False  # the next step, with the leader of that moment
        self.reported: dict[str, int] = {}  # by node: when the leader heard what became of it

    def report(self, node, *what, **more) -> None:
        super().report(node, *what, **more)
        self.reported[node] = self.now

    def propose(self, step: RunStep) -> bool:
        before = self.picture()
        note(f"{self.now / SECOND:.1f}: {said(step)}")
        assert step.version == before.record.version
        assert self.now - self.last.get(step.version, -RUN_RETRY) >= RUN_RETRY, "two steps at one version"
        self.last[step.version] = self.now
        if isinstance(step, OpenBatch):
            assert before.record.state in (RunState.RUNNING, RunState.REVERTING)
            assert before.record.direction is Direction.REVERT or not before.is_spent
            assert not any(node in ahead(before) for node in step.nodes), "before their batch's turn"
            self._keeps_the_floor(before, step)
        if self.loses:
            self.loses = False
            return True
        return super().propose(step)

    def _keeps_the_floor(self, before, step) -> None:
        if not before.strategy.floor:
            return
        flying = {*before.in_flight, *step.nodes}
        fresh = [node for node in before.those(*REPORTED) if self.now - self.reported[node] < before.strategy.settle]
        for datacenter in ("fra", "wdc"):
            there = [one for one in self.fleet.instances("web") if one.datacenter == datacenter]
            well = [one for one in there if one.status.value == "passing" and one.node not in fresh]
            left = [one for one in well if one.node not in flying]
            takes = any(one.node in step.nodes for one in well)
            assert not takes or len(left) >= FLOOR * len(there)


class Fleet:
    """A run whose nodes, leaders and operators do as they are told."""

    def __init__(self, begun) -> None:
        self.store = Watched()
        self.store.begin(begun)
        self.run = TinyRun(begun, self.store)
        self.store.fleet = self.run.fleet
        self.health = dict.fromkeys(NODES, "passing")
        self._show()

    def do(self, what, how) -> None:
        run, store = self.run, self.store
        match what:
            case "works" | "idles":
                self.pass_(how, work=what == "works")
            case "begins":
                run.work(how)
            case "breaks":
                run.bad[how] = "broken"
            case "away":
                run.fleet.away.append(how)
            case "back":
                run.fleet.away = [one for one in run.fleet.away if one != how]
            case "leader":
                store.last.clear()
                store.reported = dict.fromkeys(store.reported, run.now)  # it has not seen how long ago that was
                run.new_leader()
            case "lost":
                store.loses = True
            case "health":
                self.health[how[0]] = how[1]
                self._show()
            case _:
                store.steer(what, how)

    def pass_(self, time, *, work=False) -> None:
        self.store.now = self.run.now
        self.run.run(time, work=work, at=lambda now: setattr(self.store, "now", now))

    def heal(self) -> None:
        self.run.fleet.away.clear()
        self.health = dict.fromkeys(NODES, "passing")
        self._show()

    def _show(self) -> None:
        self.run.fleet.found = instances(", ".join(f"{node} {how} 0.5" for node, how in self.health.items()))


@st.composite
def runs(draw):
    strategy = {
        "soak": draw(st.sampled_from((0, 5 * SECOND))),
        "settle": draw(st.sampled_from((0, 2 * SECOND))),
        "on_failure": draw(st.sampled_from(OnFailure)),
        "floor": draw(st.sampled_from(({}, {"web": FLOOR}))),
        "node_within": 20 * SECOND,
    }
    gates = draw(st.sampled_from(((), (Gate(service="web", window=4 * SECOND, utilization=0.9),))))
    return picture(draw(st.sampled_from(PLANS)), strategy=strategy, gates=gates, budget=draw(st.integers(0, 2)))


@settings(deadline=None, max_examples=200)
@given(runs(), BAD, AWAY, st.lists(HAPPENINGS, min_size=8, max_size=40))
def test_a_run_is_controlled_legally_and_comes_to_an_end(begun, bad, away, happenings):
    fleet = Fleet(begun)
    fleet.run.bad.update(dict.fromkeys(bad, "broken"))
    fleet.run.fleet.away += away
    for what, how in happenings:
        note(f"{what} {how}")
        fleet.do(what, how)
    assert fleet.store.refused == []
    fleet.heal()
    note("all is well again")
    for _ in range(20):
        fleet.pass_("30s", work=True)
        now = fleet.store.picture()
        if now.record.state in OVER:
            break
        _operate(fleet.run, now)
    assert fleet.store.refused == []
    assert now.record.state in OVER, f"{now.record} {now.tasks}"
    _ends_in_one_state(now)


def _operate(run, now) -> None:
    """What words tell an operator to do."""
    if now.record.hold in (Hold.OPERATOR, Hold.FAILURE, Hold.DEADLINE):
        run.bad.clear()
        for node in now.failed:
            run.store.steer(Verb.RETRY, node)
        run.store.steer(Verb.RESUME)


def _ends_in_one_state(now) -> None:
    ends = {
        RunState.DONE: (NodeState.DONE, NodeState.FAILED, NodeState.UNREACHABLE, NodeState.SKIPPED),
        RunState.REVERTED: (NodeState.REVERTED, NodeState.SKIPPED, NodeState.PENDING, NodeState.UNREACHABLE),
    }
    for node in NODES:
        state = now.state(node)
        assert state not in IN_FLIGHT or now.record.state is RunState.FAILED
        assert state in ends.get(now.record.state, tuple(NodeState)), f"{node} {state}"
