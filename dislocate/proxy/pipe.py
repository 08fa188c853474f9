"""A kernel pipe that a direction's bytes run through without a copy in this process (splice)."""

import os

_FLAGS = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Pipe:
    """At most `size` bytes, in at one end and out at the other.  Raises OSError where no descriptors are left."""

    __slots__ = ("_in", "_out", "_size", "held")

    def __init__(self, size: int) -> None:
        self._out, self._in = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._size = size  # a new pipe's own, unless the user has thousands of them: then it takes less at a time
        self.held = 0  # bytes that are in it

    def fill(self, source: int) -> int:
        """Let in what the socket `source` has; 0: it has ended.  The pipe must be empty.  Raises OSError."""
        self.held = os.splice(source, self._in, self._size, flags=_FLAGS)
        return self.held

    def pour(self, sink: int) -> None:
        """Let out what the socket `sink` takes.  Raises OSError, BlockingIOError where it takes nothing."""
        while self.held:
            self.held -= os.splice(self._out, sink, self.held, flags=_FLAGS)

    def close(self) -> None:
        os.close(self._in)
        os.close(self._out)
