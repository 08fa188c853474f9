"""Disk: what was answered is there after any end of the process, and nothing is ever thrown away."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path as FilePath

import gevent
import pytest

from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.inputs import Stored, StoreFailed
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import LocalError
from dislocate.io import database, reserve
from dislocate.io.disk import CHECKPOINT, Disk


def until(claim: Callable[[], object], seconds: float = 60.0) -> None:
    with gevent.Timeout(seconds):
        while not claim():
            gevent.sleep(0.002)


def record(key: str, value: bytes | None = b"v") -> StoredRecord:
    return StoredRecord(key, value)


def run_sql(disk: Disk, statement: str) -> None:
    disk._database.connection.execute(statement)


def killed_after(state_dir: FilePath, stores: int) -> None:
    """A process stores k01, k02... one after the other, every second one synced, and is killed after the last answer."""
    script = f"""
import gevent
from pathlib import Path
from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.values import StoredRecord
from dislocate.io.disk import Disk
disk = Disk(Path({str(state_dir)!r}))
for seq in range(1, {stores} + 1):
    disk.store(Store(seq, (StoredRecord(f"k{{seq:02}}", b"v"),), seq % 2 == 0), lambda stored: print(stored.seq, flush=True))
    disk.flush(60)
gevent.sleep(600)
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=os.environ)
    assert [int(child.stdout.readline()) for _ in range(stores)] == list(range(1, stores + 1))
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()


