"""Pace: how long hosts take for what a config run asks of them, where somebody has measured it.

A node's part takes one of the run's `task_times`, drawn once for a node, an equal share of it for each resource: what was
measured on hosts of the same kind is a better model of them than any of ours.
"""

from collections.abc import Sequence

from dislocate.core.identity import Path
from dislocate.core.streams import Streams
from sim.book import Book
from sim.scenario import PlannedRun


class Paces:
    """Of all hosts of one world."""

    def __init__(self, planned: Sequence[PlannedRun], book: Book, streams: Streams) -> None:
        self._times = {run.spec.name: run.task_times for run in planned if run.task_times}
        self._book = book
        self._streams = streams
        self._drawn: dict[tuple[Path, str], int] = {}

    def of(self, path: Path, run: str) -> int | None:
        """Nanoseconds for each resource of `run` on that host; None where nobody measured."""
        booked = self._book.runs.get(run)
        if booked is None or booked.spec.name not in self._times:
            return None
        if (path, run) not in self._drawn:
            drawn = self._streams[f"pace/{path}"].choice(self._times[booked.spec.name])
            self._drawn[path, run] = drawn // len(booked.spec.resources)
        return self._drawn[path, run]
