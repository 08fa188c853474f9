"""Agents that found a group, without the rest of a node: disks that can be wiped, messages that can be lost."""

from collections.abc import Callable, Sequence

import msgspec

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.bootstrap import Founding
from dislocate.core.consensus.founding_duties import Admitted, Expelled, Founded, Joined, Write
from dislocate.core.consensus.messages import Consensus
from dislocate.core.consensus.promises import DISK_KEY, PROMISE_KEY, is_of_store
from dislocate.core.identity import NodeId
from dislocate.core.store.messages import GroupAsked, GroupTold
from dislocate.core.units import SECOND

Message = GroupAsked | GroupTold | Consensus


class Agent:
    """One agent over its starts; its disk outlives a crash and not a wipe."""

    def __init__(self, town: "Town", path: str, servers: Sequence[str]) -> None:
        self.town = town
        self.path = path
        self.servers = tuple(servers)
        self.records: dict[str, bytes] = {}
        self.boot = 0
        self.is_up = False
        self.unstored: list[Write] = []
        self.happened: list[Joined | Founded | Admitted | Expelled] = []

    @property
    def node(self) -> NodeId:
        return NodeId(*self.path.split("/"), self.boot)

    def start(self) -> None:
        self.boot += 1
        self.town.disks += 1
        self.is_up = True
        recovered = tuple(StoredRecord(key, value) for key, value in sorted(self.records.items()))
        self.founding = Founding(self.path, self.servers, self.town.disks, recovered)
        self.carry_out()

    def stop(self) -> None:
        """Killed: what was not stored is lost."""
        self.is_up = False
        self.unstored = []

    def wipe(self) -> None:
        self.stop()
        self.records = {}

    def forget_promise(self) -> None:
        for key in (DISK_KEY, PROMISE_KEY):
            self.records.pop(key, None)

    def tick(self) -> None:
        others = [other.path for other in self.town.agents.values() if other.is_up and self.town.may_pass(self, other)]
        self.founding.tick(self.town.now, others)
        self.carry_out()

    def store(self) -> None:
        """One write becomes durable."""
        write = self.unstored.pop(0)
        if write.drops_store:
            self.records = {key: value for key, value in self.records.items() if not is_of_store(key)}
        for one in write.records:
            self.records[one.key] = one.value
        self.founding.stored(write.ticket)
        self.carry_out()

    def receive(self, sender: NodeId, message: Message) -> None:
        match message:
            case GroupAsked():
                self.town.post(self, sender.path, self.founding.asked(sender, message))
            case GroupTold():
                self.founding.told(sender, message)
            case Consensus():
                self.founding.consensus(sender, message)
        self.carry_out()

    def carry_out(self) -> None:
        duties = self.founding.take()
        self.unstored += duties.writes
        for path, message in duties.messages:
            self.town.post(self, path, message)
        self.happened += duties.happened
        for fact in duties.happened:
            self.town.heard_of(self, fact)

    def founded(self) -> list[Founded]:
        return [fact for fact in self.happened if isinstance(fact, Founded)]


class Town:
    """Agents and what is under way between them."""

    def __init__(self, servers: Sequence[str], agents: Sequence[str] = ()) -> None:
        self.now = 0
        self.disks = 100  # each start draws one; an old disk keeps its own
        self.under_way: list[tuple[NodeId, str, bytes, type]] = []
        self.may_pass: Callable[[Agent, Agent], bool] = lambda sender, receiver: True
        self.heard_of: Callable[[Agent, object], None] = lambda agent, fact: None
        self.agents = {path: Agent(self, path, servers) for path in (*servers, *agents)}

    def __getitem__(self, path: str) -> Agent:
        return self.agents[path]

    def start(self, *paths: str) -> None:
        for path in paths or tuple(self.agents):
            self[path].start()

    def post(self, sender: Agent, path: str, message: Message) -> None:
        if path in self.agents:
            self.under_way.append((sender.node, path, msgspec.msgpack.encode(message), type(message)))

    def deliver(self, at: int = 0, *, keep: bool = False) -> None:
        """Hand over one message, where it can be; `keep`: it will come once more."""
        sender, path, data, kind = self.under_way[at] if keep else self.under_way.pop(at)
        receiver = self.agents[path]
        if receiver.is_up and self.may_pass(self.agents[sender.path], receiver):
            receiver.receive(sender, msgspec.msgpack.decode(data, type=kind))

    def settle(self) -> None:
        """Deliver and store until nothing is left to do."""
        while self.under_way or any(agent.unstored for agent in self.agents.values()):
            for agent in self.agents.values():
                if agent.unstored:
                    agent.store()
            if self.under_way:
                self.deliver()

    def run(self, seconds: int) -> None:
        for _ in range(seconds):
            self.now += SECOND
            for agent in self.agents.values():
                if agent.is_up:
                    agent.tick()
            self.settle()
