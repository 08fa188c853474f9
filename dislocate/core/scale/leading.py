"""Leading: who decides how many instances there are to be, on whichever server leads the store.

It looks each `SCALE_LOOK` at every policy, and proposes at most one decision at a time for each service and data center.
Invariant: all it knows of decisions is in the store; only what it watched of the load is its own, and begins anew when it
begins to lead, so that a new leader takes nothing away before it has watched for a whole window.  Two leaders at once do no
harm (`steps`).  A policy that cannot be read leaves its predecessor in force, and decides nothing where there was none.

How many is decided by `core.scaling`.  A server that does not lead ticks too while there are policies: nobody tells it when
it begins to lead.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from dislocate.core.boundary.runs import OVER, RunRecord
from dislocate.core.boundary.scaling import ProcessDriver, ScaleDecision, ScalePolicy
from dislocate.core.boundary.store import KeyChange
from dislocate.core.boundary.views import DatacenterView, InstanceView
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.runs.door import StoreDoor
from dislocate.core.runs.records import ACTIVE
from dislocate.core.runs.resources import COPIES
from dislocate.core.scale import records
from dislocate.core.scale.checking import decode_scale_policy
from dislocate.core.scale.facts import FlowsDoor, counts_of, facts_of, scaled_datacenters
from dislocate.core.scale.placing import placed
from dislocate.core.scale.steps import DecideScale, EndScale, ScaleStep
from dislocate.core.scaling import Action, Facts, Track, Verdict, Want, decide, wants
from dislocate.core.store.keys import Keys
from dislocate.core.tunables import SCALE_LOOK, SCALE_NODE_GONE, SCALE_POLICIES, SCALE_RETRY

REMOVED = "its policy was removed: what runs stays as it is"
NOT_NAMED = "its policy does not name this data center any more: what runs stays as it is"


class FleetDoor(Protocol):
    """The fleet as this node sees it."""

    def is_reachable(self, path: Path) -> bool: ...

    def instances(self, service: str) -> tuple[InstanceView, ...]: ...

    def matching(self, expression: str) -> tuple[Path, ...]: ...

    def datacenters(self) -> Mapping[str, DatacenterView]: ...

    def drained(self) -> tuple[str, ...]:
        """Data centers that are being drained."""
        ...


class ScaleTick(Timer, frozen=True):
    """Look at all policies."""

    number: int


class Scaled:
    """One service in one data center."""

    def __init__(self, since: int) -> None:
        self.track = Track(since)
        self.actions: tuple[Action, ...] = ()  # by this node's clock, oldest first
        self.held = ""  # why it is as it is, for who looks
        self._as_of = 0  # epoch of the newest of `actions`
        self._proposed: tuple[int, int] | None = None  # epoch, and when

    def read_past(self, keys: Keys, service: str, datacenter: str, epoch: int, now: int, unix: int) -> None:
        """The decisions of the past; nothing is decoded again unless there is a new one."""
        if epoch == self._as_of:
            return
        self._as_of = epoch
        found = (records.read(kv.value, ScaleDecision) for kv in keys.below(records.past_prefix(service, datacenter)))
        self.actions = tuple(
            Action(now - max(0, unix - one.at), one.before, one.desired) for one in found if one is not None
        )

    def may_propose(self, epoch: int, now: int) -> bool:
        return self._proposed is None or epoch > self._proposed[0] or now - self._proposed[1] >= SCALE_RETRY

    def proposed(self, epoch: int, now: int) -> None:
        self._proposed = (epoch, now)


class ScaleLeading:
    """All policies, while this agent leads."""

    def __init__(self, out: Outbox, store: StoreDoor, fleet: FleetDoor, flows: FlowsDoor) -> None:
        self._out = out
        self._store = store
        self._fleet = fleet
        self.flows = flows
        self._policies: dict[str, tuple[int, ScalePolicy]] = {}  # by service: as of which revision
        self._scaled: dict[tuple[str, str], Scaled] = {}
        self._gone: dict[Path, int] = {}  # nodes that have a share and are out of reach, since when
        self._tick = 0  # number of the timer that counts
        self._is_armed = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {ScaleTick: self._ticked}

    def start(self) -> None:
        self._store.listeners.append(self.changed)
        self._arm(self._out.now)

    def why(self, service: str, datacenter: str) -> str:
        """Why it is as it is, as the leader sees it now; empty elsewhere."""
        scaled = self._scaled.get((service, datacenter))
        return "" if scaled is None else scaled.held

    def changed(self, changes: Sequence[KeyChange]) -> None:
        if self._store.keys is None or self._is_armed:
            return
        if not changes or any(change.key.startswith((records.POLICIES, records.DECISIONS)) for change in changes):
            self._arm(self._out.now)

    def _arm(self, at: int) -> None:
        self._tick += 1
        self._is_armed = True
        self._out.arm(at, ScaleTick(self._tick))

    def _ticked(self, timer: ScaleTick) -> None:
        if timer.number != self._tick:
            return
        self._is_armed = False
        keys = self._store.keys
        if keys is None:
            self._forget()
            return
        services = self._services(keys)
        decided = self._decisions(keys)
        if not self._store.leads:
            self._forget()
        elif self._out.unix():  # decisions tell when they were made
            self._look(keys, services, decided)
        if services or decided:
            self._arm(self._out.now + SCALE_LOOK)

    def _forget(self) -> None:
        self._scaled.clear()
        self._policies.clear()
        self._gone.clear()

    # ---- what there is

    def _services(self, keys: Keys) -> list[str]:
        found: list[str] = []
        for kv in keys.below(records.POLICIES):
            if len(found) == SCALE_POLICIES:
                self._out.count("scale_policies_left_out")
                break
            found.append(kv.key.removeprefix(records.POLICIES))
        return found

    def _decisions(self, keys: Keys) -> dict[str, dict[str, ScaleDecision]]:
        """By service and data center."""
        found: dict[str, dict[str, ScaleDecision]] = {}
        for kv in keys.below(records.DECISIONS):
            service, datacenter = records.split_decision(kv.key)
            decision = records.read(kv.value, ScaleDecision)
            if service and decision is not None:
                found.setdefault(service, {})[datacenter] = decision
        return found

    def _policy(self, keys: Keys, service: str) -> ScalePolicy | None:
        """What is in force: the last one that could be read."""
        kv = keys.get(records.policy_key(service))
        if kv is None:
            self._policies.pop(service, None)
            return None
        known = self._policies.get(service)
        if known is not None and known[0] == kv.modified:
            return known[1]
        try:
            policy = decode_scale_policy(kv.value, service)
        except LocalError:
            self._out.count("scale_policies_unreadable")
            return None if known is None else known[1]
        self._policies[service] = (kv.modified, policy)
        return policy

    # ---- looking

    def _look(self, keys: Keys, services: Sequence[str], decided: Mapping[str, dict[str, ScaleDecision]]) -> None:
        frozen = self._frozen(keys)
        there = dict.fromkeys(services)
        for service in services:
            policy = self._policy(keys, service)
            if policy is not None:
                self._look_at(keys, service, policy, decided.get(service, {}), frozen)
        for service in decided:
            if service not in there:
                for datacenter in decided[service]:
                    self._end(keys, service, datacenter, REMOVED)
        self._scaled = {one: scaled for one, scaled in self._scaled.items() if one[0] in there or one[0] in decided}

    def _look_at(
        self,
        keys: Keys,
        service: str,
        policy: ScalePolicy,
        decided: Mapping[str, ScaleDecision],
        frozen: Sequence[str],
    ) -> None:
        now, instances = self._out.now, self._fleet.instances(service)
        nodes = self._nodes(policy)
        known = self._fleet.datacenters()
        named = scaled_datacenters(policy, decided, instances, tuple(nodes))
        # who named one too early, or misspelled it, gets nothing decided there: nobody could carry it out
        names = tuple(name for name in named if name in decided or (name in known and known[name].members))
        for datacenter in decided:
            if datacenter not in names:
                self._end(keys, service, datacenter, NOT_NAMED)
        flows = self.flows.of(service)
        facts, loads = [], {}
        for told in facts_of(policy, names, flows, instances, now):
            track = self._scaled.setdefault((service, told.datacenter), Scaled(now)).track
            one = track.believed(told)
            track.observe(now, one, policy.up_window)
            facts.append(one)
            loads[one.datacenter] = track.load()
        wanted = wants(policy, facts, loads)
        for one in facts:
            decision = decided.get(one.datacenter)
            self._decide(keys, service, policy, one, wanted.get(one.datacenter), decision, frozen, nodes)

    def _decide(
        self,
        keys: Keys,
        service: str,
        policy: ScalePolicy,
        facts: Facts,
        want: Want | None,
        decision: ScaleDecision | None,
        frozen: Sequence[str],
        nodes: Mapping[str, tuple[Path, ...]],
    ) -> None:
        now, unix, datacenter = self._out.now, self._out.unix(), facts.datacenter
        scaled = self._scaled[service, datacenter]
        last = decision.epoch if decision is not None else _last_epoch(keys, service, datacenter)
        scaled.read_past(keys, service, datacenter, last, now, unix)
        present = decision.desired if decision is not None else facts.running
        verdict = decide(policy, facts, scaled.track, want, present, actions=scaled.actions, frozen=frozen, now=now)
        scaled.held = "scaling is paused" if policy.paused else verdict.reason
        if policy.paused:
            return
        counts, gone = self._counts(service, policy, facts, verdict, decision, nodes.get(datacenter, ()))
        reason = why_decided(policy, verdict, decision, counts, gone)
        if reason and scaled.may_propose(last + 1, now):
            step = DecideScale(
                service,
                datacenter,
                last + 1,
                self._out.node.path,
                unix,
                verdict.desired,
                present,
                reason,
                policy.driver,
                counts,
            )
            self._propose(scaled, step)

    def _counts(
        self,
        service: str,
        policy: ScalePolicy,
        facts: Facts,
        verdict: Verdict,
        decision: ScaleDecision | None,
        nodes: Sequence[Path],
    ) -> tuple[dict[Path, int], tuple[Path, ...]]:
        """How many each node is to have, of driver `process`, and who is gone."""
        driver = policy.driver
        if not isinstance(driver, ProcessDriver):
            return {}, ()
        if decision is not None and isinstance(decision.driver, ProcessDriver):
            before = decision.nodes
        else:
            before = counts_of(policy, self._fleet.instances(service), facts.datacenter)
        gone = self._who_is_gone((*before, *nodes))
        return placed(verdict.desired, nodes, before, driver.per_node or COPIES, gone), tuple(
            node for node in gone if before.get(node)
        )

    def _who_is_gone(self, nodes: Sequence[Path]) -> tuple[Path, ...]:
        """Out of reach for so long that their instances are not waited for; an agent that restarts is back before."""
        now = self._out.now
        for node in nodes:
            if self._fleet.is_reachable(node):
                self._gone.pop(node, None)
            else:
                self._gone.setdefault(node, now)
        return tuple(node for node in dict.fromkeys(nodes) if now - self._gone.get(node, now) >= SCALE_NODE_GONE)

    def _nodes(self, policy: ScalePolicy) -> dict[str, tuple[Path, ...]]:
        """By data center: the nodes of driver `process`."""
        if not isinstance(policy.driver, ProcessDriver):
            return {}
        found: dict[str, tuple[Path, ...]] = {}
        for node in self._fleet.matching(policy.driver.targets):
            datacenter = node.partition("/")[0]
            found[datacenter] = (*found.get(datacenter, ()), node)
        return found

    def _frozen(self, keys: Keys) -> tuple[str, ...]:
        """What keeps everything from shrinking."""
        words = [f"{name} is being drained" for name in self._fleet.drained()]
        for name, view in sorted(self._fleet.datacenters().items()):
            if view.members and not (view.reachable and view.hears):
                words.append(f"{name} is out of reach")
        for kv in keys.below(ACTIVE):
            record = records.read(kv.value, RunRecord)
            if record is not None and record.state not in OVER:
                words.append(f"config run {record.id} ({record.name}) is under way")
        return tuple(words)

    # ---- proposing

    def _end(self, keys: Keys, service: str, datacenter: str, reason: str) -> None:
        scaled = self._scaled.setdefault((service, datacenter), Scaled(self._out.now))
        epoch = _last_epoch(keys, service, datacenter) + 1
        if scaled.may_propose(epoch, self._out.now):
            self._propose(scaled, EndScale(service, datacenter, epoch, self._out.node.path, self._out.unix(), reason))

    def _propose(self, scaled: Scaled, step: ScaleStep) -> None:
        if self._store.propose(step):
            scaled.proposed(step.epoch, self._out.now)
            self._out.count("scale_steps")


def why_decided(
    policy: ScalePolicy,
    verdict: Verdict,
    decision: ScaleDecision | None,
    counts: Mapping[Path, int],
    gone: Sequence[Path],
) -> str:
    """Why there is something to decide; empty: there is not."""
    room = sum(counts.values())
    if verdict.changes and isinstance(policy.driver, ProcessDriver) and room < verdict.desired:
        return f"{verdict.reason}; its nodes have room for {room}"
    if verdict.changes:
        return verdict.reason
    if decision is None:
        return f"scaled from now on: {verdict.reason}"
    if policy.driver != decision.driver:
        return "its driver was changed"
    if gone and counts != decision.nodes:
        return f"{', '.join(gone)} is out of reach: its instances are started elsewhere"
    short = sum(counts.values()) > sum(decision.nodes.values())
    return "there is room for those that had none" if short else ""


def _last_epoch(keys: Keys, service: str, datacenter: str) -> int:
    last = 0
    for kv in keys.below(records.past_prefix(service, datacenter)):
        last = int(kv.key.rpartition("/")[2])
    return last
