"""Passing on: what this server asks the leader for others, and the answers back.

Invariant: whoever is passed on is answered once: with what the leader says, or, when the link to it ends, with the doubt
that this leaves.  Nothing is kept for longer than anybody would wait.  The agent that this server runs on may be the asker.
"""

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox
from dislocate.core.store.messages import Answered, Asked
from dislocate.core.tunables import CHANGE_WITHIN

Answer: TypeAlias = Callable[[Answered], None]


class Passed(Struct, frozen=True):
    """One request that is with the leader."""

    to: NodeId
    answer: Answer
    at: int


class Passing:
    """What one server has passed on."""

    def __init__(self, out: Outbox, send: Callable[[NodeId, Asked], None]) -> None:
        self._out = out
        self._send = send
        self._passed: dict[tuple[NodeId, int], Passed] = {}  # by asker and number, the oldest first

    def __len__(self) -> int:
        return len(self._passed)

    def pass_on(self, leader: NodeId, asker: NodeId, asked: Asked, answer: Answer) -> None:
        """Ask the leader; one that asks again is still one."""
        self._passed.pop((asker, asked.seq), None)
        self._passed[(asker, asked.seq)] = Passed(leader, answer, self._out.now)
        self._send(leader, Asked(asked.seq, asked.floor, asked.request, asker))

    def answered(self, sender: NodeId, asker: NodeId, answered: Answered) -> bool:
        """The answer of `sender`, for whom it was asked; whether anybody waited for it."""
        passed = self._passed.get((asker, answered.seq))
        if passed is None or passed.to != sender:
            return False
        del self._passed[(asker, answered.seq)]
        passed.answer(replace(answered, asker=None))
        return True

    def lost(self, leader: NodeId) -> None:
        """The link to `leader` ended, or something sent there did not arrive."""
        for key in [key for key, passed in self._passed.items() if passed.to == leader]:
            passed = self._passed.pop(key)
            passed.answer(Answered(key[1], None, reason="the link to the leader ended", doubt=True))

    def sweep(self) -> None:
        """Forget what nobody waits for any more."""
        while self._passed:
            key = next(iter(self._passed))
            if self._out.now - self._passed[key].at <= CHANGE_WITHIN:
                return
            del self._passed[key]
