"""What real callers saw, as the simulator's book has it: the same claims judge both."""

from collections.abc import Collection
from pathlib import Path as FilePath

import msgspec

from dislocate.core.identity import Path
from dislocate.fleet.calling.words import CallersPlan, Told
from sim.traffic.book import CallBook, CallerBook, Seen, add


class Reports:
    """The reports of all callers of a fleet, read as they grow."""

    def __init__(self, plans: Collection[CallersPlan]) -> None:
        self._book = CallBook()
        self._callers: dict[str, CallerBook] = {}
        self._hanging: dict[str, tuple[int, ...]] = {}
        self._read: dict[FilePath, int] = {}  # bytes
        for plan in plans:
            self._read[FilePath(plan.reports)] = 0
            for name in plan.names:
                self._callers[name] = CallerBook(name, plan.path, plan.service)
        self._book.callers += self._callers.values()

    def seen(self, services: Collection[str], agents: Collection[Path], since: int, until: int) -> Seen:
        """As `CallBook.seen`; a call that hangs has failed, too."""
        self._look()
        seen = self._book.seen(services, agents, since, until)
        hanging = sum(
            since <= begun < until
            for name, calls in self._hanging.items()
            for begun in calls
            if self._callers[name].path in agents and (not services or self._callers[name].service in services)
        )
        return msgspec.structs.replace(seen, ended=seen.ended + hanging, failed=seen.failed + hanging)

    def _look(self) -> None:
        for path, at in self._read.items():
            if path.exists():
                with path.open("rb") as reports:
                    reports.seek(at)
                    data = reports.read()
                whole = data.rfind(b"\n") + 1  # the rest is being written
                for line in data[:whole].splitlines():
                    self._take(msgspec.json.decode(line, type=Told))
                self._read[path] = at + whole

    def _take(self, told: Told) -> None:
        book = self._callers[told.caller]
        book.begun, book.ended = told.begun, book.ended + len(told.ends)
        book.ends += told.ends
        self._hanging[told.caller] = told.hanging
        for sums, more in ((book.sent, told.sent), (book.wanted, told.wanted)):
            for second, there in more.items():
                add(sums.setdefault(second, {}), there)
