"""Named streams: stable, independent, fair enough."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.streams import Streams


def test_a_draw_in_one_stream_shifts_no_other():
    quiet, busy = Streams("7"), Streams("7")
    for _ in range(100):
        busy["gossip"].unit()
    assert [quiet["probe"].bits(32) for _ in range(5)] == [busy["probe"].bits(32) for _ in range(5)]


def test_these_draws_are_the_same_on_every_machine():
    """Golden values: a change here breaks every recording."""
    stream = Streams("7")["probe"]
    assert [stream.below(1000) for _ in range(4)] == [204, 1, 877, 153]


@given(st.lists(st.integers(), max_size=30), st.integers(min_value=0, max_value=40))
def test_a_sample_is_of_distinct_positions(items, count):
    tagged = list(enumerate(items))
    sample = Streams("x")["s"].sample(tagged, count)
    assert len(sample) == len(set(sample)) == min(count, len(items))
    assert set(sample) <= set(tagged)


@given(st.lists(st.integers(), max_size=30))
def test_a_shuffle_keeps_every_item(items):
    shuffled = list(items)
    Streams("x")["s"].shuffle(shuffled)
    assert Counter(shuffled) == Counter(items)


def test_each_item_is_sampled_about_as_often():
    stream = Streams("fair")["s"]
    counts = Counter(item for _ in range(3000) for item in stream.sample(range(10), 3))
    assert all(800 < count < 1000 for count in counts.values())
