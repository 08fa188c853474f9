"""The durable form: what is damaged is named, with the mend, and not applied."""

import pytest

from dislocate.core.boundary.store import Put, Transact
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import LocalError
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.snapshot import SnapshotCutter, framed, join_chunks, replacing_records
from dislocate.core.tunables import SNAPSHOT_CHUNK
from tests.support.store_log import StoreLog, asked, contents


@pytest.fixture
def log() -> StoreLog:
    log = StoreLog()
    lease = log.grant()
    log.put("a", b"1", lease)
    log.do(Transact((), (Put("b", b"2"),)), asked(1))
    return log


def test_the_records_are_those_that_were_agreed(log):
    assert list(contents(log.machine)) == [
        "store/k/a",
        "store/k/b",
        "store/l/0000000000000001",
        "store/meta",
        "store/s/fra/a1",
    ]


def test_only_what_changed_is_written_and_each_once(log):
    log.machine.dirty_records()
    for _ in range(5):
        log.put("a")
    log.put("c")
    log.delete("c")
    written = log.machine.dirty_records()
    assert [record.key for record in written] == ["store/k/a", "store/k/c", "store/meta"]
    assert written[1].value is None
    assert log.machine.dirty_records() == ()


def test_no_records_are_an_empty_store():
    machine = StoreMachine.recover(())
    assert (machine.index, machine.revision, machine.digest) == (0, 0, 0)


def test_records_of_other_parts_are_left_alone(log):
    others = (StoredRecord("raft/hard", b"x"), StoredRecord("instance/web", b"y"))
    machine = StoreMachine.recover((*others, *log.machine.all_records()))
    assert contents(machine) == contents(log.machine)


@pytest.mark.parametrize("position", range(5))
def test_a_flipped_bit_names_its_record_and_the_mend(log, position):
    records = list(log.machine.all_records())
    damaged = records[position]
    for at in (0, 8, len(damaged.value) - 1):
        value = damaged.value[:at] + bytes([damaged.value[at] ^ 1]) + damaged.value[at + 1 :]
        records[position] = StoredRecord(damaged.key, value)
        with pytest.raises(LocalError, match="dislocate servers add") as raised:
            StoreMachine.recover(records)
        assert raised.value.field == damaged.key


@pytest.mark.parametrize("value", [None, b"", b"1234567", b"12345678", b"123456789"])
def test_a_record_that_is_no_record_is_named(log, value):
    with pytest.raises(LocalError) as raised:
        StoreMachine.recover([*log.machine.all_records(), StoredRecord("store/k/z", value)])
    assert raised.value.field == "store/k/z"


@pytest.mark.parametrize("gone", ["store/k/b", "store/l/0000000000000001", "store/meta", "store/s/fra/a1"])
def test_a_missing_record_is_noticed(log, gone):
    records = [record for record in log.machine.all_records() if record.key != gone]
    with pytest.raises(LocalError) as raised:
        StoreMachine.recover(records)
    assert raised.value.field == ("store/k/a" if "/l/" in gone else "store/meta")


def test_a_record_of_another_time_is_noticed(log):
    old = {record.key: record for record in log.machine.all_records()}
    log.put("b", b"3")
    records = [old["store/k/b"] if record.key == "store/k/b" else record for record in log.machine.all_records()]
    with pytest.raises(LocalError) as raised:
        StoreMachine.recover(records)
    assert raised.value.field == "store/meta"


def test_a_value_under_the_key_of_another_is_noticed(log):
    records = {record.key: record for record in log.machine.all_records()}
    records["store/k/b"] = StoredRecord("store/k/b", records["store/k/a"].value)
    with pytest.raises(LocalError) as raised:
        StoreMachine.recover(records.values())
    assert raised.value.field == "store/k/b"


def test_an_unknown_kind_of_record_is_of_another_version(log):
    good = log.machine.all_records()[0]
    with pytest.raises(LocalError):
        StoreMachine.recover([StoredRecord("store/x/1", good.value)])


def test_a_large_snapshot_is_cut_through_its_values():
    log = StoreLog()
    for number in range(3):
        log.put(f"{number}", bytes([number]) * 200_000)
    log.put("é" * 200, b"")
    cutter = SnapshotCutter(log.machine)
    chunks = list(cutter)
    assert len(chunks) == len(cutter) == 13
    assert all(len(chunk) <= SNAPSHOT_CHUNK for chunk in chunks)
    assert (cutter.index, cutter.revision) == (4, 4)
    assert contents(StoreMachine.recover(join_chunks(chunks))) == contents(log.machine)


def test_a_snapshot_stays_true_to_its_moment_while_the_store_goes_on(log):
    expected = contents(log.machine)
    cutter = SnapshotCutter(log.machine, 10)
    log.put("a", b"changed")
    log.delete("b")
    log.do(Transact((), (Put("c", b""),)), asked(2, floor=2))
    log.grant()
    assert contents(StoreMachine.recover(join_chunks(cutter))) == expected


@pytest.mark.parametrize("cut", [1, 3, 6, 10, 100])
def test_a_snapshot_that_ends_early_is_no_snapshot(log, cut):
    whole = b"".join(SnapshotCutter(log.machine))
    with pytest.raises(LocalError, match="send it again"):
        StoreMachine.recover(join_chunks([whole[:-cut]]))


def test_an_empty_store_has_a_snapshot():
    machine = StoreMachine()
    chunks = list(SnapshotCutter(machine))
    assert len(chunks) == 1
    assert contents(StoreMachine.recover(join_chunks(chunks))) == contents(machine)


def test_a_snapshot_brings_no_record_but_the_stores(log):
    log.put("a")
    stream = b"".join(SnapshotCutter(log.machine)) + framed(StoredRecord("raft/hard", b"mine"))
    records = join_chunks([stream])
    assert records == log.machine.all_records()
    assert records == replacing_records(StoreMachine(), records)
