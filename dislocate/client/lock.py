"""A lock in the replicated store: a key with a lease, made only where there is none.

Invariant: whoever holds the lock knows a moment, `safe_until`, before which nobody else can have it: a lease ends no sooner
than its ttl after the last time that it was *asked* to be kept alive, by this host's clock, and the margin is for clocks that
run at different speeds and for a command that takes its time to die.  `token` is the revision at which the key was made: it
grows from holder to holder, so whatever is changed under the lock can refuse an older one (a fencing token, as Kleppmann
asks for it); a lock alone cannot protect against a holder that was asleep.

The clock counts while the host is suspended.  Waits by watching the key, not by asking again and again; who waits is woken
by each release, and one of them wins: there is no queue.
"""

import json
import shlex
import time
from base64 import b64decode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from dislocate.client.connection import STORE_TIMEOUT, AgentConnection, NoAgent, Problem
from dislocate.core.errors import DislocateError
from dislocate.core.units import SECOND, format_duration

MARGIN = 5  # the last fifth of the ttl is for ending what needs the lock
SHORTEST_TRY = 0.2  # seconds that one request gets, however late it is: a living agent answers in milliseconds
NOTE_LIMIT = 200  # characters that tell others who holds the lock
PAUSE = 1.0  # seconds between tries while no majority of servers answers
RELEASE_WITHIN = 5.0  # seconds; a lease that cannot be given back ends by itself

NOT_FOUND, CONFLICT, UNAVAILABLE, UNCERTAIN = 404, 409, 503, 504


class NotTaken(DislocateError):
    """Somebody else holds the lock.  Nothing was changed."""

    def __init__(self, key: str, holder: str, *, is_left: bool = False) -> None:
        """`is_left`: the key has no lease, so it does not go away by itself."""
        super().__init__(key, holder)
        self.holder = holder
        self.is_left = is_left

    def __str__(self) -> str:
        words = f"{self.args[0]} is held" + (f" by {self.holder}" if self.holder else "")
        if not self.is_left:
            return words
        return f"{words}, for ever: the key has no lease\nfree it: dislocate kv delete {shlex.quote(self.args[0])}"


class LockLost(DislocateError):
    """The lock is no longer ours for certain.  What needs it must stop."""


