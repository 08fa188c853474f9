"""Outlets: where a node's effects go in the real world.

Each verb returns at once; what it causes comes back later as an input.  `Outlets` owns the socket, the links, the disk and
the pools of one agent, and closes them in the order in which they need each other.
"""

import logging
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool

from dislocate.core.boundary.effects import (
    CancelTask,
    CloseLink,
    OpenLink,
    RunCheck,
    RunTask,
    SendDatagram,
    SendMessage,
    Store,
    TryConnect,
)
from dislocate.core.boundary.inputs import CheckCompleted, Input, TaskProgressed
from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.values import CheckOutcome, CheckSpec, Status
from dislocate.core.identity import Address, NodeId
from dislocate.core.units import SECOND
from dislocate.io.connects import Connects
from dislocate.io.disk import Disk
from dislocate.io.shaping import Shaping

FAREWELL = 0.1  # seconds: ZeroMQ hands over on a thread of its own, and what it has not sent when it is closed is lost
CHECKS = 64  # at a time; a further one waits for a place, so that slow checks bound what they cost

# Runs one check and says what it found; may wait (its own greenlet), keeps to the timeout of the spec.
RunsCheck = Callable[[CheckSpec], CheckOutcome]

log = logging.getLogger(__name__)


class Datagrams(Protocol):
    """`udp.DatagramSocket`, or a test's."""

    reader: gevent.Greenlet

    def send(self, address: Address, plain: bytes) -> None: ...
    def close(self) -> None: ...


class PeerLinks(Protocol):
    """`links.Links`, or a test's."""

    def open(self, peer: NodeId, address: Address, public_key: bytes) -> None: ...
    def close(self, peer: NodeId) -> None: ...
    def send(self, peer: NodeId, data: bytes) -> None: ...
    def become(self, node: NodeId) -> None: ...
    def stop(self) -> None: ...


class RunsTasks(Protocol):
    """`host.tasks.Tasks`, or a test's."""

    def run(self, effect: RunTask) -> None: ...
    def cancel(self, effect: CancelTask) -> None: ...
    def close(self) -> None: ...


class NoTasks:
    """Nobody here carries out tasks: each is answered so."""

    def __init__(self, deliver: Callable[[Input], object]) -> None:
        self._deliver = deliver

    def run(self, effect: RunTask) -> None:
        words = "this agent carries out no tasks"
        self._deliver(TaskProgressed(effect.task_id, TaskOutcome(TaskResult.FAILED, kind="apply", words=words)))

    def cancel(self, effect: CancelTask) -> None: ...
    def close(self) -> None: ...


class Outlets:
    """All of them, of one agent.  `deliver` takes what comes back."""

    def __init__(
        self,
        *,
        datagrams: Datagrams,
        links: PeerLinks,
        disk: Disk,
        run_check: RunsCheck,
        deliver: Callable[[Input], object],
        shaping: Shaping | None = None,
        tasks: RunsTasks | None = None,
    ) -> None:
        self.connects = Connects(deliver, shaping)
        self.datagrams = datagrams
        self.links = links
        self.disk = disk
        self._run_check = run_check
        self._deliver = deliver
        self._shaping = shaping
        self._tasks = tasks or NoTasks(deliver)
        self._checks = Pool()
        self._places = BoundedSemaphore(CHECKS)
        self.verbs: dict[type, Callable[[Any], object]] = {
            SendDatagram: lambda effect: datagrams.send(effect.address, effect.data),
            SendMessage: lambda effect: links.send(effect.peer, effect.data),
            OpenLink: lambda effect: links.open(effect.peer, effect.address, effect.public_key),
            CloseLink: lambda effect: links.close(effect.peer),
            TryConnect: lambda effect: self.connects.attempt(effect.address),
            Store: lambda effect: disk.store(effect, deliver),
            RunCheck: lambda effect: self._checks.spawn(self._check, effect.check_id, effect.spec),
            RunTask: self._tasks.run,
            CancelTask: self._tasks.cancel,
        }

    @property
    def essential(self) -> tuple[gevent.Greenlet, ...]:
        """Greenlets without which the agent must not go on."""
        return (self.datagrams.reader, self.disk.writer)

    def flush(self, timeout: float) -> None:
        """Wait until what is to be stored is stored and what the shaping delays is sent, each `timeout` seconds at most."""
        self.disk.flush(timeout)
        if self._shaping is not None:
            self._shaping.flush(timeout)

    def close(self) -> None:
        """Let go of everything; what was to be stored is stored, and farewells had their moment."""
        gevent.sleep(FAREWELL)
        self._checks.kill()
        self._tasks.close()
        self.connects.stop()
        self.links.stop()
        self.datagrams.close()
        if self._shaping is not None:
            self._shaping.stop()
        self.disk.close()

    def _check(self, check_id: str, spec: CheckSpec) -> None:
        """A check that raises, or outstays its timeout by half a second, is critical: the core waits for its answer."""
        limit = spec.timeout / SECOND + 0.5
        outcome = CheckOutcome(Status.CRITICAL, f"did not end within {limit:g} s", round(limit * SECOND))
        try:
            with self._places, gevent.Timeout(limit, False):
                outcome = self._run_check(spec)
        except Exception as error:
            log.exception("check %s could not be run", check_id)
            outcome = CheckOutcome(Status.CRITICAL, f"could not be run: {error}")
        self._deliver(CheckCompleted(check_id, outcome))
