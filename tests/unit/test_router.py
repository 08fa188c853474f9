"""The router alone: one answer to each asking, and never a refusal of what may have been done."""

import pytest

from dislocate.core.boundary.effects import Reply, SendMessage
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import (
    AddServer,
    Consistency,
    KeysChanged,
    KeysRead,
    ReadKeys,
    RemoveServer,
    Transacted,
    TransferLeadership,
    Uncertain,
    WatchKeys,
)
from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.store.messages import Answered, Asked, AskingEnded
from dislocate.core.store.router import Router
from dislocate.core.tunables import ASK_SILENCE, ASK_WITHIN, ASKS_AT_ONCE, CHANGE_WITHIN
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.core.wire import decode_envelope
from tests.support.tiny_servers import put, watch

ME = NodeId("fra", "a9", 1)
NEAR, FAR = NodeId("fra", "a1", 1), NodeId("wdc", "b1", 1)
DONE = Transacted(True, 7, ())


class Scene:
    """A router, and what it says."""

    def __init__(self):
        self.out = Outbox(ME, Rumors())
        self.router = Router(self.out)
        self.servers = [NEAR]
        self.why = ""
        self.away = []
        self.router.target = lambda _request: self.servers[0] if self.servers else None
        self.router.problem = lambda _request: self.why
        self.router.turned_away = self.away.append
        self.timers = self.router.timers()
        self.requests = 0

    def ask(self, request=None):
        self.requests += 1
        self.router.request(self.requests, request or put("k"))
        return self.requests

    def run(self, duration):
        end = self.out.now + duration
        while self.out.deadline() <= end:
            self.out.now = max(self.out.now, self.out.deadline())
            timer = self.out.due()
            self.timers[type(timer)](timer)
        self.out.now = end

    @property
    def asked(self):
        """(to whom, what) was sent."""
        sent = [effect for effect in self.out.effects if isinstance(effect, SendMessage)]
        return [(effect.peer, decode_envelope(effect.data, "").body) for effect in sent]

    @property
    def answers(self):
        return [(effect.request_id, effect.result) for effect in self.out.effects if isinstance(effect, Reply)]


@pytest.fixture
def scene():
    return Scene()


def test_an_asking_goes_out_once_and_its_answer_comes_back_once(scene):
    number = scene.ask()
    scene.router.answered(NEAR, Answered(1, DONE))
    scene.router.answered(NEAR, Answered(1, DONE))
    scene.run(20 * SECOND)
    assert len(scene.asked) == 1
    assert scene.answers == [(number, DONE)]


def test_what_is_refused_before_it_was_sent_was_not_done(scene):
    scene.servers, scene.why = [], "2 of 5 servers can be heard"
    scene.ask()
    assert scene.answers[0][1] == Refused("unavailable", "store", scene.why)


def test_what_was_sent_and_not_answered_is_uncertain(scene):
    scene.ask()
    scene.run(ASK_WITHIN + SECOND)
    assert isinstance(scene.answers[0][1], Uncertain)
    assert len({asked.seq for _, asked in scene.asked}) == 1, "each time with the same number"
    assert len(scene.asked) >= 2
    assert scene.away[0] == NEAR, "and another server would have been asked"


def test_a_read_that_was_not_answered_was_simply_not_answered(scene):
    scene.ask(ReadKeys("k"))
    scene.run(ASK_WITHIN + SECOND)
    assert isinstance(scene.answers[0][1], Refused)


def test_a_lost_link_sends_everything_again_to_another_server(scene):
    scene.ask()
    scene.ask(watch("w", 3))
    scene.servers = [FAR]
    scene.router.link_lost(NEAR)
    scene.run(200 * MILLISECOND)
    assert [to for to, _ in scene.asked] == [NEAR, NEAR, FAR, FAR]
    scene.router.answered(FAR, Answered(1, DONE))
    assert scene.answers == [(1, DONE)]


def test_a_refusal_that_never_saw_the_log_says_nothing_of_an_earlier_sending(scene):
    """A full disk of the next leader: the entry of the one before may still be committed."""
    full = Refused("storage", "node.state_dir", "the disk is full")
    scene.ask()
    scene.router.link_lost(NEAR)
    scene.run(100 * MILLISECOND)
    scene.router.answered(NEAR, Answered(1, full, unlogged=True))
    assert scene.answers == [(1, Uncertain("the disk is full"))]
    scene.ask()
    scene.router.answered(NEAR, Answered(2, full, unlogged=True))
    assert scene.answers[1] == (2, full), "sent once, it was certainly not done"
    scene.ask()
    scene.router.link_lost(NEAR)
    scene.run(100 * MILLISECOND)
    by_the_log = Refused("conflict", "then[0].lease", "no such lease")
    scene.router.answered(NEAR, Answered(3, by_the_log))
    assert scene.answers[2] == (3, by_the_log), "the log does a number once: that is its answer"


