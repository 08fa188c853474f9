"""`dislocate run simulate`: a run rehearsed in virtual time, on the live fleet as its agents describe it."""

import json
from pathlib import Path

import click

from dislocate.cli.output import EXIT_FAILED, agent_command
from dislocate.client.connection import AgentConnection

SEEDS = 20


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--seeds", type=click.IntRange(1, 1000), default=SEEDS, show_default=True, help="Rehearsals.")
@click.option("--faults/--no-faults", default=True, show_default=True, help="Let things fail in half of them.")
@click.option("--out", type=click.Path(path_type=Path), help="Write the worst one here, for `dislocate sim run`.")
@agent_command
def simulate(agent: AgentConnection, as_json: bool, file: Path, seeds: int, faults: bool, out: Path | None) -> None:
    """Rehearse a run of FILE on this fleet, in virtual time: how long it takes, and what becomes of it when things fail.

    Agents are asked who is where, how far data centers are apart and what is healthy; nothing in the fleet is changed, and
    no node is looked at.  Exits 1 when a rehearsal without faults does not end as done.

    \b
    dislocate run simulate web.toml
    dislocate run simulate web.toml --seeds 100 --out worst.toml
    dislocate run simulate web.toml --no-faults --json
    """
    from dislocate.cli.run_foretold import as_data, how_to_replay, in_lines  # the simulator takes its time
    from dislocate.cli.run_rehearsal import rehearsed

    found = rehearsed(agent, file, seeds, faults, out)
    if as_json:
        click.echo(json.dumps(as_data(found)))
    else:
        for line in in_lines(found):
            click.echo(line)
        click.echo("\n" + how_to_replay(found, file, out))
    if any(one.ending != "done" for one in found.calm):
        click.get_current_context().exit(EXIT_FAILED)
