"""Drains of nodes and data centers: an operator's word, obeyed by each owner that it names.

The higher (stamp, issuer) wins per target, so that two operators settle everywhere alike.  An order may end by itself; an
ended order is remembered, since it still refutes an older one.  Living orders stand in the ledger (`d/TARGET`), so that a
node which was away when one was given hears of it.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from dislocate.core.boundary.requests import Done, Refused, SetDraining
from dislocate.core.boundary.settings import Recovered
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.catalog.history import History
from dislocate.core.catalog.ledger import Ledger, fingerprint
from dislocate.core.catalog.messages import DrainOrder
from dislocate.core.catalog.validation import refused
from dislocate.core.errors import LocalError
from dislocate.core.identity import NodeId, Path, check_label, split_path
from dislocate.core.membership.members import Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.tunables import CAUSE_LIMIT, DRAIN_ORDERS, DRAIN_RETENTION
from dislocate.core.units import HOUR
from dislocate.core.wire import Fact

PREFIX = "drain/"
MAX_DRAIN = 366 * 24 * HOUR


class StoredDrain(Struct, frozen=True, array_like=True):
    """An order and the wall time of its end; 0: no end."""

    order: DrainOrder
    until_unix: int


class DrainEnds(Timer, frozen=True):
    """The order of this stamp ends; outdated by a newer one."""

    target: str
    stamp: int


class Drains:
    """The newest order of each target."""

    def __init__(
        self, out: Outbox, members: Members, ledger: Ledger, history: History, obey: Callable[[], None]
    ) -> None:
        self._out = out
        self._members = members
        self._ledger = ledger
        self._history = history
        self._obey = obey  # called when what this node has to obey changed
        self._orders: dict[str, tuple[DrainOrder, int]] = {}  # by target: order and local end, 0: none
        self._started_unix = 0
        self._given = 0  # the last stamp given here

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {DrainEnds: self._ends}

    def restore(self, recovered: Recovered) -> None:
        self._started_unix = recovered.unix_ns
        for record in recovered.records:
            if not record.key.startswith(PREFIX) or record.value is None:
                continue
            try:
                stored = msgspec.msgpack.decode(record.value, type=StoredDrain)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                self._out.drop(f"disk: {record.key}", str(error))
                continue
            age = recovered.unix_ns - stored.order.stamp
            if not stored.order.draining and age > DRAIN_RETENTION:
                continue
            until = self._out.now + stored.until_unix - recovered.unix_ns if stored.until_unix else 0
            self._keep(stored.order, until)

    def on_self(self) -> tuple[DrainOrder, int] | None:
        """The order that this node obeys now, and its local end (0: none)."""
        node = self._out.node
        for target in (node.path, node.datacenter):
            if self._is_draining(target):
                return self._orders[target]
        return None

    def request(self, request_id: int, request: SetDraining) -> None:
        """Give an order for a node or a data center that is known; durable here before anybody hears of it."""
        try:
            is_known = self._knows(request)
        except LocalError as error:
            self._out.reply(request_id, refused(error))
            return
        if not is_known:
            words = f"no {request.scope} {request.target!r} is known here: see `dislocate members`"
            self._out.reply(request_id, Refused("unknown", "target", words))
            return
        known = self._orders.get(request.target)
        after = max(self._given, 0 if known is None else known[0].stamp)
        stamp = self._given = max(self._out.unix() or self._started_unix, after + 1)
        left = request.expires if request.draining else 0
        reason = request.reason[: CAUSE_LIMIT // 2]
        order = DrainOrder(request.target, request.draining, stamp, self._out.node, left, reason)
        until = self._out.now + left if left else 0

        def stored() -> None:
            if self._accept(order, until):
                self._out.spread(f"d/{order.target}", order)
            self._out.reply(request_id, Done())

        self._out.store(
            (self._stored(order, until),),
            sync=True,
            then=stored,
            failed=lambda reason: self._out.reply(request_id, Refused("storage", "", reason)),
        )

    def on_order(self, _sender: NodeId, fact: DrainOrder, repaired: bool) -> bool:
        """Was it news?"""
        until = self._out.now + fact.left if fact.left > 0 else 0
        if len(fact.target) > 127 or len(fact.reason) > CAUSE_LIMIT or not self._accept(fact, until):
            return False
        self._out.store((self._stored(fact, until),), sync=False)
        if not repaired:
            self._out.spread(f"d/{fact.target}", fact)
        return True

    def datacenters(self) -> tuple[str, ...]:
        """Those that are to be drained now, by name."""
        return tuple(sorted(target for target in self._orders if "/" not in target and self._is_draining(target)))

    def facts_of(self, target: Path) -> list[Fact]:
        """The newest order for `target`, with the time that it has left now."""
        kept = self._orders.get(target)
        if kept is None:
            return []
        order, until = kept
        if not until or not order.draining:
            return [order]
        if until <= self._out.now:
            return []
        return [msgspec.structs.replace(order, left=until - self._out.now)]

    # ---- within

    def _knows(self, request: SetDraining) -> bool:
        """Whether the target is known.  Raises `LocalError` for what cannot be meant."""
        if not 0 <= request.expires <= MAX_DRAIN:
            raise LocalError("expires", got=request.expires, expected="a duration of at most 366 days; 0 for no end")
        if request.scope == "node":
            split_path(request.target, "target")
            return self._members.get(request.target) is not None
        if request.scope == "datacenter":
            return bool(self._members.of(check_label(request.target, "target")))
        raise LocalError("scope", got=request.scope, expected="'instance', 'node' or 'datacenter'")

    def _is_draining(self, target: str) -> bool:
        kept = self._orders.get(target)
        return kept is not None and kept[0].draining and (not kept[1] or self._out.now < kept[1])

    def _accept(self, order: DrainOrder, until: int) -> bool:
        known = self._orders.get(order.target)
        if known is not None and (order.stamp, order.issuer) <= (known[0].stamp, known[0].issuer):
            return False
        self._keep(order, until)
        words = "drain ordered" if order.draining else "drain ended"
        self._history.record(order.target, words, order.reason, (order.issuer.path,))
        return True

    def _keep(self, order: DrainOrder, until: int) -> None:
        target = order.target
        self._orders.pop(target, None)
        self._orders[target] = (order, until)
        if until:
            self._out.arm(until, DrainEnds(target, order.stamp))
        self._settle(target)
        if len(self._orders) > DRAIN_ORDERS:
            oldest = next((one for one in self._orders if not self._is_draining(one)), next(iter(self._orders)))
            self._ledger.remove("d", oldest)
            del self._orders[oldest]
            self._out.store((StoredRecord(PREFIX + oldest, None),), sync=False)

    def _ends(self, timer: DrainEnds) -> None:
        kept = self._orders.get(timer.target)
        if kept is not None and kept[0].stamp == timer.stamp:
            self._history.record(timer.target, "drain ended", "its time was over")
            self._settle(timer.target)

    def _settle(self, target: str) -> None:
        order, _ = self._orders[target]
        if self._is_draining(target):
            self._ledger.put("d", target, fingerprint(f"{target}/{order.stamp}/{order.issuer}"))
        else:
            self._ledger.remove("d", target)
        if target in (self._out.node.path, self._out.node.datacenter):
            self._obey()

    def _stored(self, order: DrainOrder, until: int) -> StoredRecord:
        unix = self._out.unix() or self._started_unix
        until_unix = unix + until - self._out.now if until else 0
        return StoredRecord(PREFIX + order.target, msgspec.msgpack.encode(StoredDrain(order, until_unix)))
