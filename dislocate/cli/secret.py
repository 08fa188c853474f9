"""`dislocate secret`: values that only the nodes they are for can read."""

import sys
from base64 import b64encode
from pathlib import Path
from typing import Any, BinaryIO

import click

from dislocate.cli.output import agent_command, show
from dislocate.cli.run_plan import those
from dislocate.cli.run_spec import CONFIRM
from dislocate.client.connection import STORE_TIMEOUT, AgentConnection
from dislocate.core.errors import LocalError
from dislocate.core.tunables import SECRET_BYTES


@click.group()
def secret() -> None:
    """Values that only the nodes they are for can read; templates name them as secret('db/password').

    \b
    dislocate secret put db/password --targets dc:fra
    dislocate secret list
    dislocate secret delete db/password
    """


@secret.command()
@click.argument("name")
@click.argument("source", metavar="[@FILE|-]", required=False)
@click.option("--targets", required=True, metavar="EXPRESSION", help="The nodes that will be able to read it.")
@CONFIRM
@agent_command
def put(
    agent: AgentConnection, as_json: bool, name: str, source: str | None, targets: str, confirm: int | None
) -> None:
    """Seal a value to nodes: asked for without echo, or from FILE, or (-) from standard input without its last line end.

    Nobody can read it back, so a node that comes later needs it to be put again.  It is no argument, since those are seen
    by every user of the host.

    \b
    dislocate secret put db/password --targets 'tag:role=web'
    dislocate secret put tls/key @key.pem --targets 'service:shop.web'
    pwgen 32 1 | dislocate secret put db/password - --targets dc:fra
    """
    body: dict[str, Any] = {"targets": targets, "confirm": confirm or 0, **_value(source)}
    answer = agent.send("PUT", f"/api/secrets/{_path(name)}", body, STORE_TIMEOUT)
    row = (answer["name"], answer["version"], len(answer["nodes"]), those(answer["nodes"]))
    show(as_json, answer, ("SECRET", "VERSION", "NODES", "WHO CAN READ IT"), [row], "dislocate secret list")


@secret.command("list")
@agent_command
def list_(agent: AgentConnection, as_json: bool) -> None:
    """Names and versions of all secrets, and which nodes can read them.

    \b
    dislocate secret list
    """
    answer = agent.get("/api/secrets", STORE_TIMEOUT)
    rows = [(one["name"], one["version"], len(one["nodes"]), those(one["nodes"])) for one in answer["secrets"]]
    nothing = "no secrets: dislocate secret put NAME --targets EXPRESSION"
    show(as_json, answer, ("SECRET", "VERSION", "NODES", "WHO CAN READ IT"), rows, nothing=nothing)


@secret.command()
@click.argument("name")
@agent_command
def delete(agent: AgentConnection, as_json: bool, name: str) -> None:
    """Forget NAME.  Files that were written with it stay; a run that starts later and names it is refused.

    \b
    dislocate secret delete db/password
    """
    answer = agent.send("DELETE", f"/api/secrets/{_path(name)}", timeout=STORE_TIMEOUT)
    show(as_json, answer, ("DELETED", "REVISION"), [(name, answer["revision"])])


def _path(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="/")


def _value(source: str | None) -> dict[str, str]:
    """As it is sent.  Raises `LocalError`."""
    if source is None:
        return {"value": click.prompt("value", hide_input=True, confirmation_prompt=sys.stdin.isatty(), err=True)}
    if source == "-":
        data = _bounded(sys.stdin.buffer, "standard input").removesuffix(b"\n")
    elif source.startswith("@"):
        try:
            with Path(source[1:]).open("rb") as file:
                data = _bounded(file, source)
        except OSError as error:
            raise LocalError("@FILE", got=source, expected=f"a readable file ({error.strerror})") from None
    else:
        expected = "'@FILE', '-' or nothing: arguments are seen by every user of this host"
        raise LocalError("[@FILE|-]", got="(hidden)", expected=expected)
    try:
        return {"value": data.decode()}
    except UnicodeDecodeError:
        return {"value": b64encode(data).decode(), "encoding": "base64"}


def _bounded(file: BinaryIO, source: str) -> bytes:
    """All of it, which may be a device without an end.  Raises `LocalError`."""
    data = file.read(SECRET_BYTES + 2)  # with a line end that does not count
    if len(data) > SECRET_BYTES + 1:
        raise LocalError("[@FILE|-]", got=source, expected=f"at most {SECRET_BYTES // 1024} KiB")
    return data
