"""Sizes of services: what operators want, what was decided and why, and what came of it.

    PUT /api/scale/orders.api   {"min": 2, "max": 20, "driver": {"kind": "command", "run": ["resize", "{desired}"]}}
    GET /api/scale/orders.api   the policy, and of each data center how many there are to be, why, and what came of it

A policy names programs that agents run, so it takes the role of an operator to set one.  It is the key `scale/NAME`; decisions
are made by the leader of the store, and nobody writes them here.
"""

from dislocate.core.boundary.scaling import Carried, CommandDriver, ProcessDriver, ScaleDecision, ScalePolicy
from dislocate.core.boundary.spec import Command, RunSpec
from dislocate.core.boundary.store import Delete, Get, KeyValue, Put, Transact
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_service_name
from dislocate.core.nearest import nearest
from dislocate.core.scale import records
from dislocate.core.scale.checking import as_process, check_scale_policy, decode_scale_policy
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation, Query
from dislocate.edge.http.places import FORCE, check_datacenters
from dislocate.edge.http.problems import Rejected, not_found
from dislocate.edge.scale_answers import (
    ScaleAnswer,
    ScaleHistoryAnswer,
    ScalesAnswer,
    past_answer,
    policy_answer,
    scale_summary,
    size_answer,
)
from dislocate.edge.store_answers import DeletedAnswer, RevisionAnswer


def list_scales(call: Call) -> ScalesAnswer:
    policies, decisions = _read(call, Get(records.POLICIES, True), Get(records.DECISIONS, True))
    decided = _decisions(decisions)
    names = [kv.key.removeprefix(records.POLICIES) for kv in policies]
    read = {name: _policy(kv)[0] for name, kv in zip(names, policies, strict=True)}
    found = [*read, *(name for name in decided if name not in read)]
    return ScalesAnswer(tuple(scale_summary(name, read.get(name), decided.get(name, ())) for name in found))


def get_scale(call: Call) -> ScaleAnswer:
    name = _name(call)
    policies, decisions, done = _read(
        call,
        Get(records.policy_key(name)),
        Get(records.decision_key(name, ""), True),
        Get(records.done_key(name, ""), True),
    )
    if not policies and not decisions:
        raise _unknown(call, name)
    policy, fault = _policy(policies[0]) if policies else (None, "")
    view = call.node.catalog.service(name)
    instances = () if view is None else view.instances
    carried = [one for kv in done if (one := records.read(kv.value, Carried)) is not None]
    sizes = (
        size_answer(
            decision,
            [one for one in carried if one.node.startswith(f"{decision.datacenter}/")],
            instances,
            call.node.scale.why(name, decision.datacenter),
        )
        for decision in _decisions(decisions).get(name, ())
    )
    revision = policies[0].modified if policies else 0
    return ScaleAnswer(name, policy_answer(policy), fault, revision, tuple(sizes))


def put_scale(call: Call) -> RevisionAnswer:
    name, policy = _name(call), call.body
    check_scale_policy(policy, name)
    (kept,) = _read(call, Get(records.policy_key(name)))
    held = _policy(kept[0])[0] if kept else None
    named = [(f"datacenters[{at}]", datacenter) for at, datacenter in enumerate(policy.datacenters)]
    check_datacenters(call, named, () if held is None else held.datacenters)
    _check_templates(call, policy, name)
    done = call.ask_store(Transact((), (Put(records.policy_key(name), records.encode(policy)),)))
    return RevisionAnswer(revision=done.revision)


def delete_scale(call: Call) -> DeletedAnswer:
    """What runs stays as it is."""
    name = _name(call)
    if not _read(call, Get(records.policy_key(name)))[0]:
        raise _unknown(call, name)
    done = call.ask_store(Transact((), (Delete(records.policy_key(name)),)))
    return DeletedAnswer(revision=done.revision, deleted=len(done.results[0]))


