"""Instances of this host: register, report, drain, maintain, remove; and drains of whole nodes and data centers."""

from dislocate.core.boundary.requests import (
    Deregister,
    Heartbeat,
    Register,
    ReportLoad,
    SetDraining,
    SetMaintenance,
)
from dislocate.core.identity import Path, check_label
from dislocate.edge.answers import DoneAnswer
from dislocate.edge.bodies import (
    DrainBody,
    HeartbeatBody,
    InstanceBody,
    LoadBody,
    MaintBody,
    duration,
    instance_spec,
    load_of,
)
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation, Responder
from dislocate.edge.http.problems import not_found


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
    return call.done(_drain(call.path["id"], "instance", call.body))


def post_instance_maint(call: Call) -> DoneAnswer:
    return call.done(SetMaintenance(call.path["id"], call.body.enabled, call.body.reason))


def post_host_maint(call: Call) -> DoneAnswer:
    """All instances of this agent."""
    return call.done(SetMaintenance("", call.body.enabled, call.body.reason))


def put_datacenter_drain(call: Call) -> DoneAnswer:
    return call.done(_drain(_datacenter(call), "datacenter", call.body))


def delete_datacenter_drain(call: Call) -> DoneAnswer:
    return call.done(SetDraining(_datacenter(call), "datacenter", draining=False))


def put_node_drain(call: Call) -> DoneAnswer:
    return call.done(_drain(_node(call), "node", call.body))


def delete_node_drain(call: Call) -> DoneAnswer:
    return call.done(SetDraining(_node(call), "node", draining=False))


def _drain(target: str, scope: str, body: DrainBody) -> SetDraining:
    return SetDraining(target, scope, body.draining, duration(body.expires, "expires"), body.reason)


def _datacenter(call: Call) -> str:
    """The data center of the path, which must be known: a slip of the pen must not look like success."""
    name = check_label(call.path["datacenter"], "datacenter")
    if name not in call.node.datacenters:
        hint = f"Known: {', '.join(call.node.datacenters)}"
        raise not_found("datacenter", name, f"No data center {name!r} is known here", hint)
    return name


def _node(call: Call) -> Path:
    """The member that the path names, which must be known."""
    path = f"{_datacenter(call)}/{check_label(call.path['name'], 'name')}"
    if path not in call.node.members:
        hint = "GET /api/members lists all"
        raise not_found("name", path, f"No member {path!r} is known here", hint)
    return path


def _post(action: str, role: Role, summary: str, respond: Responder, body: type) -> Operation:
    path = f"/api/instances/{{id}}/{action}"
    return Operation(
        method="POST", path=path, role=role, summary=summary, respond=respond, answer=DoneAnswer, body=body
    )


def _drain_of(path: str, method: str, summary: str, respond: Responder) -> Operation:
    body = DrainBody if method == "PUT" else None
    return Operation(
        method=method, path=path, role=Role.WRITE, summary=summary, respond=respond, answer=DoneAnswer, body=body
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
    _drain_of("/api/drains/{datacenter}", "PUT", "Drain a whole data center", put_datacenter_drain),
    _drain_of("/api/drains/{datacenter}", "DELETE", "End the drain of a data center", delete_datacenter_drain),
    _drain_of("/api/drains/{datacenter}/{name}", "PUT", "Drain all instances of a node", put_node_drain),
    _drain_of("/api/drains/{datacenter}/{name}", "DELETE", "End the drain of a node", delete_node_drain),
)
