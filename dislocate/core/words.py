"""Words: how many and who, in sentences that people read.

>>> count(1), count(2, "batch", "batches"), names(("fra/a1", "fra/a2"))
('1 node', '2 batches', 'fra/a1, fra/a2')
"""

from collections.abc import Sequence

NAMED = 5  # that words name one by one


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


def first_line(text: str) -> str:
    """The first line of `text` that says something, with a sign that there are more."""
    lines = [line for line in text.splitlines() if line.strip()]
    return f"{lines[0].rstrip()} ..." if len(lines) > 1 else "".join(lines)
