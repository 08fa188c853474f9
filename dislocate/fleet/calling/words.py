"""What the fleet and its callers say to each other: a plan before, and a line a second from each caller.

Times are nanoseconds of the story, which begins when the fleet writes its monotonic clock into the file `story`: processes
of one machine share that clock.
"""

from msgspec import Struct

from dislocate.core.identity import Path


class CallersPlan(Struct, frozen=True, kw_only=True):
    """The callers of one workload at one agent; each has a client of its own, as a program has."""

    names: tuple[str, ...]
    path: Path  # of the agent that they ask
    agent: str  # 'unix:PATH'
    service: str
    shaping: str  # the file with the shaping plan of that host
    steering: str  # the socket on which links are cut and healed
    story: str  # the file that says when the story began; it is not there before
    reports: str  # the file that they write
    rate: float  # calls a second of each, whatever becomes of them; 0: closed loop
    users: int  # calls that each has under way, in a closed loop
    think: int  # between two of them, on average
    keys: int  # each call is about one of so many; 0: about nothing
    timeout: int  # of one attempt
    begin: int
    until: int | None


class Told(Struct, frozen=True, kw_only=True):
    """What one caller saw since it last said so."""

    caller: str
    at: int
    begun: int  # calls, in all
    ends: tuple[tuple[int, int, bool], ...]  # (begun, took, failed)
    sent: dict[int, dict[str, int]]  # by second of the story: first attempts, by data center
    wanted: dict[int, dict[str, float]]  # by second: the same by the flows that its agent published as each was sent
    hanging: tuple[int, ...]  # when calls were begun that should have ended, whatever became of them
