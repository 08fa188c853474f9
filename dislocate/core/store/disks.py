"""Disks: which servers run on another disk than the one that their group knows, so that it waits for one that is gone.

Each agent says its disk when it asks or tells about the group; what it said counts until its agent is started again, and as
long as the group knows it by the disk of then: who is added with its new one is a server like others.  For operators to see;
nothing is decided by it (`consensus.bootstrap` hears the same).
"""

from dislocate.core.consensus.bootstrap import Founding
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.members import Members


class Disks:
    """What one agent heard of them."""

    def __init__(self, members: Members, founding: Founding) -> None:
        self._members = members
        self._founding = founding
        self._others: dict[Path, tuple[int, int]] = {}  # who has another: its boot, and the disk that the group knew

    def hear(self, sender: NodeId, disk: int) -> None:
        """`sender` has this disk; 0: none that is durable yet."""
        known = next((one.disk for one in self._founding.members if one.path == sender.path), disk)
        if disk in (0, known):
            self._others.pop(sender.path, None)
        else:
            self._others[sender.path] = (sender.boot, known)

    def is_other(self, path: Path, disk: int) -> bool:
        """Whether the agent of the server at `path`, whom the group knows by `disk`, lives and has another one."""
        own = self._founding.server
        if path == own.path:
            return disk != own.disk
        member = self._members.get(path)
        return member is not None and member.is_living and self._others.get(path) == (member.node.boot, disk)
