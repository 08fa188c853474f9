"""Bootstrap: how the servers of a list become one group, and how every agent knows it again.

    look      ask the listed servers, and whoever else can be reached: is there a group?  Then it is ours; nothing is founded
    promise   all listed servers are known with their disks and have the same list: keep that set, durably; only then tell it
    found     all in the set are known to have promised it: write entry 1; or a message of the group whose uuid is the hash of
              the promised set arrives, which shows the same
    remember  every agent keeps its group for life and listens to no other; a higher epoch of it (forced recovery) takes over,
              another branch of the same epoch (a second one, of who knew nothing of the first) does not, and is told loudly

Invariant: one disk promises one set, ever; a disk that gives its promise up (`store forget-promise`) or leaves its group
comes back as another disk.  So when servers of one list found a group, no disk that joined another one is alive:

    Let S and T be two sets that were founded.  A disk in both would have promised both, so they share none, and each path p
    has a disk S(p) and another T(p), one after the other.  Let q found T now: T(q) lives, so S(q) died before T(q) began.
    Suppose that S(p) lives: then T(p) died before S(p) began.  But S(q) promised a set with S(p) in it, so S(p) had begun
    when S(q) lived; and T(p) promised a set with T(q) in it, so T(q) had begun when T(p) lived:
    T(p) died < S(p) began < S(q) died < T(q) began < T(p) died.  It does not.

A cut (three of five see each other) founds nothing, since the set is all of the list, not a majority.  Messages may be lost,
doubled or late: evidence of a promise never ages, since promises do not.

Which group is right when two were founded from different lists that share no server, nobody can tell: each agent stays with
the first that it heard of and says so.  Does not elect, replicate or change membership (`raft`).
"""

from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus import troubles
from dislocate.core.consensus.founding_duties import Admitted, Expelled, Founded, FoundingDuties, Joined
from dislocate.core.consensus.messages import Append, Configuration, Consensus, GroupId, ServerId, SnapshotChunk
from dislocate.core.consensus.promises import (
    DISK_KEY,
    GROUP_KEY,
    PROMISE_KEY,
    UNSETTLED,
    Standing,
    StoredGroup,
    founding_records,
    members_of,
    next_disk,
    read,
    record,
    uuid_of,
)
from dislocate.core.consensus.rollcall import RollCall
from dislocate.core.consensus.troubles import Stranger
from dislocate.core.consensus.writes import Writes
from dislocate.core.identity import NodeId, Path
from dislocate.core.store.messages import GroupAsked, GroupTold
from dislocate.core.units import SECOND

REFRESH_PERIOD = 10 * SECOND  # a known group's members are asked for again: who was removed while it was down learns it
OTHERS_ASKED = 3  # reachable agents that are not listed, each round: one of them would know the group
OTHERS_PATIENCE = 3 * SECOND  # for one of them to answer, before a promise


