"""`dislocate store recover` and `forget-promise`: what is done to the disk of a stopped agent."""

import json
from pathlib import Path as FilePath

import click

from dislocate.cli.output import EXIT_FAILED, about, fail
from dislocate.config import Config, load_config
from dislocate.core.errors import LocalError

_FILE = click.Path(dir_okay=False, path_type=FilePath)


@click.command()
@click.option("--config", "path", type=_FILE, required=True, help="The configuration of the stopped agent.")
@click.option(
    "--yes-lose-what-others-had",
    "is_meant",
    is_flag=True,
    help="That acknowledged writes may be lost is understood.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def recover(path: FilePath, is_meant: bool, as_json: bool) -> None:
    """Make one surviving server the whole group, when so many disks are lost that no majority can come back.

    Only on ONE server, the one with the highest revision, with its agent stopped.  Acknowledged writes that did not reach
    it are lost; entries that nobody knew to be committed come to life; revisions go up by 2^40 or more, so that no fencing
    token repeats.  The others are put out of the group and keep what they have until they are added again.

    \b
    dislocate store recover --config agent.toml --yes-lose-what-others-had
    dislocate servers add wdc/a1
    """
    if not is_meant:
        raise click.UsageError(
            "this loses acknowledged writes that only other servers have.  While a majority of the servers can come back, "
            "start them instead.  If they cannot: --yes-lose-what-others-had"
        )
    from dislocate import store_files  # opens a disk, with all that this needs

    config = _config(path, as_json)
    try:
        done = store_files.recover(config)
    except LocalError as error:
        fail(f"{path}: {error}", as_json, EXIT_FAILED)
    answer = {
        "server": str(done.server),
        "group": done.group.uuid.hex(),
        "epoch": done.group.epoch,
        "branch": f"{done.group.branch:010x}",
        "lost": [str(server) for server in done.lost],
        "entries": done.last,
        "known_committed": done.applied,
        "revision_before": done.revision_before,
        "revision": done.revision,
        "keys": done.keys,
        "leases": done.leases,
    }
    click.echo(json.dumps(answer) if as_json else done.report)


@click.command(name="forget-promise")
@click.option("--config", "path", type=_FILE, required=True, help="The configuration of the stopped agent.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def forget_promise(path: FilePath, as_json: bool) -> None:
    """Give up this server's promise to found a group, when a promised disk was lost before the group was founded.

    With its agent stopped, on every server that promised; then start them.  Refused once a group was founded.

    \b
    dislocate store forget-promise --config agent.toml
    """
    from dislocate import store_files  # opens a disk, with all that this needs

    config = _config(path, as_json)
    try:
        done = store_files.forget_promise(config)
    except LocalError as error:
        fail(f"{path}: {error}", as_json, EXIT_FAILED)
    answer = {"given_up": [str(server) for server in done.promised]}
    click.echo(json.dumps(answer) if as_json else done.report)


def _config(path: FilePath, as_json: bool) -> Config:
    try:
        return load_config(path)
    except LocalError as error:
        fail(about(path, error), as_json, 2)
