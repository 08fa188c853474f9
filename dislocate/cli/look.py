"""Commands that look and change nothing: members, datacenters, services, service, history, rtt."""

from datetime import UTC, datetime

import click

from dislocate.cli.output import age, agent_command, milliseconds, show
from dislocate.client.connection import AgentConnection, segment


@click.group(invoke_without_command=True)
@click.pass_context
@click.option("--dc", "datacenter", help="Only members of this data center.")
@click.option("--state", type=click.Choice(["alive", "suspect", "dead", "left"]), help="Only members in this state.")
@agent_command
def members(
    context: click.Context, agent: AgentConnection, as_json: bool, datacenter: str | None, state: str | None
) -> None:
    """Every agent known, in every data center.

    \b
    dislocate members --dc fra --state dead
    dislocate members forget fra/a3
    dislocate members --json | jq -r ".members[].address"
    """
    if context.invoked_subcommand:
        return
    answer = agent.get("/api/members")
    answer["members"] = [
        member
        for member in answer["members"]
        if datacenter in (None, member["datacenter"]) and state in (None, member["state"])
    ]
    rows = [
        (f"{m['datacenter']}/{m['name']}", m["state"], m["address"], age(m["age"]), ",".join(m["tags"]) or "-")
        for m in answer["members"]
    ]
    columns = ("MEMBER", "STATE", "ADDRESS", "AGE", "TAGS")
    show(as_json, answer, columns, rows, "why: dislocate history DC/NAME", nothing="no members match")


@members.command()
@click.argument("path", metavar="DC/NAME")
@agent_command
def forget(agent: AgentConnection, as_json: bool, path: str) -> None:
    """Drop a dead or left member and its services now, everywhere; by themselves they go after 72 h.

    \b
    dislocate members forget fra/a3
    """
    parts = path.split("/")
    if len(parts) != 2 or not all(parts):
        raise click.UsageError(f"members forget: got {path!r}, expected DC/NAME, such as fra/a3")
    answer = agent.send("DELETE", "/api/members/" + "/".join(map(segment, parts)))
    show(as_json, answer, ("FORGOTTEN",), [(path,)])


@click.command()
@agent_command
def datacenters(agent: AgentConnection, as_json: bool) -> None:
    """Every data center, as seen from the agent's own; AGE is that of what is known of it.

    \b
    dislocate datacenters
    """
    answer = agent.get("/api/datacenters")
    rows = [
        (d["name"], "yes" if d["reachable"] else "NO", milliseconds(d["rtt_ms"]), d["members"], age(d["age"]))
        for d in answer["datacenters"]
    ]
    show(as_json, answer, ("DATACENTER", "REACHABLE", "RTT", "MEMBERS", "AGE"), rows)


@click.command()
@click.option("--prefix", default="", help="Only services whose name begins so.")
@agent_command
def services(agent: AgentConnection, as_json: bool, prefix: str) -> None:
    """Every service name, with how many instances pass and where.

    \b
    dislocate services
    dislocate services --prefix db.
    """
    answer = agent.get(f"/api/services?prefix={segment(prefix)}" if prefix else "/api/services")
    rows = [(s["name"], f"{s['passing']}/{s['instances']}", ",".join(s["datacenters"])) for s in answer["services"]]
    nothing = "no services match" if prefix else "no services"
    columns = ("SERVICE", "PASSING", "DATACENTERS")
    show(as_json, answer, columns, rows, "instances: dislocate service NAME", nothing)


@click.command()
@click.argument("name")
@agent_command
def service(agent: AgentConnection, as_json: bool, name: str) -> None:
    """The instances of one service, best first; AGE is that of the knowledge, REACHABLE its data center's.

    \b
    dislocate service shop.web
    """
    answer = agent.get(f"/api/services/{segment(name)}")
    rows = [
        (
            i["id"],
            i["node"],
            f"{i['address']}:{i['port']}",
            i["status"],
            "-" if i["load"] is None else f"{i['load']['utilization']:.0%}",
            age(i["age"]),
            "yes" if i["reachable"] else "NO",
        )
        for i in answer["instances"]
    ]
    columns = ("INSTANCE", "NODE", "ADDRESS", "STATUS", "LOAD", "AGE", "REACHABLE")
    show(as_json, answer, columns, rows, f"why: dislocate history {name}")


@click.command()
@click.argument("name", metavar="NAME")
@agent_command
def history(agent: AgentConnection, as_json: bool, name: str) -> None:
    """What happened to a service, a node (DC/NAME), an instance (DC/NAME/ID) or a data center, when, why, and who saw it.

    \b
    dislocate history shop.web
    dislocate history fra/a1
    dislocate history fra/a1/shop.web-1
    """
    answer = agent.get("/api/history/" + "/".join(segment(part) for part in name.split("/")))
    rows = [(_clock(e["at"]), e["what"], e["why"] or "-", ",".join(e["observers"]) or "-") for e in answer["events"]]
    show(as_json, answer, ("AT", "WHAT", "WHY", "OBSERVERS"), rows)


@click.command()
@agent_command
def rtt(agent: AgentConnection, as_json: bool) -> None:
    """Round-trip times from the agent's data center to the others: measured on a link, or estimated.

    \b
    dislocate rtt
    """
    answer = agent.get("/api/datacenters")
    rows = [
        (d["name"], milliseconds(d["rtt_ms"]), "measured" if d["measured"] else "estimated")
        for d in sorted(answer["datacenters"], key=lambda d: (d["rtt_ms"] is None, d["rtt_ms"] or 0.0, d["name"]))
        if d["rtt_ms"] is not None
    ]
    show(as_json, answer, ("DATACENTER", "RTT", "HOW"), rows)


def _clock(at: float | None) -> str:
    """Local wall time to the millisecond; '-' where the agent had not read a clock yet."""
    if at is None:
        return "-"
    return datetime.fromtimestamp(at, tz=UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
