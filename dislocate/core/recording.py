"""Recordings: what a node was told and when, and the proof that it does the same again.

A recording is a `Header`, then a `Step` for the start and for each input, and at an orderly end an `Ended`; each frame is
its length (4 bytes, big endian) and msgpack.  A step carries the digest of all effects *before* it, so that it can be
written before the node sees its input: what killed the node is the last thing in the file.  A tail cut off in the middle
of a frame is the normal end of a killed process; anything else that cannot be read is an error.

The digest is BLAKE2b over the encoded effects of every turn.  Pure: whoever records owns the file, and so does who reads.
"""

from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Protocol, TypeAlias

import msgspec
from msgspec import Struct

from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.inputs import Input
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.errors import LocalError
from dislocate.core.node import Node
from dislocate.core.streams import Streams

FORMAT = 1
FRAME_LIMIT = 256 << 20  # bytes: the recovered state of a large node; more is no length but damage


_EXPECTED = "a file written by `dislocate agent --record FILE` of this version"


class Header(Struct, frozen=True, tag=1, array_like=True, kw_only=True):
    """What the node was made of."""

    format: int
    version: str  # of the agent that recorded
    settings: Settings
    seed: str  # of `Streams(f"{seed}/{path}")`
    recovered: Recovered


class Step(Struct, frozen=True, tag=2, array_like=True):
    """The node was given `input` at `now`; None: it was started."""

    now: int
    digest: bytes  # 8 bytes, of all effects before
    input: Input | None = None


class Ended(Struct, frozen=True, tag=3, array_like=True):
    """Nothing more was recorded."""

    digest: bytes


Frame: TypeAlias = Header | Step | Ended


class EffectsDigest:
    """A rolling digest of effects."""

    def __init__(self) -> None:
        self._hash = blake2b(digest_size=16)
        self._encoder = msgspec.msgpack.Encoder()

    def add(self, effects: list[Effect]) -> None:
        """The effects of one turn; an empty turn counts too."""
        self._hash.update(self._encoder.encode(effects))

    def value(self) -> bytes:
        """8 bytes: enough to tell where two runs part."""
        return self._hash.digest()[:8]

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class Readable(Protocol):
    """A binary file, open for reading."""

    def read(self, size: int, /) -> bytes: ...


def encode_frame(frame: Frame) -> bytes:
    """The frame as it stands in a file."""
    body = msgspec.msgpack.encode(frame)
    return len(body).to_bytes(4, "big") + body


def read_frames(file: Readable) -> Iterator[Frame]:
    """The frames in `file`, as far as they are whole.  Raises `LocalError` for what is no recording."""
    decoder: msgspec.msgpack.Decoder[Header | Step | Ended] = msgspec.msgpack.Decoder(Header | Step | Ended)
    number = 0
    while len(length := file.read(4)) == 4:
        size = int.from_bytes(length, "big")
        body = file.read(size) if size <= FRAME_LIMIT else b""
        if len(body) < size <= FRAME_LIMIT:
            return
        try:
            frame = decoder.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise LocalError(f"recording, frame {number}", got=str(error), expected=_EXPECTED) from error
        yield frame
        number += 1


class Divergence(Struct, frozen=True, kw_only=True):
    """Where a replay stopped doing what was recorded: the effects of this step differ."""

    step: int  # 0 is the start
    now: int
    input: Input | None
    effects: tuple[Effect, ...]  # of the replay; the recording has their digest only


class ReplayReport(Struct, frozen=True, kw_only=True):
    """What a replay showed."""

    header: Header
    inputs: int  # replayed, the start not counted
    digest: str  # hex, of all effects of the replay
    matches: bool  # every recorded digest is the replay's
    first_divergence: Divergence | None = None
    raised: str = ""  # the exception that the last input raised, if one did: the incident itself
    is_complete: bool = False  # it ends in order; else its tail was lost with the process

    @property
    def duration(self) -> int:
        """Nanoseconds from the start to the last input."""
        return self.last_now - self.first_now

    first_now: int = 0
    last_now: int = 0


class Replay:
    """A fresh node, and how it does compared with the recorded one."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.node = Node(header.settings, Streams(f"{header.seed}/{header.settings.node.path}"), header.recovered)
        self.digest = EffectsDigest()
        self.steps = 0
        self.first: Step | None = None
        self.last: Step | None = None
        self.effects: list[Effect] = []  # of the last step
        self.divergence: Divergence | None = None
        self.raised = ""

    def compare(self, recorded: bytes) -> None:
        """Check the digest of all effects so far."""
        if self.divergence is None and recorded != self.digest.value() and self.last is not None:
            self.divergence = Divergence(
                step=self.steps - 1, now=self.last.now, input=self.last.input, effects=tuple(self.effects)
            )

    def take(self, step: Step) -> None:
        """Do what the recorded node was told next."""
        self.compare(step.digest)
        self.first = self.first or step
        self.last = step
        self.steps += 1
        try:
            if step.input is None:
                self.effects = self.node.start(step.now)
            else:
                self.effects = self.node.handle(step.input, step.now)
        except Exception as error:  # noqa: BLE001 - whatever killed the recorded node is the result of its replay
            self.raised = f"{type(error).__name__}: {error}"
            return
        self.digest.add(self.effects)

    def report(self, *, is_complete: bool) -> ReplayReport:
        return ReplayReport(
            header=self.header,
            inputs=max(0, self.steps - 1),
            digest=self.digest.hexdigest(),
            matches=self.divergence is None,
            first_divergence=self.divergence,
            raised=self.raised,
            is_complete=is_complete,
            first_now=self.first.now if self.first else 0,
            last_now=self.last.now if self.last else 0,
        )


def replay(frames: Iterable[Frame], watch: Callable[[Step, list[Effect]], None] | None = None) -> ReplayReport:
    """Feed a recording to a fresh node; `watch` is shown each step and its effects.  Raises `LocalError` for frames in no
    order that a recorder writes."""
    iterator = iter(frames)
    header = next(iterator, None)
    if not isinstance(header, Header) or header.format != FORMAT:
        raise LocalError("recording", got="no header of this format", expected=_EXPECTED)
    run = Replay(header)
    for frame in iterator:
        if isinstance(frame, Header) or run.raised:
            raise LocalError(f"recording, step {run.steps}", got=type(frame).__name__, expected="the end")
        if isinstance(frame, Ended):
            run.compare(frame.digest)
            return run.report(is_complete=True)
        run.take(frame)
        if watch is not None and not run.raised:
            watch(frame, run.effects)
    return run.report(is_complete=False)
