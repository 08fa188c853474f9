"""Refusal: a host that answers "connection refused" has no agent, and that needs no waiting.

    trigger    a ring neighbour's link was lost, a datagram was refused, the stream of a probe was refused
    verify     a fresh TCP connect and a fresh ping; what came before them only made us look
    ask        refused: three others verify at once, from where they stand
    settle     two of them were refused too (among three members one; among two our own second refusal after 200 ms)
    veto       any acknowledgement, or an accepted connect, ends the case; the latter proves no life, only no refusal

Invariant: nobody is condemned here on one observer's word, except where there is no other, and nobody that announced a
restart.  A case that does not settle in `ROUNDS` becomes an ordinary suspicion.  Members that this node was refused by
too are no witnesses to wait for: when a rack loses power, those left settle it among themselves.

A stopped process (SIGSTOP) is silent, not refused: its kernel accepts.  So is a vanished host.  Both are `judge`'s.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from dislocate.core.boundary.inputs import ConnectTried
from dislocate.core.boundary.values import ConnectOutcome
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.judge import Judge
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import Alive, RefusalCheck, RefusalVerdict, Restarting
from dislocate.core.membership.pings import Pings
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Stream
from dislocate.core.tunables import REFUSAL_QUORUM, REFUSAL_RETRY, REFUSAL_WITNESSES
from dislocate.core.wire import encode_fact

ROUNDS = 4  # of REFUSAL_RETRY: a lost datagram is asked again, and the slowest connect has failed by then


class RefusalDue(Timer, frozen=True):
    """A case has not settled in this round."""

    path: Path
    case: int
    round: int


class Case:
    """What this node found out about one start of a member since it was made to look."""

    __slots__ = (
        "askers",
        "gossip",
        "incarnation",
        "is_own",
        "links",
        "number",
        "ping",
        "refusals",
        "round",
        "target",
        "witnesses",
    )

    def __init__(self, target: NodeId, incarnation: int, gossip: Address, links: Address, number: int) -> None:
        self.target = target
        self.incarnation = incarnation
        self.gossip = gossip
        self.links = links
        self.number = number
        self.is_own = False  # this node looks for itself, and will settle it
        self.askers: dict[Path, tuple[Address, int]] = {}  # others that asked us to look
        self.witnesses: dict[Path, None] = {}  # others that were refused
        self.round = 0
        self.refusals: dict[int, None] = {}  # rounds in which this node was refused
        self.ping = 0


class Refusals:
    """One node's open cases, at most one for each member."""

    def __init__(
        self, out: Outbox, members: Members, pings: Pings, judge: Judge, stream: Stream, enabled: bool
    ) -> None:
        self._out = out
        self._members = members
        self._pings = pings
        self._judge = judge
        self._stream = stream
        self._enabled = enabled
        self._number = 0
        self._cases: dict[Path, Case] = {}
        self._by_address: dict[Address, Path] = {}  # gossip and links addresses of open cases

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {RefusalDue: self._due}

    def stop(self) -> None:
        """This node leaves: it judges nobody any more."""
        self._enabled = False
        self.lost_touch()

    def lost_touch(self) -> None:
        """This process was stalled: what it found out so far says nothing."""
        self._cases.clear()
        self._by_address.clear()

    # ---- triggers

    def look(self, member: Member) -> None:
        """Something suggests that the agent of `member` is gone."""
        if not self._enabled or not self._may_be_judged(member):
            return
        case = self._cases.get(member.path)
        if case is not None and case.is_own and case.target == member.node:
            return
        self._out.count("refusals_suspected")
        record = member.record
        case = self._open(record.node, record.incarnation, record.gossip, record.links)
        case.is_own = True
        if case.refusals:
            self._ask(case)

    def datagram_refused(self, address: Address) -> None:
        """Nobody listens at `address` for datagrams."""
        self._refused_at(address)

    def connect_tried(self, tried: ConnectTried) -> None:
        if tried.outcome is ConnectOutcome.REFUSED:
            self._refused_at(tried.address)
        elif tried.outcome is ConnectOutcome.ACCEPTED:
            case = self._case_at(tried.address)
            if case is not None:
                self._veto(case, alive=False)

    def _refused_at(self, address: Address) -> None:
        case = self._case_at(address)
        if case is not None:
            self._was_refused(case)
            return
        member = self._members.at(address)
        if member is not None:
            self.look(member)

    # ---- verify

    def _open(self, target: NodeId, incarnation: int, gossip: Address, links: Address) -> Case:
        """The open case of `target`, or a new one whose verification is on its way."""
        path = target.path
        case = self._cases.get(path)
        if case is not None and case.target == target:
            return case
        if case is not None:
            self._close(case)
        self._number += 1
        case = self._cases[path] = Case(target, incarnation, gossip, links, self._number)
        self._by_address[gossip] = self._by_address[links] = path
        self._verify(case)
        return case

    def _verify(self, case: Case) -> None:
        self._out.try_connect(case.links)
        self._pings.forget(case.ping)
        case.ping = self._pings.ping(case.gossip, case.target.path, partial(self._acknowledged, case.number))
        self._out.arm(self._out.now + REFUSAL_RETRY, RefusalDue(case.target.path, case.number, case.round))

    def _was_refused(self, case: Case) -> None:
        if case.round in case.refusals:
            return
        case.refusals[case.round] = None
        for address, seq in case.askers.values():
            self._out.send(address, RefusalVerdict(seq, case.target, True))
        case.askers.clear()
        if case.is_own and not self._settle(case):
            self._ask(case)

    def _acknowledged(self, number: int, sender: NodeId) -> None:
        case = self._cases.get(sender.path)
        if case is not None and case.number == number:
            self._veto(case, alive=True)

    def _veto(self, case: Case, *, alive: bool) -> None:
        self._out.count("refusals_vetoed")
        for address, seq in case.askers.values():
            self._out.send(address, RefusalVerdict(seq, case.target, False, alive))
        self._close(case)

    # ---- ask and settle

    def _ask(self, case: Case) -> None:
        """Have three others look at once."""
        body = RefusalCheck(case.number, case.target, case.incarnation, case.gossip, case.links)
        path = case.target.path
        asked = 0
        for witness in self._stream.sample(self._members.peers, REFUSAL_WITNESSES + 1 + len(self._cases)):
            if asked == REFUSAL_WITNESSES:
                return
            if witness.path != path and witness.path not in case.witnesses and self._could_witness(witness):
                self._out.send(witness.record.gossip, body)
                asked += 1

    def _settle(self, case: Case) -> bool:
        """Condemn the target if enough were refused; whether they were."""
        needed = self._witnesses_needed(case)
        is_settled = len(case.witnesses) >= needed if needed else len(case.refusals) >= 2
        member = self._members.get(case.target.path)
        if not (is_settled and case.refusals and member is not None and member.node == case.target):
            return False
        self._close(case)
        if self._may_be_judged(member):
            self._judge.refused(member, tuple(sorted((self._members.own, *case.witnesses))))
        return True

    def _witnesses_needed(self, case: Case) -> int:
        """Two, or as many as could still bear witness: 0 when all others refuse this node too, or there are none."""
        possible = 0
        for member in self._members.peers:
            possible += member.path != case.target.path and self._could_witness(member)
            if possible == REFUSAL_QUORUM:
                break
        return possible

    def _due(self, timer: RefusalDue) -> None:
        """Look again; in the end leave it to suspicion."""
        case = self._cases.get(timer.path)
        if case is None or case.number != timer.case or case.round != timer.round:
            return
        member = self._members.get(timer.path)
        case.round += 1
        if case.is_own and (member is None or not self._may_be_judged(member)):
            self._close(case)
        elif case.round < ROUNDS and (case.is_own or not case.refusals):
            self._verify(case)
        else:
            self._close(case)
            if case.is_own and case.refusals and member is not None and member.node == case.target:
                self._judge.accuse(member, tuple(case.witnesses))

    # ---- messages

    def on_refusal_check(self, sender: NodeId, source: Address | None, body: RefusalCheck) -> None:
        """Somebody was refused: are we?"""
        if source is None or body.target.path == self._members.own:
            return
        member = self._members.get(body.target.path)
        if member is not None and member.node.boot > body.target.boot:
            verdict = RefusalVerdict(body.seq, body.target, False, True)
            self._out.send_facts(source, verdict, (encode_fact(Alive(member.record)),))
            return
        if member is not None and member.restarting_until > self._out.now:
            left = member.restarting_until - self._out.now
            restarting = Restarting(member.node, member.record.incarnation, left)
            verdict = RefusalVerdict(body.seq, body.target, False)
            self._out.send_facts(source, verdict, (encode_fact(restarting),))
            return
        case = self._open(body.target, body.incarnation, body.gossip, body.links)
        if case.refusals:
            self._out.send(source, RefusalVerdict(body.seq, body.target, True))
        else:
            case.askers[sender.path] = (source, body.seq)

    def on_refusal_verdict(self, sender: NodeId, _source: Address | None, body: RefusalVerdict) -> None:
        case = self._cases.get(body.target.path)
        if case is None or case.number != body.seq or case.target != body.target:
            return
        if not body.refused:
            self._veto(case, alive=body.alive)
            return
        case.witnesses[sender.path] = None
        self._settle(case)

    # ---- lookups

    def _may_be_judged(self, member: Member) -> bool:
        is_peer = member.node.datacenter == self._members.datacenter and member.path != self._members.own
        return is_peer and member.is_living and member.restarting_until <= self._out.now

    def _case_at(self, address: Address) -> Case | None:
        return self._cases.get(self._by_address.get(address, ""))

    def _could_witness(self, member: Member) -> bool:
        """False for those that this node was refused by, and for those that only the brake keeps."""
        case = self._cases.get(member.path)
        is_refused = case is not None and bool(case.refusals)
        return not is_refused and not (member.suspicion is not None and member.suspicion.settled)

    def _close(self, case: Case) -> None:
        del self._cases[case.target.path]
        self._by_address.pop(case.gossip, None)
        self._by_address.pop(case.links, None)
        self._pings.forget(case.ping)
