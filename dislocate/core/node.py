"""The door of the core: one input at a time, the effects that it causes, in order.

    node = Node(settings, Streams(f"{seed}/{settings.node.path}"), recovered)
    effects = node.start(now)
    effects = node.handle(DatagramReceived(source, data), now)
    node.deadline()  # when it next wants a `TimeReached`

The node decides and does nothing: no clock, no socket, no randomness of its own, no log.  Its parts share one `Outbox`
and know each other only through the arguments given here; this file is where to look for who handles what.
"""

from collections.abc import Callable
from types import MappingProxyType
from typing import Any, TypeAlias, get_args

from dislocate.core.balance import messages as balance_messages
from dislocate.core.balance.knowledge import FlowViews
from dislocate.core.balance.part import BalancePart
from dislocate.core.boundary.balance import ReportUsage
from dislocate.core.boundary.effects import Effect
from dislocate.core.boundary.events import DatacenterChanged, Event
from dislocate.core.boundary.inputs import (
    CheckCompleted,
    ClockRead,
    ConnectTried,
    DatagramReceived,
    Input,
    LinkLost,
    LinkOpened,
    LoadReported,
    MessageReceived,
    RequestCancelled,
    Requested,
    SendFailed,
    Stopped,
    Stored,
    StoreFailed,
    TaskProgressed,
    TimeReached,
)
from dislocate.core.boundary.requests import (
    Deregister,
    Forget,
    Heartbeat,
    Leave,
    Register,
    ReplaceConfigured,
    ReportLoad,
    SetDraining,
    SetMaintenance,
    Watch,
)
from dislocate.core.boundary.runs import Visit
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.store import StoreRequest, StoreView
from dislocate.core.boundary.views import DatacenterView, HistoryEntry, MemberView
from dislocate.core.catalog import chronicle
from dislocate.core.catalog import messages as catalog_messages
from dislocate.core.catalog.antientropy import Repair
from dislocate.core.catalog.catalog import Catalog
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.catalog.messages import Repaired
from dislocate.core.consensus.messages import Consensus
from dislocate.core.errors import PeerError
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership import messages as member_messages
from dislocate.core.membership.members import Members
from dislocate.core.membership.messages import WhoIsThere
from dislocate.core.membership.swim import Swim
from dislocate.core.membership.wan import Wan
from dislocate.core.outbox import Outbox
from dislocate.core.rumors import Rumors
from dislocate.core.runs import messages as run_messages
from dislocate.core.runs.part import Fleet, RunsPart
from dislocate.core.runs.targeting import Candidate
from dislocate.core.scale.part import ScalePart
from dislocate.core.store import messages as store_messages
from dislocate.core.store.part import StorePart
from dislocate.core.streams import Streams
from dislocate.core.tunables import PROTOCOL
from dislocate.core.wire import Envelope, Fact, FactMemo, Fragment, Message, Reassembly, decode_envelope

# Where a message came from: the gossip address of a datagram, or None when it came on the link to its sender.
Source: TypeAlias = Address | None
MessageHandler: TypeAlias = Callable[[NodeId, Source, Any], None]


