"""Calm: how long ago the last fault was that excuses what two hosts do not know of each other.

Invariants with a bound begin to hold so long after the last disturbance, and not before.
"""

from sim.process import Machine
from sim.world import World


def calm_for(world: World, left: Machine, right: Machine) -> int:
    """For how long no fault has begun, lasted or ended on either host or on the way between them.

    A process that is stopped is a fault that lasts; one that is gone is not: what should follow has begun."""
    if any(one.process is not None and one.process.is_paused for one in (left, right)):
        return 0
    rows = world.network.rows
    if rows[left.index][right.index].is_disturbed or rows[right.index][left.index].is_disturbed:
        return 0
    touched = world.network.touched
    here, there = left.datacenter, right.datacenter
    since = max(touched.get((here, there), 0), touched.get((there, here), 0), left.calm_since, right.calm_since)
    return world.now - since
