"""Swarm: a scenario drawn from a seed, with faults that nobody thought of together.

Each seed has a personality: of all kinds of faults it takes some, and of each how often and how long, so that one run is
all cuts and another all disks (swarm testing, Groce et al. 2012; TigerBeetle's VOPR).  The story has two parts: faults for
most of the time, then none.  Until then everything may fail but what must never; at the end the store has to work again.
"""

from collections.abc import Callable
from typing import TypeAlias

from dislocate.core.streams import Stream, Streams
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.linkmodel import Channel
from sim.scenario import Datacenter, Expect, Fault, Scenario, checked
from sim.workload.plan import Workload

BEGIN = 12 * SECOND  # by then the group is founded
CALM = 60 * SECOND  # at the end: redials wait up to 30 s, an operator asks again after 60
FLEETS = (  # (servers in each data center, agents in each)
    ((3,), 4),
    ((1, 1, 1), 2),
    ((2, 2, 1), 3),
    ((5,), 6),
    ((1, 1, 1, 1, 1), 2),
)
REGIONS = ("fra", "wdc", "lon", "tok", "syd")

Paths: TypeAlias = tuple[str, ...]
Draw: TypeAlias = Callable[[Stream, int, Paths], list[Fault]]  # (stream, when, servers)
LOST = "lost disks"  # never together with "members": of a group that is a server short, one disk may be the majority


