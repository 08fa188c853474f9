"""What is asked of one agent, or answered to it, in one instant goes there as one message, whole and in order."""

import pytest

from dislocate.core.boundary.effects import SendMessage
from dislocate.core.boundary.requests import Done
from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.store.messages import Answered, AnsweredTogether, Asked, AskedTogether
from dislocate.core.store.together import Together
from dislocate.core.tunables import MESSAGE_BUDGET
from dislocate.core.wire import decode_envelope
from tests.support.tiny_servers import put

THERE, ELSEWHERE = NodeId("fra", "a2", 1), NodeId("fra", "a3", 1)


class Scene:
    def __init__(self):
        self.out = Outbox(NodeId("fra", "a1", 1), Rumors())
        self.together = Together(self.out)

    def leave(self):
        """(to, body, bytes) of all messages once the timers of now were served."""
        while (timer := self.out.due()) is not None:
            self.together.timers()[type(timer)](timer)
        effects, self.out.effects = self.out.effects, []
        assert all(type(effect) is SendMessage for effect in effects)
        return [(effect.peer, decode_envelope(effect.data, "").body, len(effect.data)) for effect in effects]


@pytest.fixture
def scene():
    return Scene()


def asked(seq, size=1):
    return Asked(seq, 1, put(f"k{seq}", "x" * size))


def test_one_asking_leaves_as_it_is(scene):
    scene.together.ask(THERE, asked(1))
    assert [(to, body) for to, body, _ in scene.leave()] == [(THERE, asked(1))]


def test_several_leave_as_one_message_to_each_and_only_once(scene):
    scene.together.ask(THERE, asked(1))
    scene.together.answer(THERE, Answered(7, Done()))
    scene.together.ask(ELSEWHERE, asked(2))
    scene.together.ask(THERE, asked(3))
    scene.together.answer(THERE, Answered(8, None))
    said = [(to, body) for to, body, _ in scene.leave()]
    assert said == [
        (THERE, AskedTogether((asked(1), asked(3)))),
        (ELSEWHERE, asked(2)),
        (THERE, AnsweredTogether((Answered(7, Done()), Answered(8, None)))),
    ]
    assert scene.leave() == []


def test_what_is_too_large_for_one_message_leaves_as_several_in_order(scene):
    for seq in range(1, 21):
        scene.together.ask(THERE, asked(seq, 9_000))
    said = scene.leave()
    assert 3 <= len(said) <= 8
    assert all(size <= MESSAGE_BUDGET for _, _, size in said)
    assert [one.seq for _, body, _ in said for one in body.asked] == list(range(1, 21))


def test_nothing_leaves_on_a_link_that_ended_meanwhile(scene):
    scene.together.ask(THERE, asked(1))
    scene.together.answer(THERE, Answered(7, Done()))
    scene.together.ask(ELSEWHERE, asked(2))
    scene.together.lost(THERE)
    assert [to for to, _, _ in scene.leave()] == [ELSEWHERE]
