"""Alarm: whoever sleeps is woken, once, and never too late."""

from time import monotonic

import gevent
import pytest
from gevent.event import AsyncResult

from dislocate.io.alarm import Alarm


def test_a_ring_wakes_the_sleeper_and_one_before_the_wait_is_not_lost():
    alarm, heard = Alarm(), []

    def sleep() -> None:
        for at in range(3):
            alarm.wait()
            heard.append(at)

    alarm.ring()
    sleeper = gevent.spawn(sleep)
    gevent.sleep(0)
    assert heard == [0]
    alarm.ring()
    alarm.ring()
    gevent.sleep(0)
    gevent.sleep(0)
    assert heard == [0, 1]
    alarm.ring()
    sleeper.join(1)
    assert heard == [0, 1, 2]


def test_a_wait_ends_in_its_time_also_after_a_longer_and_a_shorter_one():
    alarm = Alarm()
    for interrupted in (600, 0.02):  # rung at once: its timer stays, and is much too late or too early for what follows
        gevent.spawn(alarm.ring)
        alarm.wait(interrupted)
        for seconds in (0.05, 0.01, 0.03):
            began, waits = monotonic(), 0
            with gevent.Timeout(60):
                while (left := seconds - (monotonic() - began)) > 0:
                    alarm.wait(left)
                    waits += 1
            assert waits <= 3


def test_a_sleeper_that_is_killed_leaves_the_alarm_usable():
    alarm = Alarm()
    sleeper = gevent.spawn(alarm.wait, 60)
    gevent.sleep(0)
    sleeper.kill()
    alarm.ring()
    alarm.wait()
    gevent.spawn(alarm.ring)
    alarm.wait(5)


@pytest.mark.parametrize("rings", [1, 2])
@pytest.mark.parametrize("waits_again", [True, False])
def test_a_sleeper_that_is_taken_out_as_it_rings_is_not_woken_from_what_it_waits_for_next(rings, waits_again):
    alarm, other, heard = Alarm(), AsyncResult(), []

    def sleep() -> None:
        try:
            alarm.wait()
        except gevent.Timeout:
            if waits_again:
                alarm.clear()
                alarm.wait()
            heard.append(other.get())

    sleeper = gevent.spawn(sleep)
    gevent.sleep(0)
    gevent.get_hub().loop.run_callback(sleeper.throw, gevent.Timeout())  # first in the turn in which it rings
    for _ in range(rings):
        alarm.ring()
    gevent.sleep(0.01)
    assert not sleeper.dead
    alarm.ring()
    gevent.sleep(0.01)
    other.set("what it waited for")
    sleeper.join(1)
    assert (heard, sleeper.exception) == (["what it waited for"], None)
