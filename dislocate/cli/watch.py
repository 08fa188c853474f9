"""`dislocate watch NAME`: print a service whenever it changes, or run a command with it."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from dislocate.cli.absence import Absence
from dislocate.cli.following import RETRY
from dislocate.cli.output import EXIT_FAILED, agent_command
from dislocate.client.connection import AgentConnection, NoAgent, segment
from dislocate.core.units import SECOND, parse_duration

_PATH = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("name")
@click.option("--once", is_flag=True, help="Print what there is now and end.")
@click.option("--template", "templates", multiple=True, type=_PATH, help="Render this Jinja2 file; repeatable.")
@click.option(
    "--out", "outs", multiple=True, type=_PATH, help="Into this file, replaced at once; one for each template."
)
@click.option("--pause", default="1s", show_default=True, help="With templates: the least time between two changes.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@agent_command
def watch(
    agent: AgentConnection,
    as_json: bool,
    name: str,
    once: bool,
    templates: tuple[Path, ...],
    outs: tuple[Path, ...],
    pause: str,
    command: tuple[str, ...],
) -> None:
    """Follow NAME (or a prefix such as 'db.*').

    Each change prints one line, or runs COMMAND with the service as JSON on its standard input (as the HTTP API gives
    it); a command that fails is reported and the watch goes on.  When the agent is restarted, the watch comes back.

    With --template a file is kept as the service is, and COMMAND run only when that file became another.  A template sees
    `service`: name, home, shares, policy, servers (who is to be used: address, port, weight 1..100, spare ...) and instances
    (all); `services` by name.  A template that cannot be rendered leaves the old file.  See docs/proxies.md.

    \b
    dislocate watch shop.web
    dislocate watch 'db.*' --json
    dislocate watch shop.web -- sh -c 'jq .instances > pool.json && systemctl reload proxy'
    dislocate watch shop.web --template shop.conf.j2 --out /etc/nginx/conf.d/shop.conf -- nginx -s reload
    """
    stream = f"/api/watch?service={segment(name)}"
    if templates or outs:
        _keep(agent, stream, name, templates, outs, parse_duration(pause, "--pause"), once, command)
        return
    if once:
        for service in _now(agent, stream, name):
            _show(service, command, as_json)
        return
    is_known = False
    absence = Absence(agent, RETRY)
    while True:
        wrong: NoAgent | None = None
        try:
            for _, data in agent.events(stream):
                is_known = True
                absence.ends()
                _show(data, command, as_json)
        except NoAgent as error:
            wrong = error
            if not is_known:
                raise
        absence.begins(wrong)
        time.sleep(RETRY)


def _keep(
    agent: AgentConnection,
    stream: str,
    name: str,
    templates: tuple[Path, ...],
    outs: tuple[Path, ...],
    pause: int,
    once: bool,
    command: tuple[str, ...],
) -> None:
    """Files by templates: once, or for ever."""
    from dislocate.cli.templating import outputs, render_once, watch_templates  # Jinja2 takes a while to import

    found = outputs(templates, outs)
    if not once:
        watch_templates(agent, name, found, command, pause / SECOND)
        return
    names = [service["service"] for service in _now(agent, stream, name)]
    if not render_once(agent, name, found, command, names):
        sys.exit(EXIT_FAILED)


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
