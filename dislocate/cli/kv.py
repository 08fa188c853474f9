"""`dislocate kv`: keys of the replicated store."""

import json
import sys
import time
from base64 import b64decode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import click

from dislocate.cli.absence import Absence
from dislocate.cli.output import EXIT_FAILED, agent_command, behind, fail, show
from dislocate.cli.watch import RETRY, run_command
from dislocate.client.connection import STORE_TIMEOUT, AgentConnection, NoAgent, Problem, Raw, segment
from dislocate.core.boundary.store import Consistency
from dislocate.core.errors import LocalError
from dislocate.edge.bodies import duration
from dislocate.edge.keys import check_deleted, check_key, check_value, consistency_of

PAGE = 1_000  # keys that one request lists
NOT_FOUND = 404
SHOWN = 48  # characters of a value in a table

_CONSISTENCY = click.option(
    "--consistency",
    type=click.Choice(["linearizable", "bounded", "local"]),
    is_eager=True,  # what --max-age may be depends on it
    help="linearizable unless given: nothing older than now; local: what this agent has, with its age.",
)


def _checked_age(context: click.Context, _option: click.Parameter, given: str | None) -> str | None:
    """A slip is one of usage, as with any other option."""
    named = context.params.get("consistency")
    try:
        consistency_of(None if named is None else Consistency(named), duration(given or "", "max_age"))
    except LocalError as error:
        got = "not given" if given is None else f"got {given!r}"
        raise click.BadParameter(f"{got}, expected {error.expected}") from None
    return given


_MAX_AGE = click.option(
    "--max-age",
    metavar="DURATION",
    callback=_checked_age,
    help="How far behind the answer may be, such as 5s: cheaper.",
)
_CAS = click.option(
    "--cas", type=int, metavar="REVISION", help="Only if this is its revision; 0: only if there is none."
)


@click.group()
def kv() -> None:
    """Keys of the replicated store: small values, the same in every data center.

    \b
    dislocate kv put app/color blue
    dislocate kv get app/color
    dislocate kv list app/
    dislocate kv watch app/ --prefix
    """


@kv.command()
@click.argument("key")
@click.option("--raw", is_flag=True, help="The value's bytes and nothing else, not even a line end.")
@_CONSISTENCY
@_MAX_AGE
@agent_command
def get(
    agent: AgentConnection, as_json: bool, key: str, raw: bool, consistency: str | None, max_age: str | None
) -> None:
    """Print the value of KEY.  Exits 1 when there is none.

    \b
    dislocate kv get app/color
    dislocate kv get app/logo --raw > logo.png
    dislocate kv get app/color --consistency local       while a majority of servers is out of reach
    dislocate kv get app/color --json | jq .revision     for kv put --cas
    """
    queries = {"consistency": consistency, "max_age": max_age, "raw": "true" if raw else None}
    path = key_path(key, queries)
    try:
        if raw:
            _write_raw(agent.raw("GET", path, timeout=STORE_TIMEOUT))
            return
        found = agent.get(path, STORE_TIMEOUT)
    except Problem as problem:
        if problem.status != NOT_FOUND or as_json:
            raise
        near, how_old = key[: key.rfind("/") + 1], problem.answer.get("age")
        words = [f"there is no key {key!r}", *([behind(how_old)] if how_old else [])]
        fail("\n".join([*words, f"what there is: dislocate kv list {near}".rstrip()]), as_json, EXIT_FAILED)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(found["value"])
    if "encoding" in found:
        click.echo("this is base64: the value is no text; --raw gives its bytes", err=True)
    if found["age"]:
        click.echo(behind(found["age"]), err=True)


