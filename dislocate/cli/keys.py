"""`dislocate keys`: the secret that a cluster shares."""

import click

from dislocate.io.keyring import generate_secret


@click.group()
def keys() -> None:
    """Make the secret that all agents of a cluster share."""


@keys.command()
@click.option("--json", "as_json", is_flag=True, help="Print an object instead of the bare secret.")
def generate(as_json: bool) -> None:
    """Print a new secret, the same file for every host of the cluster.

    \b
    umask 077; dislocate keys generate > cluster.secret
    """
    secret = generate_secret()
    click.echo(f'{{"secret": "{secret}"}}' if as_json else secret)
