"""Shaping: real traffic on one machine takes as long, and is lost and cut, as if data centers lay between.

Every agent shapes what it sends, by the delay and loss of that direction, and withholds what comes back over a cut one:
while a direction is cut nothing of it is delivered, whatever the kernel says.  Datagrams, refusals and connects are lost
then; what runs on links (messages, a link's opening and end) waits until the cut is healed, as with TCP.

Uses `linkmodel.Link`, as the simulator does, so a scenario means the same in both worlds.  Only scenarios, `dev` and
tests shape; traffic with a host that the plan does not name passes untouched.  Does no I/O: `steering` takes commands.
"""

from collections import deque
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Literal, TypeAlias

import msgspec
from msgspec import Struct, field

from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.identity import Address, NodeId, Path, split_address
from dislocate.core.streams import Streams
from dislocate.directions import Place, Selector, covers
from dislocate.io import clock
from dislocate.io.delayline import DelayLine
from dislocate.linkmodel import Channel, Link, LinkQuality

HELD_LIMIT = 1_024  # messages a cut link keeps, each way: what socket buffers would hold, about
CONTROL_SIZE = 64  # bytes of a packet that carries no data: SYN, RST, FIN, ICMP

Deliver: TypeAlias = Callable[[], object]

UNSHAPED = LinkQuality(delay=0, jitter=0.0)


