"""The store's part of an agent: whether it is a server or not, it takes requests and gets them answered.

It knows the group (`consensus.bootstrap`, and by gossip `group`), holds the links (`serverlinks`), routes (`router`), and
where this agent is a server runs it (`server`).  What agents that are no servers keep of the state is `following`'s business.

Invariant: who belongs to another group, or means another disk, is not listened to.
"""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from dislocate.core.boundary.events import GroupJoined, StoreTroubled
from dislocate.core.boundary.inputs import ConnectTried
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.store import (
    BackUp,
    Consistency,
    KeysRead,
    ReadKeys,
    Restore,
    ServerView,
    StoreRequest,
    StoreView,
    WatchKeys,
)
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.catalog.ledger import Ledger, fingerprint
from dislocate.core.catalog.validation import refused
from dislocate.core.consensus.bootstrap import Admitted, Expelled, Founded, Founding, Joined, Write
from dislocate.core.consensus.duties import Timing
from dislocate.core.consensus.messages import Configuration, Consensus
from dislocate.core.consensus.promises import DIVERGED_KEY, is_of_store
from dislocate.core.consensus.wellformed import fault
from dislocate.core.errors import Bug, LocalError
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.copying import Copying
from dislocate.core.store.durable import Found, find
from dislocate.core.store.group import GroupNews
from dislocate.core.store.messages import (
    Answered,
    Asked,
    AskingEnded,
    BackupPart,
    Follow,
    GroupAsked,
    GroupTold,
    StateTold,
    StoreAsk,
    StoreGroup,
    Unfollow,
)
from dislocate.core.store.near import Near
from dislocate.core.store.passing import Answer, Passing
from dislocate.core.store.router import Router
from dislocate.core.store.server import SERVER_TIMERS, Server
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.store.validation import check_request
from dislocate.core.streams import Streams
from dislocate.core.tunables import DATAGRAM_BUDGET, LEADERLESS, SHUNNED_FOR, SNAPSHOT_CHUNK
from dislocate.core.units import SECOND
from dislocate.core.wire import Fact, encode_envelope

NO_STORE = "this fleet has no store: name its servers, as [store] servers = [...], in every agent's configuration"
TICK_PERIOD = 1 * SECOND


class StoreTick(Timer, frozen=True):
    """Ask on about the group; see which server is nearest."""


