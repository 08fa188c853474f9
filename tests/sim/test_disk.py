"""A disk keeps a prefix of what was written, and at least what it promised."""

from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.streams import Streams
from sim.disk import Disk


def new_disk(seed=1):
    return Disk(Streams(str(seed))["disk"])


def write(disk, number, sync=True, now=0):
    made, _ = disk.submit(Store(number, (StoredRecord(f"t/{number:03}", b"x"),), sync), now)
    return made


def keys(disk):
    return [int(record.key[2:]) for record in disk.records()]


def test_writes_are_over_in_the_order_in_which_they_began():
    disk = new_disk()
    ends = [disk.submit(Store(n, (), sync=n % 2 == 0), 0)[1] for n in range(10)]
    assert ends == sorted(ends)


def test_a_later_sync_makes_earlier_writes_durable():
    disk = new_disk()
    disk.complete(write(disk, 1, sync=False))
    disk.complete(write(disk, 2, sync=True))
    disk.power_lost()
    assert keys(disk) == [1, 2]


def test_a_failing_disk_keeps_nothing_of_what_it_refused():
    disk = new_disk()
    disk.complete(write(disk, 1))
    disk.is_failing = True
    assert disk.complete(write(disk, 2)) == "the disk fails"
    disk.process_died()
    assert keys(disk) == [1]


def test_a_full_disk_says_so_keeps_what_it_has_and_takes_writes_again_when_there_is_room():
    disk = new_disk()
    disk.complete(write(disk, 1))
    disk.is_full = True
    assert disk.complete(write(disk, 2)).startswith("full")
    assert keys(disk) == [1]
    disk.is_full = False
    assert disk.complete(write(disk, 3)) == ""
    assert keys(disk) == [1, 3]


def test_a_slow_disk_takes_longer_by_its_factor():
    good, slow = new_disk(), new_disk()
    slow.factor = 100.0
    assert slow.submit(Store(1, (), True), 0)[1] == 100 * good.submit(Store(1, (), True), 0)[1]


def test_only_what_was_synced_counts_as_durable():
    disk = new_disk()
    disk.complete(write(disk, 1, sync=False))
    assert disk.durable("t/001") is None
    disk.complete(write(disk, 2, sync=True))
    assert disk.durable("t/001") == b"x"


def test_a_wiped_disk_is_another_disk():
    disk = new_disk()
    disk.complete(write(disk, 1))
    disk.boot = 5
    disk.wipe()
    assert (keys(disk), disk.boot, disk.generation) == ([], 0, 2)


@given(st.lists(st.booleans(), max_size=12), st.integers(0, 12), st.booleans(), st.integers(0, 1000))
def test_a_crash_keeps_a_prefix_with_all_that_was_promised(syncs, answered, power, seed):
    disk = new_disk(seed)
    writes = [write(disk, number, sync) for number, sync in enumerate(syncs)]
    for one in writes[:answered]:
        disk.complete(one)
    answered = min(answered, len(syncs))
    if power:
        disk.power_lost()
    else:
        disk.process_died()
    kept = keys(disk)
    promised = max((n + 1 for n in range(answered) if syncs[n]), default=0) if power else answered
    assert kept == list(range(len(kept)))
    assert len(kept) >= promised
