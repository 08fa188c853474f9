"""A process that the agent runs: another version takes its place as `host.supervise` has it.

The digest is of the definition with its environment filled in; whether the process lives is its health and no difference.
What is kept on disk has its secrets sealed.  A revert is the same careful change, to the definition of before.
"""

import msgspec

from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.spec import Process
from dislocate.core.units import format_duration
from dislocate.host.before import Definition, Nothing
from dislocate.host.differences import unified
from dislocate.host.digests import ABSENT, digest_of
from dislocate.host.templates import references_of
from dislocate.host.threads import in_thread
from dislocate.host.work import Failure, Work, about


def look(work: Work, resource: Process) -> TaskOutcome:
    there = in_thread(work.house.processes.definition, resource.name)
    wanted = _wanted(work, resource)
    before, after = _digest(there), wanted.digest
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    shown = _difference(work, there, wanted) if work.task.diff else ""
    return TaskOutcome(
        TaskResult.WOULD_CHANGE, before=before, after=after, words=_words(there, wanted, "would be"), diff=shown
    )


def apply(work: Work, resource: Process) -> TaskOutcome:
    there = in_thread(work.house.processes.definition, resource.name)
    wanted = _wanted(work, resource)
    before, after = _digest(there), wanted.digest
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    in_thread(work.house.images.keep, work.task.run, about(resource), there or Nothing())
    work.house.processes.become(resource.name, wanted)
    return TaskOutcome(TaskResult.CHANGED, before=before, after=after, words=_words(there, wanted, "was"))


def revert(work: Work, resource: Process) -> TaskOutcome:
    image = in_thread(work.house.images.find, work.task.run, about(resource))
    if not isinstance(image, Definition | Nothing):
        raise Failure(
            "lost", f"how {resource.name} was run before this run is not kept any more; apply the run of then"
        )
    there = in_thread(work.house.processes.definition, resource.name)
    wanted = image if isinstance(image, Definition) else None
    before, after = _digest(there), _digest(wanted)
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    work.house.processes.become(resource.name, wanted)
    return TaskOutcome(TaskResult.CHANGED, before=before, after=after, words=_words(there, wanted, "was"))


def _wanted(work: Work, resource: Process) -> Definition:
    if resource.health and not resource.health.startswith("/"):
        raise Failure("apply", f"{resource.health!r} is no path; write `health` from '/' on, such as '/health'")
    environment = work.render_environment(resource.environment)
    named = references_of(resource)
    key = work.house.keys.digests
    version = digest_of(
        "process",
        resource.name,
        resource.service,
        resource.health,
        resource.directory,
        msgspec.json.encode((resource.run, resource.ports, sorted(environment.items()))),
        key=key,
    )
    times = (resource.ready_within, resource.drain_for, resource.stop_within)
    return Definition(
        resource,
        {name: work.task.values[name] for name in named.keys if name in work.task.values},
        {name: work.task.secrets[name] for name in named.secrets if name in work.task.secrets},
        version,
        digest_of("process", version, msgspec.json.encode((resource.count, times)), key=key),
    )


def _digest(definition: Definition | None) -> str:
    return ABSENT if definition is None else definition.digest


def _difference(work: Work, there: Definition | None, wanted: Definition) -> str:
    resource = wanted.resource
    environment = work.render_environment_shown(resource.environment)
    old = None if there is None else _shown(there.resource, work.house.shown_environment(there))
    return unified(f"process {resource.name}", old, _shown(resource, environment))


def _shown(resource: Process, environment: dict[str, str]) -> str:
    """As people read it, one fact a line."""
    lines = [
        f"run: {' '.join(resource.run)}",
        f"service: {resource.service}",
        f"count: {resource.count}",
        f"ports: {' '.join(map(str, resource.ports)) or 'any'}",
        f"health: {resource.health or 'accepts'}",
        f"directory: {resource.directory}",
        *(f"environment {name}: {value}" for name, value in sorted(environment.items())),
        f"ready_within: {format_duration(resource.ready_within)}",
        f"drain_for: {format_duration(resource.drain_for)}",
        f"stop_within: {format_duration(resource.stop_within)}",
    ]
    return "".join(f"{line}\n" for line in lines)


def _words(there: Definition | None, wanted: Definition | None, verb: str) -> str:
    if wanted is None:
        return f"{verb} ended"
    count = f"{wanted.resource.count} of them"
    if there is None:
        return f"{verb} started, {count}"
    if there.version == wanted.version:
        return f"{verb} changed without a restart, {there.resource.count} -> {count}"
    return f"{verb} replaced by a new version, {count}"
