"""Keeping the copy current: one exchange a second with the agent, in a thread of its own (a greenlet, where threads are).

Invariant: nobody who picks waits for this, save for the very first route of a service.  While the agent does not answer the
copy is used as it is; that is said once in the log, and in `problem`; the agent is asked again after a jittered back-off.

What a new connection leads to may be another agent, or another start of it, whose counters say nothing of ours: each new
connection begins by asking for all routes.

A report counts at most once: it is told again only where it certainly did not arrive.  Whatever the agent refuses, it refuses
for that alone: a report for the report, a name for the name; the routes of all others go on.
"""

import http.client
import logging
import os
import random
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from threading import Event, Thread
from urllib.parse import quote

from dislocate.client import wire
from dislocate.client.connection import AgentConnection, NoAgent, Problem, answer_of
from dislocate.client.copy import KnownService, LocalCopy
from dislocate.client.owed import with_owed
from dislocate.client.wire import Held
from dislocate.core.balance.errors import NoEndpoint
from dislocate.core.boundary.balance import Usage
from dislocate.core.errors import DislocateError, LocalError

log = logging.getLogger("dislocate.client")

PERIOD = 1.0  # seconds between two reports of what was done; the agent's callers are counted so
PATIENCE = 5.0  # seconds that an agent may be late
SOONEST = 0.05  # seconds between two exchanges, however often routes change
BACK_OFF = (0.2, 5.0)  # seconds: the first and the longest pause while the agent does not answer
FORBIDDEN = 403
NOT_NOW = frozenset({429, 503})  # an agent that is busy: nothing of the request was looked at
NOT_ABOUT_NAMES = frozenset({401, FORBIDDEN, 408, 429})  # of 4xx: whoever asks for less is refused as well
CLOSED = "this client is closed: what it knows grows old"
FIRST_PAUSE = 0.1  # seconds between tries while somebody waits for a first route


class NotSent(NoAgent):
    """The connection had ended before the request could be sent.  Nothing was changed."""


