"""Invariants of scaling (design, section 7): decisions follow each other, nobody takes away in the dark, each
is carried out once, and what runs in the end is what was decided.

Decisions are read from the log as the servers agreed on it, what was done from the hosts themselves.
"""

from typing import Any

import msgspec

from dislocate.core.boundary.requests import Done
from dislocate.core.boundary.scaling import ProcessDriver, ScalePolicy
from dislocate.core.identity import Path
from dislocate.core.scale.records import policy_key
from dislocate.core.scale.steps import DecideScale, EndScale
from dislocate.core.units import HOUR, SECOND
from sim.invariants.monitor import Invariant
from sim.world import World

DARK = 5 * SECOND  # that a leader has known of a cut for: a decision is on its way for less
SETTLED = 40 * SECOND  # after a decision and the last fault: boots, drains and the tries in between


class Decided(msgspec.Struct, frozen=True):
    """A decision that the log took."""

    at: int
    step: DecideScale
    policy: ScalePolicy | None  # as it stood then


class ScaleInvariant(Invariant):
    """One that is idle in a scenario without policies of scaling."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.decided: dict[tuple[str, str], list[Decided]] = {}
        self.last: dict[tuple[str, str], int] = {}  # epochs
        self.is_needed = bool(world.scenario.scales)
        if self.is_needed:
            reference = world.wiretap.reference
            before = reference.on_scale

            def applied(body: Any, result: Any) -> None:
                before(body, result)
                self._applied(body, result)

            reference.on_scale = applied

    def _applied(self, body: Any, result: Any) -> None:
        if not isinstance(body, DecideScale | EndScale) or not isinstance(result, Done):
            return
        key = (body.service, body.datacenter)
        if isinstance(body, DecideScale):
            decided = Decided(self.world.now, body, self._policy(body.service))
            self.judge(decided)
            self.decided.setdefault(key, []).append(decided)
        else:
            self.ended(body)
            self.decided.pop(key, None)
        self.last[key] = body.epoch

    def _policy(self, service: str) -> ScalePolicy | None:
        kv = self.world.wiretap.reference.keys.get(policy_key(service))
        return None if kv is None else msgspec.json.decode(kv.value, type=ScalePolicy)

    def judge(self, decided: Decided) -> None:
        """The log took this one; it is not among those of before yet."""

    def ended(self, step: EndScale) -> None:
        """Nobody scales it any more."""

    def before(self, decided: Decided) -> list[Decided]:
        return self.decided.get((decided.step.service, decided.step.datacenter), [])


class SizesFollow(ScaleInvariant):
    """Each decision about a service in a data center has the next epoch, goes on from the number of the last one, and stays
    within the bounds of its policy."""

    name = "sizes follow each other"

    def judge(self, decided: Decided) -> None:
        self.exercised += 1
        step, policy = decided.step, decided.policy
        last = self.last.get((step.service, step.datacenter), 0)
        if step.epoch != last + 1:
            raise self.violated(step.by, f"decided epoch {step.epoch} of {step.service} after {last}")
        before = self.before(decided)
        if before and step.before != before[-1].step.desired:
            words = f"went on from {step.before} {step.service}, and {before[-1].step.desired} were decided"
            raise self.violated(step.by, words)
        if policy is not None and not policy.min <= step.desired <= policy.max:
            raise self.violated(step.by, f"wants {step.desired} {step.service}, not {policy.min} to {policy.max}")


class NothingInTheDark(ScaleInvariant):
    """No leader takes instances away while it has been cut off from a data center for a while, or one is being drained."""

    name = "nothing is taken away in the dark"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._dark: dict[Path, int] = {}  # by agent: since when something is out of its reach

    def check(self) -> None:
        if not self.is_needed:
            return
        for path in self.world.observers_up():
            views = self.world.datacenters(path).values()
            if any(view.members and not (view.reachable and view.hears) for view in views):
                self._dark.setdefault(path, self.world.now)
            else:
                self._dark.pop(path, None)

    def judge(self, decided: Decided) -> None:
        step, policy = decided.step, decided.policy
        if step.desired >= step.before or (policy is not None and step.before > policy.max):
            return
        self.exercised += 1
        since = self._dark.get(step.by)
        if since is not None and self.world.now - since >= DARK and self.world.is_up(step.by):
            raise self.violated(step.by, f"went from {step.before} to {step.desired} {step.service} while cut off")


class ReversalsAreBudgeted(ScaleInvariant):
    """Within an hour no size shrinks once it has turned as often as its policy allows."""

    name = "reversals are budgeted"

    def judge(self, decided: Decided) -> None:
        step, policy = decided.step, decided.policy
        if step.desired >= step.before or policy is None or step.before > policy.max:
            return
        self.exercised += 1
        turns, direction = 0, 0
        for one in (*self.before(decided), decided):
            if decided.at - one.at >= HOUR:
                continue
            now = (one.step.desired > one.step.before) - (one.step.desired < one.step.before)
            turns += bool(now and direction and now != direction)
            direction = now or direction
        if turns > policy.reversals:
            raise self.violated(
                step.by, f"{step.service} turned {turns} times within an hour, and {policy.reversals} may be"
            )


class ToldOnce(ScaleInvariant):
    """What a command or a webhook was told of a decision, and took, it is not told again."""

    name = "a driver is told once"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._seen = 0
        self._taken: dict[tuple[str, str, int], Path] = {}

    def check(self) -> None:
        told = self.world.sizes.told
        for one in told[self._seen :]:
            self.exercised += 1
            key = (one.service, one.node.partition("/")[0], one.epoch)
            if key in self._taken:
                raise self.violated(one.node, f"told epoch {one.epoch} of {one.service}, as {self._taken[key]} had")
            if not one.failed:
                self._taken[key] = one.node
        self._seen = len(told)


class ProcessesAreAsDecided(ScaleInvariant):
    """When nothing was decided or disturbed for a while, each node runs as many processes as it is to."""

    name = "processes are as decided"

    def check(self) -> None:
        for (service, datacenter), decisions in self.decided.items():
            latest = decisions[-1]
            if not isinstance(latest.step.driver, ProcessDriver):
                continue
            boot = self.world.sizes.boots.get(service, 0)
            calm = self.world.now - max(latest.at, self.world.last_fault)
            if calm < SETTLED + 2 * boot + latest.step.driver.drain_for:
                continue
            for node, count in latest.step.nodes.items():
                machine = self.world.machines[node]
                if machine.process is None or machine.host.is_failing:
                    continue
                self.exercised += 1
                found = len(self.world.sizes.present(machine, service))
                if found != count:
                    raise self.violated(node, f"runs {found} {service} in {datacenter}, and {count} were decided")


SCALING: tuple[type[Invariant], ...] = (
    SizesFollow,
    NothingInTheDark,
    ReversalsAreBudgeted,
    ToldOnce,
    ProcessesAreAsDecided,
)
