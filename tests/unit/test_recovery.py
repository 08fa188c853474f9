"""Recovery on a stopped server's disk: by force from a lost quorum, and giving up a promise."""

import json
import re

import msgspec
import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from dislocate.cli.store_offline import forget_promise, recover
from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.runs import AskGrant, Hold, NodeState, ReportTask, RunRecord, RunState, StartRun
from dislocate.core.boundary.store import GrantLease, Put, Transact
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.bootstrap import Founding
from dislocate.core.consensus.duties import Restored, Timing
from dislocate.core.consensus.messages import Configuration, Entry, GroupId, HardState, ServerId
from dislocate.core.consensus.promises import (
    DISK_KEY,
    GROUP_KEY,
    PROMISE_KEY,
    Standing,
    StoredGroup,
    founding_records,
    log_key,
    record,
    uuid_of,
)
from dislocate.core.consensus.raft import Raft
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId
from dislocate.core.runs import records as runs
from dislocate.core.runs.steps import OpenBatch
from dislocate.core.store.commands import Command, SetFeatureLevel, encode_command
from dislocate.core.store.durable import AppliedUpTo, applied_record, find, hard_record
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.messages import GroupAsked
from dislocate.core.store.recovery import give_up_promise, recover_by_force
from dislocate.core.streams import Streams
from dislocate.core.tunables import RECOVERY_RUNS, RECOVERY_STEP, RUNS_LEVEL
from dislocate.io.disk import Disk
from tests.support.runs_log import A, B, C, plan, spec

ME = "fra/a1"
SERVERS = tuple(ServerId(path, disk) for path, disk in (("fra/a1", 1), ("fra/a2", 2), ("wdc/a1", 3)))
GROUP = GroupId(uuid_of(SERVERS))


def command(*operations) -> bytes:
    return encode_command(Command(Transact((), operations)))


class ServersDisk:
    """The disk of a server that applied some entries and has more in its log."""

    def __init__(self) -> None:
        self.group = StoredGroup(GROUP, SERVERS, 1, Standing.MEMBER)
        self.records = {one.key: one for one in founding_records(self.group, SERVERS)}
        self.keep(record(DISK_KEY, 1), record(PROMISE_KEY, SERVERS))
        self.machine = StoreMachine()
        self.machine.apply(1, b"")
        self.last = 1

    def keep(self, *records: StoredRecord) -> None:
        self.records |= {one.key: one for one in records}

    def write(self, data: bytes, *, applied: bool, term: int = 2) -> None:
        """An entry more; `applied`: known to be committed, and in the saved state."""
        self.last += 1
        self.keep(record(log_key(self.last), Entry(term, self.last, data)), hard_record(HardState(term, SERVERS[1])))
        if applied:
            self.machine.apply(self.last, data)
            self.keep(*self.machine.dirty_records(), applied_record(AppliedUpTo(self.last, term, 77)))

    def after(self, changes) -> tuple[StoredRecord, ...]:
        records = {**self.records, **{one.key: one for one in changes}}
        return tuple(one for _, one in sorted(records.items()) if one.value is not None)


@pytest.fixture
def disk() -> ServersDisk:
    """Three entries applied, of which the last gave out revision 2, and two more that may be committed."""
    disk = ServersDisk()
    disk.write(command(Put("lock/a", b"x")), applied=True)
    disk.write(command(Put("app/color", b"blue")), applied=True)
    disk.write(encode_command(Command(GrantLease(60_000_000_000))), applied=False)
    disk.write(command(Put("lock/b", b"y"), Put("app/color", b"green")), applied=False)
    return disk


def recovered(disk: ServersDisk, me: str = ME):
    """(what was done, the store afterwards, the disk afterwards)"""
    done = recover_by_force(me, disk.records.values())
    after = disk.after(done.records)
    return done, StoreMachine.recover(find(after).state), after


# ---- by force


def test_this_server_becomes_the_whole_group_at_a_higher_epoch(disk):
    done, _, after = recovered(disk)
    founding = Founding(ME, (), 99, after)
    assert founding.is_member
    assert founding.group == done.group
    assert (done.group.uuid, done.group.epoch) == (GROUP.uuid, 1)
    assert founding.members == (SERVERS[0],)
    assert founding.problem == ""
    assert [server.path for server in done.lost] == ["fra/a2", "wdc/a1"]


