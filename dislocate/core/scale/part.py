"""The scaling part of an agent: the decisions of the store's leader, and what is carried out here."""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.runs import TaskOutcome
from dislocate.core.outbox import Outbox
from dislocate.core.runs.door import StoreDoor
from dislocate.core.runs.part import Fleet
from dislocate.core.scale.carrying import Carrying
from dislocate.core.scale.facts import FlowsDoor
from dislocate.core.scale.leading import ScaleLeading


class ScalePart:
    """One agent's."""

    def __init__(self, out: Outbox, store: StoreDoor, fleet: Fleet, flows: FlowsDoor) -> None:
        self.leading = ScaleLeading(out, store, fleet, flows)
        self._carrying = Carrying(out, store, fleet)

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {**self.leading.timers(), **self._carrying.timers()}

    def start(self) -> None:
        self.leading.start()
        self._carrying.start()

    def task_progressed(self, task_id: str, outcome: TaskOutcome) -> bool:
        """Whether it was a task of scaling."""
        return self._carrying.task_progressed(task_id, outcome)

    def why(self, service: str, datacenter: str) -> str:
        """Why a size is as it is, as the leader sees it now; empty where this agent does not lead."""
        return self.leading.why(service, datacenter)
