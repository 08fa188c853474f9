"""`dislocate dev`: the demo's fleet, to stay and to be played with."""

from collections.abc import Callable

from dislocate.core.errors import ConfigError
from dislocate.core.units import SECOND
from dislocate.fleet.blueprint import DNS_PORT
from dislocate.fleet.fleet import Fleet
from sim.scenario import Datacenter, Scenario, Service, checked

# Far apart, each from the one before, so that a small fleet already feels like the world.
REGIONS = ("fra", "wdc", "tok", "syd", "sao", "dal", "lon", "osa", "mon", "mad", "che", "tor")


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
            services=tuple(
                Service(name=name, per_datacenter=2, interval=1 * SECOND, timeout=1 * SECOND)
                for name in ("shop.web", "shop.api")
            ),
        )
    )


def how_to_talk(fleet: Fleet) -> str:
    """What to type in another shell."""
    path, plan = next(iter(fleet.plans.items()))
    state = fleet.home(path) / "state"
    datacenter = path.partition("/")[0]
    last = list(fleet.plans)[-1]
    return f"""\
the agent {path}, from another shell:
  export DISLOCATE_AGENT=unix:{state}/http.sock       (or {plan.http})
  dislocate members                                   dislocate service shop.web
  dislocate history shop.web                          dislocate watch shop.web
  curl -s {plan.http}/api/services/shop.web
  dig @{plan.host} -p {DNS_PORT} shop.web.service.dislocate
  dig @{plan.host} -p {DNS_PORT} SRV shop.web.service.{datacenter}.dislocate
  cat {state}/services.json
break something:
  kill -9 {fleet.agents[last].pid}                    # the agent {last}
  echo '{{"do": "cut", "from": "{datacenter}", "to": "*"}}' | ...   # or: dislocate dev --scenario FILE
processes and logs: {fleet.directory}"""


def stay(fleet: Fleet, say: Callable[[str], None], wait: Callable[[], None]) -> None:
    """Start the fleet, say how to talk to it, and keep it until `wait` returns or raises."""
    say(f"starting {len(fleet.agents)} agents and {len(fleet.services)} services ...")
    fleet.start()
    for path, plan in fleet.plans.items():
        say(f"  {path:8} {plan.http}  pid {fleet.agents[path].pid}")
    say("")
    say(how_to_talk(fleet))
    say("\nCtrl-C ends it all")
    wait()
