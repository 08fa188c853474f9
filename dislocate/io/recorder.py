"""The recorder: writes a live node's inputs to a file that `core.recording` replays.

A frame is written before the node sees its input and is on its way to the disk at most `FLUSH_PERIOD` and an input later
(inputs come at least each second), so a killed process loses its last second or two.  A recorder that cannot write says
so once and stops; the agent goes on.  So does one whose file has grown to its limit: it ends in good order and replays up
to there, since a recording without its beginning replays nothing.  The file is private to the agent's user: it holds what
registrations hold.
"""

import logging
import os
from collections.abc import Callable
from io import BufferedWriter
from itertools import count
from pathlib import Path as FilePath

import dislocate
from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.inputs import Input
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.errors import ConfigError
from dislocate.core.recording import FORMAT, EffectsDigest, Ended, Frame, Header, Step, encode_frame
from dislocate.core.units import SECOND

FLUSH_PERIOD = 1 * SECOND
BUFFER = 256 << 10  # bytes
LIMIT = 1 << 30  # bytes of one file

log = logging.getLogger(__name__)


class Recorder:
    """One recording, from the node's making to its end.  Raises `ConfigError` when the file cannot be made."""

    def __init__(self, path: FilePath, settings: Settings, seed: str, recovered: Recovered, limit: int = LIMIT) -> None:
        self._path = path
        self._left = limit  # bytes
        self._digest = EffectsDigest()
        self._flushed = 0
        self._file: BufferedWriter | None = _create(path)
        self._write(
            Header(format=FORMAT, version=dislocate.__version__, settings=settings, seed=seed, recovered=recovered)
        )

    def before(self, input_: Input | None, now: int) -> None:
        """The node is about to be given `input_` (None: to be started)."""
        if self._left <= 0 and self._file is not None:
            log.warning(
                "recording to %s is as long as it may be: it replays up to here, and the agent goes on", self._path
            )
            self.close()
        self._write(Step(now, self._digest.value(), input_))
        if now - self._flushed >= FLUSH_PERIOD:
            self._flushed = now
            self.flush()

    def after(self, effects: list[Effect]) -> None:
        """What it did."""
        self._digest.add(effects)

    def flush(self) -> None:
        if self._file is not None:
            self._attempt(self._file.flush)

    def close(self) -> None:
        """An orderly end."""
        self._write(Ended(self._digest.value()))
        self.abandon()

    def abandon(self) -> None:
        """An end in the middle: the last frame is what the node could not handle."""
        if self._file is not None:
            self._attempt(self._file.close)
            self._file = None

    def _write(self, frame: Frame) -> None:
        file = self._file
        if file is not None:
            data = encode_frame(frame)
            self._left -= len(data)
            self._attempt(lambda: file.write(data))

    def _attempt(self, act: Callable[[], object]) -> None:
        try:
            act()
        except OSError as error:
            log.error("recording to %s ends here: %s", self._path, error)
            if self._file is not None:
                self._file.raw.close()  # the file itself: its buffer would try, and fail, again
            self._file = None


def _create(path: FilePath) -> BufferedWriter:
    """A new file; an older one of that name is kept as FILE.1, FILE.2 ..."""
    try:
        if path.is_file():
            kept = next(p for p in (path.with_name(f"{path.name}.{n}") for n in count(1)) if not p.exists())
            path.rename(kept)
            log.info("the earlier recording is now %s", kept)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigError(
            "--record", got=f"{path}: {error.strerror}", expected="a file in a directory that this user may write"
        ) from error
    return os.fdopen(descriptor, "wb", buffering=BUFFER)
