"""Paths: what stands at one, whom it belongs to, and what the system's refusals mean.

Symbolic links are not followed in the last place: replacing one would leave its target as it was, and that is never what was
meant.  Access control lists and extended attributes are not carried over.
"""

import os
import stat
from grp import getgrnam
from pathlib import Path as FilePath
from pwd import getpwnam, getpwuid

from msgspec import Struct

from dislocate.host.before import SIZE_LIMIT, sync_directory
from dislocate.host.work import Failure


class Seen(Struct, frozen=True):
    """Something at a path: a file with its content, or a directory without one."""

    mode: int
    uid: int
    gid: int
    content: bytes = b""


class OwnerUnknown(Failure):
    """A user or group that is not there, or not yet."""


def see_file(path: str) -> Seen | None:
    """The regular file at `path`, or None.  Raises `Failure` for anything else."""
    found = _lstat(path)
    if found is None:
        return None
    if stat.S_ISDIR(found.st_mode):
        raise Failure("apply", f"{path} is a directory; name a file in it")
    if not stat.S_ISREG(found.st_mode):
        raise Failure("apply", f"{path} is no regular file but a device, pipe or socket; name another path")
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # what stands there may be exchanged
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            content = file.read(SIZE_LIMIT + 1) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        raise refusal(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise Failure("apply", f"{path} was exchanged while it was looked at; what else changes it?")
    if len(content) > SIZE_LIMIT:
        raise Failure(
            "apply",
            f"{path} has more than the {SIZE_LIMIT >> 20} MiB that are kept for a revert; move it away first",
        )
    return Seen(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid, content)


def see_directory(path: str) -> Seen | None:
    """The directory at `path`, or None.  Raises `Failure` for anything else."""
    found = _lstat(path)
    if found is None:
        return None
    if not stat.S_ISDIR(found.st_mode):
        raise Failure("apply", f"{path} is there and is no directory; move it away first")
    return Seen(stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid)


def _lstat(path: str) -> os.stat_result | None:
    if not path.startswith("/"):
        raise Failure("apply", f"{path!r} is no absolute path; write it from '/' on")
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise refusal(path, error) from None
    if stat.S_ISLNK(found.st_mode):
        raise Failure("apply", f"{path} is a symbolic link to {os.path.realpath(path)}; name that path instead")
    return found


def resolve_mode(text: str) -> int:
    """Raises `Failure`."""
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise Failure("apply", f"{text!r} is no mode; write it in octal, such as '0644'")
    return mode


def resolve_owner(owner: str) -> tuple[int, int]:
    """uid and gid of 'user', 'user:group' or ':group'; of nothing: the agent's own.

    Raises `OwnerUnknown`, and `Failure` where this agent may not give a file to them."""
    user, _, group = owner.partition(":")
    uid, gid = os.geteuid(), os.getegid()
    if user:
        uid, gid = _user(user)
    if group:
        gid = _group(group)
    if os.geteuid() != 0 and (uid != os.geteuid() or gid not in (os.getegid(), *os.getgroups())):
        raise Failure(
            "apply",
            f"this agent runs as {_user_name(os.geteuid())} and may not give files to {owner!r}; run it as root, or leave "
            "`owner` out",
        )
    return uid, gid


def _user(name: str) -> tuple[int, int]:
    try:
        found = getpwuid(int(name)) if name.isdecimal() else getpwnam(name)
    except KeyError:
        if name.isdecimal():
            return int(name), int(name)
        raise OwnerUnknown("apply", f"there is no user {name!r} on this host; make it first, or mend `owner`") from None
    return found.pw_uid, found.pw_gid


def _group(name: str) -> int:
    if name.isdecimal():
        return int(name)
    try:
        return getgrnam(name).gr_gid
    except KeyError:
        raise OwnerUnknown(
            "apply", f"there is no group {name!r} on this host; make it first, or mend `owner`"
        ) from None


def _user_name(uid: int) -> str:
    try:
        return getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def remove_file(path: str) -> None:
    """Durable.  Raises `Failure`."""
    try:
        os.unlink(path)
        sync_directory(FilePath(path).parent)
    except OSError as error:
        raise refusal(path, error) from None


def refusal(path: str, error: OSError) -> Failure:
    """What the system said, with the mend where there is a known one."""
    parent = os.path.dirname(path)
    if isinstance(error, FileNotFoundError):
        return Failure("apply", f"there is no directory {parent}; make it first, with a directory resource it requires")
    if isinstance(error, NotADirectoryError):
        return Failure("apply", f"{parent} is no directory; move it away, or name another path")
    if isinstance(error, PermissionError):
        user = _user_name(os.geteuid())
        return Failure(
            "apply", f"this process runs as {user} and may not change {path}; run it as root, or mend the mode of it"
        )
    return Failure("apply", f"{path}: {error.strerror or error}")
