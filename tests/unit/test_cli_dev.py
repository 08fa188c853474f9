"""What `dislocate dev` and `dev do` make of their arguments, before there is any process."""

import pytest
from click.testing import CliRunner

from dislocate.cli.main import cli
from dislocate.fleet import control


@pytest.fixture
def asked(monkeypatch):
    """The commands that reach the fleet."""
    commands = []

    def ask_fleet(_directory, command):
        commands.append(command)
        return "done"

    monkeypatch.setattr(control, "ask_fleet", ask_fleet)
    return commands


def dev(*arguments):
    return CliRunner().invoke(cli, ["dev", *arguments], prog_name="dislocate")


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ("drop fra --loss 0", {"do": "drop", "from": "fra", "to": "*", "loss": 0.0}),
        ("slow fra wdc --factor 0 --oneway", {"do": "slow", "from": "fra", "to": "wdc", "factor": 0.0, "oneway": True}),
        ("cut tok", {"do": "cut", "from": "tok", "to": "*"}),
        ("kill fra/a1", {"do": "kill", "target": "fra/a1"}),
    ],
)
def test_what_is_typed_reaches_the_fleet_as_it_stands_even_a_zero(asked, tmp_path, words, command):
    done = dev("do", *words.split(), "--dir", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert asked == [command]


def test_a_second_target_is_a_mistake_of_usage_and_nothing_is_done(asked, tmp_path):
    done = dev("do", "kill", "fra", "wdc", "--dir", str(tmp_path))
    assert (done.exit_code, "takes one target" in done.output, asked) == (2, True, [])


@pytest.mark.parametrize("arguments", [("--dcs", "0"), ("--dcs", "13"), ("--nodes", "-1"), ("--nodes", "51")])
def test_a_fleet_of_a_size_that_cannot_be_is_a_mistake_of_usage(arguments):
    assert dev(*arguments).exit_code == 2
