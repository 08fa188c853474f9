"""Own instances: registration, drains and maintenance of what runs on this host.

Invariant: what a request promises is durable before it is visible or said to anybody; when the disk fails, nothing was
changed.  Instances come from the configuration file or from the API; the file wins, the API's survive a restart.  Each
request writes keys of its own, so that two under way cannot undo each other: `instance/ID`, `draining/ID`,
`maintenance/ID`, and lazily `status/ID`, so that a restart of the agent does not take its services down.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from dislocate.core.boundary.requests import (
    Deregister,
    Done,
    Heartbeat,
    Refused,
    Register,
    ReplaceConfigured,
    SetDraining,
    SetMaintenance,
)
from dislocate.core.boundary.settings import Recovered
from dislocate.core.boundary.values import InstanceSpec, Status, StoredRecord
from dislocate.core.catalog.checks import Checks
from dislocate.core.catalog.drains import MAX_DRAIN
from dislocate.core.catalog.health import VERDICTS
from dislocate.core.catalog.instance import OwnInstance
from dislocate.core.catalog.publisher import Publisher, clipped
from dislocate.core.catalog.validation import check_instance, check_instances, refused
from dislocate.core.errors import LocalError, brief
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.streams import Stream
from dislocate.core.tunables import INSTANCES_PER_OWNER
from dislocate.core.units import format_duration

REGISTER_FIRST = "register it here first"
ASK_ITS_HOST = "ask the one that hosts it (`dislocate service NAME` says which)"
INSTANCE, DRAINING, MAINTENANCE, STATUS = "instance/", "draining/", "maintenance/", "status/"


class StoredDraining(Struct, frozen=True, array_like=True):
    """A drain of one instance; `until_unix` 0: no end."""

    until_unix: int
    reason: str


class DrainOver(Timer, frozen=True):
    """The drain of an instance ends; outdated when it was given another end."""

    instance_id: str
    until: int


def unknown_instance(instance_id: str, mend: str) -> Refused:
    """The answer to who names an instance that is not here."""
    got = brief(instance_id)
    return Refused("unknown", "id", f"no instance {got!r} on this agent: {mend}", got, mend)


class OwnInstances:
    """The instances of this host by id."""

    def __init__(
        self, stream: Stream, out: Outbox, publisher: Publisher, changed_ids: Callable[[str | None], None]
    ) -> None:
        self._out = out
        self._publisher = publisher
        self._changed_ids = changed_ids  # called with the id that went away, or None when one came
        self._instances: dict[str, OwnInstance] = {}
        self._remembered: dict[str, Status] = {}  # statuses from before the restart
        self._under_way: dict[str, int] = {}  # keys that wait for the disk, by how many requests
        self._started_unix = 0
        self._epoch = 0
        self._is_published = False
        self.checks = Checks(stream, out, self._instances.get, self._judged)

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {DrainOver: self._drain_over, **self.checks.timers()}

    def get(self, instance_id: str) -> OwnInstance | None:
        return self._instances.get(instance_id)

    def start(self, configured: tuple[InstanceSpec, ...], recovered: Recovered) -> None:
        """Take up what the configuration says and what was registered before, and say so, even when it is nothing:
        the first manifest of a start ends what others remember of the start before."""
        self._started_unix = recovered.unix_ns
        stored = {record.key: record.value for record in recovered.records if record.value is not None}
        for spec in check_instances(configured):
            self._instances[spec.id] = OwnInstance(spec, is_configured=True)
        for key, value in stored.items():
            if not key.startswith(INSTANCE):
                continue
            spec = self._decode(key, value, InstanceSpec)
            if spec is not None and spec.id not in self._instances:
                self._instances[spec.id] = OwnInstance(spec, is_configured=False)
        for instance in self._instances.values():
            self._recall(instance, stored)
            self._begin(instance, instance.spec, spread=True)
        self._is_published = True
        for instance in self._instances.values():
            self._publisher.publish(instance)
        self._publish_ids("restart")

    def republish(self) -> None:
        """An order that concerns all of them came or ended."""
        if self._is_published:
            for instance in self._instances.values():
                self._publisher.publish(instance)

    def renamed(self) -> None:
        """This node took a higher boot: what it said under the one before is, for others, of a start that is over."""
        if self._is_published:
            self.republish()
            self._publish_ids("a higher boot")

    # ---- requests

    def register(self, request_id: int, request: Register) -> None:
        spec = request.instance
        known = self._instances.get(spec.id)
        try:
            check_instance(spec)
        except LocalError as error:
            self._out.reply(request_id, refused(error))
            return
        if known is not None and known.is_configured:
            self._conflict(request_id, f"{spec.id} stands in the configuration file: change it there and reload")
        elif known is None and self._count_with(spec.id) > INSTANCES_PER_OWNER:
            self._conflict(request_id, f"an agent hosts at most {INSTANCES_PER_OWNER} instances: deregister some")
        elif known is not None and known.spec == spec and INSTANCE + spec.id not in self._under_way:
            self._done(request_id)  # the common case: a process that starts again; nothing under way may undo it
        else:
            record = StoredRecord(INSTANCE + spec.id, msgspec.msgpack.encode(spec))
            self._store(request_id, (record,), lambda: self._add(spec))

    def deregister(self, request_id: int, request: Deregister) -> None:
        known = self._find(request_id, request.instance_id)
        if known is None:
            return
        if known.is_configured:
            self._conflict(request_id, f"{known.id} stands in the configuration file: remove it there and reload")
            return
        self._store(request_id, _erased(known.id), lambda: self._remove([known.id], "deregistered"))

    def replace_configured(self, request_id: int, request: ReplaceConfigured, accepted: Callable[[], None]) -> None:
        try:
            specs = {spec.id: spec for spec in check_instances(request.instances)}
        except LocalError as error:
            self._out.reply(request_id, refused(error))
            return
        gone = [one.id for one in self._instances.values() if one.is_configured and one.id not in specs]
        taken = [one.id for one in self._instances.values() if not one.is_configured and one.id in specs]
        erased = [record for one in gone for record in _erased(one)]
        erased += [StoredRecord(INSTANCE + one, None) for one in taken]

        def apply() -> None:
            self._remove([one for one in gone if one in self._instances], "no longer configured")
            for spec in specs.values():
                self._add(spec, is_configured=True)
            accepted()

        if erased:
            self._store(request_id, tuple(erased), apply)
        else:
            apply()
            self._done(request_id)

    def heartbeat(self, request_id: int, request: Heartbeat) -> None:
        instance = self._instances.get(request.instance_id)
        if instance is None:
            self._out.reply(request_id, unknown_instance(request.instance_id, REGISTER_FIRST))
        elif instance.spec.check is None or not instance.spec.check.ttl:
            self._invalid(request_id, "id", "an instance with a ttl check: register it with one", instance.id)
        elif request.status not in VERDICTS:
            self._invalid(request_id, "status", "passing, warning or critical", request.status.value)
        else:
            self.checks.heartbeat(instance, request.status, request.output)
            self._done(request_id)

    def set_draining(self, request_id: int, request: SetDraining) -> None:
        instance = self._find(request_id, request.target)
        if instance is None:
            return
        if not 0 <= request.expires <= MAX_DRAIN:
            expected = "a duration of at most 366 days; 0 for no end"
            self._invalid(request_id, "expires", expected, format_duration(request.expires))
            return
        until = self._out.now + request.expires if request.draining and request.expires else 0
        until_unix = self._unix() + request.expires if until else 0
        reason = clipped(request.reason)
        value = msgspec.msgpack.encode(StoredDraining(until_unix, reason)) if request.draining else None

        def apply() -> None:
            self._drain(instance, request.draining, until, reason)
            self._publish(instance)

        self._store(request_id, (StoredRecord(DRAINING + instance.id, value),), apply)

    def set_maintenance(self, request_id: int, request: SetMaintenance) -> None:
        chosen = list(self._instances.values())
        if request.instance_id:
            instance = self._find(request_id, request.instance_id)
            if instance is None:
                return
            chosen = [instance]
        reason = clipped(request.reason)
        value = msgspec.msgpack.encode(reason) if request.enabled else None

        def apply() -> None:
            for instance in chosen:
                instance.is_in_maintenance = request.enabled
                instance.maintenance_reason = reason
                self._publish(instance)

        if chosen:
            self._store(request_id, tuple(StoredRecord(MAINTENANCE + one.id, value) for one in chosen), apply)
        else:
            self._done(request_id)

    def _count_with(self, instance_id: str) -> int:
        """How many instances there are when all that waits for the disk is stored, and `instance_id` too."""
        coming = {key.removeprefix(INSTANCE): None for key in self._under_way if key.startswith(INSTANCE)}
        return len({**self._instances, **coming, instance_id: None})

    # ---- changes, once they are durable

    def _add(self, spec: InstanceSpec, *, is_configured: bool = False) -> None:
        instance = self._instances.get(spec.id)
        if instance is None:
            instance = self._instances[spec.id] = OwnInstance(spec, is_configured=is_configured)
            self._begin(instance, spec, spread=False)
            self._publisher.publish(instance)
            self._publish_ids("registered")
            self._changed_ids(None)
            return
        if instance.is_configured and not is_configured:
            return  # the file named it while the disk was busy, and the file wins
        instance.is_configured = is_configured
        if instance.is_same_place(spec):
            instance.spec = spec
        else:
            self._begin(instance, spec, spread=False)
        self._publish(instance)

    def _remove(self, ids: list[str], why: str) -> None:
        removed = [one for one in ids if self._instances.pop(one, None) is not None]
        if removed:
            self._publish_ids(why)
        for one in removed:
            self._changed_ids(one)

    def _begin(self, instance: OwnInstance, spec: InstanceSpec, *, spread: bool) -> None:
        self._epoch += 1
        instance.begin(spec, self._epoch, self._out.now, self._remembered.pop(spec.id, None))
        self.checks.begin(instance, spread=spread)

    def _drain(self, instance: OwnInstance, draining: bool, until: int, reason: str) -> None:
        instance.is_draining = draining
        instance.drain_until = until
        instance.drain_reason = reason
        if until:
            self._out.arm(until, DrainOver(instance.id, until))

    def _drain_over(self, timer: DrainOver) -> None:
        instance = self._instances.get(timer.instance_id)
        if instance is None or not instance.is_draining or instance.drain_until != timer.until:
            return
        self._drain(instance, False, 0, "")
        self._out.store((StoredRecord(DRAINING + instance.id, None),), sync=False)
        self._publish(instance)

    def _judged(self, instance: OwnInstance) -> None:
        value = instance.health.status.value.encode()
        self._out.store((StoredRecord(STATUS + instance.id, value),), sync=False)
        self._publish(instance)

    def _publish(self, instance: OwnInstance) -> None:
        """Spread what it is now, unless it was removed or replaced while the disk was busy."""
        if self._instances.get(instance.id) is instance:
            self._publisher.publish(instance)

    def _publish_ids(self, why: str) -> None:
        self._publisher.publish_ids(list(self._instances), why)

    def _recall(self, instance: OwnInstance, stored: dict[str, bytes]) -> None:
        """What the disk says of an instance beside its registration."""
        status = next((one for one in VERDICTS if one.value.encode() == stored.get(STATUS + instance.id)), None)
        if status is not None:
            self._remembered[instance.id] = status
        reason = self._decode(MAINTENANCE + instance.id, stored.get(MAINTENANCE + instance.id), str)
        if reason is not None:
            instance.is_in_maintenance = True
            instance.maintenance_reason = reason
        drain = self._decode(DRAINING + instance.id, stored.get(DRAINING + instance.id), StoredDraining)
        if drain is not None:
            left = drain.until_unix - self._started_unix
            if not drain.until_unix or left > 0:
                self._drain(instance, True, self._out.now + left if drain.until_unix else 0, drain.reason)

    # ---- answers

    def _store(self, request_id: int, records: tuple[StoredRecord, ...], apply: Callable[[], None]) -> None:
        for record in records:
            self._under_way[record.key] = self._under_way.get(record.key, 0) + 1

        def settled() -> None:
            for record in records:
                self._under_way[record.key] -= 1
                if not self._under_way[record.key]:
                    del self._under_way[record.key]

        def stored() -> None:
            settled()
            apply()
            self._done(request_id)

        def failed(reason: str) -> None:
            settled()
            self._out.reply(request_id, Refused("storage", "", f"the disk failed ({reason}): mend it and repeat"))

        self._out.store(records, sync=True, then=stored, failed=failed)

    def _find(self, request_id: int, instance_id: str) -> OwnInstance | None:
        instance = self._instances.get(instance_id)
        if instance is None:
            self._out.reply(request_id, unknown_instance(instance_id, ASK_ITS_HOST))
        return instance

    def _done(self, request_id: int) -> None:
        self._out.reply(request_id, Done(self._publisher.version))

    def _conflict(self, request_id: int, reason: str) -> None:
        self._out.reply(request_id, Refused("conflict", "id", reason))

    def _invalid(self, request_id: int, field: str, expected: str, got: str) -> None:
        self._out.reply(request_id, refused(LocalError(field, got=got, expected=expected)))

    def _unix(self) -> int:
        return self._out.unix() or self._started_unix

    def _decode(self, key: str, value: bytes | None, type_: type[Any]) -> Any:
        if value is None:
            return None
        try:
            return msgspec.msgpack.decode(value, type=type_)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._out.drop(f"disk: {key}", str(error))
            return None


def _erased(instance_id: str) -> tuple[StoredRecord, ...]:
    return tuple(StoredRecord(prefix + instance_id, None) for prefix in (INSTANCE, DRAINING, MAINTENANCE, STATUS))
