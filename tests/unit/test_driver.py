"""The driver with real sockets and a real disk: order, time, requests, ends."""

import logging
import time
from collections.abc import Callable
from pathlib import Path as FilePath

import gevent
import pytest
from gevent import socket

from dislocate.core.boundary.effects import (
    CloseLink,
    Notify,
    OpenLink,
    Reply,
    RunCheck,
    SendDatagram,
    SendMessage,
    Store,
    TryConnect,
)
from dislocate.core.boundary.events import RelayChanged
from dislocate.core.boundary.inputs import (
    CheckCompleted,
    ClockRead,
    ConnectTried,
    DatagramReceived,
    LoadReported,
    RequestCancelled,
    Requested,
    Stopped,
    Stored,
    TimeReached,
)
from dislocate.core.boundary.requests import Deregister, Done, Refused
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.values import CheckOutcome, CheckSpec, ConnectOutcome, Load, Status, StoredRecord
from dislocate.core.errors import Bug
from dislocate.core.identity import NodeId, join_address
from dislocate.core.outbox import NEVER
from dislocate.core.recording import read_frames, replay
from dislocate.core.units import MILLISECOND
from dislocate.io import driver as driver_module
from dislocate.io.disk import Disk
from dislocate.io.driver import Driver
from dislocate.io.keyring import Keyring
from dislocate.io.outlets import Outlets
from dislocate.io.recorder import Recorder
from dislocate.io.udp import DatagramSocket
from tests.support.addresses import free_address, free_port, own_host

SECRET = bytes(32)


def until(claim: Callable[[], object], seconds: float = 60.0) -> None:
    with gevent.Timeout(seconds):
        while not claim():
            gevent.sleep(0.002)


class ScriptedNode:
    """Stands for `Node`: notes what it is told, answers what the test wrote."""

    def __init__(self, identity: NodeId) -> None:
        self.identity = identity
        self.told: list[object] = []
        self.answers: dict[type, Callable[[object], list[object]]] = {}
        self.wants = NEVER

    def start(self, now: int) -> list[object]:
        self.told.append("start")
        return []

    def handle(self, input_: object, now: int) -> list[object]:
        self.told.append(input_)
        if type(input_) is TimeReached:
            self.wants = NEVER
        answer = self.answers.get(type(input_))
        return [] if answer is None else answer(input_)

    def deadline(self) -> int:
        return self.wants

    def heard(self, kind: type) -> list[object]:
        return [each for each in self.told if type(each) is kind]


class NotedLinks:
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def open(self, *args: object) -> None:
        self.calls.append(("open", *args))

    def close(self, *args: object) -> None:
        self.calls.append(("close", *args))

    def send(self, *args: object) -> None:
        self.calls.append(("send", *args))

    def become(self, *args: object) -> None:
        self.calls.append(("become", *args))

    def stop(self) -> None:
        self.calls.append(("stop",))


def settings(port: int, name: str = "a1", seeds: tuple[str, ...] = ()) -> Settings:
    address = join_address(own_host(), port)
    return Settings(node=NodeId("fra", name, 1), nonce=1, gossip=address, links="127.0.0.1:1", seeds=seeds)


class Agent:
    """A driver with everything that it needs, and a scripted node unless `real`."""

    def __init__(self, state_dir: FilePath, *, real: bool = False, run_check=None, **options) -> None:
        port = free_port()
        seeds = options.pop("seeds", ())
        self.settings = settings(port, options.pop("name", "a1"), seeds)
        record = options.pop("record", None)
        recorder = record and Recorder(record, self.settings, "7", Recovered())
        self.driver = Driver(settings=self.settings, seed="7", recovered=Recovered(), recorder=recorder, **options)
        self.node = self.driver.node
        if not real:
            self.node = self.driver.node = ScriptedNode(self.driver.node.identity)
        self.links = NotedLinks()
        self.disk = Disk(state_dir)
        self.outlets = Outlets(
            datagrams=DatagramSocket(
                bind=self.settings.gossip, keyring=Keyring((SECRET,)), deliver=self.driver.deliver
            ),
            links=self.links,
            disk=self.disk,
            run_check=run_check or (lambda spec: CheckOutcome(Status.PASSING)),
            deliver=self.driver.deliver,
        )

    def start(self) -> "Agent":
        self.driver.start(self.outlets)
        return self


