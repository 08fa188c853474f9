"""A host and the agent on it: what survives what.

A `Machine` is the host: its addresses, disk, clock and services.  A `Process` is one start of the agent; a kill ends it,
a restart makes another.  Inputs belong to a process: an answer for a dead one reaches nobody.
"""

from collections import deque
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from dislocate.core.boundary.inputs import Input
from dislocate.core.boundary.requests import Result
from dislocate.core.boundary.values import InstanceSpec
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.node import Node
from dislocate.core.outbox import NEVER
from dislocate.core.units import SECOND
from sim.disk import Disk, Write
from sim.host import SimulatedHost
from sim.services import SimulatedService

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.links import Connection

EPOCH = 1_767_225_600 * SECOND  # the wall clock at virtual time 0: 1 January 2026, UTC


class Asker(NamedTuple):
    """Who waits for the reply to a request."""

    then: "Callable[[Result], None]"
    lost: "Callable[[], None] | None"  # called instead when the agent dies first


class Process:
    """One start of one agent."""

    __slots__ = (
        "armed",
        "is_doomed",
        "is_paused",
        "is_running",
        "links",
        "machine",
        "node",
        "node_id",
        "put_off",
        "requests",
        "started",
        "version",
        "waiting",
        "waiting_datagrams",
    )

    def __init__(self, machine: "Machine", node: Node, started: int) -> None:
        self.machine = machine
        self.node = node
        self.node_id: NodeId = node.settings.node
        self.started = started
        self.is_running = True
        self.is_paused = False
        self.is_doomed = False  # dies between two effects of its next turn
        self.armed = NEVER  # when its one timer fires
        self.waiting: list[Input] = []  # what the kernel holds for a stopped process, in order
        self.waiting_datagrams = 0
        self.put_off: deque[tuple[Write, int]] = (
            deque()
        )  # writes (and their numbers) that a stalled disk has not answered
        self.links: dict[Path, Connection] = {}
        self.requests: dict[int, Asker] = {}
        self.version = 0  # grows whenever its answers may have changed


class Machine:
    """One host."""

    __slots__ = (
        "bytes_sent",
        "calm_since",
        "clock_drift",
        "clock_offset",
        "clock_set_at",
        "configured",
        "datacenter",
        "datagrams_sent",
        "disk",
        "gossip",
        "host",
        "index",
        "is_powered",
        "links",
        "messages_sent",
        "path",
        "process",
        "services",
        "starts",
    )

    def __init__(self, index: int, path: Path, host: str, disk: Disk) -> None:
        self.index = index
        self.path = path
        self.datacenter = path.partition("/")[0]
        self.gossip: Address = f"{host}:49701"
        self.links: Address = f"{host}:49702"
        self.disk = disk
        self.host = SimulatedHost()
        self.is_powered = True
        self.process: Process | None = None
        self.starts = 0
        self.services: dict[str, SimulatedService] = {}  # by instance id
        self.configured: tuple[InstanceSpec, ...] = ()  # what its agent registers at each start
        self.clock_offset = 0
        self.clock_drift = 0.0
        self.clock_set_at = 0
        self.calm_since = 0  # virtual time of the last fault on this host or its agent
        self.datagrams_sent = 0
        self.messages_sent = 0
        self.bytes_sent = 0  # as the core made them: before encryption and headers

    def unix_ns(self, now: int) -> int:
        """What this host's wall clock says."""
        return EPOCH + now + self.clock_offset + int((now - self.clock_set_at) * self.clock_drift)

    def set_clock(self, now: int, offset: int, drift: float) -> None:
        """The clock steps to `offset` from true time, and gains `drift` seconds a second from there."""
        self.clock_offset = offset
        self.clock_drift = drift
        self.clock_set_at = now

    @property
    def public_key(self) -> bytes:
        """Made at the first start on a disk, kept there."""
        return blake2b(f"{self.path}/{self.disk.generation}".encode(), digest_size=32).digest()


def host_address(datacenter_number: int, number: int) -> str:
    """127.0.i.j as in `dev`; beyond 255 agents in a data center the second byte goes on counting."""
    return f"127.{number >> 8}.{datacenter_number}.{number & 255}"
