"""Watches: a change wakes who waits for it and nobody else, and history says when it cannot tell all."""

from dislocate.core.boundary.store import Compacted, KeyChange, KeyValue, RevokeLease
from dislocate.core.store.changes import ChangeHistory
from dislocate.core.store.watching import Watchers
from dislocate.core.tunables import CHANGES_AGE
from dislocate.core.units import MINUTE
from tests.support.store_log import StoreLog


def change(key: str, revision: int = 1, size: int = 0) -> KeyChange:
    return KeyChange(key, revision, KeyValue(key, bytes(size), revision, revision, 1))


def test_a_change_concerns_who_waits_for_its_key_or_a_prefix_of_it():
    watchers: Watchers[str] = Watchers()
    watchers.add("exact", "a/b", False)
    watchers.add("prefix", "a/", True)
    watchers.add("all", "", True)
    watchers.add("longer", "a/b/c", True)
    watchers.add("other", "a/c", False)
    assert set(watchers.concerned([change("a/b")])) == {"exact", "prefix", "all"}
    assert watchers.concerned([change("z")]) == ("all",)


def test_who_is_concerned_twice_is_named_once():
    watchers: Watchers[int] = Watchers()
    watchers.add(1, "a", True)
    assert watchers.concerned([change("a1"), change("a2")]) == (1,)


def test_who_is_removed_waits_no_more():
    watchers: Watchers[int] = Watchers()
    watchers.add(1, "a", True)
    watchers.add(2, "a", True)
    watchers.add(3, "a", False)
    for ticket in (1, 3, 3, 99):
        watchers.remove(ticket)
    assert watchers.concerned([change("a")]) == (2,)
    watchers.remove(2)
    assert watchers.concerned([change("a")]) == ()
    assert (watchers._by_key, watchers._by_prefix, watchers._lengths) == ({}, {}, {})


def test_a_ticket_waits_for_its_last_interest_only():
    watchers: Watchers[int] = Watchers()
    watchers.add(1, "a", False)
    watchers.add(1, "b", True)
    assert watchers.interest(1) == ("b", True)
    assert watchers.concerned([change("a")]) == ()
    assert watchers.everyone() == (1,)


def test_a_change_looks_at_no_watcher_that_it_does_not_concern():
    """Ten thousand that wait for other keys are not touched: their tickets are never hashed again."""
    looked_at = []

    class Ticket(int):
        def __hash__(self):
            looked_at.append(self)
            return int(self)

    watchers: Watchers[Ticket] = Watchers()
    for number in range(10_000):
        watchers.add(Ticket(number), f"key/{number}", number % 2 == 0)
    looked_at.clear()
    assert watchers.concerned([change("key/7777")]) == (7777,)
    assert len(looked_at) <= 8


# ---- history


def test_history_tells_what_came_after_a_revision():
    log = StoreLog()
    lease = log.grant()
    log.put("a/1", lease=lease)
    log.put("b")
    log.do(RevokeLease(lease))
    told = log.machine.changes_after("a/", True, 0)
    assert [(one.key, one.revision, one.now is None) for one in told] == [("a/1", 1, False), ("a/1", 3, True)]
    assert log.machine.changes_after("a/1", False, 1) == told[1:]
    assert log.machine.changes_after("a/", False, 0) == ()
    assert log.machine.changes_after("", True, 3) == ()
    assert log.machine.changes_after("", True, 99) == ()


def test_what_is_forgotten_is_told_as_compacted():
    log = StoreLog()
    for _ in range(5):
        log.put("a")
    log.machine.forget_changes(keep=2)
    assert log.machine.changes_after("a", False, 2) == Compacted(3)
    assert [one.revision for one in log.machine.changes_after("a", False, 3)] == [4, 5]
    assert log.machine.changes_after("other", False, 0) == Compacted(3)


def test_a_revision_is_forgotten_whole():
    history = ChangeHistory(floor=0)
    history.add([change("a", 1), change("b", 1), change("c", 1)])
    history.add([change("a", 2)])
    history.keep(2)
    assert history.after("", True, 0) == Compacted(1)
    assert [one.key for one in history.after("", True, 1)] == ["a"]
    assert len(history) == 1


def test_history_is_bounded_in_count_and_bytes():
    history = ChangeHistory(floor=0, limit=100, limit_bytes=10_000)
    for revision in range(1, 1_000):
        history.add([change("a", revision)])
    assert (len(history), history.floor) == (50, 949)  # 200 bytes each
    history.add([change("a", 1_000, size=9_000)])
    assert len(history) == 5
    history = ChangeHistory(floor=0, limit=100)
    for revision in range(1, 1_000):
        history.add([change("a", revision)])
    assert (len(history), history.floor) == (100, 899)
    assert len(history._changes) <= 200


def test_history_is_forgotten_by_age_too():
    history = ChangeHistory(floor=0)
    for minute in range(30):
        history.add([change("a", minute + 1)])
        history.age_out(minute * MINUTE, minute + 1)
    reach = CHANGES_AGE // MINUTE
    assert history.floor == 30 - reach
    assert len(history) == reach
    history.age_out(1_000 * MINUTE, 30)
    assert history.floor == 30


def test_a_recovered_store_remembers_no_changes_and_says_so():
    log = StoreLog()
    log.put("a")
    machine = type(log.machine).recover(log.machine.all_records())
    assert machine.changes_after("a", False, 0) == Compacted(1)
    assert machine.changes_after("a", False, 1) == ()
