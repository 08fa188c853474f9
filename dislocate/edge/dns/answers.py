"""Answers: what this node says to one DNS question, from its snapshots alone; pure.

An answer without a data center in its name follows the flows of this one.  A and AAAA name who has a part of its traffic, in
an order drawn by these parts, since they can carry neither weight nor distance and most clients use the first, some all; SRV
carries the parts as weights and names who is spare at a lower priority; TXT says how old the knowledge is.  A known name
without the type asked is NODATA, an unknown one NXDOMAIN, both with the SOA that bounds how long that is believed (RFC 2308).

Does not know bytes or sizes (`wire`), nor for how many askers an answer serves (`resolver`).
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from random import Random
from typing import Any, Protocol, TypeAlias

from dnslib import QTYPE, RCODE, RR
from msgspec import Struct

from dislocate.core.balance.parts import parts
from dislocate.core.boundary.balance import Route
from dislocate.core.boundary.settings import Settings
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import DatacenterView, InstanceView, MemberView, ServiceView
from dislocate.core.identity import Path, split_address
from dislocate.core.units import seconds
from dislocate.edge.dns.names import (
    ZONE,
    AddressAsked,
    ApexAsked,
    BranchAsked,
    IpAddress,
    NodeAsked,
    NonsenseAsked,
    OutsideAsked,
    ServiceAsked,
    address_name,
    to_ip,
    understand,
)
from dislocate.edge.dns.preference import Told, best_first, by_part, by_weight, rank
from dislocate.edge.dns.records import (
    address_record,
    alias_record,
    authority_record,
    place_record,
    server_record,
    text_record,
)

SERVICE_TTL = 5  # seconds; Consul's 0 makes resolvers hammer, JVMs keep 30 s whatever is said
HASTY_TTL = 2  # while something drains, or the answer is a last resort
NODE_TTL = 30
NEGATIVE_TTL = 5  # the SOA's minimum
SHELF_LIFE = 5.0  # seconds that an answer may serve without an event: an RTT drifts and no event says so
TXT_SHELF_LIFE = 1.0  # its ages grow
ROTATIONS = 32  # orders drawn for one A or AAAA answer: the share of each as the first is right to 1/32
UDP_ADDRESSES = 8  # of 28 bytes at most: they fit 512 bytes with any name
TCP_ADDRESSES = 2_000  # the same for 65,535
_STRIDE = 13  # coprime to ROTATIONS, so that neighbouring draws start far apart

Groups: TypeAlias = Sequence[tuple[Told, ...]]  # by priority

_ADDRESSES = (QTYPE.A, QTYPE.AAAA)


class CatalogViews(Protocol):
    def names(self) -> tuple[str, ...]: ...
    def service(self, name: str) -> ServiceView | None: ...


class Routes(Protocol):
    def route(self, service: str) -> Route | None: ...


class Knowledge(Protocol):
    """The snapshots of a node that answers need; `core.node.Node` has them."""

    settings: Settings

    @property
    def members(self) -> Mapping[Path, MemberView]: ...
    @property
    def datacenters(self) -> Mapping[str, DatacenterView]: ...
    @property
    def catalog(self) -> CatalogViews: ...
    @property
    def flows(self) -> Routes: ...


class Question(Struct, frozen=True):
    """What is asked, in lower case."""

    labels: tuple[str, ...]  # without the root
    type: int


class Weighted(Struct, frozen=True):
    """A record that an order is drawn for."""

    weight: int
    record: RR


class Answer(Struct, frozen=True, kw_only=True):
    """The parts of a reply.  Its answers are `records`, or drawn from the `pools` in turn, each by weight."""

    rcode: int = RCODE.NOERROR
    authoritative: bool = True
    pools: tuple[tuple[Weighted, ...], ...] = ()
    records: tuple[RR, ...] = ()
    additional: tuple[RR, ...] = ()
    authority: tuple[RR, ...] = ()
    subject: str = ""  # the service name or node path whose change outdates this; empty: only time does
    shelf_life: float = SHELF_LIFE  # seconds

    @property
    def pooled(self) -> list[RR]:
        """The records of all pools, in order: what `draw` gives positions in."""
        return [item.record for pool in self.pools for item in pool]

    @property
    def rotations(self) -> int:
        """How many orders are worth drawing."""
        return ROTATIONS if any(len(pool) > 1 for pool in self.pools) else 1

    def draw(self, turn: int, random: Random, limit: int) -> list[int]:
        """An order of the pooled records, at most `limit` of them.  Over `ROTATIONS` turns each comes first in proportion
        to its weight; the others follow by weighted sampling (Efraimidis and Spirakis)."""
        drawn: list[int] = []
        start = 0
        for pool in self.pools:
            drawn += [start + at for at in _draw(pool, turn, random)]
            start += len(pool)
        return drawn[:limit]


def _draw(pool: tuple[Weighted, ...], turn: int, random: Random) -> list[int]:
    if len(pool) < 2:
        return list(range(len(pool)))
    sums = list(accumulate(item.weight for item in pool))
    point = (turn * _STRIDE % ROTATIONS + random.random()) / ROTATIONS * sums[-1]
    first = min(bisect_right(sums, point), len(pool) - 1)
    others = [at for at in range(len(pool)) if at != first]
    others.sort(key=lambda at: random.expovariate(pool[at].weight))
    return [first, *others]


def answer(question: Question, knowledge: Knowledge, now: int) -> Answer:
    """What `knowledge` says at `now` (its monotonic nanoseconds)."""
    asked = understand(question.labels)
    return _ANSWERS[type(asked)](asked, question, knowledge, now)


def _service(asked: ServiceAsked, question: Question, knowledge: Knowledge, now: int) -> Answer:
    view = knowledge.catalog.service(asked.name)
    if view is None:
        ending = f".{asked.name}"
        above = any(name.endswith(ending) for name in knowledge.catalog.names())
        return _nodata(knowledge, asked.name) if above else _unknown(knowledge, asked.name)
    if asked.datacenter is not None and not _is_datacenter(asked.datacenter, knowledge):
        return _unknown(knowledge, asked.name)
    home, places = knowledge.settings.node.datacenter, knowledge.datacenters
    if asked.datacenter is not None:
        scope = tuple(i for i in view.instances if i.datacenter == asked.datacenter)
        told = [by_weight(group) for group in rank(scope, home, places)]
        is_spilling = False
    else:
        scope = view.instances
        route = knowledge.flows.route(asked.name)
        told = [] if route is None else by_part(parts(route), home, places)
        is_spilling = route is not None and sum(share.share > 0.0 for share in route.shares) > 1
    hasty = is_spilling or any(i.status is Status.DRAINING for i in scope)
    hasty = hasty or any(not _is_up(each.instance) for group in told for each in group)
    ttl = HASTY_TTL if hasty else SERVICE_TTL
    owner = ".".join(question.labels)
    match question.type:
        case QTYPE.SRV:
            found = _srv(owner, told, ttl, asked.name)
        case QTYPE.A | QTYPE.AAAA | QTYPE.ANY if not asked.located:
            found = _addresses(owner, told[:1], question.type, ttl, asked.name)
        case QTYPE.TXT if not asked.located:
            found = _texts(owner, told, ttl, asked.name, now)
        case _:
            found = Answer()
    return found if found.pools or found.records else _nodata(knowledge, asked.name)


def _addresses(owner: str, groups: Groups, type_: int, ttl: int, subject: str) -> Answer:
    """One record an address, of a data center the passing before the warning; a lone host name in place of an address
    becomes a CNAME."""
    pools: dict[int, dict[IpAddress, int]] = {}
    seen: dict[IpAddress, int] = {}
    everybody = [told for group in groups for told in group][:TCP_ADDRESSES]
    for told, turn in best_first(everybody):
        ip = to_ip(told.instance.address)
        if ip is not None and _is_wanted(ip, type_):
            weights = pools.setdefault(seen.setdefault(ip, turn), {})
            weights[ip] = weights.get(ip, 0) + told.weight
    if not pools:
        named = (told.instance.address for told in everybody)
        hosts = [address for address in named if address and to_ip(address) is None]
        alias = (alias_record(owner, hosts[0], ttl),) if hosts else ()
        return Answer(records=alias, subject=subject)
    return Answer(
        pools=tuple(
            tuple(Weighted(weight, address_record(owner, ip, ttl)) for ip, weight in weights.items())
            for _, weights in sorted(pools.items())
        ),
        subject=subject,
    )


def _srv(owner: str, groups: Groups, ttl: int, subject: str) -> Answer:
    """Priority by group."""
    records: list[RR] = []
    targets: dict[str, IpAddress] = {}
    for at, group in enumerate(groups, start=1):
        for told in group:
            instance = told.instance
            ip = to_ip(instance.address)
            target = instance.address if ip is None else address_name(ip)
            if ip is not None:
                targets[target] = ip
            records.append(place_record(owner, 10 * at, told.weight, instance.port, target, ttl))
    additional = tuple(address_record(name, ip, ttl) for name, ip in targets.items())
    return Answer(records=tuple(records), additional=additional, subject=subject)


def _texts(owner: str, groups: Groups, ttl: int, subject: str, now: int) -> Answer:
    records = tuple(
        text_record(
            owner,
            ttl,
            id=instance.id,
            node=instance.node,
            datacenter=instance.datacenter,
            address=f"{instance.address}:{instance.port}",
            status=instance.status.value,
            age=f"{seconds(max(0, now - instance.as_of)):.3f}",
            reachable=str(instance.reachable).lower(),
        )
        for group in groups
        for instance in (told.instance for told in group)
    )
    return Answer(records=records, subject=subject, shelf_life=TXT_SHELF_LIFE)


def _node(asked: NodeAsked, question: Question, knowledge: Knowledge, now: int) -> Answer:
    path = f"{asked.datacenter or knowledge.settings.node.datacenter}/{asked.name}"
    member = knowledge.members.get(path)
    if member is None:
        return _unknown(knowledge, path)
    host, _ = split_address(member.address)
    owner, ip = ".".join(question.labels), to_ip(host)
    match question.type:
        case QTYPE.A | QTYPE.AAAA | QTYPE.ANY if ip is not None and _is_wanted(ip, question.type):
            return Answer(records=(address_record(owner, ip, NODE_TTL),), subject=path)
        case QTYPE.TXT:
            view = knowledge.datacenters.get(member.node.datacenter)
            text = text_record(
                owner,
                NODE_TTL,
                node=path,
                datacenter=member.node.datacenter,
                state=member.state.value,
                age=f"{seconds(max(0, now - member.as_of)):.3f}",
                reachable=str(view is None or view.reachable).lower(),
            )
            return Answer(records=(text,), subject=path, shelf_life=TXT_SHELF_LIFE)
        case _:
            return _nodata(knowledge, path)


def _address(asked: AddressAsked, question: Question, knowledge: Knowledge, _now: int) -> Answer:
    if question.type not in (*_ADDRESSES, QTYPE.ANY) or not _is_wanted(asked.address, question.type):
        return _nodata(knowledge)
    return Answer(records=(address_record(".".join(question.labels), asked.address, NODE_TTL),))


def _apex(_asked: ApexAsked, question: Question, knowledge: Knowledge, _now: int) -> Answer:
    match question.type:
        case QTYPE.SOA | QTYPE.ANY:
            return Answer(records=(_soa(knowledge),))
        case QTYPE.NS:
            ip = _own_ip(knowledge)
            glue = () if ip is None else (address_record(_name_server(knowledge), ip, NODE_TTL),)
            return Answer(records=(server_record(ZONE, _name_server(knowledge), NODE_TTL),), additional=glue)
        case _:
            return _nodata(knowledge)


def _branch(asked: BranchAsked, _question: Question, knowledge: Knowledge, _now: int) -> Answer:
    known = asked.datacenter is None or _is_datacenter(asked.datacenter, knowledge)
    return _nodata(knowledge) if known else _unknown(knowledge)


def _outside(_asked: OutsideAsked, _question: Question, _knowledge: Knowledge, _now: int) -> Answer:
    return Answer(rcode=RCODE.REFUSED, authoritative=False)


def _nonsense(_asked: NonsenseAsked, _question: Question, knowledge: Knowledge, _now: int) -> Answer:
    return _unknown(knowledge)


_ANSWERS: dict[type, Callable[[Any, Question, Knowledge, int], Answer]] = {
    ServiceAsked: _service,
    NodeAsked: _node,
    AddressAsked: _address,
    ApexAsked: _apex,
    BranchAsked: _branch,
    OutsideAsked: _outside,
    NonsenseAsked: _nonsense,
}


def _nodata(knowledge: Knowledge, subject: str = "") -> Answer:
    return Answer(authority=(_soa(knowledge),), subject=subject)


def _unknown(knowledge: Knowledge, subject: str = "") -> Answer:
    return Answer(rcode=RCODE.NXDOMAIN, authority=(_soa(knowledge),), subject=subject)


def _is_up(instance: InstanceView) -> bool:
    return instance.reachable and instance.status in (Status.PASSING, Status.WARNING)


def _is_datacenter(name: str, knowledge: Knowledge) -> bool:
    return name == knowledge.settings.node.datacenter or name in knowledge.datacenters


def _is_wanted(ip: IpAddress, type_: int) -> bool:
    return type_ == QTYPE.ANY or ip.version == (4 if type_ == QTYPE.A else 6)


def _own_ip(knowledge: Knowledge) -> IpAddress | None:
    return to_ip(split_address(knowledge.settings.gossip)[0])


def _name_server(knowledge: Knowledge) -> str:
    ip = _own_ip(knowledge)
    node = knowledge.settings.node
    return f"{node.name}.node.{node.datacenter}.{ZONE}" if ip is None else address_name(ip)


def _soa(knowledge: Knowledge) -> RR:
    return authority_record(ZONE, _name_server(knowledge), NEGATIVE_TTL)