def swarm_scenario(seed: int, faulty: int = 45 * SECOND) -> Scenario:
    """The scenario of `seed`, with `faulty` nanoseconds of trouble."""
    streams = Streams(f"swarm/{seed}")
    stream = streams["scenario"]
    shape, agents = stream.choice(FLEETS)
    is_wan = len(shape) > 1
    names = stream.sample(REGIONS, len(shape)) if is_wan else ["fra"]
    servers = tuple(
        f"{name}/a{number}" for name, count in zip(names, shape, strict=True) for number in range(1, count + 1)
    )
    kinds = stream.sample(tuple(KINDS), stream.between(2, 5))
    if "members" not in kinds and streams[LOST].chance(0.3):  # dice of their own: the others fall as before
        kinds.append(LOST)
    pace = stream.between(2, 8) * SECOND
    faults: list[Fault] = []
    at = BEGIN
    while at < BEGIN + faulty:
        faults += ALL[stream.choice(kinds)](stream, at, servers)
        at += stream.between(pace // 4, pace * 2)
    end = BEGIN + faulty
    faults = [_within(fault, end) for fault in faults]
    faults += [Fault(end, "heal"), Fault(end, "disk_mend", servers)]
    duration = end + CALM
    return checked(
        Scenario(
            title=f"Swarm {seed}: {', '.join(sorted(kinds))}",
            why="Whatever fails together, what was acknowledged is kept, and the store works again when it is over.",
            duration=duration,
            datacenters={name: Datacenter(agents) for name in names},
            servers=servers,
            workloads=_workloads(stream, end + CALM // 2),
            at=tuple(sorted(faults, key=lambda fault: fault.time)),
            expect=(
                Expect("eventually", "store_writable", after=end, within=CALM - 5 * SECOND),
                Expect("eventually", "local_reads", after=end, within=CALM - 5 * SECOND),
            ),
        )
    )


def _workloads(stream: Stream, until: int) -> tuple[Workload, ...]:
    return (
        Workload(
            name="kv",
            clients=stream.between(2, 5),
            rate=stream.between(1, 4) * 1.0,
            keys=stream.between(1, 6),
            until=until,
        ),
        Workload(name="locks", kind="locks", clients=2, keys=1, ttl=5 * SECOND, until=until),
        Workload(name="eyes", kind="watch", clients=2),
    )


def _within(fault: Fault, end: int) -> Fault:
    """What lasts is over when the calm begins."""
    if fault.lasting is None:
        return fault
    fields = {name: getattr(fault, name) for name in Fault.__struct_fields__}
    return Fault(**(fields | {"lasting": max(1, min(fault.lasting, end - fault.time))}))


# ---- kinds of trouble


def _some(stream: Stream, servers: Paths) -> Paths:
    """One server, mostly; now and then several."""
    count = 1 if stream.chance(0.7) else stream.between(1, len(servers))
    return tuple(stream.sample(servers, count))


def _lasting(stream: Stream) -> int:
    """Short or long, on a scale without a typical length."""
    return 200 * MILLISECOND << stream.below(7)


def _kill(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    midway = stream.chance(0.5)
    return [Fault(at, "kill", _some(stream, servers), midway=midway, lasting=_lasting(stream))]


def _power(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    return [Fault(at, "vanish", _some(stream, servers), lasting=_lasting(stream))]


def _pause(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    return [Fault(at, "pause", _some(stream, servers), lasting=_lasting(stream))]


def _cut(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    one = _some(stream, servers)
    others = tuple(path for path in servers if path not in one) or servers
    dest = others if stream.chance(0.5) else tuple(stream.sample(others, stream.between(1, len(others))))
    channels = (Channel.LINKS,) if stream.chance(0.3) else Fault(0, "").channels
    oneway = stream.chance(0.4)
    return [Fault(at, "cut", origin=one, dest=dest, oneway=oneway, channels=channels, lasting=_lasting(stream))]


def _slow(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    factor = float(2 << stream.below(6))
    return [Fault(at, "slow", origin=_some(stream, servers), dest="*", factor=factor, lasting=_lasting(stream))]


def _drop(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    loss = stream.between(1, 40) / 100
    return [Fault(at, "drop", origin=_some(stream, servers), dest="*", loss=loss, lasting=_lasting(stream))]


def _slow_disk(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    factor = float(4 << stream.below(8))
    return [Fault(at, "disk_slow", _some(stream, servers), factor=factor, lasting=_lasting(stream))]


def _stalled_disk(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    return [Fault(at, "disk_stall", _some(stream, servers), lasting=_lasting(stream))]


def _full_disk(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    return [Fault(at, "disk_fill", _some(stream, servers), lasting=_lasting(stream))]


def _failed_disk(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    """And what an operator does about it: another start, on the same disk."""
    target, lasting = _some(stream, servers), _lasting(stream)
    return [Fault(at, "disk_fail", target, lasting=lasting), Fault(at + lasting + SECOND, "restart", target)]


def _restart(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    return [Fault(at, "restart", _some(stream, servers))]


def _clock(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    offset, behind = stream.between(1, 7200) * SECOND, stream.chance(0.5)
    return [Fault(at, "clock", _some(stream, servers), offset=offset, behind=behind)]


def _lost_disk(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    """A disk is lost, and its server added again, as an operator would.  Always the same one, for what was acknowledged may
    be gone when a majority of the disks is; see `LOST`."""
    victim = servers[-1]
    again = at + _lasting(stream)
    return [Fault(at, "wipe", victim), Fault(again, "restart", victim), Fault(again + SECOND, "server_add", victim)]


def _members(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    """A server goes and comes back."""
    victim = stream.choice(servers)
    return [Fault(at, "server_remove", victim), Fault(at + _lasting(stream) + SECOND, "server_add", victim)]


def _lead(stream: Stream, at: int, servers: Paths) -> list[Fault]:
    return [Fault(at, "lead", stream.choice(servers))]


KINDS: dict[str, Draw] = {
    "kills": _kill,
    "power": _power,
    "pauses": _pause,
    "cuts": _cut,
    "slow links": _slow,
    "lossy links": _drop,
    "slow disks": _slow_disk,
    "stalled disks": _stalled_disk,
    "full disks": _full_disk,
    "failed disks": _failed_disk,
    "restarts": _restart,
    "clocks": _clock,
    "members": _members,
    "transfers": _lead,
}
ALL = KINDS | {LOST: _lost_disk}
