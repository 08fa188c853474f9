"""The agent: core, io, host and edge put together, from the configuration to the end of the process.

Order of a start: what may be refused first (secret, state directory, ports), the node last; `ready` is printed when others
may ask.  Order of an end: the node says that it will be back, what was asked is stored and answered, then all is closed.
Everything that is opened is on one stack, so that a start that fails half way leaves nothing behind.
"""

import logging
import secrets
import signal
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from ipaddress import ip_address
from pathlib import Path as FilePath
from random import Random
from typing import Protocol

import gevent
import msgspec

from dislocate.config import Config
from dislocate.core.boundary.events import Event, MemberLeft
from dislocate.core.boundary.requests import Refused, ReplaceConfigured
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.views import InstanceView
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId, join_address, split_address
from dislocate.core.units import MILLISECOND
from dislocate.edge.alone import warn_when_alone
from dislocate.edge.dns import DnsServer
from dislocate.edge.eventlog import log_events
from dislocate.edge.http.access import Access, load_tokens
from dislocate.edge.http.app import make_app
from dislocate.edge.http.server import HttpServer
from dislocate.edge.metrics import EdgeCounters
from dislocate.edge.snapshot import SnapshotFile
from dislocate.edge.unix import DatagramSocket as LocalDatagrams
from dislocate.host.checks import run_check
from dislocate.host.drafts import discard_drafts
from dislocate.host.facts import count_processors, find_own_address, read_facts, read_load
from dislocate.host.leftovers import end_leftovers
from dislocate.host.seal import open_sealed, seal
from dislocate.host.secrets import Keys
from dislocate.host.tasks import Tasks
from dislocate.host.templates import references
from dislocate.io import clock
from dislocate.io.disk import Disk
from dislocate.io.driver import Driver
from dislocate.io.keyring import Keyring, NodeKeys, derive_key, load_node_keys, read_secrets
from dislocate.io.links import Links
from dislocate.io.outlets import Outlets
from dislocate.io.recorder import Recorder
from dislocate.io.shaping import Shaping, read_plan
from dislocate.io.steering import SteeringServer
from dislocate.io.udp import DatagramSocket
from dislocate.tally import count_dns, count_events, count_io

RELOAD_WITHIN = 10.0  # seconds that the core and its disk get for a reload
ASK_WITHIN = 15.0  # seconds that a task waits for the store: longer than an election

log = logging.getLogger(__name__)


class Face(Protocol):
    """What answers others, from `start` on."""

    def start(self) -> None: ...


def run_agent(
    config: Config,
    *,
    record: FilePath | None = None,
    shaping: FilePath | None = None,
    reread: Callable[[], Config] | None = None,
) -> int:
    """Run until SIGTERM or SIGINT; the exit code: 0, or 1 when something broke.

    `shaping` is a plan of delays and losses, steered at state_dir/shaping.sock.  `reread` gives the configuration anew at
    SIGHUP.  Raises `LocalError` when the agent cannot be started; then nothing was left behind."""
    with ExitStack() as opened:
        driver = _start(config, record, shaping, opened)
        _on(signal.SIGTERM, opened, driver.stop, "SIGTERM")
        _on(signal.SIGINT, opened, driver.stop, "SIGINT")
        _on(signal.SIGHUP, opened, _reload, driver, config, reread)
        print(_ready_line(config, driver.node.settings), flush=True)
        try:
            driver.wait()
        except Exception:
            log.critical("the agent broke", exc_info=True)
            return 1
    return 0


