"""Links for the store: who dials, how often, and what is claimed."""

import pytest

from dislocate.core.boundary.effects import CloseLink, OpenLink
from dislocate.core.boundary.values import MemberState
from dislocate.core.identity import NodeId
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import MemberRecord
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND

A, B, C = (NodeId("fra", name, 1) for name in ("a", "b", "c"))


def record(node):
    gossip, links = f"{node.name}:1", f"{node.name}:2"
    return MemberRecord(node, 1, 1, gossip, links, gossip, links, bytes(32), (), (1, 1))


class Scene:
    """The links of fra/b between fra/a and fra/c."""

    def __init__(self):
        self.out = Outbox(B, Rumors())
        self.members = Members("fra", "fra/b")
        for node in (A, B, C):
            self.members.add(Member(record(node), MemberState.ALIVE, 0))
        self.links = ServerLinks("fra/b", self.out, self.members, Streams("x")["links"])
        self.timers = self.links.timers()

    def run(self, duration):
        end = self.out.now + duration
        while self.out.deadline() <= end:
            self.out.now = max(self.out.now, self.out.deadline())
            timer = self.out.due()
            self.timers[type(timer)](timer)
        self.out.now = end

    @property
    def dials(self):
        return [effect.peer for effect in self.out.effects if isinstance(effect, OpenLink)]

    @property
    def closed(self):
        return [effect.peer for effect in self.out.effects if isinstance(effect, CloseLink)]


@pytest.fixture
def scene():
    return Scene()


def test_of_two_servers_the_one_with_the_smaller_path_dials_the_other_only_when_no_link_came(scene):
    scene.links.want(dict.fromkeys(("fra/a", "fra/b", "fra/c")), mutual=True)
    scene.run(500 * MILLISECOND)
    assert scene.dials == [C]
    scene.run(SECOND)
    assert A in scene.dials


def test_a_dial_that_fails_is_repeated_ever_more_slowly_by_one_timer(scene):
    scene.links.want(dict.fromkeys(("fra/c",)), mutual=True)
    for _ in range(30):
        scene.run(100 * MILLISECOND)
        if scene.dials:
            scene.links.lost(C)
    assert len(scene.dials) <= 6
    first = len(scene.dials)
    scene.run(60 * SECOND)
    assert 5 <= len(scene.dials) - first <= 14, "each five to ten seconds"


def test_a_link_that_came_and_went_many_times_leaves_one_timer(scene):
    scene.links.want(dict.fromkeys(("fra/c",)), mutual=True)
    for _ in range(20):
        scene.links.opened(C)
        scene.links.lost(C)
    before = len(scene.dials)
    scene.run(700 * MILLISECOND)
    assert len(scene.dials) - before == 1


def test_an_open_link_is_claimed_and_let_go_when_it_is_wanted_no_more(scene):
    scene.links.want(dict.fromkeys(("fra/c",)), mutual=True)
    scene.links.opened(C)
    scene.out.close_link(C, owner="neighbours")
    assert scene.closed == []
    scene.links.want({}, mutual=True)
    assert scene.closed == [C]


def test_who_says_on_its_link_that_it_needs_it_keeps_it(scene):
    scene.links.opened(A)
    scene.links.claim(A)
    scene.out.close_link(A, owner="wan")
    assert scene.closed == []
    scene.links.claim(NodeId("fra", "a", 2))
    scene.out.link_lost(A)
    scene.links.lost(A)
    scene.out.close_link(A, owner="wan")
    assert scene.closed == [A], "the claim ended with the link"


def test_a_lost_link_of_an_older_start_does_not_end_the_new_one(scene):
    newer = NodeId("fra", "c", 2)
    scene.links.opened(C)
    scene.links.lost(C)
    scene.links.opened(newer)
    assert not scene.links.lost(C)
    assert scene.links.node("fra/c") == newer


def test_one_link_that_comes_back_makes_the_others_be_dialled_at_once(scene):
    """A cut that heals, heals for all."""
    scene.links.want(dict.fromkeys(("fra/a", "fra/c")), mutual=True)
    scene.run(60 * SECOND)
    before = scene.dials.count(C)
    scene.links.opened(A)
    scene.run(400 * MILLISECOND)
    assert scene.dials.count(C) == before + 1
