"""The doctor on the store of a running agent: are the servers that are named a group, and do they reach each other?

Pure: it judges what the agent answered (`GET /api/store`, `GET /api/members`) beside its configuration.  What one file tells
by itself is said before (`doctor.configuration`).
"""

from collections.abc import Iterator
from typing import Any

from dislocate.core.consensus.troubles import TWO_STORES
from dislocate.core.nearest import nearest
from dislocate.core.store.standing import WIPED
from dislocate.findings import Finding, Level

SAID_ELSEWHERE = ("no link", "dead", "left", "unknown")  # of links and members
SERVING = ("leader", "follower", "candidate", "learner")


def examine_store(
    path: str, listed: tuple[str, ...], store: dict[str, Any], members: dict[str, Any]
) -> Iterator[Finding]:
    """What there is to say about the store as the agent `path`, whose configuration lists these servers, sees it."""
    if not listed and not store["group"]:
        return
    yield from _members(listed, {f"{one['datacenter']}/{one['name']}": one["state"] for one in members["members"]})
    yield from _group(listed, store)
    yield from _links(path, store)
    yield from _troubles(path, store)


def _troubles(path: str, store: dict[str, Any]) -> Iterator[Finding]:
    """What the leader, above all, knows of the others."""
    for server in store["servers"]:
        trouble = server["trouble"]
        if trouble and trouble not in SAID_ELSEWHERE and server["path"] != path:
            mend = f"`dislocate store status` and `dislocate doctor` at {server['path']} say what to do"
            if trouble == WIPED:
                mend = (
                    f"its disk is another than the one that the group knows: `dislocate servers add {server['path']}`"
                )
            yield Finding("store servers", Level.WARN, f"{server['path']}: {trouble}", mend)


def _members(listed: tuple[str, ...], states: dict[str, str]) -> Iterator[Finding]:
    """Is everybody who is named there?"""
    for server in listed:
        state = states.get(server)
        if state is None:
            hint = nearest(server, list(states)).removeprefix(", ")
            found = f"{server} is named and no member is known by that name" + (f"; {hint}" if hint else "")
            mend = f"start the agent {server}, or correct its name in store.servers, in every agent's configuration"
            yield Finding("store servers", Level.WARN, found, mend)
        elif state not in ("alive", "suspect"):
            mend = f"start it again, or `dislocate servers remove {server}` and add another one"
            yield Finding("store servers", Level.WARN, f"{server} is {state}", mend)


def _group(listed: tuple[str, ...], store: dict[str, Any]) -> Iterator[Finding]:
    """Is there a group, and is it the one of the list?"""
    problem = store["problem"]
    if not store["group"]:
        mend = "start all listed servers, with the same list in every configuration; see `dislocate store status`"
        yield Finding("store", Level.WARN, problem or "no group was founded yet", mend)
        return
    if store["role"] == "failed":
        yield Finding("store", Level.FAIL, problem, "as it says; until then this server serves nothing")
    elif problem:
        yield Finding("store", Level.WARN, problem, "dislocate store status; dislocate servers list")
    elif any(words in store["warning"] for words in TWO_STORES):
        yield Finding(
            "store", Level.FAIL, store["warning"], "as it says; until then neither has what is written to the other"
        )
    elif store["warning"]:
        yield Finding("store", Level.WARN, store["warning"], "as it says")
    else:
        led = f"led by {store['leader']}" if store["leader"] else "and nobody here knows who leads"
        yield Finding("store", Level.OK, f"this agent is {_as(store['role'])} of group {store['group'][:8]}, {led}")
    servers = sorted({server["path"] for server in store["servers"]})
    if listed and servers and sorted(set(listed)) != servers:
        mend = "the list serves the founding only: make it what `dislocate servers list` says, so that nobody is misled"
        found = f"the configuration names {', '.join(listed)}; the servers of the group are {', '.join(servers)}"
        yield Finding("store servers", Level.WARN, found, mend)


def _as(role: str) -> str:
    return "a client" if role == "agent" else f"the {role}" if role == "leader" else f"a {role}"


def _links(path: str, store: dict[str, Any]) -> Iterator[Finding]:
    """Servers need a direct link to each other; any other agent needs one to some server."""
    if not store["group"]:
        return
    others = [server for server in store["servers"] if server["path"] != path]
    missing = [server["path"] for server in others if not server["linked"]]
    mend = (
        "open the links port (TCP) both ways between the hosts, and set node.advertise_wan where NAT changes addresses; "
        "`dislocate doctor` there tells its half"
    )
    if store["role"] in SERVING:
        if missing:
            found = f"no direct link to {', '.join(missing)}: each server needs one to each other"
            yield Finding("store links", Level.WARN, found, mend)
        elif others:
            yield Finding("store links", Level.OK, f"to all {len(others)} other servers")
    elif others and len(missing) == len(others):
        yield Finding("store links", Level.WARN, f"no link to any of {', '.join(missing)}", mend)
