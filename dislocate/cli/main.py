"""The `dislocate` command: a table of command groups, each imported when it is asked for.

Exit codes: 0 ok, 1 failed, 2 usage, 3 no agent.  A module named here holds a click command named as in the table.
"""

from importlib import import_module

import click

from dislocate import __version__
from dislocate.core.errors import ConfigError, LocalError

# Command: (module, what it is for).
COMMANDS: dict[str, tuple[str, str]] = {
    "sim": ("dislocate.cli.sim", "Run scenarios in virtual time."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it, or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ConfigError as error:
            raise click.UsageError(str(error)) from error
        except LocalError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dislocate")
def cli() -> None:
    """Where is it, which one should I use, change it safely; across data centers."""
