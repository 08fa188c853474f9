"""Silence on a link: how surprising it is, and what follows."""

from itertools import pairwise
from statistics import NormalDist

import pytest

from dislocate.core.membership.phi import Phi, Standing, standing, surprise
from dislocate.core.numeric import log10
from dislocate.core.tunables import HEARTBEAT_PERIOD
from dislocate.core.units import MILLISECOND, SECOND


def regular(beats: int, period: int = HEARTBEAT_PERIOD) -> tuple[Phi, int]:
    """A link that spoke `beats` times, and when it did last."""
    phi = Phi(HEARTBEAT_PERIOD, 0)
    for i in range(1, beats + 1):
        phi.heartbeat(i * period)
    return phi, beats * period


@pytest.mark.parametrize("deviations", [-3.0, -1.0, 0.0, 0.5, 1.0, 2.0, 4.0, 5.6])
def test_surprise_is_the_tail_of_the_normal_distribution(deviations):
    exact = -log10(1.0 - NormalDist().cdf(deviations))
    assert surprise(deviations) == pytest.approx(exact, abs=0.002)


def test_surprise_grows_without_end_and_without_overflow():
    values = [surprise(x / 10) for x in range(-100, 10_000)]
    assert all(low < high for low, high in pairwise(values[60:]))
    assert values == sorted(values)


def test_a_regular_link_is_suspected_within_two_heartbeats_of_silence():
    phi, now = regular(100)
    assert phi.standing(now + 1 * SECOND) is Standing.LIVE
    assert phi.standing(now + 2 * SECOND) is Standing.SUSPECT


def test_no_silence_below_ten_seconds_makes_a_link_silent():
    phi, now = regular(100)
    assert phi.value(now + 9 * SECOND) > 8.0
    assert phi.standing(now + 9 * SECOND) is Standing.SUSPECT
    assert phi.standing(now + 10 * SECOND) is Standing.SILENT


def test_a_long_silence_without_surprise_is_not_silent():
    assert standing(phi=2.0, silence=20 * SECOND) is not Standing.SILENT


def test_a_jittery_link_is_given_more_time_than_a_quiet_one():
    quiet, _ = regular(50)
    jittery = Phi(HEARTBEAT_PERIOD, 0)
    now = 0
    for i in range(50):
        now += (200 if i % 2 else 1_800) * MILLISECOND
        jittery.heartbeat(now)
    assert jittery.value(now + 2 * SECOND) < quiet.value(50 * SECOND + 2 * SECOND)


def test_an_outage_teaches_no_patience():
    phi, now = regular(100)
    before = phi.value(now + 3 * SECOND)
    phi.heartbeat(now + 60 * SECOND)
    assert phi.value(now + 63 * SECOND) == before


def test_only_the_last_200_intervals_count():
    phi, now = regular(50, period=3 * SECOND)
    for _ in range(200):
        now += HEARTBEAT_PERIOD
        phi.heartbeat(now)
    fresh, last = regular(300)
    assert phi.value(now + 2 * SECOND) == fresh.value(last + 2 * SECOND)


def test_a_stall_of_our_own_is_nobody_elses_silence():
    phi, now = regular(100)
    phi.stalled(30 * SECOND)
    assert phi.standing(now + 31 * SECOND) is Standing.LIVE
