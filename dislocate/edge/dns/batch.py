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
        memory, names = ctypes.addressof(ctypes.c_char.from_buffer(self._memory)), ctypes.addressof(self._names)
        for at, (piece, envelope) in enumerate(zip(self._pieces, self._envelopes, strict=True)):
            piece.base = memory + at * slot
            header = envelope.header
            header.pieces, header.piece_count = ctypes.addressof(piece), 1
            # The kernel replaces the length by that of the socket's family, which stays the same.
            header.name, header.name_length = names + at * _NAME, _NAME
        self._starts = range(ID, size * slot, slot)
        # One field of all slots as one view; unsigned long is what size_t is on Linux.
        self._whole = array("L", [slot] * size)
        self._lengths = memoryview(self._pieces).cast("B").cast("L")[1::2]
        words = ctypes.sizeof(_Envelope) // ctypes.sizeof(ctypes.c_uint)
        length = _Envelope.length.offset // ctypes.sizeof(ctypes.c_uint)
        self._received = memoryview(self._envelopes).cast("B").cast("I")[length::words]

    def receive(self) -> list[bytes]:
        self._lengths[:] = self._whole
        count = self._recvmmsg(self._udp.fileno(), self._envelopes, self._size, 0, None)
        if count < 0:
            failure = ctypes.get_errno()
            raise OSError(failure, os.strerror(failure))
        memory, lengths = self._memory, self._received[:count].tolist()
        return [memory[start : start + length - ID] for start, length in zip(self._starts, lengths, strict=False)]

    def reply(self, replies: Sequence[bytes | None]) -> int:
        memory, longest, unsent = self._memory, self._slot - ID, 0
        lengths = []
        for start, reply in zip(self._starts, replies, strict=False):
            if reply is not None and len(reply) <= longest:
                memory[start : start + len(reply)] = reply
                lengths.append(ID + len(reply))
            else:
                unsent += reply is not None
                lengths.append(0)
        self._lengths[: len(lengths)] = array("L", lengths)
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
            envelopes = ctypes.byref(self._envelopes, first * ctypes.sizeof(_Envelope))
            sent = self._sendmmsg(self._udp.fileno(), envelopes, end - first, 0)
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
