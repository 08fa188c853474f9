"""A fleet in memory whose hosts do tasks: what commands would do is said by the test.

fleet = TinyVisits("fra/a1", "fra/a2", "wdc/b1")
fleet.does = lambda path, task: [done()]   # None: it does not end
fleet.visit("fra/a1", ("wdc/b1",)); fleet.run("1s"); fleet.visited()
"""

from collections.abc import Callable

from dislocate.core.boundary.effects import CancelTask, CloseLink, Effect, OpenLink, RunTask, SendMessage
from dislocate.core.boundary.events import VisitTold
from dislocate.core.boundary.inputs import RequestCancelled, TaskProgressed
from dislocate.core.boundary.requests import Result
from dislocate.core.boundary.runs import Task, TaskOutcome, TaskResult, TaskVerb, Visit
from dislocate.core.boundary.spec import Command
from dislocate.core.identity import Path
from dislocate.core.units import SECOND
from tests.support.tiny_fleet import DELAY, Host, TinyFleet


def command(*words: str) -> Task:
    return Task(TaskVerb.APPLY, Command(run=words, once=True), "", stream=True)


def done(words: str = "") -> TaskOutcome:
    return TaskOutcome(TaskResult.CHANGED, words=words, code=0)


def wrote(text: str) -> TaskOutcome:
    return TaskOutcome(TaskResult.OUTPUT, output=text.encode())


def failed(words: str = "exit code 1") -> TaskOutcome:
    return TaskOutcome(TaskResult.FAILED, kind="apply", words=words, code=1)


class TinyVisits(TinyFleet):
    """Agents that all know each other."""

    def __init__(self, *paths: Path) -> None:
        super().__init__()
        self.does: Callable[[Path, Task], list[TaskOutcome]] = lambda _path, _task: [done()]
        self.begun: list[tuple[Path, str, Task]] = []
        self.cancelled: list[tuple[Path, str]] = []
        self.closed: list[tuple[Path, Path]] = []
        self.dialled: list[tuple[Path, Path]] = []
        for path in paths:
            self.start(path, seeds=(paths[0].replace("/", "-") + ":1",))
            self.run("20ms")
        self.run("15s")
        self.dialled.clear()
        self.closed.clear()

    def visit(self, by: Path, nodes: tuple[Path, ...], *tasks: Task, number: int = 7, **more: int) -> None:
        self.request(by, Visit(nodes, tasks or (command("uptime"),), **more), number)

    def cancel(self, by: Path, number: int = 7) -> None:
        self.give(by, RequestCancelled(number))

    def answer(self, by: Path, number: int = 7) -> Result | None:
        return self.hosts[by].results.get(number)

    def told(self, by: Path) -> list[VisitTold]:
        return [event for _, event in self.hosts[by].events if isinstance(event, VisitTold)]

    def busy(self) -> int:
        """How many tasks have begun and not ended, if none of them ends by itself."""
        return len(self.begun) - len(self.cancelled)

    def _perform(self, path: Path, host: Host, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case RunTask(task_id, task):
                    self.begun.append((path, task_id, task))
                    for at, outcome in enumerate(self.does(path, task)):
                        self._give_later((at + 1) * DELAY, path, TaskProgressed(task_id, outcome))
                case CancelTask(task_id):
                    self.cancelled.append((path, task_id))
                case OpenLink(peer):
                    self.dialled.append((path, peer.path))
                case CloseLink(peer):
                    self.closed.append((path, peer.path))
                case _:
                    pass
        heard = [one for one in effects if not (isinstance(one, SendMessage) and self.loses(path, one.peer.path))]
        super()._perform(path, host, heard)


TIMEOUT = 5 * SECOND
