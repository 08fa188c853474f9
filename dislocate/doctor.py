"""The doctor: what would keep an agent with this configuration from working, what is wrong, and the mend.

Looks only: it binds ports for a moment, makes and removes one file, and asks seeds who they are with `WhoIsThere`, which
makes it no member.  `examine(path)` yields findings as it comes to them, the cheap and local ones first.
"""

import fcntl
import itertools
import os
import re
import resource
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path as FilePath

from dislocate.client.connection import AgentConnection, NoAgent, Problem
from dislocate.config import Config, load_config
from dislocate.core.errors import ConfigError, LocalError, PeerError
from dislocate.core.identity import Address, NodeId, join_address, split_address, split_path
from dislocate.core.membership.messages import ItIsI, WhoIsThere
from dislocate.core.nearest import nearest
from dislocate.core.units import SECOND
from dislocate.core.wire import decode_envelope, encode_envelope
from dislocate.doctor_store import examine_store
from dislocate.edge.sockets import UNIX_PATH_LIMIT
from dislocate.findings import Finding, Level
from dislocate.host.facts import find_own_address
from dislocate.io.keyring import Keyring, fingerprint, read_secrets

ANSWER_WITHIN = 1.0  # seconds for one question to a seed, more than twice the longest RTT of the region table
QUESTIONS = 3  # to each seed: one or two may be lost
CONNECT_WITHIN = 2.0  # seconds
FILES_WANTED = 4_096  # HTTP and DNS connections at their limits (2 x 512 + 64), links, files, and as much again
FILES_NEEDED = 256  # a quiet agent with a few watchers
SPACE_NEEDED = 8 << 20  # bytes free: below it the database and its log soon cannot grow, and registrations are refused
SPACE_WANTED = 100 << 20  # bytes free: a large fleet's last known state, several times over
CLOCK_TOLERANCE = 2.0  # seconds: histories of two hosts should read in one order
RELEASED = 1_767_225_600  # unix seconds, 2026: a clock before that was never set


def examine(path: FilePath) -> Iterator[Finding]:
    """Everything there is to say about an agent with the configuration at `path`.  Raises nothing."""
    try:
        config = load_config(path)
    except ConfigError as error:
        yield Finding("configuration", Level.FAIL, f"{error.field}: got {error.got!r}", f"expected {error.expected}")
        return
    yield Finding("configuration", Level.OK, f"{path} describes {config.path}")
    yield from examine_servers(config)
    secrets = yield from _secret(config)
    running = _running_agent(config)
    yield from _state_dir(config, running)
    yield from _ports(config, running)
    yield _file_limit()
    yield _clock()
    if secrets:
        yield from _seeds(config, Keyring(secrets))
    if running:
        yield from _own_agent(config)


# ---- the configuration itself


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


# ---- this host


def _secret(config: Config) -> Iterator[Finding]:
    path = FilePath(config.security.secret_file)
    try:
        secrets = read_secrets(path)
        mode = stat.S_IMODE(path.stat().st_mode)
    except (ConfigError, OSError) as error:
        yield _failure("secret", error)
        return ()
    marks = ", ".join(fingerprint(secret).hex() for secret in secrets)
    yield Finding("secret", Level.OK, f"{path} has fingerprint {marks}: the same on every host, if all is well")
    if mode & 0o077:
        yield Finding("secret", Level.WARN, f"{path} may be read by others (mode {mode:o})", f"chmod 600 {path}")
    return secrets


