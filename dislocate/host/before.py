"""Before-images: how a thing was before a run changed it, so that a revert is a return and not a guess.

Invariants: an image is durable before the effect that it undoes; the first of a run stays, whatever is applied again; 'there
was nothing' is an image too.  Images are readable by the agent's own user only, whatever the file's mode was.

    state_dir/before/RUN/DIGEST     one image, MessagePack; DIGEST is of what the resource is about
    state_dir/before/RUN/NAME.DIGEST  a file that somebody edited after the run, as it was when the run was taken back
    state_dir/secretive/DIGEST      a file that once held a secret: its old lines are not shown any more

Images of the last `RUNS_KEPT` runs are kept, and of any that was wanted in the last hour: what is looked at for drift each
minute may be older than all of them.  Does not know how a thing is put back.
"""

import logging
import os
import shutil
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path as FilePath
from typing import TypeAlias
from urllib.parse import quote

import msgspec
from msgspec import Struct

from dislocate.core.boundary.spec import Process

RUNS_KEPT = 20  # with images; a revert of an older one is a new run
WANTED_WITHIN = 3600.0  # seconds: sixty looks for drift
NAME_KEPT = 50  # characters of a file's own name, for whoever looks for it
SIZE_LIMIT = 16 * 1024 * 1024  # bytes of one file: configuration is smaller, and what is larger is no configuration

log = logging.getLogger(__name__)


class Nothing(Struct, frozen=True, tag=1, array_like=True):
    """It was not there."""


class FileImage(Struct, frozen=True, tag=2, array_like=True):
    mode: int
    uid: int
    gid: int
    content: bytes


class DirectoryImage(Struct, frozen=True, tag=3, array_like=True):
    mode: int
    uid: int
    gid: int


class PackageImage(Struct, frozen=True, tag=4, array_like=True):
    version: str


class KeyImage(Struct, frozen=True, tag=5, array_like=True):
    value: bytes


class Definition(Struct, frozen=True, tag=6, array_like=True):
    """A process as it is to run, with all that it takes to start it again: secrets stay sealed."""

    resource: Process
    values: dict[str, str]
    secrets: dict[str, bytes]
    version: str  # digest of what makes a process another one
    digest: str  # of everything


Image: TypeAlias = Nothing | FileImage | DirectoryImage | PackageImage | KeyImage | Definition


class Images:
    """Those of one agent.  Its methods wait for the disk: call them in a thread."""

    def __init__(self, state_dir: FilePath) -> None:
        self._root = state_dir / "before"
        self._secretive = state_dir / "secretive"

    def keep(self, run: str, about: str, image: Image, over: bool = False) -> bool:
        """Make it durable, unless the run has an image of it; `over` replaces one that nothing came of.

        Outside of any run there is nothing to return to.  Returns whether it was written."""
        if not run or (not over and self.find(run, about) is not None):
            return False
        directory = self._directory(run)
        if not directory.exists():
            make_private(directory)
            self._forget_oldest()
        write_durably(directory / _name(about), msgspec.msgpack.encode(image))
        return True

    def want(self, run: str) -> None:
        """A task of this run is here: it is not over yet, or still says how this host is to be."""
        if run:
            with suppress(FileNotFoundError):
                os.utime(self._directory(run))

    def find(self, run: str, about: str) -> Image | None:
        try:
            data = (self._directory(run) / _name(about)).read_bytes()
            return msgspec.msgpack.decode(data, type=Image)
        except FileNotFoundError:
            return None
        except msgspec.DecodeError as error:  # a disk that lies, or a newer version of this agent
            log.error("the image of %s before run %s cannot be read: %s", about, run, error)
            return None

    def keep_edited(self, run: str, path: str, content: bytes) -> FilePath:
        """Keep what somebody made of the file at `path` after the run, as it is; where."""
        directory = self._directory(run)
        make_private(directory)
        place = directory / f"{FilePath(path).name[:NAME_KEPT]}.{_name(path)[:8]}"
        write_durably(place, content)
        return place

    def mark_secretive(self, path: str) -> None:
        """Remember that the file at `path` holds a secret, or did."""
        if not self.is_secretive(path):
            make_private(self._secretive)
            write_durably(self._secretive / _name(path), b"")

    def is_secretive(self, path: str) -> bool:
        return (self._secretive / _name(path)).exists()

    def _directory(self, run: str) -> FilePath:
        return self._root / quote(run, safe="").replace(".", "%2E")

    def _forget_oldest(self) -> None:
        runs = sorted(self._root.iterdir(), key=lambda run: run.stat().st_mtime_ns)
        for run in runs[:-RUNS_KEPT]:
            if time.time() - run.stat().st_mtime > WANTED_WITHIN:
                shutil.rmtree(run, ignore_errors=True)


def _name(about: str) -> str:
    return blake2b(about.encode(), digest_size=16).hexdigest()


def make_private(directory: FilePath) -> None:
    """A directory, durable with its parents, that others on the host cannot look into."""
    missing = [one for one in (directory, *directory.parents) if not one.exists()]
    for one in reversed(missing):
        with suppress(FileExistsError):
            one.mkdir(mode=0o700)
        sync_directory(one.parent)


def write_durably(path: FilePath, data: bytes, mode: int = 0o600) -> None:
    """Replace `path`: whole and durable, or as it was."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)
    draft.rename(path)
    sync_directory(path.parent)


def sync_directory(path: FilePath) -> None:
    """Make names in it durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
