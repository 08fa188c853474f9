"""The model of a link, which the simulator and the shaping of real agents share."""

from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.linkmodel import ALL_CHANNELS, Link, LinkQuality

qualities = st.builds(
    LinkQuality,
    delay=st.integers(0, 400 * MILLISECOND),
    jitter=st.floats(0.0, 0.3),
    loss=st.floats(0.0, 0.5),
    duplicate=st.floats(0.0, 0.5),
    bandwidth=st.sampled_from([0, 10_000, 1_000_000]),
)
sends = st.lists(st.tuples(st.integers(0, SECOND), st.integers(0, 65_536)), max_size=40).map(sorted)


def link(quality, seed=0):
    return Link(quality, Streams(str(seed))["link"])


@given(qualities, sends, st.integers(0, 99))
def test_a_stream_keeps_order_and_loses_nothing(quality, sent, seed):
    one = link(quality, seed)
    arrivals = [one.message(size, now) for now, size in sent]
    assert None not in arrivals
    assert arrivals == sorted(arrivals)
    assert all(arrival >= now for arrival, (now, _) in zip(arrivals, sent, strict=True))


@given(qualities, sends, st.integers(0, 99))
def test_a_datagram_arrives_never_once_or_twice_and_not_before_it_was_sent(quality, sent, seed):
    one = link(quality, seed)
    for now, size in sent:
        arrivals = one.datagram(size, now)
        assert len(arrivals) <= 2
        assert all(type(at) is int and at >= now for at in arrivals)


@given(qualities, sends, st.integers(0, 99))
def test_the_same_stream_gives_the_same_delays(quality, sent, seed):
    first, second = link(quality, seed), link(quality, seed)
    assert [first.datagram(size, now) for now, size in sent] == [second.datagram(size, now) for now, size in sent]


@given(qualities, sends)
def test_nothing_passes_a_cut_and_healing_undoes_it(quality, sent):
    one = link(quality)
    one.cut(ALL_CHANNELS)
    assert all(one.datagram(size, now) == () and one.message(size, now) is None for now, size in sent)
    one.heal(ALL_CHANNELS)
    assert not one.is_disturbed
    assert one.message(1, 0) is not None


@given(st.integers(1_000, 10_000_000), st.lists(st.integers(1, 65_536), min_size=1, max_size=20))
def test_bandwidth_bounds_what_arrives(bandwidth, sizes):
    one = link(LinkQuality(delay=0, jitter=0.0, bandwidth=bandwidth))
    last = max(one.datagram(size, 0)[0] for size in sizes)
    assert last >= sum(size * SECOND // bandwidth for size in sizes)


def test_loss_and_jitter_are_about_what_the_quality_says():
    one = link(LinkQuality(delay=50 * MILLISECOND, jitter=0.1, loss=0.2))
    arrivals = [at for _ in range(5_000) for at in one.datagram(100, 0)]
    assert 3_850 < len(arrivals) < 4_150
    mean = sum(arrivals) / len(arrivals)
    assert 49 * MILLISECOND < mean < 52 * MILLISECOND
    assert max(arrivals) > 60 * MILLISECOND
