"""What `dislocate run simulate` prints: how long it takes, how it ends when things fail, and the worst of all in words."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from dislocate.cli.output import table
from dislocate.cli.run_rehearsal import Rehearsals
from dislocate.core.units import SECOND, format_duration, seconds
from dislocate.core.words import count
from sim.rehearsal import HELD, TROUBLES, Rehearsed


def in_lines(found: Rehearsals) -> Iterator[str]:
    """For people."""
    rtt = f", up to {found.longest_rtt / 1e6:.0f} ms apart" if found.datacenters > 1 else ""
    size = f"{count(found.agents, 'agent')} in {count(found.datacenters, 'data center')}{rtt}"
    batches = count(found.batches, "batch", "batches")
    yield f"{found.name}: {count(len(found.targets))} in {batches}; rehearsed on {size}, {count(found.servers, 'server')}"
    yield f"a node's part takes {_span(found.task_times)}, {found.because}"
    yield ""
    yield f"it takes {_took(found.calm)}" + _unless_done(found.calm)
    if found.troubled:
        parts = ", ".join(f"{ending} {part:.0%}" for ending, part in found.endings().items())
        yield f"with faults: {parts} of {len(found.troubled)} ({', '.join(TROUBLES)})"
    rows = list(service_rows(found))
    if rows:
        yield ""
        columns = (
            "SERVICE",
            "INSTANCES",
            "FEWEST PASSING",
            "LEAST PART",
            *(("WITH FAULTS",) if found.troubled else ()),
        )
        yield table(columns, rows)
        yield "an instance on a node in flight is counted as not passing"
    yield ""
    yield from worst_lines(found.worst)
    for note in found.notes:
        yield f"note: {note}"


def service_rows(found: Rehearsals) -> Iterator[tuple[object, ...]]:
    """The lowest of each service, without faults and with."""
    for name in found.calm[0].lowest:
        calm = [one.lowest[name] for one in found.calm if name in one.lowest]
        hard = [one.lowest[name] for one in found.troubled if name in one.lowest]
        least = calm[0]
        for one in calm:
            least = least.or_lower(one)
        row = (name, least.instances, least.passing, f"{least.part:.0%} in {least.datacenter}")
        if not found.troubled:
            yield row
            continue
        worse = least
        for one in hard:
            worse = worse.or_lower(one)
        yield (*row, f"{worse.passing}, {worse.part:.0%} in {worse.datacenter}")


def worst_lines(worst: Rehearsed) -> Iterator[str]:
    """What happened and how it ended."""
    until = "after" if worst.ending != HELD else "still so after"
    yield f"the worst, seed {worst.seed}: {worst.ending}, {until} {seconds(worst.took):.1f} s" + (
        f": {worst.words}" if worst.words else ""
    )
    for at, words in worst.happened:
        if at <= worst.took:
            yield f"  {seconds(at):6.1f} s  {words}"


def how_to_replay(found: Rehearsals, file: Path, out: Path | None) -> str:
    if out is None:
        seeds = len(found.calm) + len(found.troubled)
        return f"to see it again: dislocate run simulate {file} --seeds {seeds} --out worst.toml"
    return f"dislocate sim run {out} --seed {found.worst.seed}"


def as_data(found: Rehearsals) -> dict[str, Any]:
    """For programs: spans in seconds."""
    took = [seconds(one.took) for one in found.calm]
    return {
        "name": found.name,
        "targets": found.targets,
        "batches": found.batches,
        "task_time": {"seconds": seconds(round(median(found.task_times))), "because": found.because},
        "duration": {"median": median(took), "least": min(took), "most": max(took)},
        "endings": found.endings() if found.troubled else {},
        "lowest": {
            row[0]: dict(zip(("instances", "passing", "least", "faults"), row[1:], strict=False))
            for row in service_rows(found)
        },
        "worst": _as_data(found.worst),
        "rehearsals": [_as_data(one) for one in (*found.calm, *found.troubled)],
        "notes": found.notes,
    }


def _as_data(one: Rehearsed) -> dict[str, Any]:
    happened = [{"at": seconds(at), "what": words} for at, words in one.happened]
    return {
        "seed": one.seed,
        "faults": one.is_troubled,
        "ending": one.ending,
        "words": one.words,
        "took": seconds(one.took),
        "happened": happened,
    }


def _span(times: Sequence[int]) -> str:
    least, most = min(times), max(times)
    middle = _short(round(median(times)))
    return middle if least == most else f"{middle} ({_short(least)} to {_short(most)})"


def _took(calm: Sequence[Rehearsed]) -> str:
    times = [one.took for one in calm]
    return f"{_short(round(median(times)))} ({_short(min(times))} to {_short(max(times))}, {len(times)} without faults)"


def _unless_done(calm: Sequence[Rehearsed]) -> str:
    others = [one for one in calm if one.ending != "done"]
    return f", but {len(others)} did not end as done: {others[0].ending}" if others else ""


def _short(nanoseconds: int) -> str:
    if nanoseconds < SECOND:
        return f"{nanoseconds / 1e6:.0f} ms"
    if nanoseconds < 600 * SECOND:
        return f"{nanoseconds / 1e9:.1f} s"
    return format_duration(round(nanoseconds / 60e9) * 60 * SECOND)
