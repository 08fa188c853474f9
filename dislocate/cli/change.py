"""Commands that change something: register, deregister, drain, maint, leave."""

from typing import Any

import click

from dislocate.cli.output import EXIT_FAILED, agent_command, fail, show, table
from dislocate.client.connection import AgentConnection, segment
from dislocate.core.catalog.validation import check_id
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_service_name
from dislocate.core.units import parse_duration


@click.command()
@click.argument("service")
@click.option("--port", type=int, required=True, help="Where the instance listens.")
@click.option("--id", "instance", help="Instance id, unique on this agent; else SERVICE-PORT.")
@click.option("--address", help="Host, where it is not the agent's own.")
@click.option("--tag", "tags", multiple=True, help="May be given more than once.")
@click.option("--meta", multiple=True, metavar="KEY=VALUE", help="May be given more than once.")
@click.option("--weight", type=int, help="Relative to the other instances; 1 by default.")
@click.option("--http", help="Check: URL that must answer 2xx.")
@click.option("--tcp", help="Check: HOST:PORT or unix:/PATH that must accept.")
@click.option("--ttl", help="Check: the instance must call in at least this often, such as 15s.")
@click.option("--interval", help="Of the check, such as 5s.")
@click.option("--timeout", help="Of the check, such as 2s.")
@agent_command
def register(agent: AgentConnection, as_json: bool, service: str, port: int, **options: Any) -> None:
    """Add an instance of SERVICE on this host, or replace it.  Durable when this returns.

    \b
    dislocate register shop.web --port 8000 --http http://127.0.0.1:8000/health
    dislocate register cache --port 11211 --tcp 127.0.0.1:11211 --interval 1s --tag blue
    dislocate register job --id job-7 --port 9000 --ttl 30s
    """
    check_service_name(service, "service")
    instance = options["instance"] or f"{service}-{port}"
    body: dict[str, Any] = {"service": service, "port": port}
    for name in ("address", "weight"):
        if options[name] is not None:
            body[name] = options[name]
    if options["tags"]:
        body["tags"] = list(options["tags"])
    if options["meta"]:
        body["meta"] = dict(_pair(text) for text in options["meta"])
    check = {name: options[name] for name in ("http", "tcp", "ttl", "interval", "timeout") if options[name] is not None}
    if check:
        body["check"] = check
    answer = agent.send("PUT", f"/api/instances/{_id(instance)}", body)
    show(
        as_json, answer, ("REGISTERED", "SERVICE", "PORT"), [(instance, service, port)], f"dislocate service {service}"
    )


@click.command()
@click.argument("instance", metavar="ID")
@agent_command
def deregister(agent: AgentConnection, as_json: bool, instance: str) -> None:
    """Remove an instance of this agent.  Durable when this returns.

    \b
    dislocate deregister shop.web-8000
    """
    answer = agent.send("DELETE", f"/api/instances/{_id(instance)}")
    show(as_json, answer, ("DEREGISTERED",), [(instance,)])


