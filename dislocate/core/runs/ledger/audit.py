"""The audit: who did what to which run, as a chain in which every entry has the hash of the one before.

Invariant: an entry that was changed, taken out or put between others later does not fit any more, nor does any after it.
The oldest entries go (`tunables.RUN_AUDIT_KEPT`), so a chain may begin later than at 1; what was before it cannot be verified.
It shows what was tampered with; it does not keep somebody who writes all disks from making another chain: keep the latest
hash elsewhere to notice that too.
"""

from collections.abc import Iterable
from hashlib import blake2b

import msgspec
from msgspec.structs import replace

from dislocate.core.boundary.runs import AuditEntry


def next_entry(before: AuditEntry | None, *, at: int, actor: str, verb: str, run: str, evidence: str) -> AuditEntry:
    """The entry that follows `before`; the first one of all where there is none."""
    number, link = (before.number + 1, before.hash) if before is not None else (1, "")
    bare = AuditEntry(number=number, before=link, at=at, actor=actor, verb=verb, run=run, evidence=evidence)
    return replace(bare, hash=hash_of(bare))


def hash_of(entry: AuditEntry) -> str:
    """Hex, over all of it but its own hash."""
    return blake2b(msgspec.json.encode(replace(entry, hash="")), digest_size=32).hexdigest()


def first_that_does_not_fit(entries: Iterable[AuditEntry]) -> tuple[int, str] | None:
    """(number, why) of the first entry, in order, that is not what it was; None when all of them fit."""
    before: AuditEntry | None = None
    for entry in entries:
        if before is not None and entry.number != before.number + 1:
            return entry.number, f"entry {before.number + 1} is missing"
        if hash_of(entry) != entry.hash:
            return entry.number, "it was changed after it was written: its hash is another"
        expected = before.hash if before is not None else ""
        if (before is not None or entry.number == 1) and entry.before != expected:
            return entry.number, "it does not follow the entry before it: that one, or this one, was replaced"
        before = entry
    return None
