"""Whatever is thrown at the ledger, legal or not: its records stay true to each other and to a simple model of them."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import (
    OVER,
    AskGrant,
    Direction,
    Granted,
    Hold,
    NodeState,
    ReportTask,
    RunPlan,
    RunState,
    SteerRun,
    Verb,
)
from dislocate.core.boundary.spec import Join
from dislocate.core.runs import records
from dislocate.core.runs.ledger.audit import first_that_does_not_fit
from dislocate.core.runs.ledger.transitions import COUNTS_AS_BAD, RUN_MOVES
from dislocate.core.runs.steps import (
    CloseBatch,
    FinishRun,
    HoldRun,
    JoinNodes,
    Mark,
    MarkNodes,
    OpenBatch,
    ReleaseRun,
    RevertRun,
    RunStep,
)
from dislocate.core.store.machine import StoreMachine
from tests.support.runs_log import A, B, C, D, RunsLog

NODES = (A, B, C, D, "wdc/e", "wdc/late")
LAYOUTS = (((A,), (B, C), (D,)), ((A, B), (C, D)), ((A,), ("wdc/e",)))
nodes = st.sampled_from(NODES)
some_nodes = st.lists(nodes, min_size=1, max_size=3).map(tuple)
runs = st.sampled_from(("1", "1", "1", "1", "2", "2", "3", "9"))
seldom = st.sampled_from((False, False, False, True))
drift = st.sampled_from((0, 0, 0, 0, -1, 1))  # from what is right: a version, an epoch
GONE_BACK = (NodeState.REVERTED, NodeState.REVERT_FAILED)
NODE_STATES = st.sampled_from(NodeState)


class LedgerUnderFire(RuleBasedStateMachine):
    """The model: what was granted, begun and reported, told by the answers alone."""

    @initialize(layout=st.sampled_from(LAYOUTS), budget=st.integers(0, 2), approvals=st.sampled_from((0, 0, 0, 1)))
    def begin(self, layout, budget, approvals):
        self.log = RunsLog()
        self.versions: dict[str, int] = {}
        self.epochs: dict[str, int] = {}
        self.states: dict[str, RunState] = {}
        self.ends: dict[tuple[str, str, int], NodeState] = {}  # what was reported, by run, node and epoch
        self.allowed: dict[tuple[str, str, int], int] = {}  # how often a node was told that it may begin: by its ask
        assert self.log.start(*layout, max_failed=budget, approvals=approvals, join=Join.APPLY) == "1"

    def tell(self, body):
        log = self.log
        before = log.machine.digest, log.machine.revision
        run = getattr(body, "run", "")
        version = log.version(run)
        grants_in_vain = (
            isinstance(body, OpenBatch)
            and self.known(run)
            and self.is_spent(run)
            and log.run(run).direction is Direction.APPLY
        )
        log.now += 1
        applied = log.do(body)
        if isinstance(applied.result, Refused):
            assert (log.machine.digest, log.machine.revision) == before
            assert applied.events == ()
        else:
            assert not grants_in_vain
            assert not isinstance(body, RunStep) or body.version == version
        return applied.result

    def known(self, run):
        return any(key in self.log.machine.keys for key in (records.active_key(run), records.over_key(run)))

    # ---- operators

    @rule(layout=st.sampled_from(LAYOUTS), name=st.sampled_from(("web", "db")), budget=st.integers(0, 1))
    def start(self, layout, name, budget):
        active = [run for run, state in self.states.items() if state not in OVER]
        taken = {node for run in active for node in self.log.states(run)}
        names = {self.log.run(run).name for run in active}
        result = self.log.start(*layout, name=name, max_failed=budget)
        free = name not in names and not taken & {node for batch in layout for node in batch}
        assert isinstance(result, Refused) is not free

    @rule(
        run=runs, verb=st.sampled_from(Verb), node=nodes, actor=st.sampled_from(("ann", "bob")), off=drift, now=seldom
    )
    def steer(self, run, verb, node, actor, off, now):
        if not now and verb in (Verb.ABORT, Verb.REVERT):
            return
        version = self.log.version(run) + off if off else 0
        self.tell(SteerRun(run, verb, actor, self.log.now, node, version))

    # ---- the leader

    @rule(run=runs, chosen=some_nodes, off=drift)
    def open(self, run, chosen, off):
        self.tell(OpenBatch(run, self.log.version(run) + off, self.log.now, chosen))

    @rule(run=runs)
    def open_all_that_is_due(self, run):
        if self.known(run):
            record, states = self.log.run(run), self.log.states(run)
            batches = self.log.value(records.plan_key(run), RunPlan).batches
            present = batches[record.batch].nodes if 0 <= record.batch < len(batches) else ()
            due = tuple(dict.fromkeys((*present, *record.retries)))
            if record.direction is Direction.APPLY:
                due = tuple(node for node in due if states[node] == "pending")
            else:
                due = tuple(node for node in due if self.log.task(node, run).touched and states[node] != "reverted")
            self.tell(OpenBatch(run, record.version, self.log.now, due))

    @rule(run=runs, off=drift)
    def close(self, run, off):
        self.tell(CloseBatch(run, self.log.version(run) + off, self.log.now))

    @rule(run=runs, hold=st.sampled_from(Hold), now=seldom)
    def hold(self, run, hold, now):
        if now:
            self.tell(HoldRun(run, self.log.version(run), self.log.now, hold, "held"))

    @rule(run=runs)
    def release(self, run):
        self.tell(ReleaseRun(run, self.log.version(run), self.log.now, "gone"))

    @rule(run=runs, now=seldom)
    def revert(self, run, now):
        if now:
            self.tell(RevertRun(run, self.log.version(run), self.log.now, "bad"))

    @rule(run=runs, state=st.sampled_from(RunState))
    def finish(self, run, state):
        self.tell(FinishRun(run, self.log.version(run), self.log.now, state, "over"))

    @rule(run=runs, node=nodes, state=NODE_STATES, other=nodes, other_state=NODE_STATES)
    def mark(self, run, node, state, other, other_state):
        marks = (Mark(node, state, "seen"),) if node == other else (Mark(node, state, ""), Mark(other, other_state, ""))
        result = self.tell(MarkNodes(run, self.log.version(run), self.log.now, marks))
        if not isinstance(result, Refused):
            spent = self.is_spent(run) and self.log.run(run).state is RunState.RUNNING
            assert not (spent and any(mark.state is NodeState.GRANTED for mark in marks))

    @rule(run=runs, chosen=some_nodes)
    def join(self, run, chosen):
        self.tell(JoinNodes(run, self.log.version(run), self.log.now, chosen))

    # ---- nodes

    @rule(run=runs, node=nodes, ask=st.integers(1, 3), off=drift)
    def ask(self, run, node, ask, off):
        if not self.known(run):
            assert isinstance(self.tell(AskGrant(run, node, 1, ask)), Refused)
            return
        record, before = self.log.run(run), self.log.task(node, run)
        spent = self.is_spent(run)
        result = self.tell(AskGrant(run, node, record.epoch + off, ask))
        if isinstance(result, Granted):
            assert not off
            assert record.state in (RunState.RUNNING, RunState.REVERTING)
            assert before.state in (NodeState.GRANTED, NodeState.STARTED, NodeState.UNKNOWN)
            assert not (before.state is NodeState.GRANTED and spent and record.direction is Direction.APPLY)
            assert (result.epoch, result.ask, result.direction) == (record.epoch, ask, record.direction)
            assert (run, node, record.epoch) not in self.ends  # what was reported does not begin again
            self.allowed[run, node, record.epoch] = ask

    @rule(run=runs, node=nodes, state=NODE_STATES, off=drift)
    def report(self, run, node, state, off):
        epoch = self.log.task(node, run).epoch + off
        before = self.log.task(node, run).state
        result = self.tell(ReportTask(run, node, epoch, state))
        if not isinstance(result, Refused):
            assert (run, node, epoch) in self.allowed
            if before is not NodeState.SKIPPED:
                assert self.ends.setdefault((run, node, epoch), state) is state
                assert self.log.task(node, run).state is state

    # ---- what comes closer to the end than chance does

    @rule(run=runs, ends=st.lists(st.sampled_from((True, True, True, False)), min_size=5, max_size=5))
    def batch_goes(self, run, ends):
        """Whoever is due is granted, asks and reports, one way or the other; then the leader goes on, or ends the run."""
        self.open_all_that_is_due(run)
        if not self.known(run):
            return
        for node, well in zip(self.log.run(run).granted, ends, strict=False):
            applying = self.log.task(node, run).direction is Direction.APPLY
            well_done, badly = (NodeState.DONE, NodeState.FAILED) if applying else GONE_BACK
            self.ask(run, node, 2, -1)  # as one that was granted before would
            self.ask(run, node, 3, 0)
            self.report(run, node, well_done if well else badly, 0)
        self.end(run)
        self.close(run, -1)  # as a leader that was deposed would
        self.close(run, 0)
        self.end(run)

    def end(self, run):
        for state in (RunState.DONE, RunState.FAILED, RunState.REVERTED, RunState.REVERT_FAILED):
            self.finish(run, state)

    @rule(run=runs, gone=st.booleans(), at=st.integers(0, 5))
    def somebody_is_out_of_reach_or_back(self, run, gone, at):
        if self.known(run):
            states = self.log.states(run)
            wanted = ("granted", "started", "pending") if gone else ("unreachable",)
            found = [node for node, state in states.items() if state in wanted]
            if found:
                node = found[at % len(found)]
                back = NodeState.GRANTED if at % 2 else NodeState.PENDING
                lost = NodeState.UNKNOWN if states[node] == "started" else NodeState.UNREACHABLE
                mark = Mark(node, lost if gone else back, "")
                self.mark(run, node, mark.state, node, mark.state)

    @rule(run=runs, verb=st.sampled_from((Verb.SKIP, Verb.RETRY)), at=st.integers(0, 5))
    def operator_mends(self, run, verb, at):
        if self.known(run):
            states = self.log.states(run)
            bad = [node for node, state in states.items() if state not in ("pending", "granted", "done", "reverted")]
            if bad:
                self.tell(SteerRun(run, verb, "cid", self.log.now, bad[at % len(bad)]))

    @rule(run=runs, verb=st.sampled_from((Verb.APPROVE, Verb.RESUME, Verb.RESUME)))
    def operator_goes_on(self, run, verb):
        self.tell(SteerRun(run, verb, "cid", self.log.now))

    @precondition(lambda self: self.log.machine.index % 5 == 0)
    @rule()
    def restart(self):
        before = self.log.machine
        self.log.machine = StoreMachine.recover(before.all_records())
        assert self.log.machine.digest == before.digest

    # ---- what always holds

    def is_spent(self, run):
        states, budget = list(self.log.states(run).values()), self.log.run(run).budget
        return sum(states.count(state.value) for state in COUNTS_AS_BAD) > budget

    @invariant()
    def records_fit_each_other(self):
        if hasattr(self, "log"):
            self.log.check()

    @invariant()
    def the_audit_fits(self):
        if hasattr(self, "log"):
            assert first_that_does_not_fit(self.log.audit()) is None

    @invariant()
    def runs_only_go_where_they_may(self):
        if not hasattr(self, "log"):
            return
        for number in range(1, self.log.last().run + 1):
            run = str(number)
            record = self.log.run(run)
            before = self.states.get(run, record.state)
            moved = before is record.state or record.state in RUN_MOVES[before]
            assert moved, (before, record.state)
            if before in OVER and record.state is not before:
                assert record.state is RunState.REVERTING
            assert record.version >= self.versions.get(run, 1)
            assert record.epoch >= self.epochs.get(run, 1)
            assert (record.hold is not None) is (record.state is RunState.PAUSED)
            self.states[run], self.versions[run], self.epochs[run] = record.state, record.version, record.epoch

    @invariant()
    def nobody_is_a_target_of_two_runs_under_way(self):
        if hasattr(self, "log"):
            active = [run for run, state in self.states.items() if state not in OVER]
            targets = [node for run in active for node in self.log.states(run)]
            assert len(targets) == len(set(targets))
            names = [self.log.run(run).name for run in active]
            assert len(names) == len(set(names))

    @invariant()
    def what_is_over_grants_nothing(self):
        if hasattr(self, "log"):
            for run, state in self.states.items():
                if state in OVER:
                    assert "granted" not in self.log.counts(run)
                    assert self.log.run(run).granted == ()
            assert self.log.last().over == sum(state in OVER for state in self.states.values())


TestLedgerUnderFire = LedgerUnderFire.TestCase
TestLedgerUnderFire.settings = settings(stateful_step_count=60)
