"""The digest of a run: equal digests mean that every node was given the same inputs in the same order at the same time.

One rolling BLAKE2b over (nanoseconds, number of the input, host, kind, payload).  The order among equal times is part of
it, so the scheduler is part of the contract: `VERSION` grows when either changes.
"""

from hashlib import blake2b
from struct import Struct

import msgspec

from dislocate.core.boundary.inputs import DatagramReceived, Input

VERSION = 1
_HEAD = Struct("<QQIII")


class Digest:
    """Give it every input; it tells the sum at the end."""

    def __init__(self) -> None:
        self._hash = blake2b(b"dislocate trace %d" % VERSION, digest_size=16)
        self._update = self._hash.update
        self._encode = msgspec.msgpack.Encoder().encode
        self.count = 0

    def add(self, now: int, host: int, input_: Input) -> None:
        # Other inputs carry their tag in their encoding.
        kind, payload = (1, input_.data) if type(input_) is DatagramReceived else (0, self._encode(input_))
        self.count = count = self.count + 1
        self._update(_HEAD.pack(now, count, host, kind, len(payload)) + payload)

    def hex(self) -> str:
        """The digest of everything so far."""
        return self._hash.hexdigest()
