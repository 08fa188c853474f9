"""Ports: which ones the instances of a process get.

Free now; nothing is reserved, so another program may be faster, and then the instance dies and is started again.
"""

import errno

from gevent import socket

from dislocate.core.boundary.spec import Process
from dislocate.host.work import Failure


def choose_ports(resource: Process, count: int, taken: list[int], address: str) -> list[int]:
    """Free ones at `address`, other than those taken.  Raises `Failure`."""
    if not resource.ports:
        return _any_ports(count)
    free = [port for port in resource.ports if port not in taken and _is_free(address, port)]
    if len(free) < count:
        raise Failure(
            "apply",
            f"{resource.name} needs {count} free ports and has {len(free)} of {', '.join(map(str, resource.ports))}; name "
            "twice as many as `count`, since a new version is started beside the old one",
        )
    return free[:count]


def _any_ports(count: int) -> list[int]:
    """Held open together until all are known, so that they differ."""
    probes = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def _is_free(address: str, port: int) -> bool:
    """Nobody listens there; several agents of one host, each with an address of its own, may use the same port."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # what lingers from a closed connection is no server
        try:
            probe.bind((address, port))
        except OSError as error:
            return error.errno == errno.EADDRNOTAVAIL  # others reach this host by an address that is not its own
        return True
