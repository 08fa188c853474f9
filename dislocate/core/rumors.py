"""Rumours: facts on their way through a data center, each told a limited number of times.

Invariant: a fact is told at most `retransmit_limit` times, the least told first and the newest first among equals, and
then dropped: the queue drains to empty without new input, whatever arrives, as long as there is anybody to tell; an agent
that is alone keeps QUEUE_LIMIT.  A newer fact of the same key replaces the older one.  Source: memberlist's
TransmitLimitedQueue.

A peer that shows our own digest knows everything that the ledger lists.  Had we told it a listed fact, that would have
been one telling more and no news, so each counts as told once more without a byte sent: when a fleet starts, repair has
told most of it long before a thousand rumours could have been repeated twelve times each.

Cost: a packet costs what it carries, not what waits.  Does not judge facts: only what was news is put here.
"""

from msgspec import Raw

from dislocate.core.catalog.messages import DrainOrder, InstanceRecord, Manifest
from dislocate.core.membership.messages import Alive, Dead, Left
from dislocate.core.tunables import RETRANSMIT_MULTIPLIER
from dislocate.core.wire import Fact, encode_fact

LISTED = (Alive, Dead, Left, InstanceRecord, Manifest, DrainOrder)  # what the ledger covers, the dead by their absence
# Facts; Serf prunes at 4,096 or twice the members.  At about 120 tellings a second a longer queue takes minutes, and digests
# repair what is dropped within seconds: the most told goes first.
QUEUE_LIMIT = 1_000
MISFITS = 8  # rumours passed over, as too large for what is left of a packet, before it is called full


class Rumor:
    """One fact under way.  Encoded when it is told: when a fleet starts, thousands wait and most are never told."""

    __slots__ = ("agreements", "fact", "is_listed", "key")

    def __init__(self, key: str, fact: Fact, agreements: int) -> None:
        self.key = key
        self.fact = fact
        self.is_listed = isinstance(fact, LISTED)
        self.agreements = agreements  # of the queue, as far as they were counted


def retransmit_limit(members: int) -> int:
    """How often one fact is sent by one node among `members`: 4 * ceil(log10(N + 1)), at least 4."""
    digits = len(str(max(1, members)))  # ceil(log10(n + 1)) is the number of decimal digits of n
    return RETRANSMIT_MULTIPLIER * digits


class Rumors:
    """The queue."""

    def __init__(self) -> None:
        self._tiers: list[dict[str, Rumor]] = []  # by how often they were told, in order of arrival
        self.count = 0  # of facts that wait; to be read, each turn
        self._agreements = 0  # peers of this data center that showed our digest

    def __len__(self) -> int:
        return self.count

    def put(self, key: str, fact: Fact) -> None:
        """Spread `fact`, in place of an older one of the same `key`."""
        self.drop(key)
        self._place(Rumor(key, fact, self._agreements), 0)
        self.count += 1
        if self.count > QUEUE_LIMIT:
            most_told = next(tier for tier in reversed(self._tiers) if tier)
            self.drop(next(iter(most_told)))

    def drop(self, key: str) -> None:
        """Stop spreading `key`."""
        for tier in self._tiers:
            if tier.pop(key, None) is not None:
                self.count -= 1
                return

    def clear(self) -> None:
        """Stop spreading everything."""
        self._tiers.clear()
        self.count = 0

    def agreed(self) -> None:
        """Some peer of this data center showed our own digest."""
        self._agreements += 1

    def take(self, budget: int, members: int) -> tuple[Raw, ...]:
        """The facts for one datagram with `budget` bytes left, counted as told once."""
        if not self.count:
            return ()
        limit = retransmit_limit(members)
        chosen: list[tuple[int, Rumor]] = []
        packet: list[Raw] = []
        misfits = 0
        for told, tier in enumerate(self._tiers):
            known: list[Rumor] = []
            for rumor in reversed(tier.values()):
                if rumor.is_listed and rumor.agreements != self._agreements:
                    known.append(rumor)
                    continue
                encoded = encode_fact(rumor.fact)
                size = len(memoryview(encoded))
                if size <= budget:
                    budget -= size
                    packet.append(encoded)
                    chosen.append((told, rumor))
                else:
                    misfits += 1
                    if misfits == MISFITS:
                        break
            for rumor in reversed(known):  # into later tiers, from which they may still be chosen
                agreements, rumor.agreements = self._agreements - rumor.agreements, self._agreements
                self._move(rumor, told, told + agreements, limit)
            if misfits == MISFITS:
                break
        for told, rumor in reversed(chosen):
            self._move(rumor, told, told + 1, limit)
        return tuple(packet)

    def _move(self, rumor: Rumor, origin: int, tier: int, limit: int) -> None:
        del self._tiers[origin][rumor.key]
        if not self._tiers[origin]:
            self._tiers[origin] = {}  # a dictionary keeps the room that a storm once took
        if tier < limit:
            self._place(rumor, tier)
        else:
            self.count -= 1

    def _place(self, rumor: Rumor, tier: int) -> None:
        while len(self._tiers) <= tier:
            self._tiers.append({})
        self._tiers[tier][rumor.key] = rumor
