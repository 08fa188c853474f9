"""The doctor on the agent that runs here: does it answer, is it the one that is configured, and what does it know?"""

import itertools
from collections.abc import Iterator

from dislocate.client.connection import AgentConnection, NoAgent, Problem
from dislocate.config import Config
from dislocate.doctor.store import examine_store
from dislocate.findings import Finding, Level


def examine_agent(config: Config) -> Iterator[Finding]:
    connection = AgentConnection(f"unix:{config.node.state_dir}/http.sock")
    what = "running agent"
    try:
        health = connection.get("/api/health")
        metrics = connection.text("/api/metrics")
        store, known = connection.get("/api/store"), connection.get("/api/members")
    except (NoAgent, Problem) as error:
        mend = "its log tells more; restart it if it hangs"
        yield Finding(what, Level.FAIL, f"it holds the state directory but does not answer: {error.args[-1]}", mend)
        return
    if health["node"] != config.path:
        mend = "restart it, or give each agent a state directory of its own"
        yield Finding(what, Level.FAIL, f"it is {health['node']}, not {config.path}", mend)
    members = ", ".join(f"{count} {state}" for state, count in health["members"].items() if count)
    troubles = [*(f"{name} out of reach" for name in health["unreachable"])]
    troubles += [f"removals held in {brake['datacenter']}: {brake['reason']}" for brake in health["brakes"]]
    if troubles:
        yield Finding(what, Level.WARN, "; ".join(troubles), "dislocate datacenters; dislocate history NAME")
    else:
        yield Finding(what, Level.OK, f"{health['node']} sees {members}")
    yield from examine_store(config.path, config.store.servers, store, known)
    yield from _counted(config, metrics)


def _counted(config: Config, metrics: str) -> Iterator[Finding]:
    """What its counters tell."""
    strangers = sum(
        _metric(metrics, f'dislocate_gossip_rejected_total{{reason="{reason}"}}')
        for reason in ("unknown key", "not authentic")
    )
    if strangers:
        mend = (
            "some host uses another secret: run `dislocate doctor` on those that are missing and compare fingerprints. "
            "Two clusters? Then let neither name the other's agents as seeds"
        )
        found = f"{strangers:.0f} datagrams sealed with another secret were dropped since it started"
        yield Finding("secret of others", Level.WARN, found, mend)
    if clones := _metric(metrics, 'dislocate_core_total{what="clones"}'):
        found = f"another agent claims a name that is taken ({clones:.0f} times); dislocate history {config.path}"
        yield Finding("names", Level.FAIL, found, "each agent a node.name of its own in its data center")


def _metric(metrics: str, name: str) -> float:
    lines = itertools.chain.from_iterable(line.split(f"{name} ")[1:] for line in metrics.splitlines())
    return next((float(value) for value in lines), 0.0)
