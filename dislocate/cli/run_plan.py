"""`dislocate run plan` and `check`: what nodes say when they look and change nothing."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from dislocate.cli.output import EXIT_FAILED, agent_command, printable, table
from dislocate.cli.run_spec import body_of, send
from dislocate.client.connection import AgentConnection
from dislocate.core.errors import LocalError
from dislocate.core.words import count

LOOK_TIMEOUT = 3_600.0  # seconds: each node gets a minute, twenty at a time; who does not answer is named after that
BOUND = ("spec_digest", "values_digest", "targets", "digests")
NAMED = 3  # nodes that a line names

SIGNS = {"same": "=", "would change": "~", "untold": "?", "failed": "!", "not reached": "-"}
WORDS = {"untold": "unknown: this command has no check", "not reached": "not looked at, since one before it failed"}


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Write the plan here, for `run start --plan`.")
@agent_command
def plan(agent: AgentConnection, as_json: bool, file: Path, out: Path | None) -> None:
    """What a run of FILE would do: its batches in order, and each difference, once for all nodes that share it.

    Nothing is changed.  Exits 1 when some node could not tell, because of a mistake in a template for example.

    \b
    dislocate run plan web.toml
    dislocate run plan web.toml --out plan.json
    """
    answer = send(agent, "/api/runs/plan", file, body_of(file), LOOK_TIMEOUT)
    has_failed = _has(answer, "failed")
    if out is not None:
        _write(out, answer)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        rows = [
            (at + 1, batch["wave"], len(batch["nodes"]), those(batch["nodes"]))
            for at, batch in enumerate(answer["plan"])
        ]
        batches = count(len(rows), "batch", "batches")
        click.echo(f"{answer['name']}: {count(len(answer['targets']))} in {batches}\n")
        click.echo(table(("BATCH", "WAVE", "NODES", "WHO"), rows))
        for line in looks(printable(answer)):
            click.echo(line)
        for doubt in answer["doubts"]:
            click.echo(f"\nnote: {doubt}")
        if not has_failed:
            click.echo(f"\ndislocate run start {file}" + (f" --plan {out}" if out is not None else ""))
    _end_with(has_failed)


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@agent_command
def check(agent: AgentConnection, as_json: bool, file: Path) -> None:
    """Whether nodes are as FILE says.  Exits 0 only when all of them are, and could be asked.

    Nothing is changed.  A command without a check is unknown, which is no pass.

    \b
    dislocate run check web.toml
    """
    answer = send(agent, "/api/runs/check", file, body_of(file), LOOK_TIMEOUT)
    differs = _has(answer, "failed", "would change", "not reached")
    is_unknown = _has(answer, "untold") or bool(answer["unreachable"])
    if as_json:
        click.echo(json.dumps(answer))
    else:
        verdict = "not all" if differs else "not all known to be" if is_unknown else "all"
        click.echo(f"{answer['name']}: {count(len(answer['targets']))}, {verdict} as they should be")
        for line in looks(printable(answer)):
            click.echo(line)
        if differs or is_unknown:
            click.echo("")
        for line in _mends(answer, file):
            click.echo(line)
    _end_with(differs or is_unknown)


def bound_to(path: Path) -> dict[str, Any]:
    """What a run is bound to by the plan in the file at `path`.  Raises `LocalError`."""
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        return {name: plan[name] for name in BOUND}
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no plan"
        raise LocalError("--plan", got=str(path), expected=f"a file of `run plan --out` ({reason})") from None


def looks(answer: dict[str, Any]) -> Iterator[str]:
    """Line by line what nodes say; nobody is left out."""
    for group in answer["groups"]:
        yield ""
        yield f"{those(group['nodes'])}:"
        same = sum(resource["result"] == "same" for resource in group["resources"])
        for resource in group["resources"]:
            if resource["result"] != "same":
                yield from _resource(resource)
        if same:
            yield f"  = {same} as it should be" if same == 1 else f"  = {same} as they should be"
    if answer["unreachable"]:
        yield ""
        yield f"not known of {count(len(answer['unreachable']))}:"
        for node, why in sorted(answer["unreachable"].items()):
            yield f"  {node}: {why}"


def _resource(resource: dict[str, Any]) -> Iterator[str]:
    said = WORDS.get(resource["result"], resource["result"])
    kind = f" ({resource['kind']})" if resource["kind"] else ""
    words = f": {resource['words']}" if resource["words"] else ""
    yield f"  {SIGNS.get(resource['result'], ' ')} {resource['id']}: {said}{kind}{words}"
    for line in resource["diff"].splitlines():
        yield f"      {line}"


def _mends(answer: dict[str, Any], file: Path) -> Iterator[str]:
    """What helps, for each reason why not all are known to be as they should."""
    if _has(answer, "would change"):
        yield f"bring it about, beginning with: dislocate run plan {file}"
    if _has(answer, "untold"):
        yield "to know of a command: give it 'unless', 'creates' or 'check'"
    if _has(answer, "failed"):
        yield f"mend what failed, then look again: dislocate run check {file}"
    if gone := sorted(answer["unreachable"]):
        each = gone[0] if len(gone) == 1 else "DC/NAME"
        yield f"once {those(gone)} can be asked: dislocate run check {file}"
        yield f"what does not come back: dislocate members forget {each}"


def those(nodes: Iterable[str]) -> str:
    """'fra/a1 and 5 more'."""
    paths = list(nodes)
    if len(paths) <= NAMED:
        return ", ".join(paths)
    return f"{paths[0]} and {len(paths) - 1} more"


def _has(answer: dict[str, Any], *results: str) -> bool:
    return any(resource["result"] in results for group in answer["groups"] for resource in group["resources"])


def _write(path: Path, answer: dict[str, Any]) -> None:
    try:
        path.write_text(json.dumps(answer, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise LocalError("--out", got=str(path), expected=f"a file that can be written ({error.strerror})") from None


def _end_with(has_failed: bool) -> None:
    if has_failed:
        click.get_current_context().exit(EXIT_FAILED)
