"""Freezes: windows of the week in which a run begins nothing, by the wall clock in UTC.

Invariant: a window belongs to the day on which it begins, also when it ends on the next one; `begin` is in it, `end` is not.
One whose `begin` is its `end` lasts a whole day.  Integer arithmetic from the unix epoch, a Thursday: leap seconds do not
exist there.  Texts were checked by `core.runs.spec`.
"""

from collections.abc import Sequence

from dislocate.core.boundary.spec import Freeze
from dislocate.core.units import HOUR, MINUTE

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * HOUR
WEEK = 7 * DAY
EPOCH = DAYS.index("thu") * DAY  # where in its week 1970-01-01 00:00 is


def frozen_until(freezes: Sequence[Freeze], unix: int) -> int | None:
    """When (unix nanoseconds) the windows that `unix` is in end, those that follow without a gap included; None: it is in
    none.  Windows without any gap end a week later."""
    until = unix
    while until - unix < WEEK:
        end = max((_end(freeze, until) for freeze in freezes), default=until)
        if end == until:
            break
        until = end
    return None if until == unix else until


def weekday_time(unix: int) -> str:
    """'sat 06:00 UTC'."""
    into = (unix + EPOCH) % WEEK
    minutes = into % DAY // MINUTE
    return f"{DAYS[into // DAY]} {minutes // 60:02d}:{minutes % 60:02d} UTC"


def _end(freeze: Freeze, unix: int) -> int:
    """When the window that `unix` is in ends; `unix` itself when it is in none."""
    begin = _time_of_day(freeze.begin)
    length = (_time_of_day(freeze.end) - begin) % DAY or DAY
    ends = [unix]
    for day in freeze.days or DAYS:
        into = (unix + EPOCH - DAYS.index(day) * DAY - begin) % WEEK
        if into < length:
            ends.append(unix + length - into)
    return max(ends)


def _time_of_day(text: str) -> int:
    """Nanoseconds from midnight to '22:00'."""
    hours, _, minutes = text.partition(":")
    return int(hours) * HOUR + int(minutes) * MINUTE
