"""A directory that exists, with its mode and owner; what is in it is others' affair.

A revert removes one that the run made only while it is empty.
"""

import errno
import os
from pathlib import Path as FilePath

from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.spec import Directory
from dislocate.host import paths
from dislocate.host.before import DirectoryImage, Nothing, sync_directory
from dislocate.host.digests import ABSENT, digest_of
from dislocate.host.paths import OwnerUnknown, Seen
from dislocate.host.threads import in_thread
from dislocate.host.work import Failure, Work, about


def look(work: Work, resource: Directory) -> TaskOutcome:
    seen = in_thread(paths.see_directory, resource.path)
    before = _digest(seen)
    try:
        wanted = _wanted(resource)
    except OwnerUnknown as unknown:
        return TaskOutcome(TaskResult.WOULD_CHANGE, before=before, words=unknown.words)
    after = _digest(wanted)
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    return TaskOutcome(
        TaskResult.WOULD_CHANGE, before=before, after=after, words=_words(seen, wanted, "would be created")
    )


def apply(work: Work, resource: Directory) -> TaskOutcome:
    seen = in_thread(paths.see_directory, resource.path)
    wanted = _wanted(resource)
    before, after = _digest(seen), _digest(wanted)
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    in_thread(_remember, work, resource, seen)
    in_thread(_make, resource.path, wanted, seen is None)
    if _digest(in_thread(paths.see_directory, resource.path)) != after:
        raise Failure("verify", f"{resource.path} is not as it was made; does something else change it too?")
    return TaskOutcome(TaskResult.CHANGED, before=before, after=after, words=_words(seen, wanted, "was created"))


def revert(work: Work, resource: Directory) -> TaskOutcome:
    image = in_thread(work.house.images.find, work.task.run, about(resource))
    if not isinstance(image, DirectoryImage | Nothing):
        raise Failure("lost", f"how {resource.path} was before this run is not kept any more; put it back by hand")
    seen = in_thread(paths.see_directory, resource.path)
    wanted = Seen(image.mode, image.uid, image.gid) if isinstance(image, DirectoryImage) else None
    before, after = _digest(seen), _digest(wanted)
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    if wanted is None:
        if not in_thread(_remove, resource.path):
            return TaskOutcome(
                TaskResult.LEFT, before=before, after=before, words=f"{resource.path} is not empty, so it was left"
            )
        return TaskOutcome(TaskResult.CHANGED, before=before, after=after, words="was removed")
    in_thread(_make, resource.path, wanted, seen is None)
    return TaskOutcome(TaskResult.CHANGED, before=before, after=after, words=_words(seen, wanted, "was created"))


def _wanted(resource: Directory) -> Seen:
    return Seen(paths.resolve_mode(resource.mode), *paths.resolve_owner(resource.owner))


def _digest(seen: Seen | None) -> str:
    return ABSENT if seen is None else digest_of("directory", oct(seen.mode), f"{seen.uid}:{seen.gid}")


def _remember(work: Work, resource: Directory, seen: Seen | None) -> None:
    image = Nothing() if seen is None else DirectoryImage(seen.mode, seen.uid, seen.gid)
    work.house.images.keep(work.task.run, about(resource), image)


def _make(path: str, wanted: Seen, is_new: bool) -> None:
    try:
        if is_new:
            os.mkdir(path, 0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)  # what stands there may be exchanged
        try:
            found = os.fstat(descriptor)
            if (found.st_uid, found.st_gid) != (wanted.uid, wanted.gid):
                os.fchown(descriptor, wanted.uid, wanted.gid)
            os.fchmod(descriptor, wanted.mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(FilePath(path).parent)
    except OSError as error:
        raise paths.refusal(path, error) from None


def _remove(path: str) -> bool:
    try:
        os.rmdir(path)
        sync_directory(FilePath(path).parent)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise paths.refusal(path, error) from None
    return True


def _words(seen: Seen | None, wanted: Seen, created: str) -> str:
    if seen is None:
        return f"{created}, mode {wanted.mode:04o}"
    said = []
    if seen.mode != wanted.mode:
        said.append(f"mode {seen.mode:04o} -> {wanted.mode:04o}")
    if (seen.uid, seen.gid) != (wanted.uid, wanted.gid):
        said.append(f"owner {seen.uid}:{seen.gid} -> {wanted.uid}:{wanted.gid}")
    return ", ".join(said)