@pytest.fixture
def agent(tmp_path):
    agents: list[Agent] = []

    def make(**options) -> Agent:
        agents.append(Agent(tmp_path / str(len(agents)), **options))
        return agents[-1]

    yield make
    for each in agents:
        each.driver.stop("the test is over")


def test_two_agents_meet_over_real_sockets(agent):
    first = agent(real=True, name="a1").start()
    second = agent(real=True, name="a2", seeds=(first.settings.gossip,)).start()
    until(lambda: "fra/a2" in first.driver.node.members and "fra/a1" in second.driver.node.members)
    assert first.driver.known_key(bytes(32)) == "fra/a1"
    assert first.driver.known_key(b"\1" * 32) is None


def test_a_live_day_is_replayed_with_the_same_effects(agent, tmp_path):
    first = agent(real=True, name="a1").start()
    recorded = agent(real=True, name="a2", seeds=(first.settings.gossip,), record=tmp_path / "day").start()
    until(lambda: "fra/a1" in recorded.driver.node.members)
    until(lambda: recorded.driver.turns > 4)
    recorded.driver.stop("evening")
    with (tmp_path / "day").open("rb") as file:
        report = replay(read_frames(file))
    assert (report.matches, report.is_complete, report.raised) == (True, True, "")
    assert report.inputs == recorded.driver.turns - 1


def test_a_bug_is_the_last_step_of_the_recording(agent, tmp_path):
    one = agent(real=True, record=tmp_path / "day").start()
    until(lambda: one.driver.turns > 1)
    one.driver.deliver(Stored(424_242))  # answers a store that was never asked for
    with pytest.raises(KeyError), gevent.Timeout(60):
        one.driver.wait()
    with (tmp_path / "day").open("rb") as file:
        report = replay(read_frames(file))
    assert report.matches
    assert "KeyError" in report.raised


def test_effects_are_carried_out_in_order_and_their_answers_come_back(agent):
    one = agent()
    peer = NodeId("fra", "b", 1)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    address = join_address(*listener.getsockname())
    one.node.answers[LoadReported] = lambda _: [
        OpenLink(peer, "127.0.0.1:2", bytes(32)),
        SendMessage(peer, b"m"),
        CloseLink(peer),
        SendDatagram(one.settings.gossip, b"to myself is reflected"),
        TryConnect(address),
        Store(1, (StoredRecord("k", b"v"),), True),
        RunCheck("c", CheckSpec(tcp="x:1")),
    ]
    one.start()
    one.driver.deliver(LoadReported(Load()))
    until(lambda: one.node.heard(Stored) and one.node.heard(ConnectTried) and one.node.heard(CheckCompleted))
    assert [call[0] for call in one.links.calls] == ["open", "send", "close"]
    assert one.node.heard(ConnectTried) == [ConnectTried(address, ConnectOutcome.ACCEPTED)]
    assert one.node.heard(CheckCompleted) == [CheckCompleted("c", CheckOutcome(Status.PASSING))]
    assert one.disk.load() == (StoredRecord("k", b"v"),)
    listener.close()


def test_the_clock_is_read_at_once(agent):
    one = agent(wall=lambda: 1_000_000).start()
    until(lambda: one.node.heard(ClockRead))
    assert one.node.heard(ClockRead)[0] == ClockRead(1_000_000)


def test_load_is_reported_when_it_changes(agent):
    one = agent(read_load=lambda: Load(utilization=0.5)).start()
    until(lambda: one.node.heard(LoadReported))
    assert one.node.heard(LoadReported) == [LoadReported(Load(utilization=0.5))]


def test_waiting_input_goes_before_a_late_deadline(agent):
    one = agent()
    for number in range(100):
        one.driver.deliver(DatagramReceived("127.0.0.1:1", bytes((number,))))
    one.node.wants = one.driver.now() - 1
    one.start()
    until(lambda: one.node.heard(TimeReached))
    assert one.node.told[0] == "start"
    before = one.node.told[1 : one.node.told.index(TimeReached())]
    assert [each.data[0] for each in before if type(each) is DatagramReceived] == list(range(100))


