"""The specification, checked: everything that can be told to be wrong before anything is asked of a node.

Invariant: a specification that passes has an order in which its resources can be brought about, each name in it means
something, and it fits in the store.  What is refused is refused with its field, what stood there and the mend.
Does not look at hosts, keys or the fleet.
"""

import re
from collections.abc import Iterable
from math import isfinite

from dislocate.core.boundary.spec import (
    Directory,
    File,
    Freeze,
    Gate,
    Key,
    Package,
    Process,
    Resource,
    RunSpec,
    Strategy,
)
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_label, check_service_name
from dislocate.core.nearest import nearest
from dislocate.core.runs.amounts import amount, check_amount
from dislocate.core.runs.records import encode
from dislocate.core.runs.resources import (
    about,
    check_resource,
    check_span,
    check_words,
    is_owed_only,
    resource_id,
    spelt,
)
from dislocate.core.runs.targeting import parse_target
from dislocate.core.tunables import RUN_NODES, SPEC_BYTES

CONFIRM_ABOVE = 25  # nodes: one data center of a small fleet; a slip in an expression that means more is dear
RESOURCES = 200  # of one run: each is a step in every node's record
APPROVALS = 10
TITLE_LENGTH = 200  # characters

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,98}[A-Za-z0-9])?", re.ASCII)
_CLOCK = re.compile(r"(?:[01]\d|2[0-3]):[0-5]\d", re.ASCII)
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def check_spec(spec: RunSpec) -> None:
    """Raises `LocalError` naming the field and the mend unless `spec` can be run."""
    if not _NAME.fullmatch(spec.name):
        raise LocalError("name", got=spec.name, expected="1 to 100 of A-Z a-z 0-9 '.' '_' '-', such as 'web'")
    if spec.name.isdigit():
        raise LocalError(
            "name", got=spec.name, expected="a name that is not only digits, which are the number of a run"
        )
    check_words(spec.title, "title", TITLE_LENGTH, may_be_empty=True)
    parse_target(spec.targets)
    _check_resources(spec.resources)
    ordered(spec)
    _check_strategy(spec.strategy)
    for at, gate in enumerate(spec.gates):
        _check_gate(gate, f"gates[{at}]")
    for at, freeze in enumerate(spec.freezes):
        _check_freeze(freeze, f"freezes[{at}]")
    _check_number(spec.confirm, "confirm", 0, RUN_NODES)
    check_span(spec.task_time, "task_time", may_be_zero=True)
    if (size := len(encode(spec))) > SPEC_BYTES:
        expected = f"at most {SPEC_BYTES} bytes with all contents: split it, or have a command fetch what is large"
        raise LocalError("resources", got=size, expected=expected)


def ordered(spec: RunSpec) -> tuple[Resource, ...]:
    """The resources in the order in which they are brought about: after what they require, before what they notify, those
    that are only notified last, and else as they were written.  Raises `LocalError` for a cycle."""
    resources = spec.resources
    after, done = _after(resources), [False] * len(resources)
    order: list[int] = []
    while len(order) < len(resources):
        waiting = [at for at in range(len(resources)) if not done[at]]
        ready = [at for at in waiting if all(done[before] for before in after[at])]
        if not ready:
            raise _cycle(resources, after, waiting)
        first = min(ready, key=lambda at: (is_owed_only(resources[at]), at))
        order.append(first)
        done[first] = True
    return tuple(resources[at] for at in order)


# ---- resources and their graph


def _check_resources(resources: tuple[Resource, ...]) -> None:
    if not 1 <= len(resources) <= RESOURCES:
        raise LocalError("resources", got=len(resources), expected=f"1 to {RESOURCES} resources")
    known: dict[str, int] = {}
    places: dict[tuple[str, str], int] = {}
    for at, resource in enumerate(resources):
        check_resource(resource, f"resources[{at}]")
        name = resource_id(resource)
        if name in known:
            expected = f"an id of its own: resources[{known[name]}] has this one"
            raise LocalError(f"resources[{at}].id", got=name, expected=expected)
        known[name] = at
        place = _place(resource)
        if place in places:
            expected = f"to be said once: resources[{places[place]}] is about {place[1]!r} too"
            raise LocalError(f"resources[{at}].{place[0]}", got=place[1], expected=expected)
        if place[1]:
            places[place] = at
    for at, resource in enumerate(resources):
        _check_names(resources, known, at, resource)
    for at, resource in enumerate(resources):
        _check_owed(resources, known, at, resource)


_PLACES = {File: "path", Directory: "path", Key: "key", Process: "name", Package: "name"}


def _place(resource: Resource) -> tuple[str, str]:
    """(field, what it is about), where two of them would undo each other."""
    field = _PLACES.get(type(resource), "")
    if isinstance(resource, Package):
        return field, about(resource)  # one in each venv
    return field, spelt(getattr(resource, field)) if field else ""


def _check_names(resources: tuple[Resource, ...], known: dict[str, int], at: int, resource: Resource) -> None:
    for field in ("require", "notify"):
        for position, name in enumerate(getattr(resource, field)):
            if name not in known:
                mend = f"the id of a resource of this run{nearest(name, known)}"
                raise LocalError(f"resources[{at}].{field}[{position}]", got=name, expected=mend)


