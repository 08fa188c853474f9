"""What a DNS name asks for, read from the right, since names of services may have dots.

    NAME.service[.DC].dislocate    _NAME._tcp.service[.DC].dislocate    NODE.node[.DC].dislocate    HEX.addr.dislocate

Only the form is judged here; whether such a thing exists is the business of `answers`.  `service` and `node` can name no
data center and no part of a service, so the form is never ambiguous.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from msgspec import Struct

ZONE = "dislocate"
SERVICE, NODE, ADDRESS = "service", "node", "addr"
_PROTOCOLS = ("_tcp", "_udp")  # RFC 2782; an instance does not say which it speaks, so both find it

IpAddress: TypeAlias = IPv4Address | IPv6Address


class ServiceAsked(Struct, frozen=True):
    """The instances of `name`, everywhere or in one data center; `located`: asked in the form of RFC 2782."""

    name: str
    datacenter: str | None
    located: bool = False


class NodeAsked(Struct, frozen=True):
    """The host of one agent; without a data center, of the one asked."""

    name: str
    datacenter: str | None


class AddressAsked(Struct, frozen=True):
    """An address that is its own name: what SRV records point to."""

    address: IpAddress


class ApexAsked(Struct, frozen=True):
    """The zone itself."""


class BranchAsked(Struct, frozen=True):
    """No thing, but other names may end with it (RFC 8020: NXDOMAIN would deny those as well)."""

    datacenter: str | None


class OutsideAsked(Struct, frozen=True):
    """Another zone's name."""


class NonsenseAsked(Struct, frozen=True):
    """A name in the zone that can never exist."""


Asked: TypeAlias = ServiceAsked | NodeAsked | AddressAsked | ApexAsked | BranchAsked | OutsideAsked | NonsenseAsked


def understand(labels: tuple[str, ...]) -> Asked:
    """What the labels (lower case, without the root) ask for."""
    if labels[-1:] != (ZONE,):
        return OutsideAsked()
    match labels[:-1]:
        case ():
            return ApexAsked()
        case (*rest, "service" | "node" as kind):
            return _thing(rest, kind, None)
        case (*rest, "service" | "node" as kind, datacenter):
            return _thing(rest, kind, datacenter)
        case (digits, "addr"):
            address = _from_hex(digits)
            return NonsenseAsked() if address is None else AddressAsked(address)
        case ("addr",):
            return BranchAsked(None)
        case (datacenter,):
            return BranchAsked(datacenter)
        case _:
            return NonsenseAsked()


def _thing(rest: list[str], kind: str, datacenter: str | None) -> Asked:
    if not rest:
        return BranchAsked(datacenter)
    if kind == NODE:
        return NodeAsked(rest[0], datacenter) if len(rest) == 1 else NonsenseAsked()
    if rest[-1] not in _PROTOCOLS:
        return ServiceAsked(".".join(rest), datacenter)
    if len(rest) == 1:
        return BranchAsked(datacenter)
    if not rest[0].startswith("_"):
        return NonsenseAsked()
    return ServiceAsked(".".join([rest[0][1:], *rest[1:-1]]), datacenter, located=True)


def address_name(address: IpAddress) -> str:
    """The name that `AddressAsked` reads back: '0a000005.addr.dislocate'."""
    return f"{address.packed.hex()}.{ADDRESS}.{ZONE}"


def to_ip(text: str) -> IpAddress | None:
    """The address that `text` spells, or None when it is a host name."""
    try:
        return ip_address(text)
    except ValueError:
        return None


def _from_hex(digits: str) -> IpAddress | None:
    if len(digits) not in (8, 32) or not digits.isascii():
        return None
    try:
        return ip_address(bytes.fromhex(digits))
    except ValueError:
        return None
