"""A file: rendered, validated beside its place, and put there at once.

The digest is of content, mode and owner.  Order of an APPLY: draft, validate, before-image, rename; so a template or a
validation that fails leaves the file and the image as they were.

A REVERT is a return to before the run, also where somebody edited the file since: the file is the run's, as `enforce` has it,
and what does harm must not stay because something else wrote there too.  What was edited is kept, and where is told.
"""

import stat

from msgspec import Struct

from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.spec import File
from dislocate.host import paths
from dislocate.host.before import FileImage, Nothing
from dislocate.host.differences import difference, secretive_difference, unified
from dislocate.host.digests import ABSENT, digest_of
from dislocate.host.drafts import Draft
from dislocate.host.paths import OwnerUnknown, Seen
from dislocate.host.programs import run_program
from dislocate.host.threads import in_thread
from dislocate.host.work import Failure, Work, about


class _Wanted(Struct, frozen=True):
    seen: Seen
    text: str
    shown: str  # with marks in place of secrets
    is_secretive: bool


def look(work: Work, resource: File) -> TaskOutcome:
    seen = in_thread(paths.see_file, resource.path)
    before = _digest(work, seen)
    try:
        wanted = _wanted(work, resource)
    except OwnerUnknown as unknown:
        return TaskOutcome(TaskResult.WOULD_CHANGE, before=before, words=unknown.words)
    after = _digest(work, wanted.seen)
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    shown = in_thread(_difference, work, resource, seen, wanted) if work.task.diff else ""
    words = _words(seen, wanted.seen, "would be")
    if wanted.is_secretive and wanted.seen.mode & stat.S_IROTH:
        words += "; it holds a secret that every user of the host may read: give it a `mode`, such as '0600'"
    return TaskOutcome(TaskResult.WOULD_CHANGE, before=before, after=after, words=words, diff=shown)


def apply(work: Work, resource: File) -> TaskOutcome:
    seen = in_thread(paths.see_file, resource.path)
    wanted = _wanted(work, resource)
    before, after = _digest(work, seen), _digest(work, wanted.seen)
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    draft = Draft(work.house.state_dir, resource.path)
    try:
        in_thread(draft.write, wanted.seen)
        if resource.validate:
            _validate(work, resource, str(draft.path))
        in_thread(_remember, work, resource, seen, wanted.is_secretive)
        in_thread(draft.put)
    except BaseException:  # also when nobody waits any more
        draft.discard()
        raise
    _verify(work, resource.path, after)
    return TaskOutcome(TaskResult.CHANGED, before=before, after=after, words=_words(seen, wanted.seen, "was"))


def revert(work: Work, resource: File) -> TaskOutcome:
    image = in_thread(work.house.images.find, work.task.run, about(resource))
    if not isinstance(image, FileImage | Nothing):
        raise Failure("lost", f"how {resource.path} was before this run is not kept any more; put it back by hand")
    in_thread(Draft(work.house.state_dir, resource.path).discard)
    seen = in_thread(paths.see_file, resource.path)
    wanted = Seen(image.mode, image.uid, image.gid, image.content) if isinstance(image, FileImage) else None
    before, after = _digest(work, seen), _digest(work, wanted)
    if before == after:
        return TaskOutcome(TaskResult.SAME, before=before, after=after)
    result, words = TaskResult.CHANGED, _words(seen, wanted, "was")
    if seen is not None and work.task.made not in ("", before):
        kept = in_thread(work.house.images.keep_edited, work.task.run, resource.path, seen.content)
        result, words = TaskResult.REPLACED, f"{words}; it was changed since the run, and what it was then is in {kept}"
    if wanted is None:
        in_thread(paths.remove_file, resource.path)
    else:
        _put(Draft(work.house.state_dir, resource.path), wanted)
    _verify(work, resource.path, after)
    return TaskOutcome(result, before=before, after=after, words=words)


def _put(draft: Draft, wanted: Seen) -> None:
    try:
        in_thread(draft.write, wanted)
        in_thread(draft.put)
    except BaseException:  # also when nobody waits any more
        draft.discard()
        raise


def _wanted(work: Work, resource: File) -> _Wanted:
    text = work.render(resource.content, "content")
    is_secretive = bool(work.secrets.used)
    shown = work.render_shown(resource.content, "content") if is_secretive else text
    mode = paths.resolve_mode(resource.mode)
    uid, gid = paths.resolve_owner(resource.owner)
    return _Wanted(Seen(mode, uid, gid, text.encode()), text, shown, is_secretive)


def _validate(work: Work, resource: File, new: str) -> None:
    command = [part.replace("{path}", new) for part in resource.validate]
    ended = run_program(work, command)
    if ended.code != 0:
        raise Failure(
            "validate",
            f"{command[0]} does not accept the new {resource.path} ({ended.how}), so it was left as it is: {ended.words}",
            ended.code,
        )


def _remember(work: Work, resource: File, seen: Seen | None, is_secretive: bool) -> None:
    images = work.house.images
    if is_secretive:
        images.mark_secretive(resource.path)
    image = Nothing() if seen is None else FileImage(seen.mode, seen.uid, seen.gid, seen.content)
    images.keep(work.task.run, about(resource), image)


def _verify(work: Work, path: str, after: str) -> None:
    if _digest(work, in_thread(paths.see_file, path)) != after:
        raise Failure("verify", f"{path} is not as it was written; does something else write it too?")


def _digest(work: Work, seen: Seen | None) -> str:
    if seen is None:
        return ABSENT
    key = work.house.keys.digests
    return digest_of("file", oct(seen.mode), f"{seen.uid}:{seen.gid}", seen.content, key=key)


def _difference(work: Work, resource: File, seen: Seen | None, wanted: _Wanted) -> str:
    old = None if seen is None else seen.content
    if old == wanted.seen.content:
        return unified(resource.path, "", "")
    if wanted.is_secretive or work.house.images.is_secretive(resource.path):
        return secretive_difference(resource.path, old, wanted.text, wanted.shown, work.house.keys)
    return difference(resource.path, old, wanted.text)


def _words(seen: Seen | None, wanted: Seen | None, verb: str) -> str:
    if wanted is None:
        return f"{verb} removed"
    if seen is None:
        return f"{verb} created, {len(wanted.content)} bytes, mode {wanted.mode:04o}"
    said = []
    if seen.content != wanted.content:
        said.append(f"content {verb} replaced, {len(seen.content)} -> {len(wanted.content)} bytes")
    if seen.mode != wanted.mode:
        said.append(f"mode {seen.mode:04o} -> {wanted.mode:04o}")
    if (seen.uid, seen.gid) != (wanted.uid, wanted.gid):
        said.append(f"owner {seen.uid}:{seen.gid} -> {wanted.uid}:{wanted.gid}")
    return ", ".join(said)
