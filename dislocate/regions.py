"""Round-trip times between real regions, from the table in `data/region_rtt.csv` (its head names the source)."""

import csv
from functools import cache
from importlib.resources import files

from dislocate.core.errors import ConfigError
from dislocate.core.units import MILLISECOND


@cache
def region_table() -> dict[str, dict[str, int]]:
    """Mean RTT in nanoseconds, row = from, column = to; directional."""
    text = (files("dislocate") / "data" / "region_rtt.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {
        row["region"]: {to: round(float(rtt) * MILLISECOND) for to, rtt in row.items() if to not in ("region", "name")}
        for row in rows
    }


def region_rtt(origin: str, target: str) -> int:
    """Nanoseconds there and back.  Raises `ConfigError` for an unknown region."""
    table = region_table()
    for region in (origin, target):
        if region not in table:
            raise ConfigError("region", got=region, expected="one of " + ", ".join(sorted(table)))
    return table[origin][target]
