"""The real world: each end is a process on loopback with the parts of `dislocate.io`, so kills and stops are real."""

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path as FilePath
from time import monotonic

import gevent
import msgspec
from gevent.fileobject import FileObjectPosix

from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.inputs import Input
from dislocate.core.identity import Address, NodeId
from tests.conformance import real_end
from tests.conformance.fabric import PATIENCE, End
from tests.support.addresses import free_address

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Input] = msgspec.msgpack.Decoder(Input)


class RealEnd:
    """A child process that runs `real_end`."""

    def __init__(self, node: NodeId, gossip: Address, links: Address, directory: FilePath) -> None:
        self.node = node
        self.gossip = gossip
        self.links = links
        self.inputs: list[Input] = []
        self.process = subprocess.Popen(
            [sys.executable, real_end.__file__, str(directory), node.path, str(node.boot), gossip, links],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._in = self.process.stdin
        self._out = FileObjectPosix(self.process.stdout, "rb", close=False)
        self.public_key: bytes = self._out.read(32)
        assert len(self.public_key) == 32, f"{node} did not start"
        self._reader = gevent.spawn(self._read)

    def do(self, effect: Effect) -> None:
        data = _encoder.encode(effect)
        self._in.write(real_end.LENGTH.pack(len(data)) + data)
        self._in.flush()

    def end(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            self.process.wait()
            self._reader.join()  # what it had said before
            self._in.close()
            self._out.close()
            self.process.stdout.close()

    def _read(self) -> None:
        while (data := real_end.read_frame(self._out)) is not None:
            self.inputs.append(_decoder.decode(data))


class RealFabric:
    """Ends on a host of this process alone, with keys, disks and who knows whom in `directory`."""

    def __init__(self, directory: FilePath) -> None:
        self._directory = directory
        self._ends: dict[str, RealEnd] = {}

    def start(self, name: str, *, is_known: bool = True) -> RealEnd:
        earlier = self._ends.get(name)
        if earlier is None:
            node, gossip, links = NodeId("lab", name, 1), free_address(), free_address()
        else:
            node, gossip, links = NodeId("lab", name, earlier.node.boot + 1), earlier.gossip, earlier.links
        end = self._ends[name] = RealEnd(node, gossip, links, self._directory)
        if is_known:
            real_end.introduce(self._directory, end.public_key, node.path)
        return end

    def kill(self, end: End) -> None:
        self._ends[end.node.name].end()

    def pause(self, end: End) -> None:
        os.kill(self._ends[end.node.name].process.pid, signal.SIGSTOP)

    def resume(self, end: End) -> None:
        os.kill(self._ends[end.node.name].process.pid, signal.SIGCONT)

    def fail_disk(self, end: End) -> None:
        """No file of the process may grow: the kernel fails its writes (EFBIG), which to SQLite is an I/O error."""
        pid = self._ends[end.node.name].process.pid
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    def fill_disk(self, end: End) -> None:
        self._limit(end, real_end.FILL)

    def free_disk(self, end: End) -> None:
        self._limit(end, real_end.FREE)

    def _limit(self, end: End, sign: signal.Signals) -> None:
        """It says so by removing a file."""
        heard = real_end.state_dir(self._directory, end.node.path) / "unheard"
        heard.touch()
        os.kill(self._ends[end.node.name].process.pid, sign)
        assert self.run_until(lambda: not heard.exists(), PATIENCE)

    def records(self, end: End) -> dict[str, bytes]:
        output = subprocess.check_output(
            [sys.executable, real_end.__file__, "--records", str(self._directory), end.node.path]
        )
        return {key: bytes.fromhex(value) for key, value in json.loads(output).items()}

    def run_until(self, claim: Callable[[], bool], within: float) -> bool:
        deadline = monotonic() + within
        while not claim():
            if monotonic() > deadline:
                return False
            gevent.sleep(0.002)
        return True

    def stop(self) -> None:
        for end in self._ends.values():
            end.end()
