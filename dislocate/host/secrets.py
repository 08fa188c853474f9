"""Secrets of one task: opened when a template names them, and hidden from everything that people see.

Invariant: what went through `hide` holds no value of a secret that was given to the task, nor a longer line of one, and what
went through `hide_part` no piece of either.  A mark such as '<secret db/password #1f2e3d4c>' is the same on every host, so
equal differences can be grouped; its digest tells two versions apart.  It is keyed with what only the fleet has (`Keys`), so
that nobody who reads a mark, a log or the store can try guesses on it.  A secret that a program transforms before it prints it
is not recognized.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import TypeAlias

from msgspec import Struct

from dislocate.host.render_error import RenderError

Hidden: TypeAlias = tuple[int, int, bytes]  # from byte to byte, and what is shown in its place

LINE = 8  # characters from which on a line of a secret of several lines is hidden by itself


class Keys(Struct, frozen=True):
    """For digests of what holds a secret and is seen by people, or by whoever reads the store."""

    marks: bytes  # the same on all hosts, where equal things are to look equal
    digests: bytes  # of this host alone, and for as long as it has its `node.key`

    def mark(self, *parts: str) -> str:
        """32 bits in hex."""
        return blake2b("\0".join(parts).encode(), key=self.marks, digest_size=4).hexdigest()


class Secrets:
    """The secrets given to one task, by name."""

    def __init__(self, sealed: Mapping[str, bytes], open_secret: Callable[[bytes], bytes], keys: Keys) -> None:
        self._sealed = sealed
        self._open_secret = open_secret
        self._keys = keys
        self._opened: dict[str, str] = {}
        self._hidden: dict[str, str] | None = None
        self.used: dict[str, None] = {}  # names that a template asked for, in order

    def value(self, name: str) -> str:
        """In clear.  Raises `RenderError`."""
        self.used[name] = None
        return self._open(name)

    def mark(self, name: str) -> str:
        """What stands in its place wherever people look.  Raises `RenderError`."""
        return f"<secret {name} #{self._keys.mark('secret', name, self._open(name))}>"

    def hide(self, text: str) -> str:
        """`text` with marks in place of secrets."""
        return self.hide_bytes(text.encode(errors="surrogateescape")).decode(errors="surrogateescape")

    def hide_bytes(self, data: bytes) -> bytes:
        return _without(self._found(data), data, 0)

    def hide_part(self, data: bytes, begin: int = 0) -> bytes:
        """The same of bytes `begin` to the end of what was cut anywhere: of a secret that lies across `begin` only the mark is
        left, and nothing of what may be the beginning of one at the end.

        Where something was cut off before it, `data` must begin `longest` bytes before `begin`."""
        return _without(sorted([*self._found(data), self._half(data)]), data, begin)

    @property
    def longest(self) -> int:
        """Bytes of the longest text that is hidden; 0: there is none."""
        return max((len(value.encode()) for value in self._hiding()), default=0)

    def beside(self, other: "Secrets") -> "Secrets":
        """Hides those of both; has the values of none."""
        both = Secrets({}, self._open_secret, self._keys)
        both._hidden = {**other._hiding(), **self._hiding()}
        return both

    def _found(self, data: bytes) -> Iterator[Hidden]:
        """Also those that overlap, by where they begin."""
        marks = {text.encode(): mark.encode() for text, mark in self._hiding().items()}
        pattern = re.compile(b"|".join(map(re.escape, _longest_first(marks))))
        found = pattern.search(data) if marks else None
        while found is not None:
            yield found.start(), found.end(), marks[found[0]]
            found = pattern.search(data, found.start() + 1)

    def _half(self, data: bytes) -> Hidden:
        """The longest end of `data` with which a secret may begin; it may be a whole one, which has its mark already."""
        texts = [text.encode() for text in self._hiding()]
        for at in range(max(0, len(data) - self.longest + 1), len(data)):
            if any(text.startswith(data[at:]) for text in texts):
                return at, len(data), b""
        return len(data), len(data), b""

    def _open(self, name: str) -> str:
        if name not in self._opened:
            if name not in self._sealed:
                raise RenderError(f"the secret {name!r} is not there; put it with `dislocate secret put {name}`")
            try:
                self._opened[name] = self._open_secret(self._sealed[name]).decode()
            except UnicodeDecodeError:
                raise RenderError(f"the secret {name!r} is no UTF-8 text, which a template needs") from None
            except ValueError:
                raise RenderError(
                    f"the secret {name!r} is not sealed to the key of this node; seal it anew with "
                    f"`dislocate secret put {name}`"
                ) from None
        return self._opened[name]

    def _hiding(self) -> dict[str, str]:
        """Text and mark of all of them, also of those that no template named: a command may print what lies in a file."""
        if self._hidden is None:
            found: dict[str, str] = {}
            for name in self._sealed:
                try:
                    value, mark = self._open(name), self.mark(name)
                except RenderError:
                    continue  # what cannot be opened here is known to nobody here
                lines = [line.strip() for line in value.splitlines()]
                for text in (value, value.strip(), *(line for line in lines if len(line) >= LINE)):
                    if text:
                        found.setdefault(text, mark)
            self._hidden = found
        return self._hidden


def _longest_first(texts: Iterable[bytes]) -> list[bytes]:
    """So that a part of one does not keep the rest of it in sight."""
    return sorted(texts, key=lambda text: (-len(text), text))


def _without(hidden: Iterable[Hidden], data: bytes, begin: int) -> bytes:
    """`data` from `begin` on without those, which are in order; where several overlap, with the mark of the first."""
    shown, at = bytearray(), begin
    for start, end, mark in hidden:
        if start >= at:
            shown += data[at:start] + mark
        elif at == begin < end:  # it lies across the cut
            shown += mark
        at = max(at, end)
    return bytes(shown + data[at:])
