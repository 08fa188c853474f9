"""The systems that `bench.membership` compares: how an agent of each is started with shipped defaults, and what it says.

Another system is one more class with the three methods of `System`, and its line in `SYSTEMS`.
"""

import re
import subprocess
import sys
from enum import Enum
from pathlib import Path
from shutil import which
from typing import Protocol

from dislocate.io.keyring import generate_secret

DATACENTER = "bench"


class Fact(Enum):
    """What an agent says of another, or of itself."""

    READY = "ready"
    ALIVE = "alive"  # joined, or answered a suspicion
    SUSPECT = "suspect"
    DEAD = "dead"


def name_of(index: int) -> str:
    return f"n{index}"


class System(Protocol):
    """A membership system."""

    name: str

    def version(self) -> str:
        """What is installed here; '' for nothing."""
        ...

    def command(self, index: int, host: str, seed: str | None, directory: Path) -> list[str]:
        """The command line of one agent at address `host`, which joins by `seed`, the address of another."""
        ...

    def read(self, line: bytes) -> tuple[Fact, str] | None:
        """A fact and the name of whom it is about ('' for the speaker), or None for any other line."""
        ...


class Dislocate:
    """Ours, by its lines of events: see `dislocate.edge.eventlog`."""

    name = "dislocate"
    _EVENT = re.compile(rb" member \S+/(\S+) (alive|suspect|dead)\b")

    def version(self) -> str:
        return "this tree"

    def command(self, index: int, host: str, seed: str | None, directory: Path) -> list[str]:
        secret = directory / "secret"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(generate_secret() + "\n")
        config = directory / f"{name_of(index)}.toml"
        seeds = f'["{seed}:49701"]' if seed else "[]"
        config.write_text(
            f'[node]\nname = "{name_of(index)}"\ndatacenter = "{DATACENTER}"\nbind = "{host}"\nseeds = {seeds}\n'
            f'state_dir = "{directory / name_of(index)}"\n[security]\nsecret_file = "{secret}"\n'
        )
        return [sys.executable, "-m", "dislocate", "agent", "--config", str(config)]

    def read(self, line: bytes) -> tuple[Fact, str] | None:
        if line.startswith(b"ready "):
            return Fact.READY, ""
        event = self._EVENT.search(line)
        return (Fact(event[2].decode()), event[1].decode()) if event else None


class Serf:
    """HashiCorp's serf, profile `lan`, which is its default."""

    name = "serf"
    _LINES = (
        (re.compile(rb"serf: EventMemberJoin: (\S+)"), Fact.ALIVE),
        (re.compile(rb"serf: EventMember(?:Failed|Leave): (\S+)"), Fact.DEAD),
        (re.compile(rb"memberlist: Suspect (\S+) has failed"), Fact.SUSPECT),  # said by those whose own probe failed
        (re.compile(rb"agent: Serf agent starting()"), Fact.READY),
    )

    def version(self) -> str:
        if which("serf") is None:
            return ""
        said = subprocess.run(["serf", "version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
        return said.removeprefix("Serf ").strip()

    def command(self, index: int, host: str, seed: str | None, directory: Path) -> list[str]:
        command = ["serf", "agent", f"-node={name_of(index)}", f"-bind={host}", f"-rpc-addr={host}:7373"]
        return [*command, f"-join={seed}"] if seed else command

    def read(self, line: bytes) -> tuple[Fact, str] | None:
        for pattern, fact in self._LINES:
            found = pattern.search(line)
            if found:
                return fact, found[1].decode()
        return None


SYSTEMS: dict[str, System] = {system.name: system for system in (Dislocate(), Serf())}
