"""A scenario: one story as data, told in virtual time by `sim` and with real processes by `fleet`.

The structs are the file format (TOML, strict).  Times are nanoseconds here and words in the file.  What is written is
checked as far as it can be without running it: names of verbs and claims, the fields each takes, selectors, regions.
Does not know how a fault is done or a claim is judged: see `faults` and `claims`.
"""

import math
from pathlib import Path as FilePath
from typing import Any

from msgspec import Struct

from dislocate.core.boundary.runs import Verb as RunVerb
from dislocate.core.boundary.scaling import ScalePolicy
from dislocate.core.boundary.spec import RunSpec
from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.identity import check_label, check_service_name
from dislocate.core.runs.spec import check_spec
from dislocate.core.runs.targeting import parse_target
from dislocate.core.scale.checking import check_scale_policy
from dislocate.core.units import MILLISECOND, SECOND, Duration, format_duration
from dislocate.linkmodel import ALL_CHANNELS, Channel
from dislocate.regions import region_rtt, region_table
from dislocate.strict import one_of, parse_toml, read_toml
from sim.selectors import Layout, as_tuple
from sim.workload.plan import Workload, check_policies, check_workloads

NODES = 5_000  # agents in a data center: a slip of some zeros is told, and does not fill the memory


class Datacenter(Struct, frozen=True, forbid_unknown_fields=True):
    """One data center: its agents are named a1, a2 ..."""

    nodes: int
    region: str = ""  # empty: the data center's own name, when that is a region or every RTT is given by `links`
    rtt: Duration = 100_000  # between two of its hosts: 0.1 ms within an availability zone (see `data/region_rtt.csv`)
    loss: float = 0.0


class LinkOverride(Struct, frozen=True, forbid_unknown_fields=True, rename={"origin": "from", "target": "to"}):
    """What differs from the table on the way from one data center to another: this direction only."""

    origin: str
    target: str
    rtt: Duration | None = None  # this direction takes half of it
    jitter: float = 0.02  # sigma of the lognormal factor on the delay
    loss: float = 0.0
    duplicate: float = 0.0
    bandwidth: int = 0  # bytes a second; 0: not limited


class Service(Struct, frozen=True, forbid_unknown_fields=True):
    """Instances of one name, #1, #2 ..., spread over the agents of each data center; each with an HTTP check."""

    name: str
    per_datacenter: int = 1
    datacenters: tuple[str, ...] = ()  # empty: all
    nodes: tuple[str, ...] = ()  # 'dc/aJ', each as often as it has an instance; empty: dealt out in turn
    interval: Duration = 5 * SECOND
    timeout: Duration = 2 * SECOND
    workers: int = 4  # requests that an instance serves at a time
    takes: Duration = 20 * MILLISECOND  # one request, on average; exponential
    queue: int = 0  # requests that wait at an instance, more are turned away; 0: as many as come


class PlannedRun(Struct, frozen=True, forbid_unknown_fields=True):
    """A config run that an operator starts at `time`; known in the scenario by the name in its specification."""

    time: Duration
    spec: RunSpec
    by: str = ""  # the agent that is asked; empty: any that is up
    planned: Duration | None = None  # bound to how its hosts were then; none: to nothing
    task_times: tuple[Duration, ...] = ()  # what nodes' parts were measured to take: each takes one of them, by chance


class PlannedScale(Struct, frozen=True, forbid_unknown_fields=True):
    """A policy of scaling that an operator sets at `time`."""

    service: str
    policy: ScalePolicy
    time: Duration = 15 * SECOND  # the store is founded, and knows what its servers speak
    boot: Duration = 1 * SECOND  # of an instance, in the simulator: until it answers


