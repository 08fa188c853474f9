"""What this host is, and how busy: read when asked, never remembered."""

import os
import platform
import socket

from msgspec import Struct

from dislocate.core.boundary.values import Load
from dislocate.core.errors import ConfigError


class Facts(Struct, frozen=True, kw_only=True):
    """What an operator asks first of a host."""

    hostname: str
    system: str  # 'Linux 6.1.0'
    machine: str  # 'x86_64'
    processors: int  # that this process may use
    memory: int  # bytes, all of it


def read_facts() -> Facts:
    return Facts(
        hostname=socket.gethostname(),
        system=f"{platform.system()} {platform.release()}",
        machine=platform.machine(),
        processors=count_processors(),
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def count_processors() -> int:
    """Those that this process may run on, which a container may have fewer of than its host."""
    return len(os.sched_getaffinity(0))


def read_load() -> Load:
    """The load average of the last minute over the processors, clipped to 0..1."""
    return Load(utilization=min(1.0, os.getloadavg()[0] / count_processors()))


def find_own_address(field: str) -> str:
    """The address that this host sends from by default.  Raises `ConfigError` naming `field` when there is no route.

    Connecting a datagram socket sends nothing; the kernel only chooses the route (the target is TEST-NET-1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError as error:
            raise ConfigError(
                field,
                got="nothing",
                expected="the address that other agents reach this host at; it has no default route",
            ) from error
        return probe.getsockname()[0]
