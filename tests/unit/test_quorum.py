"""Quorums: what a configuration agrees to."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.consensus.messages import Configuration
from dislocate.core.consensus.quorum import (
    UNBOUNDED,
    Outcome,
    agreed,
    majority,
    nearest,
    outcome,
    servers_of,
    voters_of,
)
from tests.support.raft_disk import server_id, servers

A, B, C, D, E = servers("abcde")


@pytest.mark.parametrize(("count", "fewest"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_a_majority_is_more_than_half(count, fewest):
    assert majority(count) == fewest


@pytest.mark.parametrize(
    ("reached", "index"),
    [([5], 5), ([5, 3], 3), ([5, 3, 4], 4), ([9, 1, 1], 1), ([4, 3, 2, 1], 2), ([5, 4, 3, 2, 1], 3)],
)
def test_the_committed_index_is_what_a_majority_has(reached, index):
    voters = servers("abcdefg"[: len(reached)])
    match = dict(zip(voters, reached, strict=True))
    assert agreed(Configuration(voters), match.__getitem__) == index


def test_a_joint_configuration_commits_what_both_majorities_have():
    configuration = Configuration((A, B, C), (C, D, E))
    match = {A: 9, B: 9, C: 1, D: 4, E: 5}
    assert agreed(configuration, match.__getitem__) == 4


def test_nobody_agrees_to_everything():
    assert agreed(Configuration(()), lambda _: 0) == UNBOUNDED


def test_a_learner_counts_for_nothing():
    match = {A: 3, B: 9, C: 9}
    assert agreed(Configuration((A,), (), (B, C)), match.__getitem__) == 3


def test_a_majority_lies_within_the_nearest_round_trip_that_reaches_it():
    rtt = {A: 0, B: 10, C: 90, D: 100, E: 200}
    assert nearest(Configuration((A, B, C)), rtt.__getitem__) == 10
    assert nearest(Configuration((A, B, C, D, E)), rtt.__getitem__) == 90


def test_voters_of_both_halves_are_named_once():
    configuration = Configuration((A, B), (B, C), (D,))
    assert voters_of(configuration) == (A, B, C)
    assert servers_of(configuration) == (A, B, C, D)


@pytest.mark.parametrize(
    ("votes", "stands"),
    [
        ({}, Outcome.PENDING),
        ({A: True}, Outcome.PENDING),
        ({A: True, B: True}, Outcome.WON),
        ({A: True, B: False}, Outcome.PENDING),
        ({A: True, B: False, C: False}, Outcome.LOST),
        ({A: True, D: True, E: True}, Outcome.PENDING),
    ],
)
def test_an_election_stands_as_its_voters_answered(votes, stands):
    assert outcome(Configuration((A, B, C)), votes) is stands


def test_a_joint_election_is_lost_with_one_half():
    configuration = Configuration((A, B, C), (C, D, E))
    assert outcome(configuration, {A: True, B: True, D: False, E: False}) is Outcome.LOST
    assert outcome(configuration, {A: True, B: True, C: True, D: True}) is Outcome.WON


sets = st.sets(st.sampled_from("abcdef"), min_size=1).map(lambda names: servers("".join(sorted(names))))


@given(sets, sets)
def test_two_elections_around_a_change_cannot_both_be_won(before, after):
    """Old alone, joint, and new alone: of any two that follow each other, no voters could elect two leaders."""
    stages = [Configuration(before), Configuration(after, before), Configuration(after)]
    everybody = tuple(server_id(name) for name in "abcdef")
    for one, other in ((0, 1), (1, 2), (1, 1)):
        for camp in product((True, False), repeat=len(everybody)):
            votes = dict(zip(everybody, camp, strict=True))
            against = {voter: not vote for voter, vote in votes.items()}
            both = outcome(stages[one], votes), outcome(stages[other], against)
            assert both != (Outcome.WON, Outcome.WON)
