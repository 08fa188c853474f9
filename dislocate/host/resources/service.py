"""A unit of systemd: reloaded or restarted when something notified it.

Order: its instances of the catalog are drained for a while, the unit is acted upon, must be active, and they are taken back,
also when it failed: health then says what became of it.  There is nothing to compare, so a LOOK cannot tell; a revert acts
again, since what it read before was put back.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from shlex import join

import gevent

from dislocate.core.boundary.requests import Refused, SetDraining
from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.spec import Service
from dislocate.core.units import MINUTE, SECOND
from dislocate.host.programs import run_program
from dislocate.host.work import Failure, Work

DRAIN_MARGIN = 5 * MINUTE  # after which a drain ends by itself, should this agent die before it takes it back

log = logging.getLogger(__name__)


def look(work: Work, resource: Service) -> TaskOutcome:
    lacking = "" if _has_systemd(work) else "; there is no systemd on this host"
    return TaskOutcome(TaskResult.UNTOLD, words=f"when it is notified: {join(_command(resource))}{lacking}")


def apply(work: Work, resource: Service) -> TaskOutcome:
    if not _has_systemd(work):
        raise Failure(
            "apply", f"there is no systemd on this host, so nothing was run; it would be: {join(_command(resource))}"
        )
    with _drained(work, resource):
        ended = run_program(work, _command(resource), stream=work.task.stream)
        if ended.code != 0:
            raise Failure("apply", f"{join(_command(resource))}: {ended.how}: {ended.words}", ended.code)
        state = run_program(work, ("systemctl", "is-active", "--", resource.unit))
        if state.code != 0:
            raise Failure(
                "verify",
                f"{resource.unit} is {state.words} after {resource.action.value}; see `journalctl -u {resource.unit}`",
                state.code,
            )
    return TaskOutcome(TaskResult.CHANGED, words=f"{resource.unit} was {resource.action.value}ed", code=0)


def revert(work: Work, resource: Service) -> TaskOutcome:
    return apply(work, resource)


def _command(resource: Service) -> tuple[str, ...]:
    return ("systemctl", resource.action.value, "--", resource.unit)


def _has_systemd(work: Work) -> bool:
    return work.house.systemd.is_dir()


@contextmanager
def _drained(work: Work, resource: Service) -> Iterator[None]:
    """Nobody is sent here meanwhile.  An instance that cannot be drained is not waited for: it is gone, or nobody's."""
    names = [instance.id for instance in work.house.instances(resource.drain)] if resource.drain else []
    drained: list[str] = []
    try:
        for name in names:
            if _set_draining(work, name, True, resource):
                drained.append(name)
        if drained:
            gevent.sleep(resource.drain_for / SECOND)
        yield
    finally:
        if drained:
            gevent.spawn(lambda: [_set_draining(work, name, False, resource) for name in drained]).join(
                work.left or 1.0
            )


def _set_draining(work: Work, name: str, draining: bool, resource: Service) -> bool:
    expires = resource.drain_for + resource.timeout + DRAIN_MARGIN if draining else 0
    reason = f"{resource.action.value} of {resource.unit}" if draining else ""
    try:
        result = work.house.ask(SetDraining(name, "instance", draining, expires, reason))
    except TimeoutError:
        log.warning("%s: no answer to a drain", name)
        return False
    if isinstance(result, Refused):
        log.warning("%s: %s", name, result.reason)
    return not isinstance(result, Refused)
