"""What the parts of an agent counted, under the names that `/api/metrics` gives them.

Each part counts for itself, in plain numbers; here they are read, only when somebody asks.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from dislocate.core.boundary.events import Event
from dislocate.edge.backend import Backend
from dislocate.edge.dns import DnsServer
from dislocate.edge.metrics import Labels
from dislocate.io.disk import Disk
from dislocate.io.driver import Driver
from dislocate.io.keyring import Keyring
from dislocate.io.links import Links
from dislocate.io.udp import DatagramSocket

Counts = Mapping[tuple[str, Labels], int]


def count_events(backend: Backend) -> tuple[Callable[[], Counts], Callable[[], None]]:
    """Events of `backend` by kind from now on, and how to end that."""
    kinds: Counter[str] = Counter()

    def hear(event: Event) -> None:
        kinds[type(event).__name__] += 1

    return lambda: labelled("events", "kind", kinds), backend.subscribe(hear)


def count_io(driver: Driver, keyring: Keyring, datagrams: DatagramSocket, links: Links, disk: Disk) -> Counts:
    """What `io` sent, heard, dropped and stored until now."""
    rejected = {reason.value: count for reason, count in keyring.rejected.items()}
    plain = {
        "messages_sent": datagrams.sent + links.counters["messages_sent"],
        "bytes_sent": datagrams.bytes_sent + links.counters["bytes_sent"],
        "gossip_received": datagrams.received,
        "turns": driver.turns,
        "inputs_dropped": driver.datagrams_dropped,
        "commits": disk.commits,
    }
    return {
        **{(name, ()): value for name, value in plain.items()},
        **labelled("gossip_rejected", "reason", rejected),
        **labelled("gossip_unsent", "reason", datagrams.dropped),
        **labelled("links", "what", links.counters),
    }


def count_dns(dns: DnsServer) -> Counts:
    return labelled("dns", "what", dns.counters)


def labelled(name: str, label: str, counts: Mapping[str, int]) -> Counts:
    """`counts` as one metric with one label."""
    return {(name, ((label, key),)): value for key, value in counts.items()}
