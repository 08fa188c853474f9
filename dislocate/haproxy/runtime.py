"""HAProxy's runtime API: one connection a command on its socket, text in, text out.

Needs `stats socket PATH level admin` in HAProxy's `global`.  Reads `show servers state`, which names its columns, so that a
HAProxy with more of them is understood too, and `show stat`, which alone knows the backups; writes with `set server`.
"""

import csv
import socket

from msgspec import Struct

from dislocate.core.errors import DislocateError, LocalError

WITHIN = 5.0  # seconds; it answers in less than one millisecond, or is stuck
_SERVERS = 4  # of the kinds that `show stat` knows
_FORCED_DRAIN, _CONFIGURED_DRAIN = 0x08, 0x10  # of srv_admin_state
_MAINTENANCE = (
    0x01 | 0x02 | 0x20 | 0x40
)  # forced, inherited, by DNS; not 0x04, which only says that the file once had it


class NoProxy(DislocateError):
    """Nothing answers at HAProxy's socket.  Nothing was changed."""

    def __init__(self, where: str, reason: object) -> None:
        super().__init__(where, reason)
        self.where = where
        self.reason = reason

    def __str__(self) -> str:
        return f"no HAProxy at {self.where} ({self.reason}); its `global` needs: stats socket PATH level admin"


class Slot(Struct, frozen=True):
    """One server of a backend, as HAProxy has it now."""

    name: str
    address: str
    port: int
    weight: int
    state: str  # 'ready', 'drain' or 'maint', as `set server ... state` calls them
    since: int  # seconds since its state last changed
    is_backup: bool = False


class Runtime:
    """The socket of one HAProxy: a path, or 'host:port'."""

    def __init__(self, where: str) -> None:
        self.where = where

    def ask(self, command: str) -> str:
        """The answer to `command`; several, joined by ';', are answered in turn.  Raises `NoProxy`."""
        try:
            with self._connect() as connection:
                connection.settimeout(WITHIN)
                connection.sendall(command.encode() + b"\n")
                answer = b""
                while part := connection.recv(1 << 16):
                    answer += part
        except OSError as error:
            raise NoProxy(self.where, error.strerror or error) from error
        return answer.decode(errors="replace")

    def slots(self, backend: str) -> list[Slot]:
        """The servers of `backend`, in its order.  Raises `NoProxy`, and `LocalError` where it has no such backend."""
        answer = self.ask(f"show servers state {backend}")
        lines = [line for line in answer.splitlines() if line.strip()]
        head = next((line for line in lines if line.startswith("#")), "")
        if not head:
            raise LocalError("--backend", got=backend, expected=f"a backend of that HAProxy ({answer.strip()[:100]})")
        columns = head.removeprefix("#").split()
        rows = [dict(zip(columns, line.split(), strict=False)) for line in lines[lines.index(head) + 1 :]]
        backups = self._are_backups(backend, rows[0]["be_id"]) if rows else {}
        if any(row["srv_name"] not in backups for row in rows):
            # It was reloaded between the two questions: another look finds out, and nobody is moved on a guess.
            raise NoProxy(self.where, f"its statistics do not know all servers of {backend}")
        return [_slot(row, backups[row["srv_name"]]) for row in rows]

    def _are_backups(self, backend: str, number: str) -> dict[str, bool]:
        """By name whether a server of `backend`, which has that number, is `backup`."""
        rows = csv.DictReader(self.ask(f"show stat {number} {_SERVERS} -1").removeprefix("# ").splitlines())
        return {row["svname"]: row["bck"] == "1" for row in rows if row.get("pxname") == backend}

    def states(self) -> str:
        """All servers of all backends, in the form that `load-server-state-from-file` reads.  Raises `NoProxy`."""
        return self.ask("show servers state")

    def _connect(self) -> socket.socket:
        host, colon, port = self.where.rpartition(":")
        if "/" not in self.where and colon and port.isdigit():
            return socket.create_connection((host.strip("[]"), int(port)), WITHIN)
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(WITHIN)
            connection.connect(self.where)
        except OSError:
            connection.close()
            raise
        return connection


def _slot(row: dict[str, str], is_backup: bool) -> Slot:
    admin = int(row["srv_admin_state"])
    state = "maint" if admin & _MAINTENANCE else "drain" if admin & (_FORCED_DRAIN | _CONFIGURED_DRAIN) else "ready"
    return Slot(
        name=row["srv_name"],
        address=row["srv_addr"],
        port=int(row["srv_port"]),
        weight=int(row["srv_uweight"]),
        state=state,
        since=int(row["srv_time_since_last_change"]),
        is_backup=is_backup,
    )
