"""The `dislocate` command: a table of command groups, each imported when it is asked for.

Exit codes: 0 ok, 1 failed, 2 usage, 3 no agent.  A module named here holds a click command named as in the table.
"""

from difflib import get_close_matches
from importlib import import_module

import click

from dislocate import __version__
from dislocate.core.errors import ConfigError, LocalError

# Command: (module, what it is for).
COMMANDS: dict[str, tuple[str, str]] = {
    "agent": ("dislocate.cli.agent", "Run the agent of this host."),
    "dev": ("dislocate.cli.dev", "A fleet of real processes on this machine, to play with."),
    "demo": ("dislocate.cli.demo", "The whole story with real processes, in under a minute."),
    "members": ("dislocate.cli.look", "Every agent known, in every data center."),
    "datacenters": ("dislocate.cli.look", "Every data center, as seen from here."),
    "services": ("dislocate.cli.look", "Every service name, with how many instances pass."),
    "service": ("dislocate.cli.look", "The instances of one service, best first."),
    "history": ("dislocate.cli.look", "What happened to a node, service or instance, and who saw it."),
    "pick": ("dislocate.cli.balance", "The instance of a service to use now, and why."),
    "flows": ("dislocate.cli.balance", "Where traffic for a service goes, and why, in words."),
    "policy": ("dislocate.cli.policy", "How services are balanced: list, show, set, delete."),
    "rtt": ("dislocate.cli.look", "Round-trip times to the other data centers."),
    "watch": ("dislocate.cli.watch", "Follow a service; run a command when it changes."),
    "haproxy": ("dislocate.cli.haproxy", "Keep a HAProxy's servers, weights and states as the flows say."),
    "proxy": ("dislocate.cli.proxy", "Balanced TCP for programs that cannot pick by themselves."),
    "register": ("dislocate.cli.change", "Add an instance on this host."),
    "deregister": ("dislocate.cli.change", "Remove an instance of this host."),
    "drain": ("dislocate.cli.change", "Send no new work to an instance, node or data center."),
    "maint": ("dislocate.cli.change", "Take an instance out of the answers, or back."),
    "leave": ("dislocate.cli.change", "Say goodbye for good, and end the agent."),
    "kv": ("dislocate.cli.kv", "Keys of the replicated store: get, put, delete, list, watch."),
    "lock": ("dislocate.cli.lock", "Run a command while holding a lock, and only then."),
    "run": ("dislocate.cli.run", "Config runs: plan, start, watch and steer a change of the fleet."),
    "exec": ("dislocate.cli.exec", "Run a command on many nodes at once."),
    "secret": ("dislocate.cli.secret", "Values that only the nodes they are for can read."),
    "scale": ("dislocate.cli.scale", "How many instances services have: policies, decisions and why."),
    "servers": ("dislocate.cli.servers", "The servers of the store: list, add, remove, transfer."),
    "store": ("dislocate.cli.store", "The store as a whole: status, backup, restore."),
    "sim": ("dislocate.cli.sim", "Run scenarios in virtual time."),
    "keys": ("dislocate.cli.keys", "Make secrets."),
    "doctor": ("dislocate.cli.doctor", "What is wrong with this host, and the mend."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only to run it, or to show its own help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            close = get_close_matches(cmd_name, COMMANDS, n=1)
            ctx.fail(f"no command {cmd_name!r}" + (f", did you mean {close[0]!r}?" if close else ""))
        module, _ = COMMANDS[cmd_name]
        command = getattr(import_module(module), f"{cmd_name}_" if cmd_name == "exec" else cmd_name.replace("-", "_"))
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
    """Where is it, which one should I use, change it safely; across data centers.

    \b
    dislocate demo                      the whole story with real processes
    dislocate dev                       a fleet on this machine, to play with
    dislocate agent --config FILE       the agent of this host
    dislocate COMMAND --help            what each command does, with examples

    Exit codes: 0 ok, 1 failed, 2 usage, 3 no agent.
    """
