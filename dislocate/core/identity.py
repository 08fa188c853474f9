"""Who a node is: data center, name, and which start of it.

A restart is a new identity: a higher `boot` wins at once, with no waiting for the old one to be declared dead.  In JSON
and in every table a node is its `path`, 'dc/name'; the boot tells a restart from a rumour about the past.
"""

import re
from functools import cached_property
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.errors import LocalError

# 'host:port', with an IPv6 host in brackets.  Text, since it is key, wire field and answer alike.
Address: TypeAlias = str

# 'dc/name'
Path: TypeAlias = str

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
RESERVED_LABELS = ("service", "node")  # they separate names from data centers in DNS questions


class NodeId(Struct, frozen=True, array_like=True, order=True, dict=True):
    """One start of one agent."""

    datacenter: str
    name: str
    boot: int  # greater at each start; wall-clock milliseconds at least, so a wiped disk does not lock a node out

    @cached_property  # the key of every table: said once, and one text for all who keep it
    def path(self) -> Path:
        return f"{self.datacenter}/{self.name}"

    def __str__(self) -> str:
        return f"{self.datacenter}/{self.name}#{self.boot}"


def check_label(text: str, field: str) -> str:
    """`text` itself when it may name a data center or a node: one DNS label in lower case.  Raises `LocalError`."""
    if not _LABEL.fullmatch(text) or text in RESERVED_LABELS:
        raise LocalError(
            field, got=text, expected="1 to 63 of a-z 0-9 and '-', neither first nor last; not 'service' or 'node'"
        )
    return text


def check_service_name(text: str, field: str) -> str:
    """`text` itself when it may name a service: DNS labels joined by dots, 200 characters at most.  Raises `LocalError`."""
    labels = text.split(".")
    if len(text) > 200 or not all(_LABEL.fullmatch(label) and label not in RESERVED_LABELS for label in labels):
        raise LocalError(
            field,
            got=text,
            expected="lower-case labels joined by dots, such as 'db.orders.replica': 63 characters a label at most, "
            "200 in all, and none is 'service' or 'node', which are reserved",
        )
    return text


def split_path(text: str, field: str) -> tuple[str, str]:
    """('dc', 'name') of 'dc/name'.  Raises `LocalError`."""
    datacenter, slash, name = text.partition("/")
    if not slash:
        raise LocalError(field, got=text, expected="a node as 'datacenter/name'")
    return check_label(datacenter, field), check_label(name, field)


def split_address(text: Address, field: str = "address") -> tuple[str, int]:
    """('host', port) of 'host:port' or '[::1]:port'.  Raises `LocalError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise LocalError(field, got=text, expected="host:port, such as '10.0.0.5:49701'")
    return host.strip("[]"), int(port)


def join_address(host: str, port: int) -> Address:
    """'host:port', with brackets around an IPv6 host."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
