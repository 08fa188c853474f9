"""The driver: a HAProxy's backends kept as the flows of their services say, by its runtime socket, without a reload.

Keeps nothing that it could not find again: each look compares what HAProxy has with what the agent says (`slots`).  So a
reload of HAProxy, a restart of the agent or of this process need no care; while the agent is away HAProxy keeps what it
has.  With a state file, a HAProxy that reloads begins with what it had.
"""

import os
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from dislocate.client.connection import AgentConnection, Problem, segment
from dislocate.client.pool import Server, pool
from dislocate.core.errors import LocalError
from dislocate.haproxy.runtime import NoProxy, Runtime
from dislocate.haproxy.slots import Steps, steps

BATCH = 16  # commands in one line: HAProxy reads at most a buffer of 16 KiB


class Bond(Struct, frozen=True):
    """A backend of HAProxy and the service whose instances its servers are."""

    backend: str
    service: str


class Driver:
    """One HAProxy.  `say` tells people what was done."""

    def __init__(
        self,
        agent: AgentConnection,
        runtime: Runtime,
        bonds: tuple[Bond, ...],
        say: Callable[[str], None],
        state_file: Path | None = None,
    ) -> None:
        self._agent = agent
        self._runtime = runtime
        self._bonds = bonds
        self._say = say
        self._state_file = state_file
        self._pools: dict[str, tuple[Server, ...]] = {}
        self._complaints: dict[str, str] = {}

    @property
    def unknown(self) -> tuple[str, ...]:
        """Services that the agent has not known yet: their backends are left as they are."""
        return tuple(bond.service for bond in self._bonds if bond.service not in self._pools)

    def refresh(self, service: str) -> None:
        """Ask the agent.  Raises `NoAgent`; a service that it does not know (any more) stays as it was."""
        try:
            flows = self._agent.get(f"/api/services/{segment(service)}/flows")
        except Problem as problem:
            if problem.status != 404:
                raise
            self._complain(service, f"{service}: the agent knows no such service")
            return
        self._pools[service] = pool(flows, by_load=True)

    def apply(self) -> int:
        """Make HAProxy so; how many commands that took.

        Raises `NoProxy`, and, when all else is done, `LocalError` for what HAProxy refuses.
        """
        told = 0
        wrong: LocalError | None = None
        for bond in self._bonds:
            if bond.service not in self._pools:
                continue
            try:
                told += self._apply(bond)
            except LocalError as error:  # of one backend, such as a name that a reload took away: the others go on
                wrong = wrong or error
        if self._state_file is not None and (told or not self._state_file.exists()):
            _write(self._state_file, self._runtime.states())
        if wrong is not None:
            raise wrong
        return told

    def _apply(self, bond: Bond) -> int:
        wanted = steps(bond.backend, self._runtime.slots(bond.backend), self._pools[bond.service])
        self._complain(bond.backend, _lacks(bond, wanted))
        if wanted.are_spares_idle:  # not taken back with the last spare: spares come and go, the file stays
            self._complain(f"{bond.backend} backups", _lacks_backups(bond))
        for at in range(0, len(wanted.commands), BATCH):
            batch = wanted.commands[at : at + BATCH]
            refusal = _refusal(self._runtime.ask(";".join(batch)))
            if refusal:
                raise LocalError("--socket", got=refusal, expected="its commands obeyed: is it `level admin`?")
            for command in batch:
                self._say(command)
        return len(wanted.commands)

    def _complain(self, about: str, words: str) -> None:
        if words != self._complaints.get(about, ""):  # once
            self._complaints[about] = words
            if words:
                self._say(words)


def _lacks(bond: Bond, wanted: Steps) -> str:
    found = []
    for servers, what in (
        ([server for server in wanted.unplaced if not server.is_spare], "server-template"),
        ([server for server in wanted.unplaced if server.is_spare], "server-template of the backups"),
    ):
        if servers:
            names = ", ".join(server.key for server in servers[:5])
            found.append(f"{len(servers)} of {bond.service} have no slot: {names}; raise the number in its {what}")
    if wanted.nameless:
        found.append(
            f"{', '.join(s.key for s in wanted.nameless[:5])} have a host name, which HAProxy's socket does not take"
        )
    return f"{bond.backend}: {'; '.join(found)}" if found else ""


def _lacks_backups(bond: Bond) -> str:
    return (
        f"{bond.backend}: it has no backup servers, so that spares of {bond.service} serve nobody until the agent knows "
        "that the others are gone; add: option allbackups, server-template spare 1-20 127.0.0.1:1 disabled backup"
    )


def _refusal(answer: str) -> str:
    """The first line that says no: 'set server' answers nothing, or what it did."""
    for line in answer.splitlines():
        if line.strip() and not line.startswith(("changes ", "IP changed", "port changed", "no need to change")):
            return line.strip()[:200]
    return ""


def _write(path: Path, text: str) -> None:
    draft = path.with_name(f".{path.name}.dislocate")
    try:
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise LocalError("--state-file", got=str(path), expected=f"a file to write ({error.strerror})") from error


__all__ = ["Bond", "Driver", "NoProxy"]
