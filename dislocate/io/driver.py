"""The driver: one queue of inputs, one greenlet that gives them to the node and carries out what it answers.

Invariants: the node is called by this greenlet only; effects are carried out in order, all of one turn before the next;
what waits when a deadline has passed is handled before the late `TimeReached`, and never more than that, so neither input
nor time starves; only datagrams are ever dropped, and those are counted.  Whatever waits for the core (`request`) waits
outside of it, and whoever is told (`ask`, `subscribe`) cannot break it.

An exception out of the node is a bug: it is logged with its input, is the last step of the recording, and is raised by
`wait`, so that the process ends.  Nobody goes on with a node whose state is in doubt.
"""

import itertools
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import AsyncResult

from dislocate.core.boundary.effects import Notify, Reply
from dislocate.core.boundary.events import Event
from dislocate.core.boundary.inputs import (
    ClockRead,
    DatagramReceived,
    Input,
    LoadReported,
    RequestCancelled,
    Requested,
    Stopped,
    StoreFailed,
    TimeReached,
)
from dislocate.core.boundary.requests import Refused, Request, Result
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.values import Load
from dislocate.core.identity import Path
from dislocate.core.node import Node
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.io import clock
from dislocate.io.alarm import Alarm
from dislocate.io.outlets import Outlets
from dislocate.io.recorder import Recorder

DATAGRAM_LIMIT = 4_096  # waiting datagrams: about a second's work; older knowledge than that is repaired, not awaited
TURN_TIME = 1 * MILLISECOND  # the node runs in a row before other greenlets do
STALL = 100 * MILLISECOND  # later than this, the process was stopped or starved: see what the kernel holds for us first
CATCH_UP_ROUNDS = 50  # of a millisecond each, while more keeps coming
IDLE_WAIT = 60 * SECOND  # a node without a deadline is asked again after this
LOAD_PERIOD = 5  # seconds: a load average moves no faster
FLUSH_TIME = 2.0  # seconds to store and send what is left at the end

LEAVING = Refused("leaving", "", "this agent is stopping: ask another one")

log = logging.getLogger(__name__)


