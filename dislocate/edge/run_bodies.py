"""What people and programs send about runs, commands and secrets, as typed values."""

from typing import Annotated

import msgspec
from msgspec import Meta

from dislocate.core.boundary.spec import RunSpec
from dislocate.core.errors import LocalError
from dislocate.core.identity import Path
from dislocate.core.runs.resources import LONGEST_TIMEOUT
from dislocate.core.units import SECOND, Duration, format_duration
from dislocate.edge.bodies import Body, Encoding, Number, Text

AT_ONCE = 20  # nodes; each holds a link for the time of its visit
AT_ONCE_MOST = 100

Targets = Annotated[str, Meta(description="an expression such as 'dc:fra & service:shop.web', or '*'")]


class PlanBody(Body, frozen=True, kw_only=True):
    """What was planned, as POST /api/runs/plan answered it: at another state of affairs nothing is begun."""

    spec_digest: str
    values_digest: str
    targets: tuple[Path, ...]
    digests: dict[Path, str] = msgspec.field(default_factory=dict)  # by node, of how its resources were


class RunBody(RunSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A specification as in a file, durations in words, sources read in; and how a run of it is started."""

    plan: PlanBody | None = None  # that it is bound to
    unknown_services: bool = False  # floors and gates may be about services that nobody has yet


class SteerBody(Body, frozen=True, kw_only=True):
    """Whom it is about, and why."""

    node: Annotated[str, Meta(description="a node as 'datacenter/name'")] = ""
    version: Number = 0  # refused unless the run is at it; 0: whichever
    words: Text = ""
    force: Annotated[bool, Meta(description="revert: also where a later run changed the same; 'words' say why")] = False


class ExecBody(Body, frozen=True, kw_only=True):
    """A command for many nodes."""

    targets: Targets
    command: Annotated[tuple[str, ...], Meta(description="a program and its arguments", min_length=1)]
    at_once: Annotated[int, Meta(description=f"nodes at a time, 1..{AT_ONCE_MOST}", ge=1, le=AT_ONCE_MOST)] = AT_ONCE
    timeout: Duration = 60 * SECOND  # for one node
    confirm: Number = 0  # the most nodes it may have; 0: asked for where they are many
    directory: str = "/"


class SecretBody(Body, frozen=True, kw_only=True):
    """A value that only these nodes will be able to read."""

    value: Annotated[str, Meta(description='text, or base64 with "encoding": "base64"; at most 16 KiB')]
    targets: Targets
    encoding: Encoding = ""
    confirm: Number = 0


def spec_of(body: RunBody) -> RunSpec:
    return RunSpec(**{name: getattr(body, name) for name in RunSpec.__struct_fields__})


def check_timeout(nanoseconds: int, field: str = "timeout") -> int:
    """`nanoseconds` itself.  Raises `LocalError`."""
    if not 0 < nanoseconds <= LONGEST_TIMEOUT:
        expected = f"a duration above 0 of at most {format_duration(LONGEST_TIMEOUT)}"
        raise LocalError(field, got=format_duration(nanoseconds), expected=expected)
    return nanoseconds
