"""Queries: services by name, with immutable answers that are rebuilt only when somebody asks.

An answer is built from the records, the fate of their owners, the soft load and the reachability of data centers.  Its
order is kept until the service changes; the answer itself is reused for `VIEW_REUSE`, so that its instants may be that much
older than the knowledge, never newer.  A name that had instances keeps its index after the last one went.
"""

from bisect import bisect_left
from collections.abc import Callable

from dislocate.core.boundary.events import InstanceChanged, ServiceChanged
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import InstanceView, ServiceView
from dislocate.core.catalog.fate import Fate, seen_as
from dislocate.core.catalog.history import History
from dislocate.core.catalog.messages import InstanceRecord
from dislocate.core.catalog.owner import Owner
from dislocate.core.catalog.records import Change
from dislocate.core.catalog.watches import Watches
from dislocate.core.identity import Path
from dislocate.core.outbox import Outbox
from dislocate.core.tunables import EMPTY_SERVICES, VIEW_REUSE

# In words, made once: every node remembers every instance's.
TRANSITIONS = {
    (then, now): f"{then.value if then else 'absent'} -> {now.value if now else 'gone'}"
    for then in (None, *Status)
    for now in (None, *Status)
}
RANK = {status: rank for rank, status in enumerate(Status)}  # best first


class Service:
    """The instances of one name, and the last answer about them."""

    __slots__ = ("instances", "name", "order", "view", "view_at")

    def __init__(self, name: str) -> None:
        self.name = name
        self.instances: dict[tuple[Path, str], Owner] = {}
        self.order: list[tuple[Owner, str]] | None = None  # best first; None after a change
        self.view: ServiceView | None = None
        self.view_at = 0


