"""Everything that a node can ask its world to do, as imperatives.  The union `Effect` is closed.

The world carries out a list in order, and may die after any prefix of it.
"""

from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.events import Event
from dislocate.core.boundary.requests import Result
from dislocate.core.boundary.runs import Task
from dislocate.core.boundary.values import CheckSpec, StoredRecord
from dislocate.core.identity import Address, NodeId


class Base(Struct, frozen=True, array_like=True, gc=False):
    """An effect."""


class SendDatagram(Base, frozen=True, tag=1):
    """Encrypt and send, best effort.  A refusal may come back as `SendFailed`."""

    address: Address
    data: bytes  # at most tunables.DATAGRAM_BUDGET


class SendMessage(Base, frozen=True, tag=2):
    """Send on an open link.  Comes back as `SendFailed` when there is none or its queue is full."""

    peer: NodeId
    data: bytes  # at most tunables.MESSAGE_BUDGET


class OpenLink(Base, frozen=True, tag=3):
    """Dial; answered by `LinkOpened` or `LinkLost`.  A second one for an open link is answered by nothing."""

    peer: NodeId
    address: Address
    public_key: bytes  # 32 bytes, CURVE25519: the link opens only to the holder of this key


class CloseLink(Base, frozen=True, tag=4):
    """Close without a `LinkLost` on this side."""

    peer: NodeId


class TryConnect(Base, frozen=True, tag=5):
    """One TCP connect, closed at once; answered by `ConnectTried` within tunables.CONNECT_TIMEOUT."""

    address: Address


class Store(Base, frozen=True, tag=6):
    """Make `records` durable together, then answer `Stored(seq)` or `StoreFailed(seq)`; in order of `seq`.

    `sync` False may be answered before it survives a power cut (but never lost by a mere process death)."""

    seq: int
    records: tuple[StoredRecord, ...]
    sync: bool


class Reply(Base, frozen=True, tag=7):
    """The answer to `Requested`."""

    request_id: int
    result: Result


class RunCheck(Base, frozen=True, tag=8):
    """Run the check once; answered by `CheckCompleted` within its timeout and a second."""

    check_id: str
    spec: CheckSpec


class RunTask(Base, frozen=True, tag=10):
    """Do `task` on this host; answered by `TaskProgressed` until one that is the last, within the task's timeout and a
    second.  Tasks run side by side, unless a later one needs what an earlier one does: that is the core's affair."""

    task_id: str
    task: Task


class CancelTask(Base, frozen=True, tag=11):
    """Nobody waits for it any more: end what can be ended.  No `TaskProgressed` need come."""

    task_id: str


class Notify(Base, frozen=True, tag=9):
    """Tell whoever watches: consoles, streams, logs, metrics.  Nothing comes back."""

    event: Event


Effect: TypeAlias = (
    SendDatagram
    | SendMessage
    | OpenLink
    | CloseLink
    | TryConnect
    | Store
    | Reply
    | RunCheck
    | RunTask
    | CancelTask
    | Notify
)
