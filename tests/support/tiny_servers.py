"""A store on a fleet in memory: some agents that are its servers, some that are not, on disks that keep what they are given.

For tests of what joins Raft, machine, links and router: the whole node runs, the world around it is `TinyFleet`.
"""

from typing import Any

from dislocate.core.boundary.effects import Effect, SendMessage
from dislocate.core.boundary.inputs import MessageReceived, RequestCancelled
from dislocate.core.boundary.requests import Result
from dislocate.core.boundary.store import Consistency, Put, ReadKeys, StoreRequest, Transact, WatchKeys
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.identity import Path
from dislocate.core.store.messages import AnsweredTogether, AskedTogether
from dislocate.core.store.server import Server
from dislocate.core.wire import Message, decode_envelope, encode_envelope
from tests.support.tiny_fleet import Host, TinyFleet


def _each(message: Message) -> tuple[Any, ...]:
    """What several were said as one for."""
    match message:
        case AskedTogether(asked=bodies) | AnsweredTogether(answered=bodies):
            return bodies
    return (message,)


class TinyServers(TinyFleet):
    """Agents of 'fra'; the first `servers` of them are listed as servers."""

    def __init__(self, size: int = 3, servers: int = 3, **settings: object) -> None:
        super().__init__()
        self.servers = tuple(f"fra/a{i}" for i in range(1, servers + 1))
        self.boots: dict[Path, int] = {}
        self.said: list[tuple[int, Path, Path, Message]] = []  # on links: when, from, to, what
        self.hears = lambda _source, _target, _body: True  # asked for each message on a link
        self._requests = 100
        self._more = settings
        for i in range(1, size + 1):
            self.run("20ms")
            self.begin(f"fra/a{i}")

    # ---- what tests do

    def begin(self, path: Path, **settings: object) -> Host:
        """Start an agent, again with what its disk has."""
        before = self.hosts.get(path)
        self.boots[path] = self.boots.get(path, 0) + 1
        given = {"seeds": ("fra-a1:1",), "servers": self.servers, **self._more, **settings}
        records = () if before is None else self.disk(path)
        host = self.start(path, boot=self.boots[path], nonce=self.boots[path], records=records, **given)
        host.stored[:0] = records
        return host

    def restart(self, path: Path, **settings: object) -> Host:
        """SIGKILL, and a new start a moment later."""
        self.kill(path)
        self.run("100ms")
        return self.begin(path, **settings)

    def found(self) -> Path:
        """Run until somebody leads and everybody knows; the leader."""
        self.run_until(lambda: self.leader() is not None, "20s")
        self.run("2s")
        leader = self.leader()
        assert leader is not None
        return leader

    def ask(self, path: Path, request: StoreRequest, within: str = "12s") -> Result:
        """What the agent answers."""
        number = self.begin_asking(path, request)
        self.run_until(lambda: number in self.hosts[path].results, within)
        return self.hosts[path].results[number]

    def begin_asking(self, path: Path, request: StoreRequest) -> int:
        """The request's number: its answer will be in `hosts[path].results`."""
        self._requests += 1
        self.request(path, request, self._requests)
        return self._requests

    def answer(self, path: Path, number: int) -> Result | None:
        return self.hosts[path].results.get(number)

    def cancel(self, path: Path, number: int) -> None:
        self.give(path, RequestCancelled(number))

    def say(self, source: Path, target: Path, body: Message) -> None:
        """`target` hears `body` on its link to `source`."""
        node = self.hosts[source].node.identity
        self.give(target, MessageReceived(node, encode_envelope(node, body)))

    # ---- what tests ask

    def leader(self) -> Path | None:
        """The one that says so itself, of the highest term."""
        views = {path: self.hosts[path].node.store for path in self.running()}
        leading = [(view.term, path) for path, view in views.items() if view.role == "leader"]
        return max(leading)[1] if leading else None

    def part(self, path: Path) -> Any:
        return self.hosts[path].node._store

    def server(self, path: Path) -> Server:
        server = self.part(path)._server
        assert isinstance(server, Server)
        return server

    def others(self, *paths: Path) -> list[Path]:
        return [path for path in self.servers if path not in paths]

    def disk(self, path: Path) -> tuple[StoredRecord, ...]:
        """The records that a start would find."""
        kept: dict[str, bytes] = {}
        for record in self.hosts[path].stored:
            if record.value is None:
                kept.pop(record.key, None)
            else:
                kept[record.key] = record.value
        return tuple(StoredRecord(key, kept[key]) for key in sorted(kept))

    def bodies(self, kind: type, since: int = 0) -> list[tuple[Path, Path, Any]]:
        """What was said of a kind on links: (from, to, body)."""
        said = [(one[1], one[2], body) for one in self.said if one[0] >= since for body in _each(one[3])]
        return [one for one in said if type(one[2]) is kind]

    # ---- the world

    def _perform(self, path: Path, host: Host, effects: list[Effect]) -> None:
        heard: list[Effect] = []
        for effect in effects:
            if isinstance(effect, SendMessage):
                body = decode_envelope(effect.data, path).body
                if body is not None:
                    self.said.append((self.now, path, effect.peer.path, body))
                if self.loses(path, effect.peer.path) or not self.hears(path, effect.peer.path, body):
                    continue
            heard.append(effect)
        super()._perform(path, host, heard)


def put(key: str, value: str = "v") -> Transact:
    return Transact(then=(Put(key, value.encode()),))


def read(key: str, consistency: Consistency = Consistency.LINEARIZABLE, **more: int) -> ReadKeys:
    return ReadKeys(key, consistency=consistency, **more)


def watch(key: str, after: int) -> WatchKeys:
    return WatchKeys(key, False, after)
