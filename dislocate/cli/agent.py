"""`dislocate agent`: run one agent until it is told to stop."""

import sys
from pathlib import Path as FilePath

import click

from dislocate.agent import run_agent
from dislocate.cli.logs import LEVELS, start_logging
from dislocate.cli.output import about
from dislocate.config import load_config
from dislocate.core.errors import LocalError

_FILE = click.Path(dir_okay=False, path_type=FilePath)


@click.command()
@click.option("--config", "path", type=_FILE, required=True, help="The configuration, in TOML.")
@click.option("--record", type=_FILE, help="Write every input to FILE, for `dislocate sim replay FILE`.")
@click.option("--shaping", type=_FILE, hidden=True, help="A plan of delays and losses: scenarios and tests only.")
@click.option("--log-level", type=click.Choice(LEVELS), default="info", show_default=True)
@click.option("--log-json", "--json", "log_json", is_flag=True, help="Log lines are JSON objects.")
def agent(path: FilePath, record: FilePath | None, shaping: FilePath | None, log_level: str, log_json: bool) -> None:
    """Run an agent.  Prints a line that begins with `ready` when it is up.

    SIGTERM and SIGINT end it as a planned restart, SIGHUP reads services, checks and tags again.

    \b
    dislocate agent --config agent.toml
    dislocate agent --config agent.toml --record today
    """
    start_logging(log_level, as_json=log_json)
    try:
        config = load_config(path)
    except LocalError as error:
        click.echo(about(path, error), err=True)
        sys.exit(2)
    try:
        sys.exit(run_agent(config, record=record, shaping=shaping, reread=lambda: load_config(path)))
    except LocalError as error:
        click.echo(f"{path}: {error}", err=True)
        sys.exit(1)
