"""The mutants of balancing: bugs that balancers had, or that somebody could write tomorrow."""

from tests.mutants.mutant import Mutant


def traffic(duration: int, rates: dict[str, int], *faults: str, service: str = "", callers: int = 2) -> str:
    """A story without expectations: four instances in each data center, which do 200 requests a second there; `rates`:
    requests a second of the callers of each data center.  A fault is 'SECONDS VERB field=value ...'."""
    lines = ['title = "A mutant"', 'why = "To find it"', f'duration = "{duration}s"']
    for name in rates:
        lines += [f"[datacenters.{name}]", "nodes = 2"]
    lines += ["[[services]]", 'name = "shop.web"', "per_datacenter = 4", "workers = 2", 'takes = "40ms"']
    lines += ['interval = "1s"', 'timeout = "1s"', *([service] if service else [])]
    for name, rate in rates.items():
        lines += ["[[workloads]]", f'name = "{name}"', 'kind = "requests"', 'service = "shop.web"', f'at = "{name}"']
        lines += [f"clients = {callers}", f"rate = {rate / callers:.1f}", 'from = "6s"']
    for fault in faults:
        time, verb, *fields = fault.split()
        lines += ["[[at]]", f'time = "{time}s"', f'do = "{verb}"']
        lines += [_field(*field.split("=")) for field in fields]
    return "\n".join(lines)


def _field(name: str, value: str) -> str:
    return f"{name} = {value}" if name in ("factor", "loss") else f'{name} = "{value}"'


BALANCE_MUTANTS = (
    Mutant(
        name="room-is-given-twice",
        why="What one source takes of a data center is not taken from the room that others find there.",
        module="dislocate.core.balance.flows",
        original="            room[datacenter] -= taken\n",
        planted="",
        invariant="flows are within capacity",
        scenario=traffic(30, {"fra": 230, "lon": 150, "wdc": 20}),
    ),
    Mutant(
        name="a-call-stays-pending",
        why="What failed is never taken from what an endpoint has in flight, so that it is avoided for ever.",
        module="dislocate.core.balance.picker",
        original="""        endpoint.pending -= 1
        if outcome is not OK""",
        planted="""        endpoint.pending -= outcome is OK
        if outcome is not OK""",
        invariant="calls are conserved",
        scenario=traffic(20, {"fra": 40}, "12 serve_fail target=fra/shop.web#1 loss=0.5"),
    ),
    Mutant(
        name="the-drained-are-as-good",
        why="Draining counts as another sort of passing.",
        module="dislocate.core.balance.endpoints",
        original="    lambda i: i.reachable and i.status in UP and not i.suspected,\n",
        planted="    lambda i: i.reachable and (i.status in UP or i.status is Status.DRAINING) and not i.suspected,\n",
        invariant="the unusable are left alone",
        scenario=traffic(30, {"fra": 40}, "12 drain target=fra/shop.web#1"),
    ),
    Mutant(
        name="retries-are-free",
        why="The budget is asked and not heard.",
        module="dislocate.core.balance.books",
        original="                raise RetriesSpent(self._service, self._budget.spent(), allowed)\n",
        planted="                _ = allowed\n",
        invariant="retries are budgeted",
        scenario=traffic(40, {"fra": 60}, "14 serve_fail target=shop.web loss=0.7", callers=1),
    ),
    Mutant(
        name="only-the-healthy-are-named",
        why="Without anybody who passes, the answer is empty (haproxy#3400).",
        module="dislocate.core.balance.picker",
        original="for view in usable(views, panic)]",
        planted="for view in usable(views, panic) if view.status in UP]",
        invariant="somebody is named",
        scenario=traffic(30, {"fra": 20}, "12 kill target=shop.web"),
    ),
)
