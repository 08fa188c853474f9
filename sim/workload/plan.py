"""What a scenario says of its clients, of the store and of services: the `[[workloads]]` tables."""

import math
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from dislocate.core.balance.policies import decode_policy
from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.identity import check_label
from dislocate.core.units import SECOND, Duration
from dislocate.strict import one_of
from sim.selectors import Layout, as_tuple

# What a client of a kind may do, and how often where `mix` does not say.
KV = {"put": 4, "get": 4, "cas": 2, "delete": 1, "txn": 1, "scan": 0, "local": 1}
KINDS: dict[str, dict[str, int]] = {
    "kv": KV,
    "locks": {},  # each client takes a lock, writes what the lock guards, and lets go or is gone
    "watch": {},  # each client wants to hear every change of another workload's keys
    "requests": {},  # each client calls a service: no key of the store is touched
}


class Workload(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from"}):
    """Some clients that do the same."""

    name: str
    kind: str = "kv"
    clients: int = 3
    at: str | tuple[str, ...] = "*"  # the agents that they ask: each one of them, another while that does not run
    keys: int = 5
    size: int = 0  # kv: bytes of a value, at least; what tells one from another comes first
    rate: float = 2.0  # operations a second of each client; 0: the next as soon as the last has ended
    mix: dict[str, int] = {}  # kv: how often what, in proportion
    of: str = ""  # watch: the workload whose keys are watched; empty: all of them
    ttl: Duration = 10 * SECOND  # locks: of a client's lease
    service: str = ""  # requests: whom they call
    keyed: bool = False  # requests: each call is about one of `keys`, which asks for the same instance each time
    users: int = 1  # requests, with rate 0: calls that a client has under way
    think: Duration = 0  # requests, with rate 0: on average, between two calls of a user
    timeout: Duration = 2 * SECOND  # requests: of one attempt
    begin: Duration = 5 * SECOND
    until: Duration | None = None  # begins nothing after it; None: the end

    @property
    def prefix(self) -> str:
        """What its keys begin with."""
        return f"{PREFIX}{self.name}/"


PREFIX = "work/"  # of all keys of all workloads


def check_workloads(workloads: tuple[Workload, ...], layout: Layout) -> None:
    """Raises `ConfigError` for what means nothing."""
    names: dict[str, None] = {}
    for at, one in enumerate(workloads):
        field = f"workloads[{at}]"
        check_label(one.name, f"{field}.name")
        if one.name in names:
            raise ConfigError(f"{field}.name", got=one.name, expected="another name: each workload has keys of its own")
        names[one.name] = None
        if one.kind not in KINDS:
            raise ConfigError(f"{field}.kind", got=one.kind, expected=one_of(one.kind, KINDS))
        for number, name in ((one.clients, "clients"), (one.keys, "keys")):
            if number < 1:
                raise ConfigError(f"{field}.{name}", got=number, expected="1 or more")
        if not 0.0 <= one.rate < math.inf:
            raise ConfigError(f"{field}.rate", got=one.rate, expected="0 or more, such as 2.5 operations a second")
        for selector in as_tuple(one.at):
            layout.check(selector, f"{field}.at", services=False)
        _check_mix(one, field)
        _check_requests(one, layout, field)
    for at, one in enumerate(workloads):
        if one.of and one.of not in names:
            raise ConfigError(f"workloads[{at}].of", got=one.of, expected=one_of(one.of, names))


def check_policies(policies: Mapping[str, Mapping[str, object]], services: Mapping[str, object], servers: bool) -> None:
    """Raises `ConfigError` for a policy that cannot be meant, or of nobody."""
    for name, table in policies.items():
        if name not in services:
            raise ConfigError(f"policies.{name}", got=name, expected="a service that [[services]] declares")
        if not servers:
            raise ConfigError(f"policies.{name}", got=name, expected="`servers`: policies are kept in the store")
        try:
            decode_policy(msgspec.json.encode(table))
        except LocalError as error:
            raise ConfigError(f"policies.{name}.{error.field}", got=error.got, expected=error.expected) from None


def _check_requests(one: Workload, layout: Layout, field: str) -> None:
    if one.kind != "requests":
        if one.service:
            raise ConfigError(f"{field}.service", got=one.service, expected=f"none: {one.kind!r} calls nobody")
        return
    if one.service not in layout.services:
        mend = one_of(one.service, layout.services) if layout.services else "one that [[services]] declares"
        raise ConfigError(f"{field}.service", got=one.service, expected=mend)
    if one.users < 1:
        raise ConfigError(f"{field}.users", got=one.users, expected="1 or more")
    if one.timeout < 1:
        raise ConfigError(f"{field}.timeout", got="0s", expected="more than nothing, such as '2s'")


def _check_mix(one: Workload, field: str) -> None:
    known = KINDS[one.kind]
    for what, weight in one.mix.items():
        if what not in known:
            mend = one_of(what, known) if known else f"none: {one.kind!r} has no choice"
            raise ConfigError(f"{field}.mix", got=what, expected=mend)
        if weight < 0:
            raise ConfigError(f"{field}.mix.{what}", got=weight, expected="0 or more")
    if one.mix and not any(one.mix.values()):
        raise ConfigError(f"{field}.mix", got="nothing but 0", expected="something to do, such as { put = 1, get = 1 }")
