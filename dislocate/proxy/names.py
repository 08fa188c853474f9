"""Numeric addresses of hosts: most are registered so, the others are looked up beside the loop, which never waits for it.

A name that was found is used for as long as it is asked for, and looked up anew in the background when it is older than
`FRESH`: a resolver that is down takes nobody's endpoint away.
"""

import socket
from collections.abc import Callable
from threading import Thread
from typing import NamedTuple, TypeAlias

from dislocate.core.units import SECOND
from dislocate.proxy.loop import Loop

FRESH = 5 * SECOND  # as long as an answer of our own DNS is good for
MANY = 10_000  # hosts; more than one agent's services have


class Host(NamedTuple):
    """What a socket is made for and connected to."""

    family: socket.AddressFamily
    address: str


Then: TypeAlias = Callable[[Host | None], None]


class Names:
    """Of one loop."""

    def __init__(self, loop: Loop, look_up: Callable[[str], Host | None] | None = None) -> None:
        self._loop = loop
        self._look_up = look_up or look_up_host
        self._known: dict[str, tuple[Host, int]] = {}  # until when it is fresh; 0: for ever
        self._waiting: dict[str, list[Then]] = {}

    def known(self, host: str) -> Host | None:
        """What is known of `host` at once; None: `find` it."""
        entry = self._known.get(host)
        if entry is None:
            found = numeric(host)
            if found is None:
                return None
            if len(self._known) >= MANY:
                self._known.clear()
            self._known[host] = found, 0
            return found
        found, fresh_until = entry
        if 0 < fresh_until < self._loop.now and host not in self._waiting:
            self.find(host, None)
        return found

    def find(self, host: str, then: Then | None) -> None:
        """Look `host` up and call `then`, in the loop; None: nobody knows it."""
        is_asked = host in self._waiting
        self._waiting.setdefault(host, []).extend([then] if then else [])
        if not is_asked:
            Thread(target=self._ask, args=(host,), daemon=True, name=f"look up {host}").start()

    def _ask(self, host: str) -> None:
        found = self._look_up(host)
        self._loop.soon(lambda: self._found(host, found))

    def _found(self, host: str, found: Host | None) -> None:
        if found is not None:
            self._known[host] = found, self._loop.now + FRESH
        for then in self._waiting.pop(host, ()):
            then(found)


def numeric(host: str) -> Host | None:
    """`host` if it is an address already."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return Host(family, host)
    return None


def look_up_host(host: str) -> Host | None:
    """The resolver's first choice.  Waits for it."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return None
    family, _, _, _, address = found[0]
    return Host(family, str(address[0]))