def boottime() -> float:
    """Seconds that go on while the host is suspended, as others' clocks do."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lock:
    """One holder, or one who wants to be."""

    def __init__(
        self,
        agent: AgentConnection,
        key: str,
        *,
        ttl: int,
        note: str,
        say: Callable[[str], None],
        now: Callable[[], float] = boottime,
    ) -> None:
        self.token = 0
        self.safe_until = 0.0
        self.ttl = ttl / SECOND
        self._agent = agent
        self._key = key
        self._ttl_text = format_duration(ttl)
        self._note = note.encode()
        self._say = say
        self._now = now
        self._lease = 0
        self._kept_at = 0.0  # when the lease was last asked to be kept alive, with success
        self._last_words = ""

    @property
    def margin(self) -> float:
        """Seconds before the end of the lease from which on the lock does not count as held."""
        return self.ttl / MARGIN

    @property
    def beat(self) -> float:
        """Seconds between two signs of life: two may be lost."""
        return self.ttl / 3

    # ---- taking

    def take(self, patience: float | None) -> int:
        """The token, when the lock is ours.  Raises `NotTaken` when it was another's for `patience` seconds (None: waits
        for ever), `Problem` or `NoAgent` when the store cannot be asked."""
        ends = None if patience is None else self._now() + patience
        self._grant()
        while True:
            try:
                if self._try():
                    return self.token
                self._await_release(ends)
            except Problem as problem:
                if problem.status == NOT_FOUND:  # our lease ended while we waited
                    self._grant()
                    continue
                if problem.status not in (UNAVAILABLE, UNCERTAIN) or not self._is_worth_waiting(ends):
                    raise
                self._pause(problem)
            except NoAgent as error:  # it was there a moment ago: it may be restarted
                if not self._is_worth_waiting(ends):
                    raise
                self._pause(error)

    def _try(self) -> bool:
        """Make the key, if there is none; or find that an earlier try did, whose answer was lost."""
        self.token = 0
        try:
            raw = self._agent.raw("PUT", self._path(f"cas=0&lease={self._lease}"), self._note, STORE_TIMEOUT)
            self.token = json.loads(raw.body)["revision"]
        except Problem as problem:
            if problem.status not in (CONFLICT, UNCERTAIN):
                raise
            found = self._look()
            if found is None or found["lease"] != self._lease:
                return False
            self.token = found["created"]
        if self._now() - self._kept_at > self.beat:
            self._keep_lease()
        self.safe_until = self._kept_at + self.ttl - self.margin
        return True

    def _await_release(self, ends: float | None) -> None:
        """Until the key is gone, in slices that keep our own lease alive.  Raises `NotTaken`."""
        found = self._look()
        while found is not None:
            left = self.beat if ends is None else min(self.beat, ends - self._now())
            taken = NotTaken(self._key, holder_of(found), is_left=not found["lease"])
            if left <= 0:
                raise taken
            self._say_once(f"waiting: {taken}")
            found = self._look(f"index={found['revision']}&wait={max(1, round(left * 1000))}ms", left)
            self._keep_lease()

    def _look(self, query: str = "", wait: float = 0.0) -> dict[str, Any] | None:
        """The key as it is; None: there is none."""
        try:
            found: dict[str, Any] = self._agent.get(self._path(query), STORE_TIMEOUT + wait)
        except Problem as problem:
            if problem.status == NOT_FOUND:
                return None
            raise
        return found

    # ---- holding

    def keep(self) -> float:
        """One sign of life; the seconds until the next is due.  Raises `LockLost` when the lock is gone or may be."""
        left = self.safe_until - self._now()
        try:
            self._keep_lease(max(SHORTEST_TRY, left / 2))  # a question that died with a leader is asked again
            self.safe_until = self._kept_at + self.ttl - self.margin
            if self._now() < self.safe_until:
                self._check_key(max(SHORTEST_TRY, self.safe_until - self._now()))
                return self.beat
        except (Problem, NoAgent) as error:
            if isinstance(error, Problem) and error.status == NOT_FOUND:
                raise LockLost(f"lock {self._key} lost: its lease has ended") from error
            if self._now() >= self.safe_until:
                raise LockLost(f"lock {self._key} lost: not kept alive in time; {_briefly(error)}") from error
            self._say_once(f"lock {self._key}: {_briefly(error)}; asking again")
            return min(PAUSE, self.ttl / 10, self.safe_until - self._now())
        raise LockLost(f"lock {self._key} lost: not kept alive in time")

    def _check_key(self, timeout: float) -> None:
        """Whether the key is still the one we made: somebody may have deleted it.  No answer is no proof."""
        try:
            found = self._agent.get(self._path(), timeout)
        except NoAgent:
            return
        except Problem as problem:
            if problem.status == NOT_FOUND:
                raise LockLost(f"lock {self._key} lost: somebody deleted the key") from problem
            return
        if found["created"] != self.token:
            raise LockLost(f"lock {self._key} lost: somebody deleted the key, and it is another's now")
        if found["lease"] != self._lease:
            raise LockLost(f"lock {self._key} lost: somebody overwrote the key, which stays when our lease ends")

    def release(self) -> None:
        """Give it back, or give up waiting.  Never raises: the lease ends by itself."""
        if not self._lease:
            return
        try:
            self._agent.send("DELETE", f"/api/leases/{self._lease}", timeout=RELEASE_WITHIN)
        except Problem as problem:
            if problem.status != NOT_FOUND:
                self._say(f"lock {self._key} could not be given back, it ends by itself: {_briefly(problem)}")
        except NoAgent as error:
            self._say(f"lock {self._key} could not be given back, it ends by itself: {_briefly(error)}")
        self._lease = 0

    # ---- the lease

    def _grant(self) -> None:
        asked = self._now()
        self._lease = self._agent.send("POST", "/api/leases", {"ttl": self._ttl_text}, STORE_TIMEOUT)["lease"]
        self._kept_at = asked

    def _keep_lease(self, timeout: float = STORE_TIMEOUT) -> None:
        asked = self._now()
        self._agent.send("POST", f"/api/leases/{self._lease}/keepalive", timeout=timeout)
        self._kept_at = asked

    def _path(self, query: str = "") -> str:
        return f"/api/kv/{quote(self._key, safe='/')}" + (f"?{query}" if query else "")

    def _is_worth_waiting(self, ends: float | None) -> bool:
        return ends is None or self._now() + PAUSE < ends

    def _pause(self, error: DislocateError) -> None:
        self._say_once(f"waiting: {_briefly(error)}")
        time.sleep(PAUSE)

    def _say_once(self, words: str) -> None:
        if words != self._last_words:
            self._last_words = words
            self._say(words)


def holder_of(found: dict[str, Any]) -> str:
    """What the key's value tells about its holder: one line, and nothing that a terminal would take for a command."""
    if "encoding" in found:
        return f"({len(b64decode(found['value']))} bytes)"
    words = " ".join(found["value"][: 4 * NOTE_LIMIT].split())
    return "".join(char for char in words if char.isprintable())[:NOTE_LIMIT]


def _briefly(error: DislocateError) -> str:
    """What is wrong, without what to do: here it is done."""
    return str(error).splitlines()[0]
