"""The promises of Raft, watched: one leader a term, who has all that was committed; everybody applies the same; nothing is
said that the disk does not bear out; nothing is called committed that is on too few disks; reads see what was acknowledged.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.consensus.messages import (
    Appended,
    Configuration,
    Entry,
    RaftMessage,
    ServerId,
    VoteAsked,
    VoteGiven,
)
from dislocate.core.consensus.quorum import agreed
from dislocate.core.consensus.raft import Raft
from dislocate.core.consensus.state import Role
from tests.support.raft_disk import Disk, name_of, server_id


class Server:
    """One agent with a disk; `raft` is None while it is down."""

    def __init__(self, name: str, configuration: Configuration) -> None:
        self.name = name
        self.id = server_id(name)
        self.disk = Disk(configuration)
        self.raft: Raft | None = None
        self.life = 0
        self.is_paused = False
        self.went_back = False  # its disk is an older copy of itself
        self.forgotten = 0  # what its leader proved that it lost: it takes no part any more
        self.waiting: list[Callable[[], None]] = []  # what arrived while it was paused
        self.applied = 0
        self.texts: list[bytes] = []
        self.asked: dict[int, tuple[bytes, ...]] = {}  # reads, and what was acknowledged before they were asked
        self.reads: list[int] = []  # answered
        self.reads_lost: list[int] = []
        self.events: list[Any] = []


class Promises:
    """What a group has promised so far."""

    def __init__(self, *, watches_disks: bool) -> None:
        self.servers: dict[str, Server] = {}
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, Entry] = {}
        self.committed_in: dict[int, int] = {}  # in which term an entry was seen to be committed
        self.acknowledged: dict[bytes, int] = {}  # texts that some leader told its client are committed
        self._watches_disks = watches_disks

    def running(self) -> list[Server]:
        return [server for server in self.servers.values() if server.raft is not None]

    def _elected(self, server: Server, raft: Raft, term: int) -> None:
        assert term not in self.leaders, f"two leaders in term {term}: {self.leaders[term]} and {server.name}"
        self.leaders[term] = server.name
        for index, entry in self.committed.items():
            if index > raft.compacted and self.committed_in[index] < term:
                assert raft.term_at(index) == entry.term, f"{server.name} leads term {term} without committed {index}"

    def _apply(self, server: Server, entry: Entry) -> None:
        assert entry.index == server.applied + 1, f"{server.name} applied {server.applied}, then {entry.index}"
        known = self.committed.setdefault(entry.index, entry)
        assert known == entry, f"{server.name} applied {entry}, another {known}"
        if server.raft is not None:
            self.committed_in.setdefault(entry.index, server.raft.term)
        server.applied = entry.index
        if entry.data:
            server.texts.append(entry.data)
            if server.raft is not None and server.raft.role is Role.LEADER and server.raft.term == entry.term:
                self.acknowledged[entry.data] = entry.index
                if self._watches_disks:
                    self._check_durable(server.raft.configuration, entry)

    def _check_durable(self, configuration: Configuration, entry: Entry) -> None:
        """What a client is told is committed is on the disks of a majority, in both halves of a joint configuration."""

        def has(voter: ServerId) -> int:
            disk = self.servers[name_of(voter)].disk
            return int(disk.entries.get(entry.index) == entry or disk.compacted >= entry.index)

        assert agreed(configuration, has), f"entry {entry.index} is called committed and is on too few disks"

    def _said(self, server: Server, to: ServerId, term: int, message: RaftMessage) -> None:
        """What a message promises is on the disk when it leaves."""
        if not self._watches_disks:
            return
        disk = server.disk
        is_promise_only = isinstance(message, VoteAsked | VoteGiven) and message.pre
        assert is_promise_only or disk.hard.term >= term, f"{server.name} speaks of term {term}, not durable: {message}"
        match message:
            case VoteGiven(granted=True, pre=False) if disk.hard.term == term:
                assert disk.hard.voted_for == to, f"{server.name} voted, and its disk does not know"
            case VoteAsked(pre=False) if disk.hard.term == term:
                assert disk.hard.voted_for == server.id
            case Appended(accepted=True, index=index) if disk.hard.term == term:
                assert index <= disk.last_index, (
                    f"{server.name} acknowledged {index}, its disk ends at {disk.last_index}"
                )

    def _answered(self, server: Server, read_id: int, index: int) -> None:
        """A read sees what had been acknowledged when it was asked."""
        assert index <= server.applied
        unseen = [text for text in server.asked[read_id] if text not in server.texts]
        assert not unseen, f"{server.name} answers read {read_id} without {unseen}"

    def check_logs_match(self) -> None:
        """Two logs that have an entry of the same term at one index agree up to there."""
        running = [one.raft for one in self.running()]
        for a in running:
            for b in running:
                low, high = max(a.compacted, b.compacted), min(a.last_index, b.last_index)
                agree = [a.term_at(at) == b.term_at(at) for at in range(low + 1, high + 1)]
                assert agree == sorted(agree, reverse=True), f"{a.me} and {b.me} disagree, then agree"

    def check_nothing_is_lost(self) -> None:
        """Whatever a client was told is committed is in everybody's state who has come so far."""
        for text, index in self.acknowledged.items():
            for server in self.running():
                assert server.applied < index or text in server.texts, f"{server.name} lost {text!r}"