def test_entries_that_are_here_count_and_the_log_begins_anew_after_them(disk):
    done, store, after = recovered(disk)
    found = find(after)
    assert store.keys.get("app/color").value == b"green"
    assert store.keys.get("lock/b").value == b"y"
    assert len(store.leases) == 1
    assert (done.applied, done.last) == (3, 5)
    assert found.entries == ()
    assert found.base.index == found.applied.index == store.index == 5
    assert found.base.configuration == Configuration((SERVERS[0],))


def test_the_term_is_above_every_term_that_was_voted_in(disk):
    assert find(recovered(disk)[2]).hard == HardState(3)


def test_no_revision_that_others_may_have_given_out_is_given_out_again(disk):
    done, store, _ = recovered(disk)
    assert store.keys.get("lock/a").created == 1, "it was committed: its holder still holds it"
    step = RECOVERY_STEP + done.group.branch
    assert store.keys.get("lock/b").created == 3 + step, "revision 3 may be another lock's on a lost server"
    color = store.keys.get("app/color")
    assert (color.created, color.modified) == (2, 3 + step)
    assert done.revision == store.revision == 4 + step, "the last one is that of the runs"
    applied = store.apply(6, command(Put("lock/c", b"")))
    assert applied.result.revision == store.revision == 5 + step


def test_two_servers_that_are_recovered_are_two_branches_with_revisions_of_their_own(disk):
    mine, _, after = recovered(disk)
    disk.keep(record(DISK_KEY, 3))
    other, _, _ = recovered(disk, "wdc/a1")
    assert mine.group.splits_from(other.group)
    assert other.group.splits_from(mine.group)
    assert abs(mine.revision - other.revision) > 1 << 20, "how far they are from each other is up to a hash of 39 bits"
    assert mine.revision < 4 + 2 * RECOVERY_STEP > other.revision, "a later epoch is above both"
    again = recover_by_force(ME, after)
    assert not again.group.splits_from(other.group)
    assert again.revision > max(mine.revision, other.revision)


def test_recovering_the_same_disk_again_comes_to_the_same_branch(disk):
    assert recovered(disk)[0].group == recovered(disk)[0].group


def test_what_was_written_before_there_were_branches_is_branch_none():
    group = msgspec.msgpack.encode((GROUP.uuid, 1))
    assert msgspec.msgpack.decode(group, type=GroupId) == GroupId(GROUP.uuid, 1, 0)
    kept = msgspec.msgpack.encode(((GROUP.uuid, 1), (), 4, "member", 1))
    assert msgspec.msgpack.decode(kept, type=StoredGroup).log_branch == 0


def test_no_id_of_a_run_that_others_may_have_given_out_is_given_out_again(disk):
    _, store, after = recovered(disk)
    assert msgspec.json.decode(store.keys.get(runs.LAST).value)["run"] == RECOVERY_RUNS, "nodes may know of lost ones"
    disk.records = {one.key: one for one in after}
    _, store, _ = recovered(disk)
    assert msgspec.json.decode(store.keys.get(runs.LAST).value)["run"] == 2 * RECOVERY_RUNS


def test_runs_under_way_are_paused_and_what_lost_servers_granted_may_not_begin():
    disk = ServersDisk()
    start = StartRun(spec("web"), plan((A, B)), {}, "ann", 5)
    for body in (SetFeatureLevel(RUNS_LEVEL), start, OpenBatch("1", 1, 6, (A, B)), AskGrant("1", A, 1, 7)):
        disk.write(encode_command(Command(body)), applied=True)
    _, store, _ = recovered(disk)
    run = runs.decode(store.keys.get(runs.active_key("1")).value, RunRecord)
    assert (run.state, run.hold, run.epoch, run.granted) == (RunState.PAUSED, Hold.OPERATOR, 1 + RECOVERY_RUNS, ())
    told = store.apply(store.index + 1, encode_command(Command(AskGrant("1", B, 1, 8)))).result
    assert isinstance(told, Refused)
    reported = ReportTask("1", A, 1, NodeState.DONE)
    assert isinstance(store.apply(store.index + 1, encode_command(Command(reported))).result, Done), "it had begun"
    told = store.apply(
        store.index + 1, encode_command(Command(replace(start, spec=spec("db"), plan=plan((C,)))))
    ).result
    assert told.run == str(2 + RECOVERY_RUNS)


