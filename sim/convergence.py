"""Convergence: what still differs between agents that should agree.

Read from outside, by the judge's own knowledge of who runs; the agents know nothing of it.  Used by the invariant that
views converge, and by tests that end every story, however wild, with a fleet that agrees.
"""

from collections import Counter

from dislocate.core.boundary.values import MemberState
from dislocate.core.identity import Path
from sim.world import World


def disagreement(world: World) -> str | None:
    """Why the agents that run do not agree about everything, None when they do."""
    return members_differ(world) or datacenters_differ(world) or ledgers_differ(world) or answers_differ(world)


def members_differ(world: World) -> str | None:
    """Everybody sees everybody who runs as alive, by its newest record, and nobody else."""
    up = world.observers_up()
    own = {path: world.node(path).member(path) for path in up}
    for observer in up:
        members = world.members(observer)
        for path, true in own.items():
            seen = members.get(path)
            if seen is None or true is None or seen.state is not MemberState.ALIVE:
                return f"{observer} says that {path} is {'unknown' if seen is None else seen.state.value}"
            if (seen.node, seen.incarnation) != (true.node, true.incarnation):
                return f"{observer} knows {seen.node} by incarnation {seen.incarnation}, not {true.incarnation}"
        for path, seen in members.items():
            if path not in own and seen.state in (MemberState.ALIVE, MemberState.SUSPECT):
                return f"{observer} says that {path} is {seen.state.value}, and it does not run"
    return None


def datacenters_differ(world: World) -> str | None:
    """Every data center in which somebody runs is reached by everybody."""
    wanted = dict.fromkeys(world.machines[path].datacenter for path in world.observers_up())
    for observer in world.observers_up():
        seen = world.datacenters(observer)
        for name in wanted:
            if name not in seen or not seen[name].reachable:
                return f"{observer} does not reach {name}"
    return None


def ledgers_differ(world: World) -> str | None:
    """All digests are equal: nothing is left to be repaired."""
    digests = Counter(world.node(path).digest for path in world.observers_up())
    if len(digests) <= 1:
        return None
    common = digests.most_common(1)[0][0]
    others = [path for path in world.observers_up() if world.node(path).digest != common]
    return f"the ledgers of {', '.join(others)} differ from those of the others"


def answers_differ(world: World) -> str | None:
    """Everybody answers with the same instances of agents that run, in the same state.

    Of an agent that is gone, who never heard of an instance before will not hear of it after."""
    up = world.observers_up()
    running = dict.fromkeys(up)
    answers = {
        path: {key: status for key, status in answers_of(world, path).items() if key[0] in running} for path in up
    }
    for path in up:
        if answers[path] != answers[up[0]]:
            odd = sorted(set(answers[path].items()) ^ set(answers[up[0]].items()))
            owner, instance_id = odd[0][0]
            return f"{path} and {up[0]} answer otherwise for {owner}/{instance_id}"
    return None


def answers_of(world: World, path: Path) -> dict[tuple[Path, str], str]:
    """The status of every instance that one agent answers with, by (owner, id)."""
    catalog = world.node(path).catalog
    views = [catalog.service(name) for name in catalog.names()]
    return {(one.node, one.id): one.status.value for view in views if view is not None for one in view.instances}