def _start(config: Config, record: FilePath | None, plan: FilePath | None, opened: ExitStack) -> Driver:
    """A running agent.  What listens to others is closed by `opened`, the rest by the driver."""
    node, ports = config.node, config.ports
    state_dir = FilePath(node.state_dir)
    fleet_secrets = read_secrets(FilePath(config.security.secret_file))
    keyring = Keyring(fleet_secrets)
    access = _access(config)
    with ExitStack() as opening:
        disk = Disk(state_dir)
        opening.callback(disk.close)
        keys = load_node_keys(state_dir)
        driver = _make_driver(config, disk, keys, record)
        counters = EdgeCounters()
        faces = _open_faces(config, driver, access, counters, opened)
        shaping = None if plan is None else _open_shaping(plan, state_dir, opened)
        datagrams = DatagramSocket(
            bind=join_address(node.bind, ports.gossip), keyring=keyring, deliver=driver.deliver, shaping=shaping
        )
        opening.callback(datagrams.close)
        links = Links(
            node=driver.node.settings.node,
            bind=join_address(node.bind, ports.links),
            keys=keys,
            known_key=driver.known_key,
            deliver=driver.deliver,
            shaping=shaping,
        )
        opening.callback(links.stop)
        tasks = _make_tasks(driver, state_dir, keys, fleet_secrets[0])
        counters.sources.append(lambda: count_io(driver, keyring, datagrams, links, disk))
        opened.callback(log_events(driver))
        opened.callback(_end_when_left(driver))
        discard_drafts(state_dir)
        end_leftovers(state_dir)  # before the node looks at what it had begun
        driver.start(
            Outlets(
                datagrams=datagrams,
                links=links,
                disk=disk,
                run_check=run_check,
                deliver=driver.deliver,
                shaping=shaping,
                tasks=tasks,
            )
        )
        opening.pop_all()  # they are the driver's now
    tasks.start()
    for face in faces:
        face.start()
    opened.callback(warn_when_alone(driver, lambda: keyring.strangers))
    return driver


