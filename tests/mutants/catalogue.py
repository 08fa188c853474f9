"""The mutants: for each invariant at least one bug that somebody could really write, and a short story that shows it.

To add one: an original that stands exactly once in its module, what it is replaced by, and the invariant that must find
it.  `python -m tests.mutants.plant NAME SCENARIO SEED` tries it by hand.
"""

from tests.mutants.balance import BALANCE_MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.runs import RUNS_MUTANTS
from tests.mutants.scaling import SCALING_MUTANTS
from tests.mutants.store import STORE_MUTANTS


def story(duration: int, *faults: str, fra: int = 5, wdc: int = 0, per_datacenter: int = 1) -> str:
    """A scenario without expectations; a fault is 'SECONDS VERB field=value ...'."""
    lines = ['title = "A mutant"', 'why = "To find it"', f'duration = "{duration}s"', "[datacenters.fra]"]
    lines += [f"nodes = {fra}"] + ([f"[datacenters.wdc]\nnodes = {wdc}"] if wdc else [])
    lines += ["[[services]]", 'name = "shop.web"', f"per_datacenter = {per_datacenter}"]
    for fault in faults:
        time, verb, *fields = fault.split()
        lines += ["[[at]]", f'time = "{time}s"', f'do = "{verb}"']
        lines += [f'{key} = "{value}"' for key, value in (field.split("=") for field in fields)]
    return "\n".join(lines)


KILLED = story(40, "15 kill target=fra/a3 for=15s")
STOPPED = story(90, "12 pause target=fra/a3 for=50s")
BETWEEN = story(60, "15 cut from=fra to=wdc for=30s", fra=3, wdc=3, per_datacenter=2)
ANNOUNCED = story(40, "15 stop target=fra/a3 for=5s")

_GUARD = """        if fact.node.path == self._members.own:
            return self._refute(sender, fact.node, fact.incarnation)
"""
_REFUTES_SUSPICION = f"""{_GUARD}        return self._beliefs.is_home(fact.node) and self._judge.on_suspect(fact)

    def on_dead(self, sender: NodeId, fact: Dead, repaired: bool) -> bool:
"""
_REFUTES_DEATH = f"""{_GUARD}        return self._judge.on_dead(sender, fact, repaired)
"""

