"""The report of a run: as data, as text for people, as JSON for programs."""

from typing import Any

import msgspec
from msgspec import Struct

from dislocate.core.units import SECOND
from sim.expectations import Verdict


class Failure(Struct, frozen=True):
    """What ended the run early."""

    kind: str  # 'invariant' or 'bug'
    words: str


class Watched(Struct, frozen=True):
    """One invariant, and how often there was something to judge."""

    name: str
    exercised: int


class Report(Struct, frozen=True, kw_only=True):
    """What one run showed."""

    title: str
    why: str
    seed: int
    agents: int
    datacenters: int
    instances: int
    virtual_seconds: float
    story: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    invariants: tuple[Watched, ...]
    failure: Failure | None
    inputs: int
    messages_per_agent_second: float
    bytes_per_agent_second: float
    wall_seconds: float
    digest: str

    @property
    def holds(self) -> bool:
        """Everything expected held, and nothing happened that must not."""
        return self.failure is None and all(verdict.holds for verdict in self.verdicts)

    def as_json(self) -> str:
        """One JSON object; `holds` says whether all is well."""
        fields: dict[str, Any] = {"holds": self.holds, **msgspec.structs.asdict(self)}
        return msgspec.json.format(msgspec.json.encode(fields), indent=2).decode()

    def as_text(self, command: str) -> str:
        """For people; `command` repeats the run.  The last line is the digest."""
        return "\n".join([*self._head(), *self._body(), *self._tail(command)])

    def _head(self) -> list[str]:
        size = f"{_count(self.datacenters, 'data center')}, {_count(self.agents, 'agent')}"
        return [self.title, self.why, "", f"{size}, {_count(self.instances, 'service instance')}, seed {self.seed}", ""]

    def _body(self) -> list[str]:
        lines = [*self.story, ""] if self.story else []
        if self.verdicts:
            lines.append("expected")
            lines += [
                f"  {'ok  ' if one.holds else 'FAIL'}  {one.expectation}: {_ending(one)}" for one in self.verdicts
            ]
        held = sum(one.exercised > 0 for one in self.invariants)
        lines += [
            "invariants",
            f"  {held} of {len(self.invariants)} exercised" + (", none broken" if not self._broken else ""),
        ]
        if held < len(self.invariants):
            lines.append(f"  {len(self.invariants) - held} not exercised by this story (--json names them)")
        if self.failure is not None:
            lines.append(f"  FAIL  {self.failure.kind}: {self.failure.words}")
        return [*lines, ""]

    def _tail(self, command: str) -> list[str]:
        speed = self.virtual_seconds / self.wall_seconds if self.wall_seconds else 0.0
        per_input = self.wall_seconds * 1e6 / max(1, self.inputs)
        lines = [
            f"traffic  {self.messages_per_agent_second:.1f} messages and {self.bytes_per_agent_second:.0f} B "
            "an agent and second",
            f"speed    {self.virtual_seconds:.0f} s in {self.wall_seconds:.2f} s ({speed:.0f}x real time), "
            f"{self.inputs} inputs, {per_input:.0f} us each",
        ]
        if not self.holds:
            lines += ["", f"repeat with: {command}"]
        return [*lines, f"digest: {self.digest}"]

    @property
    def _broken(self) -> bool:
        return self.failure is not None and self.failure.kind == "invariant"


def _ending(verdict: Verdict) -> str:
    if verdict.holds:
        return verdict.why or "held"
    at = f" (at {verdict.at / SECOND:.1f}s)" if verdict.at is not None else ""
    return f"{verdict.why}{at}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
