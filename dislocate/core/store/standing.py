"""Standing: where an agent stands towards the store, for the edge to show."""

from collections.abc import Callable

from msgspec.structs import replace

from dislocate.core.boundary.store import ServerView, StoreView
from dislocate.core.consensus.bootstrap import Founding
from dislocate.core.identity import Path
from dislocate.core.store.disks import Disks
from dislocate.core.store.near import Near
from dislocate.core.store.server import Server
from dislocate.core.store.serverlinks import ServerLinks

WIPED = "wiped"  # its agent runs on another disk than the one that the group knows


def leader_of(server: Server | None, near: Near) -> Path | None:
    """Who leads, as far as this agent knows."""
    if server is not None and not server.problem:
        return None if server.leader is None else server.leader.path
    return near.leader


def view(
    founding: Founding,
    server: Server | None,
    near: Near,
    links: ServerLinks,
    disks: Disks,
    trouble: Callable[[Path], str],
    diverged: str,
    unled: str,
    now: int,
) -> StoreView:
    """`trouble`: what keeps others from a server, as an agent that is none knows it.  `diverged`: why what is on the disk is
    never served again; empty: it is sound.  `unled`: why an agent that is no server finds nobody to write for it; empty:
    somebody may."""
    group = founding.group
    revision, as_of = near.newest
    return StoreView(
        group="" if group is None else group.uuid.hex(),
        epoch=0 if group is None else group.epoch,
        branch=f"{group.branch:010x}" if group is not None and group.branch else "",
        role=_role(founding, server, diverged),
        leader=leader_of(server, near),
        term=0 if server is None else server.replica.raft.term,
        revision=revision if server is None else server.revision,
        index=0 if server is None else server.replica.machine.index,
        as_of=as_of if server is None else now - server.age,
        servers=_of_known_disks(_servers(founding, near, links, trouble) if server is None else server.views(), disks),
        problem=(diverged or unled) if server is None else _problem(server),
        warning=_warning(founding, server),
        followed=near.prefixes if server is None else (),
    )


def _role(founding: Founding, server: Server | None, diverged: str) -> str:
    if server is None:
        return "failed" if diverged else "forming" if founding.is_forming else "agent"
    return "failed" if server.problem else server.role


def _problem(server: Server) -> str:
    return server.why_not_now() or ("" if _follows(server) else server.no_space())


def _warning(founding: Founding, server: Server | None) -> str:
    """What is wrong while writes go on elsewhere: an agent that has no part of its own in its group asks the others."""
    own = "" if founding.group is None else founding.problem
    if server is None or not _follows(server) or server.leader is None or not server.no_space():
        return own
    return f"{server.no_space()}; meanwhile {server.leader.path} leads and takes writes"


def _follows(server: Server) -> bool:
    return server.leader is not None and not server.leads and not server.problem


def _servers(
    founding: Founding, near: Near, links: ServerLinks, trouble: Callable[[Path], str]
) -> tuple[ServerView, ...]:
    return tuple(
        ServerView(
            path=member.path,
            disk=f"{member.disk:016x}",
            role="voter",
            is_leader=member.path == near.leader,
            linked=member.path == founding.me or links.is_open(member.path),
            trouble=trouble(member.path) if member.path != founding.me else "",
        )
        for member in founding.members
    )


def _of_known_disks(servers: tuple[ServerView, ...], disks: Disks) -> tuple[ServerView, ...]:
    """Who was wiped is silent, and has a link or none by chance: what it is says how to have it back."""
    return tuple(
        replace(server, trouble=WIPED) if disks.is_other(server.path, int(server.disk, 16)) else server
        for server in servers
    )
