"""Backups, and what a store becomes when one is restored into it."""

import pytest

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import Compacted, GrantLease, KeyValue, Put, Transact, Transacted
from dislocate.core.consensus.messages import GroupId
from dislocate.core.errors import LocalError
from dislocate.core.store import backup as backup_module
from dislocate.core.store import machine as machine_module
from dislocate.core.store import restoring as restoring_module
from dislocate.core.store.backup import (
    backup_parts,
    check_group,
    read_backup,
    read_header,
    restore_chunks,
)
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.machine import StoreMachine
from dislocate.core.units import SECOND
from tests.support.store_log import GROUP, StoreLog, asked, contents, write_backup


@pytest.fixture
def log() -> StoreLog:
    return StoreLog()


def backup_of(log: StoreLog) -> bytes:
    return write_backup(log.machine, GroupId(GROUP, 3))


def restore(log: StoreLog, data: bytes, number: int = 1):
    """What the last part came to."""
    return [log.do(part) for part in restore_chunks(data, number)][-1]


def in_parts(data: bytes, count: int, restore: int = 1) -> list[RestoreChunk]:
    size = -(-len(data) // count)
    return [RestoreChunk(restore, at, count, data[at * size : (at + 1) * size]) for at in range(count)]


def test_a_backup_says_where_it_is_from_and_holds_everything(log):
    lease = log.grant(5 * SECOND)
    log.put("b", b"2", lease)
    log.put("a", b"1")
    backup = read_backup(backup_of(log))
    assert (backup.header.group, backup.header.epoch, backup.header.revision) == (GROUP.hex(), 3, 2)
    assert backup.keys == (KeyValue("a", b"1", 2, 2, 1), KeyValue("b", b"2", 1, 1, 1, lease))
    assert backup.leases == ((lease, 5 * SECOND),)
    assert read_header(backup_of(log)) == backup.header


def test_a_backup_stays_true_to_its_moment_while_it_is_written(log):
    log.put("a", b"1", log.grant())
    whole = backup_of(log)
    parts = backup_parts(log.machine, GroupId(GROUP, 3))
    first = next(parts)
    log.put("a", b"2")
    log.put("b")
    log.grant()
    assert first + b"".join(parts) == whole


def test_an_empty_store_has_a_backup_too(log):
    assert read_backup(backup_of(log)).keys == ()
    assert restore(log, backup_of(log)).result == Transacted(True, 1, ())


def test_what_differs_becomes_as_the_backup_says_in_one_revision_above_all(log):
    for name in ("same", "changed", "deleted"):
        log.put(name, b"old")
    data = backup_of(log)
    log.put("changed", b"new")
    log.delete("deleted")
    log.put("added", b"new")
    applied = restore(log, data)
    assert applied.result == Transacted(True, 7, ())
    assert [(change.key, change.revision) for change in applied.changes] == [
        ("added", 7),
        ("changed", 7),
        ("deleted", 7),
    ]
    assert log.machine.read("", True)[0] == (
        KeyValue("changed", b"old", 7, 7, 1),
        KeyValue("deleted", b"old", 7, 7, 1),
        KeyValue("same", b"old", 1, 1, 1),
    )
    assert log.machine.changes_after("", True, 6) == applied.changes


def test_a_backup_from_further_on_raises_the_revision_above_its_own():
    far, near = StoreLog(), StoreLog()
    for _ in range(50):
        far.put("a", b"far")
    near.put("a", b"near")
    assert restore(near, backup_of(far)).result.revision == 51
    assert near.get("a")[0].created == 51


def test_a_key_with_the_value_of_the_backup_and_another_past_is_new(log):
    """A lock that was given away and taken again by the same holder is not the one that he had."""
    log.put("lock", b"holder")
    data = backup_of(log)
    log.delete("lock")
    log.put("lock", b"holder")
    restore(log, data)
    assert log.get("lock")[0].created == 4


def test_leases_are_those_of_the_backup(log):
    lease, dropped_later = log.grant(5 * SECOND), log.grant()
    log.put("a", b"1", lease)
    data = backup_of(log)
    late = log.grant()
    log.put("b", b"", late)
    log.put("a", b"2", dropped_later)
    applied = restore(log, data)
    assert applied.restored
    assert sorted(log.machine.leases) == [lease, dropped_later]
    assert log.machine.leases[lease].ordered_keys() == ("a",)
    assert log.machine.leases[dropped_later].ordered_keys() == ()


def test_a_lease_that_this_log_has_yet_to_reach_is_moved_out_of_its_way():
    far, near = StoreLog(), StoreLog()
    for _ in range(3):
        far.apply(b"")
    lease = far.grant(9 * SECOND)
    far.put("a", b"1", lease)
    restore(near, backup_of(far))
    (moved,) = near.machine.leases
    assert moved > 1 << 50
    assert near.get("a")[0].lease == moved
    while near.machine.index < lease - 1:
        near.apply(b"")
    assert near.do(GrantLease(SECOND)).result.lease == lease
    assert sorted(near.machine.leases) == [lease, moved]
    again = StoreLog()
    restore(again, backup_of(near))
    assert len(again.machine.leases) == 2
    assert again.get("a")[0].lease in again.machine.leases


def test_nothing_shows_before_the_last_part(log):
    log.put("a", b"old")
    data = backup_of(log)
    log.put("a", b"new")
    before, size = log.machine.digest, log.machine.size
    *first, last = in_parts(data, 4)
    for part in first:
        assert log.do(part).result == Done(2)
    assert (log.machine.digest, log.machine.size, log.machine.revision) == (before, size, 2)
    log.put("b")
    assert log.do(last).result == Transacted(True, 4, ())
    assert log.names() == ["a"]


def test_a_restore_under_way_survives_saving_and_snapshots(log):
    log.put("a", b"old")
    *first, last = in_parts(backup_of(log), 4)
    for part in first:
        log.do(part)
    other = StoreLog(StoreMachine.recover(log.machine.all_records()))
    assert other.do(last).result == log.do(last).result
    assert contents(other.machine) == contents(log.machine)
    assert not any(key.startswith("store/r/") for key in contents(log.machine))


def test_what_is_saved_of_parts_goes_when_they_do(log):
    log.put("a")
    parts = in_parts(backup_of(log), 3)
    log.do(parts[0])
    log.do(parts[1])
    disk = {record.key: record.value for record in log.machine.dirty_records()}
    assert len([key for key in disk if key.startswith("store/r/")]) == 2
    log.do(parts[2])
    gone = {record.key for record in log.machine.dirty_records() if record.value is None}
    assert gone >= {"store/r/00000000", "store/r/00000001"}


def test_a_part_that_comes_again_is_passed_over(log):
    log.put("a", b"old")
    parts = in_parts(backup_of(log), 3)
    for part in (parts[0], parts[0], parts[1], parts[0], parts[1]):
        assert isinstance(log.do(part).result, Done)
    assert isinstance(log.do(parts[2]).result, Transacted)


def test_another_restore_takes_the_place_of_an_unfinished_one(log):
    log.put("a", b"old")
    one, other = in_parts(backup_of(log), 3, restore=1), in_parts(backup_of(log), 3, restore=2)
    log.do(one[0])
    log.do(other[0])
    refused = log.do(one[1]).result
    assert refused.kind == "conflict"
    assert "begin the restore again" in refused.reason
    log.do(other[1])
    assert isinstance(log.do(other[2]).result, Transacted)


def test_parts_may_come_in_any_order_after_the_first_also_over_a_save(log):
    log.put("a", b"old")
    parts = in_parts(backup_of(log), 5)
    for number in (0, 3, 1, 3, 4):
        assert isinstance(log.do(parts[number]).result, Done)
    other = StoreLog(StoreMachine.recover(log.machine.all_records()))
    assert isinstance(other.do(parts[2]).result, Transacted)
    assert log.do(parts[2]).result == Transacted(True, 2, ())
    assert contents(other.machine) == contents(log.machine)


def test_a_part_of_a_restore_that_was_not_begun_is_refused(log):
    assert log.do(in_parts(backup_of(log), 3)[1]).result.kind == "conflict"


def test_a_restore_that_does_not_go_on_is_given_up(log, monkeypatch):
    monkeypatch.setattr(restoring_module, "RESTORE_PATIENCE", 5)
    parts = in_parts(backup_of(log), 3)
    log.do(parts[0])
    for _ in range(6):
        log.apply(b"")
    assert not any(key.startswith("store/r/") for key in contents(log.machine))
    assert log.do(parts[1]).result.kind == "conflict"


def test_parts_are_bounded(log, monkeypatch):
    monkeypatch.setattr(restoring_module, "RESTORE_BYTES", 100)
    assert isinstance(log.do(RestoreChunk(1, 0, 3, bytes(100))).result, Done)
    assert log.do(RestoreChunk(1, 1, 3, bytes(1))).result.kind == "storage"


def test_a_backup_that_is_none_is_refused_and_changes_nothing(log):
    log.put("a")
    before = contents(log.machine)["store/k/a"]
    refused = log.do(RestoreChunk(1, 0, 1, b"no backup")).result
    assert isinstance(refused, Refused)
    assert (refused.kind, refused.field) == ("invalid", "backup")
    assert contents(log.machine)["store/k/a"] == before
    assert log.machine.revision == 1


def test_what_has_been_asked_stays_asked(log):
    data = backup_of(log)
    body = Transact((), (Put("a", b""),))
    first = log.do(body, asked(1)).result
    restore(log, data)
    assert log.do(body, asked(1)).result == first
    assert log.names() == []


def test_too_many_changes_are_told_as_compacted(log, monkeypatch):
    monkeypatch.setattr(machine_module, "CHANGES_KEPT", 3)
    data = backup_of(log)
    for number in range(5):
        log.put(f"{number}")
    applied = restore(log, data)
    assert (applied.changes, applied.compacted) == ((), True)
    assert log.machine.changes_after("", True, 5) == Compacted(6)


def test_a_quota_comes_and_goes_with_a_restore(log):
    data = backup_of(log)
    log.put("system/quota/a/", b"3")
    assert log.transact(Put("a/1", b"12345")).kind == "storage"
    restore(log, data)
    assert log.put("a/1", b"12345")


# ---- what is no backup


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: b"PK" + data,
        lambda data: data[:-1],
        lambda data: data[:-40],
        lambda data: data + b"\n",
        lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:],
        lambda data: data[:23],
    ],
)
def test_a_spoilt_file_is_refused_with_the_mend(log, spoil):
    log.put("a", bytes(100))
    with pytest.raises(LocalError, match="dislocate store backup") as raised:
        read_backup(spoil(backup_of(log)))
    assert raised.value.field == "backup"


def test_every_bit_of_a_backup_counts(log):
    log.put("a", b"1", log.grant())
    data = backup_of(log)
    for at in range(len(data)):
        with pytest.raises(LocalError):
            read_backup(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        with pytest.raises(LocalError):
            read_backup(data[:at])


def test_a_backup_of_another_group_or_epoch_says_so(log):
    header = read_header(backup_of(log))
    check_group(header, GroupId(GROUP, 3))
    with pytest.raises(LocalError, match=r"group .*--force"):
        check_group(header, GroupId(bytes(16), 3))
    with pytest.raises(LocalError, match=r"epoch 3.*forced recovery.*--force"):
        check_group(header, GroupId(GROUP, 4))
    with pytest.raises(LocalError, match=r"branch 0{10}.*another server was recovered.*--force"):
        check_group(header, GroupId(GROUP, 3, 7))


def test_a_backup_of_a_later_format_names_the_mend(log):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backup_module, "FORMAT", 2)
        data = backup_of(log)
    with pytest.raises(LocalError, match="format 1: use the version that wrote it"):
        read_backup(data)
