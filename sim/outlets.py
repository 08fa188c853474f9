"""Outlets: where a node's effects go in the simulated world, as `dislocate.io.outlets` is where they go in the real one.

Each verb returns at once; what it causes comes back later as an input, through `deliver`.  Both worlds pass the same
conformance suite.  Does not know nodes, nor what an event means.
"""

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from msgspec.structs import replace

from dislocate.core.boundary.effects import (
    CancelTask,
    CloseLink,
    OpenLink,
    Reply,
    RunCheck,
    RunTask,
    SendDatagram,
    SendMessage,
    Store,
    TryConnect,
)
from dislocate.core.boundary.inputs import (
    CheckCompleted,
    ConnectTried,
    DatagramReceived,
    Input,
    SendFailed,
    Stored,
    StoreFailed,
    TaskProgressed,
)
from dislocate.core.boundary.runs import TaskVerb
from dislocate.core.boundary.values import ConnectOutcome, Refusal
from dislocate.core.streams import Streams
from dislocate.core.tunables import CONNECT_TIMEOUT
from dislocate.linkmodel import UDP, Link
from sim.disk import Write
from sim.host import SURVIVES, TIMED_OUT
from sim.links import Links
from sim.network import Network
from sim.process import Machine, Process
from sim.schedule import Schedule
from sim.services import ServiceLife, refused

REFUSAL_SIZE = 64  # bytes of an ICMP port unreachable

Deliver: TypeAlias = Callable[[Process, Input], None]


