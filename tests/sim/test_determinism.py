"""The same scenario, seed and code give the same digest, in any process and after any other run."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from dislocate.core.units import SECOND
from sim.run import Run, simulate
from sim.scenario import read_scenario

ROOT = Path(__file__).parents[2]
STORY = ROOT / "scenarios" / "wan-partition.toml"


def digest_in_a_new_process(hash_seed, seed):
    script = "import sys; from sim import *; from pathlib import Path;"
    script += "s = read_scenario(Path(sys.argv[1])); print(simulate(s, int(sys.argv[2])).digest)"
    ran = subprocess.run(
        [sys.executable, "-c", script, str(STORY), str(seed)],
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT), "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    return ran.stdout.strip()


def test_the_digest_does_not_depend_on_the_hash_seed():
    digests = {digest_in_a_new_process(hash_seed, 7) for hash_seed in ("0", "1", "4242")}
    assert digests == {simulate(read_scenario(STORY), 7).digest}


def test_a_second_world_in_the_process_does_not_notice_the_first():
    story = read_scenario(STORY)
    first, other, again = (simulate(story, seed).digest for seed in (1, 2, 1))
    assert first == again != other


def test_two_worlds_side_by_side_do_not_notice_each_other():
    story = read_scenario(STORY)
    alone = Run(story, 3)
    alone.world.run(30 * SECOND)
    left, right = Run(story, 3), Run(story, 4)
    for second in range(1, 31):
        left.world.run(second * SECOND)
        right.world.run(second * SECOND)
    assert left.world.digest.hex() == alone.world.digest.hex() != right.world.digest.hex()


@pytest.mark.parametrize("field", ["why", "title"])
def test_words_for_people_change_nothing(field):
    story = read_scenario(STORY)
    told = msgspec.structs.replace(story, **{field: "otherwise"})
    assert simulate(story, 5).digest == simulate(told, 5).digest


def test_watching_changes_nothing():
    story = read_scenario(STORY)
    unwatched = msgspec.structs.replace(story, expect=())
    assert simulate(story, 5, invariants=()).digest == simulate(unwatched, 5, invariants=()).digest