def test_what_the_kernel_held_for_a_stopped_process_goes_before_its_late_deadline(agent):
    one, other = agent().start(), agent().start()
    until(lambda: one.node.heard(ClockRead) and other.node.heard(ClockRead))
    wanted = one.node.wants = one.driver.now() + 1_000 * MILLISECOND
    one.driver.deliver(LoadReported(Load()))
    until(lambda: one.node.heard(LoadReported))
    for number in range(200):
        other.outlets.datagrams.send(one.settings.gossip, bytes((number,)))
    assert one.driver.now() < wanted, "it waits, with nothing in its way"
    while one.driver.now() < wanted + 280 * MILLISECOND:
        time.sleep(0.01)  # the whole process stands still
    until(lambda: one.node.heard(TimeReached))
    before = one.node.told[: one.node.told.index(TimeReached())]
    assert [each.data[0] for each in before if type(each) is DatagramReceived] == list(range(200))
    assert one.driver.latest >= 200 * MILLISECOND


def test_input_without_end_does_not_starve_time(agent):
    one = agent()
    one.node.answers[LoadReported] = lambda read: one.driver.deliver(read) or []
    one.driver.deliver(LoadReported(Load()))
    one.node.wants = one.driver.now()
    one.start()
    until(lambda: one.node.heard(TimeReached))
    one.node.answers.clear()


def test_a_deadline_wakes_the_node_not_before_its_time(agent):
    one = agent().start()
    until(lambda: one.node.heard(ClockRead))
    wanted = one.node.wants = one.driver.now() + 30 * MILLISECOND
    seen = []
    one.node.answers[TimeReached] = lambda _: seen.append(one.driver.now()) or []
    one.driver.deliver(LoadReported(Load()))  # whoever changes a deadline has just had a turn
    until(lambda: seen)
    assert seen[0] >= wanted


def test_only_datagrams_are_dropped_when_too_much_waits(agent, monkeypatch):
    monkeypatch.setattr(driver_module, "DATAGRAM_LIMIT", 10)
    one = agent()
    for _ in range(25):
        one.driver.deliver(DatagramReceived("127.0.0.1:1", b""))
        one.driver.deliver(LoadReported(Load()))
    one.start()
    until(lambda: len(one.node.heard(LoadReported)) == 25)
    assert len(one.node.heard(DatagramReceived)) == 10
    assert one.driver.datagrams_dropped == 15


# ---- requests and listeners


def test_a_request_is_answered_by_its_reply(agent):
    one = agent()
    one.node.answers[Requested] = lambda asked: [Reply(asked.request_id, Done(asked.request_id))]
    one.start()
    answers = [gevent.spawn(one.driver.request, Deregister(str(i)), 5) for i in range(20)]
    gevent.joinall(answers)
    assert [each.value for each in answers] == [Done(asked.request_id) for asked in one.node.heard(Requested)]


def test_a_request_that_takes_too_long_is_cancelled(agent):
    one = agent().start()
    with pytest.raises(TimeoutError, match="Deregister"):
        one.driver.request(Deregister("x"), timeout=0.01)
    until(lambda: one.node.heard(RequestCancelled))
    late = Reply(one.node.heard(Requested)[0].request_id, Done())
    one.node.answers[LoadReported] = lambda _: [late]
    one.driver.deliver(LoadReported(Load()))
    until(lambda: one.node.heard(LoadReported))


def test_a_request_of_somebody_who_hung_up_is_cancelled(agent):
    one = agent().start()
    waiting = gevent.spawn(one.driver.request, Deregister("x"))
    until(lambda: one.node.heard(Requested))
    waiting.kill()
    until(lambda: one.node.heard(RequestCancelled))


def test_an_answer_may_be_taken_without_waiting_for_it(agent, caplog):
    one = agent()
    one.node.answers[Requested] = lambda asked: [Reply(asked.request_id, Done(asked.request_id))]
    one.start()
    heard: list[object] = []
    with caplog.at_level(logging.CRITICAL):
        one.driver.ask(Deregister("x"), lambda _: 1 / 0)
        request_id = one.driver.ask(Deregister("y"), heard.append)
        assert heard == []
        until(lambda: heard)
    assert heard == [Done(request_id)]
    one.driver.cancel(request_id)
    assert one.driver.listener_failures == 1


def test_who_cancels_hears_no_answer_and_the_node_is_told(agent):
    one = agent().start()
    heard: list[object] = []
    one.driver.cancel(one.driver.ask(Deregister("x"), heard.append))
    until(lambda: one.node.heard(RequestCancelled))
    one.driver.ask(Deregister("y"), heard.append)
    one.driver.stop("enough")
    one.driver.ask(Deregister("z"), heard.append)
    assert [type(each) for each in heard] == [Refused, Refused]


