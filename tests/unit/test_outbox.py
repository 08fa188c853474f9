"""The outbox's timers: given back in order, and silent once outdated."""

from dislocate.core.identity import NodeId
from dislocate.core.outbox import NEVER, Outbox, Timer
from dislocate.core.rumors import Rumors


class Note(Timer, frozen=True):
    text: str


def outbox() -> Outbox:
    return Outbox(NodeId("fra", "a1", 1), Rumors())


def test_timers_come_back_in_order_of_their_times():
    out = outbox()
    out.arm(20, Note("later"))
    out.arm(10, Note("sooner"))
    assert (out.deadline(), out.due()) == (10, None)
    out.now = 30
    assert [out.due(), out.due(), out.due()] == [Note("sooner"), Note("later"), None]


def test_an_outdated_timer_wakes_nobody_wherever_it_waits():
    out = outbox()
    first, middle, last = (out.arm(at, Note(str(at))) for at in (10, 20, 30))
    out.outdate(middle)
    assert out.deadline() == 10
    out.outdate(first)
    assert out.deadline() == 30
    out.outdate(last)
    assert out.deadline() == NEVER
    out.now = 40
    assert out.due() is None


def test_what_is_due_goes_on_past_an_outdated_timer():
    out = outbox()
    out.arm(10, Note("first"))
    out.outdate(out.arm(20, Note("outdated")))
    out.arm(30, Note("last"))
    out.now = 10
    assert out.due() == Note("first")
    assert out.deadline() == 30
