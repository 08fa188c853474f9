"""The simulated host: how its resources are, and what tasks do to them, as `dislocate.host` does it on a real one.

A resource is as good as the text that describes it; a digest of that is all that agents see.  What a task does happens at
one instant on the way, and is there whether the agent that asked lives on or not; a process that dies before that instant has
mostly, not always, taken its task with it.  Understands of commands `true`, `false` and `sleep N`, of files a content that
`breaks NAME` (a service of this host) and `validate`.  Knows no templates: what is rendered is the text itself.
"""

from collections.abc import Callable
from hashlib import blake2b

from msgspec import Struct

from dislocate.core.boundary.runs import Task, TaskOutcome, TaskResult, TaskVerb
from dislocate.core.boundary.scaling import Webhook
from dislocate.core.boundary.spec import Command, File, Process, Resource
from dislocate.core.runs.resources import resource_id
from dislocate.core.streams import Stream
from dislocate.core.units import MILLISECOND, SECOND

ABSENT = "absent"
BY_HAND = "by hand"
LOOK_TIME = 2 * MILLISECOND
TOUCH_TIME = 5 * MILLISECOND  # a file: write, sync, rename
SURVIVES = 0.3  # of what was under way when the agent died
TIMED_OUT = TaskOutcome(
    TaskResult.FAILED, kind="timeout", words="it took too long, and was ended before it had done anything"
)


class Effect(Struct, frozen=True):
    """Something that a task changed."""

    at: int
    run: str
    verb: TaskVerb
    resource: str  # id
    before: str
    after: str


class SimulatedHost(Struct):
    """What is on one host, whoever runs its agent."""

    states: dict[str, str] = {}  # by resource id; what is not there is absent
    before: dict[tuple[str, str], str] = {}  # (run, resource id): how it was before the run
    drifted: dict[str, None] = {}  # resource ids that somebody's hand changed since the last run did
    effects: list[Effect] = []
    told: Callable[[Effect], None] = lambda _effect: None  # hears of each
    is_failing: bool = False  # tasks that change something fail
    slowness: float = 1.0
    pace: Callable[[str], int | None] = lambda _run: None  # by run: what each resource takes, where that was measured

    def state(self, resource: str) -> str:
        return self.states.get(resource, ABSENT)

    def takes(self, task: Task, stream: Stream) -> int:
        """Nanoseconds that it takes."""
        if task.verb is TaskVerb.LOOK:
            return LOOK_TIME + stream.below(LOOK_TIME)
        takes = TOUCH_TIME
        if isinstance(task.resource, Command) and task.resource.run[0] == "sleep":
            takes = round(float(task.resource.run[1]) * SECOND)
        elif isinstance(task.resource, Process):
            takes = SECOND
        if (measured := self.pace(task.run)) is not None:
            return round(measured * self.slowness)
        return round((takes + stream.below(max(1, takes // 5))) * self.slowness)

    def look(self, task: Task) -> TaskOutcome:
        resource = resource_of(task)
        name, state, wanted = resource_id(resource), self.state(resource_id(resource)), digest_of(resource)
        if isinstance(resource, Command):
            return self._look_at_command(task, name)
        if isinstance(resource, File) and resource.validate[:1] == ("false",) and state != wanted:
            return TaskOutcome(TaskResult.WOULD_CHANGE, state, wanted)
        result = TaskResult.SAME if state == wanted else TaskResult.WOULD_CHANGE
        return TaskOutcome(result, state, wanted)

    def _look_at_command(self, task: Task, name: str) -> TaskOutcome:
        resource = task.resource
        assert isinstance(resource, Command)
        if resource.once:
            return TaskOutcome(TaskResult.WOULD_CHANGE)
        state = self.state(name)
        if resource.only_notified and not (resource.unless or resource.creates or resource.check):
            return TaskOutcome(TaskResult.UNTOLD)
        return TaskOutcome(TaskResult.SAME if state != ABSENT else TaskResult.WOULD_CHANGE, state, "run")

    def change(self, task: Task, now: int) -> TaskOutcome:
        """Do it."""
        resource = resource_of(task)
        name = resource_id(resource)
        before = self.state(name)
        if self.is_failing:
            return _failed("apply", "this host fails everything for now")
        if task.verb is TaskVerb.REVERT:
            return self._revert(task, name, now)
        if isinstance(resource, Command) and resource.run[0] == "false":
            return _failed("apply", "false: exit code 1")
        if isinstance(resource, File) and resource.validate[:1] == ("false",):
            return _failed("validate", "false: exit code 1")
        wanted = digest_of(resource)
        is_unguarded = isinstance(resource, Command) and (resource.once or resource.only_notified)
        if before == wanted and not is_unguarded:
            return TaskOutcome(TaskResult.SAME, before, wanted)
        self.before.setdefault((task.run, name), before)
        self._set(task, name, wanted, now)
        return TaskOutcome(TaskResult.CHANGED, before, wanted)

    def _revert(self, task: Task, name: str, now: int) -> TaskOutcome:
        resource = task.resource
        before = self.state(name)
        if isinstance(resource, Command) and not resource.revert:
            return TaskOutcome(TaskResult.LEFT, before, before)
        wanted = self.before.get((task.run, name))
        if wanted is None:
            return _failed("lost", "how it was before this run is not kept")
        if wanted == before:
            return TaskOutcome(TaskResult.SAME, before, before)
        self._set(task, name, wanted, now)
        return TaskOutcome(TaskResult.CHANGED, before, wanted)

    def _set(self, task: Task, name: str, wanted: str, now: int) -> None:
        effect = Effect(now, task.run, task.verb, name, self.state(name), wanted)
        self.effects.append(effect)
        self.drifted.pop(name, None)
        self.states[name] = wanted
        if wanted == ABSENT:
            del self.states[name]
        self.told(effect)

    def drift(self) -> None:
        """Somebody's hand changes every file."""
        for name in [name for name in self.states if name.startswith("file ")]:
            self.states[name] = BY_HAND
            self.drifted[name] = None

    def broken_services(self) -> tuple[str, ...]:
        """Services that what is on this host keeps from working."""
        return tuple(state.partition(" breaks ")[2] for state in self.states.values() if " breaks " in state)


def resource_of(task: Task) -> Resource:
    """Of a task of a run: webhooks are `sizes`' affair."""
    assert not isinstance(task.resource, Webhook)
    return task.resource


def digest_of(resource: Resource) -> str:
    """What a resource is when it is as it should be."""
    if isinstance(resource, Command):
        return "run"
    if isinstance(resource, File):
        words = f"{resource.content}\0{resource.mode}\0{resource.owner}"
        digest = blake2b(words.encode(), digest_size=8).hexdigest()
        breaks = resource.content.partition("breaks ")[2].partition("\n")[0].strip()
        return f"{digest} breaks {breaks}" if breaks else digest
    return blake2b(repr(resource).encode(), digest_size=8).hexdigest()


def _failed(kind: str, words: str) -> TaskOutcome:
    return TaskOutcome(TaskResult.FAILED, kind=kind, words=words)