class Exchange:
    """One kept connection to the agent, opened when it is needed."""

    def __init__(self, agent: AgentConnection, caller: str) -> None:
        self.where = agent.where
        self._agent = agent
        self._path = f"/api/callers/{quote(caller, safe='')}"
        self._connection: http.client.HTTPConnection | None = None

    def open(self) -> bool:
        """Be connected; whether the connection is new.  Raises `NoAgent`."""
        if self._connection is not None and not _has_ended(self._connection):
            return False
        self.close()
        connection = self._agent.connection(PATIENCE)
        try:
            connection.connect()
        except OSError as error:
            raise NoAgent(self.where, error) from error
        self._connection = connection
        return True

    def ask(self, usages: list[Usage] | None, held: dict[str, Held | None], wait: float) -> wire.Told:
        """One exchange on the open connection.  Raises `NoAgent` (`NotSent` where it is sure that nothing arrived), `Problem`,
        `LocalError`; then it is closed."""
        connection = self._connection
        assert connection is not None
        assert connection.sock is not None
        try:
            connection.sock.settimeout(wait + PATIENCE)
            headers = {"Content-Type": "application/json", **self._agent.headers}
            connection.request("POST", self._path, body=wire.request(usages, held, wait), headers=headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NotSent(self.where, error) from error
        try:
            response = connection.getresponse()
            data = response.read()
            if response.status != 200:
                answer_of(response.status, data)
            return wire.read(data, time.monotonic_ns())
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise NoAgent(self.where, error) from error
        except DislocateError:
            self.close()
            raise

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def interrupt(self) -> None:
        """Let whoever waits for an answer in another thread or greenlet fail now."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            with suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    def abandon(self) -> None:
        """In a child after a fork: let go of the parent's connection without a word on it.

        A greenlet of the parent that waits for it exists here too, and would read what is meant for the parent: it finds
        something that is no socket, and ends."""
        connection = self._connection
        sock = None if connection is None else connection.sock
        if sock is not None and sock.fileno() >= 0:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, sock.fileno())
            os.close(null)


def _has_ended(connection: http.client.HTTPConnection) -> bool:
    """Whether the agent hung up a kept connection: what is sent on it might be lost without a word."""
    sock = connection.sock
    if sock is None:
        return True
    try:
        sock.settimeout(0.0)
        return not sock.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _is_refusal(problem: Problem) -> bool:
    """Whether something that was asked for is the mistake, perhaps one thing of many."""
    return 400 <= problem.status < 500 and problem.status not in NOT_ABOUT_NAMES


class Sync:
    """The exchanges of one process."""

    def __init__(self, agent: AgentConnection, copy: LocalCopy) -> None:
        self._problem = ""
        self.error: DislocateError | None = None  # the same, as it was raised
        self.heard = 0  # monotonic nanoseconds; 0: never
        self._agent = agent
        self._copy = copy
        self._caller = f"{os.getpid()}-{os.urandom(4).hex()}"
        self._exchange = Exchange(agent, self._caller)
        self._closed = Event()
        self._thread: Thread | None = None
        self._was_busy = False  # the agent was told of something done
        self._may_tell = True  # a token, or the role of loopback, may allow reading and no more
        self._told_at = time.monotonic()
        self._why_not_counted = ""
        self._owed: list[Usage] = []  # told, and certainly not heard
        self._refused: dict[str, str] = {}  # services that this agent does not even look for, and why: not asked again

    @property
    def problem(self) -> str:
        """Why nothing new is heard of the agent; empty: it answers, or was not asked yet."""
        return CLOSED if self._closed.is_set() else self._problem

    def start(self) -> None:
        """Begin, unless that was done."""
        if self._thread is None and not self._closed.is_set():
            self._thread = Thread(target=self._run, name="dislocate-client", daemon=True)
            self._thread.start()

    def close(self) -> None:
        self._closed.set()
        self._exchange.interrupt()

    def abandon(self) -> None:
        """In a child after a fork: this is the parent's, and nothing of it goes on here."""
        self._closed = _AlwaysSet()
        self._exchange.abandon()

    # ---- the first route

    def fetch(self, known: KnownService, within: float) -> None:
        """Wait for the first route of a service at most `within` seconds.  Raises `NoAgent` or `NoEndpoint`.

        A service of which nobody knows yet may be starting together with its caller, so it is waited for too."""
        exchange = Exchange(self._agent, self._caller)
        ends = time.monotonic() + within
        try:
            while not known.has_come.is_set() and (left := ends - time.monotonic()) > 0:
                try:
                    exchange.open()
                    asked = {known.name: known.held()}
                    told = exchange.ask(None, asked, min(left, PERIOD))
                except (NoAgent, Problem, LocalError) as error:
                    if isinstance(error, Problem) and _is_refusal(error):
                        self._refused[known.name] = _first_line(error)
                        break
                    self._lost(error)
                    time.sleep(max(0.0, min(FIRST_PAUSE * random.uniform(1, 2), left)))
                else:
                    self._copy.take(told, asked, time.monotonic_ns())
                    self._answered()
        finally:
            exchange.close()
        if not known.has_come.is_set():
            known.gave_up = True
            raise self.absence(known)

    def absence(self, known: KnownService) -> DislocateError:
        """Why there is no route for a service."""
        if known.name in self._refused:
            return NoEndpoint(known.name, f"the agent at {self._agent.where} refuses it: {self._refused[known.name]}")
        error = self.error
        if isinstance(error, NoAgent):
            return NoAgent(error.where, error.reason)
        if error is not None:
            return NoEndpoint(known.name, f"the agent at {self._agent.where} does not say where it is: {error}")
        if not known.is_unknown:
            return NoAgent(self._agent.where, "no answer yet")
        hint = f", {known.hint}" if known.hint else ""
        return NoEndpoint(known.name, f"the agent at {self._agent.where} knows no service of this name{hint}")

    # ---- the rest of them

    def _run(self) -> None:
        failures = 0
        while not self._closed.is_set():
            try:
                self._once()
                failures = 0
            except (NoAgent, Problem, LocalError) as error:
                if self._closed.is_set():
                    break
                if isinstance(error, NoAgent):
                    self._refused.clear()  # the next one may be of another version
                failures += 1
                if failures > 1:  # a kept connection ends when the agent is restarted: a new one is tried at once
                    self._lost(error)
                    pause = min(BACK_OFF[1], BACK_OFF[0] * 2.0 ** min(failures - 2, 10))
                    self._closed.wait(pause * random.uniform(0.5, 1.0))
            except Exception:  # the last resort of this thread: callers go on with what they have
                log.exception("the exchange with the agent met a bug")
                self._exchange.close()
                self._closed.wait(BACK_OFF[1])
        self._exchange.close()

    def _once(self) -> None:
        is_new = self._exchange.open()
        held = {name: has for name, has in self._copy.held().items() if name not in self._refused}
        if is_new:
            held = dict.fromkeys(held)
        began = time.monotonic()
        usages = self._usages() if began - self._told_at >= 0.95 * PERIOD else None
        try:
            told = self._exchange.ask(usages, held, max(0.0, self._told_at + PERIOD - time.monotonic()))
        except NotSent:
            self._owed = usages or []
            raise
        except Problem as problem:
            if usages is not None:
                self._not_counted(usages, problem)
            elif _is_refusal(problem) and len(held) > 1:
                self._ask_apart(held, problem)
            else:
                raise
            return
        if usages is not None:
            self._why_not_counted = ""
        self._copy.take(told, held, time.monotonic_ns())
        self._answered()
        self._closed.wait(max(0.0, SOONEST - (time.monotonic() - began)))

    def _usages(self) -> list[Usage] | None:
        """What was done; None when there is nothing to say: nothing was done now, nor before."""
        self._told_at = time.monotonic()
        usages = with_owed(self._owed, self._copy.usages(time.monotonic_ns()))
        self._owed = []
        was_busy, self._was_busy = self._was_busy, bool(usages)
        return usages if self._may_tell and (usages or was_busy) else None

    def _not_counted(self, usages: list[Usage], problem: Problem) -> None:
        """A report was refused: the exchanges without one go on, and say whether anything else is wrong.  Said once."""
        if problem.status in NOT_NOW:
            self._owed = usages
        elif problem.status == FORBIDDEN:
            self._may_tell = False
        words = str(problem)
        if words != self._why_not_counted:
            log.warning("what this process does is not counted: %s", words)
        self._why_not_counted = words

    def _ask_apart(self, held: Mapping[str, Held | None], problem: Problem) -> None:
        """A request for several was refused: whoever is refused alone too is asked for no more, the others go on.  Raises
        `problem` where that is everybody: then it is about something else."""
        refused = self._refused_of(list(held))
        if len(refused) == len(held):
            raise problem
        for name, why in refused.items():
            log.warning(
                "%s: the agent at %s refuses it; going on with what was known: %s", name, self._agent.where, why
            )
        self._refused.update(refused)
        self._answered()

    def _refused_of(self, names: list[str]) -> dict[str, str]:
        """Those that the agent refuses, found by halves; the routes of the others are taken."""
        asked: dict[str, Held | None] = dict.fromkeys(names)
        self._exchange.open()
        try:
            told = self._exchange.ask(None, asked, 0.0)
        except Problem as problem:
            if not _is_refusal(problem):
                raise
            if len(names) == 1:
                return {names[0]: _first_line(problem)}
            half = len(names) // 2
            return {**self._refused_of(names[:half]), **self._refused_of(names[half:])}
        self._copy.take(told, asked, time.monotonic_ns())
        return {}

    def _answered(self) -> None:
        self.heard = time.monotonic_ns()
        if self._problem:
            log.info("the agent at %s answers again", self._agent.where)
        self._problem, self.error = "", None

    def _lost(self, error: DislocateError) -> None:
        words = _first_line(error)
        if not self._problem:
            log.warning("%s; going on with what was known", words)
        self._problem, self.error = words, error


def _first_line(error: DislocateError) -> str:
    return str(error).splitlines()[0]


class _AlwaysSet(Event):
    """The end of a thread that exists in the parent only; waiting for it takes no lock that a fork may have left held."""

    def is_set(self) -> bool:
        return True

    def wait(self, timeout: float | None = None) -> bool:
        return True