def _make_driver(config: Config, disk: Disk, keys: NodeKeys, record: FilePath | None) -> Driver:
    node, ports = config.node, config.ports
    host = node.advertise or _own_address(node.bind)
    settings = Settings(
        node=NodeId(node.datacenter, node.name, disk.claim_boot(clock.wall() // MILLISECOND)),
        nonce=secrets.randbits(63),
        gossip=join_address(host, ports.gossip),
        links=join_address(host, ports.links),
        wan_gossip=join_address(node.advertise_wan, ports.gossip) if node.advertise_wan else "",
        wan_links=join_address(node.advertise_wan, ports.links) if node.advertise_wan else "",
        public_key=keys.public,
        tags=node.tags,
        seeds=node.seeds,
        services=config.instances,
        processors=count_processors(),
        servers=config.store.servers,
    )
    recovered = Recovered(records=disk.load(), unix_ns=clock.wall())
    seed = secrets.token_hex(16)
    recorder = None if record is None else Recorder(record, settings, seed, recovered)
    return Driver(settings=settings, seed=seed, recovered=recovered, recorder=recorder, read_load=read_load)


def _make_tasks(driver: Driver, state_dir: FilePath, keys: NodeKeys, fleet_secret: bytes) -> Tasks:
    """What config runs do on this host; templates see what the operator calls it, and what it is."""
    settings = driver.node.settings
    address, _ = split_address(settings.gossip)

    def facts() -> dict[str, object]:
        own = {"name": settings.node.name, "datacenter": settings.node.datacenter, "tags": settings.tags}
        return own | {"address": address, "state_dir": str(state_dir.resolve())} | msgspec.structs.asdict(read_facts())

    def instances(service: str) -> tuple[InstanceView, ...]:
        view = driver.node.catalog.service(service)
        return () if view is None else tuple(one for one in view.instances if one.node == settings.node.path)

    return Tasks(
        state_dir,
        facts=facts,
        ask=lambda request: driver.request(request, ASK_WITHIN),
        deliver=driver.deliver,
        open_secret=partial(open_sealed, secret_key=keys.secret),
        keys=Keys(marks=derive_key(fleet_secret, "marks"), digests=derive_key(keys.secret, "digests")),
        instances=instances,
        address=address,
    )


def _open_faces(
    config: Config, driver: Driver, access: Access, counters: EdgeCounters, opened: ExitStack
) -> tuple[Face, ...]:
    """What others on this host see; listening, and answering once it is started."""
    node, state_dir = config.node, config.node.state_dir
    app = make_app(driver, driver.node.settings.node, access, counters, references=references, seal=seal)
    http = HttpServer(app, counters, addresses=((node.bind, config.ports.http),), socket_path=f"{state_dir}/http.sock")
    opened.callback(http.stop)
    local = LocalDatagrams(driver, f"{state_dir}/agent.sock", access, counters)
    opened.callback(local.stop)
    snapshot = SnapshotFile(driver, f"{state_dir}/services.json", counters)
    opened.callback(snapshot.stop)
    dns = DnsServer(driver, node.bind, config.ports.dns, Random())
    opened.callback(dns.stop)
    events, forget = count_events(driver)
    opened.callback(forget)
    counters.sources += [events, lambda: count_dns(dns)]
    return http, local, snapshot, dns


def _end_when_left(driver: Driver) -> Callable[[], None]:
    """An agent that said goodbye for good ends its process, after whoever asked for it was answered."""

    def hear(event: Event) -> None:
        if type(event) is MemberLeft and event.member == driver.node.settings.node:
            gevent.spawn(driver.stop, "left")

    return driver.subscribe(hear)


def _open_shaping(plan: FilePath, state_dir: FilePath, opened: ExitStack) -> Shaping:
    try:
        shaping = Shaping(read_plan(plan.read_bytes()))
    except OSError as error:
        raise LocalError("--shaping", got=str(plan), expected=f"a readable plan ({error.strerror})") from error
    opened.callback(SteeringServer(shaping, state_dir / "shaping.sock").stop)
    return shaping


def _access(config: Config) -> Access:
    security = config.security
    return Access(
        loopback=security.loopback_role,
        tokens=load_tokens(security.tokens_file) if security.tokens_file else {},
        names=(read_facts().hostname.lower(), f"{config.node.name}.node.{config.node.datacenter}.dislocate"),
    )


def _own_address(bind: str) -> str:
    return find_own_address("node.advertise") if ip_address(bind).is_unspecified else bind


def _ready_line(config: Config, settings: Settings) -> str:
    host, _ = split_address(settings.gossip)
    addresses = {name: join_address(host, port) for name, port in msgspec.structs.asdict(config.ports).items()}
    places = " ".join(f"{name}={address}" for name, address in addresses.items())
    return f"ready {config.path} {places} state_dir={config.node.state_dir}"


def _on(sign: signal.Signals, opened: ExitStack, act: Callable[..., object], *arguments: object) -> None:
    opened.callback(gevent.signal_handler(sign, act, *arguments).cancel)


def _reload(driver: Driver, started: Config, reread: Callable[[], Config] | None) -> None:
    """Take over services, checks and tags; say what else changed, since that takes a restart."""
    if reread is None:
        log.warning("SIGHUP: this agent was started without a file to read again")
        return
    try:
        config = reread()
        result = driver.request(ReplaceConfigured(config.instances, config.node.tags), RELOAD_WITHIN)
    except (LocalError, TimeoutError) as error:
        log.error("SIGHUP: nothing was changed: %s", error)
        return
    if isinstance(result, Refused):
        log.error("SIGHUP: nothing was changed: %s %s", result.field, result.reason)
        return
    log.info("SIGHUP: services and tags are those of the file now, %d instances", len(config.instances))
    for table in _changed_tables(started, config):
        log.warning("SIGHUP: [%s] changed too, which takes a restart", table)


def _changed_tables(before: Config, after: Config) -> list[str]:
    """Tables that differ in what a reload does not take over."""
    comparable = [
        msgspec.structs.replace(config, service=(), node=msgspec.structs.replace(config.node, tags=()))
        for config in (before, after)
    ]
    return [name for name in Config.__struct_fields__ if getattr(comparable[0], name) != getattr(comparable[1], name)]
