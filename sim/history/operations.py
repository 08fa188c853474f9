"""A history: what clients asked of the store, when each asking began and ended, and what came back.

Instants are order numbers: of any two that belong to one history it is known which came first, also where a clock would
call them equal.  Every operation is a small transaction over whole values: `expects` must hold, then `reads` are seen as
they stand before it, and `writes` are done; where `expects` does not hold, nothing is written.  A get, a put, a delete and
a compare-and-set are special cases.  Values written should be unique, so that what is read tells who wrote it.

Does not judge: see `search` (no knowledge but the history) and `commits` (the order of commits is known too).
"""

from enum import Enum
from typing import TypeAlias

from msgspec import Struct

Value: TypeAlias = bytes | None  # None: the key is not there
SHOWN = 40  # bytes of a value


class Outcome(Enum):
    """What the client learned about its operation."""

    OK = "ok"
    FAILED = "failed"  # it was not done and never will be
    UNCERTAIN = "uncertain"  # no answer: it may have been done, or may still be, at any time


class Action(Struct, frozen=True):
    """What was asked."""

    expects: tuple[tuple[str, Value], ...] = ()
    reads: tuple[str, ...] = ()
    writes: tuple[tuple[str, Value], ...] = ()

    @property
    def keys(self) -> tuple[str, ...]:
        """All that it is about, each once."""
        named = [key for key, _ in self.expects] + list(self.reads) + [key for key, _ in self.writes]
        return tuple(dict.fromkeys(named))

    @property
    def kind(self) -> str:
        """'get', 'put', 'delete', 'cas' or 'txn'."""
        if len(self.keys) != 1:
            return "txn"
        if not self.writes:
            return "get" if not self.expects else "txn"
        if self.expects:
            return "cas"
        return "delete" if self.writes[0][1] is None else "put"

    def __str__(self) -> str:
        words = [self.kind, *(f"{key}={in_words(value)}?" for key, value in self.expects)]
        words += [key for key in self.reads if self.kind in ("get", "txn")]
        words += [key if self.kind == "delete" else f"{key}={in_words(value)}" for key, value in self.writes]
        return " ".join(words)


class Seen(Struct, frozen=True):
    """What came back."""

    succeeded: bool = True  # `expects` held
    values: tuple[Value, ...] = ()  # of `reads`, in their order
    revision: int | None = None  # of the store: after a write, or at which was read


class Operation(Struct, frozen=True):
    """One asking of one client."""

    client: str
    action: Action
    invoked: int
    returned: int | None  # None: no answer came
    outcome: Outcome
    seen: Seen | None = None  # with OK

    def __str__(self) -> str:
        words = f"{self.client}: {self.action}"
        if self.seen is None:
            words += f" -> {self.outcome.value}"
        elif self.action.reads and self.seen.succeeded:
            words += " -> " + ", ".join(map(in_words, self.seen.values))
        elif self.action.expects:
            words += " -> done" if self.seen.succeeded else " -> not as expected"
        end = "..." if self.returned is None else str(self.returned)
        return f"{words} ({self.invoked}-{end})"


class History:
    """Collects operations while they happen."""

    def __init__(self) -> None:
        self._number = 0
        self._begun: dict[int, tuple[str, Action]] = {}  # by the number of the beginning
        self._ended: list[Operation] = []

    def invoke(self, client: str, action: Action) -> int:
        """`client` begins to ask; returns what `complete` wants."""
        self._number += 1
        self._begun[self._number] = (client, action)
        return self._number

    def complete(self, invoked: int, outcome: Outcome, seen: Seen | None = None) -> None:
        """What was begun has ended.  What stays open is uncertain."""
        client, action = self._begun.pop(invoked)
        self._number += 1
        returned = None if outcome is Outcome.UNCERTAIN else self._number
        self._ended.append(Operation(client, action, invoked, returned, outcome, seen))

    def operations(self) -> tuple[Operation, ...]:
        """All so far, in order of their beginning."""
        open_ones = [
            Operation(client, action, invoked, None, Outcome.UNCERTAIN)
            for invoked, (client, action) in self._begun.items()
        ]
        return tuple(sorted([*self._ended, *open_ones], key=lambda operation: operation.invoked))


def get(key: str) -> Action:
    return Action(reads=(key,))


def put(key: str, value: bytes) -> Action:
    return Action(writes=((key, value),))


def delete(key: str) -> Action:
    return Action(writes=((key, None),))


def cas(key: str, expected: Value, value: Value) -> Action:
    """Set `key` to `value` if it stands at `expected`."""
    return Action(expects=((key, expected),), writes=((key, value),))


def in_words(value: Value) -> str:
    """A value for people."""
    if value is None:
        return "nothing"
    return value[:SHOWN].decode(errors="backslashreplace") + ("" if len(value) <= SHOWN else "...")
