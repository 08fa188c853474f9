"""Following a run to its end: a live view where there is a terminal, a line for each step where there is none.

Both are made from `Progress`, into which the stream of events is folded.  A stream that ends before its run does is taken up
again: the run does not depend on who looks at it.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import click

from dislocate.cli.output import EXIT_FAILED, EXIT_NO_AGENT, fail
from dislocate.cli.run_progress import (
    BAD,
    IN_FLIGHT,
    OVER,
    ROWS,
    Progress,
    age_of,
    datacenters,
    headline,
    in_details,
    interesting,
    next_command,
    overview,
    reason,
    waits_now,
)
from dislocate.cli.run_told import Told
from dislocate.client.connection import AgentConnection, NoAgent, Problem, segment

RETRY = 1.0  # seconds between two attempts to see a run
TRIES = 60  # in a row that find no agent, before the run is left to itself
COLORS = {
    "done": "green",
    "started": "cyan",
    "granted": "cyan",
    "reverted": "yellow",
    "pending": "dim",
    "skipped": "dim",
}


def follow(agent: AgentConnection, run: str, as_json: bool) -> None:
    """Show the run until it is over; exits 0 only when it is done."""
    progress = Progress()
    is_live = sys.stdout.isatty() and not as_json
    try:
        if is_live:
            _follow_live(agent, run, progress)
        else:
            _follow(agent, run, progress, _teller(progress, as_json))
    except KeyboardInterrupt:
        click.echo(f"run {run} goes on: dislocate run watch {run}", err=True)
        sys.exit(EXIT_FAILED)
    except NoAgent as error:
        fail(
            f"{error}\nrun {run} goes on without it: dislocate run watch {run} --agent ANOTHER", as_json, EXIT_NO_AGENT
        )
    if is_live:
        click.echo(f"\n{next_command(run, progress.run['state'], is_seen=True)}")
    elif not as_json:
        click.echo(progress.ending())
        click.echo(next_command(run, progress.run["state"]))
    if progress.run["state"] != "done":
        sys.exit(EXIT_FAILED)


def _teller(progress: Progress, as_json: bool) -> Callable[[str, dict[str, Any]], None]:
    """Prints each event."""
    begun = time.monotonic()

    def tell(event: str, data: dict[str, Any]) -> None:
        lines = progress.take(event, data)
        if as_json:
            click.echo(json.dumps({"event": event, **data}))
            return
        for line in lines:
            click.echo(f"{time.monotonic() - begun:6.1f} s  {line}")

    return tell


def _follow(agent: AgentConnection, run: str, progress: Progress, tell: Callable[[str, dict[str, Any]], None]) -> None:
    """Until it is over.  Raises `NoAgent` when nobody has answered for a while, `Problem` when there is no such run."""
    tries = 0
    while not progress.is_over:
        try:
            for event, data in agent.events(f"/api/runs/{segment(run)}/watch"):
                tries = 0
                if event != "problem":
                    tell(event, data)
        except NoAgent:
            tries += 1
            if tries >= TRIES or not progress.run:
                raise
        except Problem as problem:
            tries += 1
            if problem.status < 500 or tries >= TRIES:
                raise
        if not progress.is_over:
            if tries == 1:
                click.echo(f"{agent.where} ended the watch; asking again", err=True)
            time.sleep(RETRY)


def _follow_live(agent: AgentConnection, run: str, progress: Progress) -> None:
    from rich.console import Console
    from rich.live import Live

    lock = threading.Lock()  # the picture is drawn by a thread of its own, twice a second

    def picture() -> Any:
        with lock:
            return _picture(progress)

    with Live(console=Console(), get_renderable=picture, refresh_per_second=2, transient=True) as live:

        def tell(event: str, data: dict[str, Any]) -> None:
            with lock:
                progress.take(event, data)
            live.refresh()

        _follow(agent, run, progress, tell)
    for line in overview(progress):
        click.echo(line)


def _picture(progress: Progress) -> Any:
    """The live view: the run, what it waits for, its data centers with a bar each, and the nodes of most interest."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    run, told = progress.run, Told()
    if not run:
        return Text("")
    centers = Table(box=None, pad_edge=False)
    for column in ("DATACENTER", "", "DONE", "IN FLIGHT", "PENDING", "BAD"):
        centers.add_column(column)
    for name, done, flying, pending, bad, other in datacenters(progress):
        numbers = [int(str(each)) for each in (done, flying, pending, bad, other)]
        bar = ProgressBar(total=sum(numbers), completed=numbers[0], width=24)
        centers.add_row(str(name), bar, str(done), str(flying), str(pending), Text(str(bad), "red" if bad else ""))
    nodes = Table(box=None, pad_edge=False)
    for column in ("NODE", "STATE", "FOR", "WAVE", "DETAILS"):
        nodes.add_column(column, no_wrap=True)
    words = told.reason(reason(run), progress.nodes.values())
    shown = interesting(progress, ROWS // 2)
    for node, part in shown:
        color = "red" if part["state"] in BAD else COLORS.get(part["state"], "")
        reached = "" if part["reachable"] else "OUT OF REACH  "
        nodes.add_row(
            node, Text(part["state"], color), _for(progress, node), part["wave"], reached + in_details(part, told)
        )
    why = Text(words, "" if run["state"] == "running" else "yellow")
    return Group(
        Text(f"{headline(run)}, {_clock(age_of(run['started_at']))}", "bold"),
        *(line for line in (why, Text(waits_now(progress))) if line),
        Text(""),
        centers,
        Text(""),
        nodes,
        Text(f"and {len(progress.nodes) - len(shown)} more" if len(progress.nodes) > len(shown) else ""),
        Text(_keys(run), "dim"),
    )


def _for(progress: Progress, node: str) -> str:
    """How long a node is in flight or bad: what hangs is to be seen."""
    span = progress.seconds_in_state(node)
    return _clock(span) if span is not None and progress.nodes[node]["state"] in (*IN_FLIGHT, *BAD) else ""


def _clock(span: float) -> str:
    return f"{int(span) // 60}:{int(span) % 60:02}"


def _keys(run: dict[str, Any]) -> str:
    """What one may do now: to look away is safe."""
    if run["state"] in OVER:
        return ""
    if run["state"] in ("paused", "awaiting approval"):
        return f"Ctrl-C leaves it to itself      {next_command(run['id'], run['state'], run['hold'])}"
    verbs = "pause, abort, revert" if run["state"] == "running" else "pause, abort"
    return f"Ctrl-C leaves it to itself      dislocate run {verbs.replace(', ', '|')} {run['id']}"