class Fault(Struct, frozen=True, forbid_unknown_fields=True, rename={"origin": "from", "dest": "to", "lasting": "for"}):
    """Something done to the world at `time`; which fields a verb takes is in `VERBS`."""

    time: Duration
    do: str
    target: str | tuple[str, ...] = ()
    origin: str | tuple[str, ...] = "*"
    dest: str | tuple[str, ...] = "*"
    oneway: bool = False
    channels: tuple[Channel, ...] = tuple(sorted(ALL_CHANNELS, key=lambda channel: channel.value))
    lasting: Duration | None = None  # undone after so long (`UNDO`)
    factor: float | None = None  # slow, disk_slow, serve_slow: delays are multiplied by it
    loss: float | None = None  # drop: of datagrams; serve_fail: of requests; 0..1
    midway: bool = False  # kill: the process dies between two effects of its next turn
    service: str = ""  # register: the name
    offset: Duration | None = None  # clock: ahead by so much
    behind: bool = False  # clock: `offset` is behind instead of ahead
    drift: float = 0.0  # clock: seconds gained per second
    run: str = ""  # steer: the name of a run
    verb: str = ""  # steer: what an operator does to it


class Expect(Struct, frozen=True, forbid_unknown_fields=True, rename={"excepting": "except"}):
    """A claim about what observers answer, and when it must hold."""

    kind: str  # always, eventually, sometimes, budget
    claim: str
    of: str | tuple[str, ...] = ()  # whom the claim is about: a selector or service name; empty: everybody
    by: str | tuple[str, ...] = "*"  # whose answers count
    excepting: str | tuple[str, ...] = ()  # whom it is not about
    status: str = ""  # service_status, run_is, run_nodes: the wanted one
    run: str = ""  # run_is, run_nodes: the name of a run
    count: int = 0  # service_passing: at least so many; 0: all
    after: Duration = 0
    until: Duration | None = None
    within: Duration | None = None  # eventually: counted from `after`
    at_most: float | None = None  # budget; requests_ok and shares_follow_flows have one of their own


