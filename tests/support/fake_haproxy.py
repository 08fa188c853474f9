"""A HAProxy that is not there: its slots, and what becomes of them when it is told."""

from collections.abc import Iterable

from msgspec.structs import replace

from dislocate.client.pool import Server, State
from dislocate.haproxy.runtime import Slot


def server(at: int, weight: float = 1.0, state: State = State.READY) -> Server:
    return Server(f"fra/a1/web-{at}", "fra", f"10.0.0.{at}", 80, weight, state, "passing")


def slot(
    at: int, address: str = "127.0.0.1", port: int = 1, weight: int = 1, state: str = "maint", since: int = 100
) -> Slot:
    return Slot(f"s{at}", address, port, weight, state, since)


def backup(
    at: int, address: str = "127.0.0.1", port: int = 1, weight: int = 1, state: str = "maint", since: int = 100
) -> Slot:
    return replace(slot(at, address, port, weight, state, since), name=f"b{at}", is_backup=True)


class FakeProxy:
    """Obeys `set server` as HAProxy does; a slot whose address becomes another while it is in is a fault."""

    def __init__(self, slots: Iterable[Slot]) -> None:
        self.slots = {each.name: each for each in slots}

    def obey(self, commands: Iterable[str]) -> None:
        for command in commands:
            _, _, name, what, value, *more = command.split()
            found = self.slots[name.partition("/")[2]]
            if what == "addr":
                assert found.state == "maint", command
                found = replace(found, address=value, port=int(more[1]))
            else:
                found = replace(found, **{what: int(value) if what == "weight" else value})
            self.slots[found.name] = found

    @property
    def ready(self) -> dict[str, int]:
        return {each.address: each.weight for each in self.slots.values() if each.state == "ready"}

    @property
    def serving(self) -> dict[str, int]:
        """Who gets traffic: ordinary servers, else the backups; as HAProxy has it, none with weight 0."""
        able = [each for each in self.slots.values() if each.state == "ready" and each.weight]
        ordinary = {each.address: each.weight for each in able if not each.is_backup}
        return ordinary or {each.address: each.weight for each in able}
