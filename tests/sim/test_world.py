"""The world drives nodes as production does, and nothing but scenario, seed and code decides what happens in it."""

import os
import random
import sys
import time
import uuid
from types import SimpleNamespace

import pytest

from dislocate.core.boundary.effects import RunTask, SendDatagram, Store
from dislocate.core.boundary.inputs import (
    ClockRead,
    DatagramReceived,
    SendFailed,
    Stored,
    StoreFailed,
    TaskProgressed,
    TimeReached,
)
from dislocate.core.boundary.runs import Task, TaskVerb
from dislocate.core.boundary.spec import Command, File
from dislocate.core.boundary.values import MemberState, Refusal, StoredRecord
from dislocate.core.errors import Bug
from dislocate.core.units import MILLISECOND, SECOND
from sim.faults import do
from sim.process import EPOCH
from sim.scenario import Fault
from sim.world import RECEIVE_QUEUE
from tests.support.listener import Listeners


def fault(verb, target=(), **fields):
    return Fault(time=0, do=verb, target=target, **fields)


def send(world, origin, target, data=b"x"):
    machine = world.machines[origin]
    world.carry_out(machine.process, [SendDatagram(world.machines[target].gossip, data)])


def test_agents_of_a_data_center_get_to_know_each_other(make_world):
    world = make_world(3)
    world.run(10 * SECOND)
    for observer in world.layout.paths:
        assert {path: one.state for path, one in world.members(observer).items()} == dict.fromkeys(
            world.layout.paths, MemberState.ALIVE
        )


def test_addresses_are_those_of_dev(make_world):
    world = make_world(2, ("fra", "wdc"))
    assert world.machines["wdc/a2"].gossip == "127.0.2.2:49701"
    assert world.machines["fra/a1"].links == "127.0.1.1:49702"


def test_a_killed_agents_host_refuses_within_a_round_trip(make_world, turns):
    world = make_world()
    world.run(10 * SECOND)
    do(world, fault("kill", "fra/a2"))
    send(world, "fra/a1", "fra/a2")
    world.run(10 * SECOND + MILLISECOND)
    (at, refused), *_ = turns.of("fra/a1", SendFailed, after=10 * SECOND)
    assert refused == SendFailed(world.machines["fra/a2"].gossip, Refusal.REFUSED)
    assert 90_000 < at - 10 * SECOND < 110_000


def test_a_vanished_host_is_silent(make_world, turns):
    world = make_world()
    world.run(10 * SECOND)
    do(world, fault("vanish", "fra/a2"))
    send(world, "fra/a1", "fra/a2")
    world.run(12 * SECOND)
    assert turns.of("fra/a1", SendFailed, after=10 * SECOND) == []


def test_a_refusal_does_not_pass_a_cut(make_world, turns):
    world = make_world(3, ("fra", "wdc"))
    world.run(10 * SECOND)
    do(world, fault("kill", "wdc/a2"))
    do(world, fault("cut", origin="wdc", dest="fra", oneway=True))
    send(world, "fra/a1", "wdc/a2")
    world.run(11 * SECOND)
    assert turns.of("fra/a1", SendFailed, after=10 * SECOND) == []


def test_what_is_under_way_when_a_link_is_cut_is_lost(make_world, turns):
    world = make_world(1, ("fra", "wdc"))
    world.run(10 * SECOND)
    send(world, "fra/a1", "wdc/a1", b"late")
    world.run(10 * SECOND + MILLISECOND)
    do(world, fault("cut", origin="fra", dest="wdc"))
    world.run(11 * SECOND)
    assert all(one.data != b"late" for _, one in turns.of("wdc/a1", DatagramReceived))


def test_a_resumed_process_reads_what_waited_before_its_timer_fires(make_world, turns):
    world = make_world()
    world.run(10 * SECOND)
    do(world, fault("pause", "fra/a2"))
    send(world, "fra/a1", "fra/a2", b"while stopped")
    world.run(13 * SECOND)
    assert [at for at, path, _, _ in turns.all if path == "fra/a2" and at > 10 * SECOND] == []
    do(world, fault("resume", "fra/a2"))
    world.run(13 * SECOND)
    inputs = [one for at, path, one, _ in turns.all if path == "fra/a2" and at == 13 * SECOND]
    data = [one.data for one in inputs if isinstance(one, DatagramReceived)]
    assert b"while stopped" in data
    assert isinstance(inputs[-1], TimeReached)
    assert not any(isinstance(one, TimeReached) for one in inputs[:-1])


