"""Expectations are judged from answers alone: any world that answers can be judged."""

from types import SimpleNamespace

from dislocate.core.boundary.values import MemberState, Status
from dislocate.core.units import SECOND
from sim.expectations import Judge, in_words
from sim.scenario import Expect
from sim.selectors import Layout


class Answers:
    """Two agents that answer what a test says."""

    def __init__(self):
        self.layout = Layout({"fra": 2, "wdc": 1}, {"shop.web": (1, ("fra",))})
        self.up = list(self.layout.paths)
        self.dead = {}
        self.unreachable = {}
        self.status = Status.PASSING
        self.events = {}
        self.changes = 0
        self.asked = 0

    def observers_up(self):
        return tuple(self.up)

    def is_up(self, path):
        return path in self.up

    def version(self, path):
        return (1, self.changes)

    def members(self, path):
        self.asked += 1
        dead = self.dead.get(path, ())
        return {
            p: SimpleNamespace(state=MemberState.DEAD if p in dead else MemberState.ALIVE) for p in self.layout.paths
        }

    def datacenters(self, path):
        return {
            name: SimpleNamespace(reachable=name not in self.unreachable.get(path, ())) for name in self.layout.nodes
        }

    def instances(self, path, service):
        return [SimpleNamespace(id="shop.web-1", node="fra/a1", status=self.status, reachable=True)]

    def happened(self, what):
        return self.events.get(what, 0)

    def measured(self, what, since):
        return 7.5


def judged(answers, expect, *steps):
    """The verdict after one look a second, with `steps[t]` done before the look at `t`."""
    judge = Judge([expect], answers)
    for at in range(10):
        for when, step in steps:
            if when == at:
                step()
                answers.changes += 1
        judge.look(at * SECOND)
    (verdict,) = judge.conclude(10 * SECOND)
    return verdict


def test_always_fails_at_the_first_answer_against_it():
    answers = Answers()
    verdict = judged(answers, Expect("always", "nobody_dead"), (3, lambda: answers.dead.update({"wdc/a1": ["fra/a2"]})))
    assert not verdict.holds
    assert verdict.at == 3 * SECOND
    assert verdict.why == "wdc/a1 says that fra/a2 is dead"


def test_always_holds_until_it_no_longer_has_to():
    answers = Answers()
    expect = Expect("always", "nobody_dead", until=2 * SECOND)
    assert judged(answers, expect, (3, lambda: answers.dead.update({"wdc/a1": ["fra/a2"]}))).holds


def test_always_that_nobody_could_answer_does_not_hold():
    answers = Answers()
    answers.up = []
    verdict = judged(answers, Expect("always", "nobody_dead"))
    assert not verdict.holds
    assert verdict.why == "nobody is there to answer"


def test_eventually_says_when_it_came_true():
    answers = Answers()
    expect = Expect("eventually", "dead", of="fra/a2", by="fra/a1", after=2 * SECOND, within=5 * SECOND)
    verdict = judged(answers, expect, (4, lambda: answers.dead.update({"fra/a1": ["fra/a2"]})))
    assert verdict.holds
    assert verdict.why == "at 4.0s, 2.0s after 2.0s"


def test_eventually_too_late_is_never():
    answers = Answers()
    expect = Expect("eventually", "dead", of="fra/a2", by="fra/a1", within=3 * SECOND)
    verdict = judged(answers, expect, (5, lambda: answers.dead.update({"fra/a1": ["fra/a2"]})))
    assert not verdict.holds
    assert verdict.why == "fra/a1 says that fra/a2 is alive"


def test_sometimes_needs_one_event():
    answers = Answers()
    assert not judged(answers, Expect("sometimes", "suspected")).holds
    answers.events["MemberSuspected"] = 1
    assert judged(answers, Expect("sometimes", "suspected")).holds


def test_a_budget_is_compared_at_the_end():
    assert judged(Answers(), Expect("budget", "msgs_per_node_s", at_most=8)).holds
    assert not judged(Answers(), Expect("budget", "msgs_per_node_s", at_most=7)).holds


def test_reachability_is_asked_from_outside_and_from_inside():
    answers = Answers()
    answers.unreachable = {"wdc/a1": ["fra"], "fra/a1": ["wdc"]}
    expect = Expect("eventually", "unreachable", of="fra", within=3 * SECOND)
    verdict = judged(answers, expect)
    assert verdict.why == "fra/a2 says that wdc is reachable"
    answers.unreachable["fra/a2"] = ["wdc"]
    assert judged(answers, expect).holds


def test_services_are_judged_by_what_is_answered():
    answers = Answers()
    assert judged(answers, Expect("always", "service_passing", of="shop.web")).holds
    answers.status = Status.UNATTENDED
    assert judged(answers, Expect("always", "service_status", of="fra/shop.web#1", status="unattended")).holds
    assert not judged(answers, Expect("always", "service_passing", of="shop.web")).holds
    assert not judged(answers, Expect("always", "service_absent", of="shop.web")).holds


def test_a_quiet_fleet_is_asked_once():
    answers = Answers()
    judged(answers, Expect("always", "nobody_dead"))
    assert answers.asked == len(answers.layout.paths)


def test_an_expectation_reads_as_a_sentence():
    expect = Expect("eventually", "dead", of="fra/a2", by="fra", after=30 * SECOND, within=1_500_000_000)
    assert in_words(expect) == "eventually dead fra/a2 by fra within 1500ms after 30s"
