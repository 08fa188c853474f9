"""`dislocate servers`: who keeps the store."""

from typing import Any

import click

from dislocate.cli.output import age, agent_command, milliseconds, show
from dislocate.client.connection import CHANGE_TIMEOUT, AgentConnection, segment
from dislocate.core.identity import split_path
from dislocate.core.store.standing import WIPED

NO_SERVERS = "no servers are known here: [store] servers names them, the same in every agent's configuration"
STALE = 5.0  # seconds: a leader tells the time to all servers, and they to all agents, each second


@click.group()
def servers() -> None:
    """The servers of the replicated store: three or five agents, spread over data centers.

    \b
    dislocate servers list
    dislocate servers add lon/c1
    dislocate servers remove fra/a1
    """


@servers.command("list")
@agent_command
def list_(agent: AgentConnection, as_json: bool) -> None:
    """Every server, as this agent last heard of it; LOG, RTT and most TROUBLE are known to the leader, so ask it for them.

    \b
    dislocate servers list
    """
    answer = agent.get("/api/servers")
    rows = [
        (
            server["path"],
            "leader" if server["is_leader"] else server["role"],
            "-" if server["matched"] is None else server["matched"],
            milliseconds(server["rtt_ms"]),
            milliseconds(server["disk_latency_ms"]),
            server["disk"][:8],
            server["trouble"] or "-",
        )
        for server in answer["servers"]
    ]
    columns = ("SERVER", "ROLE", "LOG", "RTT", "DISK WRITE", "DISK ID", "TROUBLE")
    nothing = NO_SERVERS
    if not rows and not as_json and (problem := agent.get("/api/store")["problem"]):
        nothing = f"no servers are known here: {problem}"
    hint = "" if answer["age"] is None else f"as known {age(answer['age'])} ago; "
    if answer["leader"] is not None and all(server["matched"] is None for server in answer["servers"]):
        hint += f"{answer['leader']} leads and knows LOG, RTT and TROUBLE; "
    show(as_json, answer, columns, rows, f"{hint}dislocate store status", nothing)
    if rows and not as_json:
        for words in (*mends(answer["servers"]), _doubt(answer)):
            if words:
                click.echo(f"\n{words}", err=True)


def mends(servers: list[dict[str, Any]]) -> list[str]:
    """What to do about those that take part again only when they are told to."""
    wiped = [server["path"] for server in servers if server["trouble"] == WIPED]
    return [
        f"{path} runs on another disk than the one that the group knows: dislocate servers add {path}" for path in wiped
    ]


def _doubt(answer: dict[str, Any]) -> str:
    """Why the list may not be what is so now; empty: it is, as far as anybody knows."""
    as_of = "from before this agent started" if answer["age"] is None else f"{age(answer['age'])} old"
    if answer["leader"] is None:
        return f"no leader answers this agent: what it knows of the store is {as_of}; dislocate store status says why"
    if answer["age"] is None or answer["age"] > STALE:
        return f"what this agent knows of the store is {as_of}: ask {answer['leader']}, which led then"
    return ""


@servers.command()
@click.argument("path", metavar="DC/NAME")
@agent_command
def add(agent: AgentConnection, as_json: bool, path: str) -> None:
    """Make an agent a server; returns when it votes.  One that is known with a wiped disk is replaced in one step.

    \b
    dislocate servers add lon/c1
    """
    answer = agent.send("PUT", _place(path), timeout=CHANGE_TIMEOUT)
    show(as_json, answer, ("ADDED",), [(path,)], "dislocate servers list")


@servers.command()
@click.argument("path", metavar="DC/NAME")
@agent_command
def remove(agent: AgentConnection, as_json: bool, path: str) -> None:
    """Make a server an agent like others; returns when it votes no more, and it stays out.

    \b
    dislocate servers remove fra/a1
    """
    answer = agent.send("DELETE", _place(path), timeout=CHANGE_TIMEOUT)
    show(as_json, answer, ("REMOVED",), [(path,)], "dislocate servers list")


@servers.command()
@click.argument("to", metavar="[DC/NAME]", default="")
@agent_command
def transfer(agent: AgentConnection, as_json: bool, to: str) -> None:
    """Let another server lead: the one named, else whoever is placed best.  Before its host is restarted, say.

    \b
    dislocate servers transfer
    dislocate servers transfer wdc/b1
    """
    if to:
        split_path(to, "DC/NAME")
    answer = agent.send("POST", "/api/servers/transfer", {"to": to}, CHANGE_TIMEOUT)
    leader = to or agent.get("/api/store")["leader"] or "-"
    show(as_json, {**answer, "leader": leader}, ("LEADER",), [(leader,)], "dislocate servers list")


def _place(path: str) -> str:
    datacenter, name = split_path(path, "DC/NAME")
    return f"/api/servers/{segment(datacenter)}/{segment(name)}"
