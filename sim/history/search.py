"""Is a history linearizable?  Found by search, from what clients saw alone.

A history is linearizable when each operation can be given one instant between its beginning and its end, so that done one
after the other at these instants they all see what they saw.  The search (Wing and Gong 1993; Lowe's memory of visited
configurations; Porcupine's lifting of a linked list) tries operations in the order of their beginning, goes back where it
cannot go on, and never enters a configuration (which operations are placed, and the state they lead to) twice.

Keys that no operation has in common are independent: a history is linearizable if and only if that of each key is
(Herlihy and Wing 1990), and each is searched by itself.  An operation without an answer may be placed anywhere after its
beginning, or nowhere.  The problem is NP-complete: a search that takes too many steps says UNKNOWN.

When no order is found, the answer whose coming none could explain is named: before it, one could.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from sim.history.operations import Action, Operation, Outcome, Seen, Value, in_words

STEPS = 5_000_000  # about half a minute
LINES = 12  # of an explanation

State: TypeAlias = tuple[Value, ...]


class Verdict(Enum):
    OK = "ok"
    ILLEGAL = "illegal"  # no order explains it
    UNKNOWN = "unknown"  # the search was given up


class Finding(Struct, frozen=True):
    """The verdict about one history."""

    verdict: Verdict
    keys: tuple[str, ...] = ()  # of the part that it is about, unless OK
    culprit: Operation | None = None  # no order explains its answer
    placed: tuple[Operation, ...] = ()  # the longest order up to there
    steps: int = 0

    def __str__(self) -> str:
        if self.verdict is Verdict.OK:
            return "linearizable"
        about = ", ".join(self.keys)
        if self.verdict is Verdict.UNKNOWN:
            return f"{about}: given up after {self.steps} steps"
        lines = [f"{about}: no order explains the answer to {self.culprit}"]
        lines += ["  ..."] if len(self.placed) > LINES else []
        lines += [f"  {operation}" for operation in self.placed[-LINES:]]
        return "\n".join([*lines, f"  and now {_state_in_words(self)}"])


def check_linearizable(history: Iterable[Operation], steps: int = STEPS) -> Finding:
    """Whether any order explains `history`, from an empty store.  `steps` bounds the work, over all keys."""
    taken = 0
    unknown: Finding | None = None
    for keys, operations in _parts(history):
        finding = _Search(keys, operations, steps - taken).run()
        taken += finding.steps
        if finding.verdict is Verdict.ILLEGAL:
            return finding
        if finding.verdict is Verdict.UNKNOWN:
            unknown = unknown or finding
    return unknown or Finding(Verdict.OK, steps=taken)


def _parts(history: Iterable[Operation]) -> list[tuple[tuple[str, ...], list[Operation]]]:
    """The operations of each set of keys that hang together, without those that cannot matter."""
    operations = [one for one in history if one.outcome is not Outcome.FAILED and one.action.keys]
    leader: dict[str, str] = {}

    def find(key: str) -> str:
        while leader.setdefault(key, key) != key:
            leader[key] = key = leader[leader[key]]
        return key

    for one in operations:
        first, *others = one.action.keys
        for key in others:
            leader[find(key)] = find(first)
    parts: dict[str, list[Operation]] = {}
    for one in operations:
        parts.setdefault(find(one.action.keys[0]), []).append(one)
    keys: dict[str, list[str]] = {}
    for key in leader | dict.fromkeys(one.action.keys[0] for one in operations):
        keys.setdefault(find(key), []).append(key)
    return [(tuple(sorted(keys[root])), _that_matter(part)) for root, part in sorted(parts.items())]


def _that_matter(operations: list[Operation]) -> list[Operation]:
    """Without the unanswered that explain nothing: reads, and writes that nobody saw or could have stumbled over."""
    seen: dict[tuple[str, Value], None] = {}
    stumbled: dict[str, None] = {}
    for one in operations:
        seen.update(dict.fromkeys(one.action.expects))
        if one.seen is not None:
            seen.update(dict.fromkeys(zip(one.action.reads, one.seen.values, strict=False)))
            if not one.seen.succeeded:
                stumbled.update(dict.fromkeys(key for key, _ in one.action.expects))

    def matters(one: Operation) -> bool:
        return one.outcome is Outcome.OK or any(write in seen or write[0] in stumbled for write in one.action.writes)

    return [one for one in operations if matters(one)]


class _Entry:
    """A beginning or an end, in the list of those that are not placed."""

    __slots__ = ("after", "before", "end", "number")

    def __init__(self, number: int) -> None:
        self.number = number  # of the operation; in order of beginning
        self.before: _Entry | None = None
        self.after: _Entry | None = None
        self.end: _Entry | None = None  # of a beginning that has one


class _Search:
    """One part of a history."""

    def __init__(self, keys: tuple[str, ...], operations: Sequence[Operation], steps: int) -> None:
        self._keys = keys
        self._operations = sorted(operations, key=lambda one: one.invoked)
        index = {key: at for at, key in enumerate(keys)}
        self._moves = [_Move(one.action, one.seen, index) for one in self._operations]
        self._left = self._budget = steps
        self._unanswered = sum(one.returned is None for one in self._operations)

    def run(self) -> Finding:
        head = self._list()
        ends = len(self._operations) - self._unanswered
        state: State = (None,) * len(self._keys)
        placed = 0
        path: list[tuple[_Entry, State]] = []
        visited: dict[tuple[int, State], None] = {}
        blocked = -1
        furthest: list[int] = []
        entry = head.after
        while ends:
            self._left -= 1
            if self._left < 0:
                return Finding(Verdict.UNKNOWN, self._keys, steps=self._budget)
            assert entry is not None  # an end is left, and nothing passes it
            number = entry.number
            if number >= 0:  # a beginning: try it here
                following = self._moves[number].apply(state)
                configuration = (placed | 1 << number, following)
                if following is not None and configuration not in visited:
                    visited[configuration] = None  # type: ignore[index]  # not None: just asked
                    path.append((entry, state))
                    state, placed = following, placed | 1 << number
                    ends -= _lift(entry)
                    entry = head.after
                else:
                    entry = entry.after
                continue
            ended = self._operations[~number].returned or 0
            if ended > blocked or (ended == blocked and len(path) > len(furthest)):
                blocked, furthest = ended, [one.number for one, _ in path]
            if not path:
                return self._illegal(blocked, furthest)
            entry, state = path.pop()
            placed ^= 1 << entry.number
            ends += _unlift(entry)
            entry = entry.after
        return Finding(Verdict.OK, steps=self._budget - self._left)

    def _list(self) -> _Entry:
        """Beginnings and ends in order of time, behind a head of its own."""
        events: list[tuple[int, _Entry]] = []
        for number, one in enumerate(self._operations):
            beginning = _Entry(number)
            events.append((one.invoked, beginning))
            if one.returned is not None:
                beginning.end = _Entry(~number)
                events.append((one.returned, beginning.end))
        head = last = _Entry(0)
        for _, entry in sorted(events, key=lambda event: event[0]):
            last.after, entry.before = entry, last
            last = entry
        return head

    def _illegal(self, blocked: int, furthest: list[int]) -> Finding:
        culprit = next(one for one in self._operations if one.returned == blocked)
        placed = tuple(self._operations[number] for number in furthest)
        return Finding(Verdict.ILLEGAL, self._keys, culprit, placed, self._budget - self._left)


class _Move:
    """What one operation does to the state of its part, and under which states it saw what it saw."""

    __slots__ = ("_expects", "_must_hold", "_needs", "_writes")

    def __init__(self, action: Action, seen: Seen | None, index: dict[str, int]) -> None:
        self._expects = [(index[key], value) for key, value in action.expects]
        self._writes = [(index[key], value) for key, value in action.writes]
        self._must_hold = None if seen is None else seen.succeeded  # None: nobody knows
        values = () if seen is None else seen.values
        self._needs = [(index[key], value) for key, value in zip(action.reads, values, strict=False)]

    def apply(self, state: State) -> State | None:
        """The state afterwards; None when it cannot have been done in `state`."""
        holds = all(state[at] == value for at, value in self._expects)
        if self._must_hold is not None and holds != self._must_hold:
            return None
        if not all(state[at] == value for at, value in self._needs):
            return None
        if not holds or not self._writes:
            return state
        after = list(state)
        for at, value in self._writes:
            after[at] = value
        return tuple(after)


def _lift(entry: _Entry) -> int:
    """Take a beginning and its end out of the list; how many ends that were."""
    _unlink(entry)
    if entry.end is None:
        return 0
    _unlink(entry.end)
    return 1


def _unlift(entry: _Entry) -> int:
    """Put them back where they were."""
    if entry.end is not None:
        _relink(entry.end)
    _relink(entry)
    return entry.end is not None


def _unlink(entry: _Entry) -> None:
    before, after = entry.before, entry.after
    assert before is not None  # the head is never lifted
    before.after = after
    if after is not None:
        after.before = before


def _relink(entry: _Entry) -> None:
    before, after = entry.before, entry.after
    assert before is not None
    before.after = entry
    if after is not None:
        after.before = entry


def _state_in_words(finding: Finding) -> str:
    index = {key: at for at, key in enumerate(finding.keys)}
    state: State = (None,) * len(finding.keys)
    for one in finding.placed:
        state = _Move(one.action, one.seen, index).apply(state) or state
    return ", ".join(f"{key} is {in_words(value)}" for key, value in zip(finding.keys, state, strict=True))