@kv.command()
@click.argument("key")
@click.argument("value", metavar="VALUE|@FILE|-")
@_CAS
@click.option("--lease", type=int, metavar="ID", help="KEY goes away with this lease.")
@agent_command
def put(agent: AgentConnection, as_json: bool, key: str, value: str, cas: int | None, lease: int | None) -> None:
    """Set KEY to VALUE, to the bytes of FILE, or (-) to standard input.  Durable on a majority when this returns.

    \b
    dislocate kv put app/color blue
    dislocate kv put app/logo @logo.png
    echo on | dislocate kv put app/flag -
    dislocate kv put app/color green --cas 7     only if nobody changed it since revision 7
    dislocate kv put app/first yes --cas 0       only if there is no such key
    """
    data = check_value(_bytes_of(value))
    path = key_path(key, {"cas": cas, "lease": lease})
    answer = json.loads(agent.raw("PUT", path, data, STORE_TIMEOUT).body)
    show(as_json, answer, ("PUT", "REVISION"), [(key, answer["revision"])], f"dislocate kv get {key}")


@kv.command()
@click.argument("key")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@_CAS
@agent_command
def delete(agent: AgentConnection, as_json: bool, key: str, prefix: bool, cas: int | None) -> None:
    """Remove KEY.  One that is not there is no mistake, but said.

    \b
    dislocate kv delete app/color
    dislocate kv delete app/ --prefix
    dislocate kv delete app/color --cas 7
    """
    check_deleted(key, is_prefix=prefix)
    path = key_path(key, {"prefix": "true" if prefix else None, "cas": cas})
    answer = agent.send("DELETE", path, timeout=STORE_TIMEOUT)
    rows = [(key, answer["deleted"], answer["revision"])]
    show(as_json, answer, ("DELETED", "KEYS", "REVISION"), rows)


@kv.command("list")
@click.argument("prefix", default="")
@click.option("--keys", "only_keys", is_flag=True, help="One key a line and nothing else.")
@click.option("--limit", type=click.IntRange(1), help="At most so many; all unless given.")
@_CONSISTENCY
@_MAX_AGE
@agent_command
def list_(
    agent: AgentConnection,
    as_json: bool,
    prefix: str,
    only_keys: bool,
    limit: int | None,
    consistency: str | None,
    max_age: str | None,
) -> None:
    """Keys that begin with PREFIX, in order; all keys without one.

    \b
    dislocate kv list app/
    dislocate kv list --keys
    dislocate kv list app/ --json | jq -r ".keys[].key"
    """
    answer = _all_keys(agent, prefix, limit, {"consistency": consistency, "max_age": max_age})
    if only_keys and not as_json:
        for found in answer["keys"]:
            click.echo(found["key"])
        return
    rows = [
        (found["key"], _shown(found), found["revision"], found["version"], found["lease"] or "-")
        for found in answer["keys"]
    ]
    columns = ("KEY", "VALUE", "REVISION", "VERSION", "LEASE")
    nothing = "no keys begin so" if prefix else "no keys"
    show(as_json, answer, columns, rows, "one in full: dislocate kv get KEY", nothing)
    if answer["age"]:
        click.echo(behind(answer["age"]), err=True)


