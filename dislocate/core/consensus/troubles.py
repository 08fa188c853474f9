"""What keeps an agent from its part in the store, in words for an operator: who is concerned, and the mend."""

from collections.abc import Mapping

from msgspec import Struct

from dislocate.core.consensus.messages import GroupId, ServerId
from dislocate.core.consensus.promises import Standing, StoredGroup
from dislocate.core.identity import Path

_FORGET = "stop the agent, run `dislocate store forget-promise --config FILE`, start it again"

DISK_FULL = (
    "the disk is full, so this agent cannot remember what it promised or which group it is in: make room in its state "
    "directory; it is tried again each second"
)
TWO_STORES = ("two stores were founded", "the store was recovered by force more than once")
KEEP_ONE = (
    "Decide which to keep, stop the agent that leads there, run `dislocate store recover` on it once more, and start it: its "
    "epoch is the highest then and holds everywhere; all other servers are put out, and keep what they have until "
    "`dislocate servers add`"
)


class Heard(Struct, frozen=True):
    """What a listed server said of itself last."""

    boot: int
    disk: int
    servers: tuple[Path, ...]
    promised: tuple[ServerId, ...]


class Stranger(Struct, frozen=True):
    """What an agent said that is of another group, or of another branch of this one."""

    group: GroupId
    members: tuple[ServerId, ...]  # its servers; empty: it did not say


def disk_failed(reason: str) -> str:
    return f"this agent's part in the store ended when its disk failed ({reason}): mend the disk and restart the agent"


def of_group(me: Path, stored: StoredGroup, strangers: Mapping[Path, Stranger], is_listed: bool) -> str:
    """Why an agent that knows its group does not take part in it as it should."""
    split = {path: one for path, one in strangers.items() if one.group.splits_from(stored.group)}
    if split:
        return _recovered_twice(stored, split)
    if strangers:
        path, other = next(iter(strangers.items()))
        return (
            f"{_and(tuple(strangers))} belongs to another group ({other.group.uuid.hex()}) than this agent "
            f"({stored.group.uuid.hex()}): {TWO_STORES[0]}.  Decide which is right; on each agent of the other stop "
            f"it, move its state.db (and -wal, -shm) away, correct `servers` in [store], start it: first of all {path}, "
            "if it is the one"
        )
    if stored.standing is Standing.REMOVED:
        return f"this server was removed from the group and stays out; to have it back: dislocate servers add {me}"
    if stored.standing is Standing.SUPERSEDED:
        return (
            f"the group was recovered by force elsewhere (epoch {stored.group.epoch}); what this server has is of epoch "
            f"{stored.log_epoch}, is kept and takes no part; to throw it away and have this server back: "
            f"dislocate servers add {me}"
        )
    if is_listed and stored.standing is Standing.OUTSIDE:
        return f"this server's disk is new; the group exists: dislocate servers add {me}"
    return ""


def _recovered_twice(stored: StoredGroup, split: Mapping[Path, Stranger]) -> str:
    others = sorted({one.path for stranger in split.values() for one in stranger.members}) or list(split)
    ours = _and(tuple(one.path for one in stored.members)) or "the servers that this agent follows"
    return (
        f"{TWO_STORES[1]}: {ours} and {_and(tuple(others))} both go on from epoch "
        f"{stored.group.epoch - 1}, and neither has what is written at the other.  {KEEP_ONE}"
    )


def of_forming(me: Path, servers: tuple[Path, ...], shown: Mapping[Path, Heard]) -> str:
    """Why there is no group yet; `shown` is what this server and those that it heard say of themselves."""
    return (
        differing_lists(servers, shown)
        or _foreign_promise(servers, shown)
        or _lost_disk(shown)
        or _waiting(me, servers, shown)
    )


def differing_lists(servers: tuple[Path, ...], shown: Mapping[Path, Heard]) -> str:
    """Of those that are `shown`, which have which list; '' where all have the same."""
    by_list: dict[tuple[Path, ...], list[Path]] = {}
    for path in servers:
        if path in shown:
            by_list.setdefault(shown[path].servers, []).append(path)
    if len(by_list) < 2:
        return ""
    found = "; ".join(f"[{', '.join(one)}] on {_and(tuple(who))}" for one, who in by_list.items())
    return f"no group can be founded: `servers` in [store] is {found}.  Make it the same everywhere and restart"


def _foreign_promise(servers: tuple[Path, ...], shown: Mapping[Path, Heard]) -> str:
    """A promise was made when the list was another one."""
    for path, heard in shown.items():
        promised = tuple(one.path for one in heard.promised)
        if promised and promised != servers:
            return (
                f"no group can be founded: {path} promised to found it with {_and(promised)}, which is not what `servers` "
                f"in [store] says now.  Set that list everywhere, or, on {path}: {_FORGET}"
            )
    return ""


def _lost_disk(shown: Mapping[Path, Heard]) -> str:
    """Somebody is promised a disk that its server no longer has."""
    lost: dict[Path, None] = {}
    promisers: dict[Path, None] = {}
    for path, heard in shown.items():
        for one in heard.promised:
            if one.path in shown and shown[one.path].disk != one.disk:
                lost[one.path] = None
                promisers[path] = None
    if not lost:
        return ""
    return (
        f"no group can be founded: the disk of {_and(tuple(lost))} is another than the one that "
        f"{_and(tuple(promisers))} promised to found it with.  On {_and(tuple(promisers))}: {_FORGET}"
    )


def _waiting(me: Path, servers: tuple[Path, ...], shown: Mapping[Path, Heard]) -> str:
    missing = tuple(path for path in servers if path not in shown)
    if missing:
        return f"no group yet: waiting to hear from {_and(missing)}; all servers of the list must run, and reach {me}, once"
    unpromised = tuple(path for path in servers if not shown[path].promised)
    return (
        f"no group yet: waiting for the promise of {_and(unpromised)}" if unpromised else "no group yet: being founded"
    )


def _and(paths: tuple[Path, ...]) -> str:
    return ", ".join(paths[:-1]) + " and " + paths[-1] if len(paths) > 1 else "".join(paths)
