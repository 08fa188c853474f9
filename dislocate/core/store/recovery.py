"""Recovery: what is done to the disk of a stopped agent when a group cannot help itself.

`recover_by_force` makes one surviving server the whole group, when so many disks are lost that no majority can come back.
What it does to the records of that disk:

    epoch          one higher: whoever has the lower one is put out and keeps what it has, until it is added again
    branch         a hash of the group before and of this server: another one that is recovered too is another branch
    configuration  this server alone
    log            all entries that are here count as committed and are applied, then the log begins anew after them
    revision       2**40 higher for each epoch, and so is every revision that was not applied before: no fencing token that a
                   lost server may have given out is given out again; and higher still by the branch, a number below 2**39,
                   so that two branches hardly ever give out the same
    config runs    the next id is 10,000 higher for each epoch: no id that a node's journal knows is given out again; those
                   under way are paused, their epochs as much higher: nothing that a lost server granted may begin

What this cannot know: entries that others had committed and this disk does not have are lost, though they were acknowledged;
entries that are here and were never committed come to life, though nobody was told that they were done.  So it is for one
server only, the one with the most; two servers recovered by themselves are two stores, neither of which has what is written
to the other: both say so as soon as they hear of each other, and a third recovery, of the one to be kept, ends it.

`give_up_promise` is for a group that was never founded: see `consensus.bootstrap`.

Both are pure: records in, changes to them out.  Raise `LocalError`; then nothing is to be changed.
"""

from collections.abc import Iterable
from hashlib import blake2b

from msgspec import Struct
from msgspec.structs import replace

from dislocate.core.boundary.values import StoredRecord
from dislocate.core.consensus.messages import Configuration, GroupId, HardState, ServerId
from dislocate.core.consensus.promises import (
    DISK_KEY,
    GROUP_KEY,
    LOG_PREFIX,
    PROMISE_KEY,
    STORE_PREFIX,
    Standing,
    StoredGroup,
    read,
    record,
)
from dislocate.core.errors import Bug, LocalError, require
from dislocate.core.identity import Path
from dislocate.core.store.durable import AppliedUpTo, Base, Found, applied_record, base_record, find, hard_record
from dislocate.core.store.machine import StoreMachine
from dislocate.core.tunables import FEATURE_LEVEL, RECOVERY_STEP

_FIELD = "node.state_dir"


class Recovered(Struct, frozen=True, kw_only=True):
    """A forced recovery: what is to be stored in one transaction, and what is to be told."""

    records: tuple[StoredRecord, ...]
    server: ServerId
    before: GroupId
    group: GroupId
    standing: Standing  # before
    lost: tuple[ServerId, ...]  # members that are not in the group any more
    applied: int  # index up to which the log is known to have been committed
    last: int  # index of the last entry that is here
    revision_before: int  # at `last`
    revision: int
    keys: int
    leases: int

    @property
    def report(self) -> str:
        """What was found and done, for people."""
        others = ", ".join(server.path for server in self.lost) or "no others"
        unknown = self.last - self.applied
        doubtful = (
            f"  {unknown} entries were here of which it is not known whether they were committed.  They count now, also those",
            "  that nobody was told of; keys and locks in them have new revisions: who holds such a lock finds it lost.",
        )
        sure = ("  No entry was here that was not known to be committed.",)
        return "\n".join(
            (
                "FORCED RECOVERY OF THE STORE",
                f"  group      {self.group.uuid.hex()}, from epoch {self.before.epoch} to {self.group.epoch}",
                f"  servers    {self.server} alone; out of the group: {others}",
                *_STANDING[self.standing],
                f"  log        up to entry {self.last}; known to be committed up to {self.applied}",
                f"  revision   from {self.revision_before} to {self.revision}",
                f"  kept       {self.keys} keys, {self.leases} leases (each has its full time again)",
                "What this means:",
                "  Writes that were acknowledged and did not reach this server are LOST.",
                *(doubtful if unknown else sure),
                "Next:",
                "  Start this agent.  No other server may be recovered this way.  Then add the others again, one by one:",
                "  dislocate servers add DC/NAME",
            )
        )


_STANDING: dict[Standing, tuple[str, ...]] = {
    Standing.MEMBER: (),
    Standing.OUTSIDE: (),
    Standing.REMOVED: ("             THIS SERVER HAD BEEN REMOVED: what it has is as old as that",),
    Standing.SUPERSEDED: ("             ANOTHER SERVER WAS RECOVERED BEFORE: what was written there since is lost",),
}


def recover_by_force(me: Path, stored: Iterable[StoredRecord]) -> Recovered:
    """Make the server whose disk has `stored` the whole group."""
    records = tuple(stored)
    before, disk, found = _member(me, records)
    server = ServerId(me, disk)
    machine = StoreMachine.recover(found.state)
    if machine.index != found.applied.index:
        raise _damaged(f"the state is of entry {machine.index}, and said to be of {found.applied.index}")
    group = GroupId(before.group.uuid, before.group.epoch + 1, _branch(before.group, server))
    revision_applied, applied = machine.revision, machine.index
    _apply_rest(machine, found)
    revision_before = machine.revision
    epochs = group.epoch - before.log_epoch
    _raise_revisions(machine, revision_applied, RECOVERY_STEP * epochs + group.branch - before.log_branch)
    machine.recover_runs(epochs)
    last, last_term = machine.index, found.entries[-1].term if found.entries else found.base.term
    alone = Configuration(voters=(server,))
    kept = StoredGroup(group, (server,), last, Standing.MEMBER, group.epoch, group.branch)
    changes = (
        *_replaced(records, machine.all_records()),
        hard_record(HardState(max(found.hard.term, last_term) + 1)),
        base_record(Base(last, last_term, alone)),
        applied_record(AppliedUpTo(last, last_term, _digest(found.applied.digest, group, last))),
        record(GROUP_KEY, kept),
    )
    return Recovered(
        records=changes,
        server=server,
        before=before.group,
        group=group,
        standing=before.standing,
        lost=tuple(one for one in before.members if one.path != me),
        applied=applied,
        last=last,
        revision_before=revision_before,
        revision=machine.revision,
        keys=len(machine.keys),
        leases=len(machine.leases),
    )


