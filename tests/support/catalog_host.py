"""One catalog with a disk that answers, for tests: hosts tell each other what they spread, time passes when asked to."""

from dislocate.core.boundary.effects import Notify, Reply, RunCheck, Store
from dislocate.core.boundary.events import Event, ServiceChanged
from dislocate.core.boundary.inputs import CheckCompleted
from dislocate.core.boundary.requests import (
    Deregister,
    Heartbeat,
    Register,
    ReplaceConfigured,
    ReportLoad,
    Request,
    Result,
    SetDraining,
    SetMaintenance,
    Watch,
)
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.values import CheckOutcome, CheckSpec, InstanceSpec, MemberState, Status, StoredRecord
from dislocate.core.catalog.catalog import Catalog
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.catalog.messages import DrainOrder, InstanceRecord, LoadNote, Manifest
from dislocate.core.identity import NodeId
from dislocate.core.membership.members import Member, Members
from dislocate.core.membership.messages import MemberRecord
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.streams import Streams
from dislocate.core.tunables import PROTOCOL
from dislocate.core.units import SECOND
from dislocate.core.wire import Fact

HTTP = CheckSpec(http="http://127.0.0.1:8080/", interval=5 * SECOND)
TTL = CheckSpec(ttl=10 * SECOND)
UNIX = 1_700_000_000 * SECOND


def spec(instance_id="web-1", service="shop.web", **fields) -> InstanceSpec:
    return InstanceSpec(**{"id": instance_id, "service": service, "port": 8080, **fields})


class Host:
    """One agent's catalog."""

    def __init__(self, name="a1", datacenter="fra", *, boot=1, disk=None, services=(), unix=UNIX, tags=(), now=0):
        self.node = NodeId(datacenter, name, boot)
        self.settings = Settings(node=self.node, nonce=boot, gossip=f"10.0.0.{boot}:1", links="l:2", services=services)
        self.out = Outbox(self.node, Rumors())
        self.out.now = now
        self.out.read_clock(unix)
        self.members = Members(datacenter)
        self.ledger = Ledger()
        self.disk: dict[str, bytes] = dict(disk or {})
        self.disk_fails = False
        self.verdict = Status.PASSING  # of every check; None: checks stay unanswered
        self.checks: list[RunCheck] = []
        self.events: list[Event] = []
        self.replies: dict[int, Result] = {}
        self.said: list[Fact] = []
        self._request_id = 0
        records = tuple(StoredRecord(key, value) for key, value in self.disk.items())
        self.catalog = Catalog(
            self.settings,
            Streams("test"),
            self.out,
            self.members,
            self.ledger,
            Recovered(records=records, unix_ns=unix),
        )
        self.timers = self.catalog.timers()
        self._asks = {
            Register: self.catalog.register,
            Deregister: self.catalog.deregister,
            Heartbeat: self.catalog.heartbeat,
            ReportLoad: self.catalog.report_load,
            SetDraining: self.catalog.set_draining,
            SetMaintenance: self.catalog.set_maintenance,
            ReplaceConfigured: lambda number, request: self.catalog.replace_configured(number, request, lambda: None),
            Watch: self.catalog.watch,
        }
        self._hears = {
            InstanceRecord: self.catalog.on_record,
            Manifest: self.catalog.on_manifest,
            LoadNote: self.catalog.on_load,
            DrainOrder: self.catalog.on_drain_order,
        }
        self.sees(self)
        self.catalog.start()
        self.settle()

    # ---- the world around it

    def settle(self) -> None:
        """Carry out effects until there are none."""
        while self.out.effects:
            effects, self.out.effects = self.out.effects, []
            for effect in effects:
                if isinstance(effect, Store):
                    self._store(effect)
                elif isinstance(effect, Reply):
                    self.replies[effect.request_id] = effect.result
                elif isinstance(effect, Notify):
                    self.events.append(effect.event)
                elif isinstance(effect, RunCheck):
                    self.checks.append(effect)
                    if self.verdict is not None:
                        outcome = CheckOutcome(self.verdict, f"said {self.verdict.value}", 1)
                        self.catalog.check_completed(CheckCompleted(effect.check_id, outcome))
        self.said += [fact for _, fact in self.out.news]
        self.out.news = []

    def run(self, duration: int) -> None:
        """Let time pass."""
        end = self.out.now + duration
        while self.out.deadline() <= end:
            self.out.now = max(self.out.now, self.out.deadline())
            while (timer := self.out.due()) is not None:
                self.timers[type(timer)](timer)
            self.settle()
        self.out.now = end

    def _store(self, effect: Store) -> None:
        if self.disk_fails:
            self.out.store_failed(effect.seq, "full")
            return
        for record in effect.records:
            if record.value is None:
                self.disk.pop(record.key, None)
            else:
                self.disk[record.key] = record.value
        self.out.stored(effect.seq)

    # ---- requests, facts, members

    def ask(self, request: Request) -> Result | None:
        self._request_id += 1
        self._asks[type(request)](self._request_id, request)
        self.settle()
        return self.replies.get(self._request_id)

    def hear(self, facts, *, repaired=False) -> list[bool]:
        news = [self._hears[type(fact)](fact_sender(fact), fact, repaired) for fact in facts]
        self.settle()
        return news

    def sees(self, other: "Host", state=MemberState.ALIVE, *, refused=False) -> None:
        """Membership says that `other` is in `state`."""
        member = self.members.get(other.node.path)
        before = None if member is None else member.state
        record = MemberRecord(other.node, 1, 1, "g:1", "l:1", "", "", b"", (), PROTOCOL)
        if member is None:
            member = Member(record, state, self.out.now)
            self.members.add(member)
        else:
            self.members.set_record(member, record)
            self.members.set_state(member, state, self.out.now)
        member.refused = refused
        if state is MemberState.ALIVE:
            member.heard = self.out.now
        self.catalog.member_changed(member, before)
        self.settle()

    def forgets(self, other: "Host") -> None:
        member = self.members.get(other.node.path)
        self.members.remove(other.node.path)
        self.catalog.member_changed(member, member.state)
        self.settle()

    def restarted(self, *, after=SECOND, **fields) -> "Host":
        """A new start of the same agent, from the same disk."""
        node = self.node
        unix = self.out.unix() + after
        return Host(node.name, node.datacenter, boot=node.boot + 1, disk=self.disk, unix=unix, **fields)

    # ---- what a user would notice

    def statuses(self, service="shop.web") -> dict[str, Status]:
        view = self.catalog.service(service)
        return {} if view is None else {f"{one.node}/{one.id}": one.status for one in view.instances}

    def status(self, key="fra/a1/web-1", service="shop.web") -> Status | None:
        return self.statuses(service).get(key)

    def changes_of(self, service="shop.web") -> int:
        return sum(isinstance(event, ServiceChanged) and event.service == service for event in self.events)

    def take_said(self) -> list[Fact]:
        said, self.said = self.said, []
        return said


def fact_sender(fact) -> NodeId:
    return fact.issuer if isinstance(fact, DrainOrder) else fact.owner
