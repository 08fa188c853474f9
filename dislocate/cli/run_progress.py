"""How a run goes on, for people: a live view where there is a terminal, a line for each step where there is none.

The stream of events is folded into `Progress`; both views are made from it.  A stream that ends before its run does is taken
up again: the run does not depend on who looks at it.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import click

from dislocate.cli.output import EXIT_FAILED, EXIT_NO_AGENT, fail, printable, table
from dislocate.client.connection import AgentConnection, NoAgent, Problem, segment
from dislocate.core.words import NAMED, count, in_short

OVER = ("done", "failed", "aborted", "reverted", "revert failed")
BAD = ("failed", "unreachable", "unknown", "revert failed")
IN_FLIGHT = ("granted", "started")
RETRY = 1.0  # seconds between two attempts to see a run
TRIES = 60  # in a row that find no agent, before the run is left to itself
ROWS = 40  # nodes that a view has; those of most interest first
WAITS = {
    "granted": "to begin",
    "started": "to report",
    "unknown": "to be heard of again",
    "unreachable": "to be in reach again",
}
COLORS = {
    "done": "green",
    "started": "cyan",
    "granted": "cyan",
    "reverted": "yellow",
    "pending": "dim",
    "skipped": "dim",
}


class Progress:
    """What is known of one run."""

    def __init__(self) -> None:
        self.run: dict[str, Any] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.waves: list[str] = []  # of the batches, in their order
        self._since: dict[str, float] = {}  # when a node's state changed, as it was heard here

    @property
    def is_over(self) -> bool:
        return self.run.get("state") in OVER

    def take(self, event: str, data: dict[str, Any]) -> list[str]:
        """Note an event; a line for each thing that is new by it."""
        data = printable(data)
        if event == "node":
            return self._node(data["node"], data["part"])
        if event not in ("run", "status"):
            return []
        if "plan" in data:
            self.waves = [batch["wave"] for batch in data["plan"]]
        lines = self._run({key: value for key, value in data.items() if key not in ("nodes", "plan")})
        for node, part in data.get("nodes", {}).items():
            lines += self._node(node, part)
        return lines

    def seconds_in_state(self, node: str) -> float | None:
        """None for a node that was so already when somebody began to look."""
        return time.monotonic() - self._since[node] if node in self._since else None

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for part in self.nodes.values():
            found[part["state"]] = found.get(part["state"], 0) + 1
        return found

    def _run(self, run: dict[str, Any]) -> list[str]:
        before, self.run = self.run, {**self.run, **run}
        if not before:
            waits = [run["waits"]] if run.get("waits") else []
            return [headline(self.run), *waits, *self._hint()]
        lines = []
        if (before["state"], before["hold"]) != (run["state"], run["hold"]):
            words = f": {run['words']}" if run["words"] else ""
            lines += [f"run {run['id']}: {_state(before)} -> {_state(run)}{words}", *self._hint()]
        if before["batch"] != run["batch"] and run["state"] == "running" and run["batch"] < run["batches"]:
            lines.append(f"batch {run['batch'] + 1} of {run['batches']}")
        return lines

    def _hint(self) -> list[str]:
        """What to type where the run waits for somebody."""
        if self.run["state"] not in ("awaiting approval", "paused"):
            return []
        return [next_command(self.run["id"], self.run["state"], self.run["hold"])]

    def _node(self, node: str, part: dict[str, Any]) -> list[str]:
        before, self.nodes[node] = self.nodes.get(node), part
        if part["state"] == (before["state"] if before else "pending"):
            return []
        if before is not None:
            self._since[node] = time.monotonic()
        return [f"{node}  {part['state']}{_details(part, _indented(part['words']))}"]


def _state(run: dict[str, Any]) -> str:
    return f"{run['state']} ({run['hold']})" if run["hold"] else str(run["state"])


def _details(part: dict[str, Any], words: str) -> str:
    """What became of a node; `words`: why it is bad, whole or in short."""
    if part["state"] in BAD:
        kind = f" ({part['kind']})" if part["kind"] else ""
        return f"{kind}: {words}" if words else kind
    changed = sum(step["result"] == "changed" for step in part["steps"])
    if part["state"] == "done":
        drifted = f"; drifted since: {words}" if part["kind"] == "drift" else ""
        return f"  {changed} of {len(part['steps'])} changed, {part['took']:.1f} s{drifted}"
    if part["state"] == "reverted":
        failed = f"had failed: {in_short(part['failed'])}" if part["failed"] else ""
        told = "; ".join(filter(None, (f"not in all: {words}" if words else "", failed)))
        return f": {told}" if told else ""
    return ""


def headline(run: dict[str, Any]) -> str:
    batch = f"batch {min(max(run['batch'], 0) + 1, run['batches'])} of {run['batches']}, "
    where = "" if run["state"] in OVER else batch
    nodes = count(run["targets"])
    return f"run {run['id']} of {run['name']}: {_state(run)}, {nodes}, {where}started by {run['actor']}"


def reason(run: dict[str, Any]) -> str:
    """Why it is as it is, unless its headline says that."""
    return "" if run["words"] in headline(run) else str(run["words"])


def waits_now(progress: Progress) -> str:
    """For what it waits, as its nodes were heard of last; empty where that is nobody's part."""
    run, parts = progress.run, []
    if run["state"] not in ("running", "reverting"):
        return ""
    for state, words in WAITS.items():
        if nodes := [node for node, part in sorted(progress.nodes.items()) if part["state"] == state]:
            parts.append(f"for {', '.join(nodes[:NAMED])}{' and others' if len(nodes) > NAMED else ''} {words}")
    if parts:
        return f"waits {'; '.join(parts)}"
    if run["state"] == "running" and 0 <= run["batch"] < len(progress.waves):
        return (
            f"watches what was changed, or is about to begin: batch {run['batch'] + 1}, {progress.waves[run['batch']]}"
        )
    return "is about to end"


