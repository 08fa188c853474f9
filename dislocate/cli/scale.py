"""`dislocate scale`: how many instances a service is to have, and why."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dislocate.cli.output import agent_command, fail, show
from dislocate.client.connection import STORE_TIMEOUT, AgentConnection, segment
from dislocate.core.boundary.scaling import ScalePolicy
from dislocate.core.errors import LocalError
from dislocate.core.scale.checking import check_scale_policy
from dislocate.run_files import SUFFIXES
from dislocate.strict import in_words, parse_json, parse_toml, parse_yaml, typed

EXIT_USAGE = 2


@click.group()
def scale() -> None:
    """How many instances services are to have: by what callers offer, in each data center.

    \b
    dislocate scale set orders.api --min 2 --max 20 --file orders.toml
    dislocate scale show orders.api
    dislocate scale history orders.api
    """


@scale.command("show")
@click.argument("name", default="")
@agent_command
def show_(agent: AgentConnection, as_json: bool, name: str) -> None:
    """The sizes of one service with their reasons; without NAME, a line for each service that is scaled.

    \b
    dislocate scale show
    dislocate scale show orders.api
    """
    if not name:
        _show_all(agent, as_json)
        return
    answer = agent.get(f"/api/scale/{segment(name)}", STORE_TIMEOUT)
    rows = [
        (
            size["datacenter"],
            size["desired"],
            size["running"],
            size["passing"],
            size["epoch"],
            _carried(size),
            size["now"] or size["reason"],
        )
        for size in answer["datacenters"]
    ]
    columns = ("DATACENTER", "DESIRED", "RUNNING", "PASSING", "EPOCH", "CARRIED OUT", "WHY")
    nothing = "nothing is decided yet: the leader of the store looks each 5 s"
    show(as_json, answer, columns, rows, f"dislocate scale history {name}", nothing)
    if not as_json and answer["problem"]:
        click.echo(f"the policy cannot be read, the one before it stays in force: {answer['problem']}", err=True)


def _show_all(agent: AgentConnection, as_json: bool) -> None:
    answer = agent.get("/api/scale", STORE_TIMEOUT)
    rows = [
        (one["service"], one["desired"], one["datacenters"], one["driver"] or "-", "yes" if one["paused"] else "no")
        for one in answer["services"]
    ]
    columns = ("SERVICE", "DESIRED", "DATACENTERS", "DRIVER", "PAUSED")
    show(as_json, answer, columns, rows, "dislocate scale show NAME", "nothing is scaled: dislocate scale set NAME")


def _carried(size: dict[str, Any]) -> str:
    """In few words what came of the decision, worst first."""
    present = [one for one in size["carried"] if one["epoch"] == size["epoch"]]
    failed = [one for one in present if one["state"] == "failed"]
    if failed:
        one = failed[0]
        code = "" if one["code"] is None else f" ({one['code']})"
        return f"failed on {one['node']}{code}: {one['words']}"[:80]
    if size["nodes"]:
        done = {one["node"] for one in present if one["state"] == "done"}
        concerned = done | {node for node, count in size["nodes"].items() if count}
        return f"{len(done)} of {len(concerned)} nodes"
    return f"{present[0]['state']} by {present[0]['node']}" if present else "-"


@scale.command("set")
@click.argument("name")
@click.option(
    "--file", "file", type=click.Path(path_type=Path), help="A policy in TOML, YAML or JSON; '-': JSON, stdin."
)
@click.option("--min", "least", type=int, help="Instances in each data center, at least.")
@click.option("--max", "most", type=int, help="Instances in each data center, at most.")
@click.option("--target-load", type=float, help="Part of what they can do that the offered load is to be: 0.7.")
@click.option("--capacity", type=float, help="Requests a second of one instance; 0: measured.")
@click.option("--survive", type=click.Choice(["nothing", "1dc"]), help="What may be lost without overload.")
@click.option("--paused/--resumed", default=None, help="Decide nothing; decide again.")
@click.option("--force", is_flag=True, help="Even with data centers that nobody knows yet.")
@agent_command
def set_(agent: AgentConnection, as_json: bool, name: str, file: Path | None, force: bool, **given: Any) -> None:
    """Set the policy of a service: what the file says, changed by options; without a file, its present policy changed.

    \b
    dislocate scale set orders.api --file orders.toml
    dislocate scale set orders.api --max 40
    dislocate scale set orders.api --paused
    """
    changes = {_FIELDS.get(field, field): value for field, value in given.items() if value is not None}
    if file is None and not changes:
        fail("say what is to be: --file FILE, or options such as --max 40", as_json, EXIT_USAGE)
    path = f"/api/scale/{segment(name)}{'?force=true' if force else ''}"
    words = _read(file) if file is not None else _present(agent, name)
    words |= changes
    check_scale_policy(typed(words, ScalePolicy), name)
    answer = agent.send("PUT", path, words, STORE_TIMEOUT)
    show(as_json, answer, ("SET", "REVISION"), [(name, answer["revision"])], f"dislocate scale show {name}")


_FIELDS = {"least": "min", "most": "max"}


def _read(file: Path) -> dict[str, Any]:
    """What the file says, with durations in words.  Raises `LocalError`."""
    if str(file) != "-" and file.suffix not in SUFFIXES:
        raise LocalError("--file", got=str(file), expected=f"a name that ends with {', '.join(SUFFIXES)}")
    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise LocalError("--file", got=str(file), expected=f"a readable file ({reason})") from None
    try:
        if file.suffix == ".toml":
            policy = parse_toml(text, ScalePolicy)
        elif file.suffix in (".yaml", ".yml"):
            policy = parse_yaml(text, ScalePolicy)
        else:
            policy = parse_json(text.encode(), ScalePolicy)
    except LocalError as error:
        raise LocalError(error.field, got=error.got, expected=f"{error.expected} (in {file})") from None
    words: dict[str, Any] = in_words(policy)
    return words


def _present(agent: AgentConnection, name: str) -> dict[str, Any]:
    known = {one["service"] for one in agent.get("/api/scale", STORE_TIMEOUT)["services"]}
    if name not in known:
        return {}
    policy: dict[str, Any] | None = agent.get(f"/api/scale/{segment(name)}", STORE_TIMEOUT)["policy"]
    return policy or {}


@scale.command()
@click.argument("name")
@click.option("--datacenter", help="Only this one.")
@agent_command
def history(agent: AgentConnection, as_json: bool, name: str, datacenter: str | None) -> None:
    """What was decided, when and why, oldest first.

    \b
    dislocate scale history orders.api --datacenter fra
    """
    query = f"?datacenter={segment(datacenter)}" if datacenter else ""
    answer = agent.get(f"/api/scale/{segment(name)}/history{query}", STORE_TIMEOUT)
    rows = [
        (_time(one["at"]), one["datacenter"], one["epoch"], f"{one['before']} -> {one['desired']}", one["reason"])
        for one in answer["decisions"]
    ]
    show(as_json, answer, ("AT", "DATACENTER", "EPOCH", "SIZE", "WHY"), rows, f"dislocate scale show {name}")


@scale.command()
@click.argument("name")
@agent_command
def delete(agent: AgentConnection, as_json: bool, name: str) -> None:
    """Scale it no more; what runs stays as it is.

    \b
    dislocate scale delete orders.api
    """
    answer = agent.send("DELETE", f"/api/scale/{segment(name)}", timeout=STORE_TIMEOUT)
    show(as_json, answer, ("DELETED",), [(name,)], "dislocate scale show")


def _time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S")
