"""Errors: who is to blame, what was wrong, and the mend.

`LocalError` is the caller's mistake and `PeerError` is another machine's; both leave all state as it was.  A broken
promise of our own is a `Bug`: the simulator fails the run, an agent logs it and ends.  Any other exception that leaves
the core is a bug too.
"""

GOT_LIMIT = 80  # characters: enough to recognize what one wrote


def brief(got: object) -> str | int | float | None:
    """What stood there, as an answer repeats it: a number as it is, anything else as a text that is not long."""
    if got is None or isinstance(got, bool | float) or (isinstance(got, int) and abs(got) < 1 << 63):
        return got
    text = got if isinstance(got, str) else repr(got)
    return text if len(text) <= GOT_LIMIT else f"{text[: GOT_LIMIT - 3]}..."


class DislocateError(Exception):
    """Base of every error that Dislocate raises on purpose."""


class LocalError(DislocateError):
    """The caller asked for something that cannot be done.  Nothing was changed.

    `field` names the place (`check.interval`), `got` what stood there, `expected` the mend in words.
    """

    def __init__(self, field: str, *, got: object, expected: str) -> None:
        super().__init__(field, got, expected)
        self.field = field
        self.got = got
        self.expected = expected

    def __str__(self) -> str:
        return f"{self.field}: got {self.got!r}, expected {self.expected}"


class ConfigError(LocalError):
    """A configuration or scenario file says something that cannot be meant.  Nothing was started."""


class PeerError(DislocateError):
    """Another machine sent what cannot be understood.  It is counted and dropped; nothing was changed."""

    def __init__(self, peer: str, reason: str) -> None:
        super().__init__(peer, reason)
        self.peer = peer
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.peer}: {self.reason}"


class Bug(DislocateError, AssertionError):
    """An invariant of our own does not hold."""


def require(claim: bool, words: str) -> None:
    """Assert `claim`, in production too (TigerBeetle keeps its assertions on for the same reason).  Raises `Bug`."""
    if not claim:
        raise Bug(words)
