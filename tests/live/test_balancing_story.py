"""Callers in three data centers notice nothing, with real processes: killed instances, a drain, an overload, a cut."""

import json
from pathlib import Path

import pytest

from tests.support.live import command, processes_named

pytestmark = pytest.mark.live

STORY = Path(__file__).parents[2] / "scenarios" / "balancing" / "short-story.toml"


def test_no_idempotent_call_fails_and_traffic_goes_where_the_flows_say(tmp_path):
    done = command("dev", "--scenario", str(STORY), "--dir", str(tmp_path), "--json")
    said = "\n".join(path.read_text() for path in sorted(tmp_path.glob("*/*/c*.log")))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{said}"
    verdicts = {one["expectation"]: one["why"] for one in json.loads(done.stdout)}
    calls = verdicts["budget requests_ok orders.api"]
    assert calls.startswith("0 of ")
    assert int(calls.split()[2]) > 300, "callers called all the time"
    assert processes_named(str(tmp_path)) == []
