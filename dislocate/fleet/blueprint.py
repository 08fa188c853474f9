"""From a scenario to the files of a real fleet: who binds where, whom he greets, how far the others are.

Agent j of data center i binds 127.0.i.j on the usual ports; instance k of its services listens there on 18000 and up.
A second fleet on the same machine takes 127.1.i.j, and so on: see `claim_network`.
Pure but for that and `write`, which makes one directory for each agent with all that it reads.
"""

import json
import socket
from hashlib import sha256
from pathlib import Path as FilePath

import msgspec
from msgspec import Struct

from dislocate.core.errors import ConfigError
from dislocate.core.identity import Path
from dislocate.core.units import format_duration
from dislocate.fleet.calling.words import CallersPlan
from dislocate.io.keyring import generate_secret
from dislocate.io.shaping import DirectedQuality, ShapingPlan
from sim.operators import STEERER
from sim.scenario import Scenario, Service, rtt_between
from sim.selectors import Instance

FIRST_SERVICE_PORT = 18000
LAN_JITTER = 0.05
WAN_JITTER = 0.02
HTTP_PORT = 49700
GOSSIP_PORT = 49701
DNS_PORT = 49703
TOKEN = "steerer.token"  # of another operator than the user who started the fleet, to approve what that one begins
TOKENS = "tokens.toml"
NETWORK = "127.0"  # the first two bytes of all addresses of a fleet
STORY = "story"  # the file that says when the story began
NETWORKS = 64  # tried until one is free


class ServicePlan(Struct, frozen=True):
    """One service process."""

    instance: Instance
    owner: Path
    host: str
    port: int
    interval: int
    timeout: int
    called: Service | None = None  # somebody calls it: it registers itself, and serves as this says


class AgentPlan(Struct, frozen=True):
    """One agent process."""

    path: Path
    host: str
    seeds: tuple[str, ...]
    services: tuple[ServicePlan, ...]

    @property
    def http(self) -> str:
        return f"http://{self.host}:{HTTP_PORT}"


def claim_network() -> tuple[str, socket.socket]:
    """'127.N' for the least N that no other fleet uses, and the socket that holds the claim until it is closed.

    Raises `ConfigError`."""
    for number in range(NETWORKS):
        network = f"127.{number}"
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind((f"{network}.255.254", GOSSIP_PORT))
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as first:  # agents that somebody started by hand
                first.bind((f"{network}.1.1", GOSSIP_PORT))
        except OSError:
            claim.close()
        else:
            return network, claim
    raise ConfigError("127.0.0.0/8", got=f"agents in all of 127.0 to 127.{NETWORKS - 1}", expected="room for a fleet")


def plan_agents(scenario: Scenario, network: str = NETWORK) -> dict[Path, AgentPlan]:
    """Every agent of the scenario, by path.  Raises `ConfigError` for more than loopback can hold."""
    layout = scenario.layout()
    if len(layout.nodes) > 250 or any(len(paths) > 250 for paths in layout.nodes.values()):
        raise ConfigError("datacenters", got=len(layout.paths), expected="at most 250 data centers of 250 agents")
    hosts = {
        path: f"{network}.{i}.{j}"
        for i, paths in enumerate(layout.nodes.values(), 1)
        for j, path in enumerate(paths, 1)
    }
    services: dict[Path, list[ServicePlan]] = {path: [] for path in hosts}
    called = [workload.service for workload in scenario.workloads if workload.kind == "requests"]
    for service in scenario.services:
        for instance in layout.instances(service.name):
            owner = layout.owner(instance)
            port = FIRST_SERVICE_PORT + len(services[owner])
            kind = service if service.name in called else None
            services[owner].append(
                ServicePlan(instance, owner, hosts[owner], port, service.interval, service.timeout, kind)
            )
    first = next(iter(hosts.values()))
    plans = {}
    for path, host in hosts.items():
        own_first = hosts[layout.nodes[path.partition("/")[0]][0]]
        seeds = tuple(f"{seed}:{GOSSIP_PORT}" for seed in dict.fromkeys((own_first, first)) if seed != host)
        plans[path] = AgentPlan(path, host, seeds, tuple(services[path]))
    return plans


