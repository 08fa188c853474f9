"""Visits: asking nodes directly to do something, several at a time, and what each of them answered.

    a node of the list -> a link to it, which is dialled where there is none -> asked -> its outcomes, as they come -> let go

Invariant: every node that was named is in the answer, once and in the order of the list: with its outcomes, and, where not
all is known, with the reason.  Nothing is asked of a node twice: what was sent may have been done.  At most `at_once` nodes
are visited at a time, each within its `timeout`; nothing goes on when nobody waits for the answer any more.
Does not decide who may ask (`edge`) nor what is done there (`hosting`).
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from dislocate.core.boundary.events import VisitTold
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import TaskOutcome, TaskResult, Visit, Visited, VisitResult
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.dialling import dial
from dislocate.core.membership.members import Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.runs.agent.hosting import TASKS_A_VISIT, Hosting
from dislocate.core.runs.messages import VisitAnswered, VisitAsked, VisitEnded, VisitOutput
from dislocate.core.tunables import RUN_NODES
from dislocate.core.units import MILLISECOND, format_duration

AT_ONCE = 100  # nodes: each is a link for as long as it is visited
ROUNDS = 16  # requests at a time
DIALS = 3
DIAL_AGAIN = 500 * MILLISECOND  # the greeting may have been lost, and the link be refused for it
OWNER = "visit"


class VisitDue(Timer, frozen=True):
    """A node has had its time."""

    visit: int


class DialDue(Timer, frozen=True):
    """Try again to get a link."""

    visit: int


class Round(Struct, eq=False):
    """One request."""

    request_id: int
    request: Visit
    waiting: deque[Path]
    under_way: int = 0
    results: dict[Path, VisitResult] = {}


class Visiting(Struct, eq=False):
    """One node of it."""

    visit: int
    round: Round
    path: Path
    outcomes: list[TaskOutcome] = []
    dials: int = 0
    dialled: NodeId | None = None  # a link to this one is on its way
    peer: NodeId | None = None  # it was asked, on the link to this one
    closes: bool = False  # the link is closed after, if nobody needs it then: it was not only the other side's
    is_heard: bool = False  # it has said something


class Visits:
    """What one agent asks of others.  `is_reachable`: whether there is a way to a node."""

    def __init__(self, out: Outbox, members: Members, hosting: Hosting, is_reachable: Callable[[Path], bool]) -> None:
        self._out = out
        self._members = members
        self._hosting = hosting
        self._is_reachable = is_reachable
        self._open: dict[Path, NodeId] = {}
        self._rounds: dict[int, Round] = {}
        self._visiting: dict[int, Visiting] = {}
        self._visit = 0

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {VisitDue: self._time_is_up, DialDue: self._dial_due}

    # ---- requests of this host

    def request(self, request_id: int, request: Visit) -> None:
        problem = self._problem(request)
        if problem is not None:
            self._out.reply(request_id, problem)
            return
        round_ = Round(request_id, request, deque(dict.fromkeys(request.nodes)))
        self._rounds[request_id] = round_
        self._go_on(round_)

    def _problem(self, request: Visit) -> Refused | None:
        if not request.nodes or len(request.nodes) > RUN_NODES:
            return Refused("invalid", "nodes", f"name 1 to {RUN_NODES} nodes", len(request.nodes))
        if not request.tasks or len(request.tasks) > TASKS_A_VISIT:
            return Refused("invalid", "tasks", f"give 1 to {TASKS_A_VISIT} tasks", len(request.tasks))
        if not 1 <= request.at_once <= AT_ONCE:
            return Refused("invalid", "at_once", f"visit 1 to {AT_ONCE} nodes at once", request.at_once)
        if request.timeout <= 0:
            return Refused("invalid", "timeout", "give each node some time", request.timeout)
        if len(self._rounds) >= ROUNDS:
            return Refused("unavailable", "nodes", f"{ROUNDS} such requests are under way here: ask again later")
        return None

    def cancel(self, request_id: int) -> None:
        """Nobody waits for this answer any more."""
        round_ = self._rounds.pop(request_id, None)
        if round_ is not None:
            for visiting in [one for one in self._visiting.values() if one.round is round_]:
                self._call_off(visiting)

    # ---- one node after the other

    def _go_on(self, round_: Round) -> None:
        """Visit the next ones; answer when there is none left."""
        while round_.waiting and round_.under_way < round_.request.at_once:
            self._begin(round_, round_.waiting.popleft())
        if not round_.waiting and not round_.under_way and self._rounds.pop(round_.request_id, None) is not None:
            paths = dict.fromkeys(round_.request.nodes)
            self._out.reply(round_.request_id, Visited(tuple(round_.results[path] for path in paths)))

    def _begin(self, round_: Round, path: Path) -> None:
        self._visit += 1
        visiting = self._visiting[self._visit] = Visiting(self._visit, round_, path)
        round_.under_way += 1
        self._out.arm(self._out.now + round_.request.timeout, VisitDue(visiting.visit))
        if path == self._out.node.path:
            self._visit_self(visiting)
            return
        member = self._members.get(path)
        if member is None:
            self._settle(visiting, f"no node {path} is known here")
        elif not member.is_living:
            self._settle(visiting, f"it is {member.state.value}, as far as is known here")
        elif not self._is_reachable(path):
            self._settle(visiting, f"data center {member.node.datacenter} cannot be reached from here")
        elif (peer := self._open.get(path)) is not None:
            self._ask(visiting, peer)
        else:
            self._dial(visiting)

    def _visit_self(self, visiting: Visiting) -> None:
        def over(refused: str) -> None:
            self._settle(visiting, refused)
            self._go_on(visiting.round)

        visitor = (None, visiting.visit)
        self._hosting.begin(visitor, visiting.round.request.tasks, lambda outcome: self._told(visiting, outcome), over)

    def _dial(self, visiting: Visiting) -> None:
        member = self._members.get(visiting.path)
        if member is None or not member.is_living:
            self._settle(visiting, "it went away before there was a link to it")
            return
        visiting.dials += 1
        visiting.dialled = member.node
        dial(self._out, self._members, member, owner=OWNER)

    def _dial_due(self, timer: DialDue) -> None:
        visiting = self._visiting.get(timer.visit)
        if visiting is not None and visiting.peer is None and visiting.dialled is None:
            self._dial(visiting)
            self._go_on(visiting.round)

    def _ask(self, visiting: Visiting, peer: NodeId) -> None:
        others = [one for one in self._visiting.values() if one.peer == peer]
        visiting.closes = others[0].closes if others else self._out.is_claimed(peer)
        visiting.peer = peer
        self._out.claim_link(peer, OWNER)
        self._out.send_message(peer, VisitAsked(visiting.visit, visiting.round.request.tasks))

    def _told(self, visiting: Visiting, outcome: TaskOutcome) -> None:
        is_last = outcome.result is not TaskResult.OUTPUT
        task = len(visiting.outcomes)
        if is_last:
            visiting.outcomes.append(outcome)
        self._out.notify(VisitTold(visiting.round.request_id, visiting.path, task, outcome, is_last))

    def _settle(self, visiting: Visiting, unreachable: str) -> None:
        """That is all that will be known of this node."""
        round_ = visiting.round
        round_.results[visiting.path] = VisitResult(visiting.path, tuple(visiting.outcomes), unreachable)
        round_.under_way -= 1
        self._let_go(visiting)

    def _call_off(self, visiting: Visiting) -> None:
        if visiting.path == self._out.node.path:
            self._hosting.end((None, visiting.visit))
        elif visiting.peer is not None:
            self._out.send_message(visiting.peer, VisitEnded(visiting.visit))
        self._let_go(visiting)

    def _let_go(self, visiting: Visiting) -> None:
        """A link that was dialled here is closed when no visit needs it; one that was there already stays."""
        del self._visiting[visiting.visit]
        peer = visiting.peer or visiting.dialled
        if peer is None or any(one.path == visiting.path for one in self._visiting.values()):
            return
        if visiting.closes or visiting.peer is None:
            self._out.close_link(peer, owner=OWNER)
        else:
            self._out.release_link(peer, owner=OWNER)

    def _time_is_up(self, timer: VisitDue) -> None:
        visiting = self._visiting.get(timer.visit)
        if visiting is None:
            return
        limit = format_duration(visiting.round.request.timeout)
        if visiting.peer is None and visiting.path != self._out.node.path:
            self._settle(visiting, f"there was no link to it within {limit}")
        else:
            round_ = visiting.round
            result = VisitResult(visiting.path, tuple(visiting.outcomes), f"it did not answer within {limit}")
            round_.results[visiting.path] = result
            round_.under_way -= 1
            self._call_off(visiting)
        self._go_on(visiting.round)

    # ---- what happens to links

    def link_opened(self, peer: NodeId) -> None:
        self._open[peer.path] = peer
        for visiting in [one for one in self._visiting.values() if one.path == peer.path and one.peer is None]:
            self._ask(visiting, peer)

    def link_lost(self, peer: NodeId, reason: str) -> None:
        """A link ended, or could not be made."""
        if self._open.get(peer.path) == peer:
            del self._open[peer.path]
        for visiting in [one for one in self._visiting.values() if one.path == peer.path]:
            if visiting.peer == peer:
                self._lost(visiting, "the link to it ended: what it does, or has done, is not known")
            elif visiting.peer is None and visiting.dialled == peer:
                visiting.dialled = None
                self._not_dialled(visiting, reason)

    def _not_dialled(self, visiting: Visiting, reason: str) -> None:
        if visiting.dials >= DIALS:
            self._lost(visiting, f"no link to it can be opened: {reason}")
        else:
            self._out.arm(self._out.now + DIAL_AGAIN, DialDue(visiting.visit))

    def send_failed(self, peer: NodeId) -> None:
        """Something did not go out; if it may have been what was asked, nothing more will come."""
        for visiting in [one for one in self._visiting.values() if one.peer == peer and not one.is_heard]:
            self._lost(visiting, "what was asked of it did not get through")

    def _lost(self, visiting: Visiting, words: str) -> None:
        self._settle(visiting, words)
        self._go_on(visiting.round)

    # ---- what others answer

    def on_output(self, sender: NodeId, source: Address | None, body: VisitOutput) -> None:
        visiting = self._visited(sender, source, body.visit)
        if visiting is not None:
            self._told(visiting, body.outcome)

    def on_answered(self, sender: NodeId, source: Address | None, body: VisitAnswered) -> None:
        visiting = self._visited(sender, source, body.visit)
        if visiting is not None:
            self._settle(visiting, body.refused)
            self._go_on(visiting.round)

    def _visited(self, sender: NodeId, source: Address | None, visit: int) -> Visiting | None:
        """The visit that `sender` speaks of; None where it was not asked, or is not waited for any more."""
        visiting = self._visiting.get(visit)
        if visiting is None or source is not None or visiting.peer is None or visiting.peer.path != sender.path:
            return None
        visiting.is_heard = True
        return visiting
