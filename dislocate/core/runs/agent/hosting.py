"""Hosting: what this agent does for who visits it: the tasks of each visit one after the other, until one fails.

Invariant: who asked is told each outcome in order and then, once, that this was all; nobody's task goes on when the asker is
gone.  So many visits at a time and no more, since each may be a process of this host.  Visitors are members of the fleet, on
links that prove who they are; whether a person may send them is decided where that person asks.
"""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from dislocate.core.boundary.runs import Task, TaskOutcome, TaskResult
from dislocate.core.identity import Address, NodeId
from dislocate.core.outbox import Outbox
from dislocate.core.runs.messages import VisitAnswered, VisitAsked, VisitEnded, VisitOutput

VISITS_HOSTED = 8  # at a time: several operators, and their mistakes
TASKS_A_VISIT = 256  # a specification has fewer resources
OWNER = "visited"

Visitor: TypeAlias = tuple[NodeId | None, int]  # who asks (None: this agent itself), and its number for it
Tell: TypeAlias = Callable[[TaskOutcome], None]
Over: TypeAlias = Callable[[str], None]  # told why not all was done; '' when it was


class Hosted(Struct, eq=False):
    """One visit."""

    tasks: tuple[Task, ...]
    tell: Tell
    over: Over
    at: int = 0  # position of the task that is done now
    task_id: str = ""


class Hosting:
    """The visits of one agent's host."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._hosted: dict[Visitor, Hosted] = {}
        self._by_task: dict[str, Visitor] = {}
        self._tasks = 0

    def __len__(self) -> int:
        return len(self._hosted)

    def begin(self, visitor: Visitor, tasks: tuple[Task, ...], tell: Tell, over: Over) -> None:
        """Do `tasks`; `over` is called once, unless the visit is ended first."""
        if len(self._hosted) >= VISITS_HOSTED:
            over(f"it serves {VISITS_HOSTED} visits already: ask again in a moment")
        elif len(tasks) > TASKS_A_VISIT:
            over(f"a visit has at most {TASKS_A_VISIT} tasks")
        elif not tasks:
            over("")
        else:
            hosted = self._hosted[visitor] = Hosted(tasks, tell, over)
            self._run(visitor, hosted)

    def end(self, visitor: Visitor) -> None:
        """Nobody waits for it any more."""
        hosted = self._hosted.pop(visitor, None)
        if hosted is not None:
            self._by_task.pop(hosted.task_id, None)
            self._out.cancel_task(hosted.task_id)

    def _run(self, visitor: Visitor, hosted: Hosted) -> None:
        self._tasks += 1
        hosted.task_id = f"visit/{self._tasks}"
        self._by_task[hosted.task_id] = visitor
        self._out.run_task(hosted.task_id, hosted.tasks[hosted.at])

    def task_progressed(self, task_id: str, outcome: TaskOutcome) -> bool:
        """Whether it was a task of a visit."""
        if not task_id.startswith("visit/"):
            return False
        visitor = self._by_task.get(task_id)
        if visitor is None:
            return True  # of one that has ended
        hosted = self._hosted[visitor]
        hosted.tell(outcome)
        if outcome.result is TaskResult.OUTPUT:
            return True
        del self._by_task[task_id]
        hosted.at += 1
        if outcome.result is TaskResult.FAILED or hosted.at == len(hosted.tasks):
            del self._hosted[visitor]
            hosted.over("")
        else:
            self._run(visitor, hosted)
        return True

    # ---- for others

    def on_asked(self, sender: NodeId, source: Address | None, body: VisitAsked) -> None:
        visitor = (sender, body.visit)
        if source is not None or visitor in self._hosted:
            self._out.drop(sender.path, "a visit that no agent asks for")
            return

        def over(refused: str) -> None:
            self._out.send_message(sender, VisitAnswered(body.visit, refused))
            self._let_go(sender)

        self._out.claim_link(sender, OWNER)
        self.begin(visitor, body.tasks, lambda outcome: self._tell(sender, body.visit, outcome), over)

    def on_ended(self, sender: NodeId, source: Address | None, body: VisitEnded) -> None:
        if source is None:
            self.end((sender, body.visit))
            self._let_go(sender)

    def link_lost(self, peer: NodeId) -> None:
        """Nobody there hears of its visits any more."""
        for visitor in [one for one in self._hosted if one[0] == peer]:
            self.end(visitor)

    def _tell(self, sender: NodeId, visit: int, outcome: TaskOutcome) -> None:
        self._out.send_message(sender, VisitOutput(visit, outcome))

    def _let_go(self, peer: NodeId) -> None:
        if not any(asker == peer for asker, _ in self._hosted):
            self._out.release_link(peer, owner=OWNER)
