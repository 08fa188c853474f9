"""The network: which link carries what from one host to another, and what faults do to it.

A scenario's data centers and routes are a directed graph (`topology`, for notebooks and plots too).  It is compiled once
to dense rows, `rows[from][to]`, of `linkmodel.Link`s: hosts of a data center share one row, and one link with all hosts
of another, until a fault is about single hosts; then these pairs get links of their own.

What is under way when a link is cut is lost: the receiver asks `is_cut` too.  Does not know processes.
"""

from collections.abc import Callable, Iterable

import networkx as nx

from dislocate.core.identity import Path
from dislocate.core.streams import Streams
from dislocate.linkmodel import Channel, Link, LinkQuality
from sim.scenario import LinkOverride, Scenario, rtt_between
from sim.schedule import Schedule
from sim.selectors import Layout

WAN_JITTER = 0.02  # sigma: simulation.md 3.3, a modelling choice between the measured 0.02 and 0.05
LAN_JITTER = 0.05


def topology(scenario: Scenario) -> "nx.DiGraph[str]":
    """The data centers as nodes, and for each directed pair an edge with its `quality` and `rtt`; loops are the LANs."""
    graph: nx.DiGraph[str] = nx.DiGraph()
    overrides = {(link.origin, link.target): link for link in scenario.links}
    for name, datacenter in scenario.datacenters.items():
        graph.add_node(name, nodes=datacenter.nodes)
    for origin in scenario.datacenters:
        for target in scenario.datacenters:
            rtt = rtt_between(scenario, origin, target)
            override = overrides.get((origin, target))
            graph.add_edge(origin, target, rtt=rtt, quality=_quality(scenario, origin, target, rtt, override))
    return graph


def _quality(scenario: Scenario, origin: str, target: str, rtt: int, override: LinkOverride | None) -> LinkQuality:
    if override is not None:
        return LinkQuality(
            delay=rtt // 2,
            jitter=override.jitter,
            loss=override.loss,
            duplicate=override.duplicate,
            bandwidth=override.bandwidth,
        )
    if origin == target:
        return LinkQuality(delay=rtt // 2, jitter=LAN_JITTER, loss=scenario.datacenters[origin].loss)
    return LinkQuality(delay=rtt // 2, jitter=WAN_JITTER)


class Network:
    """All links of one world, by index of host in `layout.paths`."""

    def __init__(self, scenario: Scenario, layout: Layout, streams: Streams, schedule: Schedule) -> None:
        self.graph = topology(scenario)
        self._streams = streams
        self._schedule = schedule
        self._paths = layout.paths
        self._index = {path: at for at, path in enumerate(layout.paths)}
        self._datacenters = layout.nodes
        self._shared: dict[tuple[str, str], Link] = {
            (origin, target): Link(quality, streams[f"{origin}->{target}"])
            for origin, target, quality in self.graph.edges(data="quality")
        }
        self._own: dict[tuple[int, int], Link] = {}  # pairs that a fault has singled out
        shared_rows = {
            origin: [self._shared[origin, target] for target, paths in layout.nodes.items() for _ in paths]
            for origin in layout.nodes
        }
        self.rows: list[list[Link]] = [shared_rows[path.partition("/")[0]] for path in layout.paths]
        self._has_own_row: set[int] = set()  # asked only whether it holds one
        self._disturbed: dict[Link, bool] = {}  # cut, slow or lossy beyond their quality: whether between data centers
        self.touched: dict[tuple[str, str], int] = {}  # when a fault last began or ended between two data centers

    def link(self, origin: Path, target: Path) -> Link:
        return self.rows[self._index[origin]][self._index[target]]

    @property
    def is_wan_disturbed(self) -> bool:
        """A fault acts on a link between two data centers."""
        return any(self._disturbed.values())

    @property
    def is_disturbed(self) -> bool:
        """A fault acts on any link."""
        return bool(self._disturbed)

    def passes(self, origin: str, target: str, channels: Iterable[Channel]) -> bool:
        """Whether, as far as links go, anything of `channels` may get from one data center to another."""
        links = [self._shared[origin, target]]
        links += [link for (left, right), link in self._own.items() if self._joins(left, right, origin, target)]
        return any(not link.is_cut(channel) for link in links for channel in channels)

    def _joins(self, left: int, right: int, origin: str, target: str) -> bool:
        return self._paths[left].startswith(f"{origin}/") and self._paths[right].startswith(f"{target}/")

    def cut(self, origins: Iterable[Path], targets: Iterable[Path], channels: frozenset[Channel]) -> None:
        """Nothing of `channels` passes from `origins` to `targets`."""
        self._each(origins, targets, lambda link: link.cut(channels))

    def heal(self, origins: Iterable[Path], targets: Iterable[Path], channels: frozenset[Channel]) -> None:
        """What was cut, slowed or dropped is as it was."""

        def mend(link: Link) -> None:
            link.heal(channels)
            link.slow_factor = 1.0
            link.extra_loss = 0.0

        self._each(origins, targets, mend)

    def slow(self, origins: Iterable[Path], targets: Iterable[Path], factor: float) -> None:
        """Delays are `factor` times as long."""
        self._each(origins, targets, lambda link: setattr(link, "slow_factor", factor))

    def drop(self, origins: Iterable[Path], targets: Iterable[Path], loss: float) -> None:
        """`loss` more of the datagrams are lost; on streams it costs retransmissions."""
        self._each(origins, targets, lambda link: setattr(link, "extra_loss", loss))

    def _each(self, origins: Iterable[Path], targets: Iterable[Path], change: Callable[[Link], None]) -> None:
        """Change the link of each pair, once each."""
        changed: dict[Link, bool] = {}
        for origin, origin_paths, whole_origin in self._grouped(origins):
            for target, target_paths, whole_target in self._grouped(targets):
                self.touched[origin, target] = self._schedule.now
                is_wan = origin != target
                if whole_origin and whole_target:
                    changed[self._shared[origin, target]] = is_wan
                    for (left, right), link in self._own.items():
                        if self._paths[left] in origin_paths and self._paths[right] in target_paths:
                            changed[link] = is_wan
                else:
                    for left_path in origin_paths:
                        for right_path in target_paths:
                            changed[self._single_out(left_path, right_path)] = is_wan
        for link, is_wan in changed.items():
            change(link)
            if link.is_disturbed:
                self._disturbed[link] = is_wan
            else:
                self._disturbed.pop(link, None)

    def _grouped(self, paths: Iterable[Path]) -> list[tuple[str, dict[Path, None], bool]]:
        """(data center, the paths in it, whether these are all of it)."""
        groups: dict[str, dict[Path, None]] = {}
        for path in paths:
            groups.setdefault(path.partition("/")[0], {})[path] = None
        return [(name, group, len(group) == len(self._datacenters[name])) for name, group in groups.items()]

    def _single_out(self, origin: Path, target: Path) -> Link:
        left, right = self._index[origin], self._index[target]
        link = self._own.get((left, right))
        if link is None:
            shared = self.rows[left][right]
            link = Link(shared.quality, self._streams[f"{origin}->{target}"])
            link.copy_faults(shared)
            if left not in self._has_own_row:
                self._has_own_row.add(left)
                self.rows[left] = list(self.rows[left])
            self.rows[left][right] = self._own[left, right] = link
        return link
