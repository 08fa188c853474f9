"""Claims: what a scenario may expect, judged from what observers answer, in virtual time or from live agents.

A claim of a view is asked of each observer by itself and says why it does not hold there; a claim of a run looks at what
happened, or at a measured number.  To add one, write the function and put it into its table.

Whoever implements `Observed` can have scenarios judged: `sim.world.World` does, and the live fleet from HTTP answers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, TypeAlias

from dislocate.core.boundary.values import MemberState, Status
from dislocate.core.errors import ConfigError
from dislocate.core.identity import Path
from dislocate.core.units import SECOND, format_duration
from dislocate.strict import one_of
from sim.scenario import Expect
from sim.selectors import Layout, as_tuple
from sim.traffic.claims import REQUEST_CLAIMS, SeenRequests


class SeenMember(Protocol):
    """One entry of `GET /api/members`."""

    @property
    def state(self) -> MemberState: ...


class SeenDatacenter(Protocol):
    """One entry of `GET /api/datacenters`."""

    @property
    def reachable(self) -> bool: ...


class SeenInstance(Protocol):
    """One instance of `GET /api/services/NAME`."""

    @property
    def id(self) -> str: ...
    @property
    def node(self) -> Path: ...
    @property
    def status(self) -> Status: ...
    @property
    def reachable(self) -> bool: ...


class SeenServer(Protocol):
    """One server in `GET /api/store`."""

    @property
    def path(self) -> Path: ...
    @property
    def role(self) -> str: ...


class SeenStore(Protocol):
    """`GET /api/store`."""

    @property
    def role(self) -> str: ...
    @property
    def leader(self) -> Path | None: ...
    @property
    def term(self) -> int: ...
    @property
    def revision(self) -> int: ...
    @property
    def problem(self) -> str: ...
    @property
    def servers(self) -> Sequence[SeenServer]: ...


class SeenErrand(Protocol):
    """What came of asking an agent for something."""

    @property
    def outcome(self) -> str: ...  # 'done', 'refused', 'uncertain', 'waiting'
    @property
    def words(self) -> str: ...
    @property
    def took(self) -> int: ...  # nanoseconds


class SeenRun(Protocol):
    """`GET /api/runs/ID` of the run, of a name, that began last."""

    @property
    def state(self) -> str: ...
    @property
    def nodes(self) -> Mapping[Path, str]: ...  # state of each node that is not pending


class Observed(Protocol):
    """A fleet as its agents describe it, and who of them is up.  Read-only."""

    layout: Layout

    def observers_up(self) -> Sequence[Path]:
        """Agents that answer now."""
        ...

    def is_up(self, path: Path) -> bool:
        """Whether the agent runs and answers: the judge's own knowledge, not an observer's."""
        ...

    def version(self, path: Path) -> tuple[int, int]:
        """Another value whenever the observer's answers may have changed."""
        ...

    def members(self, path: Path) -> Mapping[Path, SeenMember]: ...
    def datacenters(self, path: Path) -> Mapping[str, SeenDatacenter]: ...

    def instances(self, path: Path, service: str) -> Sequence[SeenInstance]:
        """What the observer answers for `service`; nothing when it does not know the name."""
        ...

    def store(self, path: Path) -> SeenStore: ...

    def errand(self, path: Path, what: str) -> SeenErrand | None:
        """What last came of asking `path` to 'write' a key or to 'read' one as it has it; None: not asked yet."""
        ...

    def run_of(self, path: Path, name: str) -> SeenRun | None:
        """What `path` last answered of the config run of that name; None: it knows of none."""
        ...

    def happened(self, what: str) -> int:
        """How often an event (`boundary.events`, by class name) has been told by any agent."""
        ...

    def measured(self, what: str, since: int) -> float:
        """A rate per agent and second over the time since `since`: 'messages' (datagrams and messages) or 'bytes'.

        'terms' is no rate: by how much the highest term of the store grew since then."""
        ...

    def requests(self, services: Sequence[str], agents: Sequence[Path], since: int, until: int) -> SeenRequests:
        """What callers of `services` (none named: of any) that ask one of `agents` saw, of calls begun in [since, until)."""
        ...