_CATALOGUE = (
    # ---- membership
    Mutant(
        name="believes-its-own-death",
        why="An accusation is judged before it is asked whom it is about.",
        module="dislocate.core.membership.swim",
        original=_REFUTES_SUSPICION + _REFUTES_DEATH,
        planted=_REFUTES_SUSPICION.replace(_GUARD, "") + _REFUTES_DEATH.replace(_GUARD, ""),
        invariant="nobody declares itself dead",
        scenario=STOPPED,
    ),
    Mutant(
        name="a-timeout-is-a-refusal",
        why="Any connect that was not accepted is taken for a refused one.",
        module="dislocate.core.membership.refusal",
        original="if tried.outcome is ConnectOutcome.REFUSED:",
        planted="if tried.outcome is not ConnectOutcome.ACCEPTED:",
        invariant="refused means gone",
        scenario=story(60, "15 cut from=fra/a3 to=* for=40s"),
    ),
    Mutant(
        name="the-dead-are-never-greeted",
        why="memberlist's omission (memberlist#222): who was declared dead is never tried again.",
        module="dislocate.core.membership.greeting",
        original="candidates = missing + dead",
        planted="candidates = missing[:0] + dead[:0]",
        invariant="the living are not dead for long",
        scenario=story(120, "12 cut from=fra/a1 to=fra/a2 for=40s", fra=2),
    ),
    Mutant(
        name="one-silence-is-death",
        why="A failed probe condemns without the time of suspicion.",
        module="dislocate.core.membership.judge",
        original="self._suspect(member, member.record.incarnation, (self._members.own, *nacks))",
        planted="self._condemn(member, member.record.incarnation, (self._members.own, *nacks), refused=False)",
        invariant="silence is suspected first",
        scenario=STOPPED,
    ),
    Mutant(
        name="one-refusal-is-enough",
        why="Witnesses are asked and not waited for.",
        module="dislocate.core.membership.refusal",
        original="len(case.witnesses) >= needed if needed",
        planted="len(case.witnesses) >= 0 if needed",
        invariant="death is corroborated",
        scenario=KILLED,
    ),
    Mutant(
        name="forgets-its-own-incarnation",
        why="A refutation counts from what the accuser knows, and not from what was said before.",
        module="dislocate.core.membership.beliefs",
        original="incarnation=max(record.incarnation, incarnation) + 1,",
        planted="incarnation=incarnation + 1,",
        invariant="incarnations grow",
        scenario=story(70, "12 pause target=fra/a3 for=4s", "25 cut from=fra/a3 to=* for=30s"),
    ),
    Mutant(
        name="a-restart-says-goodbye",
        why="SIGTERM sends the farewell of `leave`.",
        module="dislocate.core.membership.swim",
        original="restarting = Restarting(self.record.node, self.record.incarnation, RESTART_GRACE)",
        planted="restarting = Left(self.record.node, self.record.incarnation)",
        invariant="only who leaves has left",
        scenario=ANNOUNCED,
    ),
    Mutant(
        name="an-announced-restart-is-judged",
        why="The end of the announced time is forgotten, only its beginning kept.",
        module="dislocate.core.membership.beliefs",
        original="member.restarting_until = self._out.now + within",
        planted="member.restarting_until = self._out.now",
        invariant="a planned restart is no death",
        scenario=ANNOUNCED,
    ),
    Mutant(
        name="the-brake-holds-nothing",
        why="The brake is told to people and not asked.",
        module="dislocate.core.membership.judge",
        original="        if not self._brake.engaged:\n",
        planted="        if not self._brake.engaged or accusers:\n",
        invariant="the brake holds removals",
        scenario=story(60, *(f"15 kill target=fra/a{number}" for number in range(4, 10)), fra=10),
    ),
    Mutant(
        name="rumours-are-told-for-ever",
        why="The limit is taken for milliseconds.",
        module="dislocate.core.rumors",
        original="        if tier < limit:\n",
        planted="        if tier < limit * 1_000_000:\n",
        invariant="rumour queues drain",
        scenario=story(90, fra=3),
    ),
    # ---- catalog
    Mutant(
        name="instances-of-a-start",
        why="Answers are kept by the start of an owner instead of by the owner.",
        module="dislocate.core.catalog.queries",
        original="service.instances[(owner.path, record.id)] = owner",
        planted='service.instances[(f"{owner.path}/{record.owner.boot}", record.id)] = owner',
        invariant="one answer an instance",
        scenario=story(60, "15 kill target=fra/shop.web#1 for=30s", "30 restart target=fra/a1", fra=3),
    ),
    Mutant(
        name="manifests-delete-nothing",
        why="What is absent from the newest manifest stays.",
        module="dislocate.core.catalog.records",
        original="gone = [r for r in self.records.values() if stamp_of(r) <= stamp and r.id not in listed]",
        planted="gone: list[InstanceRecord] = []",
        invariant="deregistered stays gone",
        scenario=story(
            70, "12 register target=fra/a2 service=db.orders", "20 deregister target=fra/db.orders#1", fra=3
        ),
    ),
    Mutant(
        name="answered-before-it-is-durable",
        why="The registration is acknowledged while the disk still writes.",
        module="dislocate.core.catalog.own",
        original="self._store(request_id, (record,), lambda: self._add(spec))",
        planted="self._add(spec); self._done(request_id); self._out.store((record,), sync=False)",
        invariant="an acknowledged registration survives",
        scenario=story(
            50,
            *(f"12 register target=fra/a{number} service=db.orders" for number in (1, 2, 3)),
            *(f"12 kill target=fra/a{number} for=5s" for number in (1, 2, 3)),
            fra=3,
        ),
    ),
    Mutant(
        name="unreachable-is-gone",
        why="Instances of a data center that cannot be reached are dropped, as from most load balancers.",
        module="dislocate.core.catalog.catalog",
        original="        records = [record for owner in self._owners.of(datacenter)",
        planted="        for owner in self._owners.of(datacenter) if not self.is_reachable(datacenter) else ():\n"
        '            self._owners._forget(owner, "unreachable")\n'
        "        records = [record for owner in self._owners.of(datacenter)",
        invariant="last known good is kept",
        scenario=BETWEEN,
    ),
    Mutant(
        name="unattended-for-ever",
        why="The minute is compared with the wrong constant.",
        module="dislocate.core.catalog.fate",
        original="if refused and elapsed < UNATTENDED_CRITICAL:\n        return Fate.UNATTENDED, UNATTENDED_CRITICAL",
        planted="if refused and elapsed < UNATTENDED_DROP:\n        return Fate.UNATTENDED, UNATTENDED_DROP",
        invariant="unattended has a timeline",
        scenario=story(100, "15 kill target=fra/a1", fra=3),
    ),
    Mutant(
        name="dropped-never",
        why="The dead of refusal are kept as long as those of silence.",
        module="dislocate.core.catalog.fate",
        original="end = UNATTENDED_DROP if refused else DEAD_RETENTION",
        planted="end = DEAD_RETENTION",
        invariant="unattended has a timeline",
        scenario=story(640, "15 kill target=fra/a1", fra=2),
        seeds=(1,),
    ),
    Mutant(
        name="every-change-wakes-everybody",
        why="One index for all services: churn in B wakes the watchers of A (consul#3890).",
        module="dislocate.core.catalog.queries",
        original="self._out.notify(ServiceChanged(name, self._watches.stamp(name)))",
        planted="for name in self._services:\n"
        "            self._out.notify(ServiceChanged(name, self._watches.stamp(name)))",
        invariant="only its changes move a service",
        scenario=story(40, "20 register target=fra/a1 service=db.orders", fra=3),
    ),
    Mutant(
        name="everybody-is-there",
        why="The loss of one data center is put down to all owners but oneself.",
        module="dislocate.core.catalog.catalog",
        original="        records = [record for owner in self._owners.of(datacenter)",
        planted="        for owner in self._owners.others() if not self.is_reachable(datacenter) else ():\n"
        '            owner.fate = type(owner.fate)("lost")\n'
        "        records = [record for owner in self._owners.of(datacenter)",
        invariant="home is unaffected by the WAN",
        scenario=story(100, "45 cut from=fra to=wdc for=40s", fra=3, wdc=3, per_datacenter=2),
    ),
    # ---- between data centers, and the whole
    Mutant(
        name="restarts-are-not-briefed",
        why="Relays leave all telling to gossip: who was started anew hears nothing until something changes.",
        module="dislocate.core.membership.wan",
        original="for report in self._reporting.current()] if members else []",
        planted="for report in self._reporting.current()] if not members else []",
        invariant="the undisturbed is reached",
        scenario=story(90, *(f"{14 + number} restart target=fra/a{number}" for number in range(1, 7)), fra=6, wdc=1),
    ),
    Mutant(
        name="ages-are-not-added",
        why="What a neighbour tells of a data center counts as heard now.",
        module="dislocate.core.membership.reach",
        original="datacenter, instant = row.datacenter, said_at - row.age",
        planted="datacenter, instant = row.datacenter, said_at",
        invariant="age is honest",
        scenario=BETWEEN,
    ),
    Mutant(
        name="the-dead-stay-in-the-ledger",
        why="Who came after a death has an entry less for ever, and no repair mends that.",
        module="dislocate.core.membership.beliefs",
        original='self._ledger.remove("m", member.path)\n        self._out.count("deaths_refused"',
        planted='self._out.count("deaths_refused"',
        invariant="views converge",
        scenario=story(190, "12 kill target=fra/a3", "20 restart target=fra/a2", fra=3),
    ),
)

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant for mutant in (*_CATALOGUE, *STORE_MUTANTS, *RUNS_MUTANTS, *BALANCE_MUTANTS, *SCALING_MUTANTS)
}

# What no invariant can see: a run that differs between two processes.
HASH_ORDER = Mutant(
    name="hash-order",
    why="Whom gossip tells first depends on the hash of a name, which is another one in every process.",
    module="dislocate.core.membership.gossip",
    original="for member in self._stream.sample(self._members.peers, GOSSIP_FANOUT):",
    planted="for member in sorted(self._stream.sample(self._members.peers, GOSSIP_FANOUT), key=lambda m: hash(m.path)):",
    invariant="",
    scenario=story(10, fra=5),
)
SET_ORDER = Mutant(
    name="set-order",
    why="Names are made unique by a set, and told in its order.",
    module="dislocate.core.membership.swim",
    original="told = dict.fromkeys(self._neighbours.around)",
    planted="told = dict.fromkeys(set(self._neighbours.around))",
    invariant="",
    scenario=ANNOUNCED,
)
CLOCK = Mutant(
    name="reads-a-clock",
    why="A module reads the time for itself.",
    module="dislocate.core.membership.gossip",
    original="from collections.abc import Callable\n",
    planted="import time\nfrom collections.abc import Callable\n",
    invariant="",
    scenario="",
)
MUTANTS |= {mutant.name: mutant for mutant in (HASH_ORDER, SET_ORDER)}
