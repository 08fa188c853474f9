"""Who is there: members and data centers; leave, and forget the dead."""

from dislocate.core.boundary.requests import Forget, Leave
from dislocate.core.identity import check_label
from dislocate.edge.answers import (
    DatacentersAnswer,
    DoneAnswer,
    MembersAnswer,
    datacenters_answer,
    members_answer,
)
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation


def list_members(call: Call) -> MembersAnswer:
    return members_answer(call.node.members.values(), call.now)


def list_datacenters(call: Call) -> DatacentersAnswer:
    return datacenters_answer(call.node.datacenters.values(), call.now)


def delete_member(call: Call) -> DoneAnswer:
    """Refused by the core while the member is alive."""
    datacenter = check_label(call.path["datacenter"], "datacenter")
    name = check_label(call.path["name"], "name")
    return call.done(Forget(f"{datacenter}/{name}"))


def post_leave(call: Call) -> DoneAnswer:
    return call.done(Leave())


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/members",
        role=Role.READ,
        summary="All agents known",
        respond=list_members,
        answer=MembersAnswer,
    ),
    Operation(
        method="DELETE",
        path="/api/members/{datacenter}/{name}",
        role=Role.WRITE,
        summary="Forget a dead or left agent and its services, everywhere",
        respond=delete_member,
        answer=DoneAnswer,
    ),
    Operation(
        method="GET",
        path="/api/datacenters",
        role=Role.READ,
        summary="All data centers known, and whether they can be reached from here",
        respond=list_datacenters,
        answer=DatacentersAnswer,
    ),
    Operation(
        method="POST",
        path="/api/leave",
        role=Role.WRITE,
        summary="Say goodbye to everybody; answered when the farewell is sent",
        respond=post_leave,
        answer=DoneAnswer,
    ),
)
