"""Plant a bug: run a scenario over a core in which one piece of source text was replaced by another.

The source is replaced while it is imported, in a process of its own, so that what runs is the real module with one bug,
and nothing else in the test run can catch it.  `python -m tests.mutants.plant NAME SEED` prints what was violated.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from msgspec import Struct

ROOT = Path(__file__).parents[2]


class Mutant(Struct, frozen=True, kw_only=True):
    """One planted bug, and the invariant that has to find it."""

    name: str
    why: str  # what somebody could have got wrong
    module: str
    original: str  # stands exactly once in the module
    planted: str
    invariant: str
    scenario: str  # TOML, or the name of a file in scenarios/
    seeds: tuple[int, ...] = (1, 2, 3)


class Outcome(Struct, frozen=True):
    """What a run said: the name of the violated invariant (or of the error's type), None when all was well."""

    violated: str | None
    words: str


class PlantingFinder(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Loads one module from replaced source; everything else is found as ever."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant
        self._path = ROOT / (mutant.module.replace(".", "/") + ".py")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def get_data(self, path: str) -> bytes:
        source = Path(path).read_text()
        found = source.count(self._mutant.original)
        if found != 1:
            raise ImportError(f"mutant {self._mutant.name}: its original stands {found} times in {path}, expected once")
        return source.replace(self._mutant.original, self._mutant.planted).encode()


def run_planted(mutant: Mutant | None, scenario: str, seed: int) -> Outcome:
    """Run `scenario` in a process of its own, with the bug planted (None: without one)."""
    arguments = [mutant.name if mutant else "-", scenario, str(seed)]
    result = subprocess.run(
        [sys.executable, "-m", "tests.mutants.plant", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if result.returncode != 0:
        raise AssertionError(result.stderr)
    answer = json.loads(result.stdout)
    return Outcome(answer["violated"], answer["words"])
