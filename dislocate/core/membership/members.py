"""The table of members, of this data center and of the others: one entry a path, one owner.

Only `swim.Swim` writes it.  Everybody else reads; `views()` is immutable and rebuilt only after a change.
"""

from collections.abc import Iterator

from dislocate.core.boundary.values import MemberState
from dislocate.core.boundary.views import MemberView
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.messages import MemberRecord

LIVING = (MemberState.ALIVE, MemberState.SUSPECT)


class Member:
    """What is believed of one member."""

    __slots__ = ("heard", "path", "record", "refused", "restarting_until", "since", "state")

    def __init__(self, record: MemberRecord, state: MemberState, now: int) -> None:
        self.record = record
        self.path = record.node.path
        self.state = state
        self.since = now  # when this node learned of the state
        self.heard = now  # when anything last confirmed that it lives
        self.refused = False  # dead because its host answered that no agent is there
        self.restarting_until = 0

    @property
    def node(self) -> NodeId:
        return self.record.node

    @property
    def is_living(self) -> bool:
        return self.state in LIVING


class Members:
    """All members by path."""

    def __init__(self, datacenter: str) -> None:
        self.datacenter = datacenter
        self.version = 0  # grows with every change that a view would show
        self._by_path: dict[Path, Member] = {}
        self._by_datacenter: dict[str, dict[Path, Member]] = {}
        self._living: dict[str, int] = {}
        self._views: tuple[int, dict[Path, MemberView]] = (-1, {})

    def __len__(self) -> int:
        return len(self._by_path)

    def __iter__(self) -> Iterator[Member]:
        return iter(self._by_path.values())

    def get(self, path: Path) -> Member | None:
        return self._by_path.get(path)

    def datacenters(self) -> tuple[str, ...]:
        """Names of the data centers that have a known member, sorted."""
        return tuple(sorted(self._by_datacenter))

    def of(self, datacenter: str) -> dict[Path, Member]:
        """The members of one data center, in the order in which they became known.  Not to be changed."""
        return self._by_datacenter.get(datacenter, {})

    def living(self, datacenter: str) -> int:
        """How many of a data center are alive or suspect."""
        return self._living.get(datacenter, 0)

    # ---- for `swim` alone

    def add(self, member: Member) -> None:
        datacenter = member.node.datacenter
        self._by_path[member.path] = member
        self._by_datacenter.setdefault(datacenter, {})[member.path] = member
        if member.is_living:
            self._living[datacenter] = self._living.get(datacenter, 0) + 1
        self.version += 1

    def remove(self, path: Path) -> None:
        member = self._by_path.pop(path)
        datacenter = member.node.datacenter
        del self._by_datacenter[datacenter][path]
        if not self._by_datacenter[datacenter]:
            del self._by_datacenter[datacenter]
        if member.is_living:
            self._living[datacenter] -= 1
        self.version += 1

    def set_state(self, member: Member, state: MemberState, now: int) -> None:
        was_living = member.is_living
        member.state = state
        member.since = now
        datacenter = member.node.datacenter
        self._living[datacenter] = self._living.get(datacenter, 0) + member.is_living - was_living
        self.version += 1

    def set_record(self, member: Member, record: MemberRecord) -> None:
        member.record = record
        self.version += 1

    def views(self, now: int) -> dict[Path, MemberView]:
        """Everybody, by path, in order of path."""
        if self._views[0] != self.version:
            self._views = (self.version, {path: _view(self._by_path[path], now) for path in sorted(self._by_path)})
        return self._views[1]

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
