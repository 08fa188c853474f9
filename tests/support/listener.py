"""Nodes that decide nothing and remember what they hear: to drive a simulated world by hand."""

from types import SimpleNamespace

from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.inputs import ClockRead, Input, TimeReached
from dislocate.core.boundary.settings import Settings
from dislocate.core.identity import Path
from dislocate.core.outbox import NEVER


class Listener:
    """What a world needs of a `core.node.Node`."""

    def __init__(self, settings: Settings, keys: dict[Path, bytes]) -> None:
        self.settings = settings
        self.identity = settings.node
        self.inputs: list[Input] = []
        self._keys = keys

    def start(self, now: int) -> list[Effect]:
        return []

    def handle(self, input_: Input, now: int) -> list[Effect]:
        if not isinstance(input_, TimeReached | ClockRead):
            self.inputs.append(input_)
        return []

    def deadline(self) -> int:
        return NEVER

    def forget(self, path: Path) -> None:
        """No node knows the key of `path` any more."""
        del self._keys[path]

    def member(self, path: Path) -> SimpleNamespace | None:
        key = self._keys.get(path)
        return None if key is None else SimpleNamespace(public_key=key)


class Listeners:
    """Makes them, for `World(new_node=...)`; each knows the `keys` of all that were started."""

    def __init__(self) -> None:
        self.keys: dict[Path, bytes] = {}

    def __call__(self, settings: Settings, *_: object) -> Listener:
        self.keys[settings.node.path] = settings.public_key
        return Listener(settings, self.keys)
