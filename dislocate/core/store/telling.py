"""Telling: a server's followers, agents that hold some prefixes, hear what changes there and how old it is.

Changes go out with the batch that made them, parts of a state at a pace, and once a second everybody is told the age of what
it has.  Invariant: one timer waits at a time, while anybody follows.  What is told to whom is `followers`' business.
"""

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.store import KeyChange
from dislocate.core.identity import NodeId, Path
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.followers import Followers
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.messages import Follow, FollowedChanges, FollowedState, Unfollow
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.units import MILLISECOND, SECOND

FOLLOWERS_PERIOD = 100 * MILLISECOND  # parts of a state follow each other at this pace
TELL_AGE_EACH = 1 * SECOND  # also when nothing changed


class FollowersDue(Timer, frozen=True):
    """Followers are told how old what they have is, and the next parts of what they lack."""

    at: int  # outdated when another instant was armed since


class Telling:
    """The followers of one server.  `age` and `leader` are asked of it."""

    def __init__(
        self,
        out: Outbox,
        links: ServerLinks,
        machine: StoreMachine,
        age: Callable[[], int],
        leader: Callable[[], Path | None],
    ) -> None:
        self._out = out
        self._links = links
        self._age = age
        self._leader = leader
        self._followers = Followers(machine)
        self._told_at = out.now
        self._armed = 0  # instant of the timer that counts; 0: none waits
        self._has_ended = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {FollowersDue: self._due}

    def follow(self, sender: NodeId, body: Follow) -> None:
        if not self._has_ended and self._followers.follow(sender.path, body):
            self._go_on()
            self._arm()

    def unfollow(self, sender: NodeId, body: Unfollow) -> None:
        self._followers.unfollow(sender.path, body)

    def lost(self, follower: Path) -> None:
        """The link to it ended."""
        self._followers.lost(follower)

    def changed(self, changes: list[KeyChange]) -> None:
        """A batch was applied."""
        self._followers.changed(changes)
        self._go_on()

    def replaced(self, machine: StoreMachine) -> None:
        """A snapshot took the place of the state."""
        self._followers.store_replaced(machine)

    def end(self) -> None:
        """This server takes no part any more: it is silent, so followers go to another one."""
        self._has_ended = True

    def _arm(self) -> None:
        if not self._armed and len(self._followers) and not self._has_ended:
            self._armed = self._out.now + FOLLOWERS_PERIOD
            self._out.arm(self._armed, FollowersDue(self._armed))

    def _due(self, timer: FollowersDue) -> None:
        if timer.at != self._armed:
            return
        self._armed = 0
        if self._has_ended:
            return
        if self._out.now - self._told_at >= TELL_AGE_EACH:
            self._told_at = self._out.now
            self._send(self._followers.tick(self._out.now, self._age()))
        else:
            self._go_on()
        self._arm()

    def _go_on(self) -> None:
        if self._followers.has_more and not self._has_ended:
            self._send(self._followers.take(self._out.now, self._age()))

    def _send(self, messages: Iterable[tuple[Path, FollowedState | FollowedChanges]]) -> None:
        leader = self._leader()
        for path, message in messages:
            node = self._links.node(path)
            if node is not None:
                is_changes = isinstance(message, FollowedChanges)
                self._out.send_message(node, replace(message, leader=leader) if is_changes else message)
