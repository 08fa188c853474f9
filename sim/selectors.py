"""Selectors: 'dc', 'dc/aJ', 'dc/service#i', 'service' and '*', resolved against who exists in a scenario."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from msgspec import Struct

from dislocate.core.errors import ConfigError
from dislocate.core.identity import Path
from dislocate.strict import one_of


class Instance(Struct, frozen=True, order=True):
    """One instance of the scenario: `number` counts from 1 in each data center."""

    datacenter: str
    service: str
    number: int

    @property
    def id(self) -> str:
        """Its id at its agent, which is unique in the data center too."""
        return f"{self.service}-{self.number}"

    def __str__(self) -> str:
        return f"{self.datacenter}/{self.service}#{self.number}"


def as_tuple(selector: str | tuple[str, ...]) -> tuple[str, ...]:
    return (selector,) if isinstance(selector, str) else selector


class Layout:
    """The names of a scenario: agents by data center, instances by service."""

    def __init__(
        self,
        nodes: dict[str, int],
        services: dict[str, tuple[int, tuple[str, ...]]],
        placed: Mapping[str, tuple[Path, ...]] = MappingProxyType({}),
    ) -> None:
        """`placed`: by service that is not dealt out in turn, the agent of each of its instances."""
        self.nodes: dict[str, tuple[Path, ...]] = {
            datacenter: tuple(f"{datacenter}/a{j}" for j in range(1, count + 1)) for datacenter, count in nodes.items()
        }
        self.paths: tuple[Path, ...] = tuple(path for paths in self.nodes.values() for path in paths)
        self._known = frozenset(self.paths)  # asked only whether it holds one
        self.services = services
        self._placed: dict[tuple[str, str], tuple[Path, ...]] = {
            (service, name): tuple(path for path in owners if path.startswith(f"{name}/"))
            for service, owners in placed.items()
            for name in self.nodes
        }

    def declared(self) -> dict[tuple[str, str], int]:
        """How many instances a scenario begins with, by data center and service."""
        return {
            (name, service): self._count(service, name)
            for service, (_, names) in self.services.items()
            for name in names
        }

    def owner(self, instance: Instance) -> Path:
        """The agent that hosts `instance`: they are dealt out in turn, unless the scenario says where they are."""
        paths = self._placed.get((instance.service, instance.datacenter)) or self.nodes[instance.datacenter]
        return paths[(instance.number - 1) % len(paths)]

    def instances(self, service: str) -> tuple[Instance, ...]:
        """All instances of a service that the scenario declares."""
        _, datacenters = self.services[service]
        return tuple(
            Instance(name, service, number)
            for name in datacenters
            for number in range(1, self._count(service, name) + 1)
        )

    def _count(self, service: str, datacenter: str) -> int:
        placed = self._placed.get((service, datacenter))
        return self.services[service][0] if placed is None else len(placed)

    def agents(self, selectors: str | tuple[str, ...]) -> tuple[Path, ...]:
        """The agents that the selectors mean, each once; services mean none."""
        chosen: dict[Path, None] = {}
        for selector in as_tuple(selectors):
            chosen.update(dict.fromkeys(self._agents(selector)))
        return tuple(chosen)

    def _agents(self, selector: str) -> Iterable[Path]:
        if selector == "*":
            return self.paths
        if selector in self.nodes:
            return self.nodes[selector]
        return (selector,) if selector in self._known else ()

    def chosen_instances(self, selectors: str | tuple[str, ...]) -> tuple[Instance, ...]:
        """The instances that the selectors mean: 'dc/service#i', or a service's name for all of them."""
        chosen: dict[Instance, None] = {}
        for selector in as_tuple(selectors):
            if selector in self.services:
                chosen.update(dict.fromkeys(self.instances(selector)))
            elif (one := parse_instance(selector)) is not None:
                chosen[one] = None
        return tuple(chosen)

    def datacenters(self, selectors: str | tuple[str, ...]) -> tuple[str, ...]:
        """The data centers in which the selectors mean somebody."""
        return tuple(dict.fromkeys(path.partition("/")[0] for path in self.agents(selectors)))

    def check(
        self, selector: str, field: str, *, services: bool = True, existing: Mapping[tuple[str, str], int] | None = None
    ) -> None:
        """Raises `ConfigError` naming `field` for a selector that can mean nobody.

        `existing` counts the instances as `declared` does, which it is when it is not given."""
        if selector == "*" or selector in self.nodes or selector in self._known:
            return
        if services and selector in self.services:
            return
        one = parse_instance(selector)
        if one is not None and services and one.datacenter in self.nodes:
            counts = self.declared() if existing is None else existing
            count = counts.get((one.datacenter, one.service), 0)
            if one.number <= count:
                return
            if count:
                first, last = (f"{one.datacenter}/{one.service}#{number}" for number in (1, count))
                raise ConfigError(field, got=selector, expected=first if count == 1 else f"{first} to {last}")
            names = [service for datacenter, service in counts if datacenter == one.datacenter]
            mend = one_of(one.service, names) if names else "one that [[services]] declares: there is none"
            raise ConfigError(field, got=selector, expected=f"a service in {one.datacenter}: {mend}")
        known = ["*", *self.nodes, *self.paths[:50], *(self.services if services else ())]
        raise ConfigError(field, got=selector, expected="dc/service#i, or " + one_of(selector, known))


def parse_instance(selector: str) -> Instance | None:
    """The instance in 'dc/service#i', None when it has another form."""
    left, hash_, number = selector.rpartition("#")
    datacenter, slash, service = left.partition("/")
    if not (hash_ and slash and number.isascii() and number.isdigit() and int(number) >= 1):
        return None
    return Instance(datacenter, service, int(number))
