"""Every story in `scenarios/` holds, whatever the seed; what was once found wrong stays mended (`scenarios/regressions/`)."""

import os
from pathlib import Path

import pytest

from sim.run import simulate
from sim.scenario import read_scenario

SCENARIOS = Path(__file__).parents[2] / "scenarios"
STORIES = sorted(SCENARIOS.glob("**/*.toml"))
FULL = os.environ.get("DISLOCATE_PROFILE") == "full"
A_FEW = (  # of the store and of config runs, each some seconds; the others are told by `make prove`
    "bad-config-breaks-the-service",
    "budget-spent-by-unreachable-nodes",
    "controller-lost-during-revert",
    "datacenter-cut-while-executing",
    "node-dies-between-effect-and-journal",
    "once-command-is-lost",
    "rollout",
    "two-operators-at-once",
    "behind-compaction",
    "disk-goes-back",
    "leaders-datacenter-cut",
    "leaders-die-in-turn",
    "servers-change-under-faults",
)
TOLD = [path for path in STORIES if FULL or path.parent.name not in ("runs", "store") or path.stem in A_FEW]
MORE = {"rollout": 200}  # seeds of the story that stands for its issue


@pytest.mark.parametrize("path", TOLD, ids=lambda path: str(path.relative_to(SCENARIOS).with_suffix("")))
def test_a_story_holds_for_every_seed(path):
    story = read_scenario(path)
    is_long = story.servers or story.workloads  # takes seconds, not tenths
    seeds = MORE.get(path.stem, 50) if FULL else 1 if is_long else 3
    for seed in range(1, seeds + 1):
        report = simulate(story, seed)
        assert report.holds, report.as_text(f"dislocate sim run {path.relative_to(SCENARIOS.parent)} --seed {seed}")


def test_there_are_stories_and_each_says_why():
    assert len(STORIES) >= 12
    assert len(A_FEW) == sum(path.stem in A_FEW for path in STORIES)
    assert all(len(read_scenario(path).why) > 40 for path in STORIES)
