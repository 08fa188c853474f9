"""`dislocate haproxy`: what keeps a HAProxy's servers as the flows say, by its runtime socket or by agent-checks."""

import sys
import time
from pathlib import Path

import click

from dislocate.cli.following import RETRY, Following
from dislocate.cli.output import EXIT_FAILED, agent_command, fail
from dislocate.client.connection import AgentConnection, NoAgent, Problem
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_service_name, split_address

LOOK_EACH = 2.0  # seconds: a HAProxy that was reloaded has lost what it was told, and loads move


@click.group()
def haproxy() -> None:
    """Keep a HAProxy's servers, weights and states as the flows say.

    \b
    dislocate haproxy drive --socket /run/haproxy/admin.sock --backend web=shop.web
    dislocate haproxy agent-check --listen 127.0.0.1:49710
    """


@haproxy.command()
@click.option("--socket", "admin", required=True, metavar="PATH|HOST:PORT", help="HAProxy's stats socket, level admin.")
@click.option("--backend", "bonds", multiple=True, required=True, metavar="NAME=SERVICE", help="Repeatable.")
@click.option("--state-file", type=click.Path(dir_okay=False, path_type=Path), help="Kept for HAProxy's own reloads.")
@click.option("--once", is_flag=True, help="Bring it about now, and end.")
@agent_command
def drive(
    agent: AgentConnection, as_json: bool, admin: str, bonds: tuple[str, ...], state_file: Path | None, once: bool
) -> None:
    """Set address, weight and state of the servers of backends, without a reload, as instances and flows change.

    A backend needs free slots, and others for spares, to whom HAProxy then goes by itself when nobody else is left:

    \b
    option allbackups
    server-template s 1-20 127.0.0.1:1 disabled
    server-template spare 1-20 127.0.0.1:1 disabled backup

    HAProxy may be reloaded and the agent restarted meanwhile: what differs is found and set within 2 s.  Each command to
    HAProxy is printed.

    \b
    dislocate haproxy drive --socket /run/haproxy/admin.sock --backend web=shop.web
    dislocate haproxy drive --socket 127.0.0.1:9999 --backend web=shop.web --backend api=shop.api --once
    dislocate haproxy drive --socket /run/haproxy/admin.sock --backend web=shop.web --state-file /run/haproxy/state
    """
    from dislocate.haproxy.driver import Bond, Driver, NoProxy
    from dislocate.haproxy.runtime import Runtime

    found = tuple(Bond(*_bond(text)) for text in bonds)
    driver = Driver(agent, Runtime(admin), found, lambda words: _say(words, as_json), state_file)
    services = dict.fromkeys(bond.service for bond in found)
    try:
        for service in services:
            driver.refresh(service)
        driver.apply()
    except NoProxy as error:
        fail(str(error), as_json, 1)
    if once:
        sys.exit(EXIT_FAILED if driver.unknown else 0)
    following = Following(agent, services, has_answered=True)
    told = ""
    while True:
        changed = following.take(LOOK_EACH)
        wrong = ""
        try:
            for service in changed or services:  # nothing changed: loads may have
                driver.refresh(service)
        except (NoAgent, Problem) as error:  # what is known holds
            wrong = str(error)
        try:
            driver.apply()
        except (NoProxy, LocalError) as error:
            wrong = str(error)
        if wrong and wrong != told:
            click.echo(f"{wrong}\ntrying again each {RETRY:g} s", err=True)
        told = wrong
        if wrong:
            time.sleep(RETRY)


@haproxy.command(name="agent-check")
@click.option("--listen", default="127.0.0.1:49710", show_default=True, metavar="HOST:PORT", help="For HAProxy to ask.")
@agent_command
def agent_check(agent: AgentConnection, as_json: bool, listen: str) -> None:
    """Answer HAProxy's agent-checks: weight in percent, drain, maint, up and down of each server that it asks about.

    In HAProxy each server says what it is: agent-check agent-addr 127.0.0.1 agent-port 49710
    agent-send "shop.web 10.0.0.1:8080\\n" weight 100.  While the agent is away the last answers hold.

    \b
    dislocate haproxy agent-check --listen 127.0.0.1:49710
    echo 'shop.web 10.0.0.1:8080' | nc 127.0.0.1 49710
    """
    from dislocate.haproxy.agent_check import AgentCheckServer, Answers

    host, port = split_address(listen, "--listen")
    try:
        server = AgentCheckServer(host, port, Answers(agent))
    except OSError as error:
        raise LocalError("--listen", got=listen, expected=f"an address that is free here ({error.strerror})") from error
    agent.get("/api/health")  # a slip in --agent is said now, not by silence to HAProxy
    _say(f"ready {host}:{server.server_address[1]}", as_json)
    with server:
        server.serve_forever()


def _bond(text: str) -> tuple[str, str]:
    backend, equals, service = text.partition("=")
    if not (backend and equals and service):
        raise click.UsageError(f"--backend: got {text!r}, expected NAME=SERVICE, such as web=shop.web")
    return backend, check_service_name(service, "--backend")


def _say(words: str, as_json: bool) -> None:
    import json

    click.echo(json.dumps({"said": words}) if as_json else words)
