"""Decisions about sizes in the log: epochs that grow by one, one node at a time, a history that ends somewhere."""

import json

import msgspec
import pytest

from dislocate.core.boundary.events import ScaleDecided
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.scaling import (
    BeginScale,
    Carried,
    CarryState,
    CommandDriver,
    ProcessDriver,
    ReportScale,
    ScaleDecision,
)
from dislocate.core.boundary.store import Delete, Put, Transact
from dislocate.core.consensus.messages import GroupId
from dislocate.core.errors import LocalError
from dislocate.core.scale import records
from dislocate.core.scale.placing import placed
from dislocate.core.scale.steps import DecideScale, EndScale
from dislocate.core.store.backup import restore_chunks
from dislocate.core.store.commands import SetFeatureLevel
from dislocate.core.store.validation import check_request
from dislocate.core.tunables import RECOVERY_RUNS, SCALE_LEVEL, SCALE_PAST
from tests.support.store_log import GROUP, StoreLog, contents, replayed, write_backup

COMMAND = CommandDriver(run=("resize", "{desired}"))
PROCESS = ProcessDriver(run=("serve",))
GROUP_ID = GroupId(GROUP, 0)
A, B = "fra/a1", "fra/a2"


class ScaleLog(StoreLog):
    """A store at the level of scaling."""

    def __init__(self, level=SCALE_LEVEL):
        super().__init__()
        self.do(SetFeatureLevel(level))

    def decide(self, epoch, desired=3, before=2, driver=COMMAND, nodes=None, reason="more load"):
        return self.do(DecideScale("api", "fra", epoch, A, 7, desired, before, reason, driver, nodes or {}))

    def end(self, epoch):
        return self.do(EndScale("api", "fra", epoch, A, 8, "removed"))

    def begin(self, epoch, node=A, instead_of=""):
        return self.do(BeginScale("api", "fra", epoch, node, 9, instead_of)).result

    def report(self, epoch, node=A, is_done=True, **more):
        return self.do(ReportScale("api", "fra", epoch, node, is_done, 10, **more)).result

    def value(self, key, type_):
        kv = self.machine.keys.get(key)
        return None if kv is None else msgspec.json.decode(kv.value, type=type_)

    @property
    def decision(self):
        return self.value(records.decision_key("api", "fra"), ScaleDecision)

    def carried(self, node=""):
        return self.value(records.done_key("api", "fra", node), Carried)


@pytest.fixture
def log():
    return ScaleLog()


def test_the_next_epoch_is_one_above_the_last_and_no_other(log):
    assert log.decide(1).result == Done(1)
    assert log.decision.desired == 3
    for epoch in (0, 1, 3):
        refused = log.decide(epoch, desired=9).result
        assert isinstance(refused, Refused)
        assert "the next is 2" in refused.reason
    assert log.decision.desired == 3
    assert log.decide(2, desired=4).result == Done(2)


def test_a_decision_is_told_to_who_looks_on(log):
    assert log.decide(1).events == (ScaleDecided("api", "fra", 1, 2, 3, "more load"),)


def test_epochs_go_on_after_a_policy_was_removed(log):
    log.decide(1)
    assert log.end(2).result == Done(2)
    assert log.decision is None
    assert isinstance(log.end(3).result, Refused)
    assert isinstance(log.decide(1).result, Refused)
    assert log.decide(3).result == Done(3)


def test_the_history_keeps_the_latest_with_their_reasons(log):
    for epoch in range(1, SCALE_PAST + 11):
        assert isinstance(log.decide(epoch, reason=f"reason {epoch}").result, Done)
    kept = [json.loads(kv.value) for kv in log.machine.keys.below(records.past_prefix("api", "fra"))]
    assert [one["epoch"] for one in kept] == list(range(11, SCALE_PAST + 11))
    assert kept[-1]["reason"] == f"reason {SCALE_PAST + 10}"
    assert "driver" not in kept[-1]


def test_one_relay_at_a_time_carries_it_out(log):
    log.decide(1)
    assert log.begin(1) == Done(1)
    assert log.begin(1) == Done(1)
    assert "fra/a1 carries out epoch 1" in log.begin(1, B).reason
    assert isinstance(log.report(1, B), Refused)
    assert log.begin(1, B, instead_of=A) == Done(1)
    assert isinstance(log.report(1, A), Refused)
    assert log.report(1, B, code=0, words="ok") == Done(1)
    assert (log.carried().state, log.carried().code) == (CarryState.DONE, 0)
    assert "has carried out" in log.begin(1, A, instead_of=B).reason


