"""Together: what is asked of one agent, or answered to it, in one instant goes there as one message.

A busy server passes on, and a leader answers, dozens of requests between two looks at the clock; each as a message of its own
costs both sides a turn.  They leave by a timer set for now, which the driver serves after the input that waits.

Invariant: what is said to one agent leaves in the order in which it was said, and not at all when the link ended before.
"""

from collections.abc import Callable, Sequence
from typing import Any

from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.messages import Answered, AnsweredTogether, Asked, AskedTogether
from dislocate.core.tunables import MESSAGE_BUDGET
from dislocate.core.wire import encoded_size

ROOM = MESSAGE_BUDGET - 512  # bytes: with the envelope around it, a message


class TogetherDue(Timer, frozen=True):
    """What was said in this instant leaves."""


class Together:
    """What one agent asks and answers on its links."""

    def __init__(self, out: Outbox) -> None:
        self._out = out
        self._asked: dict[NodeId, list[Asked]] = {}
        self._answered: dict[NodeId, list[Answered]] = {}
        self._is_armed = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {TogetherDue: self._due}

    def ask(self, to: NodeId, asked: Asked) -> None:
        self._asked.setdefault(to, []).append(asked)
        self._arm()

    def answer(self, to: NodeId, answered: Answered) -> None:
        self._answered.setdefault(to, []).append(answered)
        self._arm()

    def lost(self, node: NodeId) -> None:
        """The link to `node` ended."""
        self._asked.pop(node, None)
        self._answered.pop(node, None)

    def _arm(self) -> None:
        if not self._is_armed:
            self._is_armed = True
            self._out.arm(self._out.now, TogetherDue())

    def _due(self, _timer: TogetherDue) -> None:
        self._is_armed = False
        asked, self._asked = self._asked, {}
        answered, self._answered = self._answered, {}
        for to, askings in asked.items():
            self._send(to, askings, AskedTogether)
        for to, answers in answered.items():
            self._send(to, answers, AnsweredTogether)

    def _send(self, to: NodeId, bodies: Sequence[Any], kind: type[AskedTogether] | type[AnsweredTogether]) -> None:
        """As one message, or as halves where that would be too large."""
        if len(bodies) == 1:
            self._out.send_message(to, bodies[0])
            return
        together = kind(tuple(bodies))
        if encoded_size(together) <= ROOM:
            self._out.send_message(to, together)
            return
        half = len(bodies) // 2
        self._send(to, bodies[:half], kind)
        self._send(to, bodies[half:], kind)
