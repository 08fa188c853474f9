"""Windows in which nothing is begun."""

import pytest

from dislocate.core.boundary.spec import Freeze
from dislocate.core.runs.control.freezes import DAY, WEEK, frozen_until, weekday_time
from dislocate.core.units import HOUR, MINUTE
from tests.support.tiny_runs import MONDAY

NIGHT = Freeze(begin="22:00", end="06:00")
LUNCH = Freeze(begin="12:00", end="13:30")


def test_the_epoch_is_a_thursday_and_our_monday_a_monday():
    assert weekday_time(0) == "thu 00:00 UTC"
    assert weekday_time(MONDAY) == "mon 00:00 UTC"


def test_a_window_begins_with_its_first_moment_and_ends_before_its_last():
    assert frozen_until([LUNCH], MONDAY + 12 * HOUR - 1) is None
    assert frozen_until([LUNCH], MONDAY + 12 * HOUR) == MONDAY + 13 * HOUR + 30 * MINUTE
    assert frozen_until([LUNCH], MONDAY + 13 * HOUR + 30 * MINUTE) is None


@pytest.mark.parametrize("time", [22 * HOUR, 23 * HOUR, DAY, DAY + 6 * HOUR - 1])
def test_a_window_over_midnight_ends_on_the_next_day(time):
    assert frozen_until([NIGHT], MONDAY + time) == MONDAY + DAY + 6 * HOUR


def test_a_window_belongs_to_the_day_on_which_it_begins():
    friday = Freeze(days=("fri",), begin="22:00", end="06:00")
    assert frozen_until([friday], MONDAY + 5 * DAY + 5 * HOUR) == MONDAY + 5 * DAY + 6 * HOUR
    assert frozen_until([friday], MONDAY + 4 * DAY + 5 * HOUR) is None


def test_a_window_over_the_end_of_the_week_ends_in_the_next_one():
    sunday = Freeze(days=("sun",), begin="20:00", end="04:00")
    assert frozen_until([sunday], MONDAY + WEEK + 3 * HOUR) == MONDAY + WEEK + 4 * HOUR


def test_windows_that_follow_each_other_end_with_the_last():
    weekend = Freeze(days=("sat", "sun"), begin="00:00", end="00:00")
    until = frozen_until([weekend], MONDAY + 5 * DAY + HOUR)
    assert until == MONDAY + WEEK
    assert weekday_time(until) == "mon 00:00 UTC"


def test_what_is_always_frozen_still_gets_an_answer():
    always = Freeze(begin="00:00", end="00:00")
    assert frozen_until([always], MONDAY) == MONDAY + WEEK


def test_without_windows_nothing_is_frozen():
    assert frozen_until([], MONDAY) is None