def shaping_plan(scenario: Scenario, plans: dict[Path, AgentPlan], own: Path, seed: str) -> ShapingPlan:
    """How `own` is to shape what it sends: the scenario's links, as the simulator has them."""
    hosts = {plan.host: path for path, plan in plans.items()}
    qualities = []
    for origin in scenario.datacenters:
        for target in scenario.datacenters:
            given = [link for link in scenario.links if (link.origin, link.target) == (origin, target)]
            override = given[-1] if given else None
            qualities.append(
                DirectedQuality(
                    from_=origin,
                    to=target,
                    delay=rtt_between(scenario, origin, target) // 2,
                    jitter=override.jitter if override else LAN_JITTER if origin == target else WAN_JITTER,
                    loss=override.loss if override else scenario.datacenters[origin].loss if origin == target else 0.0,
                    duplicate=override.duplicate if override else 0.0,
                    bandwidth=override.bandwidth if override else 0,
                )
            )
    return ShapingPlan(own=own, hosts=hosts, qualities=tuple(qualities), seed=seed)


def write(
    scenario: Scenario, directory: FilePath, seed: str = "fleet", network: str = NETWORK
) -> dict[Path, AgentPlan]:
    """Make `directory` with its secrets, and for each agent `DC/NAME/` with agent.toml, shaping.json and its state."""
    plans = plan_agents(scenario, network)
    secret = directory / "secret"
    _write_secret(secret)
    _write_secret(directory / TOKEN)
    (directory / TOKENS).write_text(_tokens((directory / TOKEN).read_text().strip()))
    for path, plan in plans.items():
        home = directory / path
        (home / "state").mkdir(parents=True, exist_ok=True)
        (home / "agent.toml").write_text(_config(plan, home, secret, scenario.servers))
        (home / "shaping.json").write_bytes(msgspec.json.encode(shaping_plan(scenario, plans, path, seed)))
    return plans


def _write_secret(path: FilePath) -> None:
    """Unless it is there."""
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(generate_secret() + "\n")


def _tokens(secret: str) -> str:
    digest = sha256(secret.encode()).hexdigest()
    return f'[[token]]\nname = "{STEERER}"\nrole = "operate"\nsha256 = "{digest}"\n'


def plan_callers(scenario: Scenario, plans: dict[Path, AgentPlan], directory: FilePath) -> dict[str, CallersPlan]:
    """The processes that call, by 'WORKLOAD@dc/aJ': one for each workload and agent that it asks."""
    layout, planned = scenario.layout(), {}
    for workload in scenario.workloads:
        if workload.kind != "requests":
            continue
        asked: dict[Path, list[str]] = {}
        agents = layout.agents(workload.at)
        for number in range(workload.clients):
            asked.setdefault(agents[number % len(agents)], []).append(f"{workload.name}-{number + 1}")
        for path, names in asked.items():
            home = directory / plans[path].path
            planned[f"{workload.name}@{path}"] = CallersPlan(
                names=tuple(names),
                path=path,
                agent=f"unix:{home / 'state' / 'http.sock'}",
                service=workload.service,
                shaping=str(home / "shaping.json"),
                steering=str(home / f"{workload.name}.sock"),
                story=str(directory / STORY),
                reports=str(home / f"{workload.name}.calls"),
                rate=workload.rate,
                users=workload.users,
                think=workload.think,
                keys=workload.keys if workload.keyed else 0,
                timeout=workload.timeout,
                begin=workload.begin,
                until=workload.until,
            )
    return planned


def _config(plan: AgentPlan, home: FilePath, secret: FilePath, servers: tuple[Path, ...]) -> str:
    datacenter, _, name = plan.path.partition("/")
    lines = [
        "[node]",
        f"name = {json.dumps(name)}",
        f"datacenter = {json.dumps(datacenter)}",
        f"bind = {json.dumps(plan.host)}",
        f"state_dir = {json.dumps(str(home / 'state'))}",
        f"seeds = {json.dumps(plan.seeds)}",
        "",
        "[security]",
        f"secret_file = {json.dumps(str(secret))}",
        f"tokens_file = {json.dumps(str(secret.parent / TOKENS))}",
    ]
    if servers:
        lines += ["", "[store]", f"servers = {json.dumps(servers)}"]
    for service in plan.services:
        if service.called is not None:
            continue
        check = (
            f'{{ http = "http://{service.host}:{service.port}/health", '
            f'interval = "{format_duration(service.interval)}", timeout = "{format_duration(service.timeout)}" }}'
        )
        lines += [
            "",
            "[[service]]",
            f"name = {json.dumps(service.instance.service)}",
            f"id = {json.dumps(service.instance.id)}",
            f"port = {service.port}",
            f"check = {check}",
        ]
    return "\n".join(lines) + "\n"
