"""Alarm: whoever sleeps is woken, once, and never too late."""

from time import monotonic

import gevent

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
    for seconds in (0.05, 0.01, 0.03):
        began, waits = monotonic(), 0
        while (left := seconds - (monotonic() - began)) > 0:
            alarm.wait(left)
            waits += 1
        assert waits <= 3
        assert monotonic() - began < seconds + 0.5


def test_a_sleeper_that_is_killed_leaves_the_alarm_usable():
    alarm = Alarm()
    sleeper = gevent.spawn(alarm.wait, 60)
    gevent.sleep(0)
    sleeper.kill()
    alarm.ring()
    alarm.wait()
    gevent.spawn(alarm.ring)
    alarm.wait(5)