class NoFileMayGrow:
    """While entered, the kernel fails writes of this process behind the first `size` bytes of a file."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __enter__(self) -> None:
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._size, self._before[1]))

    def __exit__(self, *_: object) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


@pytest.fixture
def state_dir(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def disk(state_dir):
    opened = Disk(state_dir)
    yield opened
    opened.close()


def test_what_was_stored_is_loaded_after_a_restart(state_dir):
    answers: list[Stored | StoreFailed] = []
    first = Disk(state_dir)
    first.store(Store(1, (record("b"), record("a", b"\0\1")), True), answers.append)
    first.store(Store(2, (record("b", None), record("c")), False), answers.append)
    first.close()
    assert answers == [Stored(1), Stored(2)]
    second = Disk(state_dir)
    assert second.load() == (record("a", b"\0\1"), record("c"))
    second.close()


def test_answers_come_in_order_and_commits_are_shared(disk):
    answers: list[Stored | StoreFailed] = []
    for seq in range(1, 201):
        disk.store(Store(seq, (record(f"k{seq}"),), seq % 2 == 0), answers.append)
    until(lambda: len(answers) == 200)
    assert answers == [Stored(seq) for seq in range(1, 201)]
    assert disk.commits < 10


def test_a_commit_does_not_stop_the_hub_nor_a_busy_hub_a_commit(disk):
    turns, answers = [], []
    disk.store(Store(1, tuple(record(f"k{i}", bytes(2_000)) for i in range(5_000)), True), answers.append)
    with gevent.Timeout(60):
        while not answers:
            turns.append(1)
            gevent.sleep(0)
    assert len(turns) > 10


def test_a_batch_that_is_refused_is_answered_so_and_leaves_nothing(disk):
    answers: list[Stored | StoreFailed] = []
    run_sql(disk, "CREATE TRIGGER no BEFORE INSERT ON records BEGIN SELECT RAISE(ABORT, 'not today'); END")
    disk.store(Store(1, (record("a"),), True), answers.append)
    until(lambda: answers)
    assert type(answers[0]) is StoreFailed
    assert "not today" in answers[0].reason
    run_sql(disk, "DROP TRIGGER no")
    disk.store(Store(2, (record("b"),), True), answers.append)
    until(lambda: len(answers) == 2)
    assert answers[1] == Stored(2)
    assert disk.load() == (record("b"),)


def test_after_a_failed_write_nothing_is_stored_any_more(disk):
    answers: list[Stored | StoreFailed] = []
    with NoFileMayGrow(16_384):
        disk.store(Store(1, (record("a", bytes(100_000)),), True), answers.append)
        until(lambda: answers)
    disk.store(Store(2, (record("b"),), True), answers.append)
    until(lambda: len(answers) == 2)
    assert [type(answer) for answer in answers] == [StoreFailed, StoreFailed]
    assert all("until the agent is restarted" in answer.reason for answer in answers)
    assert disk.load() == ()


def test_a_log_that_cannot_be_brought_home_ends_storing_too(disk):
    """The log, which begins anew, ends before 24 MB; the file would have to grow behind them."""
    answers: list[Stored | StoreFailed] = []
    for seq in (1, 2):
        with NoFileMayGrow(24 << 20) if seq == 2 else nullcontext():
            records = tuple(record(f"{seq}/{at}", bytes(4_000)) for at in range(CHECKPOINT))
            disk.store(Store(seq, records[: len(records) // 2], False), answers.append)
            disk.store(Store(seq, records[len(records) // 2 :], True), answers.append)
            until(lambda seq=seq: len(answers) == 2 * seq and (disk._database.logged < 100 or disk._broken))
    assert [type(answer) for answer in answers] == [Stored] * 4
    disk.store(Store(3, (record("b"),), True), answers.append)
    until(lambda: len(answers) == 5)
    assert "until the agent is restarted" in answers[4].reason


# ---- a full disk


def frames(state_dir: FilePath) -> int:
    """How long the log is, in pages."""
    return (state_dir / "state.db-wal").stat().st_size // (4_096 + 24)


def test_the_log_is_bounded_in_bytes_however_large_the_values_are(disk, state_dir):
    for seq in range(1, 151):
        answers: list[Stored | StoreFailed] = []
        disk.store(Store(seq, (record("log", bytes(262_144)), record("state", bytes(262_144))), False), answers.append)
        until(lambda answers=answers: answers)
    assert frames(state_dir) < CHECKPOINT + 1_000


@pytest.mark.parametrize("size", [900, 1_100, 5_000, 40_000, 262_144])
def test_how_much_is_logged_is_known_whatever_the_size_of_the_values(tmp_path, size):
    stored = database.Database(tmp_path / "state.db")
    stored.checkpoint()
    for number in range(20):
        stored.commit({f"{number}/{at}": os.urandom(size) for at in range(5)}, sync=False)
    logged = stored.logged
    really = stored.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
    assert 0.6 * really <= logged <= 2.5 * really + 20
    stored.close()


def test_what_was_once_a_long_log_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "LOG_LIMIT", 1 << 20)
    stored = database.Database(tmp_path / "state.db")
    stored.commit({f"{at}": bytes(262_144) for at in range(20)}, sync=False)
    assert frames(tmp_path) > 1_000
    stored.checkpoint()
    stored.commit({"a": b"1"}, sync=False)
    assert frames(tmp_path) < 300
    stored.close()


def test_what_a_killed_process_left_in_the_log_is_brought_home_by_the_next(tmp_path):
    killed_after(tmp_path, 30)
    stored = database.Database(tmp_path / "state.db", kernel_ran_on=True)
    assert stored.logged == 0
    assert stored.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[2] > 0
    stored.close()


def test_a_full_disk_refuses_and_takes_stores_by_itself_when_there_is_space(disk):
    answers: list[Stored | StoreFailed] = []
    run_sql(disk, "PRAGMA max_page_count = 1")
    for seq in (1, 2):
        disk.store(Store(seq, (record("small"), record("large", bytes(100_000))), True), answers.append)
        until(lambda seq=seq: len(answers) == seq)
    assert [answer.reason[:5] for answer in answers] == ["full:", "full:"]
    run_sql(disk, "PRAGMA max_page_count = 1000000")
    disk.store(Store(3, (record("large", bytes(100_000)),), True), answers.append)
    until(lambda: len(answers) == 3)
    assert answers[2] == Stored(3)
    assert disk.load() == (record("large", bytes(100_000)),)


def test_what_is_asked_for_after_a_failure_fails_until_that_was_heard(disk):
    disk.awaits_hearing = True
    answers: list[Stored | StoreFailed] = []
    run_sql(disk, "PRAGMA max_page_count = 1")
    disk.store(Store(1, (record("large", bytes(100_000)),), True), answers.append)
    disk.store(Store(2, (record("after"),), True), answers.append)
    until(lambda: len(answers) == 2)
    run_sql(disk, "PRAGMA max_page_count = 1000000")
    disk.store(Store(3, (record("knows of nothing"),), True), answers.append)
    disk.hear(1)
    disk.store(Store(4, (record("knows of the first"),), True), answers.append)
    until(lambda: len(answers) == 4)
    assert [type(answer) for answer in answers] == [StoreFailed] * 4
    for seq in (2, 3, 4):
        disk.hear(seq)
    disk.store(Store(5, (record("knows of all"),), True), answers.append)
    until(lambda: len(answers) == 5)
    assert answers[4] == Stored(5)
    assert disk.load() == (record("knows of all"),)


def test_on_a_file_system_without_space_nothing_is_lost_and_storing_goes_on_when_there_is_some(tmp_path):
    script = f"""
import os, subprocess
from pathlib import Path
import gevent
from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.values import StoredRecord
from dislocate.io.disk import Disk

subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "none", {str(tmp_path)!r}], check=True)
ballast, answers = Path({str(tmp_path)!r}) / "ballast", []
disk = Disk(Path({str(tmp_path)!r}) / "state")
ballast.write_bytes(bytes(29 << 20))

