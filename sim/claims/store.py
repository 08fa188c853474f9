"""Claims about the store: who leads and who may vote, and what becomes of writes and reads.

`of`: the agents that are asked; others are no observers here.  What is no view is asked for by an errand (`sim.errands`),
and the claim is judged by what came of the last one.
"""

from dislocate.core.identity import Path
from dislocate.core.units import SECOND, format_duration
from sim.claims.view import ViewClaim, subjects
from sim.observed import Observed
from sim.scenario import Expect

AT_ONCE = 1 * SECOND  # for an answer that waits for nobody: a link to another data center takes a third of it


def _asked(claim: ViewClaim) -> ViewClaim:
    """Only of those that it is about."""

    def holds(observed: Observed, observer: Path, expect: Expect) -> str | None:
        return claim(observed, observer, expect) if observer in subjects(observed, expect) else None

    holds.__doc__ = claim.__doc__
    return holds


def store_led(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Each of `of` knows who leads the store, and that one runs."""
    leader = observed.store(observer).leader
    if leader is None:
        return f"{observer} knows no leader of the store"
    return None if observed.is_up(leader) else f"{observer} says that {leader} leads, which does not run"


def store_writable(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """A write that is asked of each of `of` succeeds."""
    errand = observed.errand(observer, "write")
    if errand is None or errand.outcome != "done":
        return f"{observer} did not write: {errand.words if errand is not None else 'not asked yet'}"
    return None


def store_refuses(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """A write that is asked of each of `of` is refused at once, and the refusal names who is missing."""
    errand = observed.errand(observer, "write")
    if errand is None or errand.outcome != "refused":
        return f"{observer} did not refuse: {errand.outcome if errand is not None else 'not asked yet'}"
    if errand.took > AT_ONCE:
        return f"{observer} refused only after {format_duration(errand.took)}: {errand.words}"
    if not any(path in errand.words for path in observed.layout.paths):
        return f"{observer} does not say who is missing: {errand.words}"
    return None


def store_failed(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """The part of each of `of` in the store has ended, and it says why and that it is to be added again."""
    view = observed.store(observer)
    if view.role != "failed":
        return f"{observer} is {view.role}"
    return None if f"dislocate servers add {observer}" in view.problem else f"{observer} says: {view.problem}"


def local_reads(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Each of `of` answers a local read at once."""
    errand = observed.errand(observer, "read")
    if errand is None or errand.outcome != "done":
        return f"{observer} did not answer a local read: {errand.words if errand is not None else 'not asked yet'}"
    return None if errand.took <= AT_ONCE else f"{observer} answered a local read after {format_duration(errand.took)}"


def servers_are(observed: Observed, observer: Path, expect: Expect) -> str | None:
    """Each of `of` is a server, and every observer that is one says that they and nobody else may vote."""
    view, wanted = observed.store(observer), sorted(subjects(observed, expect))
    if view.role in ("agent", "forming", "failed"):
        return f"{observer} is no server" if observer in wanted else None
    voters = sorted({one.path for one in view.servers if one.role == "voter"})
    return None if voters == wanted else f"{observer} says that {', '.join(voters) or 'nobody'} may vote"


STORE_CLAIMS: dict[str, ViewClaim] = {
    "store_led": _asked(store_led),
    "store_writable": _asked(store_writable),
    "store_refuses": _asked(store_refuses),
    "store_failed": _asked(store_failed),
    "local_reads": _asked(local_reads),
    "servers_are": servers_are,
}

# Claims that somebody has to be asked for: what is asked.
ERRANDS = {"store_writable": "write", "store_refuses": "write", "local_reads": "read"}
