"""Instances of this host: register, report, drain, maintain, remove."""

from dislocate.core.boundary.requests import (
    Deregister,
    Heartbeat,
    Register,
    ReportLoad,
    SetMaintenance,
)
from dislocate.edge.answers import DoneAnswer
from dislocate.edge.bodies import (
    DrainBody,
    HeartbeatBody,
    InstanceBody,
    LoadBody,
    MaintBody,
    instance_spec,
    load_of,
)
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation, Responder
from dislocate.edge.http.drains import drain


def put_instance(call: Call) -> DoneAnswer:
    """Durable when answered.  Who has commands run by the agent needs more than the right to register."""
    spec = instance_spec(call.path["id"], call.body)
    if spec.check is not None and spec.check.command:
        call.require(Role.OPERATE, "check.command")
    return call.done(Register(spec))


def delete_instance(call: Call) -> DoneAnswer:
    return call.done(Deregister(call.path["id"]))


def post_heartbeat(call: Call) -> DoneAnswer:
    return call.done(Heartbeat(call.path["id"], call.body.status, call.body.output))


def post_load(call: Call) -> DoneAnswer:
    return call.done(ReportLoad(call.path["id"], load_of(call.body)))


def post_instance_drain(call: Call) -> DoneAnswer:
    return call.done(drain(call.path["id"], "instance", call.body))


def post_instance_maint(call: Call) -> DoneAnswer:
    return call.done(SetMaintenance(call.path["id"], call.body.enabled, call.body.reason))


def post_host_maint(call: Call) -> DoneAnswer:
    """All instances of this agent."""
    return call.done(SetMaintenance("", call.body.enabled, call.body.reason))


def _post(action: str, role: Role, summary: str, respond: Responder, body: type) -> Operation:
    path = f"/api/instances/{{id}}/{action}"
    return Operation(
        method="POST", path=path, role=role, summary=summary, respond=respond, answer=DoneAnswer, body=body
    )


OPERATIONS = (
    Operation(
        method="PUT",
        path="/api/instances/{id}",
        role=Role.REGISTER,
        summary="Register an instance on this host, or replace it; durable when answered",
        respond=put_instance,
        answer=DoneAnswer,
        body=InstanceBody,
    ),
    Operation(
        method="DELETE",
        path="/api/instances/{id}",
        role=Role.REGISTER,
        summary="Remove an instance of this host",
        respond=delete_instance,
        answer=DoneAnswer,
    ),
    _post("heartbeat", Role.REGISTER, "Call in, for an instance with a ttl check", post_heartbeat, HeartbeatBody),
    _post("load", Role.REGISTER, "Report how busy an instance is", post_load, LoadBody),
    _post("drain", Role.WRITE, "Drain an instance of this host, or end that", post_instance_drain, DrainBody),
    _post(
        "maint",
        Role.WRITE,
        "Put an instance of this host into maintenance, or end that",
        post_instance_maint,
        MaintBody,
    ),
    Operation(
        method="POST",
        path="/api/maint",
        role=Role.WRITE,
        summary="Put all instances of this host into maintenance, or end that",
        respond=post_host_maint,
        answer=DoneAnswer,
        body=MaintBody,
    ),
)