class Services:
    """All services that this node knows."""

    def __init__(
        self,
        out: Outbox,
        watches: Watches,
        history: History,
        as_of: Callable[[Owner], int],
        is_reachable: Callable[[str], bool],
        last_output: Callable[[Owner, str], str],
    ) -> None:
        self._out = out
        self._watches = watches
        self._history = history
        self._as_of = as_of
        self._is_reachable = is_reachable
        self._last_output = last_output
        self._services: dict[str, Service] = {}
        self._empty: dict[str, None] = {}  # names without instances, longest empty first
        self._names: tuple[str, ...] | None = ()

    # ---- answers

    def names(self, prefix: str = "") -> tuple[str, ...]:
        """Names of services that have an instance, sorted, which start with `prefix`."""
        if self._names is None:
            self._names = tuple(sorted(name for name in self._services if name not in self._empty))
        if not prefix:
            return self._names
        return self._names[bisect_left(self._names, prefix) : bisect_left(self._names, prefix + "\U0010ffff")]

    def service(self, name: str) -> ServiceView | None:
        """All instances of `name`, best first; None when the name was never known."""
        service = self._services.get(name)
        if service is None:
            return None
        now = self._out.now
        if service.view is None or now - service.view_at > VIEW_REUSE:
            service.view = self._build(service)
            service.view_at = now
        return service.view

    # ---- changes

    def changed(self, owner: Owner, change: Change, why: str) -> None:
        """One record of `owner` appeared, changed or went away."""
        before, after = change.before, change.after
        if before is not None and after is not None and _answers_alike(before, after):
            return
        moved = before is not None and (after is None or after.service != before.service)
        if moved and before is not None:
            self._leave(owner, before)
        if after is not None:
            self._enter(owner, after)
        then = None if before is None else seen_as(before.status, owner.fate)
        now = None if after is None else seen_as(after.status, owner.fate)
        record = after or before
        if record is not None and (then is not now or moved):
            self._tell(owner, record, then, now, why)
        if moved and before is not None:
            self.touch(before.service)
        if after is not None:
            self.touch(after.service)

    def fate_changed(self, owner: Owner, before: Fate, why: str) -> None:
        """All of `owner`'s instances are to be read differently."""
        touched: dict[str, None] = {}
        for record in owner.said.records.values():
            then, now = seen_as(record.status, before), seen_as(record.status, owner.fate)
            if then is not now:
                self._tell(owner, record, then, now, why)
            if then is not now or Fate.SUSPECTED in (before, owner.fate):
                touched[record.service] = None
        for name in touched:
            self.touch(name)

    def load_changed(self, owner: Owner, instance_id: str) -> None:
        """Load moves no index: it is soft, and would wake every watcher each second.  '' is the load of the host."""
        records = owner.said.records
        ids = records if not instance_id else (instance_id,)
        for one in ids:
            record = records.get(one)
            service = None if record is None else self._services.get(record.service)
            if service is not None:
                service.view = None

    def touch(self, name: str) -> None:
        """The answers for `name` changed."""
        service = self._services[name]
        service.order = None
        service.view = None
        self._out.notify(ServiceChanged(name, self._watches.stamp(name)))

    # ---- within

    def _enter(self, owner: Owner, record: InstanceRecord) -> None:
        service = self._services.get(record.service)
        if service is None:
            service = self._services[record.service] = Service(record.service)
            self._names = None
        if record.service in self._empty:
            del self._empty[record.service]
            self._names = None
        service.instances[(owner.path, record.id)] = owner

    def _leave(self, owner: Owner, record: InstanceRecord) -> None:
        service = self._services[record.service]
        del service.instances[(owner.path, record.id)]
        if service.instances:
            return
        self._names = None
        self._empty[service.name] = None
        if len(self._empty) > EMPTY_SERVICES:
            oldest = next(iter(self._empty))
            del self._empty[oldest], self._services[oldest]
            self._watches.forget(oldest)

    def _tell(self, owner: Owner, record: InstanceRecord, then: Status | None, now: Status | None, why: str) -> None:
        self._out.notify(InstanceChanged(owner.path, record.id, record.service, now, then, why))
        what = TRANSITIONS[then, now]
        subject = f"{owner.path}/{record.id}"
        self._history.record(subject, what, why, (owner.path,))
        self._history.record(record.service, f"{subject}: {what}", why, (owner.path,))

    def _build(self, service: Service) -> ServiceView:
        if service.order is None:
            ranked = sorted(service.instances, key=lambda key: _rank(service.instances[key], key[1]) + key)
            service.order = [(service.instances[key], key[1]) for key in ranked]
        instances = tuple(self._instance(owner, instance_id) for owner, instance_id in service.order)
        return ServiceView(name=service.name, index=self._watches.index(service.name), instances=instances)

    def _instance(self, owner: Owner, instance_id: str) -> InstanceView:
        record = owner.said.records[instance_id]
        return InstanceView(
            id=instance_id,
            service=record.service,
            node=owner.path,
            datacenter=owner.datacenter,
            address=record.address,
            port=record.port,
            status=seen_as(record.status, owner.fate),
            tags=record.tags,
            meta=record.meta,
            weight=record.weight,
            load=owner.load_of(instance_id),
            as_of=self._as_of(owner),
            reachable=self._is_reachable(owner.datacenter),
            output=self._last_output(owner, instance_id) or record.cause,
            drain_until=owner.drain_ends.get(instance_id, 0),
            suspected=owner.fate is Fate.SUSPECTED,
        )


def _rank(owner: Owner, instance_id: str) -> tuple[int, bool]:
    """Attended, then unattended, then suspected, then what should not be used at all."""
    rank = RANK[seen_as(owner.said.records[instance_id].status, owner.fate)]
    is_suspected = owner.fate is Fate.SUSPECTED
    return (max(rank, RANK[Status.UNATTENDED]) if is_suspected else rank), is_suspected


def _answers_alike(a: InstanceRecord, b: InstanceRecord) -> bool:
    """Whether nobody who asks could tell one from the other: a new start of the owner alone wakes no watcher."""
    return (
        a.status is b.status
        and a.service == b.service
        and a.address == b.address
        and a.port == b.port
        and a.weight == b.weight
        and a.tags == b.tags
        and a.meta == b.meta
        and a.cause == b.cause
        and a.drain_left == b.drain_left
    )