class Driver:
    """One running node; the edge's `Backend`.

    Made before the sockets, which need `deliver`; `start` takes them over.  Inputs wait until then."""

    def __init__(
        self,
        *,
        settings: Settings,
        seed: str,
        recovered: Recovered,
        recorder: Recorder | None = None,
        read_load: Callable[[], Load] | None = None,
        now: clock.Now = clock.monotonic,
        wall: clock.Now = clock.wall,
    ) -> None:
        self.node = Node(settings, Streams(f"{seed}/{settings.node.path}"), recovered)
        self._identity = self.node.identity
        self.now = now
        self.turns = 0
        self.datagrams_dropped = 0
        self.listener_failures = 0
        self.latest = 0  # nanoseconds by which the latest `TimeReached` was late
        self._wall = wall
        self._recorder = recorder
        self._read_load = read_load
        self._queue: deque[Input] = deque()
        self._datagrams = 0  # of those in the queue
        self._wake = Alarm()
        self._breathed = 0  # when other greenlets last had their turn
        self._ids = itertools.count(1)
        self._replies: dict[int, Callable[[Result], object]] = {}
        self._listeners: dict[int, Callable[[Event], None]] = {}
        self._outlets: Outlets | None = None
        self._verbs: dict[type, Callable[[Any], object]] = {Reply: self._reply, Notify: self._notify}
        self._loop: gevent.Greenlet | None = None
        self._ticker: gevent.Greenlet | None = None
        self._is_stopping = False  # asked to: requests are refused
        self._has_stopped = False  # the node was told, or broke: it is called no more
        self._ended: AsyncResult[None] = AsyncResult()

    # ---- a life

    def start(self, outlets: Outlets) -> None:
        """Start the node.  From here on the driver owns `outlets`."""
        self._outlets = outlets
        self._verbs |= outlets.verbs
        outlets.disk.awaits_hearing = True
        self._loop = gevent.spawn(self._run)
        self._ticker = gevent.spawn(self._tick)
        for greenlet in (*outlets.essential, self._ticker):  # an agent without its reader or writer is worse than none
            greenlet.link_exception(lambda dead: self._fail(dead.exception))

    def wait(self) -> None:
        """Wait for the end; raises what broke the node, if that was it."""
        self._ended.get()

    def stop(self, reason: str) -> None:
        """End in order: what was asked is stored and answered, the node says goodbye, everything is closed."""
        if self._is_stopping or self._ended.ready() or self._outlets is None or self._loop is None:
            return
        self._is_stopping = True
        self._outlets.flush(FLUSH_TIME)
        self.deliver(Stopped(reason))
        self._loop.join()
        self._refuse_waiting()
        if not self._ended.ready():
            self._outlets.flush(FLUSH_TIME)
            if self._recorder is not None:
                self._recorder.close()
        self._close()

    # ---- what others call, on the hub

    def deliver(self, input_: Input) -> None:
        """Queue `input_` for the node."""
        if type(input_) is DatagramReceived:
            if self._datagrams >= DATAGRAM_LIMIT:
                self.datagrams_dropped += 1
                return
            self._datagrams += 1
        self._queue.append(input_)
        self._wake.ring()

    def ask(self, request: Request, then: Callable[[Result], object]) -> int:
        """Ask the node and return at once: `then` is called with its answer, on the hub, where it must not block.

        Returns the id to `cancel` with.  A node that is stopping refuses before `ask` returns."""
        request_id = next(self._ids)
        if self._is_stopping or self._ended.ready():
            then(LEAVING)
            return request_id
        self._replies[request_id] = then
        self.deliver(Requested(request_id, request))
        return request_id

    def cancel(self, request_id: int) -> None:
        """Nobody waits for this answer any more; one that was given already is no mistake."""
        if self._replies.pop(request_id, None) is not None:
            self.deliver(RequestCancelled(request_id))

    def request(self, request: Request, timeout: float | None = None) -> Result:
        """Ask the node and wait for its answer.  Raises TimeoutError after `timeout` seconds; the request is cancelled."""
        answer: AsyncResult[Result] = AsyncResult()
        request_id = self.ask(request, answer.set)
        try:
            answer.wait(timeout)
        finally:  # also when the one who waits is killed
            self.cancel(request_id)
        if not answer.ready():
            raise TimeoutError(f"no answer to {type(request).__name__} within {timeout} s")
        return answer.get()

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call `listener` with every event, on the hub, where it must not block; returns how to end that."""
        key = next(self._ids)
        self._listeners[key] = listener

        def unsubscribe() -> None:
            self._listeners.pop(key, None)

        return unsubscribe

    def known_key(self, public_key: bytes) -> Path | None:
        """Whose CURVE key this is, as far as the node knows: 'dc/name'."""
        return next((path for path, member in self.node.members.items() if member.public_key == public_key), None)

    @property
    def waiting(self) -> int:
        """Inputs that the node has not seen yet."""
        return len(self._queue)

    # ---- the loop

    def _run(self) -> None:
        try:
            self._turn(None)
            while not self._has_stopped:
                self._await_work()
                self._work_off()
        except Exception as error:  # noqa: BLE001 - logged where it happened, raised again by `wait`
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Nothing is handled any more; `wait` raises `error`."""
        if self._ended.ready():
            return
        self._has_stopped = True
        if self._recorder is not None:
            self._recorder.abandon()
        self._refuse_waiting()
        self._ended.set_exception(error)

    def _await_work(self) -> None:
        """Until there is input or the deadline has come, computed from the clock each time (a cached loop time lies)."""
        while not self._queue:
            wait = min(self.node.deadline() - self.now(), IDLE_WAIT)
            if wait <= 0:
                break
            self._wake.wait(wait / SECOND)
            self._breathed = self.now()
        if self.now() - self.node.deadline() > STALL:
            self._catch_up()

    def _catch_up(self) -> None:
        """Let the readers bring what came while the process stood still, before time is judged by its absence."""
        for _ in range(CATCH_UP_ROUNDS):
            before = len(self._queue) + self.datagrams_dropped
            gevent.sleep(MILLISECOND / SECOND)
            if len(self._queue) + self.datagrams_dropped == before:
                return

    def _work_off(self) -> None:
        """What waits now, then what has become due."""
        for _ in range(len(self._queue)):
            input_ = self._queue.popleft()
            if type(input_) is DatagramReceived:
                self._datagrams -= 1
            self._turn(input_)
            if type(input_) is Stopped:
                self._has_stopped = True
            if self._has_stopped:
                return
            self._breathe()
        late = self.now() - self.node.deadline()
        if late >= 0:
            self.latest = late
            self._turn(TimeReached())
            self._breathe()

    def _breathe(self) -> None:
        """Let others run when the node has run for long; a queue that never empties must not stop the readers."""
        if self.now() - self._breathed >= TURN_TIME:
            gevent.sleep(0)
            self._breathed = self.now()

    def _turn(self, input_: Input | None) -> None:
        now = self.now()
        if self._recorder is not None:
            self._recorder.before(input_, now)
        if type(input_) is StoreFailed and self._outlets is not None:
            self._outlets.disk.hear(input_.seq)
        try:
            effects = self.node.start(now) if input_ is None else self.node.handle(input_, now)
        except Exception:
            log.critical("the node broke at %r; this process ends", input_, exc_info=True)
            raise
        if self._recorder is not None:
            self._recorder.after(effects)
        self.turns += 1
        if self.node.identity is not self._identity:
            self._take_identity()
        for effect in effects:
            try:
                self._verbs[type(effect)](effect)
            except Exception:
                log.critical("%r could not be carried out; this process ends", effect, exc_info=True)
                raise

    def _take_identity(self) -> None:
        """The node took a higher boot than it was started with: what it sends on links is to say so."""
        self._identity = self.node.identity
        if self._outlets is not None:
            self._outlets.links.become(self._identity)

    def _tick(self) -> None:
        """The wall clock each second, the host's load each `LOAD_PERIOD` when it has changed."""
        last: Load | None = None
        for second in itertools.count():
            self.deliver(ClockRead(self._wall()))
            if self._read_load is not None and second % LOAD_PERIOD == 0:
                load = self._read_load()
                if load != last:
                    last = load
                    self.deliver(LoadReported(load))
            gevent.sleep(1)

    # ---- effects that stay in the house

    def _reply(self, reply: Reply) -> None:
        then = self._replies.pop(reply.request_id, None)
        if then is not None:  # else it was cancelled a moment ago
            self._tell(then, reply.result)

    def _notify(self, notify: Notify) -> None:
        for listener in tuple(self._listeners.values()):
            try:
                listener(notify.event)
            except Exception:
                self.listener_failures += 1
                log.exception("a listener failed at %r", notify.event)

    def _refuse_waiting(self) -> None:
        while self._replies:
            self._tell(self._replies.popitem()[1], LEAVING)

    def _tell(self, then: Callable[[Result], object], result: Result) -> None:
        """Who asked cannot break the node with what it makes of the answer."""
        try:
            then(result)
        except Exception:
            self.listener_failures += 1
            log.exception("an answer met a bug: %r", result)

    def _close(self) -> None:
        if self._ticker is not None:
            self._ticker.kill()
        if self._outlets is not None:
            self._outlets.close()
        if not self._ended.ready():
            self._ended.set(None)