class StorePart:
    """One agent's part."""

    def __init__(
        self,
        settings: Settings,
        streams: Streams,
        out: Outbox,
        members: Members,
        ledger: Ledger,
        recovered: Recovered,
        rtt: Callable[[str], int | None],
    ) -> None:
        self._settings = settings
        self._path = settings.node.path
        self._streams = streams
        self._out = out
        self._members = members
        self._rtt = rtt  # to a data center, nanoseconds, if it is known
        self._records = tuple(record for record in recovered.records if is_of_store(record.key))
        self._left_behind: tuple[str, ...] = ()  # keys of what an earlier membership has on the disk
        self._diverged = ""  # what is on the disk is wrong, and never served again: why
        self._founding = Founding(self._path, settings.servers, streams["disk"].bits(63), recovered.records)
        self._news = GroupNews(out, ledger, self._founding)
        self._links = ServerLinks(self._path, out, members, streams["store links"])
        self._passing = Passing(out)
        self._router = Router(out)
        self._router.target = self._target
        self._router.problem = self._problem
        self._router.serve = self._serve_own
        self._router.ended = self._asking_ended
        self._router.turned_away = self._shun
        self._copying = Copying(out, self._router)
        self._near = Near(out, self._links, recovered, self._rtt_to)
        self._server: Server | None = None
        self._out_of_reach_since: int | None = None  # no server is linked here; None: one is
        self._shunned: dict[Path, int] = {}  # servers that cannot help, until when
        self._problem_told = ""

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {
            **self._router.timers(),
            **self._links.timers(),
            **self._near.timers(),
            **dict.fromkeys(SERVER_TIMERS, self._server_timer),
            StoreTick: self._tick,
        }

    def start(self) -> None:
        self._out_of_reach_since = self._out.now
        self._news.restore()
        self._near.start()
        records, self._records = self._records, ()
        mark = next((record for record in records if record.key == DIVERGED_KEY), None)
        if self._founding.is_member and mark is None:
            self._run(find(records))
        else:
            self._left_behind = tuple(record.key for record in records)
            self._diverged = "" if mark is None or not self._founding.is_member else (mark.value or b"").decode()
        self._carry_out()
        if self._diverged:
            self._out.notify(StoreTroubled(self._diverged))
        if self._settings.servers or self._founding.group is not None:
            self._tick(StoreTick())

    def group_facts(self, path: Path) -> list[Fact]:
        """What repair tells of the group."""
        return self._news.facts_of(path)

    # ---- what others say

    def on_group(self, sender: NodeId, fact: StoreGroup, repaired: bool) -> bool:
        if not 0 <= fact.index < _LIMIT:
            self._out.drop(sender.path, "a group that cannot be")
            return False
        news = self._news.on_fact(sender, fact, repaired)
        self._carry_out()
        if news and self._server is None:
            self._choose()
        return news

    def on_group_asked(self, sender: NodeId, source: Address | None, asked: GroupAsked) -> None:
        """Who asks on a link says by that that it wants to keep it."""
        told = self._with_level(self._founding.asked(sender, asked))
        if source is None:
            self._links.claim(sender)
            self._out.send_message(sender, told)
        else:
            self._say(sender.path, told)
        self._carry_out()

    def on_group_told(self, sender: NodeId, source: Address | None, told: GroupTold) -> None:
        if not (0 <= told.members_at < _LIMIT and 0 <= told.disk < 4 * _LIMIT):
            self._out.drop(sender.path, "a group that cannot be")
            return
        self._founding.told(sender, told)
        if self._server is not None:
            self._server.told(sender.path, told)
        self._carry_out()

    def on_consensus(self, sender: NodeId, source: Address | None, message: Consensus) -> None:
        if source is not None or message.origin.path != sender.path:
            self._out.drop(sender.path, "a message of consensus that is not from where it says")
            return
        if words := fault(message):
            self._out.drop(sender.path, f"a message of consensus in which {words}")
            return
        wanted = self._founding.consensus(sender, message)
        self._carry_out()
        if self._founding.is_of_group(message):
            self._links.claim(sender)
        server = self._server
        if not wanted or server is None:
            return
        try:
            server.receive(message)
        except Bug as bug:
            server.contradicted(sender.path, bug)

    def on_state_told(self, sender: NodeId, source: Address | None, told: StateTold) -> None:
        if self._server is not None and source is None:
            self._server.audit.told(sender.path, told)

    def on_asked(self, sender: NodeId, source: Address | None, asked: Asked) -> None:
        """Another agent wants something: answer it, or pass it on to the leader, once."""
        if source is not None or not _is_plausible(asked):
            self._out.drop(sender.path, "an asking that no agent makes")
            return
        asker = asked.asker or sender
        self._links.claim(sender)

        def answer(answered: Answered) -> None:
            if self._links.node(sender.path) == sender:
                reply = answered if asked.asker is None else _for(answered, asker)
                self._out.send_message(sender, reply)

        if not isinstance(asked.request, RestoreChunk | BackupPart):
            try:
                check_request(asked.request)
            except LocalError as error:
                answer(Answered(asked.seq, refused(error), unlogged=True))
                return
        server = self._server
        if server is None or server.problem:
            answer(Answered(asked.seq, None, reason=f"{self._path} serves nothing now", elsewhere=True))
        elif _is_for_any(asked.request) or server.leads:
            self._serve(server, asker, asked, answer)
        else:
            self._pass_on(server, asker, asked, answer)

    def _pass_on(self, server: Server, asker: NodeId, asked: Asked, answer: Answer) -> None:
        leader = server.leader
        node = None if leader is None else self._links.node(leader.path)
        problem = server.why_not_now()
        if problem:
            answer(Answered(asked.seq, Refused("unavailable", "store", problem), unlogged=True))
        elif leader is None:
            answer(Answered(asked.seq, None, reason="no leader"))
        elif node is None or asked.asker is not None:
            answer(Answered(asked.seq, None, leader.path, f"{leader.path} leads", elsewhere=node is None))
        else:
            self._passing.pass_on(node, asker, asked, answer)

    def on_answered(self, sender: NodeId, source: Address | None, answered: Answered) -> None:
        if source is not None:
            return
        asker = answered.asker
        if asker is not None:
            self._passing.answered(sender, asker, answered)
            return
        self._router.answered(sender, answered)

    def on_follow(self, sender: NodeId, source: Address | None, body: Follow) -> None:
        if source is None and self._server is not None and body.group == self._server.group:
            self._server.follow(sender, body)

    def on_unfollow(self, sender: NodeId, source: Address | None, body: Unfollow) -> None:
        if self._server is not None:
            self._server.unfollow(sender, body)

    @property
    def near(self) -> Near:
        """What this agent holds without being a server."""
        return self._near

    def on_asking_ended(self, sender: NodeId, source: Address | None, ended: AskingEnded) -> None:
        if source is None:
            self._asking_ended(sender, ended.seq)

    def _asking_ended(self, asker: NodeId, seq: int) -> None:
        if self._server is not None:
            self._server.asking_ended(asker, seq)

    # ---- links and members

    def link_opened(self, peer: NodeId) -> None:
        before = self._links.node(peer.path)
        if before is not None and before != peer:
            self.link_lost(before)
        self._links.opened(peer)
        if self._server is not None:
            self._server.link_opened(peer.path)
        elif self._is_server(peer.path):
            self._out_of_reach_since = None
            self._out.send_message(peer, self._founding.question())
        self._router.retry_now()

    def link_lost(self, peer: NodeId) -> None:
        if not self._links.lost(peer):
            return
        self._passing.lost(peer)
        if self._server is not None:
            self._server.peer_gone(peer.path)
            self._server.link_lost(peer.path)
        else:
            self._near.link_lost(peer.path)
            self._choose()
        self._router.link_lost(peer)

    def send_failed(self, peer: NodeId) -> None:
        """Something sent on the link did not arrive, and nobody knows what.  Servers know how to go on; any other link is
        ended, so that whoever waits there for an answer asks again."""
        if self._links.node(peer.path) != peer:
            return
        if self._server is not None and self._is_server(peer.path):
            self._server.send_failed(peer.path)
            self._passing.lost(peer)
            self._router.link_lost(peer)
        elif self._router.sent_to(peer) or (self._server is not None and self._server.waiting.holds(peer.path)):
            self._out.reset_link(peer)

    def connect_tried(self, tried: ConnectTried) -> bool:
        """Whether it was this part that tried."""
        return self._server is not None and self._server.connect_tried(tried)

    def member_changed(self, member: Member, _before: object) -> None:
        node = self._links.node(member.path)
        if node is not None and node.boot < member.node.boot:
            self.link_lost(node)
        self._links.member_changed(member)

    def _is_server(self, path: Path) -> bool:
        servers = self._founding.members if self._server is None else self._server.servers()
        return any(server.path == path for server in servers)

    def stalled(self, gap: int) -> None:
        if self._server is not None:
            self._server.stalled(gap)

    # ---- requests of this host

    def request(self, request_id: int, request: StoreRequest) -> None:
        if isinstance(request, Restore):
            stream = self._streams["restore"]
            self._copying.restore(request_id, request, self._founding.group, lambda: stream.bits(62))
        elif isinstance(request, BackUp):
            self._copying.back_up(request_id)
        elif (held := self._held(request)) is not None:
            self._out.reply(request_id, held)
        else:
            self._router.request(request_id, request)

    def _held(self, request: StoreRequest) -> KeysRead | None:
        """What an agent that is no server answers by itself."""
        is_local = isinstance(request, ReadKeys) and request.consistency is not Consistency.LINEARIZABLE
        if not is_local or self._server is not None or self._founding.group is None:
            return None
        assert isinstance(request, ReadKeys)
        return self._near.read(request)

    def cancel(self, request_id: int) -> None:
        self._copying.cancel(request_id)
        self._router.cancel(request_id)

    def _target(self, request: StoreAsk) -> NodeId | None:
        """Who can answer `request` now."""
        server = self._server
        if server is None or server.problem:
            return self._another()
        if _is_for_any(request) or server.leads:
            return self._out.node
        if server.leader is None:
            return self._another(server.missing()) if server.why_not_now() else None
        return self._links.node(server.leader.path)

    def _another(self, missing: Sequence[Path] = ()) -> NodeId | None:
        """Another server that is linked here and not `missing`, the nearest: where this one has lost the leader, that one
        may have it."""
        linked = (self._links.node(path) for path in self._nearest() if path not in missing)
        return next((node for node in linked if node is not None), None)

    def _shun(self, server: NodeId) -> None:
        """It cannot help for a while: ask others first."""
        self._shunned[server.path] = self._out.now + SHUNNED_FOR
        if self._server is None:
            self._choose()

    def _problem(self, request: StoreAsk) -> str:
        """Why nobody will answer for a while; empty: somebody may in a moment."""
        if self._founding.group is None:
            return self._founding.problem or (NO_STORE if not self._settings.servers else self._not_founded())
        if self._server is not None and not self._server.problem:
            return self._server.why_not_now()
        since = self._out_of_reach_since
        if since is None or self._out.now - since < LEADERLESS:
            return ""
        servers = ", ".join(dict.fromkeys(member.path for member in self._founding.members))
        return f"no server of the store can be reached from {self._path}: {servers} do not answer"

    def _not_founded(self) -> str:
        since = self._out_of_reach_since
        if since is not None and self._out.now - since < LEADERLESS:
            return ""
        return (
            f"the store is not founded yet: all of {', '.join(self._settings.servers)} must have been up together once"
        )

    def _serve_own(self, asked: Asked) -> None:
        assert self._server is not None
        me = self._out.node
        self._serve(self._server, me, asked, lambda answered: self._router.answered(me, answered))

    def _serve(self, server: Server, asker: NodeId, asked: Asked, answer: Answer) -> None:
        request = asked.request
        if isinstance(request, ReadKeys) and not _is_linearizable(request, server.age):
            server.read_here(request, answer, asked.seq)
        elif isinstance(request, ReadKeys) and not server.leads:  # a bounded read, and what is here is too old
            self._pass_on(server, asker, asked, answer)
        else:
            server.ask(asker, asked, answer)

    # ---- becoming a server, and ceasing to be one

    def _carry_out(self) -> None:
        """What the founding of the group asks for."""
        duties = self._founding.take()
        for write in duties.writes:
            self._write(write)
        for path, message in duties.messages:
            self._say(path, message)
        for happened in duties.happened:
            if isinstance(happened, Joined):
                self._out.notify(GroupJoined(happened.group.uuid.hex(), happened.group.epoch))
            elif isinstance(happened, Founded):
                self._run(Found.of_founding(happened.configuration))
            elif isinstance(happened, Admitted):
                self._run(None)
            elif isinstance(happened, Expelled):
                self._end_server()
        if duties.happened and self._server is None:
            self._choose()
        if self._founding.problem != self._problem_told:
            self._problem_told = self._founding.problem
            self._out.notify(StoreTroubled(self._problem_told))

    def _write(self, write: Write) -> None:
        records = write.records
        if write.drops_store:
            kept = {record.key for record in records}
            records += tuple(StoredRecord(key, None) for key in self._left_behind if key not in kept)
            self._left_behind = ()

        def stored() -> None:
            self._founding.stored(write.ticket)
            self._carry_out()

        def failed(reason: str) -> None:
            self._founding.store_failed(write.ticket, reason)
            self._carry_out()

        self._out.store(records, sync=True, then=stored, failed=failed)

    def _mark_diverged(self) -> None:
        """Keep on the disk that what is there is wrong; until that is durable, tried again each second."""
        server = self._server
        if server is None or not server.audit.problem or server.audit.is_marked:
            return

        def stored() -> None:
            server.audit.is_marked = True

        self._out.store((StoredRecord(DIVERGED_KEY, server.audit.problem.encode()),), sync=True, then=stored)

    def _run(self, found: Found | None) -> None:
        group = self._founding.group
        assert group is not None
        self._server = server = Server(
            self._out,
            self._members,
            self._links,
            self._founding.server,
            group,
            found,
            self._streams,
            self._ask_disk,
            Timing(),
            self._settings.feature_level,
        )
        self._diverged = ""
        server.reconfigured = self._reconfigured
        server.settled = self._router.retry_now
        server.ended = self._server_ended
        self._near.stop()
        self._want_links()
        server.start()

    def _server_ended(self, problem: str) -> None:
        self._out.notify(StoreTroubled(problem))
        self._mark_diverged()

    def _end_server(self) -> None:
        server, self._server = self._server, None
        self._diverged = ""
        self._out_of_reach_since = self._out.now
        if server is not None:
            self._left_behind = server.end()

    def _reconfigured(self, index: int, configuration: Configuration) -> None:
        server = self._server
        assert server is not None
        members = configuration.voters + configuration.outgoing + configuration.learners
        self._news.tell(server.group, index, tuple(sorted(dict.fromkeys(members))))
        self._founding.configured(configuration, index, leads=server.leads)
        self._want_links()
        self._carry_out()

    # ---- who is near

    def _tick(self, _timer: StoreTick) -> None:
        self._out.arm(self._out.now + TICK_PERIOD, StoreTick())
        self._founding.leader = self._leader()
        if self._founding.wants_tick:
            near = sorted(self._members, key=lambda member: (self._distance(member.node.datacenter), member.path))
            self._founding.tick(self._out.now, [member.path for member in near if member.is_living])
        self._carry_out()
        if self._server is None:
            self._choose()
        else:
            self._want_links()
            self._server.tick(self._quorum_rtt())
            self._mark_diverged()
        self._passing.sweep()

    def _want_links(self) -> None:
        """Servers hold links to each other; who has no log yet, to those of whom it heard."""
        servers = () if self._server is None else self._server.servers()
        self._links.want({one.path: None for one in servers or self._founding.members}, mutual=True)

    def _choose(self) -> None:
        """Who is no server holds a link to the nearest one that lives; who is to found the group, to all it founds it with."""
        if self._founding.is_forming:
            self._links.want(dict.fromkeys(self._settings.servers), mutual=True)
            return
        alive = [path for path in self._nearest() if (member := self._members.get(path)) and member.is_living]
        open_ = next((path for path in alive if self._links.is_open(path)), None)
        if open_ is not None:
            self._out_of_reach_since = None
        elif self._out_of_reach_since is None:
            self._out_of_reach_since = self._out.now
        if self._founding.group is not None:
            self._near.follow(self._founding.group, [path for path in alive if self._links.is_open(path)])
        is_nearest = open_ == next(iter(alive), None)
        wanted = dict.fromkeys(alive[:1] if is_nearest else [*alive[:2], *([open_] if open_ else [])])
        self._links.want(wanted, mutual=False)

    def _nearest(self) -> list[Path]:
        """Servers, the nearest first, those that could not help last; who is as near as another is chosen by rendezvous
        hash, so that load spreads."""
        self._shunned = {path: until for path, until in self._shunned.items() if until > self._out.now}
        paths = dict.fromkeys(server.path for server in self._founding.members if server.path != self._path)
        return sorted(
            paths,
            key=lambda path: (
                path in self._shunned,
                self._distance(path.partition("/")[0]),
                fingerprint(f"{self._path}>{path}"),
            ),
        )

    def _rtt_to(self, server: Path) -> int:
        datacenter = server.partition("/")[0]
        return 0 if datacenter == self._settings.node.datacenter else self._rtt(datacenter) or 0

    def _distance(self, datacenter: str) -> int:
        if datacenter == self._settings.node.datacenter:
            return 0
        rtt = self._rtt(datacenter)
        return UNKNOWN_RTT if rtt is None else rtt

    def _quorum_rtt(self) -> int:
        """What this server would wait for a majority, nanoseconds."""
        assert self._server is not None
        voters = self._server.replica.raft.configuration.voters
        rtts = sorted(self._distance(server.path.partition("/")[0]) for server in voters)
        return rtts[len(rtts) // 2] if rtts else 0

    def _ask_disk(self, path: Path) -> bool:
        """Ask an agent which disk it has; False: nobody knows it."""
        if self._members.get(path) is None:
            return False
        self._say(path, self._founding.question())
        return True

    def _say(self, path: Path, message: GroupAsked | GroupTold) -> None:
        """By datagram; what is too long for one (many servers with long names) on the link, where there is one."""
        member = self._members.get(path)
        if member is None:
            return
        if isinstance(message, GroupTold):
            message = self._with_level(message)
        if len(encode_envelope(self._out.node, message)) > DATAGRAM_BUDGET:
            node = self._links.node(path)
            if node is not None:
                self._out.send_message(node, message)
            return
        is_home = member.node.datacenter == self._settings.node.datacenter
        self._out.send_facts(member.record.gossip if is_home else member.record.wan_gossip, message, ())

    def _with_level(self, told: GroupTold) -> GroupTold:
        return replace(told, level=self._settings.feature_level)

    def _server_timer(self, timer: Timer) -> None:
        if self._server is not None:
            self._server.time_reached(timer)

    # ---- snapshots for the edge

    def _leader(self) -> Path | None:
        if self._server is not None and not self._server.problem:
            return None if self._server.leader is None else self._server.leader.path
        return self._near.leader

    @property
    def view(self) -> StoreView:
        server, founding = self._server, self._founding
        group = founding.group
        raft = None if server is None else server.replica.raft
        revision, as_of = self._near.newest
        return StoreView(
            group="" if group is None else group.uuid.hex(),
            epoch=0 if group is None else group.epoch,
            role=self._role(),
            leader=self._leader(),
            term=0 if raft is None else raft.term,
            revision=revision if server is None else server.revision,
            index=0 if server is None else server.replica.machine.index,
            as_of=as_of if server is None else self._out.now - server.age,
            servers=self._server_views(),
            problem=self._standing_problem(),
            followed=() if server is not None else self._near.prefixes,
        )

    def _role(self) -> str:
        server = self._server
        if server is None:
            return "failed" if self._diverged else "forming" if self._founding.is_forming else "agent"
        return "failed" if server.problem else server.role

    def _standing_problem(self) -> str:
        if self._server is not None:
            return self._server.why_not_now() or self._server.no_space() or self._founding.problem
        return self._diverged or self._founding.problem

    def _server_views(self) -> tuple[ServerView, ...]:
        if self._server is not None:
            return self._server.views()
        return tuple(
            ServerView(
                path=member.path,
                disk=f"{member.disk:016x}",
                role="voter",
                is_leader=member.path == self._near.leader,
                linked=self._links.is_open(member.path),
            )
            for member in self._founding.members
        )


UNKNOWN_RTT = 3_600 * SECOND
_LIMIT = 1 << 61  # of numbers that others say


def _is_for_any(request: StoreAsk) -> bool:
    """Whether any server, not only the leader, takes it on."""
    return isinstance(request, WatchKeys) or (
        isinstance(request, ReadKeys) and request.consistency is not Consistency.LINEARIZABLE
    )


def _is_linearizable(request: ReadKeys, age: int) -> bool:
    """Whether the answer takes a quorum: what is here is too old for it."""
    if request.consistency is Consistency.BOUNDED:
        return age > request.max_age
    return request.consistency is Consistency.LINEARIZABLE


def _is_plausible(asked: Asked) -> bool:
    """Whether an agent asks that of a server: numbers within bounds, a backup and a restore in parts."""
    if not 0 < asked.seq < _LIMIT or not 0 <= asked.floor < _LIMIT:
        return False
    match asked.request:
        case RestoreChunk(restore=restore, chunk=chunk, chunks=chunks, data=data):
            return 0 <= chunk < chunks < _LIMIT and 0 <= restore < 2 * _LIMIT and len(data) <= SNAPSHOT_CHUNK
        case BackupPart(part=part):
            return 0 <= part < _LIMIT
        case Restore() | BackUp():
            return False
    return True


def _for(answered: Answered, asker: NodeId) -> Answered:
    return Answered(answered.seq, answered.result, answered.leader, answered.reason, doubt=answered.doubt, asker=asker)
