"""Placement: the hosts of a scenario, the services on each, and what the agents there are configured with.

Follows from the scenario and the seed alone.  Hosts never come or go; services come, where a fault registers one, and
stay, whatever becomes of their processes.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from dislocate.core.boundary.settings import Settings
from dislocate.core.identity import NodeId, Path
from dislocate.core.streams import Streams
from sim.disk import Disk, SharedRecords
from sim.host import Effect
from sim.pace import Paces
from sim.process import Machine, host_address
from sim.scenario import Scenario
from sim.selectors import Instance, Layout
from sim.services import PORTS_FROM, SimulatedService, instance_spec

SEEDS_AT_HOME = 3  # seeds of an agent in its own data center, and
SEEDS_ABROAD = 1  # in each other one


class Placement:
    """Of one world."""

    def __init__(
        self,
        scenario: Scenario,
        layout: Layout,
        streams: Streams,
        *,
        paces: Paces,
        told: Callable[[Path, Effect], None],
        overrides: Mapping[str, Any],
    ) -> None:
        """`told`: what tasks change on hosts.  `overrides`: fields of `Settings` that every agent has."""
        self._scenario = scenario
        self._layout = layout
        self._streams = streams
        self._paces = paces
        self._told = told
        self._overrides = dict(overrides)
        self._shared_records = SharedRecords()
        self.machines: dict[Path, Machine] = {path: self._machine(at, path) for at, path in enumerate(layout.paths)}
        self._place_services()

    def add_service(self, instance: Instance, path: Path) -> SimulatedService:
        """A service process on the host of `path`, not registered by that."""
        declared = {service.name: service for service in self._scenario.services}
        machine = self.machines[path]
        host = machine.gossip.partition(":")[0]
        port = PORTS_FROM + sum(len(one.services) for one in self.machines.values())
        service = SimulatedService(instance_spec(instance, declared.get(instance.service), host, port), instance)
        machine.services[instance.id] = service
        return service

    def find_service(self, instance: Instance) -> tuple[Machine, SimulatedService] | None:
        """The host and process of an instance."""
        for path in self._layout.nodes[instance.datacenter]:
            service = self.machines[path].services.get(instance.id)
            if service is not None:
                return self.machines[path], service
        return None

    def settings_of(self, machine: Machine, node_id: NodeId) -> Settings:
        """What the agent there is configured with, for a start as `node_id`."""
        seeds = [
            self.machines[path].gossip
            for name, paths in self._layout.nodes.items()
            for path in paths[: SEEDS_AT_HOME if name == machine.datacenter else SEEDS_ABROAD]
        ]
        fields: dict[str, Any] = {
            "node": node_id,
            "nonce": self._streams[f"nonce/{machine.path}"].bits(64),
            "gossip": machine.gossip,
            "links": machine.links,
            "public_key": machine.public_key,
            "seeds": tuple(seed for seed in seeds if seed != machine.gossip),
            "services": machine.configured,
            "servers": self._scenario.servers,
        }
        return Settings(**(fields | self._overrides))

    def _machine(self, index: int, path: Path) -> Machine:
        datacenter, _, name = path.partition("/")
        number = list(self._layout.nodes).index(datacenter) + 1
        host = host_address(number, int(name[1:]))
        machine = Machine(index, path, host, Disk(self._streams[f"disk/{path}"], self._shared_records))
        machine.host.told = partial(self._told, path)
        machine.host.pace = partial(self._paces.of, path)
        return machine

    def _place_services(self) -> None:
        for name in self._layout.services:
            for instance in self._layout.instances(name):
                machine = self.machines[self._layout.owner(instance)]
                machine.configured += (self.add_service(instance, machine.path).spec,)
