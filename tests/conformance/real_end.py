"""One end of the real world, in a process of its own: effects come by standard input, inputs leave by standard output.

Each is four bytes of length and msgpack, after the 32 bytes of our public key.
"""

import json
import signal
import sys
from pathlib import Path as FilePath
from struct import Struct
from types import SimpleNamespace

import gevent
import msgspec
import zmq
from gevent.fileobject import FileObjectPosix
from gevent.queue import Queue
from zmq.utils import z85

from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.inputs import Input
from dislocate.core.boundary.requests import Request, Result
from dislocate.core.boundary.values import CheckOutcome, Status
from dislocate.core.identity import Address, NodeId, Path
from dislocate.host.secrets import Keys
from dislocate.host.tasks import Tasks
from dislocate.io.disk import Disk
from dislocate.io.keyring import Keyring
from dislocate.io.links import Links
from dislocate.io.outlets import Outlets
from dislocate.io.udp import DatagramSocket

LENGTH = Struct("!I")
SECRET = bytes(range(32))
FILL, FREE = signal.SIGUSR1, signal.SIGUSR2  # what the parent does to our disk


def read_frame(source: FileObjectPosix) -> bytes | None:
    """The next frame; None when there is none, or only a part of one that a kill has torn off."""
    length = source.read(LENGTH.size)
    if len(length) < LENGTH.size:
        return None
    size = LENGTH.unpack(length)[0]
    data: bytes = source.read(size)
    return data if len(data) == size else None


def introduce(directory: FilePath, public_key: bytes, path: Path) -> None:
    """From now on all ends know whose key this is."""
    (directory / f"{public_key.hex()}.key").write_text(path)


def known_key(directory: FilePath, public_key: bytes) -> Path | None:
    file = directory / f"{public_key.hex()}.key"
    return file.read_text() if file.exists() else None


def state_dir(directory: FilePath, path: Path) -> FilePath:
    where = directory / path.replace("/", "-")
    where.mkdir(exist_ok=True)
    return where


def own_keys(where: FilePath) -> SimpleNamespace:
    """The CURVE keys of this end, the same at each start."""
    file = where / "curve"
    if not file.exists():
        file.write_bytes(b"".join(zmq.curve_keypair()))
    text = file.read_bytes()
    return SimpleNamespace(public=z85.decode(text[:40]), secret=z85.decode(text[40:]))


def limit_pages(disk: Disk, count: int, unheard: FilePath) -> None:
    """SQLite answers as on a full disk (SQLITE_FULL) when its file would need more pages than that."""
    disk._database.connection.execute(f"PRAGMA max_page_count = {count}")
    unheard.unlink()


def no_node(request: Request, timeout: float | None = None) -> Result:
    """Nothing that the bodies do asks the node, since there is none."""
    raise AssertionError(request)


class Child:
    """The parts, put together as the driver does."""

    def __init__(self, directory: FilePath, node: NodeId, gossip: Address, links: Address) -> None:
        self._said: Queue[Input] = Queue()  # unbounded: the parent reads all, always
        keys = own_keys(state_dir(directory, node.path))
        self._links = Links(
            node=node,
            bind=links,
            keys=keys,
            known_key=lambda key: known_key(directory, key),
            deliver=self._said.put,
        )
        where = state_dir(directory, node.path)
        disk = Disk(where)
        tasks = Tasks(
            where,
            facts=lambda: {"state_dir": str(where)},
            ask=no_node,
            deliver=self._said.put,
            open_secret=lambda sealed: sealed,
            keys=Keys(marks=SECRET, digests=SECRET),
        )
        gevent.signal_handler(FILL, limit_pages, disk, 1, where / "unheard")  # as many as there are
        gevent.signal_handler(FREE, limit_pages, disk, 1_000_000, where / "unheard")
        self._verbs = Outlets(
            datagrams=DatagramSocket(bind=gossip, keyring=Keyring((SECRET,)), deliver=self._said.put),
            links=self._links,
            disk=disk,
            run_check=lambda spec: CheckOutcome(Status.PASSING),
            deliver=self._said.put,
            tasks=tasks,
        ).verbs
        tasks.start()
        self._out = FileObjectPosix(sys.stdout.buffer, "wb", close=False)
        self._out.write(keys.public)
        self._out.flush()

    def run(self) -> None:
        gevent.spawn(self._write)
        source = FileObjectPosix(sys.stdin.buffer, "rb", close=False)
        decoder: msgspec.msgpack.Decoder[Effect] = msgspec.msgpack.Decoder(Effect)
        while (data := read_frame(source)) is not None:
            effect = decoder.decode(data)
            self._verbs[type(effect)](effect)

    def _write(self) -> None:
        encoder = msgspec.msgpack.Encoder()
        for input_ in self._said:
            data = encoder.encode(input_)
            self._out.write(LENGTH.pack(len(data)) + data)
            self._out.flush()


def print_records(directory: FilePath, path: Path) -> None:
    disk = Disk(state_dir(directory, path))
    print(json.dumps({record.key: (record.value or b"").hex() for record in disk.load()}))
    disk.close()


def main(arguments: list[str]) -> None:
    if arguments[0] == "--records":
        print_records(FilePath(arguments[1]), arguments[2])
        return
    directory, path, boot, gossip, links = arguments
    datacenter, name = path.split("/")
    Child(FilePath(directory), NodeId(datacenter, name, int(boot)), gossip, links).run()


if __name__ == "__main__":
    main(sys.argv[1:])
