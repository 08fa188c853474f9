"""A server's part on its disk: what it writes in which order, what a crash finds, and what it does when the disk will not."""

from itertools import pairwise

from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.duties import Timing
from dislocate.core.consensus.messages import (
    Append,
    Configuration,
    Entry,
    GroupId,
    ServerId,
    SnapshotChunk,
    VoteAsked,
    VoteGiven,
)
from dislocate.core.consensus.promises import StoredGroup, founding_records, is_of_store
from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.store import keptlog
from dislocate.core.store import replica as replica_module
from dislocate.core.store.commands import Command, encode_command
from dislocate.core.store.durable import find
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.replica import UNKNOWN_AGE, Replica
from dislocate.core.store.snapshot import SnapshotCutter
from dislocate.core.streams import Streams
from dislocate.core.tunables import PROPOSALS_WAIT
from dislocate.core.units import SECOND
from tests.support.tiny_servers import put

ME, OTHER, THIRD = (ServerId(f"fra/a{n}", n) for n in (1, 2, 3))
GROUP = GroupId(b"g" * 16)
UNIX = 1_800_000_000 * SECOND


class Scene:
    """One server of `voters`, and its disk: a dictionary, and what has not been answered."""

    def __init__(self, voters=(ME,), disk=None, now=0, level=1):
        self.out = Outbox(NodeId("fra", "a1", 1), Rumors())
        self.out.now = now
        self.out.read_clock(UNIX + now)
        founded = founding_records(StoredGroup(GROUP), voters)
        self.disk = disk if disk is not None else {one.key: one.value for one in founded if is_of_store(one.key)}
        found = find(StoredRecord(key, value) for key, value in self.disk.items())
        self.replica = Replica(self.out, ME, GROUP, found, Streams("x")["raft"], Timing(), level)
        self.waiting = []
        self.problems = []
        self.said = []
        self.replica.failed = self.problems.append
        self.replica.send = lambda _to, message: self.said.append(message)
        self.timers = self.replica.timers()
        self.replica.start()

    def run(self, duration=3 * SECOND, says=""):
        """Time passes; the disk answers at once, or with `says`."""
        end = self.out.now + duration
        while True:
            while self.take():
                self.serve(says)
            if self.out.deadline() > end:
                break
            self.out.now = max(self.out.now, self.out.deadline())
            timer = self.out.due()
            self.timers[type(timer)](timer)
        self.out.now = end

    def take(self):
        effects, self.out.effects = self.out.effects, []
        self.waiting += [effect for effect in effects if isinstance(effect, Store)]
        return self.waiting

    def serve(self, says=""):
        store = self.waiting.pop(0)
        if says:
            self.out.store_failed(store.seq, says)
            return
        for record in store.records:
            if record.value is None:
                self.disk.pop(record.key, None)
            else:
                self.disk[record.key] = record.value
        self.out.stored(store.seq)

    def put(self, key, value="v"):
        return self.replica.propose(encode_command(Command(put(key, value))))

    def hear(self, body, term=2, origin=OTHER):
        self.replica.raft.receive(origin, term, body, self.out.now)
        self.replica._carry_out()

    def again(self, **more):
        """A crash now, and the next start."""
        return Scene(disk=dict(self.disk), now=self.out.now, **more)


def values(replica):
    return {kv.key: kv.value for kv in replica.machine.read("", True)[0]}