AT_ONCE = 1 * SECOND  # for an answer that waits for nobody: a link to another data center takes a third of it

# Why a claim does not hold for one observer, None when it does.
ViewClaim: TypeAlias = Callable[[Observed, Path, Expect], str | None]


def subjects(observed: Observed, expect: Expect) -> list[Path]:
    """The agents that a claim is about."""
    excepted = dict.fromkeys(observed.layout.agents(expect.excepting))
    return [path for path in observed.layout.agents(expect.of or "*") if path not in excepted]


# ---- views


def nobody_dead(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """No observer says of any of `of` that it is dead."""
    members = observed.members(observer)
    for path in subjects(observed, expect):
        if path in members and members[path].state is MemberState.DEAD:
            return f"{observer} says that {path} is dead"
    return None


def living_not_dead(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """No observer says of an agent that runs that it is dead."""
    members = observed.members(observer)
    for path in subjects(observed, expect):
        if path in members and members[path].state is MemberState.DEAD and observed.is_up(path):
            return f"{observer} says that {path} is dead, and it runs"
    return None


def _in_state(state: MemberState) -> ViewClaim:
    def holds(observed: Observed, observer: Path, expect: Expect) -> str | None:
        members = observed.members(observer)
        for path in subjects(observed, expect):
            if path == observer:
                continue
            found = members[path].state if path in members else None
            if found is not state:
                return f"{observer} says that {path} is {found.value if found else 'unknown'}"
        return None

    holds.__doc__ = f"Every observer says of each of `of` that it is {state.value}."
    return holds


def everyone_sees(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer says of each of `of` that runs that it is alive, and of no other that it is."""
    members = observed.members(observer)
    for path in subjects(observed, expect):
        is_seen = path in members and members[path].state is MemberState.ALIVE
        if is_seen != observed.is_up(path):
            return f"{observer} says that {path} is {'alive' if is_seen else 'not alive'}"
    return None


def converged(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer knows who runs, and reaches every data center that has one of these."""
    finding = everyone_sees(observed, observer, expect)
    if finding is not None:
        return finding
    own = observer.partition("/")[0]
    reached = observed.datacenters(observer)
    for name, paths in observed.layout.nodes.items():
        if (
            name != own
            and any(observed.is_up(path) for path in paths)
            and not (name in reached and reached[name].reachable)
        ):
            return f"{observer} does not reach {name}"
    return None


def _reachability(wanted: bool) -> ViewClaim:
    def holds(observed: Observed, observer: Path, expect: Expect) -> str | None:
        own = observer.partition("/")[0]
        chosen = observed.layout.datacenters(expect.of or "*")
        # From inside, the claim is about everybody else.
        asked = [name for name in observed.layout.nodes if name != own] if own in chosen else chosen
        seen = observed.datacenters(observer)
        for name in asked:
            is_reached = name in seen and seen[name].reachable
            if is_reached != wanted:
                return f"{observer} says that {name} is {'reachable' if is_reached else 'unreachable'}"
        return None

    return holds


def service_passing(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers for `of` (a service, or an instance) with at least `count` passing instances, or all."""
    for service, chosen in _services(observed, expect):
        seen = {one.id + "@" + one.node.partition("/")[0]: one for one in observed.instances(observer, service)}
        if expect.count and service in as_tuple(expect.of):
            chosen = list(seen)  # those of scaling too, which nobody declared
        passing = [key for key in chosen if key in seen and seen[key].status is Status.PASSING]
        wanted = expect.count or len(chosen)
        if len(passing) < wanted:
            return f"{observer} answers for {service} with {len(passing)} passing of {wanted} wanted"
    return None


def service_status(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers with each instance in `of`, and gives it the status `status`."""
    for service, chosen in _services(observed, expect):
        seen = {one.id + "@" + one.node.partition("/")[0]: one for one in observed.instances(observer, service)}
        for key in chosen:
            found = seen[key].status.value if key in seen else "absent"
            if found != expect.status:
                return f"{observer} says that {key} is {found}"
    return None


def service_absent(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """No observer answers with an instance in `of`."""
    for service, chosen in _services(observed, expect):
        for one in observed.instances(observer, service):
            if one.id + "@" + one.node.partition("/")[0] in chosen:
                return f"{observer} still answers with {one.node}/{one.id}"
    return None


def service_known(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers with each instance in `of`, whatever its status: last known good is kept."""
    for service, chosen in _services(observed, expect):
        seen = [one.id + "@" + one.node.partition("/")[0] for one in observed.instances(observer, service)]
        for key in chosen:
            if key not in seen:
                return f"{observer} does not answer with {key}"
    return None


def _services(observed: Observed, expect: Expect) -> list[tuple[str, list[str]]]:
    """Services with the keys 'id@datacenter' of the instances that the claim is about."""
    chosen: dict[str, list[str]] = {}
    for instance in observed.layout.chosen_instances(expect.of):
        chosen.setdefault(instance.service, []).append(f"{instance.id}@{instance.datacenter}")
    return list(chosen.items())


# ---- the store; `of`: the agents that are asked


def _asked(claim: ViewClaim) -> ViewClaim:
    """Only of those that it is about."""

    def holds(observed: Observed, observer: Path, expect: Expect) -> str | None:
        return claim(observed, observer, expect) if observer in subjects(observed, expect) else None

    holds.__doc__ = claim.__doc__
    return holds


def store_led(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Each of `of` knows who leads the store, and that one runs."""
    leader = observed.store(observer).leader
    if leader is None:
        return f"{observer} knows no leader of the store"
    return None if observed.is_up(leader) else f"{observer} says that {leader} leads, which does not run"


def store_writable(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """A write that is asked of each of `of` succeeds."""
    errand = observed.errand(observer, "write")
    if errand is None or errand.outcome != "done":
        return f"{observer} did not write: {errand.words if errand is not None else 'not asked yet'}"
    return None


def store_refuses(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """A write that is asked of each of `of` is refused at once, and the refusal names who is missing."""
    errand = observed.errand(observer, "write")
    if errand is None or errand.outcome != "refused":
        return f"{observer} did not refuse: {errand.outcome if errand is not None else 'not asked yet'}"
    if errand.took > AT_ONCE:
        return f"{observer} refused only after {format_duration(errand.took)}: {errand.words}"
    if not any(path in errand.words for path in observed.layout.paths):
        return f"{observer} does not say who is missing: {errand.words}"
    return None


def store_failed(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """The part of each of `of` in the store has ended, and it says why and that it is to be added again."""
    view = observed.store(observer)
    if view.role != "failed":
        return f"{observer} is {view.role}"
    return None if f"dislocate servers add {observer}" in view.problem else f"{observer} says: {view.problem}"


def local_reads(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Each of `of` answers a local read at once."""
    errand = observed.errand(observer, "read")
    if errand is None or errand.outcome != "done":
        return f"{observer} did not answer a local read: {errand.words if errand is not None else 'not asked yet'}"
    return None if errand.took <= AT_ONCE else f"{observer} answered a local read after {format_duration(errand.took)}"


def servers_are(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Each of `of` is a server, and every observer that is one says that they and nobody else may vote."""
    view, wanted = observed.store(observer), sorted(subjects(observed, expect))
    if view.role in ("agent", "forming", "failed"):
        return f"{observer} is no server" if observer in wanted else None
    voters = sorted({one.path for one in view.servers if one.role == "voter"})
    return None if voters == wanted else f"{observer} says that {', '.join(voters) or 'nobody'} may vote"


# ---- config runs; `run`: the name, `status`: the state


def run_is(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers that the run is `status`."""
    run = observed.run_of(observer, expect.run)
    found = "unknown" if run is None else run.state
    return None if found == expect.status else f"{observer} says that run {expect.run} is {found}"


def run_nodes(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Every observer answers that each of `of` is `status` in the run."""
    run = observed.run_of(observer, expect.run)
    for path in subjects(observed, expect):
        found = "unknown" if run is None else run.nodes.get(path, "pending")
        if found != expect.status:
            return f"{observer} says that {path} is {found} in run {expect.run}"
    return None


VIEW_CLAIMS: dict[str, ViewClaim] = {
    "nobody_dead": nobody_dead,
    "living_not_dead": living_not_dead,
    "alive": _in_state(MemberState.ALIVE),
    "suspect": _in_state(MemberState.SUSPECT),
    "dead": _in_state(MemberState.DEAD),
    "left": _in_state(MemberState.LEFT),
    "everyone_sees": everyone_sees,
    "converged": converged,
    "reachable": _reachability(True),
    "unreachable": _reachability(False),
    "service_passing": service_passing,
    "service_status": service_status,
    "service_absent": service_absent,
    "service_known": service_known,
    "store_led": _asked(store_led),
    "store_writable": _asked(store_writable),
    "store_refuses": _asked(store_refuses),
    "store_failed": _asked(store_failed),
    "local_reads": _asked(local_reads),
    "servers_are": servers_are,
    "run_is": run_is,
    "run_nodes": run_nodes,
}

# Claims that somebody has to be asked for: what is asked.
ERRANDS = {"store_writable": "write", "store_refuses": "write", "local_reads": "read"}

# Events (`boundary.events`): the claim is that some agent told one.
EVENT_CLAIMS = {
    "suspected": "MemberSuspected",
    "refuted_suspicion": "MemberRefuted",
    "died": "MemberDied",
    "announced_restart": "MemberRestarting",
    "braked": "BrakeChanged",
    "cloned": "CloneDetected",
    "elected": "LeaderElected",
    "deposed": "LeaderDeposed",
    "servers_changed": "ServersChanged",
    "store_troubled": "StoreTroubled",
    "drifted": "Drifted",
}

# Budgets: what is measured, per agent and second; terms are counted.
BUDGET_CLAIMS = {"msgs_per_node_s": "messages", "bytes_per_node_s": "bytes", "terms_grew_at_most": "terms"}

_SERVICE_CLAIMS = ("service_passing", "service_status", "service_absent", "service_known")


def check_claim(expect: Expect, layout: Layout, field: str) -> None:
    """Raises `ConfigError` naming `field` when `expect` claims what nobody can judge."""
    if expect.kind == "budget":
        table = [*BUDGET_CLAIMS, *REQUEST_CLAIMS]
    elif expect.kind == "always":
        table = [*VIEW_CLAIMS]
    else:
        table = [*VIEW_CLAIMS, *EVENT_CLAIMS]
    if expect.claim not in table:
        raise ConfigError(f"{field}.claim", got=expect.claim, expected=one_of(expect.claim, table))
    if expect.claim in _SERVICE_CLAIMS and not layout.chosen_instances(expect.of):
        raise ConfigError(f"{field}.of", got=expect.of, expected="a service, or an instance as dc/service#i")
    statuses = [status.value for status in Status]
    if expect.claim == "service_status" and expect.status not in statuses:
        raise ConfigError(f"{field}.status", got=expect.status, expected=one_of(expect.status, statuses))
    if expect.claim in REQUEST_CLAIMS:
        for selector in as_tuple(expect.of):
            if selector not in layout.services:
                raise ConfigError(f"{field}.of", got=selector, expected=one_of(selector, layout.services))
        return
    for selector in as_tuple(expect.of):
        if expect.claim not in _SERVICE_CLAIMS and not layout.agents(selector):
            raise ConfigError(f"{field}.of", got=selector, expected="agents: a data center, dc/aJ or '*'")
