"""Slots: what to tell a HAProxy so that the servers of a backend are a pool.  Pure.

HAProxy itself is the memory: a slot belongs to the instance whose address it has, so that whoever looks anew, after a
restart of either side, finds what is there and changes only what differs.  Who has a part of the traffic belongs into an
ordinary slot, who is spare into one of the `backup` servers: HAProxy then goes to it by itself, and only when no ordinary
server is left.  A backend without backups has its spares among the ordinary ones, with weight 0.

Invariants: told twice, the second time nothing is said; an instance keeps its slot while it lives and stays of that kind;
one that moves is in at the new slot before it is taken out (`maint`) of the old, and keeps the old where there is no new one;
a slot is taken out before its address becomes another's, and put in after all else is right; where there are fewer slots
than instances, those with most traffic have them.
"""

from collections.abc import Mapping, Sequence
from ipaddress import ip_address

from msgspec import Struct

from dislocate.client.pool import Server, State, scaled
from dislocate.haproxy.runtime import Slot

Place = tuple[str, int]  # address, port

LARGEST = 256  # weight that HAProxy takes
_STATES = {State.READY: "ready", State.DRAIN: "drain", State.MAINT: "maint", State.DOWN: "maint"}


class Steps(Struct, frozen=True):
    """What to say, in order, and what could not be placed."""

    commands: tuple[str, ...]
    unplaced: tuple[Server, ...] = ()  # for want of slots of their kind
    nameless: tuple[Server, ...] = ()  # with a host name: HAProxy's socket takes addresses
    are_spares_idle: bool = False  # for want of any backup: HAProxy uses none of them by itself


def steps(backend: str, slots: Sequence[Slot], pool: Sequence[Server]) -> Steps:
    """From `slots` to `pool`."""
    wanted, nameless = _wanted(pool)
    has_backups = any(slot.is_backup for slot in slots)

    def fits(slot: Slot, server: Server) -> bool:
        return slot.is_backup == (has_backups and server.is_spare)

    placed: dict[Place, Slot] = {}
    for place, server in wanted.items():
        held = [slot for slot in _held(slots, place) if fits(slot, server) or server.state is not State.READY]
        if held:
            placed[place] = held[0]
    taken = {slot.name for slot in placed.values()}
    free = [slot for slot in slots if slot.name not in taken]
    free.sort(key=lambda slot: (slot.state != "maint", -slot.since))  # who was out longest has no connections left
    unplaced: list[Server] = []
    for place, server in wanted.items():
        if place in placed or server.state is not State.READY:
            continue  # who is not in and shall get nothing needs no slot
        fitting = [slot for slot in free if fits(slot, server)]
        if not fitting:
            unplaced.append(server)
            fitting = [slot for slot in _held(free, place) if slot.state != "maint"]
        if fitting:
            placed[place] = fitting[0]
            free.remove(fitting[0])
    return Steps(
        _commands(backend, placed, wanted, free),
        tuple(unplaced),
        tuple(nameless),
        not has_backups and any(server.is_spare for server in wanted.values()),
    )


def _held(slots: Sequence[Slot], place: Place) -> list[Slot]:
    """Slots with that address, those that are in first: a slot that was left keeps its last address."""
    return sorted(
        (slot for slot in slots if (slot.address, slot.port) == place), key=lambda slot: slot.state == "maint"
    )


def _commands(
    backend: str, placed: Mapping[Place, Slot], wanted: Mapping[Place, Server], left: Sequence[Slot]
) -> tuple[str, ...]:
    """Who comes, then who goes; slots that are another's yet are taken last, when that one may have moved."""
    comes: list[str] = []
    evicts: list[str] = []
    goes = [f"set server {backend}/{slot.name} state maint" for slot in left if slot.state != "maint"]
    for place, slot in placed.items():
        is_anothers = slot.state != "maint" and (slot.address, slot.port) != place
        order = evicts if is_anothers else comes if wanted[place].state is State.READY else goes
        order += _changes(f"{backend}/{slot.name}", slot, wanted[place])
    return (*comes, *evicts, *goes)


def _wanted(pool: Sequence[Server]) -> tuple[dict[Place, Server], list[Server]]:
    """By place, most traffic first; two instances of one place are one server."""
    found: dict[Place, Server] = {}
    nameless: list[Server] = []
    for server in sorted(pool, key=lambda server: (server.state is not State.READY, -server.weight)):
        try:
            found.setdefault((str(ip_address(server.address)), server.port), server)
        except ValueError:
            nameless.append(server)
    return found, nameless


def _changes(name: str, slot: Slot, server: Server) -> list[str]:
    state = _STATES[server.state]
    weight = scaled(server.weight, LARGEST)
    if server.is_spare and slot.is_backup:
        weight = LARGEST  # with 0 HAProxy would not go there even when nobody else is left
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
