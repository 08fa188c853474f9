"""`dislocate sim`: scenarios in virtual time, and recordings of live agents told again."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
import msgspec

from dislocate.cli.output import about
from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.inputs import Input
from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.recording import ReplayReport, read_frames
from dislocate.core.recording import replay as replay_recording
from dislocate.core.units import seconds
from sim.digest import VERSION
from sim.process import Machine
from sim.report import Report
from sim.run import simulate
from sim.scenario import Scenario, read_scenario
from sim.world import Tracer

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def sim() -> None:
    """Run scenarios in virtual time, and recordings again."""


@sim.command()
@click.argument("file", type=FILE)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Everything random follows from it."
)
@click.option("--seeds", metavar="A..B", help="Run with each of these seeds, and tell those that fail.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option(
    "--trace", type=click.Path(dir_okay=False, writable=True, path_type=Path), help="Write every turn, as JSON lines."
)
@click.pass_context
def run(ctx: click.Context, file: Path, seed: int, seeds: str | None, as_json: bool, trace: Path | None) -> None:
    """Run the scenario in FILE and judge it.

    Ends with the digest of all inputs: the same scenario, seed and code give the same digest.

    \b
    dislocate sim run scenarios/wan-partition.toml --seed 7
    dislocate sim run scenarios/wan-partition.toml --seeds 1..50
    """
    try:
        scenario = read_scenario(file)
    except LocalError as error:
        raise click.UsageError(about(file, error)) from error
    if seeds is not None:
        held = _run_many(scenario, file, parse_seeds(seeds), as_json)
    else:
        with _tracing(trace, scenario, seed) as tracer:
            report = simulate(scenario, seed, tracer=tracer)
        click.echo(report.as_json() if as_json else report.as_text(repeat_command(file, seed)))
        held = report.holds
    if not held:
        ctx.exit(1)


@sim.command()
@click.argument("file", type=FILE)
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def replay(ctx: click.Context, file: Path, as_json: bool) -> None:
    """Feed the recording in FILE (`dislocate agent --record FILE`) to a fresh node, and prove that it does the same again.

    Exits 1, and shows the first input after which it does not, where the code or the recording is another.

    \b
    dislocate sim replay today
    """
    with file.open("rb") as recording:
        report = replay_recording(read_frames(recording))
    click.echo(_replay_json(report) if as_json else "\n".join(_replay_lines(report)))
    if not report.matches:
        ctx.exit(1)


def _replay_json(report: ReplayReport) -> bytes:
    fields = msgspec.structs.asdict(report)
    header = fields.pop("header")
    return msgspec.json.encode({"node": header.settings.node.path, "version": header.version, **fields})


def _replay_lines(report: ReplayReport) -> list[str]:
    node = report.header.settings.node
    lines = [
        f"{node.path}, start {node.boot}, recorded by {report.header.version}",
        f"{report.inputs} inputs over {seconds(report.duration):.1f} s"
        + ("" if report.is_complete else "; the recording breaks off, as that of a killed process does"),
    ]
    if report.raised:
        lines.append(f"the last input raised {report.raised}")
    if report.first_divergence is None:
        lines.append("the same effects after every input")
    else:
        parting = report.first_divergence
        at = seconds(parting.now - report.first_now)
        lines.append(f"OTHER effects after input {parting.step}, at {at:.3f} s: {parting.input!r:.300}")
        lines += [f"  here: {effect!r:.200}" for effect in parting.effects]
    return [*lines, f"digest: {report.digest}"]


def repeat_command(file: Path, seed: int) -> str:
    return f"dislocate sim run {shlex.quote(str(file))} --seed {seed}"


def parse_seeds(text: str) -> range:
    """'3..7' is 3 to 7.  Raises `ConfigError`."""
    first, dots, last = text.partition("..")
    if not (dots and first.isdigit() and last.isdigit() and int(first) <= int(last)):
        raise ConfigError("--seeds", got=text, expected="two numbers, such as 1..20")
    return range(int(first), int(last) + 1)


def _run_many(scenario: Scenario, file: Path, seeds: range, as_json: bool) -> bool:
    failed = 0
    for seed in seeds:
        report = simulate(scenario, seed)
        failed += not report.holds
        if as_json:
            click.echo(msgspec.json.encode({"seed": seed, "holds": report.holds, "digest": report.digest}))
        else:
            click.echo(
                f"seed {seed:<6} {'ok  ' if report.holds else 'FAIL'} {report.digest} {first_finding(report)}".rstrip()
            )
            if not report.holds:
                click.echo(f"  repeat with: {repeat_command(file, seed)}")
    if not as_json:
        click.echo(f"{len(seeds) - failed} of {len(seeds)} seeds held")
    return failed == 0


def first_finding(report: Report) -> str:
    """Why it does not hold, '' when it does."""
    if report.failure is not None:
        return report.failure.words
    return next((f"{one.expectation}: {one.why}" for one in report.verdicts if not one.holds), "")


@contextmanager
def _tracing(path: Path | None, scenario: Scenario, seed: int) -> Iterator[Tracer | None]:
    if path is None:
        yield None
        return
    try:
        file = path.open("wb")
    except OSError as error:
        raise ConfigError("--trace", got=str(path), expected=f"a file to write ({error.strerror})") from error
    with file:
        head = {"trace": VERSION, "title": scenario.title, "seed": seed}
        file.write(msgspec.json.encode(head) + b"\n")
        yield _tracer(file)


def _tracer(file: IO[bytes]) -> Tracer:
    encode = msgspec.json.Encoder().encode

    def trace(now: int, machine: Machine, input_: Input, effects: list[Effect]) -> None:
        turn = {
            "at": now,
            "node": machine.path,
            "input": [type(input_).__name__, input_],
            "effects": [[type(effect).__name__, effect] for effect in effects],
        }
        file.write(encode(turn) + b"\n")

    return trace
