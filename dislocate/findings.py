"""Findings: what the doctor says of one thing that it looked at."""

from enum import StrEnum

from msgspec import Struct


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Finding(Struct, frozen=True):
    """One thing that was looked at; `mend` is empty when nothing is wrong."""

    what: str
    level: Level
    found: str
    mend: str = ""
