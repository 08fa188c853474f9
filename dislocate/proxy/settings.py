"""What a proxy is told to do: where to listen for which service, and its limits."""

import re
from ipaddress import ip_address

from msgspec import Struct

from dislocate.core.errors import LocalError
from dislocate.core.units import SECOND, Duration

_LISTEN = re.compile(r"(?P<host>\[[^\]]+\]|[^:\[\]=]+):(?P<port>\d{1,5})=(?P<service>[^\s=]+)", re.ASCII)
_EXPECTED = "HOST:PORT=SERVICE, such as 127.0.0.1:5432=db.orders or [::1]:5432=db.orders; port 0 is any free one"


class Listen(Struct, frozen=True):
    """Connections to `host:port`, a numeric address, are for `service`."""

    host: str
    port: int
    service: str

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}={self.service}"


class Limits(Struct, frozen=True, kw_only=True):
    """How long and how much."""

    connect_timeout: Duration = (
        1 * SECOND
    )  # of one try: three times a handshake whose first packet was lost costs as much
    idle: Duration = 0  # a stream on which nothing moved for so long is reset; 0: never
    grace: Duration = 30 * SECOND  # streams may go on so long after SIGTERM
    streams: int = 0  # at a time, in one process; more wait in the kernel's queue; 0: as many as there are descriptors
    is_proxy_header_sent: bool = False  # PROXY protocol, version 2


class Plan(Struct, frozen=True, kw_only=True):
    """All that one process of a proxy needs to know."""

    listens: tuple[Listen, ...]
    agent: str  # where
    token: str | None = None
    limits: Limits = Limits()
    is_one_of_many: bool = False  # others listen to the same ports (SO_REUSEPORT)

    @property
    def services(self) -> tuple[str, ...]:
        """Each once, as they were named."""
        return tuple(dict.fromkeys(listen.service for listen in self.listens))


def parse_listen(text: str) -> Listen:
    """What `--listen` says.  Raises `LocalError`."""
    found = _LISTEN.fullmatch(text)
    if found is None or int(found["port"]) > 65535:
        raise LocalError("--listen", got=text, expected=_EXPECTED)
    host = found["host"].strip("[]")
    host = {"*": "0.0.0.0", "localhost": "127.0.0.1"}.get(host, host)
    try:
        ip_address(host)
    except ValueError:
        raise LocalError("--listen", got=text, expected=_EXPECTED) from None
    return Listen(host, int(found["port"]), found["service"])
