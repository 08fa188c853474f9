"""Trouble of instances that no health check sees: they serve slowly, or answer with errors."""

from collections.abc import Callable

from sim.scenario import Fault
from sim.traffic.station import Station
from sim.world import World


def _stations(world: World, fault: Fault) -> list[Station]:
    """How the instances serve that `fault` is about: those that anybody calls."""
    found = [world.placement.find_service(instance) for instance in world.layout.chosen_instances(fault.target)]
    return [one[1].station for one in found if one is not None and one[1].station is not None]


def _serve_slow(world: World, fault: Fault) -> None:
    assert fault.factor is not None  # the verb needs it
    for station in _stations(world, fault):
        station.slowness = fault.factor


def _serve_fail(world: World, fault: Fault) -> None:
    """Errors at once, while its check goes on passing."""
    assert fault.loss is not None  # the verb needs it
    for station in _stations(world, fault):
        station.fails = fault.loss


def _serve_mend(world: World, fault: Fault) -> None:
    for station in _stations(world, fault):
        station.slowness, station.fails = 1.0, 0.0


SERVING: dict[str, Callable[[World, Fault], None]] = {
    "serve_slow": _serve_slow,
    "serve_fail": _serve_fail,
    "serve_mend": _serve_mend,
}