def test_what_was_decided_before_is_neither_begun_nor_reported(log):
    log.decide(1)
    log.begin(1)
    log.decide(2)
    assert "epoch 2 was decided" in log.report(1).reason
    assert isinstance(log.begin(1), Refused)
    assert log.begin(2, B) == Done(2)


def test_of_processes_each_named_node_reports_its_own_part(log):
    log.decide(1, driver=PROCESS, nodes={A: 2, B: 1})
    assert log.report(1, A) == Done(1)
    assert log.report(1, B, is_done=False, code=1, words="no such program") == Done(1)
    assert isinstance(log.report(1, "fra/a3"), Refused)
    assert log.carried(A).state is CarryState.DONE
    assert log.carried(B).words == "no such program"
    log.decide(2, driver=PROCESS, nodes={A: 3})
    assert log.carried(B) is None
    assert log.carried(A).epoch == 1


def test_servers_of_a_lower_level_refuse_and_write_nothing():
    log = ScaleLog(SCALE_LEVEL - 1)
    assert log.decide(1).result.kind == "unavailable"
    assert log.decision is None


def test_the_same_entries_make_the_same_records_everywhere(log):
    log.decide(1)
    log.begin(1)
    log.report(1)
    log.decide(2, driver=PROCESS, nodes={B: 1, A: 2})
    log.end(3)
    assert contents(replayed(log.entries)) == contents(log.machine)


def restore(log, data):
    for chunk in restore_chunks(data, 1):
        applied = log.do(chunk)
    return applied


def test_a_restore_gives_no_epoch_out_again(log):
    log.decide(1, desired=3)
    data = write_backup(log.machine, GROUP_ID)
    log.decide(2, desired=8)
    restore(log, data)
    assert (log.decision.epoch, log.decision.desired) == (3, 3)
    assert "a backup was restored" in log.decision.reason
    assert isinstance(log.decide(2).result, Refused)
    assert log.decide(4).result == Done(4)


def test_a_restore_of_before_it_was_scaled_remembers_the_epochs_too(log):
    data = write_backup(log.machine, GROUP_ID)
    log.decide(1)
    restore(log, data)
    assert log.decision is None
    assert isinstance(log.decide(1).result, Refused)
    assert log.decide(3).result == Done(3)


def test_a_forced_recovery_leaves_out_what_may_have_been_decided_elsewhere(log):
    log.decide(1, desired=3)
    log.machine.recover_runs(1)
    assert log.decision.desired == 3
    assert log.decision.epoch > RECOVERY_RUNS
    assert log.decide(log.decision.epoch + 1).result == Done(log.decision.epoch)


def test_nobody_writes_decisions_by_hand():
    with pytest.raises(LocalError, match="dislocate scale set"):
        check_request(Transact((), (Put("system/scale/api/fra", b"{}"),)))
    with pytest.raises(LocalError):
        check_request(Transact((), (Delete("system/", prefix=True),)))
    check_request(Transact((), (Put("scale/api", b"{}"),)))


# ---- placing


def test_instances_stay_where_they_are_as_far_as_they_may():
    nodes = ["fra/a1", "fra/a2", "fra/a3"]
    assert placed(4, nodes, {}, 0) == {"fra/a1": 2, "fra/a2": 1, "fra/a3": 1}
    assert placed(5, nodes, {"fra/a3": 3}, 0) == {"fra/a1": 1, "fra/a2": 1, "fra/a3": 3}
    assert placed(2, nodes, {"fra/a1": 2, "fra/a3": 2}, 0) == {"fra/a1": 1, "fra/a2": 0, "fra/a3": 1}


def test_nobody_has_more_than_it_may_and_who_is_gone_has_none():
    nodes = ["fra/a1", "fra/a2", "fra/a3"]
    assert placed(9, nodes, {}, 2) == dict.fromkeys(nodes, 2)
    assert placed(3, nodes, {"fra/a1": 2, "fra/a2": 1}, 0, gone=("fra/a1",)) == {
        "fra/a1": 0,
        "fra/a2": 2,
        "fra/a3": 1,
    }
    assert placed(2, nodes[:1], {"fra/a9": 2}, 0) == {"fra/a1": 2, "fra/a9": 0}
    assert placed(2, [], {}, 0) == {}
