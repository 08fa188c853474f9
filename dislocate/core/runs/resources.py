"""What each kind of resource may say: one check a kind, by a table.

Every check raises `LocalError` with the field below its resource and the mend; nothing here looks at a host, so what a host
alone can tell (is there such a user?) is found there and reported as a failure of the node.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from dislocate.core.boundary.spec import Command, Directory, File, Key, Package, Process, Resource, Service
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_service_name
from dislocate.core.runs.records import RECORDS
from dislocate.core.store.names import check_key
from dislocate.core.units import HOUR, format_duration

LONGEST_TIMEOUT = 24 * HOUR  # what takes a node longer than a day is no step of a rollout
ID_LENGTH = 200  # characters
PATH_LENGTH = 1024  # characters; Linux allows 4096 bytes
COPIES = 64  # of one process on a node
OPERATORS = ("system/", RECORDS)  # keys that templates and runs may not write

_FACT = re.compile(r"^\{\{ ?facts\.[a-z_]+ ?\}\}(?=/|\Z)")  # each node's own place, where several share a machine
_SPELLING = re.compile(r"\{\{\s*facts\.([a-z_]+)\s*\}\}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_MODE = re.compile(r"0?[0-7]{3,4}", re.ASCII)
_OWNER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,63})?", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_UNIT = re.compile(r"[A-Za-z0-9:_.@\\-]{1,255}", re.ASCII)
_PROCESS = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]*(?:\[[A-Za-z0-9,._-]+\])?", re.ASCII)
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~:!_-]*", re.ASCII)


def resource_id(resource: Resource) -> str:
    """Its id: the one that was given, else its kind and what it is about, such as 'file /etc/motd'."""
    return resource.id or about(resource)


def about(resource: Resource) -> str:
    """Its kind and what it is about, whatever its id: for all runs, such a thing is the same on a node."""
    return f"{resource.__struct_config__.tag} {_ABOUT[type(resource)](resource)}"[:ID_LENGTH]


def spelt(path: str) -> str:
    """A path with its facts in one spelling.  One that is written with a fact and one that is written out stay two."""
    return _SPELLING.sub(r"{{ facts.\1 }}", path)


_ABOUT: dict[type, Callable[[Any], str]] = {
    File: lambda one: spelt(one.path),
    Directory: lambda one: spelt(one.path),
    Command: lambda one: " ".join(one.run),
    Service: lambda one: one.unit,
    Process: lambda one: one.name,
    Package: lambda one: one.name if not one.venv else f"{one.name} in {spelt(one.venv)}",
    Key: lambda one: one.key,
}


def is_owed_only(resource: Resource) -> bool:
    """Whether nothing is done about it unless another resource notifies it."""
    return resource.only_notified or isinstance(resource, Service)


def is_act(resource: Resource) -> bool:
    """Whether it only follows others and leaves nothing of its own, such as a reload: there is nothing to take back, and two
    runs that have it in common are not in each other's way."""
    if isinstance(resource, Command):
        return resource.only_notified and not resource.revert and not resource.once
    return isinstance(resource, Service)


def is_once(resource: Resource) -> bool:
    """Whether it is done once a run, with the journal as its only guard."""
    return isinstance(resource, Command) and resource.once


def is_shared(resource: Resource) -> bool:
    """Whether it is the fleet's and not the node's: the first node that brings it about changes it for all others, whose plan
    holds nevertheless."""
    return isinstance(resource, Key)


def check_resource(resource: Resource, field: str) -> None:
    """Raises `LocalError` naming the field below `field` unless it can be brought about."""
    check_words(resource.id, f"{field}.id", ID_LENGTH, may_be_empty=True)
    check_span(resource.timeout, f"{field}.timeout")
    _CHECKS[type(resource)](resource, field)


# ---- kinds


def _check_file(file: File, field: str) -> None:
    check_path(file.path, f"{field}.path")
    if file.source:
        raise LocalError(
            f"{field}.source", got=file.source, expected="'content': files are read where the run is started"
        )
    _check_mode(file.mode, f"{field}.mode")
    _check_owner(file.owner, f"{field}.owner")
    _check_arguments(file.validate, f"{field}.validate", may_be_empty=True)
    if file.validate and not any("{path}" in argument for argument in file.validate):
        expected = "'{path}' in one of the arguments: the new file before it replaces the old one"
        raise LocalError(f"{field}.validate", got=" ".join(file.validate), expected=expected)


def _check_directory(directory: Directory, field: str) -> None:
    check_path(directory.path, f"{field}.path")
    _check_mode(directory.mode, f"{field}.mode")
    _check_owner(directory.owner, f"{field}.owner")


def _check_command(command: Command, field: str) -> None:
    _check_arguments(command.run, f"{field}.run")
    for name in ("unless", "check", "revert"):
        _check_arguments(getattr(command, name), f"{field}.{name}", may_be_empty=True)
    if command.creates:
        check_path(command.creates, f"{field}.creates")
    check_path(command.directory, f"{field}.directory", may_be_fact=True)
    _check_environment(command.environment, f"{field}.environment")
    guards = [name for name in ("unless", "creates", "check", "once") if getattr(command, name)]
    if len(guards) > 1 or not (guards or command.only_notified):
        expected = "exactly one of 'unless', 'creates', 'check', 'once = true': what says whether it is needed"
        raise LocalError(field, got=", ".join(guards) or None, expected=expected)


def _check_service(service: Service, field: str) -> None:
    if not _UNIT.fullmatch(service.unit):
        raise LocalError(f"{field}.unit", got=service.unit, expected="the name of a unit of systemd, such as 'nginx'")
    if service.drain:
        check_service_name(service.drain, f"{field}.drain")
    check_span(service.drain_for, f"{field}.drain_for", may_be_zero=True)


