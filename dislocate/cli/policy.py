"""`dislocate policy`: how services are balanced, where that is not the default."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import click

from dislocate.cli.output import agent_command, fail, show
from dislocate.client.connection import STORE_TIMEOUT, AgentConnection, Problem, segment
from dislocate.core.errors import ConfigError, LocalError

# Fields that a flag of their name sets.
_FLAGS = (
    "spill",
    "target_load",
    "capacity",
    "probe",
    "price_weight",
    "algorithm",
    "aperture",
    "slow_start",
    "timeout",
    "hedge",
    "throttle",
)


@click.group()
def policy() -> None:
    """How services are balanced: what a service without a policy has are the defaults.

    \b
    dislocate policy set shop.web --spill dead --target-load 0.7
    dislocate policy show shop.web
    dislocate policy list
    dislocate policy delete shop.web
    """


@policy.command(name="list")
@agent_command
def list_(agent: AgentConnection, as_json: bool) -> None:
    """The services that have a policy, and what it sets.

    \b
    dislocate policy list
    """
    answer = agent.get("/api/policies", timeout=STORE_TIMEOUT)
    rows = [(each["name"], each["problem"] or _brief(each), each["revision"]) for each in answer["policies"]]
    nothing = "no policies: the defaults hold everywhere"
    show(as_json, answer, ("SERVICE", "SETS", "REVISION"), rows, "all of one: dislocate policy show NAME", nothing)


@policy.command(name="show")
@click.argument("name")
@agent_command
def show_(agent: AgentConnection, as_json: bool, name: str) -> None:
    """How NAME is balanced: every field, and whether it was set or is the default.

    The JSON's `policy` can be changed and given to `dislocate policy set NAME --file`.

    \b
    dislocate policy show shop.web
    dislocate policy show shop.web --json | jq .policy > shop.json
    """
    try:
        answer = agent.get(f"/api/policies/{segment(name)}", timeout=STORE_TIMEOUT)
    except Problem as problem:
        if problem.status != 404:
            raise
        answer = _defaults(name)
    if answer["problem"]:
        click.echo(
            f"the newest cannot be read: {answer['problem']}\nso this agent follows what it had before:", err=True
        )
    rows = [
        (field, _text(value), "set" if field.partition(".")[0] in answer["set"] else "default")
        for field, value in _fields(answer["policy"])
    ]
    show(as_json, answer, ("FIELD", "VALUE", "FROM"), rows, f"change it: dislocate policy set {name} --spill dead")


@policy.command(name="set")
@click.argument("name")
@click.option("--file", "path", type=click.Path(path_type=Path), help="The whole policy, TOML or JSON.")
@click.option("--spill", help="never: not even when nothing lives here; dead: then; load: when it would be overloaded.")
@click.option("--target-load", type=float, help="Part of its capacity that a data center is given, 0..1.")
@click.option("--capacity", type=float, help="Requests a second of one endpoint of weight 1; 0: measured.")
@click.option("--tier", "tiers", multiple=True, metavar="DC=N", help="A lower tier is used up first; repeatable.")
@click.option("--price", "prices", multiple=True, metavar="DC=PRICE", help="In any unit; repeatable.")
@click.option("--price-weight", metavar="DURATION", help="Round trip that one unit of price is worth, such as 20ms.")
@click.option("--probe", type=float, help="Part that goes to the next data center to keep it known, such as 0.01.")
@click.option("--algorithm", help="p2c, weighted or hash.")
@click.option("--aperture", type=int, help="Endpoints of a data center that one caller uses at least.")
@click.option("--slow-start", metavar="DURATION", help="In which a fresh endpoint grows to its whole weight.")
@click.option("--timeout", metavar="DURATION", help="Of one call with all of its attempts.")
@click.option("--hedge/--no-hedge", default=None, help="A second attempt after the 95th percentile; idempotent only.")
@click.option("--throttle", type=float, help="Requests may be so many times what is accepted; 0: off.")
@click.option("--force", is_flag=True, help="Even with a tier or a price of a data center that nobody knows yet.")
@agent_command
def set_(agent: AgentConnection, as_json: bool, name: str, path: Path | None, force: bool, **options: Any) -> None:
    """Set how NAME is balanced.  Flags change what was set before; --file replaces it.

    All fields are in docs/policies.md; those without a flag (eject, retries) are set with --file.

    \b
    dislocate policy set shop.web --spill dead --tier wdc=1
    dislocate policy set shop.web --file shop.toml
    dislocate policy set shop.web --file shop.toml --target-load 0.6
    """
    given = _given(options)
    if path is None and not given:
        raise click.UsageError("policy set: got nothing to set, expected --file FILE, or flags such as --spill dead")
    place = f"/api/policies/{segment(name)}"
    if path is not None:
        policy_, query = _read(path), {}
    else:
        policy_, revision = _current(agent, place)
        query = {"cas": str(revision)}  # flags change what was read: nobody else's change may be lost
    for field, value in given.items():
        policy_[field] = {**policy_.get(field, {}), **value} if isinstance(value, dict) else value
    if force:
        query["force"] = "true"
    where = f"{place}?{urlencode(query)}" if query else place
    answer = agent.send("PUT", where, policy_, timeout=STORE_TIMEOUT)
    hint = f"what it does: dislocate flows {name}"
    show(as_json, answer, ("POLICY", "REVISION"), [(name, answer["revision"])], hint)


@policy.command()
@click.argument("name")
@agent_command
def delete(agent: AgentConnection, as_json: bool, name: str) -> None:
    """Balance NAME by the defaults again.

    \b
    dislocate policy delete shop.web
    """
    answer = agent.send("DELETE", f"/api/policies/{segment(name)}", timeout=STORE_TIMEOUT)
    if not answer["deleted"]:
        fail(
            f"no policy is set for {name!r}: the defaults hold\ndislocate policy list shows those that are", as_json, 1
        )
    show(as_json, answer, ("DELETED", "REVISION"), [(name, answer["revision"])])


def _given(options: dict[str, Any]) -> dict[str, Any]:
    given = {field: options[field] for field in _FLAGS if options[field] is not None}
    for field, option, number in (("tiers", "--tier", int), ("prices", "--price", float)):
        pairs = dict(_pair(text, option, number) for text in options[field])
        if pairs:
            given[field] = pairs
    return given


def _pair(text: str, option: str, number: type) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    try:
        if name and equals:
            return name, number(value)
    except ValueError:
        pass
    raise click.UsageError(f"{option}: got {text!r}, expected DC=NUMBER, such as wdc=1")


def _read(path: Path) -> dict[str, Any]:
    """The table in the file.  Raises `LocalError`: what it means is for the agent to judge."""
    import tomllib

    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("--file", got=str(path), expected=f"a readable TOML or JSON file ({error})") from error
    except ValueError as error:
        form = "JSON" if path.suffix == ".json" else "TOML"
        raise LocalError("--file", got=str(path), expected=f"{form}: {error}") from error
    if not isinstance(table, dict):
        raise LocalError("--file", got=str(path), expected="one object with the fields of a policy")
    return table


def _current(agent: AgentConnection, place: str) -> tuple[dict[str, Any], int]:
    """What is set now, and its revision; nothing and 0 where nothing is."""
    try:
        answer = agent.get(place, timeout=STORE_TIMEOUT)
    except Problem as problem:
        if problem.status != 404:
            raise
        return {}, 0
    return {field: answer["policy"][field] for field in answer["set"]}, answer["revision"]


def _defaults(name: str) -> dict[str, Any]:
    from dislocate.core.boundary.balance import Policy
    from dislocate.edge.flow_answers import policy_in_words

    return {"name": name, "policy": policy_in_words(Policy()), "set": [], "revision": 0, "problem": ""}


def _brief(answer: dict[str, Any]) -> str:
    found = {field: answer["policy"][field] for field in answer["set"]}
    return ", ".join(f"{field} {_text(value)}" for field, value in _fields(found)) or "nothing"


def _fields(policy_: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The fields, those within `eject` and `retries` by 'eject.base'."""
    found: list[tuple[str, Any]] = []
    for field, value in policy_.items():
        if isinstance(value, dict) and field in ("eject", "retries"):
            found += _fields(value, f"{field}.")
        else:
            found.append((prefix + field, value))
    return found


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name}={number}" for name, number in value.items()) or "-"
    return str(value).lower() if isinstance(value, bool) else str(value)
