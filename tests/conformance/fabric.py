"""What the conformance bodies need of a world: ends that carry out effects and hear inputs.

The vocabulary is the boundary's own, so a body says exactly what the core may rely on.  `real.py` is the world of
`dislocate.io`, `simulated.py` that of `sim`.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar

from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.inputs import Input
from dislocate.core.identity import Address, NodeId

PATIENCE = 60.0  # seconds, real or virtual: it ends a test that hangs, and judges no speed

SomeInput = TypeVar("SomeInput", bound=Input)


class End(Protocol):
    """One running agent without a node: effects go in by hand, inputs are collected.  `TimeReached` and `ClockRead`,
    which no effect causes, are left out."""

    node: NodeId
    gossip: Address
    links: Address
    public_key: bytes
    inputs: list[Input]  # what came and was not expected yet, in order

    def do(self, effect: Effect) -> None:
        """Have the world carry out `effect`."""
        ...


class Fabric(Protocol):
    """A world with up to three ends, on hosts of their own."""

    def start(self, name: str, *, is_known: bool = True) -> End:
        """A new end, or the next start (a higher boot, the same addresses and disk) of one that was killed.  When it
        `is_known`, the others know its key, as if from its alive record."""
        ...

    def kill(self, end: End) -> None:
        """SIGKILL: its kernel closes what it had open; the host stays."""
        ...

    def pause(self, end: End) -> None:
        """SIGSTOP."""
        ...

    def resume(self, end: End) -> None:
        """SIGCONT."""
        ...

    def fail_disk(self, end: End) -> None:
        """From now on its disk takes nothing, until the next start."""
        ...

    def fill_disk(self, end: End) -> None:
        """From now on there is no space on its disk for anything large."""
        ...

    def free_disk(self, end: End) -> None:
        """There is space again."""
        ...

    def records(self, end: End) -> dict[str, bytes]:
        """What the next start of a killed end will find on its disk."""
        ...

    def run_until(self, claim: Callable[[], bool], within: float) -> bool:
        """Let the world run until `claim` holds; False when `within` seconds did not suffice."""
        ...

    def stop(self) -> None: ...


def expect(fabric: Fabric, end: End, kind: type[SomeInput]) -> SomeInput:
    """The first input of `kind` that was not expected yet."""
    found: list[SomeInput] = []

    def take() -> bool:
        for at, input_ in enumerate(end.inputs):
            if isinstance(input_, kind):
                found.append(input_)
                del end.inputs[at]
                return True
        return False

    came = fabric.run_until(take, PATIENCE)
    assert came, f"{end.node} heard no {kind.__name__} within {PATIENCE} s, but {end.inputs}"
    return found[0]
