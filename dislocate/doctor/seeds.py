"""The doctor on others: does a seed answer, over UDP and on its links, who is it, and what does its clock say?

Asks with `WhoIsThere`, which makes this agent no member.  Of an agent that keeps silent it tells apart what can be told
apart from here: an unknown name, a refusal, no route, a host that is down, and UDP that is blocked or another secret.
"""

import socket
import time
from collections.abc import Iterator
from ipaddress import ip_address

from dislocate.config import Config
from dislocate.core.errors import ConfigError, PeerError
from dislocate.core.identity import Address, NodeId, join_address, split_address
from dislocate.core.membership.messages import ItIsI, WhoIsThere
from dislocate.core.units import SECOND
from dislocate.core.wire import decode_envelope, encode_envelope
from dislocate.findings import Finding, Level
from dislocate.host.facts import find_own_address
from dislocate.io.keyring import Keyring

ANSWER_WITHIN = 1.0  # seconds for one question to a seed, more than twice the longest RTT of the region table
QUESTIONS = 3  # to each seed: one or two may be lost
CONNECT_WITHIN = 2.0  # seconds
CLOCK_TOLERANCE = 2.0  # seconds: histories of two hosts should read in one order


def examine_seeds(config: Config, keyring: Keyring) -> Iterator[Finding]:
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
