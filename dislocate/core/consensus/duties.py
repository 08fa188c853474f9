"""What a Raft asks of its owner, in the order in which it must be done, and what its owner gives it at the start.

    saves       make durable, in order, each as one transaction; then `stored(ticket)`
    messages    may leave now: nothing that they promise still waits for the disk
    committed   apply, in order; each entry comes once
    reads       answer: everything that was acknowledged before they were asked has been applied by now
    install     replace the applied state and all `log/` records in one durable transaction; then `installed(index)`

Saves and messages need not wait for each other: what must be durable first is withheld until `stored` (Raft thesis,
10.2.1: a leader replicates while its own disk writes).
"""

from collections.abc import Iterator
from typing import Protocol

from msgspec import Struct

from dislocate.core import tunables
from dislocate.core.boundary.events import LeaderDeposed, LeaderElected, ServersChanged
from dislocate.core.consensus.messages import Configuration, Entry, HardState, RaftMessage, ServerId


class Timing(Struct, frozen=True, kw_only=True):
    """Constants that a simulation or a test may want otherwise.  Nanoseconds and bytes."""

    heartbeat: int = tunables.RAFT_HEARTBEAT
    election_floor: int = tunables.ELECTION_FLOOR
    election_ceiling: int = tunables.ELECTION_CEILING
    rtt_factor: int = tunables.ELECTION_RTT_FACTOR
    refusal_spread: int = tunables.REFUSAL_SPREAD
    append_budget: int = tunables.APPEND_BUDGET
    inflight_messages: int = tunables.INFLIGHT_MESSAGES
    inflight_bytes: int = tunables.INFLIGHT_BYTES
    uncommitted_bytes: int = tunables.UNCOMMITTED_BYTES
    commit_told: int = tunables.COMMIT_TOLD_WITHIN
    snapshot_window: int = tunables.SNAPSHOT_WINDOW
    snapshot_patience: int = tunables.SNAPSHOT_PATIENCE
    snapshot_again: int = tunables.SNAPSHOT_ASKED_AGAIN
    slow_save: int = tunables.SLOW_SAVE
    better_placed_for: int = tunables.BETTER_PLACED_FOR
    catch_up_patience: int = tunables.CATCH_UP_PATIENCE


class Restored(Struct, frozen=True, kw_only=True):
    """What the disk had."""

    hard: HardState
    configuration: Configuration  # as of `compacted`; later ones are found in `entries`
    entries: tuple[Entry, ...]  # after `compacted`, without a gap
    compacted: int  # index of the last entry that is only in the applied state; 0: none is
    compacted_term: int
    applied: int  # the applied state is as of this index; >= compacted


class Save(Struct, frozen=True):
    """One transaction.  Whatever it says is durable before a later one is begun."""

    ticket: int  # grows by one; `stored(ticket)` speaks for all before it too
    term: int  # of this server when it was made
    hard: HardState | None
    drop_from: int  # persisted entries from here on are discarded; 0: none
    drop_to: int  # the last one that was there
    entries: tuple[Entry, ...]  # take the place of those discarded, or follow the last one


class Chunks(Protocol):
    """Parts of about one size, each made when it is asked for, as often as it is: whoever sends one asks for that one only."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> bytes: ...

    def __iter__(self) -> Iterator[bytes]: ...


class Snapshot(Struct, frozen=True):
    """The applied state as of `index`, in parts that each fit a message."""

    index: int
    term: int  # of the entry at `index`
    configuration: Configuration  # as of `index`
    digest: int
    chunks: Chunks


class Duties(Struct, frozen=True):
    """All that there is to do, in this order."""

    saves: tuple[Save, ...] = ()
    messages: tuple[tuple[ServerId, int, RaftMessage], ...] = ()  # (to, term, body)
    committed: tuple[Entry, ...] = ()
    reads: tuple[tuple[int, int], ...] = ()  # (read_id, index): answer when that index is applied
    reads_lost: tuple[int, ...] = ()  # leadership was lost: ask again elsewhere
    snapshots_wanted: tuple[ServerId, ...] = ()  # call `offer_snapshot` for each
    install: Snapshot | None = None
    forgotten: int = 0  # the disk acknowledged this index and has lost it: end this part, for good; 0: all is well
    events: tuple[LeaderElected | LeaderDeposed | ServersChanged, ...] = ()

    def __bool__(self) -> bool:
        return self is not NOTHING


NOTHING = Duties()
