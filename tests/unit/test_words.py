"""Sentences count and name."""

from dislocate.core.words import count, in_short, may, names


def test_one_is_not_many():
    assert [count(number) for number in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
    assert [count(number, "batch", "batches") for number in (1, 2)] == ["1 batch", "2 batches"]
    assert [may(budget) for budget in (0, 2)] == ["none may", "2 may"]


def test_many_are_named_until_nobody_would_read_on():
    assert names(["fra/a1"]) == "fra/a1"
    assert names([f"fra/a{number}" for number in range(1, 8)]) == "fra/a1, fra/a2, fra/a3, fra/a4, fra/a5 and 2 more"


def test_of_a_log_one_line_is_told_with_a_sign_that_there_are_more():
    assert in_short("disk full\n") == "disk full"
    assert in_short("\nnot ready\nIts log ends: 1\n2") == "not ready ... 2"
    assert in_short("") == ""
