"""Presence: how the instances of supervised processes stand in the catalog, and when they count as up.

An instance is up when its check passes here and, where it is registered, when the catalog has seen it pass: before that nobody
is sent to it, so nothing may be taken away for it.  It is drained before it is deregistered, and deregistered before it ends.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress

import gevent
import msgspec

from dislocate.core.boundary.requests import Deregister, Refused, Register, Request, SetDraining
from dislocate.core.boundary.spec import Process
from dislocate.core.boundary.values import CheckSpec, InstanceSpec, Status
from dislocate.core.boundary.views import InstanceView
from dislocate.core.identity import join_address
from dislocate.core.units import SECOND
from dislocate.host.checks import run_check
from dislocate.host.digests import digest_of
from dislocate.host.instances import Instance
from dislocate.host.work import Asks, Failure

CHECK_EVERY = 2 * SECOND  # the catalog's check of an instance: a start is seen in two, and a death in three
CHECK_WITHIN = 2 * SECOND
ASKED_AGAIN = 1.0  # seconds, where the node does not answer yet
_POLL = 0.1  # seconds
_UP = (Status.PASSING, Status.WARNING)

log = logging.getLogger(__name__)


class NotReady(Failure):
    """A new instance ended, or did not pass in time; what ran before runs on."""

    def __init__(self, resource: Process, instance: Instance, what: str) -> None:
        words = f"{resource.name} on port {instance.port} {what}; the new version was ended and what ran before runs on"
        super().__init__("verify", words)
        self.instance = instance


class Presence:
    """That of one agent's processes."""

    def __init__(self, *, ask: Asks, instances: Callable[[str], tuple[InstanceView, ...]] | None, address: str) -> None:
        self._ask = ask
        self._instances = instances  # None: there is no catalog to wait for
        self.address = address  # where others reach this host

    def await_health(self, resource: Process, instance: Instance, deadline: float) -> None:
        """Until its check passes.  Raises `NotReady` when it ends, or does not pass in time."""
        spec = self._check(resource, instance.port)
        while True:
            outcome = run_check(spec)
            if outcome.status in _UP and instance.is_running:
                return
            if not instance.is_running:
                raise NotReady(resource, instance, f"{instance.how_it_ended} before it was ready")
            if time.monotonic() >= deadline:
                raise NotReady(resource, instance, f"was not ready in time: {outcome.output}")
            gevent.sleep(_POLL)

    def await_catalog(self, resource: Process, instance: Instance, deadline: float) -> None:
        """Until others are sent to it: before that, nobody may be taken away.  Raises `NotReady`."""
        if not resource.service or self._instances is None:
            return
        while not any(one.id == instance.id and one.status in _UP for one in self._instances(resource.service)):
            if not instance.is_running:
                raise NotReady(resource, instance, f"{instance.how_it_ended} before the catalog saw it pass")
            if time.monotonic() >= deadline:
                raise NotReady(resource, instance, "did not pass the checks of the catalog in time")
            gevent.sleep(_POLL)

    def register(self, resource: Process, instance: Instance) -> None:
        """Raises `Failure`."""
        if not resource.service:
            return
        name = instance.id
        spec = InstanceSpec(
            id=name,
            service=resource.service,
            port=instance.port,
            meta={"process": resource.name, "version": _shown_version(resource)},
            check=self._check(resource, instance.port),
        )
        try:
            result = self._ask(Register(spec))
        except TimeoutError:
            raise Failure("apply", f"{name} could not be registered: the agent did not answer in time") from None
        if isinstance(result, Refused):
            raise Failure("apply", f"{name} could not be registered: {result.field} {result.reason}")

    def _check(self, resource: Process, port: int) -> CheckSpec:
        place = join_address(self.address, port)
        if resource.health:
            return CheckSpec(http=f"http://{place}{resource.health}", interval=CHECK_EVERY, timeout=CHECK_WITHIN)
        return CheckSpec(tcp=place, interval=CHECK_EVERY, timeout=CHECK_WITHIN)

    def register_again(self, resource: Process, instance: Instance) -> None:
        """An agent remembers its instances; this is for one whose disk was lost, or that was not told before."""
        while not self._is_registered(resource, instance):
            try:
                return self.register(resource, instance)
            except Failure as failure:
                log.warning("%s", failure)
            gevent.sleep(ASKED_AGAIN)

    def _is_registered(self, resource: Process, instance: Instance) -> bool:
        known = self._instances(resource.service) if self._instances is not None and resource.service else ()
        return any(one.id == instance.id for one in known)

    def drain(self, instances: list[Instance]) -> None:
        """Let nobody be sent to them, and wait until those who were are done."""
        registered = [instance for instance in instances if instance.record.service]
        for instance in registered:
            self._tell(SetDraining(instance.id, "instance", True, 0, "replaced"))
        gevent.sleep(max((instance.record.drain_for for instance in registered), default=0) / SECOND)

    def deregister(self, instances: list[Instance]) -> None:
        for instance in instances:
            if instance.record.service:
                self._tell(Deregister(instance.id))

    def _tell(self, request: Request) -> None:
        """An instance that the catalog does not know needs neither; an agent that does not answer stops nobody's end."""
        with suppress(TimeoutError):
            self._ask(request)


def _shown_version(resource: Process) -> str:
    """Of what is written in the specification, so it is the same on all hosts and holds no secret."""
    return digest_of("process", msgspec.json.encode((resource.run, sorted(resource.environment.items()))))[:12]
