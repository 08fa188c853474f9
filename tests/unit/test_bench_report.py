"""What a benchmark's table says of its figures, and that an agent's own lines are understood."""

import pytest

from bench.peers import SYSTEMS, Fact
from bench.report import Bound, Figure, Table, render
from dislocate.core.boundary.events import MemberDied, MemberJoined, MemberRefuted, MemberSuspected
from dislocate.core.identity import NodeId
from dislocate.edge.eventlog import describe


@pytest.mark.parametrize(
    ("ours", "peer", "bound", "holds"),
    [
        (1.4, None, Bound(1.5), True),
        (1.6, None, Bound(1.5), False),
        (None, 1.0, Bound(1.5), False),
        (float("inf"), 8.0, Bound(1.0, of_peer=True), False),
        (7.0, 8.0, Bound(1.0, of_peer=True), True),
        (140.0, 90.0, Bound(1.5, at_least=True, of_peer=True), True),
        (7.0, None, Bound(1.0, of_peer=True), None),
        (7.0, 8.0, None, None),
    ],
)
def test_a_figure_is_held_against_its_bound_and_not_against_an_absent_peer(ours, peer, bound, holds):
    assert Figure("delay", "s", ours, peer, bound).holds is holds


def test_an_absent_peer_is_not_measured():
    table = Table("some", "serf (not installed)", (Figure("delay", "s", 1.25),))
    assert "not measured" in render(table).splitlines()[-1]
    assert table.holds


@pytest.mark.parametrize(
    ("event", "fact"),
    [
        (MemberJoined(NodeId("fra", "n7", 1), "10.0.0.1:49701"), Fact.ALIVE),
        (MemberRefuted(NodeId("fra", "n7", 1)), Fact.ALIVE),
        (MemberSuspected(NodeId("fra", "n7", 1), ("fra/n1",)), Fact.SUSPECT),
        (MemberDied(NodeId("fra", "n7", 1), True, ("fra/n1", "fra/n2")), Fact.DEAD),
    ],
)
def test_the_benchmark_reads_what_an_agent_writes(event, fact):
    line = f"2026-11-23T15:04:05.678Z INFO {describe(event)}"
    assert SYSTEMS["dislocate"].read(line.encode()) == (fact, "n7")
