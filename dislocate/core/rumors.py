"""Rumours: which facts ride on the next datagram, and for how long.

Every fact is sent `RETRANSMIT_MULTIPLIER * ceil(log10(N + 1))` times, the least sent first, the larger first among equals,
and then dropped: the queue drains to empty without new input, whatever arrives, as long as there is anybody to tell; an
agent that is alone keeps QUEUE_LIMIT.  A newer fact of the same key replaces the older one.  Source: memberlist's
TransmitLimitedQueue.  Does not judge facts: only what was news is put here.
"""

from msgspec import Raw

from dislocate.core.tunables import RETRANSMIT_MULTIPLIER
from dislocate.core.wire import Fact, encode_fact

QUEUE_LIMIT = 10_000  # facts; Serf prunes at 4,096 or twice the members.  What is dropped is repaired by digests


class Rumor:
    """One fact under way."""

    __slots__ = ("encoded", "fact", "order", "sent", "size")

    def __init__(self, fact: Fact, encoded: Raw, order: int) -> None:
        self.fact = fact
        self.encoded = encoded
        self.size = len(bytes(encoded))
        self.order = order
        self.sent = 0


def retransmit_limit(members: int) -> int:
    """How often one fact is sent by one node among `members`: 4 * ceil(log10(N + 1)), at least 4."""
    digits = len(str(max(1, members)))  # ceil(log10(n + 1)) is the number of decimal digits of n
    return RETRANSMIT_MULTIPLIER * digits


class Rumors:
    """The queue."""

    def __init__(self) -> None:
        self._rumors: dict[str, Rumor] = {}
        self._order = 0

    def __len__(self) -> int:
        return len(self._rumors)

    def put(self, key: str, fact: Fact) -> None:
        """Spread `fact`, in place of an older one of the same `key`."""
        self._order += 1
        self._rumors[key] = Rumor(fact, encode_fact(fact), self._order)
        if len(self._rumors) > QUEUE_LIMIT:
            del self._rumors[next(iter(self._rumors))]

    def drop(self, key: str) -> None:
        """Stop spreading `key`."""
        self._rumors.pop(key, None)

    def clear(self) -> None:
        """Stop spreading everything."""
        self._rumors.clear()

    def take(self, budget: int, members: int) -> tuple[Raw, ...]:
        """The facts for one datagram with `budget` bytes left, counted as sent once."""
        if not self._rumors:
            return ()
        limit = retransmit_limit(members)
        chosen: list[Raw] = []
        ranked = sorted(self._rumors.items(), key=lambda item: (item[1].sent, -item[1].size, -item[1].order))
        for key, rumor in ranked:
            if rumor.size > budget:
                continue
            budget -= rumor.size
            chosen.append(rumor.encoded)
            rumor.sent += 1
            if rumor.sent >= limit:
                del self._rumors[key]
        return tuple(chosen)