def _branch(before: GroupId, server: ServerId) -> int:
    """Which of the recoveries that may begin at `before` this is; below half a step, so that an epoch's revisions stay above
    all those of the epoch before."""
    text = f"{before.uuid.hex()} {before.epoch} {before.branch} {server}"
    return (int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") % (RECOVERY_STEP // 2)) or 1


def _member(me: Path, records: tuple[StoredRecord, ...]) -> tuple[StoredGroup, int, Found]:
    """(group, disk, log and state) of a disk that has them."""
    before, disk = read(records, GROUP_KEY, StoredGroup), read(records, DISK_KEY, int)
    if before is None or disk is None:
        raise LocalError(
            _FIELD,
            got=f"the disk of {me}, which knows no group",
            expected="the disk of a server that was in the group: run this on one that survived.  Where none did, start the "
            "servers with empty disks and `dislocate store restore` a backup",
        )
    found = find(records)
    if found is None or (not found.entries and not found.base.index):
        raise LocalError(
            _FIELD,
            got=f"the disk of {me}, which has no log: it is no server of the group, or was never sent anything",
            expected="the disk of a server that has the log; the group's last known servers are "
            + (", ".join(one.path for one in before.members) or "not known here"),
        )
    return before, disk, found


def _apply_rest(machine: StoreMachine, found: Found) -> None:
    for entry in found.entries:
        if entry.index > machine.index:
            try:
                machine.apply(entry.index, entry.data)
            except Bug as error:
                raise _damaged(str(error)) from error
    if machine.feature_level > FEATURE_LEVEL:
        raise LocalError(
            _FIELD,
            got=f"a store of feature level {machine.feature_level}, written by a newer agent",
            expected=f"feature level {FEATURE_LEVEL} at most: recover it with the version that wrote it",
        )


def _raise_revisions(machine: StoreMachine, applied: int, by: int) -> None:
    """Go on above all revisions that others may have given out, also for what changed after `applied`.

    Its numbers were given out here for entries that may not have been the ones that others committed."""
    require(by > 0, "an epoch never falls")
    for name in machine.keys.copied()[0]:
        kv = machine.keys.get(name)
        if kv is not None and kv.modified > applied:
            created = kv.created + by if kv.created > applied else kv.created
            machine.keys.put(replace(kv, created=created, modified=kv.modified + by))
    machine.raise_revision(by)


def _replaced(records: tuple[StoredRecord, ...], state: tuple[StoredRecord, ...]) -> tuple[StoredRecord, ...]:
    """`state` in the place of the state and log on disk."""
    kept = {one.key for one in state}
    gone = [one.key for one in records if one.key.startswith((LOG_PREFIX, STORE_PREFIX)) and one.key not in kept]
    return (*(StoredRecord(key, None) for key in gone), *state)


def _digest(digest: int, group: GroupId, last: int) -> int:
    """The chain of what was applied goes on from here, and is another than that of any other epoch."""
    text = f"{digest} recovered {group.uuid.hex()} {group.epoch} {group.branch} {last}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def _damaged(what: str) -> LocalError:
    return LocalError(
        _FIELD,
        got=f"a store that is damaged: {what}",
        expected="a sound one: run this on another server that survived, or start the servers with empty disks and "
        "`dislocate store restore` a backup",
    )


class GivenUp(Struct, frozen=True, kw_only=True):
    """A promise that is given up, and with it the number of the disk, which may be in others' promises."""

    records: tuple[StoredRecord, ...]
    promised: tuple[ServerId, ...]

    @property
    def report(self) -> str:
        """What was done, for people."""
        return (
            f"gave up the promise to found a group with {', '.join(str(one) for one in self.promised)}; this disk gets a new "
            "number at the next start.  Do the same on every server that promised, then start them"
        )


def give_up_promise(me: Path, stored: Iterable[StoredRecord]) -> GivenUp:
    """Let a server whose disk has `stored` promise anew: only where no group was founded, as far as it knows."""
    records = tuple(stored)
    group = read(records, GROUP_KEY, StoredGroup)
    if group is not None:
        raise LocalError(
            _FIELD,
            got=f"the disk of {me}, which belongs to group {group.group.uuid.hex()}: that one was founded",
            expected="a disk without a group.  Others that are to be in this one: `dislocate servers add DC/NAME`; if it "
            "cannot come to a majority any more: `dislocate store recover` on one of its servers",
        )
    if any(one.key.startswith((LOG_PREFIX, STORE_PREFIX)) for one in records):
        raise LocalError(
            _FIELD,
            got=f"the disk of {me}, which has a log and no group",
            expected="both or none: it is damaged.  Move state.db (and its -wal and -shm) away: the server starts anew",
        )
    promised = read(records, PROMISE_KEY, tuple[ServerId, ...])
    if not promised:
        raise LocalError(
            _FIELD,
            got=f"the disk of {me}, which has promised nothing",
            expected="a disk with a promise: there is nothing to give up here; see `dislocate store status` on the others",
        )
    return GivenUp(records=(StoredRecord(PROMISE_KEY, None), StoredRecord(DISK_KEY, None)), promised=promised)
