"""Everything that can happen to a node, as past participles.  The union `Input` is closed: `Node.handle` knows each."""

from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.requests import Request
from dislocate.core.boundary.runs import TaskOutcome
from dislocate.core.boundary.values import CheckOutcome, ConnectOutcome, Load, Refusal
from dislocate.core.identity import Address, NodeId


class Base(Struct, frozen=True, array_like=True, gc=False):
    """An input."""


class DatagramReceived(Base, frozen=True, tag=1):
    """An authenticated, decrypted datagram."""

    source: Address
    data: bytes


class MessageReceived(Base, frozen=True, tag=2):
    """A message on an open link; links keep order and lose nothing while they live."""

    peer: NodeId
    data: bytes


class LinkOpened(Base, frozen=True, tag=3):
    """A link, dialled by either side, is authenticated and ready in both directions."""

    peer: NodeId


class LinkLost(Base, frozen=True, tag=4):
    """A link ended, or the one asked for could not be opened.  Messages under way may be lost.  Only a trigger to look
    closer: it proves nothing about the peer."""

    peer: NodeId
    reason: str


class SendFailed(Base, frozen=True, tag=5):
    """A datagram to an address, or a message to a peer, was not delivered.  REFUSED for an address is the kernel's ICMP
    port unreachable: nobody listens there."""

    target: Address | NodeId
    reason: Refusal


class ConnectTried(Base, frozen=True, tag=6):
    """The answer to `TryConnect`."""

    address: Address
    outcome: ConnectOutcome


class TimeReached(Base, frozen=True, tag=7):
    """`Node.deadline()` has come."""


class ClockRead(Base, frozen=True, tag=8):
    """The wall clock, once a second: the only wall time that the core sees."""

    unix_ns: int


class Stored(Base, frozen=True, tag=9):
    """`Store(seq)` is durable."""

    seq: int


class StoreFailed(Base, frozen=True, tag=10):
    """`Store(seq)` is not durable and will not be."""

    seq: int
    reason: str


class Requested(Base, frozen=True, tag=11):
    """Somebody on this host asks.  Answered by exactly one `Reply(request_id)` unless it is cancelled."""

    request_id: int
    request: Request


class RequestCancelled(Base, frozen=True, tag=12):
    """Nobody waits for this reply any more."""

    request_id: int


class CheckCompleted(Base, frozen=True, tag=13):
    """The answer to `RunCheck`."""

    check_id: str
    outcome: CheckOutcome


class LoadReported(Base, frozen=True, tag=14):
    """The host's own load: `utilization` is load average over processors, clipped to 0..1."""

    load: Load


class TaskProgressed(Base, frozen=True, tag=16):
    """The answer to `RunTask`; one whose result is OUTPUT is not the last."""

    task_id: str
    outcome: TaskOutcome


class Stopped(Base, frozen=True, tag=15):
    """The process was asked to end (SIGTERM) and will, right after the effects of this input: a planned restart."""

    reason: str


Input: TypeAlias = (
    DatagramReceived
    | MessageReceived
    | LinkOpened
    | LinkLost
    | SendFailed
    | ConnectTried
    | TimeReached
    | ClockRead
    | Stored
    | StoreFailed
    | Requested
    | RequestCancelled
    | CheckCompleted
    | LoadReported
    | TaskProgressed
    | Stopped
)
