"""Names of data centers in what an operator sets: those that this agent knows, so that a slip of the pen is not kept in
silence, unless it is said (`force=true`) that one is yet to come."""

from collections.abc import Container, Iterable

from dislocate.core.errors import LocalError
from dislocate.core.nearest import nearest
from dislocate.edge.http.call import Call, Query

LISTED = 12  # that an error names
FORCE = Query("force", "true: even with data centers that nobody knows yet")


def check_datacenters(call: Call, named: Iterable[tuple[str, str]], held: Container[str] = ()) -> None:
    """`named`: (field, data center).  `held`: those that were kept before, which is no new mistake.  Raises `LocalError`."""
    if call.query_flag("force"):
        return
    known = sorted(call.node.datacenters)
    for field, name in named:
        if name not in known and name not in held:
            names = f"{', '.join(known[:LISTED])}{', ...' if len(known) > LISTED else ''}"
            near = nearest(name, known)
            raise LocalError(
                field,
                got=name,
                expected=f"a data center that is known: {names}{near}; one that is yet to come is taken with force",
            )
