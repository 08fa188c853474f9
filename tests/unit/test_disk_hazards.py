"""Hazards of disks that others ran into: each test shows the cure, and then that without it the harm is done.

The numbers are those of the list that the store was built from.  Hazard 3: a write that was torn off, a bit that flipped.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from dislocate.core.errors import LocalError
from dislocate.io import database
from dislocate.io.database import Database

COMMITS = 12
FILE, LOG = "state.db", "state.db-wal"


@pytest.fixture
def stored(tmp_path):
    """What a process leaves that is killed after `COMMITS` synced commits: the file, and the log with all that is new."""
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    disk = Database(before / FILE)
    for number in range(COMMITS):
        disk.commit({f"k{number:02}": Random(number).randbytes(6_000)}, sync=True)
    shutil.copytree(before, after)
    disk.close()
    return after


def started(directory: Path) -> dict[str, bytes] | None:
    """What the next start reads; None when it refuses to start."""
    try:
        disk = Database(directory / FILE, kernel_ran_on=True)
    except LocalError:
        return None
    try:
        return {record.key: record.value for record in disk.load()}
    except LocalError:
        return None
    finally:
        disk.close()


def change(file: Path, how: Callable[[bytes], bytes]) -> None:
    file.write_bytes(how(file.read_bytes()))


# ---- 3: a torn tail, which is nobody's loss


@pytest.mark.parametrize("seed", range(8))
def test_hazard_3_a_write_that_was_torn_off_is_cut_and_nothing_before_it_is_lost(stored, seed):
    whole = started(shutil.copytree(stored, stored.with_name("whole")))
    torn = Random(seed).randrange(1, 6_000)  # bytes of the last commit, which has more
    change(stored / LOG, lambda log: log[:-torn])
    found = started(stored)
    assert list(found) == [f"k{number:02}" for number in range(COMMITS - 1)]
    assert found.items() <= whole.items()


# ---- 3: damage in the middle of the log


def lost_in_silence(stored: Path) -> list[str]:
    """Keys that were durable and are not there after a start that found nothing wrong with a flipped bit of the log."""

    def flip(log: bytes) -> bytes:
        middle = len(log) // 2
        return log[:middle] + bytes([log[middle] ^ 1]) + log[middle + 1 :]

    change(stored / LOG, flip)
    found = started(stored)
    return [] if found is None else [key for number in range(COMMITS) if (key := f"k{number:02}") not in found]


def test_hazard_3_a_start_refuses_a_log_that_is_damaged_before_its_end_and_keeps_it(stored):
    assert lost_in_silence(stored) == []
    damaged = (stored / LOG).read_bytes()
    assert started(stored) is None
    assert (stored / LOG).read_bytes() == damaged


def test_hazard_3_without_a_look_behind_the_damage_half_of_what_was_durable_is_gone_in_silence(stored, monkeypatch):
    monkeypatch.setattr(database, "lost_commits", lambda log: 0)
    assert len(lost_in_silence(stored)) >= COMMITS // 3


# ---- 3: damage in a value that is home


def read_after_a_flipped_bit(directory: Path) -> bytes | None:
    """The value as a start reads it after its last digit changed on the disk; None when it refuses to start."""
    disk = Database(directory / FILE)
    disk.commit({"home": b"value 77"}, sync=True)
    disk.close()
    change(directory / FILE, lambda file: file.replace(b"value 77", b"value 76"))
    found = started(directory)
    return None if found is None else found["home"]


def test_hazard_3_a_value_with_a_flipped_bit_is_never_read(tmp_path):
    assert read_after_a_flipped_bit(tmp_path) is None


def test_hazard_3_without_checksums_of_records_it_is_read_as_if_it_had_been_written(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "checksum", lambda key, value: 0)
    assert read_after_a_flipped_bit(tmp_path) == b"value 76"
