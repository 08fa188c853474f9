"""The log: what matches stays, what is durable is known exactly, configurations come and go with their entries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.consensus.log import ENTRY_OVERHEAD, Log
from dislocate.core.consensus.messages import Configuration, Entry
from dislocate.core.errors import Bug
from tests.support.raft_disk import servers

OLD, NEW = Configuration(servers("abc")), Configuration(servers("abd"))


def entries(terms, first=1):
    return tuple(Entry(term, first + at, f"{term}.{first + at}".encode()) for at, term in enumerate(terms))


def log(*terms, compacted=0, compacted_term=0):
    return Log(compacted, compacted_term, OLD, entries(terms, compacted + 1))


def terms(of):
    return [of.term_of(index) for index in range(of.compacted + 1, of.last_index + 1)]


# ---- merging


def test_what_follows_is_appended():
    some = log(1, 1)
    assert some.merge(2, 1, entries([2, 2], 3), 0) == 4
    assert terms(some) == [1, 1, 2, 2]


def test_what_contradicts_is_replaced_from_there_on():
    some = log(1, 1, 1, 1)
    assert some.merge(1, 1, entries([1, 2], 2), 0) == 3
    assert terms(some) == [1, 1, 2]


def test_an_append_that_comes_late_takes_nothing_away():
    some = log(1, 1, 1, 1)
    assert some.merge(1, 1, entries([1], 2), 0) == 2
    assert terms(some) == [1, 1, 1, 1]
    assert some.stable == 4


@pytest.mark.parametrize(("index", "term"), [(5, 1), (4, 2), (9, 9)])
def test_a_log_that_does_not_have_the_entry_before_says_so(index, term):
    some = log(1, 1, 1, 1)
    assert some.merge(index, term, (), 0) is None
    assert terms(some) == [1, 1, 1, 1]


def test_what_is_compacted_agrees():
    some = log(3, 3, compacted=10, compacted_term=2)
    assert some.merge(8, 1, entries([2, 2, 3, 3, 3], 9), 10) == 13
    assert terms(some) == [3, 3, 3]
    assert some.merge(5, 1, entries([1], 6), 10) == 6


def test_a_leader_that_contradicts_what_is_committed_is_a_bug():
    some = log(1, 1, 1)
    with pytest.raises(Bug, match="entry 2, which is committed"):
        some.merge(1, 1, entries([2], 2), 3)


def test_where_two_logs_may_still_agree_is_found_by_term():
    some = log(1, 1, 2, 2, 2, 5, 5)
    assert some.agrees_at_or_before(7, 5) == 7
    assert some.agrees_at_or_before(7, 4) == 5
    assert some.agrees_at_or_before(4, 1) == 2
    assert some.agrees_at_or_before(99, 9) == 7
    assert some.agrees_at_or_before(7, 0) == 0


# ---- reading


def test_a_batch_holds_as_many_as_fit_and_at_least_one():
    some = log(1, 1, 1)
    each = ENTRY_OVERHEAD + 3
    assert some.batch(1, 3, 2 * each) == (entries([1, 1]), 2 * each)
    assert some.batch(2, 3, 1) == (entries([1], 2), each)
    assert some.batch(1, 2, 10_000)[0] == entries([1, 1])


def test_the_term_of_what_is_not_there_is_none():
    some = log(3, compacted=10, compacted_term=2)
    assert [some.term_of(index) for index in (9, 10, 11, 12)] == [None, 2, 3, None]


# ---- the disk


def test_a_save_takes_what_the_disk_does_not_have():
    some = log(1)
    for entry in entries([1, 1], 2):
        some.append(entry)
    assert some.hand_over(1, 3) == (0, 0, entries([1, 1], 2))
    assert not some.has_unsaved(3)
    assert some.stable == 1
    some.stored(1)
    assert some.stable == 3


def test_a_save_after_a_truncation_names_what_is_to_go():
    some = log(1, 1, 1)
    some.merge(1, 1, entries([2], 2), 0)
    assert some.hand_over(1, 2) == (2, 3, entries([2], 2))


def test_what_never_went_to_the_disk_need_not_be_dropped_there():
    some = log(1)
    some.append(Entry(1, 2, b"x"))
    some.merge(1, 1, entries([2], 2), 0)
    assert some.hand_over(1, 2) == (0, 0, entries([2], 2))


def test_a_save_under_way_makes_nothing_stable_that_was_replaced_since():
    some = log(1)
    some.merge(1, 1, entries([1, 1], 2), 0)
    some.hand_over(1, 3)
    some.merge(1, 1, entries([2], 2), 0)
    some.hand_over(2, 2)
    some.merge(1, 1, entries([1, 1], 2), 0)
    some.hand_over(3, 3)
    some.stored(1)
    assert some.stable == 1
    some.stored(2)
    assert some.stable == 1
    some.stored(3)
    assert some.stable == 3


@given(st.lists(st.tuples(st.integers(0, 6), st.lists(st.integers(1, 4), max_size=4), st.integers(0, 3)), max_size=12))
def test_what_is_stable_is_on_the_disk_whatever_was_replaced_meanwhile(steps):
    """A disk that does what saves say, in order, has every stable entry, after each acknowledgement."""
    some = log(1)
    disk, saves, done = dict(enumerate(entries([1]), 1)), [], 0
    for keep, grown, acks in steps:
        keep = max(1, min(keep, some.last_index))
        if keep < some.last_index:
            some.truncate(keep + 1)
        for term in grown:
            some.append(Entry(term, some.last_index + 1, bytes([len(saves) % 256])))
        if some.has_unsaved(some.last_index):
            saves.append(some.hand_over(len(saves) + 1, some.last_index))
        for _ in range(acks):
            if done < len(saves):
                drop_from, drop_to, written = saves[done]
                for index in range(drop_from, drop_to + 1) if drop_from else ():
                    disk.pop(index)
                disk |= {entry.index: entry for entry in written}
                done += 1
                some.stored(done)
                assert sorted(disk) == list(range(1, len(disk) + 1))
                assert [disk[index] for index in range(1, some.stable + 1)] == list(some.between(1, some.stable))


# ---- configurations


def test_a_configuration_counts_while_its_entry_is_in_the_log():
    some = log(1)
    assert some.configuration == OLD
    some.append(Entry(1, 2, b"", NEW))
    assert (some.configuration, some.configuration_index) == (NEW, 2)
    assert some.configuration_at(1) == OLD
    some.merge(1, 1, entries([2], 2), 0)
    assert (some.configuration, some.configuration_index) == (OLD, 0)


def test_compaction_keeps_the_configuration_it_passes():
    some = log(1, 1)
    some.append(Entry(1, 3, b"", NEW))
    some.append(Entry(1, 4, b"x"))
    some.hand_over(1, 4)
    some.stored(1)
    some.compact(3)
    assert (some.compacted, some.compacted_term, some.configuration) == (3, 1, NEW)
    assert some.configuration_at(3) == NEW
    assert terms(some) == [1]


def test_only_what_is_durable_can_be_compacted():
    some = log(1)
    some.append(Entry(1, 2, b"x"))
    some.compact(2)
    assert some.compacted == 1


def test_a_snapshot_takes_the_place_of_everything():
    some = log(1, 1, 2)
    some.append(Entry(2, 4, b"x"))
    some.hand_over(1, 4)
    some.restore(90, 7, NEW)
    some.stored(1)
    assert (some.compacted, some.stable, some.last_index, some.last_term) == (90, 90, 90, 7)
    assert some.configuration == NEW
    assert not some.has_unsaved(90)
