"""A command: run where its guard says that it is needed, and judged by the same guard afterwards.

Guards: `creates` (a path), `unless` (exit 0: not needed), `check` (0: as it should be, 1: needed, anything else: it cannot be
told).  In place of a digest stand the words 'needed' and 'settled'.  Without a guard (`once`, or only when notified) nothing
can be told before it has run; that it runs once is the affair of the worker's journal.
"""

import os

from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.spec import Command
from dislocate.host.programs import Ended, run_program
from dislocate.host.threads import in_thread
from dislocate.host.work import Failure, Work

NEEDED, SETTLED = "needed", "settled"


def look(work: Work, resource: Command) -> TaskOutcome:
    line = " ".join(resource.run)
    if not _has_guard(resource):
        return TaskOutcome(TaskResult.UNTOLD, words=f"would run: {line}" if resource.once else f"no guard: {line}")
    state, why = _state(work, resource)
    if state == SETTLED:
        return TaskOutcome(TaskResult.SAME, before=SETTLED, after=SETTLED, words=why)
    if state == NEEDED:
        return TaskOutcome(TaskResult.WOULD_CHANGE, before=NEEDED, after=SETTLED, words=f"would run: {line}")
    return TaskOutcome(TaskResult.UNTOLD, words=why)


def apply(work: Work, resource: Command) -> TaskOutcome:
    has_guard = _has_guard(resource)
    if has_guard:
        state, why = _state(work, resource)
        if state == SETTLED:
            return TaskOutcome(TaskResult.SAME, before=SETTLED, after=SETTLED, words=why)
        if state != NEEDED:
            raise Failure("apply", f"it was not run: {why}")
    ended = _run(work, resource, resource.run)
    if not has_guard:
        return TaskOutcome(TaskResult.CHANGED, words=ended.words, code=ended.code)
    state, why = _state(work, resource)
    if state != SETTLED:
        raise Failure(
            "verify", f"it ran ({ended.how}) and is needed still: {why}; mend the command or its guard", ended.code
        )
    return TaskOutcome(TaskResult.CHANGED, before=NEEDED, after=SETTLED, words=ended.words, code=ended.code)


def revert(work: Work, resource: Command) -> TaskOutcome:
    if not resource.revert:
        return TaskOutcome(TaskResult.LEFT, words=f"nothing says how to undo: {' '.join(resource.run)}")
    ended = _run(work, resource, resource.revert)
    return TaskOutcome(TaskResult.CHANGED, words=ended.words, code=ended.code)


def _has_guard(resource: Command) -> bool:
    return bool(resource.unless or resource.creates or resource.check)


def _state(work: Work, resource: Command) -> tuple[str, str]:
    """'needed', 'settled' or neither, and why."""
    if resource.creates:
        is_there = in_thread(os.path.lexists, resource.creates)
        words = f"{resource.creates} {'exists' if is_there else 'does not exist'}"
        return (SETTLED if is_there else NEEDED), words
    guard = resource.unless or resource.check
    ended = _program(work, resource, guard)
    if ended.code == 0:
        return SETTLED, f"{guard[0]} says so"
    if resource.unless or ended.code == 1:
        return NEEDED, f"{guard[0]} says {ended.how}"
    return "", f"whether it is needed cannot be told, {guard[0]} says {ended.how}: {ended.words}"


def _run(work: Work, resource: Command, command: tuple[str, ...]) -> Ended:
    ended = _program(work, resource, command, stream=work.task.stream)
    if ended.code != 0:
        said = f": {ended.words}" if ended.output.strip() else ""
        raise Failure("apply", f"{command[0]}: {ended.how}{said}", ended.code)
    return ended


def _program(work: Work, resource: Command, command: tuple[str, ...], stream: bool = False) -> Ended:
    environment = work.render_environment(resource.environment)
    return run_program(work, command, directory=resource.directory, environment=environment, stream=stream)