class Founding:
    """One agent's knowledge of its group, server or not.  `disk` is used where the disk has no number yet: 63 random bits."""

    def __init__(self, me: Path, servers: Sequence[Path], disk: int, recovered: Iterable[StoredRecord] = ()) -> None:
        records = tuple(one for one in recovered if one.key in (DISK_KEY, PROMISE_KEY, GROUP_KEY))
        self.me = me
        self.servers = tuple(sorted(dict.fromkeys(servers)))
        self.leader: Path | None = None  # told to others; the owner knows it
        kept = read(records, DISK_KEY, int)
        self._server = ServerId(me, kept or disk)
        self._promised = read(records, PROMISE_KEY, tuple[ServerId, ...]) or ()
        self._stored = read(records, GROUP_KEY, StoredGroup)
        self._is_durable = kept is not None  # the number of the disk
        self._kept = self._stored  # what the disk has of `_stored`
        self._roll_call = RollCall(me, self.servers)
        self._strangers: dict[Path, Stranger] = {}
        self._answered: dict[Path, None] = {}  # others that said that they know no group
        self._reachable: tuple[Path, ...] = ()
        self._others: tuple[Path, ...] = ()  # of them, those that are not listed
        self._others_asked_at: int | None = None
        self._set_right: dict[Path, None] = {}  # told in this round which group this is
        self._now = 0
        self._asked_at = -REFRESH_PERIOD
        self._turn = 0
        self._writes = Writes()
        self._messages: list[tuple[Path, GroupAsked | GroupTold]] = []
        self._happened: list[Joined | Founded | Admitted | Expelled] = []
        if kept is None:
            self._writes.add((record(DISK_KEY, disk),))

    # ---- what is known

    @property
    def server(self) -> ServerId:
        """This agent with its disk."""
        return self._server

    @property
    def group(self) -> GroupId | None:
        """Whose messages are listened to."""
        return None if self._stored is None else self._stored.group

    @property
    def members(self) -> tuple[ServerId, ...]:
        """The servers, as last heard of; empty: not known."""
        return () if self._stored is None else self._stored.members

    @property
    def members_at(self) -> int:
        """Index of the log as of which `members` are known; 0: not known."""
        stored = self._stored
        return 0 if stored is None or stored.members_at == UNSETTLED else stored.members_at

    @property
    def is_member(self) -> bool:
        """Whether this disk is in the group, durably: then Raft runs."""
        both = (self._stored, self._kept)
        return all(one is not None and one.standing is Standing.MEMBER for one in both)

    @property
    def is_forming(self) -> bool:
        """A listed server without a group."""
        return self._stored is None and self.me in self.servers

    @property
    def wants_tick(self) -> bool:
        """It has something to ask or to try again each second, or is to see whether those of another group still are there;
        a known group is only refreshed."""
        return self.is_forming or self._writes.lack_space or bool(self._strangers)

    @property
    def problem(self) -> str:
        """Why this agent takes no part as it should, and the mend; empty: it does, or is no server."""
        if self._writes.failure:
            return troubles.disk_failed(self._writes.failure)
        if self._writes.lack_space:
            return troubles.DISK_FULL
        if self._stored is not None:
            return troubles.of_group(self.me, self._stored, self._strangers, self.me in self.servers)
        shown = self._roll_call.shown(self._server.disk, self._promised)
        if self.me not in self.servers:
            return troubles.differing_lists(tuple(sorted(shown)), shown) if self._roll_call.is_named else ""
        return troubles.of_forming(self.me, self.servers, dict(sorted(shown.items())))

    # ---- inputs

    def tick(self, now: int, reachable: Sequence[Path] = ()) -> None:
        """About each second, and at the start; `reachable` are living agents, nearest first."""
        self._now = now
        self._set_right.clear()
        self._reachable = tuple(path for path in reachable if path != self.me)
        self._others = tuple(path for path in self._reachable if path not in self.servers)
        if self._writes.failure:
            return
        self._writes.try_again()
        if self._stored is None:
            self._look()
            self._decide()
        elif now - self._asked_at >= REFRESH_PERIOD:
            self._refresh()

    def asked(self, sender: NodeId, asked: GroupAsked) -> GroupTold:
        """Who asks says what it knows itself.  The answer holds no disk and no promise that is not durable here."""
        self._roll_call.hear(sender, asked.disk, asked.servers, asked.promised)
        if asked.group is not None:
            self._learn(sender.path, asked.group, (), 0)
        self._decide()
        return self._tell()

    def told(self, sender: NodeId, told: GroupTold) -> bool:
        """Whether `sender` belongs to this agent's group: if not, nothing that it says of a leader counts."""
        self._roll_call.hear(sender, told.disk, told.servers, told.promised)
        if told.group is not None:
            self._learn(sender.path, told.group, told.members, told.members_at)
        else:
            self._strangers.pop(sender.path, None)
            if sender.path in self._others:
                self._answered[sender.path] = None
        self._decide()
        return told.group is not None and told.group == self.group

    def consensus(self, sender: NodeId, message: Consensus) -> bool:
        """Whether Raft may have `message`.  It may be what founds the group here, or lets this disk in."""
        self._learn(sender.path, message.group, (), 0)
        stored = self._stored
        if stored is None or stored.group != message.group or message.to != self._server:
            if sender.path not in self._set_right:
                self._set_right[sender.path] = None
                self._messages.append((sender.path, self._tell()))
            return False
        if stored.standing is not Standing.MEMBER and type(message.body) in (Append, SnapshotChunk):
            self._admit(replace(stored, members_at=UNSETTLED))
        return self.is_member

    def is_of_group(self, message: Consensus) -> bool:
        """Whether `message` is of this agent's group and for its disk."""
        return self.group == message.group and message.to == self._server

    def question(self) -> GroupAsked:
        """What this agent asks another one; the answer says which disk that has."""
        return GroupAsked(self._told_disk, self.servers, self._promised, self.group)

    def heard(self, path: Path, group: GroupId, members: tuple[ServerId, ...], at: int) -> bool:
        """By gossip: `group` has these members as of index `at` of its log.  Whether it is this agent's group."""
        self._learn(path, group, members, at)
        return self.group == group

    def configured(self, configuration: Configuration, at: int, *, leads: bool) -> None:
        """The group committed `configuration` at index `at` of its log.  A leader tells those who are out of it."""
        stored = self._stored
        if stored is None or at <= stored.members_at < UNSETTLED:
            return
        members = members_of(configuration)
        self._update(stored, members, at)
        if leads:
            out = [one.path for one in stored.members if one not in members and one.path != self.me]
            self._messages += [(path, self._tell()) for path in dict.fromkeys(out)]

    def stored(self, ticket: int) -> None:
        """What was to be written is durable."""
        records, happened = self._writes.stored(ticket)
        for one in records:
            if one.key == DISK_KEY:
                self._is_durable = not self._writes.is_awaited(DISK_KEY)
            elif one.key == PROMISE_KEY:
                self._promised = read((one,), PROMISE_KEY, tuple[ServerId, ...]) or ()
            elif one.key == GROUP_KEY:
                self._kept = read((one,), GROUP_KEY, StoredGroup)
        self._happened += happened
        if self._stored is None:
            self._spread()
            self._decide()
        elif happened:
            self._spread()

    def store_failed(self, ticket: int, reason: str) -> None:
        """A full disk ('full: ...') kept nothing of it and is tried again with the next tick.  Otherwise nobody knows what
        is on the disk now: this agent founds and promises nothing until it is started again."""
        self._writes.failed(ticket, reason)

    # ---- output

    def take(self) -> FoundingDuties:
        duties = FoundingDuties(self._writes.take(), tuple(self._messages), tuple(self._happened))
        self._messages, self._happened = [], []
        return duties

    # ---- look

    def _look(self) -> None:
        """Ask everybody listed, and some others in turn."""
        others = self._others
        start = self._turn * OTHERS_ASKED % len(others) if others else 0
        some = (others[start:] + others[:start])[:OTHERS_ASKED]
        self._turn += 1
        if some and self._others_asked_at is None:
            self._others_asked_at = self._now
        self._ask([*(path for path in self.servers if path != self.me), *some])

    def _refresh(self) -> None:
        """Ask one member, or who may know one; and those of another group, whether they still are."""
        known = [one.path for one in self.members] or [*self.servers, *self._others]
        paths = [path for path in dict.fromkeys(known) if path != self.me]
        self._strangers = {path: group for path, group in self._strangers.items() if path in self._reachable}
        if paths or self._strangers:
            self._asked_at = self._now
            self._turn += 1
            member = [paths[self._turn % len(paths)]] if paths else []
            self._ask([*member, *list(self._strangers)[:OTHERS_ASKED]])

    def _ask(self, paths: list[Path]) -> None:
        self._messages += [(path, self.question()) for path in paths]

    def _spread(self) -> None:
        """Something durable changed that the other listed servers wait for."""
        told = self._tell()
        self._messages += [(path, told) for path in self.servers if path != self.me]

    def _tell(self) -> GroupTold:
        stored = self._stored
        knows = stored is not None and stored.members_at != UNSETTLED
        return GroupTold(
            group=self.group,
            disk=self._told_disk,
            servers=self.servers,
            promised=self._promised,
            leader=self.leader,
            members=stored.members if stored is not None and knows else (),
            members_at=stored.members_at if stored is not None and knows else 0,
        )

    @property
    def _told_disk(self) -> int:
        return self._server.disk if self._is_durable else 0

    # ---- promise and found

    def _decide(self) -> None:
        """Take the next step, if all that it needs is known."""
        if self._stored is not None or self.me not in self.servers or self._writes.failure or not self._is_durable:
            return
        if self._promised:
            if self._roll_call.is_promised(self._promised, self._server):
                self._found((), 0)
        elif self._looked_around and not self._writes.is_awaited(PROMISE_KEY):
            candidates = self._roll_call.candidates(self._server)
            if candidates:
                self._writes.add((record(PROMISE_KEY, candidates),))

    @property
    def _looked_around(self) -> bool:
        """Some other agent would have known a group, if there is any other agent."""
        asked_at = self._others_asked_at
        return asked_at is None or bool(self._answered) or self._now - asked_at >= OTHERS_PATIENCE

    def _found(self, members: tuple[ServerId, ...], at: int) -> None:
        group = GroupId(uuid_of(self._promised))
        self._stored = StoredGroup(group, members or self._promised, at or 1, Standing.MEMBER)
        happened = (Joined(group), Founded(group, Configuration(voters=self._promised)))
        self._writes.add(founding_records(self._stored, self._promised), happened)

    # ---- remember

    def _learn(self, path: Path, group: GroupId, members: tuple[ServerId, ...], at: int) -> None:
        """`path` belongs to `group`, whose members are as of index `at` of its log (0: it did not say)."""
        stored = self._stored
        if self._writes.failure:
            return
        if stored is None:
            is_promised = bool(self._promised) and group == GroupId(uuid_of(self._promised))
            if is_promised and (not members or self._server in members):
                self._found(members, at)
            else:
                self._join(StoredGroup(group, members, at))
        elif group.uuid != stored.group.uuid or group.splits_from(stored.group):
            known = self._strangers.get(path)
            said = known.members if known is not None and known.group == group else ()
            self._strangers[path] = Stranger(group, members or said)
        else:
            self._strangers.pop(path, None)
            if group.epoch > stored.group.epoch:
                self._supersede(stored, replace(stored, group=group, members=members, members_at=at))
            elif group == stored.group and members:
                self._update(stored, members, at)

    def _join(self, stored: StoredGroup) -> None:
        if self._server in stored.members:
            self._admit(stored)
        else:
            self._keep(stored, Joined(stored.group))

    def _supersede(self, before: StoredGroup, stored: StoredGroup) -> None:
        """Elsewhere the group was recovered by force: what this agent has of it is history."""
        if before.standing is Standing.MEMBER:
            self._expel(replace(stored, standing=Standing.SUPERSEDED), Joined(stored.group))
        else:
            self._join(stored)

    def _update(self, stored: StoredGroup, members: tuple[ServerId, ...], at: int) -> None:
        is_in = self._server in members
        if at <= stored.members_at and not (is_in and stored.members_at == UNSETTLED):
            return
        later = replace(stored, members=members, members_at=at)
        if is_in and stored.standing is not Standing.MEMBER:
            self._admit(later)
        elif not is_in and stored.standing is Standing.MEMBER:
            self._expel(replace(later, standing=Standing.REMOVED))
        else:
            self._keep(later)

    def _admit(self, stored: StoredGroup) -> None:
        """This disk is in the group, and has nothing yet."""
        self._stored = replace(
            stored, standing=Standing.MEMBER, log_epoch=stored.group.epoch, log_branch=stored.group.branch
        )
        happened = (Joined(stored.group), Admitted(stored.group))
        self._writes.add((record(GROUP_KEY, self._stored),), happened, drops_store=True)

    def _expel(self, stored: StoredGroup, *happened: Joined) -> None:
        """From here on this is another disk, which is in no group: no late message of the old one can be meant for it."""
        self._stored = stored
        self._server = ServerId(self.me, next_disk(self._server, stored))
        self._is_durable = False
        self._happened.append(Expelled(stored.group))
        self._writes.add((record(GROUP_KEY, stored), record(DISK_KEY, self._server.disk)), happened)

    def _keep(self, stored: StoredGroup, *happened: Joined) -> None:
        self._stored = stored
        self._writes.add((record(GROUP_KEY, stored),), happened)
