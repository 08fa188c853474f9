"""The table of members, of this data center and of the others: one entry a path, one owner.

Only membership writes it.  Everybody else reads; `views()` is immutable and rebuilt only when somebody asks.  `peers` is
kept beside the table so that three random living neighbours cost three draws, not a walk over everybody.
"""

from collections.abc import Callable, Iterator

from dislocate.core.boundary.values import MemberState
from dislocate.core.boundary.views import MemberView
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.messages import MemberRecord
from dislocate.core.membership.suspicion import Suspicion
from dislocate.core.units import SECOND

LIVING = (MemberState.ALIVE, MemberState.SUSPECT)
VIEW_AGE = 1 * SECOND  # a view's `as_of` and `restarting` may lag so much behind


class Member:
    """What is believed of one member."""

    __slots__ = (
        "accusers",
        "heard",
        "path",
        "record",
        "refused",
        "restarting_until",
        "rttvar",
        "since",
        "srtt",
        "state",
        "suspicion",
    )

    def __init__(self, record: MemberRecord, state: MemberState, now: int) -> None:
        self.record = record
        self.path = record.node.path
        self.state = state
        self.since = now  # when this node learned of the state
        self.heard = now  # when anything last confirmed that it lives
        self.refused = False  # dead because its host answered that no agent is there
        self.restarting_until = 0  # 0: nothing was announced; in the past: the announced restart took too long
        self.suspicion: Suspicion | None = None  # set while it is suspect
        self.accusers: tuple[Path, ...] = ()  # whose word its death rests on
        self.srtt = 0  # nanoseconds, smoothed; 0: never measured
        self.rttvar = 0

    @property
    def node(self) -> NodeId:
        return self.record.node

    @property
    def is_living(self) -> bool:
        return self.state in LIVING


class Members:
    """All members by path."""

    def __init__(self, datacenter: str, own: Path = "") -> None:
        self.datacenter = datacenter
        self.own = own
        self.version = 0  # grows with every change that a view would show
        self.brake = ""  # why removals are held in this data center; empty: they are not
        self.peers: list[Member] = []  # the others here that are alive or suspect, in no order.  Not to be changed
        self._peer_index: dict[Path, int] = {}
        self._by_path: dict[Path, Member] = {}
        # The member at a path, or None.  The table's own method: it is asked several times a turn.
        self.get: Callable[[Path], Member | None] = self._by_path.get
        self._by_address: dict[Address, Path] = {}
        self._by_datacenter: dict[str, dict[Path, Member]] = {}
        self._living: dict[str, int] = {}
        self._views: dict[Path, MemberView] = {}
        self._viewed = (-1, 0)  # version and instant of `_views`

    def __len__(self) -> int:
        return len(self._by_path)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_path.values())

    def at(self, address: Address) -> Member | None:
        """Who listens at `address`, for gossip or for links."""
        path = self._by_address.get(address)
        return None if path is None else self._by_path.get(path)

    def datacenters(self) -> tuple[str, ...]:
        """Names of the data centers that have a known member, sorted."""
        return tuple(sorted(self._by_datacenter))

    def of(self, datacenter: str) -> dict[Path, Member]:
        """The members of one data center, in the order in which they became known.  Not to be changed."""
        return self._by_datacenter.get(datacenter, {})

    def living(self, datacenter: str) -> int:
        """How many of a data center are alive or suspect."""
        return self._living.get(datacenter, 0)

    # ---- for membership alone

    def add(self, member: Member) -> None:
        datacenter = member.node.datacenter
        self._by_path[member.path] = member
        self._by_datacenter.setdefault(datacenter, {})[member.path] = member
        self._living[datacenter] = self._living.get(datacenter, 0) + member.is_living
        self._index_addresses(member.record)
        self._keep_peer(member)
        self.version += 1

    def remove(self, path: Path) -> None:
        member = self._by_path.pop(path)
        datacenter = member.node.datacenter
        del self._by_datacenter[datacenter][path]
        if not self._by_datacenter[datacenter]:
            del self._by_datacenter[datacenter]
        self._living[datacenter] -= member.is_living
        self._forget_addresses(member.record)
        self._drop_peer(path)
        self.version += 1

    def set_state(self, member: Member, state: MemberState, now: int) -> None:
        was_living = member.is_living
        member.state = state
        member.since = now
        datacenter = member.node.datacenter
        self._living[datacenter] = self._living.get(datacenter, 0) + member.is_living - was_living
        self._keep_peer(member)
        self.version += 1

    def set_record(self, member: Member, record: MemberRecord) -> None:
        self._forget_addresses(member.record)
        member.record = record
        self._index_addresses(record)
        self.version += 1

    def _index_addresses(self, record: MemberRecord) -> None:
        for address in (record.gossip, record.links, record.wan_gossip, record.wan_links):
            self._by_address[address] = record.node.path

    def _forget_addresses(self, record: MemberRecord) -> None:
        for address in (record.gossip, record.links, record.wan_gossip, record.wan_links):
            if self._by_address.get(address) == record.node.path:
                del self._by_address[address]

    def _keep_peer(self, member: Member) -> None:
        if member.node.datacenter != self.datacenter or member.path == self.own:
            return
        if not member.is_living:
            self._drop_peer(member.path)
        elif member.path not in self._peer_index:
            self._peer_index[member.path] = len(self.peers)
            self.peers.append(member)

    def _drop_peer(self, path: Path) -> None:
        index = self._peer_index.pop(path, None)
        if index is None:
            return
        last = self.peers.pop()
        if last.path != path:
            self.peers[index] = last
            self._peer_index[last.path] = index

    # ---- for readers

    def views(self, now: int) -> dict[Path, MemberView]:
        """Everybody, by path, in order of path."""
        version, at = self._viewed
        if version != self.version or now - at >= VIEW_AGE:
            self._viewed = (self.version, now)
            self._views = {path: _view(self._by_path[path], now) for path in sorted(self._by_path)}
        return self._views

    def view(self, path: Path, now: int) -> MemberView | None:
        """One of `views`, without building the others."""
        member = self._by_path.get(path)
        return None if member is None else _view(member, now)


def _view(member: Member, now: int) -> MemberView:
    record = member.record
    return MemberView(
        node=record.node,
        state=member.state,
        address=record.gossip,
        links=record.links,
        public_key=record.public_key,
        incarnation=record.incarnation,
        tags=record.tags,
        since=member.since,
        as_of=member.heard,
        restarting=member.restarting_until > now,
    )
