"""Places: paths that begin with a fact of this node, such as '{{ facts.state_dir }}/shop.conf'.

Where several agents share a machine, as in `dislocate dev`, each has a place of its own.
Nothing else of a path is a template.
"""

import re
from collections.abc import Mapping

import msgspec

from dislocate.core.boundary.spec import Resource
from dislocate.host.work import Failure

_FACT = re.compile(r"^\{\{ ?facts\.([a-z_]+) ?\}\}(?=/|\Z)")
_FIELDS = ("path", "creates", "directory", "venv")


def placed(resource: Resource, facts: Mapping[str, object]) -> Resource:
    """The same with its paths on this node.  Raises `LookupError` naming a fact that there is none of, and `Failure` for one
    that is no place."""
    found = {name: _place(resource, name, facts) for name in _FIELDS if _begins_with_a_fact(resource, name)}
    return msgspec.structs.replace(resource, **found) if found else resource


def as_written(diff: str, resource: Resource, there: Resource) -> str:
    """A difference whose head names the path of `resource`, not where it is on this node: equal ones are to look equal."""
    path, place = getattr(resource, "path", ""), getattr(there, "path", "")
    if path == place:
        return diff
    *head, rest = diff.split("\n", 2)
    return "\n".join([*(line.replace(place, path) for line in head), rest])


def _begins_with_a_fact(resource: Resource, name: str) -> bool:
    return bool(_FACT.match(getattr(resource, name, "")))


def _place(resource: Resource, name: str, facts: Mapping[str, object]) -> str:
    place = _FACT.sub(lambda found: str(facts[found[1]]), getattr(resource, name))
    if not place.startswith("/"):  # it would be looked for wherever the agent happens to run
        mend = "begin it with a fact that is a place, such as '{{ facts.state_dir }}', or with '/'"
        raise Failure("render", f"{name} is {place!r} on this node, which is no absolute path: {mend}")
    return place
