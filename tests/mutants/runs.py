"""The mutants of config runs: what would change a host without leave, twice, too many at once, or behind the audit's back."""

from tests.mutants.mutant import Mutant

SERVERS = ("fra/a2", "fra/a3", "fra/a4")  # so that a1, which goes first, may be away without a vote missing

FILE = """
kind = "file"
path = "/etc/shop.conf"
content = "color = blue"
notify = ["reload"]
"""
RELOAD = """
kind = "command"
id = "reload"
run = ["sleep", "0.2"]
only_notified = true
"""
ONCE = 'kind = "command"\nid = "migrate"\nrun = ["sleep", "4"]\nonce = true'
BUILD = 'kind = "command"\nid = "build"\nrun = ["sleep", "4"]\ncreates = "/opt/shop"\nnotify = ["reload"]'
FALSE = 'kind = "command"\nid = "breaks"\nrun = ["false"]\nonce = true'

TOGETHER = 'canary = 0\nbatch = "100%"\nsoak = "1s"\nsettle = "0s"'
ONE_BY_ONE = 'canary = 0\nbatch = 1\nsoak = "1s"\nsettle = "0s"'


def rollout(
    duration: int,
    *faults: str,
    resources: tuple[str, ...] = (FILE, RELOAD),
    strategy: str = TOGETHER,
    targets: str = "*",
    wdc: int = 0,
    services: str = "",
    then: int = 0,
) -> str:
    """A run at 8 s over four agents and `wdc` more; a fault is 'SECONDS VERB field=value ...'; `then`: another run at that
    time, of the same resources."""
    listed = ", ".join(f'"{path}"' for path in SERVERS)
    lines = ['title = "A mutant"', 'why = "To find it"', f'duration = "{duration}s"', f"servers = [{listed}]"]
    lines += ["[datacenters.fra]", "nodes = 4"] + (["[datacenters.wdc]", f"nodes = {wdc}"] if wdc else [])
    lines += [services] if services else []
    for name, time in (("shop", 8), ("other", then)) if then else (("shop", 8),):
        lines += ["[[runs]]", f'time = "{time}s"', "[runs.spec]", f'name = "{name}"', f'targets = "{targets}"']
        lines += ["[runs.spec.strategy]", strategy]
        for resource in resources:
            lines += ["[[runs.spec.resources]]", resource]
    for fault in faults:
        time, verb, *fields = fault.split()
        lines += ["[[at]]", f'time = "{time}s"', f'do = "{verb}"']
        lines += [_field(*field.split("=")) for field in fields]
    return "\n".join(lines)


def _field(name: str, value: str) -> str:
    return f"{name} = {value}" if name == "factor" else f'{name} = "{value}"'


PLAIN = rollout(14)
BROKEN = rollout(72, resources=(FILE, RELOAD, FALSE))

