"""What a worker and who started it tell each other, a message a packet."""

import socket
from typing import TypeAlias

import msgspec
from msgspec import Struct

from dislocate.proxy.settings import Plan
from dislocate.proxy.tally import Report

LARGEST = 1 << 18  # bytes; a report of hundreds of services


class Begin(Struct, frozen=True, tag=True):
    """To a worker: what it is to do."""

    plan: Plan
    caller: str


class Ready(Struct, frozen=True, tag=True):
    """Of a worker: it accepts."""


class Said(Struct, frozen=True, tag=True):
    """Of a worker: something that people should know."""

    words: str


class Reported(Struct, frozen=True, tag=True):
    """Of a worker: what it did so far."""

    report: Report


Word: TypeAlias = Begin | Ready | Said | Reported

_DECODER = msgspec.json.Decoder(Word)


def tell(line: socket.socket, word: Word) -> None:
    """Send `word`, or drop it where the other is gone or does not listen: no stream waits for that."""
    try:
        line.send(msgspec.json.encode(word), socket.MSG_DONTWAIT)
    except OSError:
        return


def hear(line: socket.socket) -> Word | None:
    """The next word; None: the other is gone."""
    try:
        data = line.recv(LARGEST)
    except OSError:
        return None
    return _DECODER.decode(data) if data else None
