"""The reserve: space beside state.db, kept so that an agent can be started while its disk is full.

A start makes the number of this start durable, and SQLite its index; both need a few pages.  Who finds no space for them
releases the reserve, and keeps what is left of it as soon as that is done, so that the next start finds some too.

Invariant: a whole reserve is made only where there is much more space than that; it takes none from what is to be stored.
"""

import errno
import os
import shutil
from pathlib import Path as FilePath

NAME = "state.reserve"
SIZE = 256 << 10  # bytes: an index of 32 KiB and the log of about twenty starts
PIECE = 16 << 10  # bytes written at a time
PLENTY = 16 * SIZE  # bytes of free space from which on a reserve is made


class Reserve:
    """That of one state directory.  An error of the disk leaves it as it is: it is `Disk` that speaks of errors."""

    def __init__(self, directory: FilePath) -> None:
        self._file = directory / NAME
        self._directory = directory

    def release(self) -> bool:
        """Make room; False: there was nothing to release."""
        try:
            had = self._file.stat().st_size > 0
            self._file.unlink()
        except OSError:
            return False
        return had

    def keep(self) -> None:
        """As much as there is room for."""
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            return
        try:
            missing = SIZE - os.fstat(descriptor).st_size
            while missing > 0:  # no zeros, which some file systems do not store
                missing -= os.write(descriptor, os.urandom(min(PIECE, missing)))
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
        finally:
            os.close(descriptor)

    def top_up(self) -> None:
        """Keep a whole one, if there is plenty of space."""
        try:
            if self.is_whole or shutil.disk_usage(self._directory).free < PLENTY:
                return
        except OSError:
            return
        self.keep()

    @property
    def is_whole(self) -> bool:
        try:
            return self._file.stat().st_size >= SIZE
        except OSError:
            return False
