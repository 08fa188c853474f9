"""Every command explains itself: an example that begins with its own name, and `--json` for programs."""

import click
import pytest
from click.testing import CliRunner

from dislocate.cli.main import COMMANDS, cli

GROUPS = (
    "sim",
    "keys",
    "kv",
    "servers",
    "store",
    "run",
    "scale",
    "secret",
    "policy",
    "haproxy",
)  # do nothing themselves


def paths():
    """Every command and subcommand, as it is typed."""
    with click.Context(cli) as context:
        for name in COMMANDS:
            command = cli.get_command(context, name)
            if name not in GROUPS:
                yield (name,)
            if isinstance(command, click.Group):
                yield from ((name, below) for below in command.commands)


@pytest.mark.parametrize("path", list(paths()), ids=" ".join)
def test_every_command_explains_itself_with_an_example(path):
    done = CliRunner().invoke(cli, [*path, "--help"], prog_name="dislocate")
    assert done.exit_code == 0, done.output
    examples = [
        line for line in done.output.splitlines() if line.startswith("  ") and f"dislocate {' '.join(path)}" in line
    ]
    assert examples, done.output
    assert "--json" in done.output


def test_an_unknown_command_is_a_mistake_of_usage_and_names_the_nearest():
    done = CliRunner().invoke(cli, ["memberz"], prog_name="dislocate")
    assert (done.exit_code, "did you mean 'members'?" in done.output) == (2, True)
