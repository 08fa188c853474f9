"""Invariants between data centers, and of the fleet as a whole (design, sections 3 and 4)."""

from dislocate.core.units import SECOND
from dislocate.linkmodel import Channel
from sim.convergence import ledgers_differ
from sim.invariants.monitor import Invariant
from sim.process import Machine
from sim.world import World

REACH_BOUND = 45 * SECOND  # a redial waits 30 s at most, and jitter
CONVERGENCE_BOUND = 120 * SECOND  # a brake holds removals for 60 s after the last change
AGE_SLACK = 4 * SECOND  # a cut comes up to a look later than the look before; what was under way then still arrives
START_BOUND = (
    5 * SECOND
)  # until somebody has told a new process the age of what it learned, its own start stands for it
PASSES = (Channel.UDP, Channel.LINKS)


def calm_since(world: World) -> int | None:
    """Since when nothing has been done to anybody; None while a fault lasts.  The dead stay dead: that is no fault."""
    if world.network.is_disturbed or any(_is_paused(machine) for machine in world.machines.values()):
        return None
    return max(world.last_fault, max((machine.calm_since for machine in world.machines.values()), default=0))


class UndisturbedIsReached(Invariant):
    """When nothing has been disturbed for `REACH_BOUND`, everybody reaches every data center in which somebody runs."""

    name = "the undisturbed is reached"

    def check(self) -> None:
        world = self.world
        since = calm_since(world)
        if since is None or world.now - since < REACH_BOUND:
            return
        running = dict.fromkeys(world.machines[path].datacenter for path in world.observers_up())
        for path in world.observers_up():
            seen = world.datacenters(path)
            for name in running:
                self.exercised += name != world.machines[path].datacenter
                if name not in seen or not seen[name].reachable:
                    raise self.violated(path, f"does not reach {name}, where somebody runs and nothing is disturbed")


class AgeIsHonest(Invariant):
    """Nobody claims to know a data center as of an instant after which nothing could come from there, directly or
    through a third."""

    name = "age is honest"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._heard: dict[tuple[str, str], int] = {}  # (whose, of whom): when last something could arrive

    def check(self) -> None:
        world, names = self.world, list(self.world.layout.nodes)
        for target in names:
            for origin in self._audible(target, names):
                self._heard[target, origin] = world.now
        for path in world.observers_up():
            process = world.machines[path].process
            if process is None or world.now - process.started < START_BOUND:
                continue
            own = world.machines[path].datacenter
            for name, seen in world.datacenters(path).items():
                cut_off_since = self._heard.get((own, name), 0)
                if cut_off_since == world.now:
                    continue
                self.exercised += 1
                if seen.as_of > cut_off_since + AGE_SLACK:
                    age = (world.now - seen.as_of) / SECOND
                    raise self.violated(path, f"knows {name} as of {age:.1f} s ago, and it is cut off for longer")

    def _audible(self, target: str, names: list[str]) -> dict[str, None]:
        """The data centers from which anything could get to `target`, over any number of others."""
        found = {target: None}
        waiting = [target]
        while waiting:
            here = waiting.pop()
            for origin in names:
                if origin not in found and self.world.network.passes(origin, here, PASSES):
                    found[origin] = None
                    waiting.append(origin)
        return found


class ViewsConverge(Invariant):
    """When nothing has been disturbed for `CONVERGENCE_BOUND`, the ledgers of all who run have been equal since: nothing
    is left to be repaired."""

    name = "views converge"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._equal = 0

    def check(self) -> None:
        world = self.world
        since = calm_since(world)
        words = None if since is None else ledgers_differ(world)
        if since is None or words is None:
            self._equal = world.now
            self.exercised += since is not None and world.now - since > CONVERGENCE_BOUND
            return
        if world.now - max(since, self._equal) > CONVERGENCE_BOUND:
            raise self.violated(world.observers_up()[0], words)


def _is_paused(machine: Machine) -> bool:
    return machine.process is not None and machine.process.is_paused


DATACENTERS: tuple[type[Invariant], ...] = (UndisturbedIsReached, AgeIsHonest, ViewsConverge)
