"""A simulated fleet whose traffic is what the test says, for tests of who decides and carries out sizes."""

from typing import Any

import msgspec

from dislocate.core.boundary.balance import FlowRow, PlaceInput, Policy, ServiceFlows, Share
from dislocate.core.boundary.scaling import Carried, ScaleDecision, ScalePolicy
from dislocate.core.boundary.store import Delete, Put, Transact
from dislocate.core.node import Node
from dislocate.core.scale import records
from dislocate.core.units import SECOND
from sim.faults import do
from sim.invariants import INVARIANTS, Monitor
from sim.scenario import Datacenter, Fault, Scenario, Service, checked
from sim.world import World

SERVICE = "orders.api"
FOUNDED = 12 * SECOND  # the group of the store is there, and knows what its servers speak


class ScaledFleet:
    """Agents of some data centers, three servers of the store in the first."""

    def __init__(
        self, datacenters: tuple[str, ...] = ("fra",), nodes: int = 3, services: int = 0, seed: int = 1
    ) -> None:
        self.demand = dict.fromkeys(datacenters, 0.0)
        self.capacity = 100.0
        self.is_silent = False  # nothing is reported any more
        self._heard_at = 0
        first = datacenters[0]
        scenario = Scenario(
            title="Sizes",
            why="They follow the load",
            duration=3600 * SECOND,
            datacenters={name: Datacenter(nodes) for name in datacenters},
            servers=tuple(f"{first}/a{number}" for number in (1, 2, 3)),
            services=(Service(SERVICE, services),) if services else (),
        )
        self.world = World(checked(scenario), seed, new_node=self._node)
        self.monitor = Monitor(self.world, INVARIANTS)
        self.applied: list[tuple[Any, Any]] = []  # commands of scaling with their results, in the log's order
        inner = self.world.wiretap.reference.on_scale
        self.world.wiretap.reference.on_scale = lambda body, result: (inner(body, result), self._applied(body, result))
        self.world.run(FOUNDED)

    def _applied(self, body: Any, result: Any) -> None:
        self.applied.append((body, result))

    def _node(self, *arguments: Any) -> Node:
        node = Node(*arguments)
        node.scale.leading.flows = self
        return node

    def of(self, service: str) -> ServiceFlows | None:
        """What every node would be told, at once."""
        now = self.world.now
        if not self.is_silent:
            self._heard_at = now
        inputs = tuple(
            PlaceInput(
                datacenter=name,
                epoch=1,
                demand=demand,
                endpoint_capacity=self.capacity,
                live=1.0,
                backlog=0.0,
                capacity=self.capacity,
                cost=0.0,
                tier=0,
                as_of=self._heard_at,
            )
            for name, demand in self.demand.items()
        )
        rows = tuple(
            FlowRow(
                source=name,
                shares=(Share(name, 1.0),),
                target=(Share(name, 1.0),),
                rho=0.8,
                overload=False,
                computed_by=f"{name}/a1",
                epoch=1,
                as_of=now,
            )
            for name in self.demand
        )
        return ServiceFlows(service=service, policy=Policy(), home=rows[0], rows=rows, inputs=inputs, explanation=())

    # ---- doing

    def run(self, seconds: float) -> None:
        self.world.run(self.world.now + round(seconds * SECOND))

    def set(self, policy: ScalePolicy | bytes, service: str = SERVICE) -> None:
        value = policy if isinstance(policy, bytes) else records.encode(policy)
        self._write(Put(records.policy_key(service), value))

    def unset(self, service: str = SERVICE) -> None:
        self._write(Delete(records.policy_key(service)))

    def _write(self, operation: Put | Delete) -> None:
        answers: list[Any] = []
        asker = next(path for path in self.world.observers_up())
        self.world.request(self.world.machines[asker], Transact((), (operation,)), answers.append)
        self.run(2)
        assert answers
        assert hasattr(answers[0], "succeeded"), answers

    def do(self, verb: str, target: str, **more: Any) -> None:
        do(self.world, Fault(self.world.now, verb, target=target, **more))

    # ---- looking

    @property
    def leader(self) -> str:
        return next(path for path in self.world.observers_up() if self.world.store(path).role == "leader")

    def value(self, key: str, type_: Any) -> Any:
        kv = self.world.wiretap.reference.keys.get(key)
        return None if kv is None else msgspec.json.decode(kv.value, type=type_)

    def decision(self, datacenter: str = "fra", service: str = SERVICE) -> ScaleDecision | None:
        return self.value(records.decision_key(service, datacenter), ScaleDecision)

    def past(self, datacenter: str = "fra") -> list[ScaleDecision]:
        keys = self.world.wiretap.reference.keys
        prefix = records.past_prefix(SERVICE, datacenter)
        found = sorted(key for key in keys if key.startswith(prefix))
        return [msgspec.json.decode(keys[key].value, type=ScaleDecision) for key in found]

    def carried(self, datacenter: str = "fra", node: str = "") -> Carried | None:
        return self.value(records.done_key(SERVICE, datacenter, node), Carried)

    def passing(self, datacenter: str = "fra") -> int:
        """Instances there, as the first agent that is up sees them."""
        observer = next(path for path in self.world.observers_up() if path.startswith(f"{datacenter}/"))
        found = self.world.instances(observer, SERVICE)
        return sum(one.status.value == "passing" and one.datacenter == datacenter for one in found)

    def close(self) -> None:
        self.monitor.conclude()