def test_a_second_recovery_raises_the_revision_again(disk):
    _, _, after = recovered(disk)
    again = recover_by_force(ME, after)
    assert again.group.epoch == 2
    assert again.revision == 5 + 2 * RECOVERY_STEP + again.group.branch


def test_what_a_superseded_server_kept_is_recovered_above_the_epoch_that_superseded_it(disk):
    disk.keep(record(GROUP_KEY, StoredGroup(GroupId(GROUP.uuid, 1), (SERVERS[1],), 9, Standing.SUPERSEDED, 0)))
    done, store, _ = recovered(disk)
    assert done.group.epoch == 2
    assert store.revision == 4 + 2 * RECOVERY_STEP + done.group.branch
    assert "ANOTHER SERVER WAS RECOVERED BEFORE" in done.report


def test_the_recovered_server_elects_itself_and_commits(disk):
    _, _, after = recovered(disk)
    found = find(after)
    restored = Restored(
        hard=found.hard,
        configuration=found.base.configuration,
        entries=found.entries,
        compacted=found.base.index,
        compacted_term=found.base.term,
        applied=found.applied.index,
    )
    raft = Raft(me=SERVERS[0], restored=restored, stream=Streams("1")["raft"], now=0, timing=Timing())
    now, committed = 0, []
    for _ in range(20):
        now = max(now, min(raft.deadline(), now + 10**10))
        raft.time_reached(now)
        while duties := raft.take():
            committed += duties.committed
            for save in duties.saves:
                raft.stored(save.ticket, now)
    assert raft.is_leader
    assert [entry.index for entry in committed] == [6]


def test_other_servers_are_put_out_when_they_hear_of_it(disk):
    done, _, _ = recovered(disk)
    other = ServersDisk()
    other.keep(record(DISK_KEY, 2))
    founding = Founding("fra/a2", (), 99, other.records.values())
    assert founding.is_member
    told = Founding(ME, (), 99, disk.after(done.records)).asked
    founding.told(NodeId("fra", "a1", 5), told(NodeId("fra", "a2", 1), GroupAsked(2, (), ())))
    assert not founding.is_member
    assert "dislocate servers add fra/a2" in founding.problem


def test_the_report_says_what_was_found_and_what_may_be_lost(disk):
    done = recovered(disk)[0]
    report = done.report
    for words in (
        "from epoch 0 to 1",
        "fra/a1@0000000000000001 alone; out of the group: fra/a2, wdc/a1",
        "up to entry 5; known to be committed up to 3",
        f"from 3 to {4 + RECOVERY_STEP + done.group.branch}",
        "are LOST",
        "2 entries were here of which it is not known whether they were committed",
        "dislocate servers add DC/NAME",
    ):
        assert words in report


def test_a_state_without_a_log_behind_it_is_recovered_too(disk):
    _, _, after = recovered(disk)
    done = recover_by_force(ME, after)
    assert done.applied == done.last == 5
    assert "No entry was here that was not known to be committed" in done.report


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda disk: disk.records.pop(GROUP_KEY), "knows no group.*one that survived"),
        (lambda disk: disk.records.pop(log_key(3)), "is missing"),
        (lambda disk: disk.keep(StoredRecord(log_key(4), b"\xc1")), "cannot be read"),
        (lambda disk: disk.keep(record(log_key(4), Entry(2, 4, b"\xc1"))), "damaged: entry 4 cannot be read"),
        (lambda disk: disk.keep(StoredRecord("store/k/lock/a", bytes(50))), "store/k/lock/a"),
        (lambda disk: disk.keep(applied_record(AppliedUpTo(2, 2, 77))), "damaged.*another server that survived"),
    ],
)
def test_a_disk_that_cannot_be_recovered_is_refused_with_the_mend(disk, spoil, says):
    spoil(disk)
    with pytest.raises(LocalError) as error:
        recover_by_force(ME, disk.records.values())
    assert re.search(says, str(error.value))


