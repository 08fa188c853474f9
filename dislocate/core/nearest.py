"""The known name that is nearest to one that nobody knows: errors name it.

By edits: one inserted, left out, changed or swapped character each.  Here because specifications are checked in the core too.
"""

from collections.abc import Iterable

LONGEST = 100  # characters that are compared: time grows with their square


def nearest(name: str, known: Iterable[str]) -> str:
    """\", did you mean 'x'?\" where some known name is close, else nothing."""
    found, least = "", (len(name) + 2) // 3 + 1  # a third of the letters, and two of four
    for each in known:
        edits = _edits(name[:LONGEST].lower(), each[:LONGEST].lower(), least)
        if edits < least:
            found, least = each, edits
    return f", did you mean {found!r}?" if found else ""


def _edits(one: str, other: str, least: int) -> int:
    """How many edits make `other` of `one`; `least` or more where it is too many."""
    if abs(len(one) - len(other)) >= least:
        return least
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, letter in enumerate(one, 1):
        older, before, row = before, row, [at]
        for to, wanted in enumerate(other, 1):
            cost = min(before[to] + 1, row[to - 1] + 1, before[to - 1] + (letter != wanted))
            if at > 1 and to > 1 and letter == other[to - 2] and one[at - 2] == wanted:
                cost = min(cost, older[to - 2] + 1)
            row.append(cost)
        if min(row) >= least and min(before) >= least:
            return least  # it only grows from here: most names are given up after a few letters
    return row[-1]
