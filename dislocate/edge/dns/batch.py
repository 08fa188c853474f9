"""Datagrams by the batch: many questions taken by one system call, and answered by one.

A reply is written over its question and goes back in the same envelope: the address that the kernel wrote with the question
is what it reads with the reply, and never takes Python's form.  The first two bytes, the id of a DNS message, stay where
they are; neither questions nor replies contain them here.

`Batch` is recvmmsg(2) and sendmmsg(2) of Linux, `OneByOne` the same with what every system has.  Neither waits; both hold one
batch at a time, so that `reply` answers what the last `receive` returned.  Does not know what a question means.
"""

import ctypes
import os
import socket
import sys
from array import array
from collections.abc import Sequence
from itertools import groupby
from mmap import mmap
from operator import add
from typing import Any, Protocol

ID = 2  # bytes that a reply takes over from its question
_NAME = 28  # bytes of struct sockaddr_in6, the longest address of UDP


class Exchange(Protocol):
    """Questions in, replies out, over one UDP socket."""

    def receive(self) -> list[bytes]:
        """The datagrams that wait, at least one.  Raises `OSError`: `BlockingIOError` when none waits."""
        ...

    def reply(self, replies: Sequence[bytes | None]) -> int:
        """Answer each datagram received, None: not at all.  How many replies were not sent: longer than a slot, or refused
        by the kernel."""
        ...


def open_exchange(udp: socket.socket, size: int, slot: int) -> Exchange:
    """The fastest that this system has, for `size` datagrams of `slot` bytes; a longer question is cut off.  `udp` must not
    block."""
    return Batch(udp, size, slot) if sys.platform == "linux" else OneByOne(udp, size, slot)


class _Piece(ctypes.Structure):  # struct iovec
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Envelope(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("header", _Header), ("length", ctypes.c_uint))


class Batch:
    """All memory is laid out once; afterwards only lengths and contents change."""

    def __init__(self, udp: socket.socket, size: int, slot: int) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._recvmmsg, self._sendmmsg = libc.recvmmsg, libc.sendmmsg
        self._udp, self._size, self._slot = udp, size, slot
        self._memory = mmap(-1, size * slot)  # of all buffers the one whose slices are bytes, and are set from bytes
        self._names = ctypes.create_string_buffer(size * _NAME)
        self._pieces = (_Piece * size)()
        self._envelopes = (_Envelope * size)()
        self._places = [ctypes.byref(self._envelopes, at * ctypes.sizeof(_Envelope)) for at in range(size)]
        memory, names = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)), ctypes.addressof(self._names)
        for at, (piece, envelope) in enumerate(zip(self._pieces, self._envelopes, strict=True)):
            piece.base = memory + at * slot
            header = envelope.header
            header.pieces, header.piece_count = ctypes.addressof(piece), 1
            # The kernel replaces the length by that of the socket's family, which stays the same.
            header.name, header.name_length = names + at * _NAME, _NAME
        self._slots, self._starts = [*range(0, size * slot, slot)], [*range(ID, size * slot, slot)]
        # A view a slot: a slice of it costs less than one of all memory, whose bounds are numbers made anew.
        self._cells = [memoryview(self._memory)[start : start + slot - ID] for start in self._starts]
        # One field of all slots as one view; unsigned long is what size_t is on Linux.
        self._whole = memoryview(array("L", [slot] * size))
        self._changed = size  # lengths that are not those of a whole slot
        self._lengths = memoryview(self._pieces).cast("B").cast("L")[1::2]
        words = ctypes.sizeof(_Envelope) // ctypes.sizeof(ctypes.c_uint)
        length = _Envelope.length.offset // ctypes.sizeof(ctypes.c_uint)
        self._received = memoryview(self._envelopes).cast("B").cast("I")[length::words]

    def receive(self) -> list[bytes]:
        self._lengths[: self._changed] = self._whole[: self._changed]
        count = self._recvmmsg(self._udp.fileno(), self._places[0], self._size, 0, None)
        if count < 0:
            failure = ctypes.get_errno()
            raise OSError(failure, os.strerror(failure))
        memory, ends = self._memory, map(add, self._slots, self._received[:count].tolist())
        return [memory[start:end] for start, end in zip(self._starts, ends, strict=False)]

    def reply(self, replies: Sequence[bytes | None]) -> int:
        longest, unsent = self._slot - ID, 0
        lengths = []
        for cell, reply in zip(self._cells, replies, strict=False):
            if reply is not None and (size := len(reply)) <= longest:
                cell[:size] = reply
                lengths.append(ID + size)
            else:
                unsent += reply is not None
                lengths.append(0)
        self._changed = len(lengths)
        self._lengths[: self._changed] = array("L", lengths)
        if all(lengths):  # nearly always
            return unsent + self._send(0, len(lengths))
        end = 0
        for is_due, run in groupby(lengths, bool):
            first, end = end, end + len(list(run))
            if is_due:
                unsent += self._send(first, end)
        return unsent

    def _send(self, first: int, end: int) -> int:
        """Send the replies from `first` to before `end`; how many the kernel refused."""
        refused = 0
        while first < end:
            sent = self._sendmmsg(self._udp.fileno(), self._places[first], end - first, 0)
            if sent < 0:  # told of the first one alone: a call that sent some just ends before the one refused
                sent = 1
                refused += 1
            first += sent
        return refused


class OneByOne:
    """Two system calls a datagram."""

    def __init__(self, udp: socket.socket, size: int, slot: int) -> None:
        self._udp, self._size, self._slot = udp, size, slot
        self._origins: list[tuple[bytes, tuple[Any, ...]]] = []  # id and address of each datagram received

    def receive(self) -> list[bytes]:
        self._origins.clear()
        questions: list[bytes] = []
        while len(questions) < self._size:
            try:
                data, asker = self._udp.recvfrom(self._slot)
            except OSError:
                if questions:
                    break
                raise
            self._origins.append((data[:ID], asker))
            questions.append(data[ID:])
        return questions

    def reply(self, replies: Sequence[bytes | None]) -> int:
        unsent = 0
        for (id_, asker), reply in zip(self._origins, replies, strict=True):
            if reply is None:
                continue
            if len(reply) > self._slot - ID:
                unsent += 1
                continue
            try:
                self._udp.sendto(id_ + reply, asker)
            except OSError:
                unsent += 1
        return unsent
