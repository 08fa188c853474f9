"""Numbers for Prometheus: the core's counters, gauges of what the node sees, and what the edge itself counted.

`EdgeCounters` is a plain dict of ints, 0.1 microseconds a count; prometheus_client is imported and its families are built
only when somebody scrapes.  Labels are bounded: routes are templates, never paths, and no label holds text from outside.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from dislocate.core.boundary.values import Status
from dislocate.edge.answers import age_of, count_states
from dislocate.edge.backend import Backend

Labels: TypeAlias = tuple[tuple[str, str], ...]

# What each counter of the edge means; counting another name is a bug that `count` refuses.
EDGE_COUNTERS = {
    "http_requests": "HTTP requests answered, by method, route and status",
    "http_failures": "HTTP requests that met a bug or an outage of ours: see the log",
    "http_rejected_connections": "HTTP connections ended for what they sent, or did not send in time",
    "streams_dropped": "event streams ended because their reader was too slow",
    "datagrams": "datagrams on agent.sock, by outcome",
    "datagram_answers_dropped": "answers to datagrams that their sender did not take",
    "snapshots_written": "times that services.json was replaced",
    "snapshot_failures": "times that services.json could not be written: see the log",
    "events": "what the node noticed, by kind",
    "messages_sent": "datagrams and link messages sent to other agents",
    "bytes_sent": "their bytes, sealed, without the headers of UDP, TCP and IP",
    "gossip_received": "authentic datagrams of other agents",
    "gossip_rejected": "datagrams dropped unread, by reason: 'unknown key' and 'not authentic' mean another secret",
    "gossip_unsent": "datagrams that could not be sent, by reason",
    "links": "what happened on links to other agents; 'keys_refused' counts strangers at the door",
    "dns": "DNS queries, replies by code, and what was no query at all ('malformed')",
    "turns": "inputs that the core handled",
    "inputs_dropped": "authentic datagrams dropped because the core was behind",
    "commits": "transactions written to the state directory",
}


class EdgeCounters:
    """What the edge did how often; one per agent."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, Labels], int] = {}
        self.sources: list[Callable[[], Mapping[tuple[str, Labels], int]]] = []  # what other parts count themselves

    def count(self, name: str, **labels: str) -> None:
        key = (name, tuple(labels.items()))
        self.values[key] = self.values.get(key, 0) + 1

    def read(self) -> dict[tuple[str, Labels], int]:
        """All there is now, of the edge and of `sources`."""
        values = dict(self.values)
        for source in self.sources:
            values |= source()
        return values

    def total(self, name: str) -> int:
        """The sum over all labels."""
        return sum(value for (counted, _), value in self.values.items() if counted == name)


def render(backend: Backend, counters: EdgeCounters) -> bytes:
    """The text that Prometheus scrapes."""
    from prometheus_client import CollectorRegistry, generate_latest  # rare: 1 to 2 MiB that most agents never need

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(backend, counters))
    return generate_latest(registry)


class _Collector:
    def __init__(self, backend: Backend, counters: EdgeCounters) -> None:
        self._backend = backend
        self._counters = counters

    def collect(self) -> Iterator[Any]:
        yield from _core_families(self._backend)
        yield from _member_families(self._backend)
        yield from _service_families(self._backend)
        yield from _store_families(self._backend)
        yield from _edge_families(self._counters)


def _core_families(backend: Backend) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    family = CounterMetricFamily("dislocate_core", "What happened in the core how often", labels=["what"])
    for what, value in sorted(backend.node.counters.items()):
        family.add_metric([what], value)
    yield family
    yield GaugeMetricFamily("dislocate_relay", "1 while this agent is a relay", value=float(backend.node.is_relay))


def _member_families(backend: Backend) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    now = backend.now()
    family = GaugeMetricFamily("dislocate_members", "Agents known, by state", labels=["state"])
    for state, count in count_states(backend.node.members.values()).items():
        family.add_metric([state], count)
    yield family
    gauges = {
        "reachable": GaugeMetricFamily("dislocate_datacenter_reachable", "1 while reachable from here", labels=["dc"]),
        "members": GaugeMetricFamily("dislocate_datacenter_members", "Agents alive or suspect", labels=["dc"]),
        "age": GaugeMetricFamily("dislocate_datacenter_age_seconds", "Age of what is known of it", labels=["dc"]),
        "rtt": GaugeMetricFamily("dislocate_datacenter_rtt_seconds", "Round trip, where known", labels=["dc"]),
        "brake": GaugeMetricFamily("dislocate_datacenter_brake", "1 while removals are held there", labels=["dc"]),
    }
    for view in backend.node.datacenters.values():
        gauges["reachable"].add_metric([view.name], float(view.reachable))
        gauges["members"].add_metric([view.name], view.members)
        gauges["age"].add_metric([view.name], age_of(view.as_of, now))
        gauges["brake"].add_metric([view.name], float(bool(view.brake)))
        if view.rtt is not None:
            gauges["rtt"].add_metric([view.name], view.rtt / 1e9)
    yield from gauges.values()


def _service_families(backend: Backend) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily("dislocate_instances", "Instances by service and status", labels=["service", "status"])
    for name in backend.node.catalog.names():
        view = backend.node.catalog.service(name)
        if view is None:
            continue
        counts = dict.fromkeys(Status, 0)
        for instance in view.instances:
            counts[instance.status] += 1
        for status, count in counts.items():
            if count:
                family.add_metric([name, status.value], count)
    yield family


def _store_families(backend: Backend) -> Iterator[Any]:
    from prometheus_client.core import GaugeMetricFamily

    view = backend.node.store
    leads = float(view.role == "leader")
    yield GaugeMetricFamily("dislocate_store_leads", "1 while this agent leads the store", value=leads)
    yield GaugeMetricFamily(
        "dislocate_store_troubled", "1 while nothing can be written", value=float(bool(view.problem))
    )
    yield GaugeMetricFamily("dislocate_store_term", "Grows with each election", value=view.term)
    yield GaugeMetricFamily("dislocate_store_revision", "Of the store, as known here", value=view.revision)
    if view.as_of > 0:  # else nothing is known of a store, and the age would be that of the host
        age = age_of(view.as_of, backend.now())
        yield GaugeMetricFamily("dislocate_store_age_seconds", "How long ago that was current", value=age)


def _edge_families(counters: EdgeCounters) -> Iterator[Any]:
    from prometheus_client.core import CounterMetricFamily

    values = sorted(counters.read().items())
    for name, meaning in EDGE_COUNTERS.items():
        found = [(labels, value) for (counted, labels), value in values if counted == name]
        names = [label for label, _ in found[0][0]] if found else []
        family = CounterMetricFamily(f"dislocate_{name}", meaning, labels=names)
        for labels, value in found:
            family.add_metric([text for _, text in labels], value)
        if not found:
            family.add_metric([], 0)
        yield family