def test_a_listener_that_raises_breaks_neither_the_node_nor_other_listeners(agent, caplog):
    one = agent()
    one.node.answers[LoadReported] = lambda _: [Notify(RelayChanged(True))]
    heard: list[object] = []
    one.driver.subscribe(lambda event: 1 / 0)
    unsubscribe = one.driver.subscribe(heard.append)
    one.start()
    with caplog.at_level(logging.CRITICAL):
        one.driver.deliver(LoadReported(Load()))
        until(lambda: heard)
    unsubscribe()
    one.driver.deliver(LoadReported(Load()))
    until(lambda: one.driver.listener_failures == 2)
    assert heard == [RelayChanged(True)]


# ---- checks and connects


def test_a_check_that_raises_or_hangs_is_critical(agent):
    def run_check(spec: CheckSpec) -> CheckOutcome:
        if spec.tcp:
            raise OSError("no such thing")
        gevent.sleep(60)
        return CheckOutcome(Status.PASSING)

    one = agent(run_check=run_check)
    one.node.answers[LoadReported] = lambda _: [
        RunCheck("raises", CheckSpec(tcp="x:1", timeout=1)),
        RunCheck("hangs", CheckSpec(http="http://x", timeout=1)),
    ]
    one.start()
    one.driver.deliver(LoadReported(Load()))
    until(lambda: len(one.node.heard(CheckCompleted)) == 2)
    outcomes = {each.check_id: each.outcome for each in one.node.heard(CheckCompleted)}
    assert {outcome.status for outcome in outcomes.values()} == {Status.CRITICAL}
    assert "no such thing" in outcomes["raises"].output
    assert "did not end" in outcomes["hangs"].output


def test_a_connect_to_nobody_is_refused(agent):
    one = agent()
    address = free_address()
    one.node.answers[LoadReported] = lambda _: [TryConnect(address)]
    one.start()
    one.driver.deliver(LoadReported(Load()))
    until(lambda: one.node.heard(ConnectTried))
    assert one.node.heard(ConnectTried) == [ConnectTried(address, ConnectOutcome.REFUSED)]


# ---- ends


def test_a_stop_tells_the_node_last_and_carries_out_its_farewell(agent):
    one, witness = agent(), agent().start()
    one.node.answers[Stopped] = lambda _: [
        SendDatagram(witness.settings.gossip, b"bye"),
        Store(1, (StoredRecord("farewell", b""),), True),
    ]
    one.start()
    waiting = gevent.spawn(one.driver.request, Deregister("x"))
    until(lambda: one.node.heard(Requested))
    one.driver.stop("SIGTERM")
    one.driver.wait()
    assert one.node.told[-1] == Stopped("SIGTERM")
    assert waiting.get(timeout=1) == driver_module.LEAVING
    assert type(one.driver.request(Deregister("y"))) is Refused
    until(lambda: witness.node.heard(DatagramReceived))
    disk = Disk(one.disk._path.parent)
    assert disk.load() == (StoredRecord("farewell", b""),)
    disk.close()


def test_a_bug_in_the_node_ends_the_driver_and_names_the_input(agent, caplog):
    one = agent()

    def break_(_: object) -> list[object]:
        raise Bug("an invariant does not hold")

    one.node.answers[LoadReported] = break_
    one.start()
    waiting = gevent.spawn(one.driver.request, Deregister("x"))
    until(lambda: one.node.heard(Requested))
    one.driver.deliver(LoadReported(Load(rate=42.0)))
    with pytest.raises(Bug, match="an invariant"), gevent.Timeout(60):
        one.driver.wait()
    assert "42.0" in caplog.text
    assert waiting.get(timeout=1) == driver_module.LEAVING
    told = len(one.node.told)
    one.driver.deliver(LoadReported(Load()))
    gevent.sleep(0)
    assert len(one.node.told) == told


def test_an_agent_whose_reader_died_ends(agent):
    one = agent().start()
    one.outlets.datagrams.reader.kill(OSError("the socket is gone"))
    with pytest.raises(OSError, match="the socket is gone"), gevent.Timeout(60):
        one.driver.wait()


def test_a_higher_boot_is_what_links_say_from_then_on(agent):
    one = agent().start()
    one.node.answers[ClockRead] = lambda _: setattr(one.node, "identity", NodeId("fra", "a1", 9)) or []
    one.driver.deliver(ClockRead(1))
    until(lambda: ("become", NodeId("fra", "a1", 9)) in one.links.calls)
