"""What commands print: tables for people, JSON for programs; and the options that every command has."""

import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from dislocate.client.connection import AgentConnection, NoAgent, Problem, find_agent
from dislocate.core.errors import LocalError

EXIT_FAILED = 1
EXIT_NO_AGENT = 3

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and ends of lines

T = TypeVar("T")

_COMMANDS = {
    "?consistency=local reads": "kv get --consistency local and run status --local read",
    "GET /api/servers lists": "dislocate servers list shows",
    "GET /api/members lists": "dislocate members shows",
    "GET /api/runs shows": "dislocate run list shows",
    "GET /api/scale lists": "dislocate scale show lists",
    "GET /api/secrets shows": "dislocate secret list shows",
    "GET /api/services lists": "dislocate services shows",
    "GET /api/store says": "dislocate store status says",
}


def agent_command(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command `--agent`, `--token` and `--json`, an open `agent`, and exit codes 0 ok, 1 failed, 3 no agent."""

    @click.option("--agent", "where", metavar="URL", help="http://HOST:PORT or unix:/PATH; else DISLOCATE_AGENT.")
    @click.option("--token", metavar="TOKEN", help="Bearer token where a role needs one; else DISLOCATE_TOKEN.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
    @functools.wraps(function)
    def command(*context: click.Context, where: str | None, token: str | None, as_json: bool, **arguments: Any) -> None:
        parent = click.get_current_context().parent
        given = parent.params if parent is not None else {}  # `members --agent URL forget` means the same
        try:
            agent = find_agent(where or given.get("where"), token or given.get("token"))
            function(*context, agent=agent, as_json=as_json or given.get("as_json", False), **arguments)
        except NoAgent as error:
            fail(str(error), as_json, EXIT_NO_AGENT)
        except Problem as error:
            fail(_in_commands(str(error)), as_json, EXIT_FAILED, error.answer)
        except LocalError as error:
            fail(str(error), as_json, EXIT_FAILED)

    return command


def _in_commands(words: str) -> str:
    """What the API tells programs to ask, as what people type."""
    for request, typed in _COMMANDS.items():
        words = words.replace(request, typed)
    return words


def fail(words: str, as_json: bool, code: int, answer: dict[str, Any] | None = None) -> NoReturn:
    """Say what is wrong on standard error (as JSON where that was asked for) and end with `code`."""
    click.echo(json.dumps(answer or {"error": words}) if as_json else printable(words), err=True)
    sys.exit(code)


def printable(value: T) -> T:
    """A text, or each text in an answer, with control characters as '\\x1b': what nodes and files say is shown on a terminal,
    and is not to command it."""
    match value:
        case str():
            return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
        case dict():
            return type(value)((printable(key), printable(each)) for key, each in value.items())
        case list():
            return type(value)(map(printable, value))
    return value


def about(path: Path, error: LocalError) -> str:
    """What is wrong with the file at `path`, which is named once: an error that it cannot be read names it already."""
    return str(error) if error.got == str(path) else f"{path}: {error}"


def show(
    as_json: bool,
    answer: Any,
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    hint: str = "",
    nothing: str = "",
) -> None:
    """Print `answer` as JSON, or `rows` as a table with the next useful command under it; `nothing` where none is."""
    if as_json:
        click.echo(json.dumps(answer))
        return
    if nothing and not rows:
        click.echo(nothing)
        return
    click.echo(table(columns, rows))
    if hint and sys.stdout.isatty():
        click.echo(f"\n{hint}")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as their widest cell, two spaces apart: greppable, the same in a pipe and on a terminal."""
    texts = [tuple(columns), *(tuple(printable(str(cell)) for cell in row) for row in rows)]
    widths = [max(len(row[index]) for row in texts) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in texts
    )


def age(seconds: float | None) -> str:
    """'0.2 s', '3 min', '2 h': for a column."""
    if seconds is None:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for limit, unit, size in ((120, "s", 1), (7200, "min", 60), (172800, "h", 3600)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def behind(seconds: float) -> str:
    """What is to be said of an answer that may be so old."""
    return f"as it was at most {f'{seconds * 1000:.0f} ms' if seconds < 1 else age(seconds)} ago"


def milliseconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"


__all__ = [
    "AgentConnection",
    "about",
    "age",
    "agent_command",
    "behind",
    "fail",
    "milliseconds",
    "printable",
    "show",
    "table",
]