RUNS_MUTANTS = (
    Mutant(
        name="begins-without-asking",
        why="The record that prompts a node is taken for its grant.",
        module="dislocate.core.runs.agent.worker",
        original="self._store.ask(AskGrant(record.id, node.path, record.epoch, ask), then)",
        planted="then(Granted(record.id, record.epoch, ask, record.direction))",
        invariant="nothing without a grant",
        scenario=PLAIN,
    ),
    Mutant(
        name="once-is-looked-at",
        why="After a crash a command that is run once is judged as any other: it does not seem to be done.",
        module="dislocate.core.runs.agent.actions",
        original="    if is_once(work.resource):\n        return Settle(",
        planted="    if is_once(work.resource) and look is not None and not look.result:\n        return Settle(",
        invariant="no effect twice",
        scenario=rollout(
            24, "11.8 kill target=fra/a1 for=2s", resources=(ONCE,), strategy=f"{TOGETHER}\nmax_failed = 1"
        ),
    ),
    Mutant(
        name="one-may-always-fail",
        why="A budget of nothing looks like a mistake, so it is one at least.",
        module="dislocate.core.runs.ledger.starting",
        original="budget=amount(spec.strategy.max_failed, len(plan.targets)),",
        planted="budget=max(1, amount(spec.strategy.max_failed, len(plan.targets))),",
        invariant="no grant over the budget",
        scenario=rollout(20, "7 task_fail target=fra/a1", strategy=f'{ONE_BY_ONE}\non_failure = "pause"'),
    ),
    Mutant(
        name="back-is-granted",
        why="Who is back goes on where it was, whatever batch that was in.",
        module="dislocate.core.runs.control.rollout",
        original='Mark(node, NodeState.PENDING, "within reach again")',
        planted='Mark(node, NodeState.GRANTED, "within reach again")',
        invariant="one batch at a time",
        scenario=rollout(
            48,
            "7.9 vanish target=fra/a1 for=22.1s",
            resources=(ONCE.replace('"4"', '"9"'),),
            strategy=f"{ONE_BY_ONE}\nmax_failed = 1",
        ),
    ),
    Mutant(
        name="tried-again-at-once",
        why="What is to be tried again comes before the batch, also where its own batch is a later one.",
        module="dislocate.core.runs.ledger.steering",
        original="retries = moving.record.retries if moving.is_ahead(node) else (*moving.record.retries, node)",
        planted="retries = (*moving.record.retries, node)",
        invariant="no batch before its turn",
        scenario=rollout(
            20,
            "8.5 steer run=shop verb=skip target=fra/a4",
            "8.6 steer run=shop verb=retry target=fra/a4",
            strategy=ONE_BY_ONE,
        ),
    ),
    Mutant(
        name="a-pause-holds-nobody-back",
        why="Only what is over refuses to begin.",
        module="dislocate.core.runs.ledger.granting",
        original="may_begin = record.state in (RunState.RUNNING, RunState.REVERTING) or is_in_flight",
        planted="may_begin = record.hold is not None or record.state in (RunState.RUNNING, RunState.REVERTING)",
        invariant="nothing begins while held",
        scenario=rollout(
            14,
            "7.9 slow from=fra to=wdc factor=12",
            "9.9 steer run=shop verb=pause",  # the asking is on its way
            targets="dc:wdc",
            wdc=1,
        ),
        seeds=(2, 3),
    ),
    Mutant(
        name="takes-up-two",
        why="The next run is looked for while the host still does what an aborted one began.",
        module="dislocate.core.runs.agent.worker",
        original="""        if self._carrying is not None or self._asking is not None:
            return
        self._tend_left(active)
        for record in active:
            if self._asking is None and self._carrying is None and self._wants(record):
""",
        planted="""        if self._asking is not None:
            return
        if self._carrying is None:
            self._tend_left(active)
        for record in active:
            if self._asking is None and self._wants(record):
""",
        invariant="one run on a node",
        scenario=rollout(20, "9 steer run=shop verb=abort", resources=(BUILD, RELOAD), then=10),
    ),
    Mutant(
        name="the-floor-is-not-asked",
        why="A batch is opened with all who are within reach.",
        module="dislocate.core.runs.control.rollout",
        original="    nodes = _opening(case, wanted).nodes\n",
        planted="    nodes = tuple(wanted)\n",
        invariant="the floor is kept",
        scenario=rollout(
            20,
            strategy=f'{TOGETHER}\nfloor = {{ "shop.web" = 0.5 }}',
            services='[[services]]\nname = "shop.web"\nper_datacenter = 4\ninterval = "1s"\ntimeout = "1s"',
        ),
    ),
    Mutant(
        name="the-version-counts-batches",
        why="What does not move on to another batch is no new version.",
        module="dislocate.core.runs.ledger.draft",
        original="version=self.before.version + 1,",
        planted="version=max(self.before.version, self.record.batch + 1),",
        invariant="runs go forward",
        scenario=rollout(20, "9 steer run=shop verb=pause", resources=(BUILD, RELOAD)),
    ),
    Mutant(
        name="forgets-what-it-began",
        why="An entry that has its result is written without that it was begun, so that nothing is there to revert.",
        module="dislocate.core.runs.agent.journal",
        original="        begun=begun,\n",
        planted="",
        invariant="hosts are as the log says",
        scenario=BROKEN,
    ),
    Mutant(
        name="found-done-is-no-change",
        why="What had been done when the agent died counts as being as it should be, and notifies nobody.",
        module="dislocate.core.runs.agent.actions",
        original="words = TaskOutcome(TaskResult.CHANGED, intent.before,",
        planted="words = TaskOutcome(TaskResult.SAME, intent.before,",
        invariant="a handler that is owed runs",
        scenario=rollout(24, "11.8 kill target=fra/a1 for=2s", resources=(BUILD, RELOAD)),
    ),
    Mutant(
        name="does-not-look-again",
        why="A step of which the end is not known is simply done: it is as it should be, so it changed nothing.",
        module="dislocate.core.runs.agent.actions",
        original="""    if look is None:
        return Look(work)
    reverts = """,
        planted="""    if look is None:
        return Carry(work)
    reverts = """,
        invariant="a handler that is owed runs",
        scenario=rollout(24, "11.8 kill target=fra/a1 for=2s", resources=(BUILD, RELOAD)),
    ),
    Mutant(
        name="reports-before-it-is-written",
        why="The report leaves while the disk still writes the end of the journal.",
        module="dislocate.core.runs.agent.carrying",
        original="        self._writing.write((self._journals.put(self.journal),), lambda: self._over(self.journal))\n",
        planted="        self._writing.write((self._journals.put(self.journal),), lambda: None)\n"
        "        self._over(self.journal)\n",
        invariant="reports are durable",
        scenario=rollout(14, "5 disk_slow target=fra/a1 factor=100"),
    ),
    Mutant(
        name="old-grants-are-good",
        why="Asking is not fenced by the epoch: the answer is under the present one, and the task under the old.",
        module="dislocate.core.runs.ledger.granting",
        original='    claim(body.epoch == record.epoch, "epoch", fenced)\n',
        planted='    claim(body.epoch <= record.epoch, "epoch", fenced)\n',
        invariant="no report is lost",
        scenario=rollout(
            84,
            "7.9 slow from=fra to=wdc factor=12 for=6s",
            "9.8 steer run=shop verb=skip target=wdc/a1",  # the asking is on its way
            "9.9 steer run=shop verb=retry target=wdc/a1",
            resources=(BUILD, RELOAD),
            strategy=f'{TOGETHER}\nwaves = ["wdc"]',
            wdc=1,
        ),
        seeds=(2, 3),
    ),
    Mutant(
        name="the-end-is-not-audited",
        why="The entry about a step is made where its verb is known, and one has none.",
        module="dislocate.core.runs.ledger.stepping",
        original='    return "finish"\n',
        planted='    return ""\n',
        invariant="what happened is audited",
        scenario=PLAIN,
    ),
)
