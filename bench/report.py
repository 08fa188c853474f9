"""What a benchmark found, as a table for people and as data: figures beside those of a peer, measured in the same run."""

from collections.abc import Sequence
from math import inf

from msgspec import Struct

NOT_MEASURED = "not measured"


class Bound(Struct, frozen=True):
    """What a figure is to reach; `of_peer`: `limit` times the peer's own figure, which is the peer's if that is absent."""

    limit: float
    at_least: bool = False
    of_peer: bool = False

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}{'x the peer' if self.of_peer else ''}"


class Figure(Struct, frozen=True):
    """One row.  A figure that was not measured is None; `note` says why, or how it was."""

    what: str
    unit: str
    ours: float | None
    peer: float | None = None
    bound: Bound | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours over the peer's."""
        return self.ours / self.peer if self.ours is not None and self.peer else None

    @property
    def holds(self) -> bool | None:
        """Whether the bound is kept; None where there is none, or nothing to compare with."""
        if self.bound is None or (self.bound.of_peer and self.peer is None):
            return None
        if self.ours is None:
            return False
        limit = self.bound.limit * self.peer if self.bound.of_peer and self.peer is not None else self.bound.limit
        return self.ours >= limit if self.bound.at_least else self.ours <= limit


class Table(Struct, frozen=True):
    """Figures that belong together.  `peer` is what they stand beside, with its version; '' for nobody."""

    title: str
    peer: str
    figures: tuple[Figure, ...]
    note: str = ""

    @property
    def holds(self) -> bool:
        return all(figure.holds is not False for figure in self.figures)


def render(table: Table) -> str:
    """The table as text."""
    if not table.figures:
        return f"{table.title}: {table.note}"
    header = ("", "dislocate", table.peer, "ratio", "to reach", "")
    rows = [header, *(_row(figure, bool(table.peer)) for figure in table.figures)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(header))]
    lines = [table.title, *(_line(row, widths) for row in rows)]
    return "\n".join([*lines, *([f"  {table.note}"] if table.note else [])])


def _row(figure: Figure, has_peer: bool) -> Sequence[str]:
    verdict = {None: "", True: "ok", False: "MISSED"}[figure.holds]
    return (
        f"{figure.what}, {figure.unit}" if figure.unit else figure.what,
        _number(figure.ours),
        _number(figure.peer) if has_peer else "",
        f"{figure.ratio:.2f}x" if figure.ratio is not None else "",
        str(figure.bound or ""),
        f"{verdict}  {figure.note}".strip(),
    )


def _number(value: float | None) -> str:
    if value is None:
        return NOT_MEASURED
    if value == inf:
        return "never"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value >= 0.001 else "0"


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *numbers, verdict = (
        text.ljust(width) if at == 0 else text.rjust(width)
        for at, (text, width) in enumerate(zip(row, widths, strict=True))
    )
    return f"  {'  '.join([first, *numbers])}  {verdict.strip()}".rstrip()
