"""`dislocate store`: the replicated store as a whole."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from dislocate.cli import store_offline
from dislocate.cli.output import EXIT_FAILED, age, agent_command, fail, show
from dislocate.cli.servers import NO_SERVERS, mends
from dislocate.client.connection import CHANGE_TIMEOUT, AgentConnection, restore_timeout
from dislocate.core.errors import LocalError

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def store() -> None:
    """The replicated store as a whole: how it is, and a copy of everything in it.

    \b
    dislocate store status
    dislocate store backup store.backup
    dislocate store restore store.backup
    """


store.add_command(store_offline.recover)
store.add_command(store_offline.forget_promise)


@store.command()
@agent_command
def status(agent: AgentConnection, as_json: bool) -> None:
    """Where this agent stands towards the store.  Exits 1 while nothing can be written here, or this
    server's part has ended, and says why.

    \b
    dislocate store status
    dislocate store status --json | jq -r .leader
    """
    answer = agent.get("/api/store")
    rows = [
        ("role of this agent", answer["role"]),
        ("leader", answer["leader"] or "none is known"),
        *([("term", answer["term"])] if answer["term"] else []),  # servers know it
        ("revision", _revision(answer)),
        ("servers", _counted(answer["servers"])),
        ("follows", " ".join(answer["followed"]) or "-"),
        ("group", (answer["group"] or "none yet") + _recovered(answer)),
    ]
    if as_json:
        click.echo(json.dumps(answer))
    else:
        width = max(len(name) for name, _ in rows)
        for name, value in rows:
            click.echo(f"{name:{width}}  {value}")
    is_without = answer["role"] == "agent" and not answer["group"]  # it knows of no store
    if problem := answer["problem"] or (NO_SERVERS if is_without else ""):
        if not as_json:
            has_ended = answer["role"] == "failed"  # its agent asks the others
            what = "this server's part in the store has ended" if has_ended else "nothing can be written here"
            click.echo(f"\n{what}: {problem}", err=True)
        sys.exit(EXIT_FAILED)
    if not as_json:
        for words in [answer["warning"]] if answer["warning"] else mends(answer["servers"]):
            click.echo(f"\n{words}", err=True)


def _recovered(answer: dict[str, Any]) -> str:
    branch = f" (branch {answer['branch']})" if answer["branch"] else ""
    return f", recovered {_times(answer['epoch'])}{branch}" if answer["epoch"] else ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


@store.command()
@click.argument("file", type=click.Path(path_type=Path), metavar="FILE|-")
@agent_command
def backup(agent: AgentConnection, as_json: bool, file: Path) -> None:
    """Write all keys and leases, as of one revision, to FILE (or, with -, to standard output).

    FILE is replaced only by a whole backup, and readable by you alone.

    \b
    dislocate store backup store-$(date +%F).backup
    """
    answer = agent.raw("GET", "/api/store/backup", timeout=CHANGE_TIMEOUT)
    if str(file) == "-":
        sys.stdout.buffer.write(answer.body)
        sys.stdout.buffer.flush()
        return
    try:
        _replace(file, answer.body)
    except OSError as error:
        fail(f"FILE: got {str(file)!r}, expected a file to write ({error.strerror})", as_json, EXIT_FAILED)
    revision = int(answer.headers.get("x-dislocate-revision", "0"))
    told = {"file": str(file), "bytes": len(answer.body), "revision": revision}
    rows = [(file, size(len(answer.body)), revision)]
    show(as_json, told, ("BACKUP", "SIZE", "REVISION"), rows, f"back into a store: dislocate store restore {file}")


@store.command()
@click.argument("file", type=_FILE)
@click.option("--force", is_flag=True, help="Even if the backup is of another group of servers.")
@agent_command
def restore(agent: AgentConnection, as_json: bool, file: Path, force: bool) -> None:
    """Replace all keys and leases by those in FILE, in one step.  What was put since the backup is gone then.

    Revisions go on growing, so no fencing token ever repeats.  Needs the role `operate`: the agent's own user on its
    http.sock, or a token.

    \b
    dislocate store restore store.backup
    dislocate store restore other.backup --force
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise LocalError("FILE", got=str(file), expected=f"a readable backup ({error.strerror})") from None
    path = "/api/store/restore" + ("?force=true" if force else "")
    answer: Any = json.loads(agent.raw("POST", path, data, restore_timeout(len(data))).body)
    rows = [(file, size(len(data)), answer["revision"])]
    show(as_json, answer, ("RESTORED", "SIZE", "REVISION"), rows, "dislocate kv list")


def size(count: int) -> str:
    """'812 B', '3.4 KiB', '12.0 MiB'."""
    if count < 1024:
        return f"{count} B"
    return f"{count / 1024:.1f} KiB" if count < 1 << 20 else f"{count / (1 << 20):.1f} MiB"


def _revision(answer: dict[str, Any]) -> str:
    if answer["age"] is None:
        return f"{answer['revision']}, nobody knows of when" if answer["revision"] else "none yet"
    return f"{answer['revision']}, as known {age(answer['age'])} ago"


def _counted(servers: list[dict[str, Any]]) -> str:
    if not servers:
        return "none are known"
    voters = sum(server["role"] == "voter" for server in servers)
    counted = f"{voters} that vote" + (f", {len(servers) - voters} that do not" if len(servers) > voters else "")
    return "; ".join([counted, *(f"{server['path']}: {server['trouble']}" for server in servers if server["trouble"])])


def _replace(file: Path, data: bytes) -> None:
    """All of `data` or nothing; the temporary file is made with mode 600."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=f".{file.name}-", delete=False) as scratch:
        try:
            scratch.write(data)
            scratch.flush()
            os.fsync(scratch.fileno())
            os.replace(scratch.name, file)
        except BaseException:
            os.unlink(scratch.name)
            raise