def get_scale_history(call: Call) -> ScaleHistoryAnswer:
    name, datacenter = _name(call), call.query("datacenter")
    (kept,) = _read(call, Get(records.past_prefix(name, datacenter), True))
    found = [one for kv in kept if (one := records.read(kv.value, ScaleDecision)) is not None]
    if not found:
        raise _unknown(call, name, f" in {datacenter}" if datacenter else "")
    found.sort(key=lambda one: (one.at, one.datacenter, one.epoch))
    return ScaleHistoryAnswer(name, tuple(past_answer(one) for one in found))


def _name(call: Call) -> str:
    return check_service_name(call.path["name"], "name")


def _read(call: Call, *operations: Get) -> tuple[tuple[KeyValue, ...], ...]:
    """All at one revision."""
    results: tuple[tuple[KeyValue, ...], ...] = call.ask_store(Transact((), operations)).results
    return results


def _policy(kv: KeyValue) -> tuple[ScalePolicy | None, str]:
    """The policy, or what is wrong with it."""
    try:
        return decode_scale_policy(kv.value, kv.key.removeprefix(records.POLICIES)), ""
    except LocalError as error:
        return None, str(error)


def _decisions(found: tuple[KeyValue, ...]) -> dict[str, list[ScaleDecision]]:
    by_service: dict[str, list[ScaleDecision]] = {}
    for kv in found:
        decision = records.read(kv.value, ScaleDecision)
        if decision is not None:
            by_service.setdefault(records.split_decision(kv.key)[0], []).append(decision)
    return by_service


def _check_templates(call: Call, policy: ScalePolicy, name: str) -> None:
    """Values that a driver's environment names would have to be read and sealed for every node that may come: they are not."""
    driver = policy.driver
    if isinstance(driver, CommandDriver):
        resource = Command(run=driver.run, once=True, environment=driver.environment)
    elif isinstance(driver, ProcessDriver):
        resource = as_process(driver, name, 1)
    else:
        return
    named = call.agent.references(RunSpec(name=name, targets="*", resources=(resource,)))
    if named.keys or named.secrets:
        what = ", ".join((*named.keys, *named.secrets))
        expected = "values that name no key and no secret: let the program read them itself"
        raise LocalError("driver.environment", got=what, expected=expected)


def _unknown(call: Call, name: str, where: str = "") -> Rejected:
    policies = _read(call, Get(records.POLICIES, True))[0]
    known = [kv.key.removeprefix(records.POLICIES) for kv in policies]
    hint = f"GET /api/scale lists what is{nearest(name, known)}"
    return not_found("name", name, f"{name!r} is not scaled{where}", hint)


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/scale",
        role=Role.READ,
        summary="What is scaled, and how many instances each is to have",
        respond=list_scales,
        answer=ScalesAnswer,
    ),
    Operation(
        method="GET",
        path="/api/scale/{name}",
        role=Role.READ,
        summary="The policy of a service; of each data center how many there are to be, why, and what came of it",
        respond=get_scale,
        answer=ScaleAnswer,
    ),
    Operation(
        method="PUT",
        path="/api/scale/{name}",
        role=Role.OPERATE,
        summary="Set the policy of a service: bounds, target load, windows, driver",
        respond=put_scale,
        answer=RevisionAnswer,
        body=ScalePolicy,
        in_words=True,
        queries=(FORCE,),
    ),
    Operation(
        method="DELETE",
        path="/api/scale/{name}",
        role=Role.OPERATE,
        summary="Scale it no more; what runs stays as it is",
        respond=delete_scale,
        answer=DeletedAnswer,
    ),
    Operation(
        method="GET",
        path="/api/scale/{name}/history",
        role=Role.READ,
        summary="What was decided, when and why, oldest first",
        respond=get_scale_history,
        answer=ScaleHistoryAnswer,
        queries=(Query("datacenter", "only this one"),),
    ),
)