@kv.command()
@click.argument("key")
@click.option("--prefix", is_flag=True, help="All keys that begin with KEY.")
@click.option("--after", type=int, metavar="REVISION", help="Begin with changes after this one; else with the next.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@agent_command
def watch(
    agent: AgentConnection, as_json: bool, key: str, prefix: bool, after: int | None, command: tuple[str, ...]
) -> None:
    """Follow KEY: each change prints one line, or runs COMMAND with the change as JSON on its standard input.

    No change is missed: when the agent is restarted the watch goes on where it was, and when the
    store does not answer for a while that is said on standard error.  Changes too old to be known any
    more are told as `compacted`: read the keys again.

    \b
    dislocate kv watch app/color
    dislocate kv watch app/ --prefix --json
    dislocate kv watch app/ --prefix -- sh -c 'jq .key && systemctl reload app'
    """
    check_key(key)
    stream = f"/api/watch/kv?{'prefix' if prefix else 'key'}={segment(key)}"
    if after is not None:
        stream += f"&after={after}"
        _warn_of_the_future(agent, key, after)
    absence = Absence(agent, RETRY)
    while True:
        wrong: NoAgent | None = None
        try:
            for event, data in agent.events(stream, agent.last_event_id):
                absence.ends()
                _tell(event, data, command, as_json)
        except NoAgent as error:
            wrong = error
            if agent.last_event_id is None and after is None:
                raise
        absence.begins(wrong)
        time.sleep(RETRY)


def key_path(key: str, queries: dict[str, Any], *, is_prefix: bool = False) -> str:
    """The path of `key` with those `queries` that are not None.  Raises `LocalError`."""
    given = "&".join(f"{name}={segment(str(value))}" for name, value in queries.items() if value is not None)
    return f"/api/kv/{quote(check_key(key, is_prefix=is_prefix), safe='/')}" + (f"?{given}" if given else "")


def _write_raw(answer: Raw) -> None:
    sys.stdout.buffer.write(answer.body)
    sys.stdout.buffer.flush()
    how_old = float(answer.headers.get("x-dislocate-age", 0))
    if how_old:
        gap = "\n" if sys.stdout.isatty() else ""  # the value ends where it ends
        click.echo(gap + behind(how_old), err=True)


def _warn_of_the_future(agent: AgentConnection, key: str, after: int) -> None:
    """A revision that the store has not reached is a slip, or of another store: the watch would say nothing for long."""
    try:
        page = key_path(key, {"prefix": "true", "limit": 1}, is_prefix=True)
        revision = agent.get(page, STORE_TIMEOUT)["revision"]
    except Problem:
        return  # the watch says so itself
    if after > revision:
        click.echo(f"the store is at revision {revision}; nothing is shown before it has passed {after}", err=True)


def _bytes_of(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode("utf-8", "surrogateescape")  # as the shell gave it
    try:
        return Path(text[1:]).read_bytes()
    except OSError as error:
        expected = f"a readable file after '@' ({error.strerror}); a value that begins with '@' goes through '-'"
        raise LocalError("VALUE", got=text, expected=expected) from None


def _all_keys(agent: AgentConnection, prefix: str, limit: int | None, queries: dict[str, Any]) -> dict[str, Any]:
    """Page by page, as one answer; `revision` and `age` are those of the last page."""
    keys: list[dict[str, Any]] = []
    while True:
        left = PAGE if limit is None else min(PAGE, limit - len(keys))
        page = {**queries, "prefix": "true", "limit": left, "after": keys[-1]["key"] if keys else None}
        answer = agent.get(key_path(prefix, page, is_prefix=True), STORE_TIMEOUT)
        keys += answer["keys"]
        if not answer["more"] or not answer["keys"] or len(keys) == limit:
            return {**answer, "keys": keys}


def _shown(found: dict[str, Any]) -> str:
    """A value on one line."""
    if "encoding" in found:
        size = len(b64decode(found["value"]))
        return f"({size} bytes)"
    value = json.dumps(found["value"], ensure_ascii=False)[1:-1]
    return value if len(value) <= SHOWN else value[: SHOWN - 3] + "..."


def _tell(event: str, data: dict[str, Any], command: tuple[str, ...], as_json: bool) -> None:
    if event == "problem":
        click.echo(str(Problem(data["status"], data)), err=True)
        return
    if event == "answering":
        click.echo("the store answers again; no change was missed", err=True)
        return
    told = {"event": event, **data}
    if command:
        run_command(command, told)
    elif as_json:
        click.echo(json.dumps(told))
    elif event == "compacted":
        click.echo(f"changes before {data['oldest']} are forgotten: dislocate kv list shows what is there", err=True)
    else:
        click.echo(f"{data['revision']}  {event:6}  {data['key']}" + (f"  {_shown(data)}" if event == "put" else ""))
