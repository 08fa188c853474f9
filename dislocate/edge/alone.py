"""A warning for who was configured to join and found nobody, and for who hears others that have another secret.

Both are silence on the wire, and would be in the log: a datagram under another secret is dropped unread.
"""

import logging
from collections.abc import Callable

import gevent

from dislocate.core.units import SECOND, format_duration
from dislocate.edge.backend import Backend

FIRST_LOOK = 10.0  # seconds: a seed that lives answers within one
LOOK_AGAIN = 60.0  # seconds

log = logging.getLogger(__name__)


def warn_when_alone(backend: Backend, strangers: Callable[[], int]) -> Callable[[], None]:
    """Look now and then; returns how to end that.  `strangers`: datagrams until now that were under another secret."""
    watching = gevent.spawn(_watch, backend, strangers)
    return watching.kill


def _watch(backend: Backend, strangers: Callable[[], int]) -> None:
    began, seen, wait = backend.now(), 0, FIRST_LOOK
    while True:
        gevent.sleep(wait)
        wait = LOOK_AGAIN
        count = strangers()
        for warning in warnings(backend, backend.now() - began, count - seen):
            log.warning("%s", warning)
        seen = count


def warnings(backend: Backend, lasted: int, strangers: int) -> list[str]:
    """What is to be said `lasted` nanoseconds after the start, `strangers` datagrams after the last look."""
    settings, node = backend.node.settings, backend.node
    seeds = [seed for seed in settings.seeds if seed not in (settings.gossip, settings.wan_gossip)]
    found = []
    # A seed that claims our name answered, and is no member: that is reported as a clone.
    if seeds and len(node.members) <= 1 and not node.counters.get("clones"):
        silence = format_duration(lasted // SECOND * SECOND)
        mend = "run `dislocate doctor --config FILE`; the secret may differ"
        found.append(f"no seed has answered for {silence}: {mend}")
    if strangers:
        mend = "run `dislocate doctor --config FILE` on both hosts and compare the fingerprints"
        found.append(f"{strangers} datagrams were under another secret and dropped: {mend}")
    return found
