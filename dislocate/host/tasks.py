"""Tasks: what the core asks this host to do, each in a greenlet of its own.

Invariants: every task that is not cancelled is answered by exactly one outcome that is the last, within its resource's timeout
and a second, whatever it meets; nothing that goes wrong in one reaches the agent or another task; what people are told holds
no secret.  At most `AT_ONCE` are carried out at a time; further ones wait for a place within their own time.

Decides nothing about order, grants or repetition: that is `core.runs.agent.worker`.
"""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath

import gevent
import msgspec
from gevent.lock import BoundedSemaphore

from dislocate.core.boundary.effects import CancelTask, RunTask
from dislocate.core.boundary.inputs import Input, TaskProgressed
from dislocate.core.boundary.runs import Task, TaskOutcome, TaskResult, TaskVerb
from dislocate.core.boundary.views import InstanceView
from dislocate.core.units import SECOND, format_duration
from dislocate.core.words import LEFT_OUT
from dislocate.host.before import Definition, Images
from dislocate.host.differences import cut
from dislocate.host.places import as_written, placed
from dislocate.host.presence import Presence
from dislocate.host.programs import WORDS
from dislocate.host.rendering import Renderer
from dislocate.host.resources import carry_out
from dislocate.host.secrets import Keys, Secrets
from dislocate.host.supervise import Supervisor
from dislocate.host.threads import in_thread
from dislocate.host.work import SYSTEMD, Asks, Failure, House, Work

AT_ONCE = 16  # tasks that are carried out; a run has one on a node, visits have some
GRACE = 0.5  # seconds after its own time until a task is given up from outside

log = logging.getLogger(__name__)


class Tasks:
    """Those of one agent.  `deliver` takes what comes back."""

    def __init__(
        self,
        state_dir: FilePath,
        *,
        facts: Callable[[], Mapping[str, object]],
        ask: Asks,
        deliver: Callable[[Input], object],
        open_secret: Callable[[bytes], bytes],
        keys: Keys,
        instances: Callable[[str], tuple[InstanceView, ...]] | None = None,
        address: str = "127.0.0.1",
        systemd: FilePath = SYSTEMD,
    ) -> None:
        """`ask` asks the agent's own node and waits; `instances` are those of this node by service (None: there is no catalog
        that could be waited for); `address` is where others reach this host."""
        self._deliver = deliver
        self._open_secret = open_secret
        self._keys = keys
        presence = Presence(ask=ask, instances=instances, address=address)
        self._supervisor = Supervisor(state_dir, presence=presence, fill_in=self._fill_in, secrets_of=self._secrets_of)
        self._house = House(
            state_dir=state_dir,
            images=Images(state_dir),
            facts=facts,
            ask=ask,
            instances=instances or (lambda service: ()),
            processes=self._supervisor,
            renderer=Renderer(),
            keys=keys,
            shown_environment=self._fill_in_shown,
            systemd=systemd,
        )
        self._places = BoundedSemaphore(AT_ONCE)
        self._under_way: dict[str, gevent.Greenlet] = {}

    def start(self) -> None:
        """Look after the processes of this agent again; the node must be about to answer."""
        self._supervisor.start()

    def run(self, effect: RunTask) -> None:
        """Begin it; one of the same id that is under way is given up."""
        self.cancel(CancelTask(effect.task_id))
        self._under_way[effect.task_id] = gevent.spawn(self._carry_out, effect.task_id, effect.task)

    def cancel(self, effect: CancelTask) -> None:
        """End it, with the programs that it runs; nothing is told any more."""
        greenlet = self._under_way.pop(effect.task_id, None)
        if greenlet is not None:
            greenlet.kill(block=False)

    def close(self) -> None:
        """End all of them; supervised processes live on."""
        self._supervisor.stop()  # first: a change that is cut short is the next agent's affair
        gevent.killall(tuple(self._under_way.values()))
        self._under_way.clear()

    def _fill_in(self, definition: Definition) -> dict[str, str]:
        """The environment of a supervised process, with its secrets.  Raises `Failure`."""
        return self._work_on(definition).render_environment(definition.resource.environment)

    def _fill_in_shown(self, definition: Definition) -> dict[str, str]:
        try:
            return self._work_on(definition).render_environment_shown(definition.resource.environment)
        except Failure:  # a secret of then that cannot be opened any more
            return definition.resource.environment

    def _work_on(self, definition: Definition) -> Work:
        task = Task(TaskVerb.LOOK, definition.resource, "", definition.values, definition.secrets)
        return Work(self._house, task, self._secrets_of(definition))

    def _secrets_of(self, definition: Definition) -> Secrets:
        return Secrets(definition.secrets, self._open_secret, self._keys)

    def _carry_out(self, task_id: str, task: Task) -> None:
        began = time.monotonic_ns()
        secrets = Secrets(task.secrets, self._open_secret, self._keys)

        def tell(piece: bytes) -> None:
            self._deliver(TaskProgressed(task_id, TaskOutcome(TaskResult.OUTPUT, output=piece)))

        outcome = self._outcome(task, secrets, tell if task.stream else None)
        outcome = msgspec.structs.replace(
            outcome,
            words=_clipped(secrets.hide(outcome.words)),
            diff=cut(secrets.hide(outcome.diff)) if task.diff and task.verb is TaskVerb.LOOK else "",
            took=time.monotonic_ns() - began,
        )
        if self._under_way.get(task_id) is gevent.getcurrent():
            del self._under_way[task_id]
            self._deliver(TaskProgressed(task_id, outcome))

    def _outcome(self, task: Task, secrets: Secrets, tell: Callable[[bytes], None] | None) -> TaskOutcome:
        """What became of it; never raises but to end this greenlet."""
        timeout = gevent.Timeout(task.resource.timeout / SECOND + GRACE)
        try:
            with timeout, self._places:
                resource = placed(task.resource, self._house.facts())
                in_thread(self._house.images.want, task.run)
                work = Work(self._house, msgspec.structs.replace(task, resource=resource), secrets, tell)
                outcome = carry_out(work)
                return msgspec.structs.replace(outcome, diff=as_written(outcome.diff, task.resource, resource))
        except LookupError as missing:
            words = f"this node has no fact {missing}: its path begins with one"
            return TaskOutcome(TaskResult.FAILED, kind="render", words=words)
        except Failure as failure:
            return TaskOutcome(TaskResult.FAILED, kind=failure.kind, words=failure.words, code=failure.code)
        except gevent.Timeout as late:
            if late is not timeout:
                raise
            within = format_duration(task.resource.timeout)
            words = f"it did not end within {within} and was given up; look at it, or give it a longer `timeout`"
            return TaskOutcome(TaskResult.FAILED, kind="timeout", words=words)
        except OSError as error:
            return TaskOutcome(TaskResult.FAILED, kind="apply", words=str(error))
        except Exception as bug:
            log.exception("a task met a bug: %s", type(task.resource).__name__)
            return TaskOutcome(
                TaskResult.FAILED, kind="apply", words=f"a bug of Dislocate: {type(bug).__name__}: {bug}"
            )


def _clipped(words: str) -> str:
    """In at most `WORDS` bytes; its end is kept above all, where a program says what was wrong."""
    data = words.encode()
    if len(data) <= WORDS:
        return words
    head, tail = data[: WORDS // 3], data[WORDS // 3 + len(LEFT_OUT) - WORDS :]
    return head.decode(errors="ignore") + LEFT_OUT + tail.decode(errors="ignore")
