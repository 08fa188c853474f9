"""Amounts of nodes: a number, or a part of them such as '25%'.

Invariant: a part is rounded up and is at least one node, unless it is '0%'; whoever writes '10%' of three nodes means one.
"""

import re

from dislocate.core.boundary.spec import Amount
from dislocate.core.errors import LocalError

_PART = re.compile(r"(\d{1,3})%", re.ASCII)
_WORDS = "a whole number of nodes, at least 0, or a part of them such as '25%'"


def check_amount(amount: Amount, field: str) -> None:
    """Raises `LocalError` unless `amount` can be counted."""
    if isinstance(amount, str):
        part = _PART.fullmatch(amount)
        is_right = part is not None and int(part[1]) <= 100
    else:
        is_right = not isinstance(amount, bool) and amount >= 0
    if not is_right:
        raise LocalError(field, got=amount, expected=_WORDS)


def amount(given: Amount, of: int) -> int:
    """Nodes, where there are `of` of them.  Raises `LocalError` for what is none."""
    check_amount(given, "amount")
    if isinstance(given, int):
        return given
    part = int(given.removesuffix("%"))
    return max(1, -(-of * part // 100)) if part else 0
