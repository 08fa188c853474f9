"""What two ends of a connection say to each other about the link itself.

On the wire a message of one part is payload, opaque to links; one of two parts is `CONTROL` and one of the structs here, or
`PACKED` and several payloads, each after its length: what is said at once travels together, at the price of one.
Append fields only, with defaults; never reuse a tag.
"""

import struct
from typing import TypeAlias

import msgspec
from msgspec import Struct

from dislocate.core.errors import PeerError
from dislocate.core.identity import NodeId

LINK_PROTOCOL = (1, 2)  # lowest and highest version spoken; only ranges that do not overlap are refused
PACKS = 2  # from this version on `PACKED` is understood
CONTROL = b"\x01"
PACKED = b"\x02"
LENGTH = struct.Struct("!I")


class Base(Struct, frozen=True, array_like=True):
    """A control frame."""


class Hello(Base, frozen=True, tag=1):
    """The dialler's first words.  `attempt` grows with each dial of one process, so that a hello overtaken by later
    events is known to be stale."""

    protocol: tuple[int, int]
    node: NodeId
    to: NodeId  # whom it means to reach: a later start at the same address must not answer for an earlier one
    attempt: int


class Welcome(Base, frozen=True, tag=2):
    """The acceptor's answer: the link is open.  `attempt` is the acceptor's own last dial, to anybody: a hello from it
    with a greater one was made after this link was accepted, so the acceptor has given this link up."""

    protocol: tuple[int, int]
    node: NodeId
    attempt: int


class Goodbye(Base, frozen=True, tag=3):
    """This connection carries no link, or none any more; the dialler is to close it, since an acceptor cannot."""

    reason: str


Control: TypeAlias = Hello | Welcome | Goodbye

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Control] = msgspec.msgpack.Decoder(Control)


def encode_control(frame: Control) -> list[bytes]:
    """The parts of a control message."""
    return [CONTROL, _encoder.encode(frame)]


def decode_control(parts: list[bytes], source: str) -> Control:
    """The control frame in a message of more than one part.  Raises `PeerError` naming `source`."""
    if len(parts) != 2 or parts[0] != CONTROL:
        raise PeerError(source, "not a link frame")
    try:
        return _decoder.decode(parts[1])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(source, f"unreadable link frame: {error}") from error


def pack(payloads: list[bytes]) -> list[bytes]:
    """The parts of one message with all of `payloads`."""
    if len(payloads) == 1:
        return payloads
    return [PACKED, b"".join([piece for payload in payloads for piece in (LENGTH.pack(len(payload)), payload)])]


def unpack(parts: list[bytes], source: str) -> list[bytes]:
    """The payloads of a message of one part, or of a packed one.  Raises `PeerError` naming `source`."""
    if len(parts) == 1:
        return parts
    data, at, payloads = parts[1], 0, []
    while at < len(data):
        begin = at + LENGTH.size
        at = begin + LENGTH.unpack_from(data, at)[0] if begin <= len(data) else len(data) + 1
        if at > len(data):
            raise PeerError(source, "a packed link frame that is cut off")
        payloads.append(data[begin:at])
    return payloads


def speaks_our_protocol(protocol: tuple[int, int]) -> bool:
    """Whether the two ranges of versions overlap."""
    return protocol[0] <= LINK_PROTOCOL[1] and LINK_PROTOCOL[0] <= protocol[1]


def routing_id(node: NodeId, nonce: str) -> bytes:
    """How a dialling socket introduces itself to the ROUTER: 'dc/name#boot#nonce'.

    The nonce is random per connection and known to its two ends only: under ROUTER_HANDOVER a foreign host that has a
    valid key of its own could otherwise take this name over and be sent what is meant for its owner."""
    return f"{node}#{nonce}".encode()


def path_of(identity: bytes) -> str:
    """The path that a routing id claims; '' when it claims none."""
    path, mark, _ = identity.decode("utf-8", "replace").partition("#")
    return path if mark else ""
