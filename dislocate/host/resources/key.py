"""A key of the store with a value: set by whichever node comes first, by compare-and-set, so that nobody else is overwritten.

A revert puts back what the key held before, on the node that changed it and while it still has the value of the run.
"""

from dislocate.core.boundary.requests import Refused, Request, Result
from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.spec import Key
from dislocate.core.boundary.store import (
    Compare,
    Delete,
    Field,
    KeysRead,
    KeyValue,
    Put,
    ReadKeys,
    Transact,
    Transacted,
    Uncertain,
)
from dislocate.host.before import KeyImage, Nothing
from dislocate.host.differences import difference
from dislocate.host.digests import ABSENT, digest_of
from dislocate.host.threads import in_thread
from dislocate.host.work import Failure, Work, about

ATTEMPTS = 5  # after others who set the same key in the moment between reading and writing


def look(work: Work, resource: Key) -> TaskOutcome:
    there = _read(work, resource.key)
    before, after = _digest(there), _digest_of(resource.value.encode())
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    shown = difference(resource.key, None if there is None else there.value, resource.value) if work.task.diff else ""
    return TaskOutcome(TaskResult.WOULD_CHANGE, before=before, after=after, words="would be set", diff=shown)


def apply(work: Work, resource: Key) -> TaskOutcome:
    value = resource.value.encode()
    after = _digest_of(value)
    is_image_ours = False
    doubtful: str | None = None  # digest of before a write whose answer never came
    for _ in range(ATTEMPTS):
        there = _read(work, resource.key)
        before = _digest(there)
        if before == after and doubtful is not None:  # it was most likely ours: a revert has to know of it
            return TaskOutcome(TaskResult.CHANGED, before=doubtful, after=after, words="was set")
        if before == after:
            return TaskOutcome(TaskResult.SAME, before=before, after=after)
        is_image_ours = in_thread(_remember, work, resource, there, is_image_ours) or is_image_ours
        wrote = _write(work, there, resource.key, Put(resource.key, value))
        if wrote:
            return TaskOutcome(TaskResult.CHANGED, before=before, after=after, words="was set")
        doubtful = before if wrote is None else doubtful
    raise _contended(resource.key)


def revert(work: Work, resource: Key) -> TaskOutcome:
    image = in_thread(work.house.images.find, work.task.run, about(resource))
    if not isinstance(image, KeyImage | Nothing):
        raise Failure("lost", f"what {resource.key} was before this run is not kept any more; put it back by hand")
    for _ in range(ATTEMPTS):
        there = _read(work, resource.key)
        wanted = image.value if isinstance(image, KeyImage) else None
        before, after = _digest(there), ABSENT if wanted is None else _digest_of(wanted)
        if before == after:
            return TaskOutcome(TaskResult.SAME, before=before, after=after)
        if there is None or there.value != resource.value.encode():
            words = f"{resource.key} was changed again since, so it was left"
            return TaskOutcome(TaskResult.LEFT, before=before, after=before, words=words)
        change = Delete(resource.key) if wanted is None else Put(resource.key, wanted)
        if _write(work, there, resource.key, change):
            return TaskOutcome(TaskResult.CHANGED, before=before, after=after, words="was put back")
    raise _contended(resource.key)


def _read(work: Work, key: str) -> KeyValue | None:
    result = _ask(work, ReadKeys(key))
    if not isinstance(result, KeysRead):
        raise _refused(result)
    return result.keys[0] if result.keys else None


def _write(work: Work, there: KeyValue | None, key: str, change: Put | Delete) -> bool | None:
    """False: somebody else changed it meanwhile; None: it cannot be told whether we did."""
    seen = Compare(key, Field.MODIFIED, number=0 if there is None else there.modified)
    result = _ask(work, Transact(compares=(seen,), then=(change,)))
    if isinstance(result, Uncertain):
        return None
    if not isinstance(result, Transacted):
        raise _refused(result)
    return result.succeeded


def _ask(work: Work, request: Request) -> Result:
    try:
        return work.house.ask(request)
    except TimeoutError:
        raise Failure("apply", "the store did not answer in time; see `dislocate servers list`") from None


def _refused(result: Result) -> Failure:
    words = result.reason if isinstance(result, Refused | Uncertain) else f"the store answered {type(result).__name__}"
    return Failure("apply", f"the store: {words}")


def _contended(key: str) -> Failure:
    return Failure("apply", f"{key} was changed by others {ATTEMPTS} times in a row; who else sets it?")


def _remember(work: Work, resource: Key, there: KeyValue | None, over: bool) -> bool:
    image = Nothing() if there is None else KeyImage(there.value)
    return work.house.images.keep(work.task.run, about(resource), image, over)


def _digest(there: KeyValue | None) -> str:
    return ABSENT if there is None else _digest_of(there.value)


def _digest_of(value: bytes) -> str:
    return digest_of("key", value)
