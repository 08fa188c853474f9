"""Sentences count and name."""

from dislocate.core.words import both_ends, count, in_short, may, names


def test_one_is_not_many():
    assert [count(number) for number in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
    assert [count(number, "batch", "batches") for number in (1, 2)] == ["1 batch", "2 batches"]
    assert [may(budget) for budget in (0, 2)] == ["none may", "2 may"]


def test_many_are_named_until_nobody_would_read_on():
    assert names(["fra/a1"]) == "fra/a1"
    assert names([f"fra/a{number}" for number in range(1, 8)]) == "fra/a1, fra/a2, fra/a3, fra/a4, fra/a5 and 2 more"


def test_of_a_log_its_first_line_and_its_last_are_told_in_one():
    assert in_short("disk full\n") == "disk full"
    assert in_short("\napt-get: exit 100: Reading lists\nDone\nE: Unable to locate package x\n") == (
        "apt-get: exit 100: Reading lists ... E: Unable to locate package x"
    )
    assert in_short("") == ""
    assert len(in_short(f"{'x' * 5_000}\n{'y' * 5_000}")) < 700


def test_what_is_too_long_keeps_its_beginning_and_its_end():
    assert both_ends("short", 5) == "short"
    cut = both_ends(f"pip: {'Collecting something ' * 100}ERROR: no such package", 300)
    assert (len(cut), cut[:5], cut[-22:]) == (300, "pip: ", "ERROR: no such package")