def test_an_agent_that_is_no_server_is_refused_and_the_servers_are_named():
    records = (record(DISK_KEY, 9), record(GROUP_KEY, StoredGroup(GROUP, SERVERS, 4)))
    with pytest.raises(LocalError, match=r"no log.*fra/a1, fra/a2, wdc/a1"):
        recover_by_force("lon/b1", records)


# ---- a promise


def test_a_promise_is_given_up_with_the_number_of_the_disk():
    done = give_up_promise(ME, (record(DISK_KEY, 1), record(PROMISE_KEY, SERVERS)))
    assert [(one.key, one.value) for one in done.records] == [(PROMISE_KEY, None), (DISK_KEY, None)]
    assert "fra/a2@0000000000000002" in done.report


def test_no_promise_is_given_up_once_a_group_was_founded(disk):
    with pytest.raises(LocalError, match=r"belongs to group.*servers add"):
        give_up_promise(ME, disk.records.values())


def test_a_log_without_a_group_is_damage(disk):
    del disk.records[GROUP_KEY]
    with pytest.raises(LocalError, match="a log and no group"):
        give_up_promise(ME, disk.records.values())


def test_there_is_nothing_to_give_up_where_nothing_was_promised():
    with pytest.raises(LocalError, match="has promised nothing"):
        give_up_promise(ME, (record(DISK_KEY, 1),))


# ---- as an operator does it


@pytest.fixture
def config(tmp_path):
    (tmp_path / "secret").write_text("x")
    file = tmp_path / "agent.toml"
    file.write_text(
        '[node]\nname = "a1"\ndatacenter = "fra"\nstate_dir = "state"\n[security]\nsecret_file = "secret"\n'
    )
    return file


def fill(config, records) -> None:
    disk = Disk(config.parent / "state")
    disk.store(Store(1, tuple(records), sync=True), lambda _: None)
    disk.close()


def found_on(config) -> dict[str, bytes]:
    disk = Disk(config.parent / "state")
    try:
        return {one.key: one.value for one in disk.load()}
    finally:
        disk.close()


def run(command_, config, *words):
    return CliRunner().invoke(command_, ["--config", str(config), *words])


def test_a_stopped_server_is_recovered_on_its_disk(config, disk):
    fill(config, disk.records.values())
    result = run(recover, config, "--yes-lose-what-others-had")
    assert result.exit_code == 0, result.output
    assert "FORCED RECOVERY OF THE STORE" in result.output
    records = found_on(config)
    assert msgspec.msgpack.decode(records[GROUP_KEY], type=StoredGroup).group.epoch == 1
    assert not [key for key in records if key.startswith("log/")]


def test_recovery_is_refused_until_the_loss_is_understood(config, disk):
    fill(config, disk.records.values())
    result = run(recover, config)
    assert result.exit_code == 2
    assert "--yes-lose-what-others-had" in result.output
    assert log_key(5) in found_on(config)


def test_recovery_is_told_to_programs_as_json(config, disk):
    fill(config, disk.records.values())
    answer = json.loads(run(recover, config, "--yes-lose-what-others-had", "--json").output)
    assert (answer["epoch"], answer["entries"], answer["known_committed"]) == (1, 5, 3)


def test_a_running_agent_is_not_recovered(config, disk):
    fill(config, disk.records.values())
    running = Disk(config.parent / "state")
    try:
        result = run(recover, config, "--yes-lose-what-others-had")
    finally:
        running.close()
    assert result.exit_code == 1
    assert "stop the other one" in result.output


def test_a_directory_without_a_state_is_named_and_not_made(config):
    result = run(forget_promise, config)
    assert result.exit_code == 1
    assert "where no agent has kept anything" in result.output
    assert not (config.parent / "state").exists()


def test_a_promise_is_forgotten_on_disk(config):
    fill(config, (record(DISK_KEY, 1), record(PROMISE_KEY, SERVERS)))
    result = run(forget_promise, config)
    assert result.exit_code == 0, result.output
    assert found_on(config) == {}


def test_a_wrong_configuration_ends_with_2(tmp_path):
    result = run(recover, tmp_path / "absent.toml", "--yes-lose-what-others-had")
    assert result.exit_code == 2
