"""A catalog of one node: takes what its agent asks, and believes a registered instance once its check passed."""

import gevent

from dislocate.core.boundary.requests import Deregister, Done, Refused, Register, Request, Result, SetDraining
from dislocate.core.boundary.values import InstanceSpec, Status
from dislocate.core.boundary.views import InstanceView
from dislocate.host.checks import run_check


class TinyCatalog:
    """`ask` and `instances` for `host.tasks`."""

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.specs: dict[str, InstanceSpec] = {}
        self.status: dict[str, Status] = {}

    def ask(self, request: Request) -> Result:
        self.asked.append(request)
        gevent.sleep(0)
        match request:
            case Register(instance=spec):
                self.specs[spec.id] = spec
                self.status[spec.id] = Status.STARTING
                return Done()
            case Deregister(instance_id=name) if name in self.specs:
                del self.specs[name], self.status[name]
                return Done()
            case SetDraining(target=name, draining=draining) if name in self.specs:
                self.status[name] = Status.DRAINING if draining else Status.PASSING
                return Done()
        return Refused("unknown", "instance_id", "there is no such instance")

    def instances(self, service: str) -> tuple[InstanceView, ...]:
        return tuple(self._view(spec) for spec in list(self.specs.values()) if spec.service == service)

    def ports(self, service: str) -> list[int]:
        """Where callers are sent."""
        return [one.port for one in self.instances(service) if one.status is Status.PASSING]

    def _view(self, spec: InstanceSpec) -> InstanceView:
        if self.status[spec.id] is Status.STARTING and spec.check is not None:
            found = run_check(spec.check).status
            if found is Status.PASSING and self.status.get(spec.id) is Status.STARTING:
                self.status[spec.id] = found
        return InstanceView(
            id=spec.id,
            service=spec.service,
            node="fra/a1",
            datacenter="fra",
            address="127.0.0.1",
            port=spec.port,
            status=self.status.get(spec.id, Status.CRITICAL),
            tags=(),
            meta=spec.meta,
            weight=1,
            load=None,
            as_of=0,
            reachable=True,
        )
