"""Leases: keys that go away unless somebody keeps saying that they are still wanted."""

from dislocate.core.boundary.requests import Done
from dislocate.core.boundary.store import GrantLease, KeepLeaseAlive, ReadLease, RevokeLease
from dislocate.core.errors import LocalError
from dislocate.edge.answers import DoneAnswer
from dislocate.edge.bodies import LeaseBody, duration
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation
from dislocate.edge.keys import NUMBER_LIMIT, check_ttl
from dislocate.edge.store_answers import LeaseAnswer, lease_answer


def post_lease(call: Call) -> LeaseAnswer:
    return lease_answer(call.ask_store(GrantLease(check_ttl(duration(call.body.ttl, "ttl")))))


def get_lease(call: Call) -> LeaseAnswer:
    return lease_answer(call.ask_store(ReadLease(_lease(call))))


def post_keepalive(call: Call) -> LeaseAnswer:
    """404 when it has ended: whoever relied on it must stop at once."""
    return lease_answer(call.ask_store(KeepLeaseAlive(_lease(call))))


def delete_lease(call: Call) -> DoneAnswer:
    result = call.ask_store(RevokeLease(_lease(call)))
    return DoneAnswer(version=result.version if isinstance(result, Done) else 0)


def _lease(call: Call) -> int:
    text = call.path["lease"]
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= NUMBER_LIMIT):
        raise LocalError("lease", got=text[:100], expected="the number of a lease, as POST /api/leases gave it")
    return int(text)


OPERATIONS = (
    Operation(
        method="POST",
        path="/api/leases",
        role=Role.WRITE,
        summary="A new lease; keys that are put with it go away when nobody keeps it alive",
        respond=post_lease,
        answer=LeaseAnswer,
        body=LeaseBody,
    ),
    Operation(
        method="GET",
        path="/api/leases/{lease}",
        role=Role.READ,
        summary="A lease, its time left and its keys",
        respond=get_lease,
        answer=LeaseAnswer,
    ),
    Operation(
        method="POST",
        path="/api/leases/{lease}/keepalive",
        role=Role.WRITE,
        summary="Give a lease its full time again",
        respond=post_keepalive,
        answer=LeaseAnswer,
    ),
    Operation(
        method="DELETE",
        path="/api/leases/{lease}",
        role=Role.WRITE,
        summary="End a lease and remove its keys",
        respond=delete_lease,
        answer=DoneAnswer,
    ),
)
