"""Commands about balancing: pick, flows."""

from typing import Any
from urllib.parse import urlencode

import click

from dislocate.cli.output import age, agent_command, milliseconds, show, table
from dislocate.client.connection import AgentConnection, segment


@click.command()
@click.argument("name")
@click.option("--key", default="", help="The same key gets the same instance, while it lives.")
@click.option("--exclude", multiple=True, metavar="ID|DC/NODE/ID|ADDRESS:PORT", help="Another than this; repeatable.")
@click.option("--from", "source", default="", metavar="DC", help="As a caller in that data center would be told.")
@agent_command
def pick(agent: AgentConnection, as_json: bool, name: str, key: str, exclude: tuple[str, ...], source: str) -> None:
    """The instance of NAME to use now: its address alone on standard output, the reasons on standard error.

    \b
    curl http://$(dislocate pick shop.web)/
    dislocate pick shop.web --key cart-7 --exclude fra/a1/shop.web-1
    dislocate pick shop.web --from wdc --json
    """
    given = {"key": key, "exclude": ",".join(exclude), "from": source}
    query = urlencode({option: value for option, value in given.items() if value})
    answer = agent.get(f"/api/services/{segment(name)}/pick" + (f"?{query}" if query else ""))
    if as_json:
        show(True, answer, (), ())
        return
    host = f"[{answer['address']}]" if ":" in answer["address"] else answer["address"]
    click.echo(f"{host}:{answer['port']}")
    click.echo(
        f"{answer['node']}/{answer['id']}, {answer['status']}, {age(answer['age'])} old: {answer['why']}", err=True
    )


@click.command()
@click.argument("name")
@agent_command
def flows(agent: AgentConnection, as_json: bool, name: str) -> None:
    """Where traffic for NAME goes, from which data center to which, and why, in words.

    DEMAND is what callers there offer, CAPACITY what its instances carry, in requests a second; COST is the round trip
    from here, with the price that its policy puts on it.  Each line of the second table is a source, each column the part
    that goes to one data center.  PART is what one instance should get of the traffic from here.

    \b
    dislocate flows shop.web
    dislocate flows shop.web --json | jq .explanation
    """
    answer = agent.get(f"/api/services/{segment(name)}/flows")
    if as_json:
        show(True, answer, (), ())
        return
    click.echo("\n".join(answer["explanation"]))
    if answer["inputs"]:
        columns = ("DATACENTER", "DEMAND", "CAPACITY", "LIVE", "BACKLOG", "COST", "TIER", "AGE")
        click.echo("\n" + table(columns, [_place(place) for place in answer["inputs"]]))
    told = [share for row in answer["rows"] for share in (*row["shares"], *row["target"])]
    places = list(dict.fromkeys(share["datacenter"] for share in told))
    rows = [_row(row, places, answer["home"]) for row in answer["rows"]]
    click.echo("\n" + table(("FROM", *(f"TO {place}" for place in places), "BY", "AGE"), rows))
    columns = ("INSTANCE", "ADDRESS", "STATUS", "PART", "LOAD", "AGE")
    if answer["instances"]:
        click.echo("\n" + table(columns, [_instance(each) for each in answer["instances"]]))


def _place(place: dict[str, Any]) -> tuple[str, ...]:
    capacity = f"{place['capacity']:.1f}" if place["endpoint_capacity"] else "not known"
    cost = "cut off" if place["cost_ms"] is None else milliseconds(place["cost_ms"])
    told = age(place["age"]) if place["epoch"] else "never told"
    return (
        place["datacenter"],
        f"{place['demand']:.1f}",
        capacity,
        f"{place['live']:g}",
        f"{place['backlog']:g}",
        cost,
        str(place["tier"]),
        told,
    )


def _row(row: dict[str, Any], places: list[str], home: str) -> tuple[str, ...]:
    shares = {share["datacenter"]: share["share"] for share in row["shares"]}
    moving = {share["datacenter"]: share["share"] for share in row["target"]}
    cells = [_share(shares.get(place, 0.0), moving.get(place, 0.0)) for place in places]
    source = f"{row['source']} (here)" if row["source"] == home else row["source"]
    return (source, *cells, row["computed_by"], age(row["age"]))


def _share(now: float, target: float) -> str:
    """'70 %', or '70 -> 40 %' while it moves."""
    return f"{now:.0%}" if abs(now - target) < 0.01 else f"{now:.0%} -> {target:.0%}"


def _instance(each: dict[str, Any]) -> tuple[str, ...]:
    part = "out" if each["part"] is None else f"{each['part']:.1%}" if each["part"] else "spare"
    load = "-" if each["load"] is None else f"{each['load']['utilization']:.0%}"
    where = f"{each['address']}:{each['port']}"
    return (f"{each['node']}/{each['id']}", where, each["status"], part, load, age(each["age"]))
