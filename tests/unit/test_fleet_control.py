"""`dislocate dev do` with a mistake in it gets an answer, and the fleet goes on."""

import threading
from types import SimpleNamespace

import pytest

from dislocate.fleet.control import Control, FleetRefused, ask_fleet
from dislocate.fleet.dev import dev_scenario, how_to_talk


@pytest.fixture
def fleet(tmp_path):
    """A fleet without processes: it knows only the agent fra/a1."""
    running = {"fra/a1": []}
    fleet = SimpleNamespace(scenario=dev_scenario(1, 2), directory=tmp_path, running=running)
    fleet.kill = lambda name: running[name].append("killed")
    fleet.is_running = lambda name: not running[name]
    for verb in ("restart", "wipe", "pause", "resume", "stop_gently"):
        setattr(fleet, verb, fleet.kill)
    threading.Thread(target=Control(fleet).serve, daemon=True).start()
    return fleet


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("fra/shop.web#9", "target: got 'fra/shop.web#9', expected fra/shop.web#1 to fra/shop.web#2"),
        ("fra/a2", "'fra/a2'"),  # in the scenario, unknown to the processes
    ],
)
def test_a_command_about_nobody_is_answered_and_the_fleet_goes_on(fleet, target, words):
    with pytest.raises(FleetRefused, match=words):
        ask_fleet(fleet.directory, {"do": "kill", "target": target})
    assert ask_fleet(fleet.directory, {"do": "kill", "target": "fra/a1"}) == "kill fra/a1"
    assert fleet.running["fra/a1"] == ["killed"]


def test_who_kills_what_does_not_run_is_told_so(fleet):
    assert ask_fleet(fleet.directory, {"do": "kill", "target": "fra/a1"}) == "kill fra/a1"
    assert ask_fleet(fleet.directory, {"do": "kill", "target": "fra/a1"}) == "kill fra/a1 (not running: fra/a1)"


def test_what_to_type_names_the_fleet_since_others_may_run(tmp_path):
    plan = SimpleNamespace(http="http://127.0.1.1:49700", host="127.0.1.1")
    fleet = SimpleNamespace(
        scenario=dev_scenario(2, 1),
        directory=tmp_path,
        plans={"fra/a1": plan, "tok/a1": plan},
        home=lambda path: tmp_path / path,
    )
    said = how_to_talk(fleet)
    breaks = [line.strip() for line in said.splitlines() if " dev do " in line and "--help" not in line]
    assert breaks[0] == f"dislocate dev do kill tok/a1 --dir {tmp_path}"
    assert all(line.endswith(f" --dir {tmp_path}") for line in breaks)
