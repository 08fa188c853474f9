"""`dislocate exec TARGET -- CMD`: a command on many nodes at once."""

import json
from base64 import b64decode
from typing import Any

import click

from dislocate.cli.output import EXIT_FAILED, agent_command, fail, printable
from dislocate.cli.run_plan import those
from dislocate.cli.run_spec import CONFIRM
from dislocate.client.connection import AgentConnection


class Told:
    """What nodes have told so far: whole lines are printed, the rest of one waits for its end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._rests: dict[str, str] = {}  # of each node that wrote something
        self.nodes: list[str] = []
        self.bad: dict[str, str] = {}  # by node, why
        self.ended: list[str] = []
        self.is_over = False

    def take(self, line: dict[str, Any]) -> None:
        if self._as_json:
            click.echo(json.dumps(line))
        match line["event"]:
            case "start":
                self.nodes = line["nodes"]
            case "output":
                self._output(line["node"], line)
            case "dropped":
                self._end_line(line["node"])
                self._say(
                    line["node"], f"... {line['bytes']} bytes are not shown: they came faster than they were read"
                )
            case "done" | "unreachable":
                self._end(line["node"], line)
            case "end":
                self.is_over = True

    def missing(self) -> list[str]:
        """Nodes of which nobody said what became of the command."""
        return [node for node in self.nodes if node not in self.ended]

    def _output(self, node: str, line: dict[str, Any]) -> None:
        text = line["text"]
        if line.get("encoding") == "base64":
            text = b64decode(text).decode(errors="replace")
        *whole, self._rests[node] = (self._rests.get(node, "") + text).split("\n")
        for each in whole:
            self._say(node, each)

    def _end(self, node: str, line: dict[str, Any]) -> None:
        has_written = node in self._rests
        self._end_line(node)
        self.ended.append(node)
        if line["event"] == "unreachable":
            self.bad[node] = f"not reached: {line['words']}"
        elif not line["ok"]:
            self.bad[node] = _why(line, has_written)

    def _end_line(self, node: str) -> None:
        if rest := self._rests.pop(node, ""):
            self._say(node, rest)

    def _say(self, node: str, text: str) -> None:
        if not self._as_json:
            width = max((len(each) for each in self.nodes), default=0)
            shown = printable(text.removesuffix("\r"))
            click.echo(f"{node.ljust(width)} | {shown}")


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("target")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--at-once", type=click.IntRange(1, 100), default=20, show_default=True, help="Nodes at a time.")
@click.option("--timeout", default="60s", show_default=True, metavar="DURATION", help="For one node.")
@CONFIRM
@agent_command
def exec_(
    agent: AgentConnection,
    as_json: bool,
    target: str,
    command: tuple[str, ...],
    at_once: int,
    timeout: str,
    confirm: int | None,
) -> None:
    """Run COMMAND on every node of TARGET; what it writes is printed as it comes, a node's name before each line.

    Options stand before TARGET.  Nodes out of reach are named, never left out.  Exits 0 only when the command did, on all
    of them.  There is no shell unless COMMAND is one; for what is to stay so, there is `dislocate run`.  Ctrl-C ends it
    everywhere: what runs is killed.

    \b
    dislocate exec dc:fra -- uptime
    dislocate exec --at-once 5 'service:shop.web & !tag:canary' -- systemctl is-active nginx
    dislocate exec '*' -- sh -c 'df -h / | tail -1'
    """
    body = {"targets": target, "command": command, "at_once": at_once, "timeout": timeout, "confirm": confirm or 0}
    told = Told(as_json)
    for line in agent.lines("POST", "/api/exec", body):
        if line["event"] == "problem":
            fail(line["problem"]["detail"], as_json, EXIT_FAILED, line["problem"])
        told.take(line)
    if not told.is_over:
        words = f"{agent.where} ended before the command did; nobody knows of {those(told.missing())}"
        fail(words, as_json, EXIT_FAILED)
    if not as_json:
        click.echo(printable(_sum(told)), err=True)
    if told.bad:
        click.get_current_context().exit(EXIT_FAILED)


def _why(line: dict[str, Any], has_written: bool) -> str:
    """Of a node that failed.  Words of a command that ended repeat its code and what it wrote."""
    if line["code"] is None:
        kind = line["kind"] or "failed"
        return f"{kind}: {line['words']}" if line["words"] else kind
    code = f"exit code {line['code']}"
    return code if has_written else line["words"] or code


def _sum(told: Told) -> str:
    good = len(told.nodes) - len(told.bad)
    lines = [f"{node}: {why}" for node, why in sorted(told.bad.items())]
    return "\n".join([*lines, f"{good} of {len(told.nodes)} nodes did it"])
