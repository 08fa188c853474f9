"""Policies: how a service is balanced, as keys `policy/NAME` of the store, checked before they are kept.

    PUT /api/policies/shop.web   {"spill": "dead", "target_load": 0.7, "timeout": "2s"}   ->  {"revision": 12}

What is left out is the default.  Every agent follows these keys, so that a policy holds wherever the change has arrived.
"""

from msgspec.structs import replace

from dislocate.core.balance.policies import PREFIX, check_policy, decode_policy, encode_policy
from dislocate.core.boundary.balance import Policy
from dislocate.core.boundary.store import Consistency, KeysRead, KeyValue, ReadKeys, Transact, Transacted
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_service_name
from dislocate.core.tunables import READ_LIMIT
from dislocate.edge.flow_answers import PoliciesAnswer, PolicyAnswer, policy_answer
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation, Query
from dislocate.edge.http.places import FORCE, check_datacenters
from dislocate.edge.http.problems import Rejected, cas_missed, not_found
from dislocate.edge.keys import NUMBER_LIMIT, conflict_words, delete, found_instead, put
from dislocate.edge.store_answers import DeletedAnswer, RevisionAnswer


def list_policies(call: Call) -> PoliciesAnswer:
    """All that are set; one that cannot be read (a key set by hand) is shown with what is wrong in it."""
    read = _read(call, ReadKeys(PREFIX, prefix=True, limit=READ_LIMIT))
    return PoliciesAnswer(policies=tuple(_answer(call, each) for each in read.keys))


def get_policy(call: Call) -> PolicyAnswer:
    name = _name(call)
    read = _read(call, ReadKeys(PREFIX + name))
    if not read.keys:
        raise _no_policy(name)
    return _answer(call, read.keys[0])


def put_policy(call: Call) -> RevisionAnswer:
    name, cas = _name(call), _cas(call)
    check_policy(call.body)
    held = call.node.flows.policy(name)
    tables = (("tiers", call.body.tiers), ("prices", call.body.prices))
    named = [(f"{field}.{datacenter}", datacenter) for field, table in tables for datacenter in table]
    check_datacenters(call, named, {*held.tiers, *held.prices})
    request = put(PREFIX + name, encode_policy(call.body), cas=cas)
    return RevisionAnswer(revision=_change(call, name, request, cas).revision)


def delete_policy(call: Call) -> DeletedAnswer:
    """The defaults hold again.  One that is not there is no mistake: the same DELETE twice does no harm."""
    name, cas = _name(call), _cas(call)
    done = _change(call, name, delete(PREFIX + name, cas=cas), cas)
    return DeletedAnswer(revision=done.revision, deleted=len(done.results[0]))


def _name(call: Call) -> str:
    return check_service_name(call.path["name"], "name")


def _cas(call: Call) -> int | None:
    return call.query_number("cas", NUMBER_LIMIT, "the 'revision' of an earlier answer, or 0 for 'no such policy'")


def _read(call: Call, request: ReadKeys) -> KeysRead:
    """Linearizable unless `consistency=local`: what this agent follows."""
    text = call.query("consistency", Consistency.LINEARIZABLE.value)
    allowed = {each.value: each for each in (Consistency.LINEARIZABLE, Consistency.LOCAL)}
    if text not in allowed:
        raise LocalError("consistency", got=text[:100], expected=f"one of {', '.join(allowed)}")
    read: KeysRead = call.ask_store(replace(request, consistency=allowed[text]))
    return read


def _change(call: Call, name: str, request: Transact, cas: int | None) -> Transacted:
    done: Transacted = call.ask_store(request, of_one_key=True)
    if not done.succeeded:
        revision = found_instead(done.results)
        raise cas_missed(cas or 0, revision, conflict_words(PREFIX + name, revision))
    return done


def _answer(call: Call, found: KeyValue) -> PolicyAnswer:
    """Of one that cannot be read the one that this agent follows instead."""
    name = found.key.removeprefix(PREFIX)
    try:
        return policy_answer(name, decode_policy(found.value), found.modified)
    except LocalError as error:
        return policy_answer(name, call.node.flows.policy(name), found.modified, problem=str(error))


def _no_policy(name: str) -> Rejected:
    hint = f"The defaults hold: GET /api/services/{name}/flows shows them; PUT here sets what shall be otherwise"
    return not_found("name", name, f"No policy is set for {name!r}", hint)


_READING = (Query("consistency", "'linearizable' unless given; 'local': what is known here"),)
_CHANGING = (Query("cas", "do it only if this is the policy's revision; 0: only if there is none"),)

OPERATIONS = (
    Operation(
        method="GET",
        path="/api/policies",
        role=Role.READ,
        summary="How services are balanced, where that is not the default",
        respond=list_policies,
        answer=PoliciesAnswer,
        queries=_READING,
    ),
    Operation(
        method="GET",
        path="/api/policies/{name}",
        role=Role.READ,
        summary="How one service is balanced",
        respond=get_policy,
        answer=PolicyAnswer,
        queries=_READING,
    ),
    Operation(
        method="PUT",
        path="/api/policies/{name}",
        role=Role.WRITE,
        summary="Set how a service is balanced; what is left out is the default",
        respond=put_policy,
        answer=RevisionAnswer,
        body=Policy,
        in_words=True,
        queries=(*_CHANGING, FORCE),
    ),
    Operation(
        method="DELETE",
        path="/api/policies/{name}",
        role=Role.WRITE,
        summary="Balance a service by the defaults again",
        respond=delete_policy,
        answer=DeletedAnswer,
        queries=_CHANGING,
    ),
)
