"""The store does what a naive model of it does, and is the same store wherever and however often its log is applied."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from dislocate.core.boundary.store import (
    Compacted,
    Compare,
    Delete,
    Field,
    Get,
    GrantLease,
    Put,
    Relation,
    RevokeLease,
    Transact,
)
from dislocate.core.consensus.messages import GroupId
from dislocate.core.store import keys as keys_module
from dislocate.core.store.backup import restore_chunks
from dislocate.core.store.commands import Command, LeasesEnded, Origin, decode_command, encode_command
from dislocate.core.store.keys import OrderedNames
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.snapshot import SnapshotCutter, join_chunks, replacing_records
from tests.support.store_log import contents, replayed, write_backup
from tests.support.store_model import StoreModel, told

NAMES = ("a", "a/b", "a/b/c", "a0", "b", "é", "\U0001f512", "￿")  # the order of code points, not of UTF-16
PREFIXES = ("", "a", "a/", "\U0001f512")
names = st.sampled_from(NAMES)
values = st.sampled_from((b"", b"0", b"1", b"x" * 50))
leases = st.sampled_from((0, 0, 0, 1, 2, 3, 5, 8))
ranges = st.one_of(st.tuples(names, st.just(False)), st.tuples(st.sampled_from(PREFIXES), st.just(True)))

operations = st.one_of(
    st.builds(Put, names, values, leases),
    ranges.map(lambda key: Delete(*key)),
    ranges.map(lambda key: Get(*key)),
)
compares = st.one_of(
    st.builds(Compare, names, st.just(Field.VALUE), st.sampled_from(Relation), value=values),
    st.builds(
        Compare,
        names,
        st.sampled_from((Field.CREATED, Field.MODIFIED, Field.VERSION, Field.LEASE)),
        st.sampled_from(Relation),
        number=st.integers(0, 12),
    ),
)
some_operations = st.lists(operations, max_size=4).map(tuple)
bodies = st.one_of(
    st.builds(Transact, st.lists(compares, max_size=2).map(tuple), some_operations, some_operations),
    st.builds(Transact, st.just(()), some_operations),
    st.builds(GrantLease, st.integers(1, 3)),
    st.builds(RevokeLease, st.integers(1, 8)),
    st.builds(LeasesEnded, st.lists(st.integers(1, 8), max_size=3).map(tuple)),
)
sessions = st.sampled_from(("fra/a#1", "fra/a#2", "wdc/b#1"))
origins = st.one_of(st.none(), st.builds(Origin, sessions, st.integers(1, 6), st.integers(1, 4)))


def as_a_retry_repeats(commands: list[Command]) -> list[Command]:
    """The same number of one session always means the same command: whoever repeats says the same again."""
    said: dict[tuple[str, int], Command] = {}
    repeated = []
    for command in commands:
        if command.origin is not None:
            body = said.setdefault((command.origin.session, command.origin.seq), command).body
            command = Command(body, command.origin)
        repeated.append(command)
    return repeated


logs = st.lists(st.builds(Command, bodies, origins), max_size=40).map(as_a_retry_repeats)
entries = logs.map(lambda log: [encode_command(command) for command in log])


@given(logs)
def test_the_machine_does_what_the_model_does(log):
    machine, model = StoreMachine(), StoreModel()
    for index, command in enumerate(log, 1):
        since = machine.revision
        applied = machine.apply(index, encode_command(command))
        assert told(applied.result) == model.apply(command)
        assert machine.revision == model.revision
        assert list(applied.changes) == [change for change in model.history if change.revision > since]
        assert {kv.key: kv for kv in machine.read("", prefix=True)[0]} == model.keys
        assert {lease: one.ttl for lease, one in machine.leases.items()} == model.leases
        for lease, one in machine.leases.items():
            assert one.ordered_keys() == tuple(sorted(k for k, kv in model.keys.items() if kv.lease == lease))
        assert machine.size == sum(len(kv.key.encode()) + len(kv.value) for kv in model.keys.values())


@given(entries)
def test_the_same_log_twice_is_the_same_store(log):
    one, other = replayed(log), replayed(log)
    assert one.digest == other.digest
    assert contents(one) == contents(other)


@given(entries)
def test_equal_digests_are_equal_stores_whatever_way_led_there(log):
    """The digest of a store that has come a long way is the digest of one that was just read."""
    machine = replayed(log)
    assert StoreMachine.recover(machine.all_records()).digest == machine.digest
    emptied = replayed([*log, encode_command(Command(Transact((), (Delete("", True),))))])
    for lease in sorted(emptied.leases):
        emptied.apply(emptied.index + 1, encode_command(Command(RevokeLease(lease))))
    assert emptied.digest == 0


@given(entries, st.data())
def test_a_recovered_store_goes_on_as_if_nothing_had_been(log, data):
    cut = data.draw(st.integers(0, len(log)))
    recovered = StoreMachine.recover(replayed(log[:cut]).all_records())
    whole = replayed(log[:cut])
    assert contents(recovered) == contents(whole)
    for index, entry in enumerate(log[cut:], cut + 1):
        assert recovered.apply(index, entry) == whole.apply(index, entry)
    assert contents(recovered) == contents(whole)


@given(entries, st.data())
def test_what_was_saved_at_any_time_and_the_log_from_there_are_the_store(log, data):
    """A process saves now and then what changed, and dies; the disk has some state and the log from there."""
    saves = data.draw(st.sets(st.integers(1, 40)))
    machine, disk = StoreMachine(), {}
    for index, entry in enumerate(log, 1):
        machine.apply(index, entry)
        if index in saves:
            for record in machine.dirty_records():
                disk.pop(record.key, None) if record.value is None else disk.update({record.key: record})
            assert disk == {record.key: record for record in machine.all_records()}
            assert machine.dirty_records() == ()
    assert contents(replayed(log, StoreMachine.recover(disk.values()))) == contents(machine)


@given(entries, st.integers(20, 300), st.data())
def test_a_snapshot_stays_true_to_its_moment_and_any_chunk_can_be_had_again(log, size, data):
    machine = replayed(log)
    expected = machine.all_records()
    assert list(expected) == sorted(expected, key=lambda record: record.key)
    cutter, other = SnapshotCutter(machine, size), SnapshotCutter(machine, size)
    for entry in data.draw(entries):
        machine.apply(machine.index + 1, entry)
    chunks = list(cutter)
    assert len(chunks) == len(cutter)
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert sum(map(len, chunks)) == cutter.length
    for number in data.draw(st.lists(st.integers(0, len(chunks) - 1), max_size=5)):
        assert other[number] == cutter[number] == chunks[number]
    assert join_chunks(chunks) == expected


@given(entries, entries)
def test_a_disk_takes_over_a_snapshot_and_keeps_nothing_of_before(log, other_log):
    old, new = replayed(log), replayed(other_log)
    disk = {record.key: record for record in old.all_records()}
    for record in replacing_records(old, new.all_records()):
        disk.pop(record.key, None) if record.value is None else disk.update({record.key: record})
    assert disk == {record.key: record for record in new.all_records()}


@given(entries, entries)
def test_a_restored_store_is_what_was_backed_up_and_its_watchers_know(log, other_log):
    far, near = replayed(log), replayed(other_log)
    before, since = {kv.key: kv for kv in near.read("", True)[0]}, near.revision
    sessions = {key: value for key, value in contents(near).items() if key.startswith("store/s/")}
    for part in restore_chunks(write_backup(far, GroupId(bytes(16))), 1):
        applied = near.apply(near.index + 1, encode_command(Command(part)))
    after = {kv.key: kv for kv in near.read("", True)[0]}

    def told(store):
        keys = store.read("", True)[0]
        return {kv.key: (kv.value, store.leases[kv.lease].ttl if kv.lease else 0) for kv in keys}

    assert told(near) == told(far)
    assert sorted(one.ttl for one in near.leases.values()) == sorted(one.ttl for one in far.leases.values())
    assert near.revision == max(since, far.revision) + 1
    assert all(kv.modified == kv.created == near.revision for kv in after.values() if before.get(kv.key) != kv)
    changed = [name for name in sorted({**before, **after}) if before.get(name) != after.get(name)]
    assert [(one.key, one.now) for one in applied.changes] == [(name, after.get(name)) for name in changed]
    assert {key: value for key, value in contents(near).items() if key.startswith("store/s/")} == sessions
    assert contents(StoreMachine.recover(near.all_records())) == contents(near)


@given(logs, st.integers(0, 10), st.data())
def test_a_watch_sees_every_change_or_is_told_that_it_cannot(log, keep, data):
    """Hazard 16: what is seen is the history, whatever is forgotten meanwhile."""
    machine, model = StoreMachine(), StoreModel()
    key, prefix = data.draw(ranges)
    seen_to, seen, skipped = 0, [], 0
    forget_at = data.draw(st.sets(st.integers(1, 40)))
    look_at = data.draw(st.sets(st.integers(1, 40)))
    for index, command in enumerate(log, 1):
        machine.apply(index, encode_command(command))
        model.apply(command)
        if index in forget_at:
            machine.forget_changes(keep)
        if index in look_at:
            changes = machine.changes_after(key, prefix, seen_to)
            if isinstance(changes, Compacted):
                assert changes.oldest > seen_to
                seen, skipped = [], machine.revision  # it reads the keys, and watches on from there
            else:
                seen += changes
            seen_to = machine.revision
    history = [
        change
        for change in model.history
        if skipped < change.revision <= seen_to and (change.key.startswith(key) if prefix else change.key == key)
    ]
    assert seen == history


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 40)), max_size=100), st.integers(0, 40))
@example([(False, 0), (False, 2), (True, 1)], 0)  # below a first block that is gone
def test_names_stay_in_order(deeds, start):
    present = {f"{number:02}" for number in range(0, 20, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keys_module, "_BLOCK", 2)
        ordered = OrderedNames(present)
        for is_added, number in deeds:
            name = f"{number:02}"
            if is_added and name not in present:
                present.add(name)
                ordered.add(name)
            elif not is_added and name in present:
                present.remove(name)
                ordered.remove(name)
            assert ordered.copied() == sorted(present)
    assert list(ordered.at_least(f"{start:02}")) == sorted(name for name in present if name >= f"{start:02}")


@given(entries)
def test_every_entry_is_read_back_as_it_was_written(log):
    assert [encode_command(decode_command(entry)) for entry in log] == log