def store(seq, sync):
    records = tuple(StoredRecord(f"{{seq:03}}/{{at}}", os.urandom(4_000)) for at in range(50))
    disk.store(Store(seq, records, sync), answers.append)
    while len(answers) < seq:
        gevent.sleep(0.001)
    return answers[-1]

kept, seq = [], 0
for free in (False, True):
    if free:
        ballast.unlink()
    outcomes = []
    for _ in range(25 if free is False else 8):
        seq += 1
        said = store(seq, seq % 3 == 0)
        outcomes.append(getattr(said, "reason", "stored")[:5])
        if outcomes[-1] == "store":
            kept.append(seq)
    print(sorted(set(outcomes)), outcomes[-1])
disk.close()
disk = Disk(Path({str(tmp_path)!r}) / "state")
print([record.key for record in disk.load()] == sorted(f"{{seq:03}}/{{at}}" for seq in kept for at in range(50)))
disk.close()
"""
    in_own_mounts = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*in_own_mounts, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    child = subprocess.run([*in_own_mounts, sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert child.stdout.splitlines() == ["['full:', 'store'] full:", "['store'] store", "True"], child.stderr


ON_A_FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
import gevent
from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.errors import LocalError
from dislocate.io.disk import Disk

there = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(there)], check=True)
state, ballast = there / "state", there / "ballast"

def started():
    disk = Disk(state)
    return disk, disk.claim_boot(1)

def stored(disk, key="k"):
    answers = []
    disk.store(Store(1, (StoredRecord(key, b"v"),), True), answers.append)
    while not answers:
        gevent.sleep(0.001)
    return getattr(answers[0], "reason", "stored")[:5]

def fill():
    with ballast.open("ab", 0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass

def in_a_child_that_dies(act):
    child = os.fork()
    if not child:
        act()
        os._exit(0)  # the files stay as a killed process leaves them
    os.waitpid(child, 0)
"""


