"""`dislocate dev`: the demo's fleet, to stay and to be played with."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from dislocate.client.connection import AgentConnection
from dislocate.core.errors import ConfigError
from dislocate.core.units import SECOND
from dislocate.fleet.blueprint import DNS_PORT, AgentPlan
from dislocate.fleet.control import Control
from dislocate.fleet.fleet import Fleet
from sim.scenario import Datacenter, Scenario, Service, checked

# Far apart, each from the one before, so that a small fleet already feels like the world.
REGIONS = ("fra", "wdc", "tok", "syd", "sao", "dal", "lon", "osa", "mon", "mad", "che", "tor")


EXAMPLE = "hello.toml"
WORKS_WITHIN = 120.0  # seconds, on a busy machine: the servers elect one, and first checks pass
POLL = 0.1


def dev_scenario(datacenters: int, nodes: int) -> Scenario:
    """`datacenters` data centers of `nodes` agents, with two small services in each.  Raises `ConfigError`."""
    if not 1 <= datacenters <= len(REGIONS):
        raise ConfigError("dcs", got=datacenters, expected=f"1 to {len(REGIONS)}, the regions in the RTT table")
    if not 1 <= nodes <= 50:
        raise ConfigError("nodes", got=nodes, expected="1 to 50 agents in each data center")
    return checked(
        Scenario(
            title=f"{datacenters} data centers of {nodes} agents",
            why="To be played with.",
            duration=0,
            datacenters={name: Datacenter(nodes=nodes) for name in REGIONS[:datacenters]},
            servers=store_servers(REGIONS[:datacenters], nodes),
            services=tuple(
                Service(name=name, per_datacenter=2, interval=1 * SECOND, timeout=1 * SECOND)
                for name in ("shop.web", "shop.api")
            ),
        )
    )


def store_servers(datacenters: Sequence[str], nodes: int) -> tuple[str, ...]:
    """Five servers where there are so many agents, else three or one: an odd number, spread over the data centers."""
    paths = [f"{datacenter}/a{number}" for number in range(1, nodes + 1) for datacenter in datacenters]
    count = next(size for size in (5, 3, 1) if size <= len(paths))
    return tuple(sorted(paths[:count], key=lambda path: (datacenters.index(path.partition("/")[0]), path)))


def write_example(fleet: Fleet) -> Path:
    """A specification of a config run, to be changed; one that somebody changed stays."""
    path = fleet.directory / "examples" / EXAMPLE
    path.parent.mkdir(exist_ok=True)
    if not path.exists():
        path.write_text((files("dislocate.fleet") / EXAMPLE).read_text(encoding="utf-8"))
    return path


def how_to_talk(fleet: Fleet) -> str:
    """What to type in another shell: every line works as it stands, also where other fleets run."""
    example = shlex.quote(str(write_example(fleet)))
    path, plan = next(iter(fleet.plans.items()))
    state = fleet.home(path) / "state"
    datacenters = list(fleet.scenario.datacenters)
    last = list(fleet.plans)[-1]
    where = f"--dir {shlex.quote(str(fleet.directory))}"
    return f"""\
the agent {path}, from another shell:
  export DISLOCATE_AGENT={shlex.quote(f"unix:{state}/http.sock")}   # or, without runs and exec, {plan.http}
  dislocate members
  dislocate service shop.web
  dislocate history shop.web
  dislocate watch shop.web
  dislocate pick shop.web
  dislocate flows shop.web
  dislocate policy show shop.web
  dislocate kv put config/color blue
  dislocate kv get config/color
  dislocate lock deploy -- sh -c 'echo token $DISLOCATE_LOCK_TOKEN'
  dislocate servers list
  curl -s {plan.http}/api/services/shop.web
  curl -s {plan.http}/api/services/shop.web/pick
  dig @{plan.host} -p {DNS_PORT} shop.web.service.dislocate
  dig @{plan.host} -p {DNS_PORT} SRV shop.web.service.{datacenters[0]}.dislocate
  cat {shlex.quote(f"{state}/services.json")}
change all of it with one file:
  cat {example}
  dislocate run plan {example}
  dislocate run start {example}
  dislocate run status hello
  dislocate run revert hello --why 'only a try'
  dislocate exec dc:{datacenters[0]} -- uptime
break something, and mend it:
  dislocate dev do kill {last} {where}
  dislocate dev do restart {last} {where}
  dislocate dev do cut {datacenters[-1]} {where}
  dislocate dev do heal {datacenters[-1]} {where}
  dislocate dev do --help
processes and logs: {fleet.directory}"""


def where_everything_is(fleet: Fleet) -> dict[str, dict[str, object]]:
    """By agent: its API, its state directory, its process."""
    return {
        path: {"http": plan.http, "state_dir": str(fleet.home(path) / "state"), "pid": fleet.agents[path].pid}
        for path, plan in fleet.plans.items()
    }


def await_answers(fleet: Fleet) -> None:
    """Wait until what is printed then works: every agent knows a leader of the store and its own services have passed their
    checks, so that DNS names them.  A while, not for ever."""
    deadline = time.monotonic() + WORKS_WITHIN
    for path, plan in fleet.plans.items():
        agent = AgentConnection(f"unix:{fleet.home(path) / 'state' / 'http.sock'}")
        while not (_knows_leader(fleet, agent) and _serves(agent, plan)) and time.monotonic() < deadline:
            time.sleep(POLL)


def _knows_leader(fleet: Fleet, agent: AgentConnection) -> bool:
    return not fleet.scenario.servers or agent.get("/api/store")["leader"] is not None


def _serves(agent: AgentConnection, plan: AgentPlan) -> bool:
    own = [
        instance["status"]
        for service in dict.fromkeys(one.instance.service for one in plan.services)
        for instance in agent.get(f"/api/services/{service}")["instances"]
        if instance["node"] == plan.path
    ]
    return own == ["passing"] * len(plan.services)


def stay(fleet: Fleet, say: Callable[[str], None], *, as_json: bool) -> None:
    """Start the fleet, say how to talk to it, and keep it until a signal raises KeyboardInterrupt."""
    tell: Callable[[str], None] = (lambda _: None) if as_json else say
    tell(f"starting {len(fleet.agents)} agents and {len(fleet.services)} services ...")
    fleet.start()
    await_answers(fleet)
    control = Control(fleet)
    if as_json:
        say(json.dumps(where_everything_is(fleet)))
    for path, plan in fleet.plans.items():
        tell(f"  {path:8} {plan.http}  pid {fleet.agents[path].pid}")
    tell("")
    tell(how_to_talk(fleet))
    tell("\nCtrl-C ends it all")
    control.serve()
