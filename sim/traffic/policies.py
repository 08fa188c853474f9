"""Policies of a scenario: an operator writes each into the store as soon as that takes writes, as `dislocate policy set` does.

Every agent follows the key by itself; until it has heard of it the defaults hold.
"""

import msgspec

from dislocate.core.balance.policies import PREFIX, decode_policy, encode_policy
from dislocate.core.boundary.requests import Result
from dislocate.core.boundary.store import Put, Transact, Transacted
from dislocate.core.units import SECOND
from sim.world import World

BEGIN = 3 * SECOND  # servers have found each other
AGAIN = 1 * SECOND  # until an operator who was refused, or heard nothing, asks another agent


def place_policies(world: World) -> None:
    """Make the operators who set the policies of the world's scenario."""
    for name, table in world.scenario.policies.items():
        value = encode_policy(decode_policy(msgspec.json.encode(table)))
        _Setting(world, PREFIX + name, value)


class _Setting:
    """One key, written until that is acknowledged."""

    def __init__(self, world: World, key: str, value: bytes) -> None:
        self._world = world
        self._request = Transact(then=(Put(key, value),))
        self._asked = 0
        self._is_done = False
        world.schedule.call(BEGIN, self._ask, None)

    def _ask(self, _: None, __: None, ___: None) -> None:
        if self._is_done:
            return
        world = self._world
        up = world.observers_up()
        if up:
            self._asked += 1
            world.request(world.machines[up[self._asked % len(up)]], self._request, self._answered)
        world.schedule.call(world.now + AGAIN, self._ask, None)

    def _answered(self, result: Result) -> None:
        self._is_done = self._is_done or isinstance(result, Transacted)
