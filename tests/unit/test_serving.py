"""What one server does with requests: leases and reads, on a group of one whose disk answers at once or waits."""

import pytest

from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.store import (
    GrantLease,
    KeepLeaseAlive,
    KeysRead,
    LeaseStanding,
    Put,
    ReadKeys,
    ReadLease,
    RevokeLease,
    Transact,
    Transacted,
)
from dislocate.core.consensus.duties import Timing
from dislocate.core.consensus.messages import Configuration, GroupId, ServerId
from dislocate.core.identity import NodeId
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.store.backup import restore_chunks
from dislocate.core.store.copies import IDLE, SLICE
from dislocate.core.store.durable import Found
from dislocate.core.store.messages import Asked, BackupPart, BackupSlice
from dislocate.core.store.replica import Replica
from dislocate.core.store.serving import Serving
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND
from tests.support.tiny_servers import put, read

ME = ServerId("fra/a1", 1)
ASKER = NodeId("fra", "a9", 1)


class Scene:
    """A server that leads a group of its own."""

    def __init__(self):
        self.out = Outbox(NodeId("fra", "a1", 1), Rumors())
        found = Found.of_founding(Configuration((ME,)))
        self.replica = Replica(self.out, ME, GroupId(b"g" * 16), found, Streams("x")["raft"], Timing())
        self.serving = Serving(self.out, self.replica)
        self.timers = {**self.replica.timers(), **self.serving.timers()}
        self.disk_answers = True
        self.answers = []
        self.seq = 0
        self.replica.start()
        self.run(3 * SECOND)
        assert self.serving.leads

    def ask(self, request, asker=ASKER):
        self.seq += 1
        self.serving.ask(asker, Asked(self.seq, 1, request), self.answers.append)
        return self.seq

    def answer(self, request, asker=ASKER):
        number = self.ask(request, asker)
        self.run(50 * MILLISECOND)
        return next(answer.result for answer in self.answers if answer.seq == number)

    def run(self, duration):
        end = self.out.now + duration
        while True:
            while self.disk_answers and self._store():
                pass
            if self.out.deadline() > end:
                break
            self.out.now = max(self.out.now, self.out.deadline())
            timer = self.out.due()
            self.timers[type(timer)](timer)
        self.out.now = end

    def _store(self):
        effects, self.out.effects = self.out.effects, []
        for effect in effects:
            if isinstance(effect, Store):
                self.out.stored(effect.seq)
        return any(isinstance(effect, Store) for effect in effects)


def restore(scene, data):
    for part in restore_chunks(data, 7):
        assert not isinstance(scene.answer(part), Refused)


@pytest.fixture
def scene():
    return Scene()


def test_a_lease_ends_by_itself_and_takes_its_keys_along(scene):
    lease = scene.answer(GrantLease(2 * SECOND)).lease
    scene.answer(Transact(then=(Put("k", b"v", lease),)))
    scene.run(SECOND)
    assert 0 < scene.answer(ReadLease(lease)).remaining <= SECOND
    scene.run(2 * SECOND)
    assert scene.answer(ReadKeys("k")) == KeysRead((), 2)
    assert isinstance(scene.answer(KeepLeaseAlive(lease)), Refused)


def test_a_lease_that_is_kept_alive_does_not_end(scene):
    lease = scene.answer(GrantLease(2 * SECOND)).lease
    for _ in range(5):
        scene.run(1500 * MILLISECOND)
        assert isinstance(scene.answer(KeepLeaseAlive(lease)), LeaseStanding)


def test_leases_that_ended_are_forgotten_by_the_leader_too(scene):
    for _ in range(20):
        scene.answer(GrantLease(SECOND))
    scene.run(5 * SECOND)
    scene.answer(GrantLease(SECOND))
    scene.run(5 * SECOND)
    assert len(scene.serving._lease_ends) <= 1


def test_a_lease_that_ended_and_comes_back_with_a_restore_ends_again(scene):
    lease = scene.answer(GrantLease(SECOND)).lease
    scene.answer(Transact(then=(Put("k", b"v", lease),)))
    backup = scene.answer(BackupPart(0, 0))
    scene.run(3 * SECOND)
    assert isinstance(scene.answer(ReadLease(lease)), Refused)
    restore(scene, backup.data)
    assert scene.answer(KeepLeaseAlive(lease)).remaining == SECOND
    assert scene.answer(ReadKeys("k")).keys
    scene.run(3 * SECOND)
    assert isinstance(scene.answer(ReadLease(lease)), Refused)
    assert not scene.answer(ReadKeys("k")).keys


