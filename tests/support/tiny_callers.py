"""Three data centers with a service, and callers who say each second what they offer: enough to watch flows."""

from dislocate.core.boundary.balance import Outcomes, ReportUsage, ServiceFlows, Usage
from dislocate.core.boundary.requests import ReportLoad, Result
from dislocate.core.boundary.values import InstanceSpec, Load
from dislocate.core.identity import Path
from dislocate.core.units import MILLISECOND
from tests.support.tiny_fleet import DELAY, TinyFleet

SERVICE = "orders.api"
ONE_WAY = {frozenset(("fra", "lon")): 10, frozenset(("lon", "wdc")): 35, frozenset(("fra", "wdc")): 40}  # ms


def distance(source: Path, target: Path) -> int:
    here, there = source.split("/")[0], target.split("/")[0]
    return DELAY if here == there else ONE_WAY[frozenset((here, there))] * MILLISECOND


class TinyCallers(TinyFleet):
    """`dc/a1` to `dc/a3` in fra, lon and wdc, one instance each; callers sit beside `dc/a3`."""

    def __init__(self, datacenters: tuple[str, ...] = ("fra", "lon", "wdc"), **settings: object) -> None:
        super().__init__()
        self.delay = distance
        self.cuts_links = True
        self.demand: dict[str, float] = {}
        self.retries = 0.0
        self.loads: dict[Path, Load] = {}  # by node
        self.outcomes: tuple[Outcomes, ...] = ()
        for datacenter in datacenters:
            for number in (1, 2, 3):
                spec = InstanceSpec(id="web", service=SERVICE, port=80)
                self.start(f"{datacenter}/a{number}", seeds=("fra-a1:1",), services=(spec,), **settings)
                self.run("20ms")
        self.run("15s")

    def busy(self, utilization: float = 0.5, rate: float = 64.0, in_flight: int = 2) -> None:
        """All instances are equally loaded: each carries rate / utilization."""
        self.loads = {path: Load(utilization, in_flight, rate) for path in self.hosts}

    def seconds(self, count: int) -> None:
        """Callers and instances say what they do each second."""
        for _ in range(count):
            for datacenter, demand in self.demand.items():
                usage = Usage(SERVICE, demand, self.retries, self.outcomes)
                self.report(f"{datacenter}/a3", usage)
            for path, load in self.loads.items():
                self.request(path, ReportLoad("web", load), 6)
            self.run("1s")

    def report(self, path: Path, *usages: Usage, caller: str = "7-1") -> Result | None:
        self.request(path, ReportUsage(caller, usages), 5)
        return self.hosts[path].results.get(5)

    def flows(self, path: Path) -> ServiceFlows:
        found = self.hosts[path].node.flows.of(SERVICE)
        assert found is not None
        return found

    def shares(self, path: Path) -> dict[str, float]:
        """Where callers of this node send their requests."""
        route = self.hosts[path].node.flows.route(SERVICE)
        assert route is not None
        return {share.datacenter: round(share.share, 3) for share in route.shares}