class Outlets:
    """Those of all machines of one world."""

    def __init__(
        self,
        machines: Collection[Machine],
        *,
        schedule: Schedule,
        network: Network,
        streams: Streams,
        deliver: Deliver,
    ) -> None:
        self._by_gossip = {machine.gossip: machine for machine in machines}
        self._by_links = {machine.links: machine for machine in machines}
        self._schedule = schedule
        self._network = network
        self._streams = streams
        self._deliver = deliver
        self.links = Links(schedule, network, self._by_links, deliver)
        self.verbs: dict[type, Callable[[Process, Any], None]] = {
            SendDatagram: self._send_datagram,
            SendMessage: self._send_message,
            OpenLink: self.links.open,
            CloseLink: self.links.close,
            TryConnect: self._try_connect,
            Store: self._store,
            Reply: self._reply,
            RunCheck: self._run_check,
            RunTask: self._run_task,
            CancelTask: lambda _process, _effect: None,  # what is simulated takes no harm from going on
        }

    # ---- datagrams

    def _send_datagram(self, process: Process, effect: SendDatagram) -> None:
        data, machine = effect.data, process.machine
        size = len(data)
        machine.datagrams_sent += 1
        machine.bytes_sent += size
        target = self._by_gossip.get(effect.address)
        if target is None:  # no such host: silence
            return
        schedule, link = self._schedule, self._network.rows[machine.index][target.index]
        for at in link.datagram(size, schedule.now):
            schedule.call(at, self._datagram_due, target, DatagramReceived(machine.gossip, data), link)

    def _datagram_due(self, machine: Machine, received: DatagramReceived, link: Link) -> None:
        process = machine.process
        if link.is_cut(UDP):
            return
        if process is not None:
            self._deliver(process, received)
        elif machine.is_powered:
            origin = self._by_gossip[received.source]
            back = self._network.rows[machine.index][origin.index]
            for at in back.datagram(REFUSAL_SIZE, self._schedule.now):
                self._schedule.call(at, self._refusal_due, origin, machine.gossip, back)

    def _refusal_due(self, machine: Machine, address: str, link: Link) -> None:
        if machine.process is not None and not link.is_cut(UDP):
            self._deliver(machine.process, SendFailed(address, Refusal.REFUSED))

    # ---- streams

    def _send_message(self, process: Process, effect: SendMessage) -> None:
        process.machine.messages_sent += 1
        process.machine.bytes_sent += len(effect.data)
        self.links.send(process, effect)

    def _try_connect(self, process: Process, effect: TryConnect) -> None:
        now = self._schedule.now
        target = self._by_links.get(effect.address) or self._by_gossip.get(effect.address)
        arrival = None
        if target is not None and target.is_powered:
            arrival = self._network.rows[process.machine.index][target.index].segment(0, now)
        if target is None or arrival is None or arrival - now > CONNECT_TIMEOUT:
            tried = ConnectTried(effect.address, ConnectOutcome.TIMED_OUT)
            self._schedule.call(now + CONNECT_TIMEOUT, self._answer_due, process, tried)
            return
        self._schedule.call(arrival, self._connect_arrived, process, effect.address, target)

    def _connect_arrived(self, process: Process, address: str, target: Machine) -> None:
        now = self._schedule.now
        is_listening = target.process is not None and address == target.links
        outcome = ConnectOutcome.ACCEPTED if is_listening else ConnectOutcome.REFUSED
        back = self._network.rows[target.index][process.machine.index].segment(0, now)
        if back is None or not target.is_powered:
            back, outcome = now + CONNECT_TIMEOUT, ConnectOutcome.TIMED_OUT
        self._schedule.call(back, self._answer_due, process, ConnectTried(address, outcome))

    def _answer_due(self, process: Process, answer: Input, _: None) -> None:
        self._deliver(process, answer)

    # ---- the host

    def _store(self, process: Process, effect: Store) -> None:
        write, at = process.machine.disk.submit(effect, self._schedule.now)
        self._schedule.call(at, self._write_due, process, write, effect.seq)

    def _write_due(self, process: Process, write: Write, seq: int) -> None:
        process.put_off.append((write, seq))
        self._complete_writes(process, None, None)

    def _complete_writes(self, process: Process, _payload: None, _extra: None) -> None:
        """In order, all whose time is over: what a stall has put off comes before what began after it."""
        disk = process.machine.disk
        if disk.stalled_until > self._schedule.now:
            self._schedule.call(disk.stalled_until, self._complete_writes, process)
            return
        while process.put_off and process.is_running:
            write, seq = process.put_off.popleft()
            failure = disk.complete(write)
            self._deliver(process, StoreFailed(seq, failure) if failure else Stored(seq))

    def _reply(self, process: Process, effect: Reply) -> None:
        asker = process.requests.pop(effect.request_id, None)
        if asker is not None:
            asker.then(effect.result)

    def _run_check(self, process: Process, effect: RunCheck) -> None:
        outcome, takes = refused()
        for service in process.machine.services.values():
            check = service.spec.check
            if check is not None and check.http == effect.spec.http:
                outcome, takes = service.check(effect.spec, self._streams["checks"])
        self._schedule.call(
            self._schedule.now + takes, self._answer_due, process, CheckCompleted(effect.check_id, outcome)
        )

    def _run_task(self, process: Process, effect: RunTask) -> None:
        host, task, now = process.machine.host, effect.task, self._schedule.now
        takes = host.takes(task, self._streams[f"tasks/{process.machine.path}"])
        allowed = task.resource.timeout
        if takes > allowed:
            self._schedule.call(now + allowed, self._answer_due, process, TaskProgressed(effect.task_id, TIMED_OUT))
        elif task.verb is TaskVerb.LOOK:
            self._schedule.call(now + takes, self._looked, process, effect)
        else:
            self._schedule.call(now + takes * 3 // 4, self._changed, process, effect, takes)

    def _looked(self, process: Process, effect: RunTask, _: None) -> None:
        if process.is_running:
            self._deliver(process, TaskProgressed(effect.task_id, process.machine.host.look(effect.task)))

    def _changed(self, process: Process, effect: RunTask, takes: int) -> None:
        """The instant at which it is done; the agent hears of it a little later."""
        machine, schedule = process.machine, self._schedule
        survives = process.is_running or self._streams[f"tasks/{machine.path}"].chance(SURVIVES)
        if not survives or not machine.is_powered:
            return
        outcome = replace(machine.host.change(effect.task, schedule.now), took=takes)
        broken = machine.host.broken_services()
        for service in machine.services.values():
            was_broken = service.is_broken
            service.is_broken = service.spec.service in broken
            if service.is_broken != was_broken:
                service.was_touched = True
                service.life = ServiceLife.DOWN if service.is_broken else ServiceLife.UP
        schedule.call(schedule.now + takes // 4, self._answer_due, process, TaskProgressed(effect.task_id, outcome))
