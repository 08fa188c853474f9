"""The doctor on the configuration itself: what one file tells, without a look at this host or at anybody else."""

import re
from collections.abc import Iterator

from dislocate.config import Config
from dislocate.core.identity import split_path
from dislocate.core.nearest import nearest
from dislocate.findings import Finding, Level


def examine_servers(config: Config) -> Iterator[Finding]:
    """[store] servers, as far as this one file tells: whether they can be a group, and whether this agent is meant."""
    servers, what = config.store.servers, "store servers"
    if not servers:
        return
    twice = sorted({name for name in servers if servers.count(name) > 1})
    if twice:
        yield Finding(what, Level.FAIL, f"{', '.join(twice)} is named twice", "store.servers: each server once")
    elif len(servers) % 2 == 0:
        loss = (len(servers) - 1) // 2
        found = f"{len(servers)} servers bear the loss of {loss}, as many as {len(servers) - 1} do"
        yield Finding(what, Level.WARN, found, "store.servers: three or five, spread over data centers")
    if config.path in servers:
        yield Finding(what, Level.OK, f"this agent is one of {len(servers)}")
        return
    close = [name for name in servers if _plain(name) == _plain(config.path)]
    if close:
        mend = f"store.servers or node.name: one name for one agent, {close[0]} or {config.path}"
        yield Finding(what, Level.WARN, f"{close[0]} is named, but this agent is {config.path}", mend)
        return
    here = [name for name in servers if split_path(name, "store.servers")[0] == config.node.datacenter]
    hint = nearest(config.path, here).removeprefix(", ")
    asked = f"; {hint}" if hint else ""
    yield Finding(what, Level.OK, f"this agent is none of {', '.join(servers)}{asked}")


def _plain(path: str) -> str:
    """What is left of a name that two people would spell differently: 'fra/a-01' and 'fra/a1' are the same."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", path.replace("-", ""))
