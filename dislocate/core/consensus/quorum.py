"""Quorums: what a configuration agrees to.

Invariant: any two majorities of one set of voters have a voter in common, and a joint configuration agrees only where
both of its sets do; so of two decisions taken one after the other, somebody took part in both (Raft thesis, 4.3).

Pure: the caller brings what it knows of each voter.  An empty set of voters agrees to everything.
"""

from collections.abc import Callable, Mapping
from enum import Enum

from dislocate.core.consensus.messages import Configuration, ServerId

UNBOUNDED = 1 << 62


class Outcome(Enum):
    """How a vote stands."""

    WON = "won"
    LOST = "lost"
    PENDING = "pending"


def majority(count: int) -> int:
    """The fewest of `count` voters that are more than half."""
    return count // 2 + 1


def voters_of(configuration: Configuration) -> tuple[ServerId, ...]:
    """Everybody whose vote counts in at least one of the sets, each once, sorted."""
    if not configuration.outgoing:
        return configuration.voters
    return tuple(sorted(dict.fromkeys((*configuration.voters, *configuration.outgoing))))


def servers_of(configuration: Configuration) -> tuple[ServerId, ...]:
    """Everybody who gets the log, sorted."""
    if not configuration.outgoing and not configuration.learners:
        return configuration.voters
    everybody = (*configuration.voters, *configuration.outgoing, *configuration.learners)
    return tuple(sorted(dict.fromkeys(everybody)))


def agreed(configuration: Configuration, value: Callable[[ServerId], int]) -> int:
    """The highest number that enough voters have reached, each at least; `UNBOUNDED` where nobody votes.

    With the last durable index of each voter that is the committed index, with the moments they were heard the moment
    since which a majority has been silent, with the rounds they answered the round that confirms leadership.
    """
    reached = _reached(configuration.voters, value)
    if configuration.outgoing:
        return min(reached, _reached(configuration.outgoing, value))
    return reached


def _reached(voters: tuple[ServerId, ...], value: Callable[[ServerId], int]) -> int:
    count = len(voters)
    if not count:
        return UNBOUNDED
    return sorted(map(value, voters))[count - majority(count)]


def nearest(configuration: Configuration, cost: Callable[[ServerId], int]) -> int:
    """The lowest cost within which enough voters lie: with round-trip times, how long a commit takes."""
    return -agreed(configuration, lambda voter: -cost(voter))


def outcome(configuration: Configuration, votes: Mapping[ServerId, bool]) -> Outcome:
    """How an election stands with these answers.  Lost as soon as it cannot be won any more."""
    if agreed(configuration, lambda voter: int(votes.get(voter) is True)):
        return Outcome.WON
    if agreed(configuration, lambda voter: int(votes.get(voter) is not False)):
        return Outcome.PENDING
    return Outcome.LOST
