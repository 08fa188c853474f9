"""Slots: what to tell a HAProxy so that the servers of a backend are a pool.  Pure.

HAProxy itself is the memory: a slot belongs to the instance whose address it has, so that whoever looks anew, after a
restart of either side, finds what is there and changes only what differs.  Invariants: told twice, the second time nothing
is said; an instance keeps its slot while it lives; a slot is taken out (`maint`) before its address becomes another's, and
put in after all else is right; where there are fewer slots than instances, those with most traffic have them.
"""

from collections.abc import Sequence
from ipaddress import ip_address

from msgspec import Struct

from dislocate.client.pool import Server, State, scaled
from dislocate.haproxy.runtime import Slot

LARGEST = 256  # weight that HAProxy takes
_STATES = {State.READY: "ready", State.DRAIN: "drain", State.MAINT: "maint", State.DOWN: "maint"}


class Steps(Struct, frozen=True):
    """What to say, in order, and what could not be placed."""

    commands: tuple[str, ...]
    unplaced: tuple[Server, ...] = ()  # for want of slots
    nameless: tuple[Server, ...] = ()  # with a host name: HAProxy's socket takes addresses


def steps(backend: str, slots: Sequence[Slot], pool: Sequence[Server]) -> Steps:
    """From `slots` to `pool`."""
    wanted, nameless = _wanted(pool)
    held = {(slot.address, slot.port): slot for slot in reversed(slots)}  # the first of two that are alike
    placed = {place: held[place] for place in wanted if place in held}
    taken = {slot.name for slot in placed.values()}
    free = [slot for slot in slots if slot.name not in taken]
    free.sort(key=lambda slot: (slot.state != "maint", -slot.since))  # who was out longest has no connections left
    unplaced: list[Server] = []
    for place, server in wanted.items():
        if place in placed or server.state is not State.READY:
            continue  # who is not in and shall get nothing needs no slot
        if free:
            placed[place] = free.pop(0)
        else:
            unplaced.append(server)
    commands = [f"set server {backend}/{slot.name} state maint" for slot in free if slot.state != "maint"]
    for place, slot in placed.items():
        commands += _changes(f"{backend}/{slot.name}", slot, wanted[place])
    return Steps(tuple(commands), tuple(unplaced), tuple(nameless))


def _wanted(pool: Sequence[Server]) -> tuple[dict[tuple[str, int], Server], list[Server]]:
    """By place, most traffic first; two instances of one place are one server."""
    found: dict[tuple[str, int], Server] = {}
    nameless: list[Server] = []
    for server in sorted(pool, key=lambda server: (server.state is not State.READY, -server.weight)):
        try:
            found.setdefault((str(ip_address(server.address)), server.port), server)
        except ValueError:
            nameless.append(server)
    return found, nameless


def _changes(name: str, slot: Slot, server: Server) -> list[str]:
    state, weight = _STATES[server.state], scaled(server.weight, LARGEST)
    address = str(ip_address(server.address))
    commands: list[str] = []
    is_in = slot.state != "maint"
    if (slot.address, slot.port) != (address, server.port):
        if is_in:
            commands.append(f"set server {name} state maint")
            is_in = False
        commands.append(f"set server {name} addr {address} port {server.port}")
    if slot.weight != weight and state == "ready":
        commands.append(f"set server {name} weight {weight}")
    if (slot.state if is_in else "maint") != state:
        commands.append(f"set server {name} state {state}")
    return commands
