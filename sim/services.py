"""Simulated services: what a check of an instance finds, and when."""

from enum import Enum

from msgspec import Struct

from dislocate.core.boundary.values import CheckOutcome, CheckSpec, InstanceSpec, Status
from dislocate.core.streams import Stream
from dislocate.core.units import MICROSECOND, MILLISECOND
from sim.scenario import Service
from sim.selectors import Instance
from sim.traffic.station import Station

PORTS_FROM = 8000


class ServiceLife(Enum):
    """What a service's process is doing."""

    UP = "up"
    DOWN = "down"  # the kernel refuses for it
    STOPPED = "stopped"  # it accepts and never answers


class SimulatedService(Struct):
    """One service process on a host, and the check that its agent runs."""

    spec: InstanceSpec
    instance: Instance
    life: ServiceLife = ServiceLife.UP
    is_broken: bool = False  # by what a config run put on its host
    is_leaving: bool = False  # scaling drains it, and ends it
    was_touched: bool = False  # a fault was about it: what agents should say of it is no longer simple
    station: Station | None = None  # how it serves requests, where a workload sends it any

    def become(self, life: ServiceLife) -> None:
        """Its process is started, killed, stopped or let go on, and what it was serving with it."""
        before, self.life = self.life, life
        station = self.station
        if station is None or before is life:
            return
        if life is ServiceLife.DOWN:
            station.die()
        elif life is ServiceLife.STOPPED:
            station.stop()
        elif station.is_stopped:
            station.go_on()
        else:
            station.start()

    def check(self, spec: CheckSpec, stream: Stream) -> tuple[CheckOutcome, int]:
        """What one check finds, and the nanoseconds that it takes."""
        if self.life is ServiceLife.UP:
            takes = MILLISECOND + stream.below(MILLISECOND)
            return CheckOutcome(Status.PASSING, "200 OK", takes), takes
        if self.life is ServiceLife.STOPPED:
            return CheckOutcome(Status.CRITICAL, "timed out", spec.timeout), spec.timeout
        return refused()


def refused() -> tuple[CheckOutcome, int]:
    """Nobody listens."""
    takes = 200 * MICROSECOND
    return CheckOutcome(Status.CRITICAL, "connection refused", takes), takes


def instance_spec(instance: Instance, service: Service | None, host: str, port: int) -> InstanceSpec:
    """As the agent's configuration names it."""
    check = CheckSpec(http=f"http://{host}:{port}/health")
    if service is not None:
        check = CheckSpec(http=check.http, interval=service.interval, timeout=service.timeout)
    return InstanceSpec(id=instance.id, service=instance.service, port=port, check=check)
