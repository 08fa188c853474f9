"""How a run stands, for people: events folded into what is known of it, and that as lines.

`run_follow` shows it while it goes on.
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

from dislocate.cli.output import printable, table
from dislocate.cli.run_told import Told, is_more_than_shown
from dislocate.core.words import NAMED, count, in_short, names

OVER = ("done", "failed", "aborted", "reverted", "revert failed")
BAD = ("failed", "unreachable", "unknown", "revert failed")
IN_FLIGHT = ("granted", "started")
ROWS = 40  # nodes that a view has; those of most interest first
WAITS = {
    "granted": "to begin",
    "started": "to report",
    "unknown": "to be heard of again",
    "unreachable": "to be in reach again",
}


class Progress:
    """What is known of one run."""

    def __init__(self) -> None:
        self.run: dict[str, Any] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.waves: list[str] = []  # of the batches, in their order
        self._since: dict[str, float] = {}  # when a node's state changed, as it was heard here
        self._told = Told()

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
        nodes = data.get("nodes", {})
        run = {key: value for key, value in data.items() if key not in ("nodes", "plan")}
        lines = self._run(run, [*self.nodes.values(), *nodes.values()])
        for node, part in nodes.items():
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

    def ending(self) -> str:
        """How it ended, and why: the last line, where whoever comes late looks."""
        words = self._told.reason(self.run["words"], self.nodes.values())
        because = f": {words}" if words else ""
        counts = self.counts()
        if words and list(counts) == [self.run["state"]]:  # then they were counted
            return f"run {self.run['id']} is {self.run['state']}{because}"
        nodes = ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
        return f"run {self.run['id']} is {self.run['state']}{because} ({nodes})"

    def _run(self, run: dict[str, Any], parts: Sequence[dict[str, Any]]) -> list[str]:
        before, self.run = self.run, {**self.run, **run}
        if not before:
            waits = [self._told.reason(run["waits"], parts)] if run.get("waits") else []
            return [headline(self.run), *waits, *self._hint()]
        lines = []
        if (before["state"], before["hold"]) != (run["state"], run["hold"]):
            words = "" if self.is_over else self._told.reason(run["words"], parts)  # `ending` has it
            because = f": {words}" if words else ""
            lines += [f"run {run['id']}: {state_of(before)} -> {state_of(run)}{because}", *self._hint()]
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
        details = self._told.once(_details(part, part["words"]), (part,))
        return [f"{node}  {part['state']}{_indented(details)}"]


def state_of(run: dict[str, Any]) -> str:
    """'paused (gate)'."""
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
        told = [f"{step['resource']}: {in_short(step['words'])}" for step in _not_simply_undone(part)]
        return f"  {'; '.join(told)}" if told else ""
    return ""


def _not_simply_undone(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Steps of a revert of which somebody has to know: what it left, and what it put back over somebody's hand."""
    return [step for step in part["steps"] if step["result"] in ("left", "replaced")]


def _had_failed(part: dict[str, Any]) -> str:
    """Why it was taken back, where this node was the reason."""
    applied = part["applied"]
    if applied is None or applied["state"] != "failed" or applied["words"] == part["words"]:
        return ""
    return f"it had failed ({applied['kind']}): {in_short(applied['words'])}"


def headline(run: dict[str, Any]) -> str:
    batch = f"batch {min(max(run['batch'], 0) + 1, run['batches'])} of {run['batches']}, "
    where = "" if run["state"] in OVER else batch
    nodes = count(run["targets"])
    return f"run {run['id']} of {run['name']}: {state_of(run)}, {nodes}, {where}started by {run['actor']}"


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


def next_command(run: str, state: str, hold: str = "", *, is_seen: bool = False) -> str:
    """What one would type now.  `is_seen`: its status, which says why, stands above."""
    see = "" if is_seen else f"why: dislocate run status {run}      "
    match state:
        case "awaiting approval":
            return f"another operator: dislocate run approve {run}"
        case "paused" if hold in ("operator", "failure"):
            return f"go on: dislocate run resume {run}      take it back: dislocate run revert {run}"
        case "paused":
            return f"it goes on by itself; to take it back: dislocate run revert {run}"
        case "failed" | "aborted":
            return f"{see}take it back: dislocate run revert {run}"
        case "reverted" | "revert failed":
            return f"{see}who did what: dislocate run audit"
        case "done":
            return f"take it back: dislocate run revert {run}"
    return f"dislocate run watch {run}"


def overview(progress: Progress) -> Iterator[str]:
    """All of it, as lines."""
    run, told = progress.run, Told()
    yield headline(run)
    if run.get("title"):
        yield run["title"]
    if words := run.get("waits") or reason(run):
        yield told.reason(words, progress.nodes.values())
    yield ""
    yield table(("DATACENTER", "DONE", "IN FLIGHT", "PENDING", "BAD", "OTHER"), datacenters(progress))
    yield ""
    rows = [
        (node, part["state"], part["wave"], _reach(part), in_details(part, told))
        for node, part in interesting(progress)
    ]
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


def in_details(part: dict[str, Any], told: Told) -> str:
    """The details, on one line, without what was `told`."""
    now = _details(part, in_short(part["words"])).strip().removeprefix(": ")
    return told.once("; ".join(filter(None, (now, _had_failed(part)))), (part,)) or "-"


def _indented(words: str) -> str:
    return "\n    ".join(words.splitlines())


def _at_length(rows: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[str]:
    """What bad nodes said in more lines than were shown, such as the end of a log, and what they had said before they were
    reverted; once for all that said the same."""
    bad = [(node, part["words"]) for node, part in rows if part["state"] in BAD]
    bad += [(node, part["applied"]["words"]) for node, part in rows if _had_failed(part)]
    said: dict[str, list[str]] = {}
    for node, words in bad:
        if is_more_than_shown(words):
            said.setdefault(words, []).append(node)
    for words, nodes in list(said.items())[:NAMED]:
        yield ""
        yield f"{names(nodes)}: {_indented(words)}"


def age_of(unix_seconds: float) -> float:
    return max(0.0, time.time() - unix_seconds)
