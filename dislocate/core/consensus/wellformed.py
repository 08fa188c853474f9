"""Well-formed: what no server of this protocol says, whatever happened to it.

A message with such a fault comes from a mistake in its sender, is dropped and counted, and reaches no Raft.  What is left may
still be false; then it is the log that contradicts itself, which ends the server that finds it (`store.server`).
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.consensus.messages import (
    Append,
    Appended,
    Configuration,
    Consensus,
    DiskForgot,
    LeadNow,
    ServerId,
    SnapshotChunk,
    SnapshotReceived,
    VoteAsked,
    VoteGiven,
)
from dislocate.core.tunables import SNAPSHOT_CHUNK, STORE_BYTES

LIMIT = 1 << 61  # of every number: one may be added to it, and it stays a number of the wire
CHUNKS_LIMIT = (
    8 * STORE_BYTES // SNAPSHOT_CHUNK
)  # names, sessions and leases weigh less than seven times the keys and values


def fault(message: Consensus) -> str:
    """What is wrong with `message`; '' when nothing is."""
    if not 0 < message.term < LIMIT:
        return f"the term is {message.term}"
    if not 0 <= message.group.epoch < LIMIT:
        return f"the epoch is {message.group.epoch}"
    if not 0 <= message.group.branch < LIMIT:
        return f"the branch is {message.group.branch}"
    if message.origin == message.to:
        return "a server speaks to itself"
    return _FAULTS[type(message.body)](message.term, message.body)


def _outside(**numbers: int) -> str:
    return next((f"{name} is {number}" for name, number in numbers.items() if not 0 <= number < LIMIT), "")


def _of_configuration(configuration: Configuration) -> str:
    for name in ("voters", "outgoing", "learners"):
        servers: tuple[ServerId, ...] = getattr(configuration, name)
        if list(servers) != sorted(dict.fromkeys(servers)):
            return f"the {name} are not in order"
    return "" if configuration.voters else "nobody votes"


def _of_append(term: int, body: Append) -> str:
    last_term = body.prev_term
    for at, entry in enumerate(body.entries, 1):
        if entry.index != body.prev_index + at:
            return f"entry {entry.index} follows {body.prev_index + at - 1}"
        if not last_term <= entry.term <= term:
            return f"entry {entry.index} is of term {entry.term}, after {last_term} and in {term}"
        if entry.configuration is not None and (words := _of_configuration(entry.configuration)):
            return words
        last_term = entry.term
    if body.prev_term > term or bool(body.prev_index) != bool(body.prev_term):
        return f"entries follow {body.prev_index} of {body.prev_term}"
    return _outside(
        prev_index=body.prev_index,
        prev_term=body.prev_term,
        commit=body.commit,
        round=body.round,
        largest_rtt=body.largest_rtt,
        age=body.age,
        echo=body.echo,
    )


def _of_appended(_term: int, body: Appended) -> str:
    return _outside(index=body.index, term_there=body.term_there, round=body.round, quorum_rtt=body.quorum_rtt)


def _of_chunk(term: int, body: SnapshotChunk) -> str:
    if not 0 <= body.chunk < body.chunks <= CHUNKS_LIMIT:
        return f"chunk {body.chunk} of {body.chunks}"
    if not 0 < body.entry_term <= term or not 0 < body.index < LIMIT:
        return f"a snapshot is of entry {body.index} in {body.entry_term}"
    return _of_configuration(body.configuration) or _outside(digest=body.digest >> 2, round=body.round)


def _of_received(_term: int, body: SnapshotReceived) -> str:
    return _outside(index=body.index, next_chunk=body.next_chunk, round=body.round)


def _of_vote_asked(_term: int, body: VoteAsked) -> str:
    return _outside(last_index=body.last_index, last_term=body.last_term)


def _of_forgotten(_term: int, body: DiskForgot) -> str:
    return _outside(index=body.index, entry_term=body.entry_term)


def _of_nothing(_term: int, _body: VoteGiven | LeadNow) -> str:
    return ""


_FAULTS: dict[type, Callable[[int, Any], str]] = {
    VoteAsked: _of_vote_asked,
    VoteGiven: _of_nothing,
    Append: _of_append,
    Appended: _of_appended,
    SnapshotChunk: _of_chunk,
    SnapshotReceived: _of_received,
    LeadNow: _of_nothing,
    DiskForgot: _of_forgotten,
}
