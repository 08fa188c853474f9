"""Time as integer nanoseconds inside, as words outside: '250ms' in a file, float seconds in an answer."""

import re
from typing import Annotated, TypeAlias

from msgspec import Meta

from dislocate.core.errors import ConfigError

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE

_IN_A_SCHEMA = {"format": "words", "examples": ["5s"]}  # the edge describes it as text
Duration: TypeAlias = Annotated[
    int, Meta(extra={"unit": "duration"}, extra_json_schema=_IN_A_SCHEMA)
]  # nanoseconds; in a file '5s'

_SCALES = {"ns": 1, "us": MICROSECOND, "ms": MILLISECOND, "s": SECOND, "m": MINUTE, "h": HOUR, "d": 24 * HOUR}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h|d)", re.ASCII)


def parse_duration(text: object, field: str = "duration") -> int:
    """Nanoseconds of '5s', '250ms', '1.5m', '1h30m'.  Raises `ConfigError` naming `field`."""
    parts = _DURATION.findall(text) if isinstance(text, str) and len(text) <= 32 else []
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ConfigError(field, got=text, expected="a duration such as '5s' or '250ms'")
    return sum(round(float(number) * _SCALES[unit]) for number, unit in parts)


def format_duration(nanoseconds: int) -> str:
    """The shortest exact text that `parse_duration` reads back: '5s', '1500ms', '90s' as '90s'."""
    for unit in ("h", "m", "s", "ms", "us"):
        if nanoseconds and nanoseconds % _SCALES[unit] == 0:
            return f"{nanoseconds // _SCALES[unit]}{unit}"
    return f"{nanoseconds}ns" if nanoseconds else "0s"


def seconds(nanoseconds: int) -> float:
    """Float seconds with microsecond resolution, for answers to people and programs."""
    return round(nanoseconds / SECOND, 6)