def next_command(run: str, state: str, hold: str = "") -> str:
    """What one would type now."""
    match state:
        case "awaiting approval":
            return f"another operator: dislocate run approve {run}"
        case "paused" if hold in ("operator", "failure"):
            return f"go on: dislocate run resume {run}      take it back: dislocate run revert {run}"
        case "paused":
            return f"it goes on by itself; to take it back: dislocate run revert {run}"
        case "failed" | "aborted":
            return f"why: dislocate run status {run}      take it back: dislocate run revert {run}"
        case "reverted" | "revert failed":
            return f"why: dislocate run status {run}      who did what: dislocate run audit"
        case "done":
            return f"take it back: dislocate run revert {run}"
    return f"dislocate run watch {run}"


def overview(progress: Progress) -> Iterator[str]:
    """All of it, as lines."""
    run = progress.run
    yield headline(run)
    if run.get("title"):
        yield run["title"]
    if run.get("waits"):
        yield run["waits"]
    elif words := reason(run):
        yield words
    yield ""
    yield table(("DATACENTER", "DONE", "IN FLIGHT", "PENDING", "BAD", "OTHER"), datacenters(progress))
    yield ""
    rows = [(node, part["state"], part["wave"], _reach(part), _last(part)) for node, part in interesting(progress)]
    yield table(("NODE", "STATE", "WAVE", "REACHABLE", "DETAILS"), rows)
    if len(progress.nodes) > len(rows):
        yield f"and {len(progress.nodes) - len(rows)} more: --json has all"
    yield from _at_length(interesting(progress))


def datacenters(progress: Progress) -> list[tuple[object, ...]]:
    """For each data center how many nodes are done, in flight, pending, bad, and anything else."""
    found: dict[str, list[int]] = {}
    for node, part in progress.nodes.items():
        row = found.setdefault(node.partition("/")[0], [0, 0, 0, 0, 0])
        state = part["state"]
        groups = (state == "done", state in IN_FLIGHT, state == "pending", state in BAD)
        row[groups.index(True) if any(groups) else 4] += 1
    return [(name, *row) for name, row in sorted(found.items())]


def interesting(progress: Progress, limit: int = ROWS) -> list[tuple[str, dict[str, Any]]]:
    """The nodes to show: bad ones first, then those in flight, those that did something, those that wait."""

    def rank(item: tuple[str, dict[str, Any]]) -> tuple[int, str]:
        state = item[1]["state"]
        return (
            0
            if state in BAD or item[1]["kind"] == "drift"
            else 1
            if state in IN_FLIGHT
            else 3
            if state == "pending"
            else 2,
            item[0],
        )

    chosen = sorted(progress.nodes.items(), key=rank)[:limit]
    return sorted(chosen) if len(progress.nodes) <= limit else chosen


def _reach(part: dict[str, Any]) -> str:
    return "yes" if part["reachable"] else "NO"


def _last(part: dict[str, Any]) -> str:
    """The details, on one line."""
    return _details(part, in_short(part["words"])).strip().removeprefix(": ") or "-"


def _indented(words: str) -> str:
    return "\n    ".join(words.splitlines())


def _at_length(rows: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """What bad nodes said in more than a line, such as the end of a log."""
    bad = [(node, part["words"]) for node, part in rows if part["state"] in BAD and len(part["words"].splitlines()) > 1]
    for node, words in bad[:NAMED]:
        yield ""
        yield f"{node}: {_indented(words)}"


def age_of(unix_seconds: float) -> float:
    return max(0.0, time.time() - unix_seconds)


# ---- following


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
        click.echo(f"\n{next_command(run, progress.run['state'])}")
    elif not as_json:
        counts = ", ".join(f"{number} {state}" for state, number in sorted(progress.counts().items()))
        words = f": {progress.run['words']}" if progress.run["words"] else ""
        click.echo(f"run {run} is {progress.run['state']}{words} ({counts})")
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

    run = progress.run
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
    shown = interesting(progress, ROWS // 2)
    for node, part in shown:
        color = "red" if part["state"] in BAD else COLORS.get(part["state"], "")
        reached = "" if part["reachable"] else "OUT OF REACH  "
        nodes.add_row(node, Text(part["state"], color), _for(progress, node), part["wave"], reached + _last(part))
    why = Text(reason(run), "" if run["state"] == "running" else "yellow")
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
