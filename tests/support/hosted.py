"""This host as a task finds it, in a directory of the test: `hosted.apply(resource)` and what came of it."""

from collections.abc import Callable
from pathlib import Path as FilePath
from typing import Any

import gevent
import msgspec

from dislocate.core.boundary.effects import RunTask
from dislocate.core.boundary.inputs import TaskProgressed
from dislocate.core.boundary.requests import Done
from dislocate.core.boundary.runs import Task, TaskOutcome, TaskResult, TaskVerb
from dislocate.core.boundary.spec import Resource
from dislocate.host.seal import open_sealed, seal
from dislocate.host.secrets import Keys
from dislocate.host.tasks import Tasks
from dislocate.io.keyring import NodeKeys, load_node_keys

PATIENCE = 60.0  # seconds: a machine that runs everything else at once
FACTS = {"hostname": "web-1", "datacenter": "fra", "processors": 4}


def until(condition: Callable[[], Any], what: str = "") -> Any:
    """What `condition` gives once it is true."""
    with gevent.Timeout(PATIENCE, AssertionError(f"not within {PATIENCE} s: {what or condition}")):
        while not (found := condition()):
            gevent.sleep(0.01)
        return found


class Hosted:
    """`Tasks` over real files and processes."""

    def __init__(self, state_dir: FilePath, ask: Callable[[Any], Any] = lambda request: Done(), **options: Any) -> None:
        self.state_dir = state_dir
        self.told: list[TaskProgressed] = []
        self.keys: NodeKeys = load_node_keys(state_dir)
        self.tasks = Tasks(
            state_dir,
            facts=options.pop("facts", lambda: FACTS),
            ask=ask,
            deliver=self.told.append,
            open_secret=lambda sealed: open_sealed(sealed, self.keys.secret),
            keys=Keys(marks=options.pop("marks", b"of the fleet"), digests=self.keys.secret),
            **options,
        )
        self._asked = 0

    def stop(self) -> None:
        """As the agent of this directory would end; what it supervises lives on."""
        self.tasks.close()

    def begin(self, verb: TaskVerb, resource: Resource, run: str = "1", **fields: Any) -> str:
        """Its task id."""
        self._asked += 1
        task_id = f"run/{self._asked}"
        public_key = fields.pop("public_key", self.keys.public)
        secrets = {name: seal(value.encode(), public_key) for name, value in fields.pop("secrets", {}).items()}
        task = Task(verb, resource, run, secrets=secrets, **fields)
        self.tasks.run(RunTask(task_id, msgspec.msgpack.decode(msgspec.msgpack.encode(task), type=Task)))
        return task_id

    def last(self, task_id: str) -> TaskOutcome | None:
        """The outcome that is the last, if it came."""
        for progressed in self.told:
            if progressed.task_id == task_id and progressed.outcome.result is not TaskResult.OUTPUT:
                return progressed.outcome
        return None

    def output(self, task_id: str) -> bytes:
        return b"".join(progressed.outcome.output for progressed in self.told if progressed.task_id == task_id)

    def do(self, verb: TaskVerb, resource: Resource, run: str = "1", **fields: Any) -> TaskOutcome:
        task_id = self.begin(verb, resource, run, **fields)
        return until(lambda: self.last(task_id), f"{verb.value} {resource}")

    def look(self, resource: Resource, run: str = "1", **fields: Any) -> TaskOutcome:
        return self.do(TaskVerb.LOOK, resource, run, diff=True, **fields)

    def apply(self, resource: Resource, run: str = "1", **fields: Any) -> TaskOutcome:
        return self.do(TaskVerb.APPLY, resource, run, **fields)

    def revert(self, resource: Resource, run: str = "1", **fields: Any) -> TaskOutcome:
        return self.do(TaskVerb.REVERT, resource, run, **fields)