class DirectedQuality(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The quality of every direction that `from` and `to` select; the last that fits holds."""

    from_: Selector = field(name="from")
    to: Selector
    delay: int = 0  # nanoseconds, one way
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    bandwidth: int = 0  # bytes a second; 0: not limited

    def quality(self) -> LinkQuality:
        return LinkQuality(
            delay=self.delay,
            jitter=self.jitter,
            loss=self.loss,
            duplicate=self.duplicate,
            bandwidth=self.bandwidth,
        )


class ShapingPlan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who lives where, and how far apart: the same for all agents of a fleet, but for `own`."""

    own: Path
    hosts: dict[str, Place]  # IP address or network ('127.0.2.0/24') -> place; the most specific holds
    qualities: tuple[DirectedQuality, ...] = ()
    seed: str = "shaping"


class Steer(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One change while running.  `heal` undoes `cut`; `slow` with factor 1 and `loss` with 0 undo themselves."""

    do: Literal["cut", "heal", "slow", "loss"]
    from_: Selector | tuple[Selector, ...] = field(name="from")
    to: Selector | tuple[Selector, ...]
    oneway: bool = False
    channels: tuple[Channel, ...] = tuple(Channel)  # of a cut or heal
    factor: float = 1.0  # of a slowed delay
    loss: float = 0.0  # added to the loss of the link

    def covers(self, sender: Place, receiver: Place) -> bool:
        """Whether the direction from `sender` to `receiver` is meant."""
        origins, targets = _as_tuple(self.from_), _as_tuple(self.to)
        return covers(origins, targets, sender, receiver) or (
            not self.oneway and covers(targets, origins, sender, receiver)
        )


def read_plan(text: bytes) -> ShapingPlan:
    """The plan in a JSON file.  Raises `ConfigError`."""
    try:
        plan = msgspec.json.decode(text, type=ShapingPlan)
        for network in plan.hosts:
            ip_network(network)
    except (msgspec.MsgspecError, ValueError) as error:
        raise ConfigError("shaping", got=str(error), expected="a plan: own, hosts, qualities, seed") from error
    return plan


def _as_tuple(selectors: Selector | tuple[Selector, ...]) -> tuple[Selector, ...]:
    return (selectors,) if isinstance(selectors, str) else selectors


class Pair:
    """Both directions between this agent and one place, and what waits for a heal."""

    def __init__(self, out: Link, back: Link) -> None:
        self.out = out
        self.back = back
        self.outgoing: deque[Deliver] = deque()
        self.incoming: deque[tuple[bool, Deliver]] = deque()  # (needs both directions, what)
        self.leaves = 0  # nothing that goes on the link overtakes what went before,
        self.arrives = 0  # nor what comes
        self.arriving = 0  # of that, how much is in the delay line

    def is_cut(self, channel: Channel) -> bool:
        return self.out.is_cut(channel) or self.back.is_cut(channel)

    def is_deaf(self, needs_both: bool) -> bool:
        return self.back.is_cut(Channel.LINKS) or (needs_both and self.out.is_cut(Channel.LINKS))


class Shaping:
    """The links of one agent, seen from it.  All verbs return at once; `stop` forgets what is under way."""

    def __init__(self, plan: ShapingPlan, now: clock.Now = clock.monotonic) -> None:
        self.plan = plan
        self._now = now
        self._line = DelayLine(now)
        self._streams = Streams(f"{plan.seed}/{plan.own}")
        self._networks = sorted(
            ((ip_network(network), place) for network, place in plan.hosts.items()),
            key=lambda entry: -entry[0].prefixlen,
        )
        self._places: dict[str, Place | None] = {}  # by host
        self._pairs: dict[Place, Pair] = {}
        self._steered: dict[tuple[object, ...], Steer] = {}  # what holds now, in order, for pairs yet to come

    def flush(self, timeout: float) -> None:
        """Wait until all that is under way has arrived (not what a cut holds), `timeout` seconds at most."""
        self._line.flush(timeout)

    def stop(self) -> None:
        self._line.stop()

    def place(self, address: Address) -> Place | None:
        """Where `address` is; None: not in the plan."""
        host = split_address(address)[0]
        if host not in self._places:
            if len(self._places) >= 4_096:  # addresses come from the network
                self._places.clear()
            self._places[host] = self._look_up(host)
        return self._places[host]

    # ---- datagrams

    def send_datagram(self, address: Address, size: int, send: Deliver) -> None:
        """Call `send` when the datagram would arrive; never, once or twice."""
        pair = self._pair_at(address)
        if pair is None:
            send()
            return
        for at in pair.out.datagram(size, self._now()):
            self._line.put(at, lambda: pair.out.is_cut(Channel.UDP) or send())

    def hears(self, address: Address) -> bool:
        """Whether a datagram that came from `address` may be delivered: its sender may not know of a cut yet."""
        pair = self._pair_at(address)
        return pair is None or not pair.back.is_cut(Channel.UDP)

    def return_refusal(self, address: Address, deliver: Deliver) -> None:
        """Call `deliver` when the answer of the host at `address` (ICMP) would arrive, if it does."""
        pair = self._pair_at(address)
        if pair is None:
            deliver()
        elif not pair.is_cut(Channel.UDP):
            for at in pair.back.datagram(CONTROL_SIZE, self._now())[:1]:
                self._line.put(at, lambda: pair.is_cut(Channel.UDP) or deliver())

    # ---- connects

    def connect_delay(self, address: Address) -> int | None:
        """Nanoseconds that a connect to `address` takes; None while a direction is cut: it times out."""
        pair = self._pair_at(address)
        if pair is None:
            return 0
        now = self._now()
        there = pair.out.message(CONTROL_SIZE, now)
        back = pair.back.message(CONTROL_SIZE, now)
        return None if there is None or back is None else there + back - 2 * now

    # ---- links

    def send_message(self, peer: NodeId, size: int, send: Deliver) -> bool:
        """Call `send` when the message would arrive, in order, after a heal if need be.  False: too much waits already."""
        pair = self._pair(peer.path)
        if len(pair.outgoing) >= HELD_LIMIT:
            return False
        now = self._now()
        pair.leaves = max(pair.leaves, pair.out.message(size, now) or now)
        self._line.put(pair.leaves, lambda: _leave(pair, send))
        return True

    def receive_message(self, peer: NodeId, deliver: Deliver) -> None:
        """Deliver a message that came from `peer`: now, unless what came before it still waits."""
        self._arrive(self._pair(peer.path), 0, needs_both=False, deliver=deliver)

    def report_link(self, peer: NodeId, deliver: Deliver) -> None:
        """Deliver the news that the link to `peer` opened or ended when it would be known here."""
        pair = self._pair(peer.path)
        at = pair.back.message(CONTROL_SIZE, self._now())
        self._arrive(pair, at or 0, needs_both=True, deliver=deliver)

    def is_cut(self, peer: NodeId) -> bool:
        """Whether links to `peer` are cut in either direction: a dial cannot succeed now."""
        return self._pair(peer.path).is_cut(Channel.LINKS)

    def _arrive(self, pair: Pair, at: int, *, needs_both: bool, deliver: Deliver) -> None:
        now = self._now()
        pair.arrives = max(pair.arrives, at, now)
        if pair.arrives == now and not pair.arriving:
            _deliver(pair, needs_both, deliver)
            return
        pair.arriving += 1

        def arrive() -> None:
            pair.arriving -= 1
            _deliver(pair, needs_both, deliver)

        self._line.put(pair.arrives, arrive)

    # ---- an application's own streams

    def links_with(self, address: Address) -> tuple[Link, Link] | None:
        """The way to `address` and the way back, as they are steered; None: nothing lies between.  Their channel is
        `APP`; who carries streams over them keeps the order of each."""
        pair = self._pair_at(address)
        return None if pair is None else (pair.out, pair.back)

    # ---- steering

    def steer(self, command: Steer) -> int:
        """Apply `command` to the links that it selects; how many directions of this agent that were."""
        kind = "cut" if command.do == "heal" else command.do
        key = (kind, command.from_, command.to, command.oneway, tuple(sorted(c.value for c in command.channels)))
        self._steered.pop(key, None)  # outdone whole by the new one
        self._steered[key] = command
        changed = sum(self._apply(command, place, pair) for place, pair in self._pairs.items())
        for pair in self._pairs.values():
            _release(pair)
        return changed

    def _apply(self, command: Steer, place: Place, pair: Pair) -> int:
        changed = 0
        for link, sender, receiver in ((pair.out, self.plan.own, place), (pair.back, place, self.plan.own)):
            if command.covers(sender, receiver):
                changed += 1
                _steer_link(command, link)
        return changed

    # ---- places

    def _look_up(self, host: str) -> Place | None:
        try:
            address = ip_address(host)
        except ValueError:
            return None  # a name: the plan knows addresses only
        return next((place for network, place in self._networks if address in network), None)

    def _pair_at(self, address: Address) -> Pair | None:
        try:
            place = self.place(address)
        except LocalError:
            return None
        return None if place is None or place == self.plan.own else self._pair(place)

    def _pair(self, place: Place) -> Pair:
        pair = self._pairs.get(place)
        if pair is None:
            pair = Pair(self._link(self.plan.own, place), self._link(place, self.plan.own))
            self._pairs[place] = pair
            for command in self._steered.values():
                self._apply(command, place, pair)
        return pair

    def _link(self, sender: Place, receiver: Place) -> Link:
        quality = UNSHAPED
        for rule in self.plan.qualities:
            if covers((rule.from_,), (rule.to,), sender, receiver):
                quality = rule.quality()
        return Link(quality, self._streams[f"{sender} > {receiver}"])


def _leave(pair: Pair, send: Deliver) -> None:
    if pair.outgoing or pair.out.is_cut(Channel.LINKS):
        pair.outgoing.append(send)
    else:
        send()


def _deliver(pair: Pair, needs_both: bool, deliver: Deliver) -> None:
    if pair.incoming or pair.is_deaf(needs_both):
        pair.incoming.append((needs_both, deliver))
    else:
        deliver()


def _release(pair: Pair) -> None:
    """What waited for a heal goes, in order, as far as it may."""
    while pair.outgoing and not pair.out.is_cut(Channel.LINKS):
        pair.outgoing.popleft()()
    while pair.incoming and not pair.is_deaf(pair.incoming[0][0]):
        pair.incoming.popleft()[1]()


def _steer_link(command: Steer, link: Link) -> None:
    channels = frozenset(command.channels)
    match command.do:
        case "cut":
            link.cut(channels)
        case "heal":
            link.heal(channels)
        case "slow":
            link.slow_factor = command.factor
        case "loss":
            link.extra_loss = command.loss