def _running_agent(config: Config) -> int:
    """The process that uses the state directory now, 0 for none."""
    try:
        with open(FilePath(config.node.state_dir) / "agent.lock", "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read(32).split()[0])
    except (OSError, ValueError, IndexError):
        pass  # no directory, no agent; what is wrong with the directory is found elsewhere
    return 0


def _state_dir(config: Config, running: int) -> Iterator[Finding]:
    path = FilePath(config.node.state_dir)
    mend = "a directory on a local disk that the agent's user may write: node.state_dir, its owner and mode"
    try:
        home = path if path.exists() else next(parent for parent in path.parents if parent.exists())
        with tempfile.NamedTemporaryFile(dir=home, prefix="doctor-"):
            free = shutil.disk_usage(home).free
    except OSError as error:
        yield Finding("state directory", Level.FAIL, f"{path}: {error.strerror or error}", mend)
        return
    if len(os.fsencode(path / "shaping.sock")) > UNIX_PATH_LIMIT:
        found = f"{path} is too long for the sockets in it ({UNIX_PATH_LIMIT} bytes)"
        yield Finding("state directory", Level.FAIL, found, "a shorter node.state_dir")
    elif free < SPACE_WANTED:
        found = f"{path} has {free >> 20} MiB left"
        level = Level.FAIL if free < SPACE_NEEDED else Level.WARN
        yield Finding("state directory", level, found, f"free at least {SPACE_WANTED >> 20} MiB")
    else:
        holder = f", used by the running agent (process {running})" if running else ""
        new = "" if path.exists() else " does not exist yet and can be made;"
        yield Finding("state directory", Level.OK, f"{path}{new} {free >> 30} GiB free{holder}")


def _ports(config: Config, running: int) -> Iterator[Finding]:
    ports, bind = config.ports, config.node.bind
    wanted = (
        ("http", ports.http, socket.SOCK_STREAM),
        ("gossip", ports.gossip, socket.SOCK_DGRAM),
        ("links", ports.links, socket.SOCK_STREAM),
        ("dns", ports.dns, socket.SOCK_DGRAM),
        ("dns", ports.dns, socket.SOCK_STREAM),
    )
    for name, port, kind in wanted:
        protocol = "tcp" if kind == socket.SOCK_STREAM else "udp"
        where = f"{protocol} {join_address(bind, port)}"
        what = f"port {name}"
        try:
            _bind(bind, port, kind).close()
        except OSError as error:
            if running:
                yield Finding(what, Level.OK, f"{where} is held, by the running agent (process {running}) as it seems")
            else:
                mend = f"ports.{name} or node.bind; who has it: ss -ln{protocol[0]}p 'sport = :{port}'"
                yield Finding(what, Level.FAIL, f"{where}: {error.strerror}", mend)
            continue
        if running:
            mend = "the running agent was started with another configuration: restart it"
            yield Finding(what, Level.WARN, f"{where} is free although the agent runs", mend)
        else:
            yield Finding(what, Level.OK, f"{where} is free")


def _bind(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, kind)
    try:
        if kind == socket.SOCK_STREAM:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of yesterday are no obstacle
        bound.bind((host, port))
    except OSError:
        bound.close()
        raise
    return bound


def _file_limit() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_WANTED:
        return Finding("open files", Level.OK, f"limit {soft}")
    limit = "unlimited" if hard == resource.RLIM_INFINITY else hard
    mend = f"ulimit -n {FILES_WANTED} before the start, or LimitNOFILE={FILES_WANTED} in the unit (hard limit: {limit})"
    found = f"limit {soft}, {FILES_WANTED} are wanted"
    return Finding("open files", Level.FAIL if soft < FILES_NEEDED else Level.WARN, found, mend)


def _clock() -> Finding:
    now = time.time()
    said = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    if now < RELEASED:
        return Finding("clock", Level.FAIL, f"{said} is in the past", "set it, with chrony or systemd-timesyncd")
    return Finding("clock", Level.OK, said)


# ---- others


def _seeds(config: Config, keyring: Keyring) -> Iterator[Finding]:
    node, port = config.node, config.ports.gossip
    own = [join_address(host, port) for host in (node.bind, node.advertise, node.advertise_wan) if host]
    others = [seed for seed in node.seeds if seed not in own]
    if node.seeds and not others:
        yield Finding("seeds", Level.OK, "only itself: fine for the first agent, if all others name it")
    elif not others:
        mend = "node.seeds: the gossip address of any agent, unless this is the first and all others name it"
        yield Finding("seeds", Level.WARN, "none: this agent waits to be found", mend)
    reached = False
    for seed in others:
        findings = list(_seed(config, keyring, seed))
        reached |= findings[0].level is Level.OK
        yield from findings
    if others and not reached:
        mend = "mend one of the seeds above, or name another agent in node.seeds"
        yield Finding("seeds", Level.FAIL, "no seed answers: this agent would stay alone", mend)


def _seed(config: Config, keyring: Keyring, seed: Address) -> Iterator[Finding]:
    what = f"seed {seed}"
    try:
        answer, took = _ask(config, keyring, seed)
    except socket.gaierror as error:
        mend = "an address, or a name that this host can look up (node.seeds)"
        yield Finding(what, Level.WARN, f"its name cannot be looked up: {error.strerror}", mend)
        return
    except ConnectionRefusedError:
        mend = "start the agent there, or correct the address and its gossip port in node.seeds"
        yield Finding(what, Level.WARN, "the host answers that no agent listens there (UDP)", mend)
        return
    except TimeoutError:
        yield _silent(config, seed, keyring)
        return
    except OSError as error:
        mend = "a route to that host: ip route get HOST"
        yield Finding(what, Level.WARN, f"no datagram can be sent there: {error.strerror}", mend)
        return
    path = answer.record.node.path
    yield Finding(what, Level.OK, f"{path} answers over UDP in {took * 1000:.1f} ms, with the same secret")
    if path == config.path and answer.record.gossip not in _own_gossip(config):
        mend = "give this agent another node.name, or stop the other; if it is this one, correct node.advertise"
        yield Finding("node.name", Level.FAIL, f"{path} is taken: an agent at {seed} answers to it", mend)
    yield _link_port(path, answer.record.wan_links or answer.record.links)
    if answer.unix:
        yield _compared_clock(path, answer.unix / SECOND - (time.time() - took / 2))


def _own_gossip(config: Config) -> list[Address]:
    """Where an agent with this configuration may say that it is: at `advertise`, or what it binds or sends from."""
    host = config.node.advertise or config.node.bind
    try:
        hosts = [find_own_address("node.advertise")] if ip_address(host).is_unspecified else [host]
    except ConfigError:
        hosts = []  # no default route: an agent would not start without node.advertise either
    return [join_address(host, config.ports.gossip) for host in hosts]


def _ask(config: Config, keyring: Keyring, seed: Address) -> tuple[ItIsI, float]:
    """Its answer, and the seconds that took.  Raises OSError; TimeoutError when it is silent."""
    host, port = split_address(seed)
    family, kind, _, _, target = socket.getaddrinfo(host, port, 0, socket.SOCK_DGRAM)[0]
    asker = NodeId(config.node.datacenter, config.node.name, 0)
    with socket.socket(family, kind) as udp:
        udp.bind((config.node.bind, 0))
        udp.connect(target)  # so that the kernel tells us of a refusal
        for seq in range(1, QUESTIONS + 1):
            began = time.monotonic()
            udp.send(keyring.seal(encode_envelope(asker, WhoIsThere(seq))))
            answer = _answer(udp, keyring, seq, began + ANSWER_WITHIN)
            if answer is not None:
                return answer, time.monotonic() - began
    raise TimeoutError


def _answer(udp: socket.socket, keyring: Keyring, seq: int, deadline: float) -> ItIsI | None:
    while (left := deadline - time.monotonic()) > 0:
        udp.settimeout(left)
        try:
            plain = keyring.open(udp.recv(2_048))
        except TimeoutError:
            return None
        if plain is None:
            continue
        try:
            body = decode_envelope(plain, "seed").body
        except PeerError:
            continue
        if type(body) is ItIsI and body.seq == seq:
            return body
    return None


def _silent(config: Config, seed: Address, keyring: Keyring) -> Finding:
    """No authentic answer: does its host live at all?  Its links port is taken to be as far off as ours."""
    host, port = split_address(seed)
    links = join_address(host, port + config.ports.links - config.ports.gossip)
    what = f"seed {seed}"
    try:
        _connect(links)
    except ConnectionRefusedError:
        mend = "start the agent there; correct node.seeds; or let UDP pass"
        return Finding(what, Level.WARN, f"silent over UDP, and nobody listens on TCP {links}", mend)
    except OSError:
        mend = "is the host up, its address right, and both ports open in the firewalls between? (UDP and TCP)"
        return Finding(what, Level.WARN, f"nothing answers, neither UDP {seed} nor TCP {links}", mend)
    mend = (
        "open UDP both ways in the firewalls between, or put the same secret on both hosts: "
        "run `dislocate doctor` there and compare the fingerprints"
    )
    found = f"TCP {links} accepts, but no authentic answer comes over UDP: it is blocked, or the secrets differ"
    return Finding(what, Level.WARN, found, mend)


def _link_port(path: str, links: Address) -> Finding:
    what = f"links to {path}"
    try:
        took = _connect(links)
    except OSError as error:
        mend = f"open TCP {links} in the firewalls between; agents in other data centers are heard on links only"
        return Finding(what, Level.FAIL, f"TCP {links} does not accept: {error.strerror or error}", mend)
    return Finding(what, Level.OK, f"TCP {links} accepts after {took * 1000:.1f} ms")


def _connect(address: Address) -> float:
    began = time.monotonic()
    socket.create_connection(split_address(address), CONNECT_WITHIN).close()
    return time.monotonic() - began


def _compared_clock(path: str, ahead: float) -> Finding:
    """`ahead`: by how many seconds the other clock is."""
    what = f"clock of {path}"
    if abs(ahead) <= CLOCK_TOLERANCE:
        return Finding(what, Level.OK, f"differs from ours by {abs(ahead) * 1000:.0f} ms")
    direction = "ahead of" if ahead > 0 else "behind"
    return Finding(
        what,
        Level.WARN,
        f"{abs(ahead):.0f} s {direction} ours: histories will not agree, though nothing else depends on it",
        "set both with chrony or systemd-timesyncd",
    )


# ---- the agent that runs here


def _own_agent(config: Config) -> Iterator[Finding]:
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


def _failure(what: str, error: LocalError | OSError) -> Finding:
    if isinstance(error, LocalError):
        return Finding(what, Level.FAIL, f"{error.field}: {error.got}", f"expected {error.expected}")
    return Finding(what, Level.FAIL, str(error), "see its owner and mode")


__all__ = ["Finding", "Level", "examine", "examine_servers"]