def on_a_full_disk(tmp_path, script: str) -> list[str]:
    """What `script` prints, run where it may fill a file system of 16 MiB."""
    in_own_mounts = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*in_own_mounts, "mount", "-t", "tmpfs", "none", tmp_path], capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    child = subprocess.run(
        [*in_own_mounts, sys.executable, "-c", ON_A_FULL_DISK + script, tmp_path],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_an_agent_starts_again_and_again_while_its_disk_is_full_and_stores_when_it_is_not(tmp_path, how):
    """Who was killed left its log and the index of that; who was stopped did not."""
    script = f"""
disk, _ = started()
print(stored(disk))
disk.close()
if {how == "killed"}:
    in_a_child_that_dies(started)
fill()

def again():
    disk, boot = started()
    print(boot > 1, stored(disk), [one.key for one in disk.load()], flush=True)

for _ in range(5):
    in_a_child_that_dies(again)
disk, boot = started()
ballast.unlink()
print(boot, stored(disk), (state / "state.reserve").stat().st_size)
disk.close()
"""
    boot = 8 if how == "killed" else 7
    assert on_a_full_disk(tmp_path, script) == ["store", *["True full: ['k']"] * 5, f"{boot} store {256 << 10}"]


def test_without_a_reserve_a_start_on_a_full_disk_says_to_free_space(tmp_path):
    script = """
disk, _ = started()
disk.close()
(state / "state.reserve").unlink()
fill()
try:
    started()
except LocalError as error:
    print(error)
"""
    (said,) = on_a_full_disk(tmp_path, script)
    assert "state.db: the disk is full (" in said
    assert "expected free space: make room on the disk of" in said
    assert "owner" not in said


def test_a_reserve_is_made_only_where_there_is_plenty_of_space(tmp_path, monkeypatch):
    monkeypatch.setattr(reserve, "PLENTY", 1 << 60)
    kept = reserve.Reserve(tmp_path)
    kept.top_up()
    assert not kept.release()
    monkeypatch.undo()
    kept.top_up()
    assert kept.is_whole
    assert (tmp_path / "state.reserve").stat().st_mode & 0o077 == 0
    assert kept.release()
    assert not kept.is_whole


def test_boots_grow_whatever_the_clock_says(state_dir):
    boots = []
    for unix_ms in (1_000, 1_000, 500, 9_000):
        disk = Disk(state_dir)
        boots.append(disk.claim_boot(unix_ms))
        disk.close()
    assert boots == [1_000, 1_001, 1_002, 9_000]


def test_what_was_answered_survives_a_kill(state_dir):
    killed_after(state_dir, 49)
    survivor = Disk(state_dir)
    assert [r.key for r in survivor.load()] == [f"k{seq:02}" for seq in range(1, 50)]
    survivor.close()


def test_two_agents_on_one_directory_are_told_of_each_other(disk, state_dir):
    with pytest.raises(LocalError) as caught:
        Disk(state_dir)
    assert f"process {os.getpid()}" in str(caught.value)
    assert "name another directory" in str(caught.value)


def test_a_damaged_file_is_reported_and_kept(state_dir):
    state_dir.mkdir()
    (state_dir / "state.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(LocalError, match="Move the damaged one"):
        Disk(state_dir)
    assert (state_dir / "state.db").read_bytes() == b"this is no database" * 100


def test_a_page_damaged_in_the_middle_is_found_at_the_start(state_dir):
    disk = Disk(state_dir)
    disk.store(Store(1, tuple(record(f"k{i:05}", bytes(100)) for i in range(2_000)), True), lambda _: None)
    disk.close()
    path = state_dir / "state.db"
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 8_192] = os.urandom(8_192)
    path.write_bytes(data)
    with pytest.raises(LocalError, match="damaged"):
        Disk(state_dir)
    assert path.read_bytes() == data


def test_a_flipped_bit_in_a_value_is_found_at_the_start(state_dir):
    disk = Disk(state_dir)
    disk.store(Store(1, tuple(record(f"k{at}", b"value %d" % at) for at in range(100)), True), lambda _: None)
    disk.close()
    path = state_dir / "state.db"
    path.write_bytes(path.read_bytes().replace(b"value 77", b"value 76"))
    disk = Disk(state_dir)
    with pytest.raises(LocalError, match=r"checksum of 1 of 100 records, first 'k77'.*servers add"):
        disk.load()
    disk.close()


def test_a_commit_behind_a_damaged_place_of_the_log_is_missed_at_the_start_and_all_is_kept(state_dir):
    killed_after(state_dir, 20)
    log = state_dir / "state.db-wal"
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    before = {file: file.read_bytes() for file in state_dir.glob("state.db*")}
    with pytest.raises(LocalError, match=r"behind a damaged place.*Move the damaged one"):
        Disk(state_dir)
    assert {file: file.read_bytes() for file in state_dir.glob("state.db*")} == before


def test_a_torn_log_is_no_damage_and_after_another_start_of_the_kernel_neither_is_a_gap(state_dir):
    killed_after(state_dir, 20)
    log = state_dir / "state.db-wal"
    log.write_bytes(log.read_bytes()[:-3_000])
    opened = Disk(state_dir)
    assert [r.key for r in opened.load()] == [f"k{seq:02}" for seq in range(1, 20)]
    opened.close()
    killed_after(state_dir, 40)
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 1
    log.write_bytes(data)
    (state_dir / "agent.lock").write_text("1 another")
    opened = Disk(state_dir)
    assert 19 <= len(opened.load()) < 40
    opened.close()


def test_a_file_without_checksums_is_read_and_gets_them(state_dir):
    state_dir.mkdir()
    older = sqlite3.connect(state_dir / "state.db", isolation_level=None)
    older.execute("CREATE TABLE records (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID")
    older.execute("INSERT INTO records VALUES ('old', x'01')")
    older.execute("PRAGMA user_version = 1")
    older.close()
    opened = Disk(state_dir)
    opened.store(Store(1, (record("new"),), True), lambda _: None)
    assert opened.flush(60)
    assert opened.load() == (record("new"), record("old", b"\1"))
    assert opened._database.connection.execute("SELECT count(crc) FROM records").fetchone() == (1,)
    opened.close()


def test_checking_a_large_file_is_told(state_dir, monkeypatch, caplog):
    Disk(state_dir).close()
    monkeypatch.setattr(database, "LARGE", 1)
    with caplog.at_level("INFO"):
        Disk(state_dir).close()
    assert "checking" in caplog.text


def test_a_file_of_a_newer_agent_is_left_alone(state_dir):
    Disk(state_dir).close()
    newer = sqlite3.connect(state_dir / "state.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(LocalError, match="run the newer agent"):
        Disk(state_dir)


def test_a_directory_that_cannot_be_made_names_the_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="this user may write"):
        Disk(tmp_path / "file" / "state")


def test_nobody_else_on_the_host_may_read_what_is_stored(state_dir):
    opened = Disk(state_dir)
    try:
        opened.claim_boot(1)
        files = sorted(state_dir.glob("state.db*"))
        assert len(files) > 1  # SQLite's log holds the same as its database
        assert {file.name: oct(file.stat().st_mode & 0o077) for file in files} == dict.fromkeys(
            (file.name for file in files), oct(0)
        )
    finally:
        opened.close()
