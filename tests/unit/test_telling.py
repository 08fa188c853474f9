"""Telling followers: one timer, whoever comes and goes, and silence after the end."""

from dislocate.core.boundary.effects import SendMessage
from dislocate.core.consensus.messages import GroupId
from dislocate.core.identity import NodeId
from dislocate.core.membership.members import Members
from dislocate.core.outbox import NEVER, Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.store.commands import Command, encode_command
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.messages import Follow, Unfollow
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.store.telling import Telling
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND
from tests.support.tiny_servers import put

FOLLOWER = NodeId("fra", "a9", 1)
GROUP = GroupId(b"g" * 16)


class Scene:
    def __init__(self):
        self.out = Outbox(NodeId("fra", "a1", 1), Rumors())
        links = ServerLinks("fra/a1", self.out, Members("fra", "fra/a1"), Streams("x")["links"])
        links.opened(FOLLOWER)
        self.machine = StoreMachine()
        self.telling = Telling(self.out, links, self.machine, lambda: 0, lambda: "fra/a1")
        self.timers = self.telling.timers()
        self.woken = 0

    def run(self, duration):
        end = self.out.now + duration
        while self.out.deadline() <= end:
            self.out.now = max(self.out.now, self.out.deadline())
            timer = self.out.due()
            self.woken += 1
            self.timers[type(timer)](timer)
        self.out.now = end

    @property
    def said(self):
        effects, self.out.effects = self.out.effects, []
        return [effect for effect in effects if isinstance(effect, SendMessage)]


def test_who_comes_and_goes_many_times_leaves_one_timer():
    scene = Scene()
    for _ in range(20):
        scene.telling.follow(FOLLOWER, Follow(GROUP, "a/", 0))
        scene.telling.unfollow(FOLLOWER, Unfollow("a/"))
    scene.telling.follow(FOLLOWER, Follow(GROUP, "a/", 0))
    scene.run(10 * SECOND)
    assert scene.woken <= 101


def test_nobody_follows_so_nothing_wakes():
    scene = Scene()
    scene.telling.follow(FOLLOWER, Follow(GROUP, "a/", 0))
    scene.telling.lost("fra/a9")
    scene.run(SECOND)
    assert scene.out.deadline() == NEVER


def test_after_the_end_it_is_silent():
    scene = Scene()
    scene.telling.follow(FOLLOWER, Follow(GROUP, "a/", 0))
    scene.run(3 * SECOND)
    assert scene.said
    scene.telling.end()
    scene.telling.changed(list(scene.machine.apply(1, encode_command(Command(put("a/k")))).changes))
    scene.telling.follow(FOLLOWER, Follow(GROUP, "b/", 0))
    scene.run(10 * SECOND)
    assert scene.said == []
    assert scene.out.deadline() == NEVER