def test_after_a_crash_at_any_moment_there_is_a_state_and_the_log_from_there():
    scene = Scene()
    scene.run()
    kept = []
    for number in range(60):
        scene.put(f"k{number}")
        scene.run(SECOND // 5)
        kept.append(dict(scene.disk))
    for disk in kept:
        found = find(StoredRecord(key, value) for key, value in disk.items())
        machine = StoreMachine.recover(found.state)
        assert found.base.index <= found.applied.index == machine.index
    again = scene.again()
    again.run()
    assert values(again.replica) == values(scene.replica)


def test_the_log_is_dropped_a_part_at_a_time_and_never_beyond_the_state_that_is_saved(monkeypatch):
    monkeypatch.setattr(keptlog, "LOG_KEPT", 20)
    monkeypatch.setattr(keptlog, "LOG_SLACK", 5)
    monkeypatch.setattr(replica_module, "STATE_SAVE_ENTRIES", 60)
    scene = Scene()
    scene.run()
    lengths = []
    for number in range(200):
        scene.put(f"k{number % 7}")
        scene.run(0)
        found = find(StoredRecord(key, value) for key, value in scene.disk.items())
        assert found.base.index <= found.applied.index == StoreMachine.recover(found.state).index
        lengths.append(len(found.entries))
    assert max(lengths) > 50, "what is not saved is kept"
    assert all(before - after < 5 for before, after in pairwise(lengths)), "at most 5 at once, and one came"
    assert min(lengths[-60:]) <= 25
    again = scene.again()
    again.run()
    assert values(again.replica) == values(scene.replica)


def test_writes_go_to_the_disk_one_at_a_time_and_what_comes_meanwhile_together():
    scene = Scene()
    scene.run()
    scene.put("a")
    scene.run(0)
    scene.put("b")
    scene.replica._flush(None)
    scene.take()
    scene.put("c")
    scene.replica._flush(None)
    assert len(scene.take()) == 1, "the second waits for the first"
    scene.run()
    assert set(values(scene.replica)) == {"a", "b", "c"}


def leader_of_three():
    """A leader whose others answer nothing, with an entry under way that its own disk works on."""
    scene = Scene(voters=(ME, OTHER, THIRD))
    while not scene.replica.raft.is_leader:
        scene.run(SECOND)
        asked = next((one for one in reversed(scene.said) if type(one.body) is VoteAsked and one.to == OTHER), None)
        if asked is not None:
            scene.hear(VoteGiven(True, asked.body.pre), asked.term)
    scene.put("a")
    scene.run(0)
    scene.put("under way")
    served(scene)
    return scene


def served(scene):
    """Timers that are due now."""
    while (timer := scene.out.due()) is not None:
        scene.timers[type(timer)](timer)


def test_what_is_proposed_while_a_save_is_under_way_leaves_with_its_end():
    scene = leader_of_three()
    assert len(scene.take()) == 1
    flushed = scene.replica.raft._state.flushed
    for key in "bcd":
        scene.put(key)
        served(scene)
    assert scene.replica.raft._state.flushed == flushed, "they wait"
    scene.serve()
    assert scene.replica.raft._state.flushed == flushed + 3
    assert len(scene.take()) == 1, "one save for all of them"


def test_what_is_proposed_waits_for_a_slow_save_only_shortly():
    scene = leader_of_three()
    flushed = scene.replica.raft._state.flushed
    scene.put("b")
    served(scene)
    assert scene.replica.raft._state.flushed == flushed
    scene.out.now += PROPOSALS_WAIT
    served(scene)
    assert scene.replica.raft._state.flushed == flushed + 1


def test_a_full_disk_is_tried_again_each_second_with_the_same_and_nothing_before_it():
    scene = Scene()
    scene.run()
    scene.put("a")
    scene.replica._flush(None)
    first = scene.take()[0].records
    scene.serve("full: no space")
    assert scene.replica.is_full
    scene.put("b")
    scene.replica._flush(None)
    assert scene.take() == []
    tried = 0
    for _ in range(5):
        scene.out.now += SECOND
        while scene.out.deadline() <= scene.out.now:
            timer = scene.out.due()
            scene.timers[type(timer)](timer)
        for store in scene.take():
            assert store.records == first
            tried += 1
            scene.serve("full: no space")
    assert tried == 5
    assert scene.problems == []
    scene.run()
    assert not scene.replica.is_full
    assert "a" in values(scene.replica)


def test_any_other_failure_ends_this_part_once_and_nothing_leaves_it_any_more():
    scene = Scene()
    scene.run()
    scene.put("a")
    scene.run(SECOND, says="input/output error")
    assert len(scene.problems) == 1
    assert "input/output error" in scene.problems[0]
    said = len(scene.said)
    scene.replica.peer_back(OTHER)
    scene.replica.peer_lost(OTHER)
    assert scene.put("b") is None
    assert scene.replica.poke(lambda raft, now: raft.time_reached(now)) is None
    scene.run(20 * SECOND)
    assert (len(scene.said), len(scene.problems), scene.take()) == (said, 1, [])


def test_a_store_that_is_answered_after_the_end_says_nothing():
    """An expelled server gives no vote that it had withheld."""
    scene = Scene(voters=(ME, OTHER, THIRD))
    scene.hear(Append(1, 1, (Entry(2, 2),), 1, 1))
    assert scene.take()
    scene.replica.end()
    said = len(scene.said)
    scene.serve()
    assert len(scene.said) == said


def test_what_an_ended_part_may_have_on_disk_is_all_named():
    scene = Scene()
    scene.run()
    for number in range(40):
        scene.put(f"k{number}")
    scene.run()
    scene.put("on its way")
    scene.replica._flush(None)
    under_way = {record.key for store in scene.take() for record in store.records}
    left = set(scene.replica.end())
    assert {key for key in scene.disk if is_of_store(key)} <= left
    assert under_way <= left


def test_the_log_is_dropped_with_the_state_that_stands_for_it_and_a_crash_at_any_moment_finds_both(monkeypatch):
    monkeypatch.setattr(keptlog, "LOG_KEPT", 10)
    monkeypatch.setattr(keptlog, "LOG_SLACK", 5)
    scene = Scene()
    scene.run()
    kept = []
    for number in range(120):
        scene.put(f"k{number % 7}", str(number))
        scene.run(SECOND // 3)
        kept.append(dict(scene.disk))
    assert max(sum(key.startswith("log/") for key in disk) for disk in kept) < 30
    for disk in kept:
        found = find(StoredRecord(key, value) for key, value in disk.items())
        assert found.base.index <= found.applied.index == StoreMachine.recover(found.state).index
    again = scene.again()
    again.run()
    assert values(again.replica) == values(scene.replica)
    assert {key for key in scene.disk if is_of_store(key)} <= set(scene.replica.end())


def test_log_that_somebody_needs_is_kept_but_not_without_bound(monkeypatch):
    for name, entries in (("LOG_KEPT", 10), ("LOG_SLACK", 5), ("LOG_HELD", 30)):
        monkeypatch.setattr(keptlog, name, entries)
    log = keptlog.KeptLog(None)
    for index in range(1, 31):
        log.remember(Entry(1, index, b"x"))
    assert log.shortened(30, 4)[0] == 4
    assert log.shortened(30, 4) == (0, {})
    for index in range(31, 36):
        log.remember(Entry(1, index, b"x"))
    assert log.shortened(35, 4)[0] == 5, "it is too long for that"
    assert log.shortened(35, 1 << 62)[0] == 10


def test_log_that_a_write_under_way_drops_is_still_named_as_being_on_the_disk(monkeypatch):
    monkeypatch.setattr(keptlog, "LOG_KEPT", 10)
    monkeypatch.setattr(keptlog, "LOG_SLACK", 5)
    scene = Scene()
    scene.run()
    for number in range(40):
        scene.put(f"k{number}")
    scene.replica._flush(None)
    while scene.take():
        scene.serve()
    scene.out.now += 2 * SECOND
    timer_runs(scene)
    assert any(
        record.key.startswith("log/") and record.value is None for store in scene.take() for record in store.records
    )
    scene.serve("full: no space")
    assert {key for key in scene.disk if is_of_store(key)} <= set(scene.replica.end())


def timer_runs(scene):
    while scene.out.deadline() <= scene.out.now:
        timer = scene.out.due()
        scene.timers[type(timer)](timer)


# ---- snapshots


def snapshot_of(count, level=1):
    machine = StoreMachine()
    machine.apply(1, b"")
    for index in range(2, count + 2):
        machine.apply(index, encode_command(Command(put(f"s{index}", "x" * 2_000))))
    machine.feature_level = level
    return machine


def send(scene, machine, digest=7):
    chunks = list(SnapshotCutter(machine))
    configuration = Configuration((ME, OTHER, THIRD))
    for number, data in enumerate(chunks):
        scene.hear(SnapshotChunk(machine.index, 2, configuration, digest, number, len(chunks), data, number + 1))


def test_a_snapshot_takes_the_place_of_state_and_log_in_one_write():
    scene = Scene(voters=(ME, OTHER, THIRD))
    scene.hear(Append(1, 1, (Entry(2, 2, encode_command(Command(put("old")))),), 2, 1))
    scene.run(SECOND)
    assert values(scene.replica) == {"old": b"v"}
    send(scene, snapshot_of(60))
    stores = scene.take()
    assert len(stores) == 1
    assert stores[0].sync
    scene.run(SECOND)
    assert "old" not in values(scene.replica)
    assert len(values(scene.replica)) == 60
    again = scene.again(voters=(ME, OTHER, THIRD))
    assert values(again.replica) == values(scene.replica)
    assert not [key for key in scene.disk if key.startswith("log/")]


def test_a_snapshot_that_comes_while_the_disk_is_busy_waits_and_keeps_what_was_written_before():
    scene = Scene(voters=(ME, OTHER, THIRD))
    scene.hear(Append(1, 1, (Entry(2, 2), Entry(2, 3)), 1, 1))
    assert len(scene.take()) == 1
    send(scene, snapshot_of(10))
    assert len(scene.take()) == 1
    scene.run(SECOND)
    assert len(values(scene.replica)) == 10
    again = scene.again(voters=(ME, OTHER, THIRD))
    assert again.replica.machine.index == 11


def test_a_snapshot_that_cannot_be_read_ends_this_part_and_changes_nothing():
    scene = Scene(voters=(ME, OTHER, THIRD))
    scene.run(0)
    before = dict(scene.disk)
    scene.hear(SnapshotChunk(9, 2, Configuration((ME, OTHER)), 7, 0, 1, b"\x00\x05\x00\x00\x00\x01xy", 1))
    assert "cannot be read" in scene.problems[0]
    scene.run(SECOND)
    assert {key: value for key, value in scene.disk.items() if key.startswith("store/")} == {
        key: value for key, value in before.items() if key.startswith("store/")
    }


def test_a_snapshot_of_a_higher_level_is_not_served():
    scene = Scene(voters=(ME, OTHER, THIRD))
    send(scene, snapshot_of(3, level=2))
    assert "upgrade" in scene.problems[0]


# ---- what cannot be applied


def test_an_entry_that_this_version_cannot_read_ends_its_part_before_it_is_applied():
    scene = Scene(voters=(ME, OTHER, THIRD))
    entries = (Entry(2, 2, encode_command(Command(put("k")))), Entry(2, 3, b"\x91\x00"))
    scene.hear(Append(1, 1, entries, 3, 1))
    scene.run(SECOND)
    assert "entry 3 cannot be read" in scene.problems[0]
    assert "upgrade" in scene.problems[0]


# ---- ages


def test_how_old_is_what_a_start_finds_is_told_by_this_hosts_own_clock():
    scene = Scene()
    scene.run()
    scene.put("k")
    scene.run()
    again = scene.again(voters=(ME, OTHER, THIRD))
    age = again.out.now - again.replica.as_of
    assert 0 <= age <= 5 * SECOND
    empty = Scene(voters=(ME, OTHER, THIRD))
    assert empty.out.now - empty.replica.as_of == UNKNOWN_AGE


def test_a_follower_is_as_old_as_its_leader_says_and_as_the_answer_that_is_echoed():
    scene = Scene(voters=(ME, OTHER, THIRD))
    scene.out.now += 100 * SECOND
    scene.hear(Append(1, 1, (), 1, 1))
    scene.out.now += 20_000_000
    scene.hear(Append(1, 1, (), 1, 2, age=SECOND, echo=1))
    assert scene.out.now - scene.replica.as_of == SECOND + 20_000_000
    scene.hear(Append(1, 1, (), 9, 2, 20_000_000, 0))
    assert scene.out.now - scene.replica.as_of == SECOND + 20_000_000, "what is committed is not here yet"
