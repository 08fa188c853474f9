"""`dislocate dev`: a fleet of real processes on loopback that stays, or plays a scenario."""

import json
import signal
import sys
import tempfile
from pathlib import Path

import click

from dislocate.core.errors import DislocateError


@click.command()
@click.option("--dcs", default=3, show_default=True, help="Data centers, as far apart as real regions.")
@click.option("--nodes", default=3, show_default=True, help="Agents in each data center.")
@click.option(
    "--scenario", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Play this story, then end."
)
@click.option("--dir", "directory", type=click.Path(file_okay=False, path_type=Path), help="Keep state and logs there.")
@click.option("--record", is_flag=True, help="Each agent records itself, for `dislocate sim replay`.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: where everything is, or how the scenario went.")
def dev(dcs: int, nodes: int, scenario: Path | None, directory: Path | None, record: bool, as_json: bool) -> None:
    """Start a fleet of agents and small services as real processes, and keep it until Ctrl-C."""
    from dislocate.fleet.dev import dev_scenario, stay
    from dislocate.fleet.fleet import Fleet
    from sim.scenario import read_scenario

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="dislocate-dev-") as scratch:
        try:
            story = read_scenario(scenario) if scenario else dev_scenario(dcs, nodes)
            home = directory or Path(scratch)
            home.mkdir(parents=True, exist_ok=True)
            with Fleet(story, home, record=record) as fleet:
                if scenario:
                    from dislocate.fleet.live import play

                    sys.exit(0 if play(fleet, as_json=as_json, say=click.echo) else 1)
                if as_json:
                    fleet.start()
                    click.echo(json.dumps(_where(fleet)))
                    signal.pause()
                else:
                    stay(fleet, click.echo, signal.pause)
        except DislocateError as error:
            click.echo(str(error), err=True)
            sys.exit(1)
        except KeyboardInterrupt:
            click.echo("\nevery process is ended", err=True)


def _where(fleet: object) -> dict[str, object]:
    from dislocate.fleet.fleet import Fleet

    assert isinstance(fleet, Fleet)
    return {
        path: {"http": plan.http, "state_dir": str(fleet.home(path) / "state"), "pid": fleet.agents[path].pid}
        for path, plan in fleet.plans.items()
    }