class Scenario(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One story."""

    title: str
    why: str
    duration: Duration
    datacenters: dict[str, Datacenter]
    links: tuple[LinkOverride, ...] = ()
    services: tuple[Service, ...] = ()
    servers: tuple[str, ...] = ()  # of the store, 'dc/aJ'; none: nobody keeps one
    workloads: tuple[Workload, ...] = ()
    policies: dict[str, dict[str, Any]] = {}  # by service: as `dislocate policy set` takes it
    runs: tuple[PlannedRun, ...] = ()
    scales: tuple[PlannedScale, ...] = ()
    at: tuple[Fault, ...] = ()
    expect: tuple[Expect, ...] = ()

    def layout(self) -> Layout:
        """Who exists, by name."""
        services = {one.name: (one.per_datacenter, one.datacenters or tuple(self.datacenters)) for one in self.services}
        placed = {one.name: one.nodes for one in self.services if one.nodes}
        return Layout({name: datacenter.nodes for name, datacenter in self.datacenters.items()}, services, placed)


ALLOWED = {"requests_ok": 0.0, "shares_follow_flows": 0.05}  # `at_most` of budgets that have one of their own
KINDS = ("always", "eventually", "sometimes", "budget")

_BETWEEN = ("origin", "dest", "oneway")

# Verb: (fields that it needs, fields that it may have).  `time` and `do` go without saying.
VERBS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cut": ((), (*_BETWEEN, "channels", "lasting")),
    "heal": ((), (*_BETWEEN, "channels")),
    "slow": (("factor",), (*_BETWEEN, "lasting")),
    "drop": (("loss",), (*_BETWEEN, "lasting")),
    "kill": (("target",), ("midway", "lasting")),
    "restart": (("target",), ()),
    "wipe": (("target",), ()),
    "pause": (("target",), ("lasting",)),
    "resume": (("target",), ()),
    "vanish": (("target",), ("lasting",)),
    "return": (("target",), ()),
    "stop": (("target",), ("lasting",)),
    "leave": (("target",), ()),
    "drain": (("target",), ("lasting",)),
    "undrain": (("target",), ()),
    "serve_slow": (("target", "factor"), ("lasting",)),  # instances take so many times as long for a request
    "serve_fail": (
        ("target", "loss"),
        ("lasting",),
    ),  # they answer so many with an error, at once; checks go on passing
    "serve_mend": (("target",), ()),
    "register": (("target", "service"), ()),
    "deregister": (("target",), ()),
    "disk_fail": (("target",), ("lasting",)),
    "disk_fill": (("target",), ("lasting",)),  # what is written is refused while it lasts; reads go on
    "disk_slow": (("target", "factor"), ("lasting",)),
    "disk_stall": (("target", "lasting"), ()),  # nothing is answered before its end
    "disk_damage": (("target",), ()),  # the next start fails, until the disk is wiped
    "disk_mend": (("target",), ()),
    "disk_copy": (("target",), ()),
    "disk_back": (("target",), ()),  # to what was copied last; the agent is killed first, and not started
    "clock": (("target",), ("offset", "behind", "drift")),
    "server_add": (("target",), ()),  # `dislocate servers add`, asked of any agent until it is done
    "server_remove": (("target",), ()),
    "lead": (("target",), ()),  # `dislocate servers transfer`
    "steer": (("run", "verb"), ("target",)),  # `dislocate run VERB`, for a node where there is a target
    "task_fail": (("target",), ("lasting",)),  # what a config run changes there fails
    "task_slow": (("target", "factor"), ("lasting",)),
    "task_mend": (("target",), ()),
    "drift": (("target",), ()),  # somebody's hand changes every file that runs made there
}

# What ends a fault that has `for`; a drain ends by itself.
UNDO = {
    "cut": "heal",
    "slow": "heal",
    "drop": "heal",
    "kill": "restart",
    "pause": "resume",
    "vanish": "return",
    "stop": "restart",
    "disk_fail": "disk_mend",
    "disk_fill": "disk_mend",
    "disk_slow": "disk_mend",
    "task_fail": "task_mend",
    "task_slow": "task_mend",
    "serve_slow": "serve_mend",
    "serve_fail": "serve_mend",
}


def read_scenario(path: FilePath) -> Scenario:
    """The scenario in the file at `path`.  Raises `ConfigError`."""
    return checked(_that_takes_time(read_toml(path, Scenario)))


def parse_scenario(text: str) -> Scenario:
    """The scenario in `text`.  Raises `ConfigError`."""
    return checked(_that_takes_time(parse_toml(text, Scenario)))


def _that_takes_time(scenario: Scenario) -> Scenario:
    """Only the fleet of `dislocate dev`, which stays, has no duration; a file has one.  Raises `ConfigError`."""
    if scenario.duration <= 0:
        raise ConfigError("duration", got="0s", expected="more than nothing, such as '2m'")
    return scenario


def checked(scenario: Scenario) -> Scenario:
    """`scenario` itself when every name and number in it means something.  Raises `ConfigError`."""
    for name, datacenter in scenario.datacenters.items():
        check_label(name, f"datacenters.{name}")
        if not 1 <= datacenter.nodes <= NODES:
            raise ConfigError(f"datacenters.{name}.nodes", got=datacenter.nodes, expected=f"from 1 to {NODES}")
        _check_part(datacenter.loss, f"datacenters.{name}.loss")
    if not scenario.datacenters:
        raise ConfigError("datacenters", got="none", expected="at least one, such as [datacenters.fra]")
    _check_links(scenario)
    for at, service in enumerate(scenario.services):
        check_service_name(service.name, f"services[{at}].name")
        if service.name in [earlier.name for earlier in scenario.services[:at]]:
            mend = "another name: `per_datacenter` and `datacenters` say how many there are and where"
            raise ConfigError(f"services[{at}].name", got=service.name, expected=mend)
        if service.workers < 1:
            raise ConfigError(f"services[{at}].workers", got=service.workers, expected="1 or more")
        if service.takes < 1 or service.queue < 0:
            mend = "`takes` of more than nothing, such as '20ms', and `queue` of 0 or more"
            raise ConfigError(f"services[{at}].takes", got=format_duration(service.takes), expected=mend)
        for name in service.datacenters:
            if name not in scenario.datacenters:
                raise ConfigError(f"services[{at}].datacenters", got=name, expected=one_of(name, scenario.datacenters))
    layout = scenario.layout()
    for at, service in enumerate(scenario.services):
        for path in service.nodes:
            if path not in layout.paths:
                raise ConfigError(f"services[{at}].nodes", got=path, expected=one_of(path, layout.paths))
    for at, path in enumerate(scenario.servers):
        if path not in layout.paths:
            raise ConfigError(f"servers[{at}]", got=path, expected=one_of(path, layout.paths))
    check_workloads(scenario.workloads, layout)
    check_policies(scenario.policies, layout.services, bool(scenario.servers))
    _check_runs(scenario, layout)
    _check_scales(scenario)
    existing = layout.declared()
    for at, fault in sorted(enumerate(scenario.at), key=lambda numbered: numbered[1].time):
        _check_fault(fault, layout, existing, f"at[{at}]")
        _check_steering(fault, tuple(run.spec.name for run in scenario.runs), f"at[{at}]")
        _check_moment(fault.time, scenario, f"at[{at}].time")
        if fault.do == "register":
            for path in layout.agents(fault.target):
                key = (path.partition("/")[0], fault.service)
                existing[key] = existing.get(key, 0) + 1
    for at, expect in enumerate(scenario.expect):
        _check_expect(expect, layout, existing, f"expect[{at}]")
        _check_moment(expect.after, scenario, f"expect[{at}].after")
    return scenario


def _check_scales(scenario: Scenario) -> None:
    names = [service.name for service in scenario.services]
    for at, scale in enumerate(scenario.scales):
        if scale.service not in names:
            mend = one_of(scale.service, names) if names else "one that [[services]] declares: there is none"
            raise ConfigError(f"scales[{at}].service", got=scale.service, expected=mend)
        if not scenario.servers:
            raise ConfigError(f"scales[{at}]", got="no servers", expected="`servers`: policies are keys of the store")
        try:
            check_scale_policy(scale.policy, scale.service)
        except LocalError as error:
            raise ConfigError(f"scales[{at}].policy.{error.field}", got=error.got, expected=error.expected) from None
        _check_moment(scale.time, scenario, f"scales[{at}].time")


def rtt_between(scenario: Scenario, origin: str, target: str) -> int:
    """Nanoseconds of a round trip as the table or the scenario gives it for this direction.  Raises `ConfigError`."""
    for link in scenario.links:
        if (link.origin, link.target) == (origin, target) and link.rtt is not None:
            return link.rtt
    if origin == target:
        return scenario.datacenters[origin].rtt
    regions = [scenario.datacenters[name].region or name for name in (origin, target)]
    for name, region in zip((origin, target), regions, strict=True):
        if region not in region_table():
            expected = f"[[links]] with the rtt from {origin} to {target}, or {one_of(region, region_table())}"
            raise ConfigError(f"datacenters.{name}.region", got=region, expected=expected)
    return region_rtt(*regions)


def _check_links(scenario: Scenario) -> None:
    for at, link in enumerate(scenario.links):
        for field, name in (("from", link.origin), ("to", link.target)):
            if name not in scenario.datacenters:
                raise ConfigError(f"links[{at}].{field}", got=name, expected=one_of(name, scenario.datacenters))
        for field in ("jitter", "loss", "duplicate"):
            _check_part(getattr(link, field), f"links[{at}].{field}")
    for origin in scenario.datacenters:
        for target in scenario.datacenters:
            rtt_between(scenario, origin, target)
    # A region that is not needed, since there is one data center or `links` say it all, is still a mistake when unknown.
    for name, datacenter in scenario.datacenters.items():
        if datacenter.region and datacenter.region not in region_table():
            mend = one_of(datacenter.region, region_table())
            raise ConfigError(f"datacenters.{name}.region", got=datacenter.region, expected=mend)


def _check_runs(scenario: Scenario, layout: Layout) -> None:
    for at, run in enumerate(scenario.runs):
        field = f"runs[{at}]"
        _check_moment(run.time, scenario, f"{field}.time")
        if run.planned is not None and run.planned > run.time:
            got, start = format_duration(run.planned), format_duration(run.time)
            raise ConfigError(f"{field}.planned", got=got, expected=f"no later than its start, `time`: {start}")
        if not scenario.servers:
            raise ConfigError(field, got=run.spec.name, expected="`servers`: config runs are kept in the store")
        if run.by and run.by not in layout.paths:
            raise ConfigError(f"{field}.by", got=run.by, expected=one_of(run.by, layout.paths))
        try:
            check_spec(run.spec)
            parse_target(run.spec.targets)
        except LocalError as error:
            raise ConfigError(f"{field}.spec.{error.field}", got=error.got, expected=error.expected) from None


def _check_steering(fault: Fault, names: tuple[str, ...], field: str) -> None:
    if fault.do == "steer":
        if fault.run not in names:
            raise ConfigError(f"{field}.run", got=fault.run, expected=one_of(fault.run, names))
        verbs = [verb.value for verb in RunVerb]
        if fault.verb not in verbs:
            raise ConfigError(f"{field}.verb", got=fault.verb, expected=one_of(fault.verb, verbs))


def _check_part(value: float, field: str) -> None:
    if not 0.0 <= value <= 1.0:  # not a number is outside too
        raise ConfigError(field, got=value, expected="0 to 1, such as 0.05 for 5 %")


def _check_moment(moment: int, scenario: Scenario, field: str) -> None:
    if moment > scenario.duration:
        mend = f"no later than the end, `duration`: {format_duration(scenario.duration)}"
        raise ConfigError(field, got=format_duration(moment), expected=mend)


def _check_fault(fault: Fault, layout: Layout, existing: dict[tuple[str, str], int], field: str) -> None:
    verb = VERBS.get(fault.do)
    if verb is None:
        raise ConfigError(f"{field}.do", got=fault.do, expected=one_of(fault.do, VERBS))
    needed, allowed = verb
    for info, name in zip(Fault.__struct_encode_fields__, Fault.__struct_fields__, strict=True):
        given = getattr(fault, name) != _FAULT_DEFAULTS.get(name, fault.time if name == "time" else fault.do)
        if name in needed and not given:
            raise ConfigError(f"{field}.{info}", got="nothing", expected=f"a value: {fault.do!r} needs it")
        if given and name not in needed and name not in allowed:
            takes = ", ".join((*needed, *allowed))
            raise ConfigError(f"{field}.{info}", got=getattr(fault, name), expected=f"none: {fault.do!r} takes {takes}")
    if fault.factor is not None and not 0.0 < fault.factor < math.inf:
        raise ConfigError(f"{field}.factor", got=fault.factor, expected="more than 0, such as 5 for five times as slow")
    if fault.loss is not None:
        _check_part(fault.loss, f"{field}.loss")
    for name, selector in (("target", fault.target), ("from", fault.origin), ("to", fault.dest)):
        for one in as_tuple(selector):
            layout.check(one, f"{field}.{name}", existing=existing)


_FAULT_DEFAULTS = dict(
    zip(Fault.__struct_fields__[-len(Fault.__struct_defaults__) :], Fault.__struct_defaults__, strict=True)
)


def _check_expect(expect: Expect, layout: Layout, existing: dict[tuple[str, str], int], field: str) -> None:
    if expect.kind not in KINDS:
        raise ConfigError(f"{field}.kind", got=expect.kind, expected=one_of(expect.kind, KINDS))
    if expect.kind == "eventually" and expect.within is None:
        raise ConfigError(f"{field}.within", got="nothing", expected="a duration, counted from `after`")
    if expect.kind == "budget" and expect.at_most is None and expect.claim not in ALLOWED:
        raise ConfigError(f"{field}.at_most", got="nothing", expected="a number: the budget")
    for name, selector in (("of", expect.of), ("by", expect.by), ("except", expect.excepting)):
        for one in as_tuple(selector):
            layout.check(one, f"{field}.{name}", services=name != "by", existing=existing)
