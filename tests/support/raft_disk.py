"""The disk of a server in a tiny group: what it has, and what it is working on."""

import re
from collections.abc import Callable

import msgspec

from dislocate.core.consensus.duties import Restored, Save, Snapshot
from dislocate.core.consensus.messages import Configuration, Entry, HardState, ServerId
from dislocate.core.units import MILLISECOND

NOBODY = Configuration(())


def server_id(name: str) -> ServerId:
    """'a' is dc/a with disk 1, 'a2' the same agent with another disk."""
    return ServerId(f"dc/{name[0]}", int(name[1:] or 1))


def name_of(server: ServerId) -> str:
    name = server.path[3:]
    return name if server.disk == 1 else f"{name}{server.disk}"


def servers(names: str) -> tuple[ServerId, ...]:
    """The servers of 'abc' or 'abc2', sorted."""
    return tuple(sorted(server_id(name) for name in re.findall(r"[a-z]\d*", names)))


class Disk:
    """What one server's disk has, and what it is working on."""

    def __init__(self, configuration: Configuration) -> None:
        self.hard = HardState(0)
        self.entries: dict[int, Entry] = {}
        self.compacted, self.compacted_term = 0, 0
        self.configuration = NOBODY
        self.texts: tuple[bytes, ...] = ()  # the applied state, as of `compacted`
        if configuration.voters:
            self.hard = HardState(1)
            self.entries[1] = Entry(1, 1, b"", configuration)
        self.queue: list[tuple[int, Callable[[], None]]] = []  # (ticket or 0, what it does), in order
        self.latency = 1 * MILLISECOND
        self.is_stuck = False

    def write(self, save: Save) -> None:
        if save.hard is not None:
            self.hard = save.hard
        if save.drop_from:
            assert save.drop_to in self.entries or not self.entries or save.drop_to <= self.compacted
            for index in range(save.drop_from, save.drop_to + 1):
                self.entries.pop(index, None)
        for entry in save.entries:
            self.entries[entry.index] = entry

    def checkpoint(self, index: int, term: int, configuration: Configuration, texts: tuple[bytes, ...]) -> None:
        self.compacted, self.compacted_term, self.configuration, self.texts = index, term, configuration, texts
        self.entries = {at: entry for at, entry in self.entries.items() if at > index}

    def install(self, snapshot: Snapshot) -> None:
        texts = tuple(text for chunk in snapshot.chunks for text in msgspec.msgpack.decode(chunk, type=list[bytes]))
        self.checkpoint(snapshot.index, snapshot.term, snapshot.configuration, texts)
        self.entries = {}

    @property
    def last_index(self) -> int:
        return max(self.entries, default=self.compacted)

    def restored(self) -> Restored:
        entries = tuple(self.entries[index] for index in sorted(self.entries))
        return Restored(
            hard=self.hard,
            configuration=self.configuration,
            entries=entries,
            compacted=self.compacted,
            compacted_term=self.compacted_term,
            applied=self.compacted,
        )


def disk_with(names: str, terms: str, term: int, voted_for: str = "") -> Disk:
    """A disk of a server of the group `names`: entries of these terms after the first one, e.g. '2 2 4'."""
    disk = Disk(Configuration(servers(names)))
    disk.hard = HardState(term, server_id(voted_for) if voted_for else None)
    for index, one in enumerate(terms.split(), 2):
        disk.entries[index] = Entry(int(one), index, f"{one}.{index}".encode())
    return disk