@click.command()
@click.argument("scope", type=click.Choice(["instance", "node", "dc"]))
@click.argument("target", metavar="ID|DC/NAME|DC")
@click.option("--off", is_flag=True, help="Stop draining.")
@click.option("--for", "expires", metavar="DURATION", help="It ends by itself after this, such as 30m; a dc after 1h.")
@click.option("--force", is_flag=True, help="dc: also where the others cannot carry its traffic.")
@click.option("--reason", default="", help="For history and for the next operator.")
@agent_command
def drain(
    agent: AgentConnection,
    as_json: bool,
    scope: str,
    target: str,
    off: bool,
    expires: str | None,
    force: bool,
    reason: str,
) -> None:
    """Send no new work to an instance of this agent, to a node, or to a whole data center.

    A data center is not drained where the others could not carry what callers offer: the numbers are said, and --force
    drains it all the same.  It ends by itself after an hour, or --for, at most 72h.

    \b
    dislocate drain instance shop.web-8000 --for 30m --reason "new kernel"
    dislocate drain node fra/a1
    dislocate drain dc fra --for 2h
    dislocate drain dc fra --off
    """
    parts = target.split("/")
    if scope != "instance" and (len(parts) != (2 if scope == "node" else 1) or "" in parts):
        expected = "DC/NAME, such as fra/a1" if scope == "node" else "the name of a data center, such as fra"
        raise click.UsageError(f"drain {scope}: got {target!r}, expected {expected}")
    if force and scope != "dc":
        raise click.UsageError(f"drain {scope}: got --force, expected it with 'dc' only: nothing else is refused")
    body: dict[str, Any] = {"draining": not off, "reason": reason}
    if expires is not None:
        if not parse_duration(expires, "--for"):
            raise LocalError("--for", got=expires, expected="a duration above 0, such as 30m; --off ends a drain")
        body["expires"] = expires
    if scope == "instance":
        answer = agent.send("POST", f"/api/instances/{_id(target)}/drain", body)
    elif scope == "node" or off:
        answer = agent.send("PUT", "/api/drains/" + "/".join(map(segment, parts)), body)
    else:
        answer = _drain_datacenter(agent, as_json, target, {**body, "force": force})
    show(as_json, answer, ("TARGET", "DRAINING"), [(target, "no" if off else "yes")])


def _drain_datacenter(agent: AgentConnection, as_json: bool, target: str, body: dict[str, Any]) -> dict[str, Any]:
    """Drain it, and say how what it serves fits elsewhere."""
    path = f"/api/drains/{segment(target)}"
    fits = agent.get(path)
    rows = [
        (s["service"], _rate(s["demand"]), _rate(s["capacity"]) if s["capacity"] else "not known", _fit(s))
        for s in fits["services"]
    ]
    if rows and not as_json:
        click.echo(table(("SERVICE", "DEMAND", f"CAPACITY WITHOUT {target}", "FITS"), rows) + "\n", err=True)
    if not (fits["fits"] or body["force"]):
        words = "\n".join(each["words"] for each in fits["services"] if not each["fits"])
        refusal = f"{target} is not drained: it would not fit\n{words}\n--force drains it all the same"
        fail(refusal, as_json, EXIT_FAILED, {"error": f"it would not fit: {words}", "fits": fits})
    return {**agent.send("PUT", path, body), "fits": fits}


def _rate(value: float) -> str:
    return f"{value:.0f} req/s"


def _fit(service: dict[str, Any]) -> str:
    """Nothing is refused where nobody told a capacity, and nobody knows either."""
    if service["fits"] and service["demand"] and not service["capacity"]:
        return "not known"
    return "yes" if service["fits"] else "NO"


@click.command()
@click.argument("instance", metavar="ID")
@click.option("--off", is_flag=True, help="Back into the answers.")
@click.option("--reason", default="", help="For history and for the next operator.")
@agent_command
def maint(agent: AgentConnection, as_json: bool, instance: str, off: bool, reason: str) -> None:
    """Take an instance of this agent out of the answers, or back.

    \b
    dislocate maint shop.web-8000 --reason "disk is replaced"
    dislocate maint shop.web-8000 --off
    """
    body = {"enabled": not off, "reason": reason}
    answer = agent.send("POST", f"/api/instances/{_id(instance)}/maint", body)
    show(as_json, answer, ("INSTANCE", "MAINTENANCE"), [(instance, "no" if off else "yes")])


@click.command()
@agent_command
def leave(agent: AgentConnection, as_json: bool) -> None:
    """Tell everybody that this agent goes for good; then it ends.  (SIGTERM is a planned restart.)

    \b
    dislocate leave
    dislocate leave --agent unix:/var/lib/dislocate/http.sock
    """
    path = agent.get("/api/health")["node"]
    answer = agent.send("POST", "/api/leave", {})
    show(as_json, answer, ("LEFT",), [(path,)])


def _id(instance: str) -> str:
    """An instance id as a segment of a path.  Raises `LocalError`: with a '/' in it no agent would know the path."""
    return segment(check_id(instance, "id"))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--meta: got {text!r}, expected KEY=VALUE")
    return key, value
