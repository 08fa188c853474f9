"""The log's tail: a process that is killed leaves no sign of damage; damage before the last commit does."""

import sqlite3
from io import BytesIO
from random import Random

import pytest

from dislocate.io import waltail

PAGE = 24 + 4_096  # bytes of a frame
COMMITS = 12


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """Of commits of one to five pages, the second round of the log: behind it is the rest of the first."""
    path = tmp_path_factory.mktemp("log") / "state.db"
    random = Random(1)
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE records (key INTEGER PRIMARY KEY, value BLOB)")
    for _ in range(30):
        database.execute("INSERT INTO records (value) VALUES (?)", (random.randbytes(9_000),))
    database.execute("PRAGMA wal_checkpoint")
    for _ in range(COMMITS):
        database.execute("INSERT INTO records (value) VALUES (?)", (random.randbytes(random.randrange(1_000, 12_000)),))
    data = path.with_name("state.db-wal").read_bytes()
    database.close()
    return data


def lost_commits(log: bytes) -> int:
    return waltail.lost_commits(BytesIO(log))


def ends_of_commits(log: bytes) -> list[int]:
    salts = log[16:24]
    frames = [at for at in range(32, len(log) - PAGE + 1, PAGE) if log[at + 8 : at + 16] == salts]
    return [at + PAGE for at in frames if log[at + 4 : at + 8] != bytes(4)]


def test_a_sound_log_has_lost_nothing(log):
    assert len(ends_of_commits(log)) == COMMITS
    assert lost_commits(log) == lost_commits(b"") == 0


def test_wherever_the_last_write_was_torn_off_nothing_is_lost(log):
    end = ends_of_commits(log)[-1]
    for at in (0, 31, 32, 33, *range(32, end, 1_013)):
        assert lost_commits(log[:at]) <= 0
        if at > 32:
            stale = log[at:end].translate(bytes(range(255, -1, -1)))  # what the file held there before
            assert lost_commits(log[:at] + stale + log[end:]) == 0


def test_a_flipped_bit_before_the_last_commit_is_noticed_wherever_it_is(log):
    *_, before_last, end = ends_of_commits(log)
    random = Random(2)
    for _ in range(60):
        at = random.randrange(before_last)
        damaged = bytearray(log)
        damaged[at] ^= 1 << random.randrange(8)
        assert lost_commits(bytes(damaged)) != 0, f"a bit of byte {at} of {end}"
