"""Claims about members: who is alive, suspect, dead or gone, and which data centers are reached, as each observer says.

What really runs is the judge's own knowledge (`Observed.is_up`); claims that compare with it say so.
"""

from dislocate.core.boundary.values import MemberState
from dislocate.core.identity import Path
from sim.claims.view import ViewClaim, subjects
from sim.observed import Observed
from sim.scenario import Expect


def nobody_dead(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """No observer says of any of `of` that it is dead."""
    members = observed.members(observer)
    for path in subjects(observed, expect):
        if path in members and members[path].state is MemberState.DEAD:
            return f"{observer} says that {path} is dead"
    return None


def living_not_dead(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """No observer says of an agent that runs that it is dead."""
    members = observed.members(observer)
    for path in subjects(observed, expect):
        if path in members and members[path].state is MemberState.DEAD and observed.is_up(path):
            return f"{observer} says that {path} is dead, and it runs"
    return None


def _in_state(state: MemberState) -> ViewClaim:
    def holds(observed: Observed, observer: Path, expect: Expect) -> str | None:
        members = observed.members(observer)
        for path in subjects(observed, expect):
            if path == observer:
                continue
            found = members[path].state if path in members else None
            if found is not state:
                return f"{observer} says that {path} is {found.value if found else 'unknown'}"
        return None

    holds.__doc__ = f"Every observer says of each of `of` that it is {state.value}."
    return holds


def everyone_sees(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer says of each of `of` that runs that it is alive, and of no other that it is."""
    members = observed.members(observer)
    for path in subjects(observed, expect):
        is_seen = path in members and members[path].state is MemberState.ALIVE
        if is_seen != observed.is_up(path):
            return f"{observer} says that {path} is {'alive' if is_seen else 'not alive'}"
    return None


def converged(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer knows who runs, and reaches every data center that has one of these."""
    finding = everyone_sees(observed, observer, expect)
    if finding is not None:
        return finding
    own = observer.partition("/")[0]
    reached = observed.datacenters(observer)
    for name, paths in observed.layout.nodes.items():
        if (
            name != own
            and any(observed.is_up(path) for path in paths)
            and not (name in reached and reached[name].reachable)
        ):
            return f"{observer} does not reach {name}"
    return None


def _reachability(wanted: bool) -> ViewClaim:
    def holds(observed: Observed, observer: Path, expect: Expect) -> str | None:
        own = observer.partition("/")[0]
        chosen = observed.layout.datacenters(expect.of or "*")
        # From inside, the claim is about everybody else.
        asked = [name for name in observed.layout.nodes if name != own] if own in chosen else chosen
        seen = observed.datacenters(observer)
        for name in asked:
            is_reached = name in seen and seen[name].reachable
            if is_reached != wanted:
                return f"{observer} says that {name} is {'reachable' if is_reached else 'unreachable'}"
        return None

    return holds


MEMBER_CLAIMS: dict[str, ViewClaim] = {
    "nobody_dead": nobody_dead,
    "living_not_dead": living_not_dead,
    "alive": _in_state(MemberState.ALIVE),
    "suspect": _in_state(MemberState.SUSPECT),
    "dead": _in_state(MemberState.DEAD),
    "left": _in_state(MemberState.LEFT),
    "everyone_sees": everyone_sees,
    "converged": converged,
    "reachable": _reachability(True),
    "unreachable": _reachability(False),
}
