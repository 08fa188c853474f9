"""Relays: which members of a data center hold its links to the others.

Rendezvous hashing over living members: everybody who sees the same members names the same relays, without an election,
and a death replaces only the dead one.  Views may differ for a while; nothing may depend on their being equal.

Cost: O(1) for a member that appears; O(members) only when a relay goes away and its data center is asked for next.
"""

from dislocate.core.catalog.ledger import fingerprint
from dislocate.core.identity import Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.tunables import RELAYS


def relay_rank(path: Path) -> int:
    """Who ranks highest is relay first.  Of the path alone: a restart keeps its place."""
    return fingerprint(f"relay/{path}")


class Relays:
    """The relays of every data center, as this node sees them."""

    def __init__(self, members: Members) -> None:
        self._members = members
        self._best: dict[str, list[tuple[int, Path]]] = {}  # highest rank first; absent: to be looked up again
        self._paths: dict[str, tuple[Path, ...]] = {}  # the same without ranks: it is asked for far more often

    def of(self, datacenter: str) -> tuple[Path, ...]:
        """At most RELAYS paths of living members, the first relay first."""
        paths = self._paths.get(datacenter)
        if paths is not None:
            return paths
        best = self._best.get(datacenter)
        if best is None:
            living = (member for member in self._members.of(datacenter).values() if member.is_living)
            best = sorted(((relay_rank(member.path), member.path) for member in living), reverse=True)[:RELAYS]
            self._best[datacenter] = best
        self._paths[datacenter] = paths = tuple(path for _, path in best)
        return paths

    def member_changed(self, member: Member) -> None:
        """`member` appeared, died or came back."""
        datacenter = member.node.datacenter
        best = self._best.get(datacenter)
        if best is None:
            return
        entry = (relay_rank(member.path), member.path)
        if member.is_living:
            if entry not in best:
                best.append(entry)
                best.sort(reverse=True)
                del best[RELAYS:]
                self._paths.pop(datacenter, None)
        elif entry in best:
            del self._best[datacenter]
            self._paths.pop(datacenter, None)
