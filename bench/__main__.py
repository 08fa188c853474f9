"""Every benchmark in turn, each beside its peer in the same run: `python -m bench [--only NAMES] [--quick] [--out FILE]`.

A benchmark is a module `bench.NAME` with `measure(quick) -> Iterable[Table]`; the peers are whatever is installed here.
Exits with 1 when a figure misses what it is to reach.
"""

import os
import sys
import time
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import click
import msgspec

from bench.report import Table, render

BENCHES = ("membership", "dns", "store", "runs", "proxy", "simulator", "pick")


def measure(name: str, quick: bool) -> Iterable[Table]:
    """The tables of one benchmark, as they come."""
    if find_spec(f"bench.{name}") is None:
        return [Table(name, "", (), f"not measured: there is no bench.{name}")]
    return import_module(f"bench.{name}").measure(quick)


def names(_context: click.Context, _parameter: click.Parameter, value: str) -> tuple[str, ...]:
    chosen = tuple(value.split(","))
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}; there are {', '.join(BENCHES)}")
    return chosen


@click.command()
@click.option("--only", default=",".join(BENCHES), callback=names, show_default=True, help="Names, joined by commas.")
@click.option("--quick", is_flag=True, help="Small counts: to see that it works, not what it is worth.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures to FILE, as JSON.")
def main(only: tuple[str, ...], quick: bool, out: Path | None) -> None:
    """Measure Dislocate beside its peers, shipped defaults on both sides."""
    began = time.monotonic()
    tables: list[Table] = []
    for name in only:
        for table in measure(name, quick):
            tables.append(table)
            click.echo(render(table) + "\n")
    missed = [f"{table.title}: {figure.what}" for table in tables for figure in table.figures if figure.holds is False]
    click.echo(f"{time.monotonic() - began:.0f} s on {os.cpu_count()} cores; load average {os.getloadavg()[0]:.1f}")
    click.echo("missed: " + "; ".join(missed) if missed else "every figure reaches what it is to reach")
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(tables)))
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
