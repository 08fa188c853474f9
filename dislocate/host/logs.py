"""Logs of supervised processes: kept from growing for ever.

The process holds its log open and outlives whoever looks after it, so the file is copied aside and emptied.  What is written
in between is lost: a moment in each `LIMIT` bytes.
"""

import os
import shutil
from pathlib import Path as FilePath

LIMIT = 8 * 1024 * 1024  # bytes; twice that is kept


def rotate(path: FilePath, limit: int = LIMIT) -> None:
    """Move what is in `path` to `path`.1 when it is larger than `limit`."""
    if path.stat().st_size <= limit:
        return
    old = path.with_name(f"{path.name}.1")
    draft = path.with_name(f".{path.name}.new")
    shutil.copyfile(path, draft)
    draft.chmod(0o600)
    draft.rename(old)
    os.truncate(path, 0)
