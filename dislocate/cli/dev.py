"""`dislocate dev`: a fleet of real processes on loopback that stays, or plays a scenario; `dev do` breaks things in it."""

import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from dislocate.core.errors import DislocateError

_DIRECTORY = click.Path(file_okay=False, path_type=Path)
_STORY = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(invoke_without_command=True)
@click.option(
    "--dcs",
    type=click.IntRange(1, 12),
    default=3,
    show_default=True,
    help="Data centers, as far apart as real regions.",
)
@click.option("--nodes", type=click.IntRange(1, 50), default=3, show_default=True, help="Agents in each data center.")
@click.option("--scenario", type=_STORY, help="Play this story, then end.")
@click.option("--dir", "directory", type=_DIRECTORY, help="Keep state and logs there.")
@click.option("--record", is_flag=True, help="Each agent records itself, for `dislocate sim replay`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: where everything is, or how the scenario went.")
@click.pass_context
def dev(context: click.Context, **options: Any) -> None:
    """Start a fleet of agents and small services as real processes, and keep it until Ctrl-C.

    \b
    dislocate dev                                      three data centers of three agents
    dislocate dev --scenario scenarios/killed-agent.toml   play a story, judge it, end
    dislocate dev do cut tok                           from another shell: break something
    """
    if context.invoked_subcommand is None:
        sys.exit(_run(**options))


@dev.command()
@click.argument("verb")
@click.argument("target")
@click.argument("to", required=False)
@click.option("--oneway", is_flag=True, help="cut, heal, slow, drop: this direction only.")
@click.option("--factor", type=float, help="slow: delays are multiplied by it.")
@click.option("--loss", type=float, help="drop: the part of the datagrams that is lost, 0..1.")
@click.option(
    "--dir", "directory", type=_DIRECTORY, help="Of the fleet: where it was started with --dir, or several run."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def do(verb: str, target: str, to: str | None, directory: Path | None, as_json: bool, **options: Any) -> None:
    """Do to the running fleet what a scenario can: VERB TARGET, or VERB FROM [TO] between two places.

    \b
    kill, restart, pause, resume, stop, leave, wipe   an agent 'fra/a1', a service 'fra/shop.web#1',
                                                      all agents of 'fra', or of everywhere '*'
    drain, undrain                                    the same
    cut, heal, slow --factor F, drop --loss P         between FROM and TO: 'fra', 'fra/a1', '*' (everybody else)

    \b
    dislocate dev do kill wdc/a2
    dislocate dev do cut tok
    dislocate dev do slow fra wdc --factor 5 --oneway
    dislocate dev do heal tok
    """
    from dislocate.cli.output import EXIT_FAILED, EXIT_NO_AGENT, fail
    from dislocate.fleet.control import FleetRefused, NoFleet, ask_fleet, find_fleet

    between = verb in ("cut", "heal", "slow", "drop")
    if to is not None and not between:
        raise click.UsageError(f"{verb!r} takes one target: got {target!r} and {to!r}, expected one command for each")
    # What was not given is left out; a 0 was given.
    given = {name: value for name, value in options.items() if value is not None and value is not False}
    command: dict[str, Any] = {"do": verb, **given}
    command |= {"from": target, "to": "*" if to is None else to} if between else {"target": target}
    try:
        did = ask_fleet(directory or find_fleet(), command)
    except NoFleet as error:
        fail(str(error), as_json, EXIT_NO_AGENT)
    except FleetRefused as error:
        fail(str(error), as_json, EXIT_FAILED)
    click.echo(json.dumps({"did": did}) if as_json else did)


def _run(dcs: int, nodes: int, scenario: Path | None, directory: Path | None, record: bool, as_json: bool) -> int:
    from dislocate.fleet.control import DIRECTORY_PREFIX
    from dislocate.fleet.dev import dev_scenario, stay
    from dislocate.fleet.fleet import Fleet
    from dislocate.fleet.live import play
    from sim.scenario import read_scenario

    end_at_signals()
    with tempfile.TemporaryDirectory(prefix=DIRECTORY_PREFIX) as scratch:
        try:
            story = read_scenario(scenario) if scenario else dev_scenario(dcs, nodes)
            home = (directory or Path(scratch)).absolute()
            home.mkdir(parents=True, exist_ok=True)
            with Fleet(story, home, record=record) as fleet:
                if scenario:
                    return 0 if play(fleet, as_json=as_json, say=click.echo) else 1
                stay(fleet, click.echo, as_json=as_json)
        except DislocateError as error:
            click.echo(json.dumps({"error": str(error)}) if as_json else str(error), err=True)
            return 1
        except KeyboardInterrupt:
            click.echo("\nevery process is ended", err=True)
            return 1 if scenario else 0
    return 0


def end_at_signals() -> None:
    """SIGINT and SIGTERM raise KeyboardInterrupt, so that the fleet is ended; a shell's `&` would have SIGINT ignored."""
    for sign in (signal.SIGINT, signal.SIGTERM):
        signal.signal(sign, signal.default_int_handler)