class Node:
    """One agent's decisions."""

    def __init__(
        self, settings: Settings, streams: Streams, recovered: Recovered, memo: FactMemo | None = None
    ) -> None:
        self.settings = settings
        self._datacenter = settings.node.datacenter
        self._patience = settings.probe_period
        self._started_unix = recovered.unix_ns
        self._out = out = Outbox(settings.node, Rumors())
        # When the node next wants a `TimeReached`, monotonic nanoseconds; `outbox.NEVER` when at no time.
        self.deadline: Callable[[], int] = out.deadline
        self._memo = memo or FactMemo()
        self._members = Members(settings.node.datacenter, settings.node.path)
        self._ledger = Ledger()
        self._wan = Wan(settings, streams, out, self._members, self._ledger)
        self._catalog = Catalog(settings, streams, out, self._members, self._ledger, recovered)
        self._repair = Repair(settings, streams, out, self._members, self._ledger)
        self._swim = Swim(settings, streams, out, self._members, self._ledger, self._wan, self._repair, recovered)
        self._store = StorePart(
            settings, streams, out, self._members, self._ledger, recovered, self._wan.rtt, self._wan.is_reachable
        )
        self._fleet = Fleet(self._members, self._wan, self._catalog)
        self._runs = RunsPart(streams, out, self._members, self._store.face, self._fleet, recovered)
        self._balance = BalancePart(settings.node, out, self._members, self._wan, self._catalog, self._store.face)
        self._scale = ScalePart(out, self._store.face, self._fleet, self._balance.views)
        self._reassembly = Reassembly()
        self._is_whole = False  # an envelope that came in fragments is being read
        self._wan.compare = self._repair.compare
        self._wan.reported = self._balance.distances_changed
        self._swim.listeners += [self._wan.member_changed, self._catalog.member_changed, self._store.member_changed]
        self._catalog.brake = self._wan.brake
        self._catalog.is_reachable = self._wan.is_reachable
        self._catalog.as_of = self._wan.as_of
        self._repair.providers = {
            "m": self._swim.facts_of,
            "c": self._catalog.facts_of,
            "d": self._catalog.drains_of,
            "s": self._store.belonging.facts_of,
        }

        self._inputs: dict[type, Callable[[Any], None]] = {
            DatagramReceived: self._datagram_received,
            MessageReceived: self._message_received,
            LinkOpened: self._link_opened,
            LinkLost: self._link_lost,
            SendFailed: self._send_failed,
            ConnectTried: self._connect_tried,
            TimeReached: self._time_reached,
            ClockRead: lambda read: out.read_clock(read.unix_ns),
            Stored: lambda stored: out.stored(stored.seq),
            StoreFailed: lambda failed: out.store_failed(failed.seq, failed.reason),
            Requested: self._requested,
            RequestCancelled: self._request_cancelled,
            CheckCompleted: self._catalog.check_completed,
            LoadReported: self._catalog.host_load_reported,
            TaskProgressed: self._task_progressed,
            Stopped: self._swim.stopped,
        }
        self._messages: dict[type, MessageHandler] = {
            member_messages.Ping: self._swim.on_ping,
            member_messages.Ack: self._swim.on_ack,
            member_messages.PingRequest: self._swim.on_ping_request,
            member_messages.RelayedAck: self._swim.on_relayed_ack,
            member_messages.Nack: self._swim.on_nack,
            member_messages.RefusalCheck: self._swim.on_refusal_check,
            member_messages.RefusalVerdict: self._swim.on_refusal_verdict,
            member_messages.Hello: self._swim.on_hello,
            member_messages.Welcome: self._swim.on_welcome,
            member_messages.ItIsI: lambda sender, source, _: self._out.drop(source or sender.path, "an answer unasked"),
            member_messages.LinkHeartbeat: self._wan.on_heartbeat,
            member_messages.FactsForwarded: self._facts_forwarded,
            catalog_messages.LedgerDigest: self._repair.on_digest,
            catalog_messages.LedgerInventory: self._repair.on_inventory,
            Repaired: self._repair.on_repaired,
            Consensus: self._store.on_consensus,
            store_messages.Asked: self._store.answering.on_asked,
            store_messages.Answered: self._store.answering.on_answered,
            store_messages.AskedTogether: self._store.answering.on_asked_together,
            store_messages.AnsweredTogether: self._store.answering.on_answered_together,
            store_messages.AskingEnded: self._store.answering.on_asking_ended,
            store_messages.GroupAsked: self._store.on_group_asked,
            store_messages.GroupTold: self._store.on_group_told,
            store_messages.StateTold: self._store.on_state_told,
            store_messages.Follow: self._store.answering.on_follow,
            store_messages.Unfollow: self._store.answering.on_unfollow,
            store_messages.FollowedState: self._store.near.on_state,
            store_messages.FollowedChanges: self._store.near.on_changes,
            run_messages.VisitAsked: self._runs.hosting.on_asked,
            run_messages.VisitEnded: self._runs.hosting.on_ended,
            run_messages.VisitOutput: self._runs.visits.on_output,
            run_messages.VisitAnswered: self._runs.visits.on_answered,
            balance_messages.UsageTold: self._balance.on_usage_told,
            balance_messages.CallsTold: self._balance.on_calls_told,
            Fragment: self._fragment_received,
        }
        # A fact handler says whether the fact was news; the part spreads what was (`Outbox.spread`).
        self._facts: dict[type, Callable[[NodeId, Any, bool], bool]] = {
            member_messages.Alive: self._swim.on_alive,
            member_messages.Suspect: self._swim.on_suspect,
            member_messages.Dead: self._swim.on_dead,
            member_messages.Left: self._swim.on_left,
            member_messages.Restarting: self._swim.on_restarting,
            member_messages.Forgotten: self._swim.on_forgotten,
            member_messages.WanReport: self._wan.on_report,
            catalog_messages.InstanceRecord: self._catalog.on_record,
            catalog_messages.Manifest: self._catalog.on_manifest,
            catalog_messages.LoadNote: self._catalog.on_load,
            catalog_messages.DrainOrder: self._catalog.on_drain_order,
            store_messages.StoreGroup: self._store.on_group,
            balance_messages.FlowReport: self._balance.on_report,
        }
        self._timers: dict[type, Callable[[Any], None]] = {
            **self._swim.timers(),
            **self._wan.timers(),
            **self._catalog.timers(),
            **self._repair.timers(),
            **self._store.timers(),
            **self._runs.timers(),
            **self._scale.timers(),
            **self._balance.timers(),
        }
        self._requests: dict[type, Callable[[int, Any], None]] = {
            Register: self._catalog.register,
            Deregister: self._catalog.deregister,
            Heartbeat: self._catalog.heartbeat,
            ReportLoad: self._catalog.report_load,
            SetDraining: self._catalog.set_draining,
            SetMaintenance: self._catalog.set_maintenance,
            ReplaceConfigured: self._replace_configured,
            Watch: self._catalog.watch,
            ReportUsage: self._balance.report_usage,
            Leave: self._swim.leave,
            Forget: self._swim.forget,
            Visit: self._runs.visit,
            **dict.fromkeys(get_args(StoreRequest), self._store.request),
        }

    # ---- the three calls of a driver

    def start(self, now: int) -> list[Effect]:
        """The first effects: greetings to seeds, first timers, first checks.  Called once, before any input."""
        self._out.now = now
        if self._started_unix:
            self._out.read_clock(self._started_unix)  # else history would not know when its first events were
        self._swim.start()
        self._wan.start()
        self._catalog.start()
        self._repair.start()
        self._store.start()
        self._runs.start()
        self._scale.start()
        self._balance.start()
        return self._finish_turn()

    def handle(self, input_: Input, now: int) -> list[Effect]:
        """What `input_` causes, and what has become due by `now` (monotonic nanoseconds, never decreasing)."""
        out = self._out
        if now - out.now > self._patience:
            self._look_for_stall(now)
        out.now = now
        self._inputs[type(input_)](input_)
        return self._finish_turn()

    # ---- snapshots

    @property
    def members(self) -> MappingProxyType[Path, MemberView]:
        """Everybody known, by path."""
        return MappingProxyType(self._members.views(self._out.now))

    def member(self, path: Path) -> MemberView | None:
        """One of `members`, without building the others."""
        return self._members.view(path, self._out.now)

    @property
    def queued_rumors(self) -> int:
        """Facts that wait to be spread: drains to 0 without new input."""
        return self._out.rumors.count

    @property
    def digest(self) -> int:
        """64 bits over all that this node would repair others with: equal digests, equal knowledge."""
        return self._ledger.total

    @property
    def datacenters(self) -> MappingProxyType[str, DatacenterView]:
        """Every data center known, this one included."""
        return MappingProxyType(self._wan.views())

    @property
    def catalog(self) -> Catalog:
        """Services by name: `service(name)`, `names()`; their answers are immutable."""
        return self._catalog

    @property
    def flows(self) -> FlowViews:
        """Where callers here should send their requests, by service, and why."""
        return self._balance.views

    @property
    def store(self) -> StoreView:
        """Where this agent stands towards the replicated store."""
        return self._store.view

    @property
    def scale(self) -> ScalePart:
        """Why sizes of services are as they are, where this agent leads the store."""
        return self._scale

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Whom expressions of targets may mean: everybody known that has not left, with tags and services."""
        return self._fleet.candidates()

    @property
    def counters(self) -> MappingProxyType[str, int]:
        """What happened how often, for metrics."""
        return MappingProxyType(self._out.counters)

    def history(self, subject: str) -> tuple[HistoryEntry, ...]:
        """The last things that happened to a node ('dc/name'), service or instance ('dc/name/id'), oldest first."""
        return self._catalog.history.of(subject)

    @property
    def identity(self) -> NodeId:
        """Who this node is now; the same object until it takes a higher boot than it was started with."""
        return self._out.node

    @property
    def now(self) -> int:
        """The time of the last turn."""
        return self._out.now

    @property
    def is_relay(self) -> bool:
        return self._wan.is_relay

    # ---- inputs that concern more than one part

    def _time_reached(self, _reached: TimeReached) -> None:
        """Late timers: input that waited went before them."""
        self._out.kept_since = None
        while (timer := self._out.due()) is not None:
            self._timers[type(timer)](timer)

    def _datagram_received(self, received: DatagramReceived) -> None:
        self._envelope_received(received.data, received.source, received.source, None)

    def _message_received(self, received: MessageReceived) -> None:
        self._envelope_received(received.data, received.peer.path, None, received.peer)

    def _envelope_received(self, data: bytes, name: str, source: Source, peer: NodeId | None) -> None:
        """`name`: whom to blame for what cannot be read."""
        try:
            envelope = decode_envelope(data, name)
            facts = self._read_facts(envelope, name) if envelope.facts else ()
        except PeerError as error:
            self._out.drop(error.peer, error.reason)
            return
        sender, body = self._memo.same(envelope.sender), envelope.body
        if peer is not None and sender.path != peer.path:
            self._out.drop(peer.path, f"speaks for {sender.path}")
            return
        if type(body) is WhoIsThere:
            self._introduce(source, body)
            return
        self._swim.heard(sender, source)
        if sender.datacenter != self._datacenter:
            self._out.via = (sender.datacenter,)  # until the turn ends: what is news now came from there
            self._wan.heard(sender)
        # Facts first: an answer to the body should already know them.
        for fact in facts:
            self._facts[type(fact)](sender, fact, type(body) is Repaired)
        if body is not None:
            self._messages[type(body)](sender, source, body)

    def _read_facts(self, envelope: Envelope, name: str) -> list[Fact]:
        """Its facts.  Raises `PeerError` for one that cannot be read, unless a newer version said it: that is passed over."""
        if envelope.version <= PROTOCOL[1]:
            return [self._memo.decode(raw, name) for raw in envelope.facts]
        known: list[Fact] = []
        for raw in envelope.facts:
            try:
                known.append(self._memo.decode(raw, name))
            except PeerError:
                self._out.count("fact_of_newer_version")
        return known

    def _introduce(self, source: Source, question: WhoIsThere) -> None:
        """Who only asks is no member: nothing is remembered of it."""
        if source is not None:
            answer = member_messages.ItIsI(question.seq, self._swim.record, self._out.unix())
            self._out.send_facts(source, answer, ())

    def _facts_forwarded(self, sender: NodeId, source: Source, body: member_messages.FactsForwarded) -> None:
        self._out.via = body.path
        try:
            for raw in body.facts:
                fact = self._memo.decode(raw, sender.path)
                self._facts[type(fact)](sender, fact, False)
        except PeerError as error:
            self._out.drop(error.peer, error.reason)

    def _fragment_received(self, sender: NodeId, source: Source, fragment: Fragment) -> None:
        """The envelope is read when its last part is here; one that holds a part of another is nobody's."""
        whole = self._reassembly.add(sender.path, fragment) if source is None and not self._is_whole else None
        if whole is None:
            if source is not None or self._is_whole:
                self._out.drop(source or sender.path, "a fragment where none may be")
            return
        self._is_whole = True
        self._envelope_received(whole, sender.path, None, sender)
        self._is_whole = False

    def _link_opened(self, opened: LinkOpened) -> None:
        self._swim.link_opened(opened.peer)
        self._wan.link_opened(opened.peer)
        self._store.link_opened(opened.peer)
        self._runs.link_opened(opened.peer)

    def _link_lost(self, lost: LinkLost) -> None:
        self._out.link_lost(lost.peer)
        self._reassembly.forget(lost.peer.path)
        self._swim.link_lost(lost.peer, lost.reason)
        self._wan.link_lost(lost.peer, lost.reason)
        self._store.link_lost(lost.peer)
        self._runs.link_lost(lost.peer, lost.reason)

    def _connect_tried(self, tried: ConnectTried) -> None:
        self._store.connect_tried(tried)
        self._swim.connect_tried(tried)

    def _send_failed(self, failed: SendFailed) -> None:
        if isinstance(failed.target, NodeId):
            self._wan.send_failed(failed.target, failed.reason)
            self._store.send_failed(failed.target)
            self._runs.send_failed(failed.target)
        else:
            self._swim.send_failed(failed.target, failed.reason)

    def _task_progressed(self, progressed: TaskProgressed) -> None:
        if not self._scale.task_progressed(progressed.task_id, progressed.outcome):
            self._runs.task_progressed(progressed)

    def _requested(self, requested: Requested) -> None:
        request = requested.request
        self._requests[type(request)](requested.request_id, request)

    def _replace_configured(self, request_id: int, request: ReplaceConfigured) -> None:
        self._catalog.replace_configured(request_id, request, lambda: self._swim.retag(request.tags))

    def _request_cancelled(self, cancelled: RequestCancelled) -> None:
        self._catalog.request_cancelled(cancelled.request_id)
        self._store.cancel(cancelled.request_id)
        self._runs.cancel(cancelled.request_id)

    def _look_for_stall(self, now: int) -> None:
        """Nothing came for long: only a timer that was due and not served tells of a stall."""
        gap = now - max(self._out.now, self._out.deadline())
        if gap > self._patience:
            self._out.kept_since = self._out.now  # until the time is told: what waits comes before that
            self._out.now = now
            self._swim.stalled(gap)
            self._wan.stalled(gap)
            self._store.stalled(gap)

    def _finish_turn(self) -> list[Effect]:
        out = self._out
        while out.reset:
            self._link_lost(LinkLost(out.reset.pop(), "closed here: it was stuck"))
        if out.rumors.count:
            self._swim.rumors_wait()
        if out.told:
            self._take_note(out.told)
            out.told = []
        if out.news:
            self._wan.forward(out.news)
            out.news = []
        out.via = ()
        effects, out.effects = out.effects, []
        return effects

    def _take_note(self, events: list[Event]) -> None:
        """History remembers what happened to members; the catalog's answers depend on who can be reached."""
        for event in events:
            if (entry := chronicle.entry(event)) is not None:
                subject, what, why, observers = entry
                self._catalog.history.record(subject, what, self._memo.same_words(why), observers)
            if type(event) is DatacenterChanged:
                self._catalog.wan_changed(event.datacenter)
            self._balance.noticed(event)


__all__ = ["Message", "Node"]