def test_the_kernel_of_a_stopped_process_keeps_a_bounded_number_of_datagrams(make_world):
    world = make_world()
    world.run(10 * SECOND)
    do(world, fault("pause", "fra/a2"))
    for _ in range(2 * RECEIVE_QUEUE):
        send(world, "fra/a1", "fra/a2")
    world.run(11 * SECOND)
    assert len(world.machines["fra/a2"].process.waiting) == RECEIVE_QUEUE


def test_a_restart_is_a_higher_boot_even_when_the_clock_went_back(make_world):
    world = make_world()
    world.run(10 * SECOND)
    before = world.machines["fra/a2"].process.node_id.boot
    do(world, fault("clock", "fra/a2", offset=3600 * SECOND, behind=True))
    do(world, fault("restart", "fra/a2"))
    assert world.machines["fra/a2"].process.node_id.boot == before + 1


def test_a_wiped_disk_starts_at_the_wall_clock_with_a_new_key(make_world):
    world = make_world()
    world.run(10 * SECOND)
    machine = world.machines["fra/a2"]
    before, key = machine.process.node_id.boot, machine.public_key
    do(world, fault("wipe", "fra/a2"))
    do(world, fault("restart", "fra/a2"))
    assert machine.process.node_id.boot == (EPOCH + 10 * SECOND) // MILLISECOND > before
    assert machine.public_key != key


def test_a_damaged_disk_is_noticed_at_the_next_start_and_mended_by_another_disk(make_world):
    world = make_world()
    world.run(10 * SECOND)
    machine = world.machines["fra/a2"]
    do(world, fault("disk_damage", "fra/a2"))
    assert world.is_up("fra/a2")
    do(world, fault("restart", "fra/a2"))
    assert machine.process is None
    assert world.truth.refused_to_start == {"fra/a2": 10 * SECOND}
    do(world, fault("wipe", "fra/a2"))
    do(world, fault("restart", "fra/a2"))
    assert world.is_up("fra/a2")


def stored(world, turns, path):
    """Store something there now; what the disk said, and after how long."""
    began = world.now
    world.carry_out(world.machines[path].process, [Store(99, (StoredRecord("x", b""),), True)])
    world.run(began + 5 * SECOND)
    ((at, answer),) = [
        (at, one) for kind in (Stored, StoreFailed) for at, one in turns.of(path, kind, after=began) if one.seq == 99
    ]
    return answer, at - began


def test_a_stalled_disk_answers_when_the_stall_is_over(make_world, turns):
    world = make_world(new_node=Listeners())
    world.run(10 * SECOND)
    do(world, fault("disk_stall", "fra/a2", lasting=3 * SECOND))
    assert stored(world, turns, "fra/a2") == (Stored(99), 3 * SECOND)


def test_writes_that_a_stall_put_off_come_before_those_that_began_once_it_was_mended(make_world, turns):
    world = make_world(new_node=Listeners())
    world.run(10 * SECOND)
    do(world, fault("disk_stall", "fra/a2", lasting=3 * SECOND))
    write = [Store(seq, (StoredRecord("x", b"%d" % seq),), True) for seq in (97, 98, 99)]
    world.carry_out(world.machines["fra/a2"].process, write[:2])
    world.run(11 * SECOND)
    do(world, fault("disk_mend", "fra/a2"))
    world.carry_out(world.machines["fra/a2"].process, write[2:])
    world.run(12 * SECOND)
    answers = [one.seq for _, one in turns.of("fra/a2", Stored, after=10 * SECOND) if one.seq >= 97]
    assert answers == [97, 98, 99]


def test_a_full_disk_refuses_and_a_mended_one_takes_writes_again(make_world, turns):
    world = make_world(new_node=Listeners())
    world.run(10 * SECOND)
    do(world, fault("disk_fill", "fra/a2"))
    assert stored(world, turns, "fra/a2")[0].reason.startswith("full")
    do(world, fault("disk_mend", "fra/a2"))
    assert stored(world, turns, "fra/a2")[0] == Stored(99)