def _check_process(process: Process, field: str) -> None:
    if not _PROCESS.fullmatch(process.name):
        expected = "1 to 63 of a-z 0-9 '.' '-', neither sign first nor last"
        raise LocalError(f"{field}.name", got=process.name, expected=expected)
    _check_arguments(process.run, f"{field}.run")
    if process.service:
        check_service_name(process.service, f"{field}.service")
    if not 1 <= process.count <= COPIES:
        raise LocalError(f"{field}.count", got=process.count, expected=f"a whole number, 1..{COPIES}")
    _check_ports(process, f"{field}.ports")
    if process.health and (not process.health.startswith("/") or _CONTROL.search(process.health)):
        raise LocalError(f"{field}.health", got=process.health, expected="a path such as '/health'")
    check_path(process.directory, f"{field}.directory", may_be_fact=True)
    _check_environment(process.environment, f"{field}.environment")
    check_span(process.ready_within, f"{field}.ready_within")
    check_span(process.drain_for, f"{field}.drain_for", may_be_zero=True)
    check_span(process.stop_within, f"{field}.stop_within", may_be_zero=True)


def _check_ports(process: Process, field: str) -> None:
    for at, port in enumerate(process.ports):
        if not 1 <= port <= 65535 or port in process.ports[:at]:
            raise LocalError(f"{field}[{at}]", got=port, expected="a whole number, 1..65535, each once")
    if process.ports and len(process.ports) <= process.count:
        expected = f"at least {process.count + 1}: a new process starts beside the one that it replaces"
        raise LocalError(field, got=len(process.ports), expected=expected)


def _check_package(package: Package, field: str) -> None:
    if not _PACKAGE.fullmatch(package.name):
        raise LocalError(f"{field}.name", got=package.name, expected="the name of one package, such as 'nginx'")
    if package.version and not _VERSION.fullmatch(package.version):
        raise LocalError(
            f"{field}.version", got=package.version, expected="one version, such as '1.22.1-9', or nothing"
        )
    if package.venv:
        check_path(package.venv, f"{field}.venv")


def _check_key(key: Key, field: str) -> None:
    check_key(key.key, f"{field}.key")
    if key.key.startswith(OPERATORS):
        raise LocalError(f"{field}.key", got=key.key, expected=f"a key that is not below {' or '.join(OPERATORS)}")


_CHECKS: dict[type, Callable[[Any, str], None]] = {
    File: _check_file,
    Directory: _check_directory,
    Command: _check_command,
    Service: _check_service,
    Process: _check_process,
    Package: _check_package,
    Key: _check_key,
}


# ---- values


def check_words(text: str, field: str, length: int, *, may_be_empty: bool = False) -> None:
    """Raises `LocalError` unless `text` fits on a line."""
    if len(text) > length or _CONTROL.search(text) or not (text.strip() or (may_be_empty and not text)):
        raise LocalError(field, got=text, expected=f"text on one line, at most {length} characters")


def check_path(path: str, field: str, *, may_be_fact: bool = False) -> None:
    """Raises `LocalError` unless `path` is absolute, or below a fact of the node, and says plainly where it leads.
    `may_be_fact`: nothing is made or replaced there, so it may be such a place itself."""
    full = _FACT.sub("/fact", path, count=1)
    parts = full.split("/")
    is_plain = full == "/" or not any(part in ("", ".", "..") for part in parts[1:])
    is_fact = full == "/fact" and full != path
    is_place = full.startswith("/") and is_plain and (may_be_fact or not is_fact)
    if not is_place or len(full) > PATH_LENGTH or _CONTROL.search(full):
        fact = "'{{ facts.state_dir }}' or one below it" if may_be_fact else "one below '{{ facts.state_dir }}'"
        expected = f"an absolute path without '..', such as '/etc/motd', or {fact}"
        raise LocalError(field, got=path, expected=expected)


def check_span(nanoseconds: int, field: str, *, may_be_zero: bool = False) -> None:
    """Raises `LocalError` unless it is a duration that a node can take."""
    if nanoseconds < 0 or nanoseconds > LONGEST_TIMEOUT or not (nanoseconds or may_be_zero):
        least = "" if may_be_zero else " above 0"
        expected = f"a duration{least} of at most {format_duration(LONGEST_TIMEOUT)}"
        raise LocalError(field, got=format_duration(nanoseconds), expected=expected)


def _check_mode(mode: str, field: str) -> None:
    if not _MODE.fullmatch(mode):
        raise LocalError(field, got=mode, expected="an octal mode in quotes, such as '0644'")


def _check_owner(owner: str, field: str) -> None:
    if owner and not _OWNER.fullmatch(owner):
        raise LocalError(field, got=owner, expected="'user' or 'user:group'")


def _check_arguments(arguments: Sequence[str], field: str, *, may_be_empty: bool = False) -> None:
    if not arguments and may_be_empty:
        return
    if not arguments or not arguments[0].strip():
        raise LocalError(field, got=list(arguments), expected="a program and its arguments, such as ['nginx', '-t']")
    for at, argument in enumerate(arguments):
        if "\x00" in argument:
            raise LocalError(f"{field}[{at}]", got=argument, expected="an argument without a zero byte")


def _check_environment(environment: dict[str, str], field: str) -> None:
    for name, value in environment.items():
        if not _VARIABLE.fullmatch(name) or "\x00" in value:
            raise LocalError(f"{field}.{name}", got=value, expected="a name such as 'LOG_LEVEL', and text")