def test_a_leader_that_may_have_done_it_leaves_its_doubt_to_the_next_answer(scene):
    scene.ask()
    scene.router.answered(NEAR, Answered(1, None, reason="the leader changed", doubt=True))
    scene.servers, scene.why = [], "nobody leads"
    scene.run(200 * MILLISECOND)
    assert scene.answers == [(1, Uncertain("nobody leads"))]


def test_who_is_turned_away_for_a_while_asks_elsewhere(scene):
    scene.ask()
    scene.servers = [FAR]
    scene.router.answered(NEAR, Answered(1, None, reason="it is no server", elsewhere=True))
    assert scene.away == [NEAR]
    scene.run(100 * MILLISECOND)
    assert scene.asked[-1][0] == FAR


def test_a_late_none_from_the_server_before_does_not_send_it_a_third_time(scene):
    scene.ask()
    scene.servers = [FAR]
    scene.router.link_lost(NEAR)
    scene.run(100 * MILLISECOND)
    scene.router.answered(NEAR, Answered(1, None, reason="no leader"))
    scene.run(SECOND)
    assert len(scene.asked) == 2


def test_an_answer_of_another_kind_is_dropped_and_the_asking_goes_on(scene):
    scene.ask(ReadKeys("k", consistency=Consistency.LOCAL))
    scene.router.answered(NEAR, Answered(1, DONE))
    assert scene.out.counters["input_dropped"] == 1
    scene.router.answered(NEAR, Answered(1, KeysRead((), 3)))
    assert scene.answers == [(1, KeysRead((), 3))]


def test_a_watch_waits_as_long_as_its_asker_and_ends_where_it_waits(scene):
    number = scene.ask(watch("k", 0))
    scene.run(10 * 60 * SECOND)
    assert len(scene.asked) == 1
    scene.router.cancel(number)
    assert scene.asked[-1] == (NEAR, AskingEnded(1))
    scene.router.answered(NEAR, Answered(1, KeysChanged((), 1)))
    assert scene.answers == []


def test_a_change_of_servers_is_given_its_time_and_asked_again_only_when_a_link_ends(scene):
    scene.ask(AddServer("fra/a4"))
    scene.run(CHANGE_WITHIN - SECOND)
    assert (len(scene.asked), scene.answers) == (1, [])
    scene.router.link_lost(NEAR)
    scene.run(500 * MILLISECOND)
    assert len(scene.asked) == 2
    scene.run(2 * SECOND)
    assert isinstance(scene.answers[0][1], Uncertain)


def test_a_removal_that_finds_nobody_the_second_time_was_done_the_first(scene):
    gone = Refused("unknown", "path", "it is no server")
    scene.ask(RemoveServer("fra/a4"))
    scene.router.answered(NEAR, Answered(1, gone, unlogged=True))
    assert scene.answers == [(1, gone)]
    scene.ask(RemoveServer("fra/a4"))
    scene.router.link_lost(NEAR)
    scene.run(100 * MILLISECOND)
    scene.router.answered(NEAR, Answered(2, gone, unlogged=True))
    assert isinstance(scene.answers[1][1], Done)


def test_to_hand_over_to_anybody_is_not_asked_twice(scene):
    """The one who leads now would hand over too."""
    scene.ask(TransferLeadership())
    scene.router.link_lost(NEAR)
    scene.run(SECOND)
    assert len(scene.asked) == 1
    assert isinstance(scene.answers[0][1], Uncertain)


def test_an_agent_with_a_higher_boot_asks_again_only_what_cannot_have_been_done(scene):
    scene.ask()
    scene.ask(ReadKeys("k"))
    scene.servers = []
    scene.ask(put("l"))
    scene.out.node = NodeId("fra", "a9", 2)
    scene.servers = [NEAR]
    scene.router.link_lost(NEAR)
    scene.run(200 * MILLISECOND)
    assert [(number, type(result)) for number, result in scene.answers] == [(1, Uncertain)]
    assert [asked.seq for _, asked in scene.asked] == [1, 2, 2, 3]


def test_the_floor_stays_below_what_waits_and_passes_what_is_answered(scene):
    for _ in range(3):
        scene.ask()
    scene.router.answered(NEAR, Answered(1, DONE))
    scene.ask()
    floors = [asked.floor for _, asked in scene.asked]
    assert floors == [1, 1, 1, 2]
    assert all(isinstance(asked, Asked) for _, asked in scene.asked)


def test_too_many_askings_are_refused_at_once_and_none_is_forgotten(scene):
    for _ in range(ASKS_AT_ONCE):
        scene.ask(WatchKeys("k", False, 0))
    assert scene.answers == []
    scene.ask()
    assert isinstance(scene.answers[0][1], Refused)
    for seq in range(1, ASKS_AT_ONCE + 1):
        scene.router.answered(NEAR, Answered(seq, KeysChanged((), 1)))
    assert len(scene.answers) == ASKS_AT_ONCE + 1
    scene.run(ASK_SILENCE)
    assert scene.out.deadline() > scene.out.now + 3600 * SECOND, "nothing waits, so nothing sweeps"
