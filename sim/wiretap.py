"""A wiretap on all servers of one world: what they send each other, what they write, and the log that they agreed on.

Decodes once for all invariants that want to know.  `agreed` is the log as the first server to apply an entry had it: that
all others have the same is for an invariant to say.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from dislocate.core.boundary.effects import SendMessage, Store
from dislocate.core.boundary.events import EntriesApplied, Event
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.messages import Configuration, Consensus, Entry, HardState
from dislocate.core.consensus.promises import APPLIED_KEY, HARD_KEY, LOG_PREFIX, log_key
from dislocate.core.errors import PeerError
from dislocate.core.store.durable import AppliedUpTo
from dislocate.core.wire import decode_envelope
from sim.disk import Disk
from sim.process import Process
from sim.reference import ReferenceStore

Sent = Callable[[Process, Consensus], None]
Written = Callable[[Process, Store], None]
Verbs = dict[type, Callable[[Process, Any], None]]

_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_hard = msgspec.msgpack.Decoder(HardState).decode
_decode_applied = msgspec.msgpack.Decoder(AppliedUpTo).decode


class Agreed(Struct, frozen=True):
    """An entry that was applied."""

    entry: Entry
    at: int  # virtual time at which the first server told that it had applied it
    revision: int  # of the reference afterwards


class Wiretap:
    """Listens from now on."""

    def __init__(self, verbs: Verbs, now: Callable[[], int]) -> None:
        """`verbs` is what carries out effects; two of its entries are replaced by ones that listen first."""
        self.on_sent: list[Sent] = []
        self.on_written: list[Written] = []
        self.agreed: list[Agreed] = []
        self.reference = ReferenceStore()
        self.unlike: str | None = None  # where a server's revision is not the reference's
        self._now = now
        self._configurations: list[tuple[int, Configuration]] = []  # (index, configuration), of what was applied
        self._written: dict[tuple[int, int], Configuration] = {}  # by (index, term), of what was written
        self._logs: dict[Process, dict[int, Entry]] = {}
        self._applied: dict[Process, int] = {}
        self._listen(verbs)

    def configurations(self, index: int) -> list[Configuration]:
        """Those by which an entry at `index` may have been committed: the one before it, and all that anybody has in its log
        after it, since a leader goes by the last one there.

        When a joint one is committed, its leader has the one that ends it in its log in the same turn, and may count by it
        before the entry is written.  Lost with the leader, nobody is elected without a majority of those voters all the
        same: the joint one asks for both."""
        earlier = bisect_right(self._configurations, index, key=lambda one: one[0])
        before = [one for _, one in self._configurations[earlier - 1 : earlier]]
        ended = [Configuration(one.voters) for one in before if one.outgoing]
        return before + ended + [one for (at, _), one in self._written.items() if at > index]

    def term_at(self, process: Process, index: int) -> int | None:
        """The term of the entry that a server has written at `index`, durable or not."""
        entry = self._log(process).get(index)
        return None if entry is None else entry.term

    def hear(self, process: Process, event: Event) -> None:
        """Of every event."""
        if isinstance(event, EntriesApplied):
            self._applied[process] = event.index
            log = self._log_up_to(process, event)
            while len(self.agreed) < event.index and (entry := log.get(len(self.agreed) + 1)) is not None:
                self._agree(entry)
            self._compare(process, event)

    def _log_up_to(self, process: Process, event: EntriesApplied) -> dict[int, Entry]:
        """The log of whoever has written what `process` applied.  A leader whose disk is slow applies what a majority of
        others has, before it writes it; whoever has the last entry has all before it (log matching)."""
        for log in (self._log(process), *self._logs.values()):
            last = log.get(event.index)
            if last is not None and last.term == event.term:
                return log
        return self._log(process)

    def _agree(self, entry: Entry) -> None:
        self.reference.apply(entry.data)
        self.agreed.append(Agreed(entry, self._now(), self.reference.revision))
        if entry.configuration is not None:
            self._configurations.append((entry.index, entry.configuration))

    def _compare(self, process: Process, event: EntriesApplied) -> None:
        if event.index > len(self.agreed) or not self.reference.is_exact:
            return
        revision = self.agreed[event.index - 1].revision
        if revision != event.revision and self.unlike is None:
            who = process.node_id.path
            self.unlike = f"{who} is at revision {event.revision} after entry {event.index}; it should be {revision}"

    def _log(self, process: Process) -> dict[int, Entry]:
        """The entries of one server, as it wrote them."""
        log = self._logs.get(process)
        if log is None:
            log = self._logs[process] = {}
            for record in process.machine.disk.records():
                if record.key.startswith(LOG_PREFIX):
                    self._note(log, record, 0)
        return log

    def _note(self, log: dict[int, Entry], record: StoredRecord, applied: int) -> None:
        index = int(record.key[len(LOG_PREFIX) :], 16)
        if record.value is not None:
            entry = log[index] = _decode_entry(record.value)
            if entry.configuration is not None:
                self._written[index, entry.term] = entry.configuration
        elif index > applied:  # what was applied stays known, also when it is not needed any more
            log.pop(index, None)

    # ---- listening

    def _listen(self, verbs: Verbs) -> None:
        send, store = verbs[SendMessage], verbs[Store]

        def sending(process: Process, effect: SendMessage) -> None:
            message = _consensus(effect.data)
            if message is not None:
                for listener in self.on_sent:
                    listener(process, message)
            send(process, effect)

        def storing(process: Process, effect: Store) -> None:
            log = self._log(process)
            applied = self._applied.get(process, 0)
            for record in effect.records:
                if record.key.startswith(LOG_PREFIX):
                    self._note(log, record, applied)
            for listener in self.on_written:
                listener(process, effect)
            store(process, effect)

        verbs[SendMessage] = sending
        verbs[Store] = storing


def has_durably(disk: Disk, index: int, term: int) -> bool:
    """Whether the disk has the entry for sure: in its log, or as a part of the applied state."""
    return durable_term(disk, index) == term or durably_applied(disk) >= index


def had_durably(disk: Disk, index: int, term: int) -> bool:
    """Whether a disk before this one had it when that was lost."""
    logged, applied = disk.durable_before(log_key(index)), disk.durable_before(APPLIED_KEY)
    return term in map(_term, logged) or max(map(_applied, applied), default=0) >= index


def durable_term(disk: Disk, index: int) -> int | None:
    """The term of the entry that the disk's log has for sure; None: it has none."""
    return _term(disk.durable(log_key(index)))


def durably_applied(disk: Disk) -> int:
    """The index up to which the disk has the applied state for sure."""
    return _applied(disk.durable(APPLIED_KEY))


def _term(value: bytes | None) -> int | None:
    return None if value is None else _decode_entry(value).term


def _applied(value: bytes | None) -> int:
    return 0 if value is None else _decode_applied(value).index


def durable_hard(disk: Disk) -> HardState:
    """Term and vote that the disk has for sure."""
    value = disk.durable(HARD_KEY)
    return HardState(0) if value is None else _decode_hard(value)


def begins_anew(store: Store) -> bool:
    """Whether a transaction drops what an earlier membership had."""
    return any(record.key == HARD_KEY and record.value is None for record in store.records)


def written_hard(store: Store) -> HardState | None:
    """Term and vote that a transaction writes."""
    for record in store.records:
        if record.key == HARD_KEY and record.value is not None:
            return _decode_hard(record.value)
    return None


def _consensus(data: bytes) -> Consensus | None:
    try:
        body: object = decode_envelope(data, "wiretap").body
    except PeerError:
        return None
    return body if isinstance(body, Consensus) else None