def _check_owed(resources: tuple[Resource, ...], known: dict[str, int], at: int, resource: Resource) -> None:
    """What is only notified comes last: it must be notified, and nothing that comes earlier may depend on it."""
    if is_owed_only(resource):
        own = resource_id(resource)
        if not any(own in other.notify for other in resources):
            expected = f"a resource with notify = [{own!r}]: nothing is done about this one unless it is notified"
            raise LocalError(f"resources[{at}]", got=own, expected=expected)
        wrong = next((name for name in resource.notify if not is_owed_only(resources[known[name]])), "")
        field = "notify"
    else:
        wrong = next((name for name in resource.require if is_owed_only(resources[known[name]])), "")
        field = "require"
    if wrong:
        expected = "a resource that is not only notified" if field == "require" else "one that is only notified, too"
        raise LocalError(f"resources[{at}].{field}", got=wrong, expected=f"{expected}: those come last")


def _after(resources: tuple[Resource, ...]) -> list[list[int]]:
    """For each resource those that come before it, by position."""
    known = {resource_id(resource): at for at, resource in enumerate(resources)}
    after: list[list[int]] = [[known[name] for name in resource.require if name in known] for resource in resources]
    for at, resource in enumerate(resources):
        for name in resource.notify:
            if name in known:
                after[known[name]].append(at)
    return after


def _cycle(resources: tuple[Resource, ...], after: list[list[int]], waiting: list[int]) -> LocalError:
    """Each of `waiting` comes after another of them: going back from one must come round."""
    walk = [waiting[0]]
    while True:
        before = next(each for each in after[walk[-1]] if each in waiting)
        if before in walk:
            ring = [before, *reversed(walk[walk.index(before) :])]
            path = " -> ".join(resource_id(resources[at]) for at in ring)
            return LocalError(
                "resources", got=path, expected="no cycle of 'require' and 'notify': leave out one of them"
            )
        walk.append(before)


# ---- how


def _check_strategy(strategy: Strategy) -> None:
    field = "strategy"
    for name in ("canary", "batch", "max_failed"):
        check_amount(getattr(strategy, name), f"{field}.{name}")
    if amount(strategy.batch, 100) == 0:
        raise LocalError(f"{field}.batch", got=strategy.batch, expected="at least 1 node, or '1%'")
    for name in ("soak", "settle", "deadline"):
        check_span(getattr(strategy, name), f"{field}.{name}", may_be_zero=True)
    check_span(strategy.node_within, f"{field}.node_within")
    _check_labels(strategy.waves, f"{field}.waves")
    _check_number(strategy.parallel, f"{field}.parallel", 1, 100)
    _check_number(strategy.approvals, f"{field}.approvals", 0, APPROVALS)
    for service, part in strategy.floor.items():
        check_service_name(service, f"{field}.floor")
        _check_part(part, f"{field}.floor.{service}")


def _check_labels(names: Iterable[str], field: str) -> None:
    seen: list[str] = []
    for at, name in enumerate(names):
        check_label(name, f"{field}[{at}]")
        if name in seen:
            raise LocalError(f"{field}[{at}]", got=name, expected="each data center once")
        seen.append(name)


def _check_gate(gate: Gate, field: str) -> None:
    check_service_name(gate.service, f"{field}.service")
    _check_part(gate.passing, f"{field}.passing")
    if not (isfinite(gate.utilization) and gate.utilization >= 0):
        expected = "a part such as 0.8 of what an instance can do, or 0 where it is not judged"
        raise LocalError(f"{field}.utilization", got=gate.utilization, expected=expected)
    _check_part(gate.errors, f"{field}.errors")
    check_span(gate.p99, f"{field}.p99", may_be_zero=True)
    if gate.control and not (isfinite(gate.control) and gate.control >= 1):
        expected = "a number of times, 1 or more, such as 1.5, or 0 where it is not compared"
        raise LocalError(f"{field}.control", got=gate.control, expected=expected)
    if gate.control and not (gate.errors or gate.p99):
        raise LocalError(f"{field}.control", got=gate.control, expected="'errors' or 'p99' beside it: what is compared")
    if not (gate.passing or gate.utilization or gate.errors or gate.p99):
        expected = "'passing', 'utilization', 'errors' or 'p99' above 0: this gate judges nothing"
        raise LocalError(field, got=0.0, expected=expected)
    check_span(gate.window, f"{field}.window", may_be_zero=True)


def _check_freeze(freeze: Freeze, field: str) -> None:
    for at, day in enumerate(freeze.days):
        if day not in DAYS:
            mend = f"one of {', '.join(DAYS)}{nearest(day, DAYS)}"
            raise LocalError(f"{field}.days[{at}]", got=day, expected=mend)
    for name in ("begin", "end"):
        if not _CLOCK.fullmatch(getattr(freeze, name)):
            raise LocalError(
                f"{field}.{name}", got=getattr(freeze, name), expected="a time of day in UTC, such as '22:00'"
            )
    if freeze.begin == freeze.end:
        raise LocalError(
            f"{field}.end", got=freeze.end, expected="another time than 'begin'; a whole day is two windows"
        )


def _check_part(part: float, field: str) -> None:
    if not 0 <= part <= 1:
        raise LocalError(field, got=part, expected="a part of them, 0.0 to 1.0")


def _check_number(number: int, field: str, least: int, most: int) -> None:
    if not least <= number <= most:
        raise LocalError(field, got=number, expected=f"a whole number, {least}..{most}")
