"""The live fleet, as its agents answer: who, where, how far apart, and what runs there.  Nothing is written to it.

An agent knows how far its own data center is from the others, so one living agent of each is asked, at the port where
the first one answers.  Where that is closed (an API binds to loopback unless it was configured otherwise) the way between
two data centers is taken to be the one through ours, the longest that it can be, and that is said.
"""

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from dislocate.client.connection import AgentConnection, NoAgent, Problem, segment
from dislocate.core.identity import Path
from dislocate.core.runs.targeting import Candidate
from dislocate.core.units import MILLISECOND
from sim.mirror import LiveFleet, Placed

HTTP_PORT = 49700
PEER_TIMEOUT = 2.0  # seconds for an agent that may not be within reach from here
PEER_TRIES = 2  # agents of a data center that are asked
ALL_OF_THEM = 60  # agents; of a larger fleet only those that the run is about are rehearsed
SHORTEST = 100_000  # nanoseconds: a round trip is never nothing, and known no better than to this


class Row(Struct, frozen=True):
    """How far away the data centers are, nanoseconds, as one of them says."""

    rtts: dict[str, int]


class Described(Struct, frozen=True):
    """What was asked and answered, before it is cut down to what a run is about."""

    asked: Path
    members: list[dict[str, Any]]
    services: dict[str, list[dict[str, Any]]]  # instances, by name
    servers: tuple[Path, ...]
    leader: Path | None
    rtts: dict[tuple[str, str], int]
    notes: tuple[str, ...]

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """As the agent itself would choose targets from."""
        there: dict[Path, list[str]] = {}
        for name, instances in self.services.items():
            for node in dict.fromkeys(instance["node"] for instance in instances):
                there.setdefault(node, []).append(name)
        return tuple(
            Candidate(
                path_of(one), one["datacenter"], one["name"], tuple(one["tags"]), tuple(there.get(path_of(one), ()))
            )
            for one in self.members
        )


def path_of(member: dict[str, Any]) -> Path:
    return f"{member['datacenter']}/{member['name']}"


def describe(agent: AgentConnection) -> Described:
    """Ask.  Raises `NoAgent` and `Problem`, the latter where no store keeps runs."""
    store = agent.get("/api/store")
    members = [one for one in agent.get("/api/members")["members"] if one["state"] != "left"]
    members.sort(key=path_of)
    names = [one["name"] for one in agent.get("/api/services")["services"]]
    asked = agent.get("/api/health")["node"]
    rtts, notes = _distances(agent, asked, members)
    return Described(
        asked=asked,
        members=members,
        services={name: agent.get(f"/api/services/{segment(name)}")["instances"] for name in names},
        servers=tuple(one["path"] for one in store["servers"] if one["role"] == "voter"),
        leader=store["leader"],
        rtts=rtts,
        notes=notes,
    )


def fleet_of(
    described: Described, targets: Sequence[Path], services: Iterable[str], unix: int
) -> tuple[LiveFleet, str]:
    """What of it is rehearsed, and a note where that is not all: targets, servers, whoever is asked, and the instances of
    `services`."""
    every = {path_of(one): one for one in described.members}
    named = dict.fromkeys(services)
    chosen, note = every, ""
    shown = described.services
    if len(every) > ALL_OF_THEM:
        shown = {name: instances for name, instances in described.services.items() if name in named}
        around = [instance["node"] for instances in shown.values() for instance in instances]
        wanted = dict.fromkeys((*targets, *described.servers, described.asked, *around))
        chosen = {path: one for path, one in every.items() if path in wanted}
        note = f"rehearsed are the {len(chosen)} of {len(every)} agents that this run is about"
    names: dict[str, list[str]] = {}
    for path, one in chosen.items():
        names.setdefault(one["datacenter"], []).append(path.partition("/")[2])
    placed = {
        name: tuple(Placed(one["node"], one["status"] == "passing") for one in instances if one["node"] in chosen)
        for name, instances in shown.items()
    }
    fleet = LiveFleet(
        names={name: tuple(members) for name, members in names.items()},
        dead=tuple(path for path, one in chosen.items() if one["state"] == "dead"),
        rtts={pair: rtt for pair, rtt in described.rtts.items() if all(name in names for name in pair)},
        servers=tuple(path for path in described.servers if path in chosen),
        leader=described.leader,
        asked=described.asked,
        services={name: instances for name, instances in placed.items() if instances},
        unix=unix,
    )
    return fleet, note


# ---- how far apart


def _distances(
    agent: AgentConnection, asked: Path, members: Sequence[dict[str, Any]]
) -> tuple[dict[tuple[str, str], int], tuple[str, ...]]:
    """Of each pair, nanoseconds, and what had to be assumed."""
    home = asked.partition("/")[0]
    names = list(dict.fromkeys(one["datacenter"] for one in members))
    rows = {home: _row(agent)}
    for name in names:
        if name != home and (row := _row_of(agent, name, members)) is not None:
            rows[name] = row
    rtts: dict[tuple[str, str], int] = {}
    assumed: list[str] = []
    for at, one in enumerate(names):
        for other in names[at + 1 :]:
            said = [rows[a].rtts[b] for a, b in ((one, other), (other, one)) if a in rows and b in rows[a].rtts]
            if not said:
                assumed.append(f"{one}-{other}")
                said = [sum(rows[home].rtts.get(name, 0) for name in (one, other)) or SHORTEST]
            rtts[one, other] = rtts[other, one] = max(SHORTEST, sum(said) // len(said) // SHORTEST * SHORTEST)
    words = f"nobody could be asked how far apart these are, taken is the way through {home}: {', '.join(assumed)}"
    return rtts, (words,) if assumed else ()


def _row(agent: AgentConnection) -> Row:
    answer = agent.get("/api/datacenters")["datacenters"]
    return Row({one["name"]: round(one["rtt_ms"] * MILLISECOND) for one in answer if one["rtt_ms"] is not None})


def _row_of(agent: AgentConnection, datacenter: str, members: Sequence[dict[str, Any]]) -> Row | None:
    """As one of its living agents says; None: none of them is within reach, or none says so to strangers.  They are not shown
    our token: where they answer is what others told."""
    alive = [one for one in members if one["datacenter"] == datacenter and one["state"] == "alive"]
    for one in alive[:PEER_TRIES]:
        host = one["address"].rpartition(":")[0]
        try:
            return _row(AgentConnection(f"http://{host}:{_port(agent)}", timeout=PEER_TIMEOUT))
        except (NoAgent, Problem):
            continue
    return None


def _port(agent: AgentConnection) -> int:
    return (urlsplit(agent.where).port or HTTP_PORT) if agent.where.startswith("http") else HTTP_PORT
