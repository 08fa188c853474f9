"""What a mutant is."""

from msgspec import Struct


class Mutant(Struct, frozen=True, kw_only=True):
    """One planted bug, and the invariant that has to find it."""

    name: str
    why: str  # what somebody could have got wrong
    module: str
    original: str  # stands exactly once in the module
    planted: str
    invariant: str
    scenario: str  # TOML, or the name of a file in scenarios/
    seeds: tuple[int, ...] = (1, 2, 3)
