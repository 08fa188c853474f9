"""A restore on its way: how many parts at once, in which order, and what is answered when one of them fails."""

import pytest

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import Transacted, Uncertain
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.copying import PartsSent
from dislocate.core.tunables import RESTORE_WINDOW

WHOLE = Transacted(True, 9, ())


class Scene:
    """A restore of `count` parts, and a router that keeps what it is asked."""

    def __init__(self, count):
        self.asked = {}  # by number of the part, not answered yet
        self.results = []
        self.is_wanted = True
        parts = [RestoreChunk(1, number, count, b"") for number in range(count)]
        PartsSent(self, parts, lambda: self.is_wanted, self.over).go_on()

    def ask(self, part, then):
        self.asked[part.chunk] = then

    def over(self, result):
        self.is_wanted = False
        self.results.append(result)

    def answer(self, number, result=None):
        self.asked.pop(number)(result or Done(1))


def test_the_first_part_goes_alone_then_a_window_and_the_last_one_when_all_have_arrived():
    scene = Scene(RESTORE_WINDOW + 4)
    last = RESTORE_WINDOW + 3
    assert list(scene.asked) == [0]
    scene.answer(0)
    assert list(scene.asked) == list(range(1, RESTORE_WINDOW + 1))
    scene.answer(5)
    assert RESTORE_WINDOW + 1 in scene.asked
    assert len(scene.asked) == RESTORE_WINDOW
    while len(scene.asked) > 1:
        scene.answer(max(scene.asked))
    assert last not in scene.asked
    scene.answer(1)
    assert list(scene.asked) == [last]
    assert not scene.results
    scene.answer(last, WHOLE)
    assert scene.results == [WHOLE]


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_small_restore_is_its_first_part_and_its_last(count):
    scene = Scene(count)
    for number in range(count):
        assert list(scene.asked) == [number]
        scene.answer(number, WHOLE if number == count - 1 else Done(1))
    assert scene.results == [WHOLE]


def test_a_doubt_about_any_part_but_the_last_means_that_nothing_was_restored():
    scene = Scene(5)
    scene.answer(0)
    scene.answer(2, Uncertain("no server answered in time"))
    assert scene.results == [Refused("unavailable", "store", "nothing was restored: no server answered in time")]
    scene.answer(1)
    scene.answer(3, Refused("conflict", "restore", "another restore came between"))
    assert len(scene.results) == 1, "it is answered once"
    assert not scene.asked, "and no further part is sent"


def test_nobody_to_ask_in_the_middle_means_the_same():
    scene = Scene(5)
    scene.answer(0)
    scene.answer(1, Refused("unavailable", "store", "no leader"))
    assert scene.results == [Refused("unavailable", "store", "nothing was restored: no leader")]


def test_a_doubt_about_the_last_part_stays_one():
    scene = Scene(2)
    scene.answer(0)
    scene.answer(1, Uncertain("the leader changed"))
    assert scene.results == [Uncertain("the leader changed")]


def test_a_restore_that_nobody_waits_for_any_more_sends_no_further_part():
    scene = Scene(40)
    scene.answer(0)
    scene.is_wanted = False
    for number in list(scene.asked):
        scene.answer(number)
    assert not scene.asked
    assert not scene.results
