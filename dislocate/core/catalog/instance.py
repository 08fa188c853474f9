"""One instance of this host: what was registered, what its checks say, what an operator ordered."""

from dislocate.core.boundary.values import InstanceSpec, Status
from dislocate.core.catalog.health import Health
from dislocate.core.tunables import FAILURES_DOWN


class OwnInstance:
    """Mutable; `own.OwnInstances` creates it, `checks.Checks` runs its checks."""

    __slots__ = (
        "called_at",
        "cause",
        "drain_reason",
        "drain_until",
        "epoch",
        "health",
        "id",
        "is_checking",
        "is_configured",
        "is_draining",
        "is_in_maintenance",
        "maintenance_reason",
        "output",
        "spec",
    )

    def __init__(self, spec: InstanceSpec, *, is_configured: bool) -> None:
        self.id = spec.id
        self.spec = spec
        self.is_configured = is_configured
        self.epoch = 0
        self.health = Health(Status.PASSING)
        self.is_checking = False
        self.called_at = 0  # start of the last check, or the last heartbeat
        self.output = ""
        self.cause = ""
        self.is_draining = False
        self.drain_until = 0  # 0: no end
        self.drain_reason = ""
        self.is_in_maintenance = False
        self.maintenance_reason = ""

    def begin(self, spec: InstanceSpec, epoch: int, now: int, remembered: Status | None) -> None:
        """Judge it anew: from the status `remembered` from before a restart, if there is one, else from the start."""
        self.spec = spec
        self.epoch = epoch
        self.is_checking = False
        self.output = ""
        if spec.check is None:
            self.health = Health(Status.PASSING)
            self.cause = "no check"
        elif remembered is None:
            patience = 0 if spec.check.ttl else (FAILURES_DOWN - 1) * spec.check.interval
            self.health = Health(Status.STARTING, patient_until=now + patience)
            self.cause = "not checked yet"
        else:
            self.health = Health(remembered, on_probation=True)
            self.cause = "as before the restart of its agent"

    def is_same_place(self, spec: InstanceSpec) -> bool:
        """Whether what the checks found about the present spec holds for `spec` too."""
        here = self.spec
        return (here.service, here.address, here.port, here.check) == (
            spec.service,
            spec.address,
            spec.port,
            spec.check,
        )

    def status(self, ordered_reason: str | None) -> tuple[Status, str]:
        """What is published, and why.  `ordered_reason`: of a drain of the whole node or data center; None: there is none.

        Maintenance is an operator's word and hides everything; a drain hides all but a failure."""
        health = self.health.status
        if self.is_in_maintenance:
            return Status.MAINTENANCE, self.maintenance_reason or "maintenance"
        if health is not Status.CRITICAL:
            if self.is_draining:
                return Status.DRAINING, self.drain_reason or "drained"
            if ordered_reason is not None:
                return Status.DRAINING, ordered_reason or "drain ordered"
        return health, self.cause
