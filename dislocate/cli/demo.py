"""`dislocate demo`: the story with real processes, then its summary."""

import sys
import time

import click
import msgspec

from dislocate.cli.output import table
from dislocate.core.errors import DislocateError


@click.command()
@click.option(
    "--patience",
    type=click.FloatRange(min=1),
    default=1,
    metavar="FACTOR",
    help="Bounds are multiplied by it, for a slow or busy machine.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the steps as JSON at the end, and no story.")
def demo(patience: float, as_json: bool) -> None:
    """Three data centers of real processes: discover, lose a service, an agent, a data center; heal.  Under a minute.

    Exits 0 only if each step met its bound.

    \b
    dislocate demo
    dislocate demo --json
    """
    from dislocate.cli.dev import end_at_signals
    from dislocate.fleet.demo import run_demo

    end_at_signals()
    began = time.monotonic()
    try:
        steps = run_demo((lambda _: None) if as_json else click.echo, patience=patience)
    except DislocateError as error:
        click.echo(msgspec.json.encode({"error": str(error)}) if as_json else f"\nFAILED: {error}", err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo("\nstopped; every process is ended", err=True)
        sys.exit(1)
    if as_json:
        click.echo(msgspec.json.encode(steps).decode())
        return
    rows = [(step.claim, f"{step.took:.2f} s", _virtual(step.simulated), f"{step.bound:.0f} s") for step in steps]
    click.echo("\n" + table(("WHAT EVERY OBSERVER ANSWERED", "REAL", "VIRTUAL", "BOUND"), rows))
    click.echo(f"\nAll within their bounds; {time.monotonic() - began:.0f} s in all; every process is ended.")
    click.echo("The same fleet, to play with: dislocate dev")


def _virtual(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds:.1f} s"
