"""A store, its servers' followers and an agent that follows, without nodes: messages wait until they are delivered."""

from dislocate.core.boundary.store import Delete, Put, Transact
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.messages import GroupId
from dislocate.core.store.commands import Command, encode_command
from dislocate.core.store.followers import Followers
from dislocate.core.store.following import Followed
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.messages import Follow, FollowedChanges, FollowedState, Unfollow
from dislocate.core.units import SECOND

GROUP = GroupId(b"g" * 16)
AGENT = "fra/b1"


class Server:
    """One server: what it applied, and who follows it."""

    def __init__(self, path: str, age: int = 0) -> None:
        self.path = path
        self.store = StoreMachine()
        self.followers = Followers(self.store)
        self.age = age

    def apply(self, *operations: Put | Delete) -> None:
        applied = self.store.apply(self.store.index + 1, encode_command(Command(Transact((), operations))))
        self.followers.changed(applied.changes)

    def put(self, **values: str) -> None:
        """`put(a_b="1")` sets a/b."""
        self.apply(*(Put(key.replace("_", "/"), value.encode()) for key, value in values.items()))


class Scene:
    """One agent, some servers with the same log, and their links."""

    def __init__(self, *paths: str) -> None:
        self.now = 100 * SECOND
        self.unix = 1_700_000_000 * SECOND
        self.servers = {path: Server(path) for path in paths or ("fra/a1",)}
        self.agent = Followed((), self.now, self.unix)
        self.changed: list[str] = []
        self.disk: dict[str, bytes] = {}
        self.to_server: list[tuple[str, Follow | Unfollow]] = []
        self.to_agent: list[tuple[str, FollowedState | FollowedChanges]] = []

    def join(self) -> "Scene":
        self.agent.joined(GROUP, self.now)
        self.agent.servers_are(tuple(self.servers), self.now)
        return self

    def apply(self, *operations: Put | Delete) -> None:
        for server in self.servers.values():
            server.apply(*operations)

    def put(self, **values: str) -> None:
        for server in self.servers.values():
            server.put(**values)

    def collect(self) -> None:
        messages, changed = self.agent.take()
        self.to_server += messages
        self.changed += changed
        for server in self.servers.values():
            self.to_agent += [(server.path, body) for _, body in server.followers.take(self.now, server.age)]

    def deliver(self) -> None:
        """Carry everything until nothing is under way."""
        self.collect()
        while self.to_server or self.to_agent:
            if self.to_server:
                self.hand_to_server()
            else:
                self.hand_to_agent()
            self.collect()

    def hand_to_server(self) -> None:
        path, body = self.to_server.pop(0)
        followers = self.servers[path].followers
        if isinstance(body, Follow):
            followers.follow(AGENT, body)
        else:
            followers.unfollow(AGENT, body)

    def hand_to_agent(self) -> None:
        path, body = self.to_agent.pop(0)
        if isinstance(body, FollowedState):
            self.agent.state(path, body, self.now)
        else:
            self.agent.changes(path, body, self.now)

    def tick(self, seconds: int = 1, *silent: str) -> None:
        for _ in range(seconds):
            self.now += SECOND
            self.unix += SECOND
            self.agent.tick(self.now)
            for server in self.servers.values():
                if server.path not in silent:
                    self.to_agent += [(server.path, body) for _, body in server.followers.tick(self.now, server.age)]
            self.deliver()
            self.save()

    def save(self) -> None:
        for record in self.agent.records(self.now, self.unix):
            if record.value is None:
                self.disk.pop(record.key, None)
            else:
                self.disk[record.key] = record.value

    def restart(self, after: int) -> None:
        """The agent's process ends and starts again `after` nanoseconds later; its monotonic clock begins anew."""
        for server in self.servers.values():
            server.followers.lost(AGENT)
        self.unix += after
        self.now = 5 * SECOND
        records = tuple(StoredRecord(key, value) for key, value in sorted(self.disk.items()))
        self.agent = Followed(records, self.now, self.unix)
        self.to_server, self.to_agent = [], []

    def values(self, prefix: str) -> dict[str, str] | None:
        read = self.agent.read(prefix, True, self.now)
        return None if read is None else {kv.key: kv.value.decode() for kv in read.keys}
