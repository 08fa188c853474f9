"""`dislocate watch NAME`: print a service whenever it changes, or run a command with it."""

import json
import subprocess
import sys
from typing import Any

import click

from dislocate.cli.output import agent_command
from dislocate.client.connection import AgentConnection, segment


@click.command()
@click.argument("name")
@click.option("--once", is_flag=True, help="Print what there is now and end.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@agent_command
def watch(agent: AgentConnection, as_json: bool, name: str, once: bool, command: tuple[str, ...]) -> None:
    """Follow NAME (or a prefix such as 'db.*').

    Each change prints one line, or runs COMMAND with the service as JSON on its standard input (as the HTTP API gives
    it); a command that fails is reported and the watch goes on.
    """
    for _, data in agent.events(f"/api/watch?service={segment(name)}"):
        if command:
            _run(command, data)
        else:
            click.echo(json.dumps(data) if as_json else _line(data))
        if once:
            return


def _run(command: tuple[str, ...], data: dict[str, Any]) -> None:
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
    sys.stdout.flush()
    return f"{data['service']} #{data['index']}: " + ("; ".join(instances) or "no instances")
