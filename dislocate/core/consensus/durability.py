"""Durability: which saves are under way, and which words wait for them.

    AFTER_ALL    leaves when everything that this server has decided so far is durable: votes, questions for votes,
                 acknowledged entries
    AFTER_TERM   leaves when the term that it names is: answers that promise nothing else
    AT_ONCE      promises nothing: what a leader replicates, questions whether a vote would be given

Invariant: no word leaves that a crash could make untrue.  The candidate's question waits too, other than in etcd's raft:
a candidate that crashed with entries that were not durable could otherwise win, after its restart, with votes given to
the longer log that it no longer has.

A save's acknowledgement speaks for all before it: the disk is ordered.  Words of a past term are dropped, nobody would
listen to them.
"""

from collections import deque
from enum import Enum

from dislocate.core.consensus.duties import Save
from dislocate.core.consensus.log import Log
from dislocate.core.consensus.messages import HardState, RaftMessage, ServerId
from dislocate.core.consensus.progress import smoothed
from dislocate.core.tunables import SAVE_REMEMBERED

Word = tuple[ServerId, int, RaftMessage]  # (to, term, body)


class Needs(Enum):
    """What must be durable before a word may leave."""

    AFTER_ALL = "all"
    AFTER_TERM = "term"
    AT_ONCE = "nothing"


class Durability:
    """One server's saves and withheld words."""

    def __init__(self, hard: HardState) -> None:
        self.save_latency = 0  # smoothed, nanoseconds
        self._stored_at = 0  # when one was last acknowledged
        self._hard = hard  # as last given to the disk
        self._hard_ticket = 0  # the save that carried it
        self._ticket = 0  # the last save made
        self._done = 0  # the last save acknowledged
        self._under_way: deque[tuple[int, int]] = deque()  # (ticket, made at)
        self._saying: list[tuple[Needs, Word]] = []  # said since the last save was made
        self._withheld: list[tuple[int, Word]] = []  # (ticket that it waits for, word)

    def say(self, to: ServerId, term: int, body: RaftMessage, needs: Needs) -> None:
        self._saying.append((needs, (to, term, body)))

    def save(self, hard: HardState, log: Log, last: int, term: int, now: int) -> Save | None:
        """The transaction that brings the disk up to `hard` and the log up to `last`; None: it is there or on the way."""
        is_new = hard != self._hard
        if not is_new and not log.has_unsaved(last):
            return None
        self._ticket += 1
        if is_new:
            self._hard, self._hard_ticket = hard, self._ticket
        drop_from, drop_to, entries = log.hand_over(self._ticket, last)
        self._under_way.append((self._ticket, now))
        return Save(self._ticket, term, hard if is_new else None, drop_from, drop_to, entries)

    def words(self) -> tuple[Word, ...]:
        """What was said and may leave; the rest is withheld.  Called after `save`."""
        if not self._saying:
            return ()
        leaving = []
        for needs, word in self._saying:
            ticket = self._waits_for(needs)
            if ticket <= self._done:
                leaving.append(word)
            else:
                self._withheld.append((ticket, word))
        self._saying.clear()
        return tuple(leaving)

    def _waits_for(self, needs: Needs) -> int:
        """The save that must be acknowledged before."""
        if needs is Needs.AFTER_ALL:
            return self._ticket
        return self._hard_ticket if needs is Needs.AFTER_TERM else 0

    def stored(self, ticket: int, term: int, now: int) -> None:
        """The save `ticket`, and all before it, are durable; this server is in `term` by now."""
        self._done = max(self._done, ticket)
        before = self._remembered(now)
        while self._under_way and self._under_way[0][0] <= ticket:
            _, made_at = self._under_way.popleft()
            before = self.save_latency = smoothed(before, max(1, now - made_at))
        self._stored_at = now
        waiting, self._withheld = self._withheld, []
        for needed, word in waiting:
            if word[1] < term:
                continue
            if needed <= ticket:
                self._saying.append((Needs.AT_ONCE, word))
            else:
                self._withheld.append((needed, word))

    def is_hard(self, hard: HardState) -> bool:
        """Whether `hard` is durable."""
        return hard == self._hard and self._hard_ticket <= self._done

    def slowness(self, now: int) -> int:
        """How long a save takes, as the past and the one under way tell."""
        oldest = now - self._under_way[0][1] if self._under_way else 0
        return max(self._remembered(now), oldest)

    def _remembered(self, now: int) -> int:
        return self.save_latency if now - self._stored_at <= SAVE_REMEMBERED else 0
