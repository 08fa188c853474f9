"""The mutants of scaling: what would flap, starve, overrun its limits, or tell somebody twice."""

from tests.mutants.mutant import Mutant

PROCESS = 'kind = "process"\nrun = ["serve"]\ndrain_for = "1s"'
COMMAND = 'kind = "command"\nrun = ["resize", "{desired}"]'


def sized(duration: int, *faults: str, policy: str = "", driver: str = PROCESS, wdc: int = 0, until: int = 38) -> str:
    """A service of which an instance carries 10 requests a second; callers offer 60 from 18 s to `until`, and 5 all the time.
    A fault is 'SECONDS VERB field=value ...'."""
    lines = ['title = "A mutant"', 'why = "To find it"', f'duration = "{duration}s"']
    lines += ['servers = ["fra/a1", "fra/a2", "fra/a3"]', "[datacenters.fra]", "nodes = 3"]
    lines += ["[datacenters.wdc]", f"nodes = {wdc}"] if wdc else []
    lines += ["[[services]]", 'name = "shop.web"', 'nodes = ["fra/a1"]', 'interval = "1s"', 'timeout = "1s"']
    lines += ["workers = 1", 'takes = "10ms"']
    lines += ["[[scales]]", 'service = "shop.web"', 'time = "13s"', "[scales.policy]", "min = 1", "capacity = 10.0"]
    lines += ['down_window = "10s"', 'pause = "0s"', 'datacenters = ["fra"]', policy]
    lines += ["[scales.policy.driver]", driver]
    for name, rate, begin, end in (("few", 5, 6, duration), ("many", 60, 18, until)):
        lines += ["[[workloads]]", f'name = "{name}"', 'kind = "requests"', 'service = "shop.web"', 'at = "fra"']
        lines += ["clients = 1", f"rate = {rate}.0", f'from = "{begin}s"', f'until = "{end}s"']
    for fault in faults:
        time, verb, *fields = fault.split()
        lines += ["[[at]]", f'time = "{time}s"', f'do = "{verb}"']
        lines += [f'{name} = "{value}"' for name, value in (field.split("=") for field in fields)]
    return "\n".join(lines)


SCALING_MUTANTS = (
    Mutant(
        name="the-most-is-forgotten",
        why="Growth is limited by its pace, and not by what the operator allows.",
        module="dislocate.core.scaling",
        original="    desired = min(wanted, policy.max, max(pace, present))\n",
        planted="    desired = min(wanted, max(pace, present))\n",
        invariant="sizes follow each other",
        scenario=sized(35, policy='max = 3\nup_window = "1s"'),
    ),
    Mutant(
        name="a-cut-is-no-reason-to-wait",
        why="What callers beyond a cut offer is not seen, and their instances are taken away.",
        module="dislocate.core.scale.leading",
        original="            if view.members and not (view.reachable and view.hears):\n",
        planted="            if not view.members and not (view.reachable and view.hears):\n",
        invariant="nothing is taken away in the dark",
        scenario=sized(75, "28 cut from=fra to=wdc", wdc=2),
    ),
    Mutant(
        name="it-turns-as-often-as-it-likes",
        why="The budget of reversals is counted and not obeyed.",
        module="dislocate.core.scaling",
        original="    if reversals(actions, now, falls=True) > policy.reversals:\n",
        planted="    if reversals(actions, now, falls=True) > policy.reversals + 9:\n",
        invariant="reversals are budgeted",
        scenario=sized(65, policy="reversals = 0"),
    ),
    Mutant(
        name="what-is-done-is-not-remembered",
        why="The log has that a command was begun, and not that it ended: whoever is the next relay runs it again.",
        module="dislocate.core.scale.ledger",
        original="            state=CarryState.DONE if body.is_done else CarryState.FAILED,\n",
        planted="            state=CarryState.BEGUN if body.is_done else CarryState.FAILED,\n",
        invariant="a driver is told once",
        scenario=sized(
            75, *(f"{30 + 14 * at} kill target=fra/a{at + 1} for=4s" for at in range(3)), driver=COMMAND, until=70
        ),
    ),
    Mutant(
        name="each-node-starts-them-all",
        why="A node takes the number of the whole data center for its own share.",
        module="dislocate.core.scale.carrying",
        original="as_process(driver, decision.service, decision.nodes[node])",
        planted="as_process(driver, decision.service, decision.desired)",
        invariant="processes are as decided",
        scenario=sized(85, policy="max = 4", until=80),
    ),
)
