"""Vivaldi between data centers: what it orders right, and when it keeps silent."""

from itertools import combinations

import pytest

from dislocate.core.coordinates import Coordinates, distance, estimate, is_coordinate
from dislocate.core.streams import Streams
from dislocate.core.tunables import VIVALDI_DIMENSIONS, VIVALDI_SAMPLES
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.regions import region_table

FIVE = ("fra", "wdc", "tok", "syd", "sao")
RELAYS_EACH = 3


def world(regions, rounds, seed="vivaldi", jitter=0.05):
    """Relays of `regions` that measure each other once a round."""
    streams, table = Streams(seed), region_table()
    noise = streams["noise"]
    relays = {(dc, i): Coordinates(streams[f"{dc}/{i}"]) for dc in regions for i in range(RELAYS_EACH)}
    for _ in range(rounds):
        for (one, i), (other, j) in combinations(relays, 2):
            if one == other:
                continue
            rtt = (table[one][other] + table[other][one]) // 2
            rtt = int(rtt * (1.0 + jitter * noise.unit()))
            a, b = relays[one, i], relays[other, j]
            there, here = b.here, a.here
            a.measured(f"{other}/{j}", there, rtt)
            b.measured(f"{one}/{i}", here, rtt)
    return relays


def clearly_ordered_pairs(regions):
    """(from, nearer, farther) wherever the farther is at least a fifth farther."""
    table = region_table()
    for origin in regions:
        for near, far in combinations((r for r in regions if r != origin), 2):
            first, second = sorted((near, far), key=lambda r: table[origin][r])
            if table[origin][second] >= 1.2 * table[origin][first]:
                yield origin, first, second


@pytest.mark.parametrize("seed", ["one", "two", "three"])
def test_five_data_centers_are_ordered_right_by_every_relay(seed):
    relays = world(FIVE, 30, seed)
    for origin, near, far in clearly_ordered_pairs(FIVE):
        for i in range(RELAYS_EACH):
            here = relays[origin, i].here
            assert distance(here, relays[near, 0].here) < distance(here, relays[far, 0].here), (origin, near, far)


def test_estimates_between_five_data_centers_are_within_a_fifth():
    relays, table = world(FIVE, 60), region_table()
    for one, other in combinations(FIVE, 2):
        guess = estimate(relays[one, 0].here, relays[other, 0].here)
        assert guess is not None
        assert guess.rtt == pytest.approx(table[one][other], rel=0.2), (one, other)


def test_a_pair_that_never_measured_is_estimated_from_the_others():
    """A partial mesh in three places of a line: the ends know each other only through the middle and each other's peers."""
    streams = Streams("partial")
    points = {"a": 0, "b": 20, "c": 50, "d": 90, "e": 120}  # ms on a line
    nodes = {name: Coordinates(streams[name]) for name in points}
    for _ in range(300):
        for one, other in combinations(points, 2):
            if (one, other) == ("a", "d"):
                continue
            rtt = abs(points[one] - points[other]) * MILLISECOND
            there, here = nodes[other].here, nodes[one].here
            nodes[one].measured(other, there, rtt)
            nodes[other].measured(one, here, rtt)
    guess = estimate(nodes["a"].here, nodes["d"].here)
    assert guess is not None
    assert guess.rtt == pytest.approx(90 * MILLISECOND, rel=0.2)


def test_nothing_is_said_before_80_samples():
    node = Coordinates(Streams("s")["x"])
    there = (0.05,) + (0.0,) * (VIVALDI_DIMENSIONS - 1) + (1e-5, 0.01)
    for _ in range(VIVALDI_SAMPLES - 1):
        node.measured("b", there, 50 * MILLISECOND)
    assert node.here[-1] < 0.2
    assert node.settled == ()
    node.measured("b", there, 50 * MILLISECOND)
    assert node.settled == node.here


def test_nothing_is_estimated_while_either_side_is_unsure():
    sure = (0.0,) * VIVALDI_DIMENSIONS + (1e-5, 0.1)
    unsure = (0.1,) * VIVALDI_DIMENSIONS + (1e-5, 0.3)
    assert estimate(sure, sure) is not None
    assert estimate(sure, unsure) is None
    assert estimate(unsure, sure) is None
    assert estimate(sure, ()) is None


def test_one_outlier_moves_nothing():
    calm, hit = (Coordinates(Streams("s")["x"]) for _ in range(2))
    there = (0.05,) + (0.0,) * (VIVALDI_DIMENSIONS - 1) + (1e-5, 0.01)
    for i in range(100):
        calm.measured("b", there, 50 * MILLISECOND)
        hit.measured("b", there, 5 * SECOND if i == 50 else 50 * MILLISECOND)
    assert hit.here == calm.here


@pytest.mark.parametrize("rtt", [0, -1, 11 * SECOND])
def test_absurd_round_trips_are_ignored(rtt):
    node = Coordinates(Streams("s")["x"])
    node.measured("b", node.here, rtt)
    assert node.samples == 0


@pytest.mark.parametrize(
    "there",
    [
        (),
        (0.0,) * 9,
        (float("nan"),) * 10,
        (0.0,) * 8 + (-1.0, 0.1),
        (0.0,) * 8 + (0.0, 0.0),
        (1e9,) + (0.0,) * 8 + (1.0,),
    ],
)
def test_absurd_coordinates_are_ignored(there):
    node = Coordinates(Streams("s")["x"])
    node.measured("b", there, 50 * MILLISECOND)
    assert not is_coordinate(there)
    assert node.samples == 0


def test_two_relays_in_one_place_part_in_the_same_direction_in_every_run():
    def parted():
        node = Coordinates(Streams("seed")["coordinates"])
        node.measured("b", node.here, 50 * MILLISECOND)
        return node.here

    assert parted() == parted()
    assert any(parted()[:VIVALDI_DIMENSIONS])
