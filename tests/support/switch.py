"""Hosts of their own on one machine: network namespaces, joined by a bridge, whose cables can be pulled.

A bridge, since a vanished host must look to the others as it does behind a real switch: silence, and no local error.
Namespaces have no names, only processes that live in them: when those end nothing is left to clean up.
"""

import os
import subprocess
import time
from shutil import which

BRIDGE = "hosts"
NETWORK = 16  # prefix bits: all hosts of a switch are in one network
ENTERED_WITHIN = 60.0  # seconds that a process gets to be in a namespace of its own, on a busy machine

# Runs the rest of the command line in a namespace of its own, once a line has come on standard input: by then the
# network interface is there.  Each word replaces the process, so that the process id stays the same.
OWN_HOST = ("unshare", "--net", "--", "sh", "-c", 'read -r _ && exec "$@"', "sh")


def why_impossible() -> str:
    """Why no namespace can be made here; '' when they can."""
    for tool in ("unshare", "nsenter", "ip"):
        if which(tool) is None:
            return f"`{tool}` is not installed"
    probe = ["unshare", "--net", "ip", "link", "add", BRIDGE, "type", "bridge"]
    attempt = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"no network namespace: {attempt.stderr.strip() or 'unshare failed'}" if attempt.returncode else ""


class Switch:
    """The bridge, in the network namespace that process `owner` has, or is about to enter, for itself."""

    def __init__(self, owner: int) -> None:
        if owner != os.getpid():
            _await_own_namespace(owner)
        self._namespace = _namespace(owner)
        self._ports: dict[int, str] = {}
        self._ip(f"link set lo up\nlink add {BRIDGE} type bridge\nlink set {BRIDGE} up")

    def add_residents(self, addresses: list[str]) -> None:
        """Addresses of the owner's own namespace; they hear each other whatever is unplugged."""
        self._ip("\n".join(f"addr add {address}/{NETWORK} dev {BRIDGE}" for address in addresses))

    def plug(self, process: int, address: str) -> None:
        """Give the namespace of `process`, started with `OWN_HOST`, a cable to the switch and `address`."""
        _await_own_namespace(process)
        port = self._ports[process] = f"port{len(self._ports)}"
        self._ip(f"link add {port} type veth peer name eth0 netns {process}\nlink set {port} master {BRIDGE} up")
        _ip(_namespace(process), f"link set lo up\naddr add {address}/{NETWORK} dev eth0\nlink set eth0 up")

    def unplug(self, process: int) -> None:
        """Pull the cable: from now on nothing reaches that host or comes from it."""
        self._ip(f"link set {self._ports[process]} down")

    def replug(self, process: int) -> None:
        self._ip(f"link set {self._ports[process]} up")

    def _ip(self, commands: str) -> None:
        _ip(self._namespace, commands)


def _namespace(process: int) -> str:
    return f"/proc/{process}/ns/net"


def _ip(namespace: str, commands: str) -> None:
    subprocess.run(["nsenter", f"--net={namespace}", "ip", "-batch", "-"], input=commands, text=True, check=True)


def _await_own_namespace(process: int) -> None:
    deadline = time.monotonic() + ENTERED_WITHIN
    while os.readlink(_namespace(process)) == os.readlink(_namespace(os.getpid())):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {process} is still in our own network namespace")
        time.sleep(0.002)
