"""`dislocate watch NAME`: print a service whenever it changes, or run a command with it."""

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import click

from dislocate.cli.output import agent_command
from dislocate.client.connection import AgentConnection, NoAgent, segment

RETRY = 2.0  # seconds, as the agent asks of event streams


@click.command()
@click.argument("name")
@click.option("--once", is_flag=True, help="Print what there is now and end.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@agent_command
def watch(agent: AgentConnection, as_json: bool, name: str, once: bool, command: tuple[str, ...]) -> None:
    """Follow NAME (or a prefix such as 'db.*').

    Each change prints one line, or runs COMMAND with the service as JSON on its standard input (as the HTTP API gives
    it); a command that fails is reported and the watch goes on.  When the agent is restarted, the watch comes back.

    \b
    dislocate watch shop.web
    dislocate watch 'db.*' --json
    dislocate watch shop.web -- sh -c 'jq .instances > pool.json && systemctl reload proxy'
    """
    stream = f"/api/watch?service={segment(name)}"
    if once:
        for service in _now(agent, stream, name):
            _show(service, command, as_json)
        return
    is_known = False
    while True:
        try:
            for _, data in agent.events(stream):
                is_known = True
                _show(data, command, as_json)
        except NoAgent:
            if not is_known:
                raise
        click.echo(f"{agent.where} ended the watch; asking again", err=True)
        time.sleep(RETRY)


def _now(agent: AgentConnection, stream: str, name: str) -> Iterator[dict[str, Any]]:
    """The services that match as they are; one without instances when none does.

    A fresh watch says nothing about a name nobody has; one resumed from index 0 begins with the names that match."""
    missing: set[str] = set()
    for event, data in agent.events(stream, since=0):
        if event == "names":
            missing = set(data["names"])
            if not missing:
                yield {"service": name, "index": 0, "instances": []}
        else:
            missing.discard(data["service"])
            yield data
        if not missing:
            return


def _show(data: dict[str, Any], command: tuple[str, ...], as_json: bool) -> None:
    if command:
        run_command(command, data)
    else:
        click.echo(json.dumps(data) if as_json else _line(data))


def run_command(command: tuple[str, ...], data: dict[str, Any]) -> None:
    """Run `command` with `data` as JSON on its standard input; that it failed is said."""
    try:
        result = subprocess.run(command, input=json.dumps(data).encode(), check=False)
    except OSError as error:
        raise click.UsageError(f"{command[0]}: {error.strerror}") from error
    if result.returncode:
        click.echo(f"{command[0]} ended with {result.returncode}", err=True)


def _line(data: dict[str, Any]) -> str:
    instances = [
        f"{i['node']}/{i['id']} {i['address']}:{i['port']} {i['status']}{'' if i['reachable'] else ' unreachable'}"
        for i in data["instances"]
    ]
    return f"{data['service']} #{data['index']}: " + ("; ".join(instances) or "no instances")
