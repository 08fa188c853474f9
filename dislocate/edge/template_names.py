"""Which keys and secrets the templates of a specification name: `key('config/color')`, `secret('db/password')`.

By their text alone, for an edge that is given no reader of templates; one that reads them (`host.templates`) knows better.
"""

import re

from msgspec import Struct

from dislocate.core.boundary.spec import Command, File, Process, RunSpec

_CALL = re.compile(r"\b(key|secret)\(\s*(['\"])(.*?)\2\s*\)")


class References(Struct, frozen=True):
    """Names, sorted."""

    keys: tuple[str, ...]
    secrets: tuple[str, ...]


def named_in_templates(spec: RunSpec) -> References:
    """What contents of files and values of environments name."""
    texts: list[str] = []
    for resource in spec.resources:
        match resource:
            case File(content=content):
                texts.append(content)
            case Command(environment=environment) | Process(environment=environment):
                texts += environment.values()
    named = [(found[1], found[3]) for text in texts for found in _CALL.finditer(text)]
    return References(
        keys=tuple(sorted({name for kind, name in named if kind == "key"})),
        secrets=tuple(sorted({name for kind, name in named if kind == "secret"})),
    )