def test_a_slow_disk_is_slow_until_it_is_mended(make_world, turns):
    world = make_world(new_node=Listeners())
    world.run(10 * SECOND)
    do(world, fault("disk_slow", "fra/a2", factor=250.0))
    assert stored(world, turns, "fra/a2")[1] >= 250 * MILLISECOND
    do(world, fault("disk_mend", "fra/a2"))
    assert stored(world, turns, "fra/a2")[1] <= 4 * MILLISECOND


def test_the_wall_clock_is_read_each_second_and_may_be_wrong(make_world, turns):
    world = make_world(1)
    world.run(10 * SECOND)
    do(world, fault("clock", "fra/a1", offset=5 * SECOND, behind=True, drift=0.5))
    world.run(20 * SECOND)
    reads = turns.of("fra/a1", ClockRead)
    assert len(reads) == 20
    at, last = reads[-1]
    assert last.unix_ns == EPOCH + at - 5 * SECOND + (at - 10 * SECOND) // 2


def test_a_crash_may_come_between_two_effects(make_world, turns):
    """Over seeds, a doomed process does none, some and all of its last effects."""
    done = set()
    for seed in range(12):
        world = make_world(3, seed=seed)
        world.run(10 * SECOND)
        machine = world.machines["fra/a2"]
        sent = machine.datagrams_sent
        node = machine.process.node
        handle = node.handle
        node.handle = lambda input_, now, handle=handle: [
            *handle(input_, now),
            *[SendDatagram("127.9.9.9:1", b"")] * 2,
        ][-2:]
        do(world, fault("kill", "fra/a2", midway=True))
        world.run(12 * SECOND)
        assert machine.process is None
        done.add(machine.datagrams_sent - sent)
    assert done == {0, 1, 2}


def test_a_patched_process_is_refused(make_world, monkeypatch):
    monkeypatch.setitem(sys.modules, "gevent.monkey", SimpleNamespace(saved={"time": {}}))
    with pytest.raises(Bug, match="gevent"):
        make_world()


def test_a_run_reads_no_clock_and_draws_nothing_but_its_streams(make_world, monkeypatch):
    world = make_world(3, ("fra", "wdc"), services=2)

    def tripped(*_args, **_kwargs):
        raise AssertionError("a simulation reached for the real world")

    for module, names in {
        time: ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"),
        random: ("random", "getrandbits", "randrange", "choice", "shuffle", "seed"),
        os: ("urandom", "getpid"),
        uuid: ("uuid1", "uuid4"),
    }.items():
        for name in names:
            monkeypatch.setattr(module, name, tripped)
    world.run(5 * SECOND)
    do(world, fault("kill", "fra/a1"))
    do(world, fault("cut", origin="fra"))
    world.run(20 * SECOND)
    do(world, fault("heal"))
    do(world, fault("restart", "fra/a1"))
    world.run(25 * SECOND)
    monkeypatch.undo()
    assert world.now == 25 * SECOND


def test_what_a_host_does_for_an_agent_that_died_is_told_to_no_later_one(make_world, turns):
    """Numbers of tasks begin anew with each process: an old answer would be taken for that to a new question."""
    world = make_world(1)
    world.run(2 * SECOND)
    asked = RunTask("run/1/apply/1", Task(TaskVerb.APPLY, Command(run=("sleep", "1"), once=True), "1"))
    looked = RunTask("visit/1", Task(TaskVerb.LOOK, File(path="/etc/motd", content="hello"), "1"))
    for _ in range(20):
        world.carry_out(world.machines["fra/a1"].process, [asked, looked])
        do(world, fault("kill", "fra/a1"))
        do(world, fault("restart", "fra/a1"))
    world.run(60 * SECOND)
    assert world.machines["fra/a1"].host.effects, "a program that is under way outlives the agent, sometimes"
    assert turns.of("fra/a1", TaskProgressed) == []
    world.carry_out(world.machines["fra/a1"].process, [asked])
    world.run(120 * SECOND)
    assert len(turns.of("fra/a1", TaskProgressed)) == 1
