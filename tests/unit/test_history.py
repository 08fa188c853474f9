"""What is remembered of what happened, and how much."""

from dislocate.core.catalog.history import History
from dislocate.core.tunables import HISTORY_PER_SUBJECT, HISTORY_SUBJECTS


def test_history_keeps_cause_observers_and_time_oldest_first():
    clock = iter((5, 7))
    history = History(lambda: next(clock))
    history.record("fra/a1", "suspected", "silence", ("fra/a2", "fra/a3"))
    history.record("fra/a1", "died", "refused", ("fra/a2",))
    first, second = history.of("fra/a1")
    assert (first.at, first.what, first.why, first.observers) == (5, "suspected", "silence", ("fra/a2", "fra/a3"))
    assert (second.at, second.what) == (7, "died")


def test_a_subject_keeps_its_last_entries():
    history = History(lambda: 0)
    for number in range(HISTORY_PER_SUBJECT + 10):
        history.record("web", str(number), "")
    assert [entry.what for entry in history.of("web")] == [str(n) for n in range(10, HISTORY_PER_SUBJECT + 10)]


def test_the_subject_untouched_for_longest_goes_first():
    history = History(lambda: 0)
    for number in range(HISTORY_SUBJECTS):
        history.record(str(number), "came", "")
    history.record("0", "stayed", "")
    history.record("new", "came", "")
    assert (len(history.of("0")), len(history.of("1")), len(history.of("new"))) == (2, 0, 1)


def test_nothing_is_remembered_of_the_unknown():
    assert History(lambda: 0).of("nobody") == ()
