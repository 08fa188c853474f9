"""Words: how many and who, in sentences that people read.

>>> count(1), count(2, "batch", "batches"), names(("fra/a1", "fra/a2"))
('1 node', '2 batches', 'fra/a1, fra/a2')
"""

from collections.abc import Sequence

NAMED = 5  # that words name one by one
LINE = 300  # characters of one line of somebody else's
LEFT_OUT = " [...] "


def count(number: int, what: str = "node", many: str = "") -> str:
    """'1 node', '2 nodes'; `many` where that is not `what` with an s."""
    return f"{number} {what if number == 1 else many or f'{what}s'}"


def names(those: Sequence[str]) -> str:
    """'fra/a1, fra/a2 and 3 more'."""
    more = len(those) - NAMED
    return ", ".join(those[:NAMED]) + (f" and {more} more" if more > 0 else "")


def may(budget: int) -> str:
    """How many may fail: 'none may', '2 may'."""
    return f"{budget or 'none'} may"


def in_short(text: str) -> str:
    """On one line: the first line of `text` that says something, and the last, since programs end with what was wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ... ".join(both_ends(line, LINE) for line in dict.fromkeys((lines[0], lines[-1]))) if lines else ""


def both_ends(text: str, limit: int) -> str:
    """`text` in at most `limit` characters: what it is about, and above all how it ends."""
    if len(text) <= limit:
        return text
    head = limit // 3
    return text[:head] + LEFT_OUT + text[head + len(LEFT_OUT) - limit :]
