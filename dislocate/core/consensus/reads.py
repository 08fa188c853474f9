"""Reads: linearizable without a write (ReadIndex; Raft thesis, 6.4).

A read that was asked before round r was sent, and that a quorum confirms by answering round r or a later one, may be
answered from what is committed when r is sent: nobody else can have led, and so acknowledged a write, before it was
asked.  Reads that wait together share one round.

Invariant: no read is confirmed by an answer to a message that was sent before the read was asked (a leader that stood
still and was replaced in the meantime gets no such answer), nor before the leader has committed an entry of its own term.
"""

from collections import deque


class Reads:
    """What waits for confirmation at one leader."""

    def __init__(self) -> None:
        self._asked: list[int] = []  # not yet in a round
        self._batches: deque[tuple[int, int, list[int]]] = deque()  # (rounds after this one confirm, index, read ids)

    def ask(self, read_id: int) -> None:
        self._asked.append(read_id)

    @property
    def has_asked(self) -> bool:
        return bool(self._asked)

    @property
    def has_batches(self) -> bool:
        return bool(self._batches)

    def begin(self, last_round: int, commit: int) -> None:
        """The next message to each voter begins a round: all before it are `last_round` or lower."""
        self._batches.append((last_round, commit, self._asked))
        self._asked = []

    def confirmed(self, round_: int) -> list[tuple[int, int]]:
        """(read id, index) of those that an answer of a quorum to `round_` or later confirms."""
        ready: list[tuple[int, int]] = []
        while self._batches and self._batches[0][0] < round_:
            _, index, reads = self._batches.popleft()
            ready += [(read_id, index) for read_id in reads]
        return ready

    def abandon(self) -> list[int]:
        """Leadership is lost; the ids of all that wait."""
        lost = [read_id for _, _, reads in self._batches for read_id in reads] + self._asked
        self._batches.clear()
        self._asked = []
        return lost
