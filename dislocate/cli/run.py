"""`dislocate run`: plan, start, watch and steer a change of the fleet."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from dislocate.cli.output import EXIT_FAILED, age, agent_command, behind, fail, show
from dislocate.cli.run_follow import follow
from dislocate.cli.run_plan import LOOK_TIMEOUT, bound_to, check, plan
from dislocate.cli.run_progress import Progress, age_of, next_command, overview
from dislocate.cli.run_simulate import simulate
from dislocate.cli.run_spec import CONFIRM, LATEST, body_of, run_id, send
from dislocate.cli.run_steer import VERBS
from dislocate.client.connection import STORE_TIMEOUT, AgentConnection, segment
from dislocate.core.boundary.runs import AuditEntry
from dislocate.core.runs.ledger.audit import first_that_does_not_fit

START_TIMEOUT = STORE_TIMEOUT + 15.0  # seconds: a target tries the templates first
LISTED = 20  # runs that a list has unless more are asked for


@click.group()
def run() -> None:
    """Config runs: one file says what is to be so, on which nodes, and how carefully they get there.

    \b
    dislocate run plan web.toml              what would change, and in which order
    dislocate run simulate web.toml          how long it takes, and what becomes of it when things fail
    dislocate run start web.toml             canary, batches, data center after data center
    dislocate run status 7                   who has it, who has not, and what it waits for
    dislocate run revert 7                   take it back
    """


run.add_command(plan)
run.add_command(check)
run.add_command(simulate)
for verb in VERBS:
    run.add_command(verb)


@run.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--plan", "planned", type=click.Path(path_type=Path), help="Only if all is still as `plan --out` found it."
)
@click.option(
    "--unknown-services", is_flag=True, help="Also with a floor or gate on a service that nobody has an instance of."
)
@click.option("--detach", is_flag=True, help="Do not follow it: it goes on by itself either way.")
@CONFIRM
@agent_command
def start(
    agent: AgentConnection,
    as_json: bool,
    file: Path,
    planned: Path | None,
    unknown_services: bool,
    detach: bool,
    confirm: int | None,
) -> None:
    """Start the run that FILE describes, and follow it.  Exits 0 only when it is done everywhere.

    From its start the run is in the store: it goes on when this command, this agent or any server dies.

    \b
    dislocate run start web.toml
    dislocate run start web.toml --plan plan.json
    dislocate run start web.toml --detach
    """
    body = body_of(file, confirm)
    if planned is not None:
        body["plan"] = bound_to(planned)
    if unknown_services:
        body["unknown_services"] = True
    answer = send(agent, "/api/runs", file, body, LOOK_TIMEOUT if planned is not None else START_TIMEOUT)
    for doubt in answer["doubts"]:
        click.echo(f"note: {doubt}", err=True)
    if detach:
        row = (answer["id"], body["name"], answer["targets"], answer["state"])
        show(as_json, answer, ("RUN", "NAME", "NODES", "STATE"), [row], next_command(answer["id"], answer["state"]))
        return
    follow(agent, answer["id"], as_json)


@run.command()
@click.argument("ident", metavar="RUN")
@agent_command
def watch(agent: AgentConnection, as_json: bool, ident: str) -> None:
    """Follow RUN, its number or its name, to its end.  Exits 0 only when it is done everywhere.

    \b
    dislocate run watch 7
    dislocate run watch web --json
    """
    follow(agent, run_id(agent, ident), as_json)


@run.command("list")
@click.option(
    "--limit", type=click.IntRange(1, LATEST), default=LISTED, show_default=True, help="Look at the latest so many."
)
@agent_command
def list_(agent: AgentConnection, as_json: bool, limit: int) -> None:
    """Runs under way, and the latest that are over.

    \b
    dislocate run list
    """
    _show_list(agent, as_json, limit)


@run.command()
@click.argument("ident", metavar="RUN", required=False)
@click.option("--local", is_flag=True, help="As known here, even while a majority of servers is out of reach.")
@agent_command
def status(agent: AgentConnection, as_json: bool, ident: str | None, local: bool) -> None:
    """RUN, its number or its name, node by node, and what it waits for; without RUN, all that are under way.

    \b
    dislocate run status
    dislocate run status 7
    dislocate run status web --json | jq .nodes
    """
    consistency = "local" if local else "linearizable"
    if ident is None:
        _show_list(agent, as_json, LISTED, consistency)
        return
    run = run_id(agent, ident, consistency)
    answer = agent.get(f"/api/runs/{segment(run)}?consistency={consistency}", STORE_TIMEOUT)
    if as_json:
        click.echo(json.dumps(answer))
        return
    if answer["age"]:
        click.echo(behind(answer["age"]), err=True)
    progress = Progress()
    progress.take("status", answer)
    for line in overview(progress):
        click.echo(line)
    click.echo(f"\n{next_command(answer['id'], answer['state'], answer['hold'], is_seen=True)}")


def _show_list(agent: AgentConnection, as_json: bool, limit: int, consistency: str = "linearizable") -> None:
    answer = agent.get(f"/api/runs?limit={limit}&consistency={consistency}", STORE_TIMEOUT)
    rows = [
        (
            one["id"],
            one["name"],
            one["state"] + (f" ({one['hold']})" if one["hold"] else ""),
            f"{min(one['batch'] + 1, one['batches'])}/{one['batches']}" if one["batch"] >= 0 else "-",
            one["targets"],
            one["actor"],
            age(age_of(one["changed_at"])),
        )
        for one in answer["runs"]
    ]
    if answer["age"] and not as_json:
        click.echo(behind(answer["age"]), err=True)
    columns = ("RUN", "NAME", "STATE", "BATCH", "NODES", "STARTED BY", "CHANGED")
    show(as_json, answer, columns, rows, "one in full: dislocate run status RUN", "no runs: dislocate run start FILE")


# ---- audit


@run.group(invoke_without_command=True)
@click.option("--limit", type=click.IntRange(1), help="The latest so many; all unless given.")
@click.pass_context
@agent_command
def audit(context: click.Context, agent: AgentConnection, as_json: bool, limit: int | None) -> None:
    """Who did what to which run, and when: a chain in which every entry has the hash of the one before.

    \b
    dislocate run audit
    dislocate run audit --limit 20
    dislocate run audit verify
    """
    if context.invoked_subcommand is not None:
        return
    entries = _entries(agent)
    if limit is not None:
        entries = entries[-limit:]
    rows = [
        (one["number"], _time(one["at"]), one["actor"], one["verb"], one["run"] or "-", one.get("evidence", ""))
        for one in entries
    ]
    columns = ("ENTRY", "AT", "WHO", "DID", "RUN", "EVIDENCE")
    show(as_json, {"entries": entries}, columns, rows, "dislocate run audit verify", "nothing was done yet")


@audit.command()
@agent_command
def verify(agent: AgentConnection, as_json: bool) -> None:
    """Compute the chain of the audit anew, here.  Exits 1 when an entry does not fit.

    \b
    dislocate run audit verify
    """
    entries = [msgspec.convert(one, AuditEntry) for one in _entries(agent)]
    broken = first_that_does_not_fit(entries)
    if broken is not None:
        number, why = broken
        answer = {"entries": len(entries), "broken": number, "words": why}
        fail(f"the audit does not hold from entry {number} on: {why}", as_json, EXIT_FAILED, answer)
    last = entries[-1].hash if entries else ""
    answer = {"entries": len(entries), "broken": None, "hash": last}
    show(as_json, answer, ("ENTRIES", "HOLDS", "LAST HASH"), [(len(entries), "yes", last or "-")])


def _entries(agent: AgentConnection) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    while True:
        after = f"?after={entries[-1]['number']}" if entries else ""
        page = agent.get(f"/api/runs/audit{after}", STORE_TIMEOUT)
        entries += page["entries"]
        if not page["more"] or not page["entries"]:
            return entries


def _time(unix_ns: int) -> str:
    """In UTC: operators of several data centers read it."""
    return datetime.fromtimestamp(unix_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
