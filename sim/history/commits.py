"""Is a history linearizable, given the order in which the store committed?  In O(n log n).

In a simulated run that order is known: every change of the store has a revision, and every answer says at which one it was
made.  The order of revisions is then the only candidate, and it explains the history when

- each write that was answered is there once, at the revision that it was told, and nothing is there that nobody asked for,
  that was refused, or that was asked for once and done twice;
- each answer at revision r saw the state at r;
- an operation that began after another had ended has no lower revision, and a higher one when it wrote.

Values written must be unique for each key, so that a change tells who wrote it; deletions are told apart by their
revisions, and one without an answer may be any deletion that nobody else made.  Knows no more than `search` of what is
allowed: where both can judge, they agree.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence

from msgspec import Struct

from sim.history.operations import Operation, Outcome, Value, in_words


class Commit(Struct, frozen=True):
    """One change of one key, as the store made it."""

    revision: int
    key: str
    value: Value


def check_by_commits(history: Iterable[Operation], commits: Iterable[Commit]) -> str | None:
    """Why `commits`, all that there were, do not explain `history`, from an empty store; None when they do."""
    operations = sorted(history, key=lambda one: one.invoked)
    log = _Log(commits)
    if log.finding is not None:
        return log.finding
    owners = _Owners(operations, log)
    return owners.finding or _unseen(operations, log, owners) or _against_time(operations, owners)


class _Log:
    """The changes, by key and by what they wrote."""

    def __init__(self, commits: Iterable[Commit]) -> None:
        self.finding: str | None = None
        self.commits = sorted(commits, key=lambda one: one.revision)
        self._revisions: dict[str, list[int]] = {}  # of each key's changes
        self._values: dict[str, list[Value]] = {}
        self._written: dict[tuple[str, Value], int] = {}  # revision at which a value was written
        self._at: dict[tuple[int, str], Value] = {}
        for one in self.commits:
            if one.value is not None and (one.key, one.value) in self._written:
                first = self._written[one.key, one.value]
                words = f"{one.key}={in_words(one.value)} was done twice, at revisions {first} and {one.revision}"
                self.finding = self.finding or words
            self._revisions.setdefault(one.key, []).append(one.revision)
            self._values.setdefault(one.key, []).append(one.value)
            self._written[one.key, one.value] = one.revision
            self._at[one.revision, one.key] = one.value

    def state(self, key: str, revision: int) -> Value:
        """What `key` was after `revision`."""
        at = bisect_right(self._revisions.get(key, []), revision)
        return self._values[key][at - 1] if at else None

    def has(self, revision: int, key: str, value: Value) -> bool:
        return (revision, key) in self._at and self._at[revision, key] == value


class _Owners:
    """Whose each change is."""

    def __init__(self, operations: Sequence[Operation], log: _Log) -> None:
        self.finding: str | None = None
        self.revisions: dict[int, int] = {}  # of the operation that began at this number: where its change is
        self._of: dict[tuple[int, str], Operation] = {}
        uncertain: dict[tuple[str, Value], Operation] = {}
        for one in operations:
            if one.outcome is Outcome.UNCERTAIN:
                for write in one.action.writes:
                    uncertain.setdefault(write, one)
            elif _succeeded(one):
                self.finding = self.finding or self._claim(one, log)
        for commit in log.commits:
            self.finding = self.finding or self._settle(commit, uncertain.get((commit.key, commit.value)))

    def _claim(self, one: Operation, log: _Log) -> str | None:
        revision = _revision(one)
        for key, value in one.action.writes:
            change = (revision, key)
            if value is None and log.state(key, revision) is None:
                # Of several who deleted it, and were told so at one revision, who began first did it; or there was nothing.
                if log.has(revision, key, value):
                    self._of.setdefault(change, one)
                continue
            if not log.has(revision, key, value):
                return f"{one} was acknowledged at revision {revision}, and is not there"
            if change in self._of:
                return f"{one} and {self._of[change]} were both told revision {revision}"
            self._of[change] = one
        return None

    def _settle(self, commit: Commit, uncertain: Operation | None) -> str | None:
        change = (commit.revision, commit.key)
        owner = self._of.get(change)
        if owner is None and uncertain is None:
            words = f"{commit.key}={in_words(commit.value)} at revision {commit.revision}"
            return f"{words} was asked for by nobody, or refused"
        if owner is None or (uncertain is not None and uncertain.invoked < owner.invoked):
            assert uncertain is not None
            owner = uncertain
        self.revisions.setdefault(owner.invoked, commit.revision)
        return None


def _succeeded(one: Operation) -> bool:
    return one.seen is not None and one.seen.succeeded


def _revision(one: Operation) -> int:
    assert one.seen is not None
    return one.seen.revision or 0


def _unseen(operations: Sequence[Operation], log: _Log, owners: _Owners) -> str | None:
    """An answer that the state at its revision does not give."""
    for one in operations:
        if one.seen is None:
            continue
        revision = _revision(one)
        before = revision - 1 if owners.revisions.get(one.invoked) == revision else revision
        for key, value in zip(one.action.reads, one.seen.values, strict=False):
            stood = log.state(key, before)
            if stood != value:
                return f"{one} was answered at revision {revision}, when {key} was {in_words(stood)}"
        holds = all(log.state(key, before) == value for key, value in one.action.expects)
        if holds != one.seen.succeeded:
            states = ", ".join(f"{key} was {in_words(log.state(key, before))}" for key, _ in one.action.expects)
            return f"{one} was answered at revision {revision}, when {states}"
    return None


def _against_time(operations: Sequence[Operation], owners: _Owners) -> str | None:
    """An operation that is ordered before one that had ended when it began."""
    ended = sorted((one for one in operations if one.seen is not None), key=lambda one: one.returned or 0)
    latest: Operation | None = None
    at = 0
    for one in operations:
        while at < len(ended) and (ended[at].returned or 0) < one.invoked:
            if latest is None or _revision(ended[at]) > _revision(latest):
                latest = ended[at]
            at += 1
        own = owners.revisions.get(one.invoked)
        revision = own if one.seen is None else _revision(one)
        if latest is None or revision is None:
            continue
        if revision < _revision(latest) or own == _revision(latest):
            words = f"though {latest} had ended at revision {_revision(latest)} before it began"
            return f"{one} has revision {revision}, {words}"
    return None
