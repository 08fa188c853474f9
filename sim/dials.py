"""Dials: what has to pass between two agents before one may ask the other for a link, and who says no.

TCP's handshake, ZeroMQ's greetings, CURVE and the link's own hello take six round trips together (measured on `io.links`
through a relay that delays: another key is found out after four, a stranger is turned away after five).  A host without
an agent refuses at once; the kernel of a stopped agent accepts, and nothing more is said until it runs again.  A cut or
a host without power is silence, which the dialler's patience ends.

Invariant: a dial ends once: it becomes a link, or `failed` is called for it, or its dialler abandons it.
Does not know links: what comes of a hello is decided by `links`.
"""

from collections.abc import Callable
from enum import IntEnum

from dislocate.core.boundary.effects import OpenLink
from dislocate.core.identity import Path
from dislocate.core.units import SECOND
from sim.network import Network
from sim.process import Machine, Process
from sim.schedule import Schedule

DIAL_TIMEOUT = 5 * SECOND  # of `io.links`


class Step(IntEnum):
    """What the dialler says, each answered before the next."""

    SIGNATURE = 0  # ZMTP's greeting comes in two parts (ZeroMQ RFC 37)
    MECHANISM = 1
    CURVE_HELLO = 2  # sealed with the key that is dialled
    CURVE_INITIATE = 3  # tells who dials
    HELLO = 4  # the link's own: which start means to reach which


class Dial:
    """One attempt to open a link."""

    __slots__ = ("acceptor", "dialler", "effect")

    acceptor: Process  # who ran there when the SYN came

    def __init__(self, dialler: Process, effect: OpenLink) -> None:
        self.dialler = dialler
        self.effect = effect

    @property
    def path(self) -> Path:
        return self.effect.peer.path


class Dials:
    """All dials of one world that are under way: at most one of each process to each path."""

    def __init__(
        self,
        schedule: Schedule,
        network: Network,
        *,
        said_hello: Callable[[Dial], None],
        failed: Callable[[Dial, str], None],
    ) -> None:
        self._schedule = schedule
        self._network = network
        self._said_hello = said_hello
        self._failed = failed
        self._under_way: dict[tuple[Process, Path], Dial] = {}
        self._held: dict[Process, list[tuple[Dial, Step]]] = {}  # what a stopped acceptor has not read

    def find(self, process: Process, path: Path) -> Dial | None:
        """The dial of `process` to `path` that is under way."""
        return self._under_way.get((process, path))

    def of(self, process: Process) -> list[Dial]:
        """What `process` dials now."""
        return [dial for (dialler, _), dial in self._under_way.items() if dialler is process]

    def is_under_way(self, dial: Dial) -> bool:
        return self._under_way.get((dial.dialler, dial.path)) is dial

    def begin(self, process: Process, effect: OpenLink, machine: Machine | None) -> None:
        """Dial the agent on `machine`; None: no host has that address."""
        dial = self._under_way[process, effect.peer.path] = Dial(process, effect)
        self._schedule.call(self._schedule.now + DIAL_TIMEOUT, self._fail_due, dial, "timed out")
        if machine is not None and (arrival := self._segment(process.machine, machine)) is not None:
            self._schedule.call(arrival, self._syn_arrived, dial, machine)

    def abandon(self, dial: Dial) -> None:
        """It leads nowhere any more, or has led to a link."""
        if self.is_under_way(dial):
            del self._under_way[dial.dialler, dial.path]

    def fail(self, dial: Dial, reason: str) -> None:
        """The dialler knows that nothing comes of it."""
        if self.is_under_way(dial):
            self.abandon(dial)
            self._failed(dial, reason)

    def refuse(self, dial: Dial, reason: str) -> None:
        """The acceptor says no, or its kernel does: the dialler hears of it one delay later."""
        back = self._segment(dial.acceptor.machine, dial.dialler.machine)
        if back is not None and dial.acceptor.machine.is_powered:
            self._schedule.call(back, self._fail_due, dial, reason)

    def process_resumed(self, process: Process) -> None:
        """It reads what was said to it meanwhile."""
        for dial, step in self._held.pop(process, ()):
            self._said(dial, step, None)

    def process_died(self, process: Process) -> None:
        """Its own dials are no more; its kernel ends those that it had not read."""
        for dial in self.of(process):
            self.abandon(dial)
        for dial, _ in self._held.pop(process, ()):
            self.refuse(dial, "disconnected")

    def _syn_arrived(self, dial: Dial, machine: Machine, _: None) -> None:
        back = self._segment(machine, dial.dialler.machine)
        if not machine.is_powered or back is None:
            return
        if machine.process is None:
            self._schedule.call(back, self._fail_due, dial, "refused")
            return
        dial.acceptor = machine.process
        self._schedule.call(back, self._answered, dial, Step.SIGNATURE)

    def _answered(self, dial: Dial, step: Step, _: None) -> None:
        """The dialler says what comes next."""
        there = self._segment(dial.dialler.machine, dial.acceptor.machine)
        if there is not None and self.is_under_way(dial):
            self._schedule.call(there, self._said, dial, step)

    def _said(self, dial: Dial, step: Step, _: None) -> None:
        """The acceptor hears it."""
        acceptor, dialler = dial.acceptor, dial.dialler
        if not self.is_under_way(dial):
            return
        if not acceptor.is_running:
            self.refuse(dial, "disconnected")
        elif acceptor.is_paused:
            self._held.setdefault(acceptor, []).append((dial, step))
        elif step is Step.CURVE_HELLO and acceptor.machine.public_key != dial.effect.public_key:
            self.refuse(dial, "handshake failed: another key or no agent answers there")
        elif step is Step.CURVE_INITIATE and not _knows(acceptor, dialler):
            self.refuse(dial, "not authenticated")
        elif step is Step.HELLO:
            self._said_hello(dial)
        elif (back := self._segment(acceptor.machine, dialler.machine)) is not None:
            self._schedule.call(back, self._answered, dial, Step(step + 1))

    def _fail_due(self, dial: Dial, reason: str, _: None) -> None:
        self.fail(dial, reason)

    def _segment(self, origin: Machine, target: Machine) -> int | None:
        return self._network.rows[origin.index][target.index].segment(0, self._schedule.now)


def _knows(acceptor: Process, dialler: Process) -> bool:
    """Whether the acceptor's member table binds the dialler's key to its path, as `io.links.zap` asks."""
    view = acceptor.node.member(dialler.node_id.path)
    return view is not None and view.public_key == dialler.machine.public_key
