"""Drafts: what is about to take the place of a file, written beside it so that it gets there at once.

Invariants: until it takes its place nobody but the agent's own user may read a draft, whatever the file's mode is to be; the
path has its old content or its new one, whole, with mode and owner; and after `put` returned the new one survives a power
cut.  One whose agent was killed has a note on the disk, and is discarded by the next agent before anything else.

    DIR/.NAME.dislocate             the draft of DIR/NAME
    state_dir/drafts/DIGEST         its path
"""

import os
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path as FilePath

from dislocate.host.before import make_private, sync_directory
from dislocate.host.paths import Seen, refusal

NAME_LIMIT = 255  # bytes, of Linux
_OWN = 0o600  # with the right to be run where the file has it: a script may be what validates itself


class Draft:
    """That of the file at `path`, noted below `state_dir` (None: nobody will come and look for it).  Its methods wait for the
    disk: call them in a thread."""

    def __init__(self, state_dir: FilePath | None, path: str) -> None:
        self.path = draft_path(path)
        self._of = path
        self._note = None if state_dir is None else state_dir / "drafts" / _digest(path)
        self._wanted = Seen(0, 0, 0)
        self._is_given_up = False

    def write(self, wanted: Seen) -> None:
        """Raises `Failure`."""
        self._wanted = wanted
        if self._note is not None:
            make_private(self._note.parent)
            self._note.write_text(str(self.path))  # not synced: a draft that a power cut leaves is private still
        try:
            self.path.unlink(missing_ok=True)
            descriptor = os.open(
                self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, _OWN | wanted.mode & 0o100
            )
            with os.fdopen(descriptor, "wb") as file:
                file.write(wanted.content)
        except OSError as error:
            self.discard()
            raise refusal(self._of, error) from None
        if self._is_given_up:  # while this thread wrote; see `discard`
            self.discard()

    def put(self) -> None:
        """Let it take its place, durable.  Raises `Failure`."""
        wanted = self._wanted
        try:
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                found = os.fstat(descriptor)  # a directory may give its group to what is made in it
                if (found.st_uid, found.st_gid) != (wanted.uid, wanted.gid):
                    os.fchown(descriptor, wanted.uid, wanted.gid)
                os.fchmod(descriptor, wanted.mode)  # after the owner: changing that takes setuid bits away
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            self.path.rename(self._of)
            sync_directory(FilePath(self._of).parent)
        except OSError as error:
            self.discard()
            raise refusal(self._of, error) from None
        self._forget()

    def discard(self) -> None:
        """Also one that is being written in a thread that nobody waits for any more."""
        self._is_given_up = True
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        self._forget()

    def _forget(self) -> None:
        if self._note is not None:
            with suppress(OSError):
                self._note.unlink(missing_ok=True)


def draft_path(path: str) -> FilePath:
    directory, name = os.path.split(path)
    draft = f".{name}.dislocate"
    if len(os.fsencode(draft)) > NAME_LIMIT:
        draft = f".{_digest(name)}.dislocate"
    return FilePath(directory, draft)


def discard_drafts(state_dir: FilePath) -> None:
    """Those that an agent left behind that was killed."""
    for note in (state_dir / "drafts").glob("*"):
        with suppress(OSError):
            path = FilePath(note.read_text())
            if path.name.endswith(".dislocate"):  # a note may be empty: it was about to be written
                path.unlink(missing_ok=True)
            note.unlink()


def _digest(text: str) -> str:
    return blake2b(os.fsencode(text), digest_size=16).hexdigest()
