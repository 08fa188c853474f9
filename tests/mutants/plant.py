"""Plant a bug: run a scenario over a core in which one piece of source text was replaced by another.

The source is replaced while it is imported, in a process of its own, so that what runs is the real module with one bug,
and nothing else in the test run can catch it.

    python -m tests.mutants.plant NAME SCENARIO SEED        NAME '-': no bug; SCENARIO: TOML, or a file in scenarios/

prints {"violated", "words", "digest"}.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from msgspec import Struct

from tests.mutants.catalogue import MUTANTS
from tests.mutants.mutant import Mutant

ROOT = Path(__file__).parents[2]


class Outcome(Struct, frozen=True):
    """What a run said: the name of the violated invariant ('bug' for an exception), None when all was well."""

    violated: str | None
    words: str
    digest: str


class PlantingFinder(importlib.abc.MetaPathFinder, importlib.abc.SourceLoader):
    """Loads one module from replaced source; everything else is found as ever."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._mutant.module:
            return None
        return importlib.util.spec_from_file_location(fullname, source_of(self._mutant), loader=self)

    def get_filename(self, fullname: str) -> str:
        return str(source_of(self._mutant))

    def get_data(self, path: str) -> bytes:
        return planted(self._mutant).encode()


def source_of(mutant: Mutant) -> Path:
    """The file in which the bug is planted."""
    return ROOT / (mutant.module.replace(".", "/") + ".py")


def planted(mutant: Mutant) -> str:
    """The source of the module with the bug in it.  Raises `ImportError` when the original is not there exactly once."""
    source = source_of(mutant).read_text()
    found = source.count(mutant.original)
    if found != 1:
        raise ImportError(f"mutant {mutant.name}: its original stands {found} times in {mutant.module}, expected once")
    return source.replace(mutant.original, mutant.planted)


def run_planted(mutant: Mutant | None, scenario: str, seed: int, *, hash_seed: str = "random") -> Outcome:
    """Run `scenario` in a process of its own, with the bug planted (None: without one)."""
    arguments = [mutant.name if mutant else "-", scenario, str(seed)]
    result = subprocess.run(
        [sys.executable, "-m", "tests.mutants.plant", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    if result.returncode != 0:
        raise AssertionError(result.stderr)
    return Outcome(**json.loads(result.stdout))


def main(name: str, scenario: str, seed: int) -> None:
    if name != "-":
        sys.meta_path.insert(0, PlantingFinder(MUTANTS[name]))
    # Only now: whatever was imported before would be without the bug.
    from sim.run import simulate
    from sim.scenario import parse_scenario, read_scenario

    is_file = scenario.endswith(".toml")
    story = read_scenario(ROOT / "scenarios" / scenario) if is_file else parse_scenario(scenario)
    report = simulate(story, seed)
    violated, words = None, ""
    if report.failure is not None:
        words = report.failure.words
        violated = words.partition(":")[0] if report.failure.kind == "invariant" else "bug"
    print(json.dumps({"violated": violated, "words": words, "digest": report.digest}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
