"""Names of keys: what may be one."""

import re

from dislocate.core.errors import LocalError
from dislocate.core.store.keys import name_size
from dislocate.core.tunables import KEY_BYTES

_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, and halves of a character
_KEY_WORDS = f"a key of 1 to {KEY_BYTES} bytes of text without control characters, not beginning with '/'"


def check_key(key: str, field: str = "key") -> None:
    """Raises `LocalError` unless `key` may be one."""
    if not _is_key(key):
        raise LocalError(field, got=key[:100], expected=_KEY_WORDS)


def _is_key(key: str) -> bool:
    if not key or key[0] == "/":
        return False
    if key.isascii():
        return len(key) <= KEY_BYTES and key.isprintable()
    return not _FORBIDDEN.search(key) and name_size(key) <= KEY_BYTES
