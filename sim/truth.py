"""Truth: what was really asked of agents and clients, and granted, which no agent needs to know.

Whoever does it writes it down at once; invariants compare it with what agents say, and nothing is decided by it.
"""

from collections.abc import Callable

from dislocate.core.identity import NodeId, Path
from sim.book import Book
from sim.traffic.book import CallBook
from sim.workload.testimony import Testimony


class Truth:
    """What was really asked of agents and granted: invariants compare it with what agents say."""

    def __init__(self, now: Callable[[], int]) -> None:
        self.left: dict[Path, int] = {}  # when a farewell was acknowledged
        self.stopped: dict[NodeId, int] = {}  # when a start was asked to end, for a planned restart
        self.registered: dict[tuple[Path, str], int] = {}  # (owner, instance id): when `Register` was acknowledged
        self.deregistered: dict[tuple[Path, str], int] = {}
        self.refused_to_start: dict[Path, int] = {}  # when an agent last found its disk damaged
        self.clients = Testimony()  # of the store
        self.calls = CallBook()  # of services
        self.runs = Book(now)
