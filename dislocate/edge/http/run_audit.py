"""The audit of runs: who did what, page by page, and whether its chain holds."""

from dislocate.core.boundary.runs import AuditEntry
from dislocate.core.boundary.store import ReadKeys
from dislocate.core.runs import records
from dislocate.core.runs.ledger.audit import first_that_does_not_fit
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import Call, Operation, Query
from dislocate.edge.http.run_reads import read_all
from dislocate.edge.keys import NUMBER_LIMIT
from dislocate.edge.run_answers import AuditAnswer, VerifiedAnswer

PAGE = 1_000


def list_audit(call: Call) -> AuditAnswer:
    after = call.query_number("after", NUMBER_LIMIT, "the number of an entry") or 0
    limit = call.query_number("limit", PAGE, f"a whole number, 1..{PAGE}", smallest=1) or PAGE
    request = ReadKeys(records.AUDIT, True, limit=limit, after=records.audit_key(after) if after else "")
    read = call.ask_store(request)
    return AuditAnswer(tuple(records.decode(each.value, AuditEntry) for each in read.keys), read.more)


def verify_audit(call: Call) -> VerifiedAnswer:
    """As this agent reads it; `dislocate run audit verify` does not take its word and verifies by itself."""
    entries = [records.decode(each.value, AuditEntry) for each in read_all(call, records.AUDIT)]
    broken = first_that_does_not_fit(entries)
    number, words = broken if broken is not None else (None, "every entry follows the one before it")
    return VerifiedAnswer(
        entries=len(entries),
        first=entries[0].number if entries else 0,
        last=entries[-1].number if entries else 0,
        hash=entries[-1].hash if entries else "",
        broken=number,
        words=words,
    )


OPERATIONS = (
    Operation(
        method="GET",
        path="/api/runs/audit",
        role=Role.OPERATE,
        summary="Who did what to runs, in order: a chain of hashes",
        respond=list_audit,
        answer=AuditAnswer,
        queries=(
            Query("after", "entries after this number"),
            Query("limit", f"at most so many, {PAGE} unless given"),
        ),
    ),
    Operation(
        method="GET",
        path="/api/runs/audit/verify",
        role=Role.OPERATE,
        summary="Whether the chain of the audit holds",
        respond=verify_audit,
        answer=VerifiedAnswer,
    ),
)