def test_an_end_that_was_proposed_behind_a_restore_holds_for_the_restored_lease(scene):
    lease = scene.answer(GrantLease(SECOND)).lease
    backup = scene.answer(BackupPart(0, 0))
    scene.run(800 * MILLISECOND)
    scene.disk_answers = False
    for part in restore_chunks(backup.data, 7):
        scene.ask(part)
    scene.run(500 * MILLISECOND)  # the lease ended, and that is proposed behind the restore
    assert lease in scene.serving._ending
    kept = scene.ask(KeepLeaseAlive(lease))
    scene.disk_answers = True
    scene.run(50 * MILLISECOND)
    assert isinstance(next(answer.result for answer in scene.answers if answer.seq == kept), Refused)
    assert not scene.serving._ending
    assert not scene.serving._lease_ends


def test_a_revoked_lease_is_forgotten_at_once(scene):
    lease = scene.answer(GrantLease(SECOND)).lease
    scene.answer(RevokeLease(lease))
    assert not scene.serving._lease_ends


def test_who_leads_no_more_counts_no_leases_and_wakes_for_none(scene):
    lease = scene.answer(GrantLease(SECOND)).lease
    scene.serving.deposed()
    scene.replica.raft._state.role = type(scene.replica.raft.role).FOLLOWER
    scene.replica.raft._state.leader = ServerId("fra/a2", 2)
    scene.serving._renew(lease, SECOND)
    proposed = scene.replica.raft.last_index
    scene.serving._lease_due(type("Due", (), {"at": scene.serving._armed})())
    assert scene.replica.raft.last_index == proposed
    assert scene.serving._armed > scene.out.now + 3600 * SECOND


def test_everything_that_waits_is_answered_when_the_server_ends(scene):
    scene.disk_answers = False
    scene.ask(put("k"))
    scene.ask(read("k"))
    scene.ask(KeepLeaseAlive(9))
    scene.run(20 * MILLISECOND)
    waiting = {1, 2, 3} - {answer.seq for answer in scene.answers}
    scene.serving.end()
    late = [answer for answer in scene.answers if answer.seq in waiting]
    assert sorted(answer.seq for answer in late) == sorted(waiting)
    assert {answer.seq: answer.doubt for answer in late}[1], "the put may be done yet"
    scene.disk_answers = True
    scene.run(SECOND)
    assert len(scene.answers) == 3, "and nothing is answered twice"


def test_requests_of_one_instant_share_one_save(scene):
    saves = []
    store = scene.out.store
    scene.out.store = lambda records, **more: (saves.append(more["sync"]), store(records, **more))[1]
    for number in range(50):
        scene.ask(put(f"k{number}"))
    scene.run(20 * MILLISECOND)
    assert len(scene.answers) == 50
    assert all(isinstance(answer.result, Transacted) for answer in scene.answers)
    assert saves.count(True) == 1


def test_a_full_disk_refuses_and_says_that_the_log_never_saw_it(scene):
    scene.replica._writing.is_full = True
    scene.ask(put("k"))
    answer = scene.answers[0]
    assert answer.result.kind == "storage"
    assert answer.unlogged


# ---- copies


def fill(scene, count=8):
    for number in range(count):
        scene.answer(put(f"k{number}", "x" * 250_000))


def test_a_copy_is_of_one_revision_however_long_it_is_fetched(scene):
    fill(scene)
    first = scene.answer(BackupPart(0, 0))
    assert isinstance(first, BackupSlice)
    assert not first.last
    assert SLICE <= len(first.data) < SLICE + 100_000
    scene.answer(put("k7", "changed"))
    slices = [first]
    while not slices[-1].last:
        again = scene.answer(BackupPart(first.copy, len(slices)))
        assert scene.answer(BackupPart(first.copy, len(slices))) == again, "asked twice, it is the same slice"
        slices.append(again)
    data = b"".join(one.data for one in slices)
    assert data.count(b"x") >= 8 * 250_000
    assert b"changed" not in data
    assert isinstance(scene.answer(BackupPart(first.copy, len(slices))), Refused)


def test_slices_of_a_copy_that_is_not_there_are_refused(scene):
    fill(scene, 1)
    first = scene.answer(BackupPart(0, 0))
    assert isinstance(scene.answer(BackupPart(first.copy + 1, 1)), Refused)
    assert isinstance(scene.answer(BackupPart(first.copy, 1), asker=NodeId("fra", "a8", 1)), Refused)
    assert isinstance(scene.answer(BackupPart(first.copy, 17)), Refused)


def test_copies_that_nobody_fetches_are_forgotten_and_too_many_are_not_kept(scene):
    fill(scene, 1)
    for boot in range(20):
        scene.answer(BackupPart(0, 0), asker=NodeId("fra", "a8", boot))
    assert len(scene.serving.copies) == 8
    scene.run(2 * IDLE + SECOND)
    assert len(scene.serving.copies) == 0
