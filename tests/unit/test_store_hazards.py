"""Hazards of replicated stores that others ran into: each test shows the cure, and then that without it the harm is done.

The numbers are those of the list that the store was built from.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from dislocate.core.boundary.store import Compacted, Put, RevokeLease, Transact
from dislocate.core.consensus.duties import Snapshot
from dislocate.core.consensus.messages import Configuration, GroupId
from dislocate.core.consensus.progress import Sending
from dislocate.core.store import snapshot as snapshot_module
from dislocate.core.store.backup import restore_chunks
from dislocate.core.store.changes import ChangeHistory
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.sessions import Sessions
from dislocate.core.store.snapshot import SnapshotCutter, join_chunks
from dislocate.core.tunables import RECOVERY_STEP, SNAPSHOT_CHUNK, SNAPSHOT_WINDOW
from tests.support.store_log import StoreLog, asked, write_backup
from tests.unit.test_replica import Scene as ReplicaScene

ROOT = Path(__file__).parents[2]


# ---- 10: a snapshot of a big state, made while a leader has heartbeats to send


class Counted(SnapshotCutter):
    """Counts the chunks that it encodes."""

    encoded = 0

    def __getitem__(self, number, /):
        self.encoded += 1
        return super().__getitem__(number)


def most_in_a_turn(prepared) -> tuple[int, int]:
    """(chunks that the dearest turn encodes, chunks in all) while a leader sends a follower a state of 8 MB."""
    log = StoreLog()
    for number in range(40):
        log.put(f"k{number}", bytes(200_000))
    cutter = Counted(log.machine)
    snapshot = Snapshot(log.machine.index, 1, Configuration(()), 0, prepared(cutter))
    sending, turns = Sending(snapshot, 0), [cutter.encoded]
    while sending.sent < len(cutter):
        before, sending.acked = cutter.encoded, sending.sent
        while sending.next_chunk(SNAPSHOT_WINDOW):
            pass
        turns.append(cutter.encoded - before)
    assert sum(turns) == len(cutter)
    return max(turns), len(cutter)


def test_hazard_10_a_turn_encodes_only_the_chunks_that_it_sends():
    assert most_in_a_turn(lambda cutter: cutter)[0] == SNAPSHOT_WINDOW // SNAPSHOT_CHUNK


def test_hazard_10_a_snapshot_that_is_made_at_once_takes_one_turn_for_all_of_it():
    most, chunks = most_in_a_turn(tuple)
    assert most == chunks > 100


def test_hazard_10_a_server_encodes_nothing_when_it_offers_a_snapshot(monkeypatch):
    sealed = []
    monkeypatch.setattr(snapshot_module, "sealed", lambda key, payload: sealed.append(key))
    replica = ReplicaScene().replica
    assert len(replica._snapshot().chunks) == 1
    assert sealed == []


# ---- 11: a client's command that is repeated after its answer was lost


def counted_twice(log: StoreLog) -> bool:
    """Whether a put whose answer was lost is done again when it is repeated."""
    body = Transact((), (Put("count", b"1"),))
    log.do(body, asked(1))
    log.do(body, asked(1))
    return log.get("count")[0].version == 2


def test_hazard_11_a_repeated_command_is_done_once():
    assert not counted_twice(StoreLog())


def test_hazard_11_without_the_table_it_is_done_twice(monkeypatch):
    monkeypatch.setattr(Sessions, "admit", lambda self, origin, index, body: None)
    monkeypatch.setattr(Sessions, "keep", lambda self, origin, body, answer: None)
    assert counted_twice(StoreLog())


def repeated_after_a_snapshot(is_kept) -> int:
    """How often a put is done that is repeated at a server which took a snapshot of those of its records that are kept."""
    log = StoreLog()
    body = Transact((), (Put("count", b"1"),))
    log.do(body, asked(1))
    log.put("other")
    records = join_chunks(SnapshotCutter(log.machine))
    if not is_kept("store/s/"):
        log.machine._sessions._sessions.clear()  # so that the meta record counts none either
        records = [record for record in log.machine.all_records() if is_kept(record.key)]
    other = StoreLog(StoreMachine.recover(records))
    other.do(body, asked(1))
    return other.get("count")[0].version


def test_hazard_11_the_table_is_in_the_snapshot():
    assert repeated_after_a_snapshot(lambda key: True) == 1


def test_hazard_11_a_snapshot_without_the_table_does_it_twice():
    assert repeated_after_a_snapshot(lambda key: not key.startswith("store/s/")) == 2


# ---- 12: apply that is not the same everywhere

_APPLY = """
    import sys
    from dislocate.core.boundary.store import Delete, GrantLease, Put, RevokeLease, Transact
    from dislocate.core.store import leases
    from tests.support.store_log import StoreLog, asked
    if "unordered" in sys.argv:
        leases.Lease.ordered_keys = lambda lease: tuple(set(lease.keys))
    log = StoreLog()
    lease = log.grant()
    told = []
    for number in range(100):
        told.append(log.do(Transact((), (Put(f"k/{number * 37 % 100}", b"x", lease),)), asked(number + 1)))
    told.append(log.do(Transact((), (Delete("k/1", True), Put("k/z", b"")))))
    told.append(log.do(RevokeLease(lease)))
    from hashlib import blake2b
    import msgspec
    digest = blake2b(msgspec.msgpack.encode([(one.result, one.changes) for one in told]), digest_size=8)
    for record in log.machine.all_records():
        digest.update(msgspec.msgpack.encode(record))
    print(log.machine.digest, digest.hexdigest())
