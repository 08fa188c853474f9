"""Small worlds for tests, and a look at every turn in them."""

from collections.abc import Callable
from typing import Any

import pytest

from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.inputs import Input
from sim.process import Machine
from sim.scenario import Datacenter, Scenario, Service, checked
from sim.world import World


class Turns:
    """Every (time, path, input, effects) of a world."""

    def __init__(self) -> None:
        self.all: list[tuple[int, str, Input, list[Effect]]] = []

    def __call__(self, now: int, machine: Machine, input_: Input, effects: list[Effect]) -> None:
        self.all.append((now, machine.path, input_, list(effects)))

    def of(self, path: str, kind: type, after: int = 0) -> list[tuple[int, Input]]:
        return [(at, one) for at, who, one, _ in self.all if who == path and type(one) is kind and at >= after]


@pytest.fixture
def turns() -> Turns:
    return Turns()


@pytest.fixture
def make_world(turns: Turns) -> Callable[..., World]:
    def make(
        nodes: int = 3, datacenters: tuple[str, ...] = ("fra",), seed: int = 7, services: int = 0, **options: Any
    ) -> World:
        scenario = Scenario(
            title="a test",
            why="it is one",
            duration=60_000_000_000,
            datacenters={name: Datacenter(nodes) for name in datacenters},
            services=(Service("shop.web", services),) if services else (),
        )
        return World(checked(scenario), seed, tracer=turns, **options)

    return make
