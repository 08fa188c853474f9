"""The judge: when silence is death, and whom to believe that says so.

Suspicions run their time here (`suspicion` has the formulas), others' accusations merge into them, and verdicts, by
silence or by `refusal`, are carried out unless the `brake` holds: then a settled member stays suspect until it lets go.

Nobody dies of one voice: among four or more, death by silence needs two accusers or this node's own expired timer, death
by refusal two observers.  A death that lacks them, or that comes up while two views are merged, is put to the accused
first; only its silence makes it a suspicion.  So one half-deaf node cannot kill the healthy, and a merge kills nobody.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from dislocate.core.boundary.settings import Settings
from dislocate.core.boundary.values import MemberState
from dislocate.core.identity import NodeId, Path
from dislocate.core.membership.beliefs import Beliefs
from dislocate.core.membership.brake import Brake
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import Dead, Suspect
from dislocate.core.membership.pings import Pings, probe_timeout
from dislocate.core.outbox import Outbox, Timer

CORROBORATED = 2  # voices, where
CORROBORATION_FROM = 4  # or more members are


class SuspicionDue(Timer, frozen=True):
    """A suspicion may have run its time."""

    path: Path
    boot: int
    incarnation: int


class AccusedSilent(Timer, frozen=True):
    """The accused was told of its death and has had the time to protest."""

    path: Path
    seq: int


class Judge:
    """One node's verdicts on the members of its data center."""

    def __init__(self, settings: Settings, out: Outbox, members: Members, beliefs: Beliefs, brake: Brake, pings: Pings):
        self._out = out
        self._members = members
        self._beliefs = beliefs
        self._brake = brake
        self._pings = pings
        self._period = settings.probe_period
        self._multiplier = settings.suspicion_multiplier
        self._doubted: dict[Path, tuple[int, Dead]] = {}  # deaths put to the accused, by the ping that did
        self._stopped = False

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {SuspicionDue: self._suspicion_due, AccusedSilent: self._accused_silent}

    def stop(self) -> None:
        """This node leaves: it judges nobody any more."""
        self._stopped = True

    # ---- suspicion

    def accuse(self, member: Member, nacks: tuple[Path, ...]) -> None:
        """Our own probe of `member` failed, and so did those of `nacks`."""
        if member.restarting_until <= self._out.now:
            self._suspect(member, member.record.incarnation, (self._members.own, *nacks))

    def on_suspect(self, fact: Suspect) -> bool:
        """Somebody accuses a member of this data center, other than this node.  Whether that was news."""
        member = self._known(fact.node, fact.incarnation)
        if member is None or member.restarting_until > self._out.now:
            return False
        if not member.is_living and fact.incarnation == member.record.incarnation:
            return False
        accusers = tuple(path for path in fact.accusers if path != member.path)
        return bool(accusers) and self._suspect(member, fact.incarnation, accusers)

    def _suspect(self, member: Member, incarnation: int, accusers: tuple[Path, ...]) -> bool:
        suspicion = member.suspicion
        if suspicion is None or incarnation > suspicion.incarnation:
            population = self._brake.population()
            suspicion = self._beliefs.suspect(member, incarnation, accusers, population)
        elif suspicion.add(accusers):
            self._beliefs.spread_suspicion(member)
        else:
            return False
        self._watch(member)
        return True

    def _watch(self, member: Member) -> None:
        """See to it that a timer fires when the suspicion of `member` has run its time, which may have become shorter."""
        suspicion = member.suspicion
        if suspicion is None or suspicion.settled:
            return
        due = max(self._out.now, suspicion.deadline(self._period, self._multiplier))
        if not suspicion.armed or due < suspicion.armed:
            suspicion.armed = due
            self._out.arm(due, SuspicionDue(member.path, member.node.boot, suspicion.incarnation))

    def _suspicion_due(self, timer: SuspicionDue) -> None:
        member = self._members.get(timer.path)
        if self._stopped or member is None or member.node.boot != timer.boot or member.suspicion is None:
            return
        suspicion = member.suspicion
        if suspicion.incarnation != timer.incarnation or suspicion.settled:
            return
        if self._out.now >= suspicion.armed:
            suspicion.armed = 0
        if self._out.now < suspicion.deadline(self._period, self._multiplier):
            self._watch(member)
            return
        accusers = suspicion.sorted_accusers
        if len(accusers) < CORROBORATED and self._members.own not in accusers and self._is_crowd():
            # One voice, and this node never asked: it may have missed the answer to it.
            self._put_to(member, Dead(member.node, suspicion.incarnation, accusers, False))
            return
        self._condemn(member, suspicion.incarnation, accusers, refused=False)

    def stalled(self, gap: int) -> None:
        """This process did not run for `gap`: nobody could have refuted, so every suspicion gets that time again."""
        for member in self._members.peers:
            if member.suspicion is not None:
                member.suspicion.started += gap

    # ---- death

    def refused(self, member: Member, observers: tuple[Path, ...]) -> None:
        """Refusals of `observers` settled that `member` has no agent any more."""
        self._condemn(member, member.record.incarnation, observers, refused=True)

    def on_dead(self, sender: NodeId, fact: Dead, repaired: bool) -> bool:
        """Somebody declares a member dead, other than this node.  Whether that was news."""
        member = self._known(fact.node, fact.incarnation)
        if member is None or member.restarting_until > self._out.now:
            return False
        if not member.is_living:
            return False
        if not self._beliefs.is_home(fact.node):
            self._beliefs.die(member, fact.incarnation, fact.accusers, fact.refused)
            return True
        if repaired or not self._beliefs.is_home(sender) or not self._is_corroborated(fact):
            self._put_to(member, fact)
            return False
        self._condemn(member, fact.incarnation, fact.accusers, refused=fact.refused)
        return True

    def _is_corroborated(self, fact: Dead) -> bool:
        return len(fact.accusers) >= CORROBORATED or not self._is_crowd()

    def _is_crowd(self) -> bool:
        """Whether there are enough members for a second voice to be had."""
        return self._brake.population() >= CORROBORATION_FROM

    def _condemn(self, member: Member, incarnation: int, accusers: tuple[Path, ...], *, refused: bool) -> None:
        """Declare `member` dead, or hold that back while the brake does."""
        self._brake.failed(member.path)
        if not self._brake.engaged:
            self._beliefs.die(member, incarnation, accusers, refused)
            return
        suspicion = member.suspicion
        if suspicion is None:
            suspicion = self._beliefs.suspect(member, incarnation, accusers, self._brake.population())
        suspicion.add(accusers)
        suspicion.settled = True
        if refused:
            suspicion.refused_by = accusers

    def released(self) -> None:
        """The brake let go: what was settled meanwhile is carried out."""
        settled = [m for m in self._members.peers if m.suspicion is not None and m.suspicion.settled]
        for member in settled:
            if member.suspicion is not None:
                accusers = member.suspicion.refused_by or member.suspicion.sorted_accusers
                refused = bool(member.suspicion.refused_by)
                self._beliefs.die(member, member.suspicion.incarnation, accusers, refused)

    # ---- doubtful deaths

    def _put_to(self, member: Member, fact: Dead) -> None:
        """Tell `member` what is said of it; if it is there, it answers with a higher incarnation."""
        if member.path in self._doubted:
            return
        telling = Suspect(fact.node, fact.incarnation, fact.accusers)
        seq = self._pings.ping(member.record.gossip, member.path, partial(self._protested, member.path), telling)
        self._doubted[member.path] = (seq, fact)
        self._out.count("deaths_doubted")
        wait = 2 * probe_timeout(member.srtt, member.rttvar)
        self._out.arm(self._out.now + wait, AccusedSilent(member.path, seq))

    def _protested(self, path: Path, _sender: NodeId) -> None:
        """It answered, so it lives: should its refutation have been lost, the suspicion starts over."""
        self._doubted.pop(path, None)
        member = self._members.get(path)
        if member is not None and member.suspicion is not None:
            member.suspicion.started = self._out.now
            member.suspicion.armed = 0
            self._watch(member)

    def _accused_silent(self, timer: AccusedSilent) -> None:
        doubted = self._doubted.get(timer.path)
        if doubted is None or doubted[0] != timer.seq:
            return
        del self._doubted[timer.path]
        fact = doubted[1]
        self.on_suspect(Suspect(fact.node, fact.incarnation, (*fact.accusers, self._members.own)))

    def _known(self, node: NodeId, incarnation: int) -> Member | None:
        """The member that a fact about this start and incarnation concerns; None when the fact is outdated or too new."""
        member = self._members.get(node.path)
        if member is None or member.node.boot != node.boot or incarnation < member.record.incarnation:
            return None
        return member

    def member_changed(self, member: Member, _before: MemberState | None) -> None:
        """Whoever is not suspect has no doubts pending."""
        if member.state is not MemberState.SUSPECT:
            self._doubted.pop(member.path, None)
