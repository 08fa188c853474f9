"""Commits that SQLite would pass over in silence: those behind a damaged place in its write-ahead log.

SQLite takes the first frame whose checksum is wrong for the end of the log, as it must after a power cut, which may have
kept any part of what was not synced.  While the kernel has been running since, that part is whole: a process that is
killed leaves at most a torn transaction at the very end.  So a commit that is whole by itself and stands behind a frame
that is not is the sign of damage, and what it and its predecessors had promised is lost: a vote, an entry of the log.

Holds because `cache_spill` is off, without which a killed commit may leave such a frame.  What is damaged in the last
commit cannot be told from one that a kill tore.  Source: the WAL section of SQLite's file format.
"""

from struct import Struct, unpack_from
from typing import BinaryIO, NamedTuple

MAGIC = 0x377F0682  # and 1 more, when the words of the checksums are big-endian
WORD = 0xFFFFFFFF

_header = Struct(">8I")  # magic, version, page size, checkpoint, two salts, two checksums
_frame = Struct(">6I")  # page, pages of the file at the end of a transaction (else 0), two salts, two checksums


class Checksum(NamedTuple):
    """As SQLite computes it, over words of four bytes."""

    one: int
    two: int

    def over(self, data: bytes | memoryview, order: str) -> "Checksum":
        one, two = self
        words = iter(unpack_from(f"{order}{len(data) // 4}I", data))
        for even, odd in zip(words, words, strict=True):
            one = one + even + two & WORD
            two = two + odd + one & WORD
        return Checksum(one, two)


def lost_commits(log: BinaryIO) -> int:
    """How many whole commits of the log stand behind a frame that is not whole; -1 when its header is not.  Read frame by
    frame, from the beginning; 32 MiB take about a second."""
    header = log.read(_header.size)
    if len(header) < _header.size:
        return 0
    magic, _, page_size, _, *salts, one, two = _header.unpack(header)
    order = ">" if magic & 1 else "<"
    before = Checksum(one, two)
    if magic & ~1 != MAGIC or Checksum(0, 0).over(header[:24], order) != before:
        return -1 if log.read(1) else 0
    is_whole, lost = True, 0
    size = _frame.size + page_size
    while len(frame := log.read(size)) == size:
        _, pages, *its_salts, one, two = _frame.unpack_from(frame)
        if its_salts != salts:
            is_whole = False  # of an earlier round, or damaged
            continue
        if is_whole or pages:  # others need not be looked at
            view = memoryview(frame)
            if before.over(view[:8], order).over(view[_frame.size :], order) != (one, two):
                is_whole = False
            elif not is_whole:
                lost += 1
        before = Checksum(one, two)
    return lost
