"""Amounts: how many nodes '25%' is."""

import re

_PERCENT = re.compile(r"(\d{1,3})(?:\.(\d{1,2}))?%", re.ASCII)
_WHOLE = 100 * 100  # hundredths of a percent


def amount(amount: int | str, of: int) -> int:
    """Nodes: a number as it is, at most `of`; a part is rounded down, and at least 1 unless it is 0.

    What is no amount is 0, the most careful reading: `spec.check_spec` refuses it before it gets here."""
    if isinstance(amount, int):
        return max(0, min(amount, of))
    found = _PERCENT.fullmatch(amount)
    if found is None:
        return 0
    part = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0"))
    return max(1, min(of, of * part // _WHOLE)) if part and of else 0