"""


def applied_under(hash_seeds, *arguments: str) -> set[str]:
    """What the same log comes to in processes that hash differently."""
    results = set()
    for seed in hash_seeds:
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", textwrap.dedent(_APPLY), *arguments]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
        results.add(run.stdout)
    return results


def test_hazard_12_a_log_is_the_same_store_however_a_process_hashes():
    assert len(applied_under(("0", "1", "2"))) == 1


def test_hazard_12_keys_in_the_order_of_a_set_differ_from_process_to_process():
    assert len(applied_under(("0", "1", "2"), "unordered")) > 1


def test_hazard_12_a_server_that_applied_something_else_has_another_digest():
    """The audit: members compare digests at the same index."""
    one, other = StoreLog(), StoreLog()
    for log, value in ((one, b"1"), (other, b"2")):
        log.put("a", value)
        log.put("b", b"same")
    assert one.machine.index == other.machine.index
    assert one.machine.digest != other.machine.digest


# ---- 15: locks without fencing


class FencedResource:
    """What a lock protects: it refuses a holder whose token is older than one that it has seen."""

    def __init__(self) -> None:
        self.highest = 0

    def write(self, token: int) -> bool:
        accepted = token >= self.highest
        self.highest = max(self.highest, token)
        return accepted


def test_hazard_15_a_holder_whose_lease_ended_is_fenced_off():
    """He was paused, his lease ended, another got the lock: what he still sends is refused."""
    log, resource = StoreLog(), FencedResource()
    lease = log.grant()
    paused = log.lock("lock", b"paused", lease)
    assert log.lock("lock", b"other") is None
    log.do(RevokeLease(lease))
    other = log.lock("lock", b"other")
    assert resource.write(other)
    assert not resource.write(paused)


def token_after_recovery(raised_by: int) -> tuple[int, int]:
    """The token of a lock that was given out and lost with a majority, and the one given out after the recovery."""
    log = StoreLog()
    log.put("a")
    survivor = StoreMachine.recover(log.machine.all_records())
    lost = log.lock("lock", b"acknowledged by servers that are gone")
    survivor.raise_revision(raised_by)
    return lost, StoreLog(survivor).lock("lock", b"after")


def test_hazard_15_after_a_forced_recovery_tokens_are_above_all_that_were_lost():
    lost, after = token_after_recovery(RECOVERY_STEP)
    assert after > lost


def test_hazard_15_without_raised_revisions_a_token_is_given_out_twice():
    lost, after = token_after_recovery(0)
    assert after == lost


@pytest.mark.parametrize("deed", ["restore", "delete", "lease", "recover", "raise"])
def test_hazard_15_a_lock_never_has_the_token_of_an_earlier_holder(deed):
    log = StoreLog()
    lease = log.grant()
    tokens = [log.lock("lock", b"1", lease)]
    backup = write_backup(log.machine, GroupId(bytes(16)))
    match deed:
        case "restore":
            log.delete("lock")
            log.put("x")
            for part in restore_chunks(backup, 1):
                log.do(part)
            log.delete("lock")
        case "delete":
            log.delete("lock")
        case "lease":
            log.do(RevokeLease(lease))
        case "recover" | "raise":
            log.delete("lock")
            log = StoreLog(StoreMachine.recover(log.machine.all_records()))
            if deed == "raise":
                log.machine.raise_revision(RECOVERY_STEP)
    tokens.append(log.lock("lock", b"2"))
    assert tokens[1] > tokens[0]


def test_hazard_15_after_a_forced_recovery_a_watch_is_told_that_changes_may_be_lost():
    log = StoreLog()
    log.put("a")
    log.machine.raise_revision(RECOVERY_STEP)
    assert log.machine.changes_after("a", False, 1) == Compacted(RECOVERY_STEP + 1)


# ---- 16: gaps in a watch around a compaction


def seen_by_a_slow_watcher() -> tuple[list[int], list[int]]:
    """(revisions of the changes, those that a watcher saw who was away while history was compacted and then read the keys
    where he was told to)."""
    log = StoreLog()
    seen, seen_to, happened = [], 0, []
    for revision in range(1, 21):
        log.put("a", b"%d" % revision)
        happened.append(revision)
        if revision == 10:
            log.machine.forget_changes(keep=3)
        if revision % 5 == 0 and revision != 5:
            told = log.machine.changes_after("a", False, seen_to)
            if isinstance(told, Compacted):
                seen = list(range(1, log.machine.revision + 1))  # the keys as they stand hold all of it
            else:
                seen += [change.revision for change in told]
            seen_to = log.machine.revision
    return happened, seen


def test_hazard_16_a_watcher_sees_all_or_is_told_that_it_is_compacted():
    happened, seen = seen_by_a_slow_watcher()
    assert seen == happened


def test_hazard_16_without_a_floor_a_compaction_is_a_silent_gap(monkeypatch):
    def forget_quietly(history: ChangeHistory, revision: int) -> None:
        history._changes = [change for change in history._changes if change.revision > revision]

    monkeypatch.setattr(ChangeHistory, "forget_to", forget_quietly)
    happened, seen = seen_by_a_slow_watcher()
    assert [revision for revision in happened if revision not in seen] == [1, 2, 3, 4, 5, 6, 7]
