"""The ledger of scaling: what an entry of the log makes of its records.

Invariants: the epoch of each decision is one above the last of its service and data center, also when a policy was removed and
set again; of the nodes that carry out one decision at a time, only one does, unless it is said to be dead; what is refused
changes nothing.  It has no clock, and does not know whether a decision is wise: see `core.scaling`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.events import ScaleDecided
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.scaling import BeginScale, Carried, CarryState, ProcessDriver, ReportScale, ScaleDecision
from dislocate.core.identity import Path
from dislocate.core.runs.ledger.draft import Illegal, claim
from dislocate.core.runs.ledger.ledger import Ledgered
from dislocate.core.scale import records
from dislocate.core.scale.steps import DecideScale, EndScale
from dislocate.core.scaling import SCALE_MOST
from dislocate.core.store.keys import Keys
from dislocate.core.tunables import SCALE_LEVEL, SCALE_PAST, SCALE_WORDS

STORE = "store"  # who decides what a restore or a recovery does


class ScaleLedger:
    """The decisions that these keys hold; it keeps nothing itself."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def apply(self, body: Any) -> Ledgered:
        """What becomes of it; nothing is changed here."""
        try:
            return BODIES[type(body)](self, body)
        except Illegal as illegal:
            return Ledgered(illegal.refused)

    # ---- the leader

    def decide(self, body: DecideScale) -> Ledgered:
        last = self._last(body)
        self._claim_next(body, last)
        claim(0 <= body.desired <= SCALE_MOST, "desired", f"at most {SCALE_MOST} instances, not {body.desired}")
        decision = ScaleDecision(
            service=body.service,
            datacenter=body.datacenter,
            epoch=body.epoch,
            desired=body.desired,
            before=body.before,
            reason=body.reason[:SCALE_WORDS],
            by=body.by,
            at=body.at,
            driver=body.driver,
            nodes=body.nodes,
        )
        puts = self._remembered(decision)
        puts[records.decision_key(body.service, body.datacenter)] = records.encode(decision)
        for kv in self._keys.below(f"{records.done_key(body.service, body.datacenter)}/"):
            if f"{body.datacenter}/{kv.key.rpartition('/')[2]}" not in body.nodes:
                puts[kv.key] = None  # it has no part any more
        return Ledgered(Done(body.epoch), puts, (_event(decision),))

    def end(self, body: EndScale) -> Ledgered:
        last = self._last(body)
        self._claim_next(body, last)
        decision = self._decision(body.service, body.datacenter)
        claim(decision is not None, "service", f"{body.service} is not scaled in {body.datacenter}")
        assert decision is not None
        ended = replace(
            decision,
            epoch=body.epoch,
            before=decision.desired,
            reason=body.reason[:SCALE_WORDS],
            by=body.by,
            at=body.at,
            driver=None,
            nodes={},
        )
        puts = self._remembered(ended)
        puts[records.decision_key(body.service, body.datacenter)] = None
        done = records.done_key(body.service, body.datacenter)
        puts[done] = None
        puts.update(dict.fromkeys(kv.key for kv in self._keys.below(f"{done}/")))
        return Ledgered(Done(body.epoch), puts, (_event(ended),))

    def _claim_next(self, body: DecideScale | EndScale, last: int) -> None:
        words = (
            f"the last decision about {body.service} in {body.datacenter} has epoch {last}, so the next is {last + 1}"
        )
        claim(body.epoch == last + 1, "epoch", words)

    def _last(self, body: DecideScale | EndScale) -> int:
        """The epoch of the last decision; 0: there was none."""
        last = 0
        for kv in self._keys.below(records.past_prefix(body.service, body.datacenter)):
            last = int(kv.key.rpartition("/")[2])
        return last

    def _remembered(self, decision: ScaleDecision) -> dict[str, bytes | None]:
        """The history with it, and without its oldest."""
        service, datacenter = decision.service, decision.datacenter
        bare = replace(decision, driver=None, nodes={})
        puts: dict[str, bytes | None] = {records.past_key(service, datacenter, decision.epoch): records.encode(bare)}
        oldest = decision.epoch - SCALE_PAST
        for kv in self._keys.below(records.past_prefix(service, datacenter)):
            if int(kv.key.rpartition("/")[2]) > oldest:
                break
            puts[kv.key] = None
        return puts

    # ---- restoring and recovering

    def epochs(self) -> dict[tuple[str, str], int]:
        """The last epoch by service and data center; to be taken before a restore replaces the keys."""
        found: dict[tuple[str, str], int] = {}
        for kv in self._keys.below(records.PAST):
            service, datacenter, epoch = kv.key.removeprefix(records.PAST).rsplit("/", 2)
            found[service, datacenter] = int(epoch)
        return found

    def restored(self, before: Mapping[tuple[str, str], int]) -> dict[str, bytes | None]:
        """The keys are a backup's: what has to become of them, given the last epochs of `before`."""
        here = self.epochs()
        epochs = {key: max(here.get(key, 0), before.get(key, 0)) for key in {**here, **before}}
        return self._decided_anew(epochs, "a backup was restored: decided anew")

    def recovered(self, epochs: int) -> dict[str, bytes | None]:
        """The keys are what one server was left with: others may have decided since, up to `epochs` more."""
        later = {key: last + epochs for key, last in self.epochs().items()}
        return self._decided_anew(later, "the store was recovered by force: decided anew")

    def _decided_anew(self, epochs: Mapping[tuple[str, str], int], reason: str) -> dict[str, bytes | None]:
        """So that no epoch that may have been given out is given out again."""
        puts: dict[str, bytes | None] = {}
        for (service, datacenter), last in epochs.items():
            known = self._decision(service, datacenter)
            desired = known.desired if known is not None else 0
            bare = ScaleDecision(
                service=service,
                datacenter=datacenter,
                epoch=last + 1,
                desired=desired,
                before=desired,
                reason=reason,
                by=STORE,
                at=known.at if known is not None else 0,
            )
            puts |= self._remembered(bare)
            if known is not None:
                moved = replace(bare, driver=known.driver, nodes=known.nodes)
                puts[records.decision_key(service, datacenter)] = records.encode(moved)
        return puts

    # ---- nodes

    def begin(self, body: BeginScale) -> Ledgered:
        decision = self._present(body)
        key = _done_key(decision, body.node)
        known = self._carried(key)
        if known is not None and known.epoch == body.epoch:
            claim(known.state is not CarryState.DONE, "epoch", f"{known.node} has carried out epoch {body.epoch}")
            other = f"{known.node} carries out epoch {body.epoch}"
            claim(known.node in (body.node, body.instead_of), "node", other)
            if known.node == body.node:
                return Ledgered(Done(body.epoch))
        carried = Carried(epoch=body.epoch, node=body.node, state=CarryState.BEGUN, at=body.at)
        return Ledgered(Done(body.epoch), {key: records.encode(carried)})

    def report(self, body: ReportScale) -> Ledgered:
        decision = self._present(body)
        key = _done_key(decision, body.node)
        known = self._carried(key)
        is_begun = known is not None and known.epoch == body.epoch and known.node == body.node
        is_own = is_begun or isinstance(decision.driver, ProcessDriver)
        claim(is_own, "node", f"{body.node} did not say that it carries out epoch {body.epoch}")
        carried = Carried(
            epoch=body.epoch,
            node=body.node,
            state=CarryState.DONE if body.is_done else CarryState.FAILED,
            tries=body.tries,
            code=body.code,
            words=body.words[:SCALE_WORDS],
            at=body.at,
        )
        if known == carried:
            return Ledgered(Done(body.epoch))
        return Ledgered(Done(body.epoch), {key: records.encode(carried)})

    def _present(self, body: BeginScale | ReportScale) -> ScaleDecision:
        """The decision, which must be the one that is spoken of."""
        decision = self._decision(body.service, body.datacenter)
        if decision is None:
            raise Illegal("service", f"{body.service} is not scaled in {body.datacenter}", "unknown")
        claim(decision.epoch == body.epoch, "epoch", f"epoch {decision.epoch} was decided, {body.epoch} is over")
        if isinstance(decision.driver, ProcessDriver):
            claim(body.node in decision.nodes, "node", f"{body.node} has no part in epoch {body.epoch}")
        return decision

    def _decision(self, service: str, datacenter: str) -> ScaleDecision | None:
        kv = self._keys.get(records.decision_key(service, datacenter))
        return None if kv is None else records.read(kv.value, ScaleDecision)

    def _carried(self, key: str) -> Carried | None:
        kv = self._keys.get(key)
        return None if kv is None else records.read(kv.value, Carried)


def _done_key(decision: ScaleDecision, node: Path) -> str:
    """Of driver `process` each node has its own part."""
    is_each = isinstance(decision.driver, ProcessDriver)
    return records.done_key(decision.service, decision.datacenter, node if is_each else "")


def _event(decision: ScaleDecision) -> ScaleDecided:
    one = decision
    return ScaleDecided(one.service, one.datacenter, one.epoch, one.before, one.desired, one.reason)


BODIES: dict[type, Callable[[ScaleLedger, Any], Ledgered]] = {
    DecideScale: ScaleLedger.decide,
    EndScale: ScaleLedger.end,
    BeginScale: ScaleLedger.begin,
    ReportScale: ScaleLedger.report,
}


def level_refusal(level: int) -> Refused:
    """What an entry of scaling comes to where older servers could not apply it."""
    words = f"the store is at feature level {level} and scaling needs {SCALE_LEVEL}: upgrade all servers, it rises by itself"
    return Refused("unavailable", "store", words)
