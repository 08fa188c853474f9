"""What the commands about runs share: the specification as it is sent, who asks, and which run is meant."""

import re
from pathlib import Path
from typing import Any

import click

from dislocate.client.connection import STORE_TIMEOUT, AgentConnection, Problem
from dislocate.core.boundary.spec import RunSpec
from dislocate.core.errors import LocalError
from dislocate.core.nearest import nearest
from dislocate.run_files import read_spec
from dislocate.strict import in_words

LATEST = 128  # runs among which a name is looked for

CONFIRM = click.option("--confirm", type=click.IntRange(0), metavar="N", help="Yes, up to so many nodes.")


def spec_in(file: Path) -> RunSpec:
    """The specification in `file`.  Raises `LocalError` that names the file."""
    try:
        return read_spec(file)
    except LocalError as error:
        raise LocalError(f"{file}: {error.field}", got=error.got, expected=error.expected) from None


def body_of(file: Path, confirm: int | None = None) -> dict[str, Any]:
    """The specification in `file`, as it is sent.  Raises `LocalError` that names the file."""
    body: dict[str, Any] = in_words(spec_in(file))
    if confirm is not None:
        body["confirm"] = confirm
    return body


def send(agent: AgentConnection, path: str, file: Path, body: dict[str, Any], timeout: float) -> Any:
    """The answer to `body`, which is the specification in `file`.  Raises `Problem`; one in the specification names the
    file, as one that is found here does."""
    try:
        return agent.send("POST", path, body, timeout)
    except Problem as problem:
        place = re.split(r"[.\[]", problem.answer.get("field", ""))[0]
        about = str(file) if place in RunSpec.__struct_fields__ else ""
        raise Problem(problem.status, problem.answer, about) from None


def run_id(agent: AgentConnection, text: str, consistency: str = "linearizable") -> str:
    """The run that `text` means: its number, or the latest of that name.  Raises `LocalError`."""
    if text.isascii() and text.isdigit():
        return text
    runs = agent.get(f"/api/runs?limit={LATEST}&consistency={consistency}", STORE_TIMEOUT)["runs"]
    found = next((run["id"] for run in runs if run["name"] == text), None)
    if found is None:
        mend = nearest(text, [run["name"] for run in runs])
        raise LocalError("RUN", got=text, expected=f"the number or name of a run{mend}; dislocate run list shows them")
    return str(found)
