"""The store's part of an agent: whether it is a server or not, it takes requests and gets them answered.

It knows the group (`consensus.bootstrap`, and by gossip `group`), holds the links (`serverlinks`), routes (`router`), and
where this agent is a server runs it (`server`).  What agents that are no servers keep of the state is `following`'s business.

Invariant: who belongs to another group, or means another disk, is not listened to.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.events import GroupJoined, StoreTroubled
from dislocate.core.boundary.inputs import ConnectTried
from dislocate.core.boundary.requests import Done, Refused, Result
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.store import (
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
from dislocate.core.consensus.promises import is_of_store
from dislocate.core.errors import LocalError
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.backup import check_group, read_header, restore_chunks
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.durable import Found, find
from dislocate.core.store.group import GroupNews
from dislocate.core.store.messages import (
    Answered,
    Asked,
    AskingEnded,
    Follow,
    GroupAsked,
    GroupTold,
    StoreGroup,
    Unfollow,
)
from dislocate.core.store.near import Near
from dislocate.core.store.router import Router
from dislocate.core.store.server import SERVER_TIMERS, Server
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.streams import Streams
from dislocate.core.tunables import LEADERLESS
from dislocate.core.units import SECOND
from dislocate.core.wire import Fact

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
        self._founding = Founding(self._path, settings.servers, streams["disk"].bits(63), recovered.records)
        self._news = GroupNews(out, ledger, self._founding)
        self._links = ServerLinks(self._path, out, members, streams["store links"])
        self._router = Router(out)
        self._router.target = self._target
        self._router.problem = self._problem
        self._router.serve = self._serve_own
        self._router.ended = self._asking_ended
        self._near = Near(out, self._links, recovered, self._rtt_to)
        self._server: Server | None = None
        self._serverless_since = 0
        self._problem_told = ""
        self._passed_on: dict[tuple[NodeId, int], NodeId] = {}  # (asker, seq) -> its server, for `AskingEnded`

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {
            **self._router.timers(),
            **self._links.timers(),
            **self._near.timers(),
            **dict.fromkeys(SERVER_TIMERS, self._server_timer),
            StoreTick: self._tick,
        }

    def start(self) -> None:
        self._serverless_since = self._out.now
        self._news.restore()
        self._near.start()
        records, self._records = self._records, ()
        if self._founding.is_member:
            self._run(find(records))
        else:
            self._left_behind = tuple(record.key for record in records)
        self._carry_out()
        if self._settings.servers or self._founding.group is not None:
            self._tick(StoreTick())

    def group_facts(self, path: Path) -> list[Fact]:
        """What repair tells of the group."""
        return self._news.facts_of(path)

    # ---- what others say

    def on_group(self, sender: NodeId, fact: StoreGroup, repaired: bool) -> bool:
        news = self._news.on_fact(sender, fact, repaired)
        self._carry_out()
        if news and self._server is None:
            self._choose()
        return news

    def on_group_asked(self, sender: NodeId, source: Address | None, asked: GroupAsked) -> None:
        self._say(sender.path, self._founding.asked(sender, asked))
        self._carry_out()

    def on_group_told(self, sender: NodeId, source: Address | None, told: GroupTold) -> None:
        self._founding.told(sender, told)
        is_ours = told.group is None or told.group == self._founding.group  # else its disk is about to be another one
        if self._server is not None and told.disk and is_ours:
            self._server.changing.disks[sender.path] = told.disk
            self._server.changing.look()
        self._carry_out()

    def on_consensus(self, sender: NodeId, source: Address | None, message: Consensus) -> None:
        if source is not None or message.origin.path != sender.path:
            self._out.drop(sender.path, "a message of consensus that is not from where it says")
            return
        self._out.claim_link(sender, "store")
        wanted = self._founding.consensus(sender, message)
        self._carry_out()
        if wanted and self._server is not None:
            self._server.receive(message)

    def on_asked(self, sender: NodeId, source: Address | None, asked: Asked) -> None:
        """Another agent wants something: answer it, or pass it on to the leader, once."""
        if source is not None:
            return
        asker = asked.asker or sender

        def answer(answered: Answered) -> None:
            node = self._links.node(sender.path)
            if node == sender:
                reply = answered if asked.asker is None else _for(answered, asker)
                self._out.send_message(sender, reply)

        server = self._server
        if server is None:
            answer(Answered(asked.seq, None, reason=f"{self._path} is no server"))
        elif _is_for_any(asked.request) or server.leads:
            self._serve(server, asker, asked, answer)
        else:
            self._pass_on(server, asker, asked, answer)

    def _pass_on(self, server: Server, asker: NodeId, asked: Asked, answer: Callable[[Answered], None]) -> None:
        leader = server.leader
        node = None if leader is None else self._links.node(leader.path)
        problem = server.why_not_now()
        if problem:
            answer(Answered(asked.seq, Refused("unavailable", "store", problem)))
        elif node is None or asked.asker is not None:
            path = None if leader is None else leader.path
            answer(Answered(asked.seq, None, path, "no leader" if path is None else f"{path} leads"))
        else:
            self._passed_on[(asker, asked.seq)] = node
            self._out.send_message(node, Asked(asked.seq, asked.floor, asked.request, asker))

    def on_answered(self, sender: NodeId, source: Address | None, answered: Answered) -> None:
        if source is not None:
            return
        asker = answered.asker
        if asker is None or asker == self._out.node:
            self._router.answered(answered)
            return
        self._passed_on.pop((asker, answered.seq), None)
        node = self._links.node(asker.path)
        if node == asker:
            self._out.send_message(node, answered)

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
        self._asking_ended(sender, ended.seq)

    def _asking_ended(self, asker: NodeId, seq: int) -> None:
        if self._server is not None:
            self._server.asking_ended(asker, seq)

    # ---- links and members

    def link_opened(self, peer: NodeId) -> None:
        self._links.opened(peer)
        if self._server is not None:
            self._server.link_opened(peer.path)
        self._router.retry_now()

    def link_lost(self, peer: NodeId) -> None:
        if not self._links.lost(peer):
            return
        for (asker, seq), node in list(self._passed_on.items()):
            if node == peer:
                del self._passed_on[(asker, seq)]
                back = self._links.node(asker.path)
                if back is not None:
                    lost = Answered(seq, None, reason="the link to the leader ended", doubt=True)
                    self._out.send_message(back, lost)
        if self._server is not None:
            self._server.peer_gone(peer.path)
            self._server.link_lost(peer.path)
        else:
            self._near.link_lost(peer.path)
            self._choose()
        self._router.link_lost(peer)

    def send_failed(self, peer: NodeId) -> None:
        """Something sent on the link did not arrive: what was streamed there has a gap."""
        if self._server is not None:
            self._server.send_failed(peer.path)
        self._router.link_lost(peer)

    def connect_tried(self, tried: ConnectTried) -> bool:
        """Whether it was this part that tried."""
        return self._server is not None and self._server.connect_tried(tried)

    def member_changed(self, member: Member, _before: object) -> None:
        self._links.member_changed(member)

    def stalled(self, gap: int) -> None:
        if self._server is not None:
            self._server.stalled(gap)

    # ---- requests of this host

    def request(self, request_id: int, request: StoreRequest) -> None:
        if isinstance(request, Restore):
            self._restore(request_id, request)
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

    def _restore(self, request_id: int, request: Restore) -> None:
        """In parts, each of which waits for the one before; nothing shows before the last one."""
        try:
            chunks = deque(restore_chunks(request.data, self._streams["restore"].bits(62)))
            if not request.force and self._founding.group is not None:
                check_group(read_header(request.data), self._founding.group)
        except LocalError as error:
            self._out.reply(request_id, refused(error))
            return

        def go_on(result: Result) -> None:
            if isinstance(result, Done) and chunks:
                self._router.ask(chunks.popleft(), go_on)
            else:
                self._out.reply(request_id, result)

        self._router.ask(chunks.popleft(), go_on)

    def cancel(self, request_id: int) -> None:
        self._router.cancel(request_id)

    def _target(self, request: StoreRequest | RestoreChunk) -> NodeId | None:
        """Who can answer `request` now."""
        server = self._server
        if server is None or server.problem:
            return next((node for path in self._nearest() if (node := self._links.node(path)) is not None), None)
        if _is_for_any(request) or server.leads:
            return self._out.node
        return None if server.leader is None else self._links.node(server.leader.path)

    def _problem(self, request: StoreRequest | RestoreChunk) -> str:
        """Why nobody will answer for a while; empty: somebody may in a moment."""
        if self._founding.group is None:
            return self._founding.problem or (NO_STORE if not self._settings.servers else self._not_founded())
        if self._server is not None and not self._server.problem:
            return self._server.why_not_now()
        if self._out.now - self._serverless_since < LEADERLESS:
            return ""
        servers = ", ".join(dict.fromkeys(member.path for member in self._founding.members))
        return f"no server of the store can be reached from {self._path}: {servers} do not answer"

    def _not_founded(self) -> str:
        if self._out.now - self._serverless_since < LEADERLESS:
            return ""
        return (
            f"the store is not founded yet: all of {', '.join(self._settings.servers)} must have been up together once"
        )

    def _serve_own(self, asked: Asked) -> None:
        assert self._server is not None
        self._serve(self._server, self._out.node, asked, self._router.answered)

    def _serve(self, server: Server, asker: NodeId, asked: Asked, answer: Callable[[Answered], None]) -> None:
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
        )
        server.reconfigured = self._reconfigured
        server.settled = self._router.retry_now
        server.ended = lambda problem: self._out.notify(StoreTroubled(problem))
        self._near.stop()
        self._want_links()
        server.start()

    def _end_server(self) -> None:
        server, self._server = self._server, None
        self._serverless_since = self._out.now
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
            self._server.place(self._quorum_rtt())

    def _want_links(self) -> None:
        """Servers hold links to each other."""
        paths = self._founding.members if self._server is None else self._server.servers()
        self._links.want({server.path: None for server in paths}, mutual=True)

    def _choose(self) -> None:
        """Who is no server holds a link to the nearest one that lives."""
        alive = [path for path in self._nearest() if (member := self._members.get(path)) and member.is_living]
        open_ = next((path for path in alive if self._links.is_open(path)), None)
        if open_ is None:
            self._serverless_since = min(self._serverless_since or self._out.now, self._out.now)
        if self._founding.group is not None:
            self._near.follow(self._founding.group, [path for path in alive if self._links.is_open(path)])
        wanted = dict.fromkeys(
            alive[:1] if open_ == next(iter(alive), None) else [*alive[:2], *([open_] if open_ else [])]
        )
        self._links.want(wanted, mutual=False)

    def _nearest(self) -> list[Path]:
        """Servers, the nearest first; who is as near as another is chosen by rendezvous hash, so that load spreads."""
        paths = dict.fromkeys(server.path for server in self._founding.members if server.path != self._path)
        return sorted(
            paths,
            key=lambda path: (self._distance(path.partition("/")[0]), fingerprint(f"{self._path}>{path}")),
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
        member = self._members.get(path)
        if member is None:
            return
        is_home = member.node.datacenter == self._settings.node.datacenter
        self._out.send_facts(member.record.gossip if is_home else member.record.wan_gossip, message, ())

    def _server_timer(self, timer: Timer) -> None:
        if self._server is not None:
            self._server.time_reached(timer)

    # ---- snapshots for the edge

    def _leader(self) -> Path | None:
        if self._server is not None:
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
            return "forming" if self._founding.is_forming else "agent"
        return "failed" if server.problem else server.role

    def _standing_problem(self) -> str:
        if self._server is not None:
            return self._server.why_not_now() or self._founding.problem
        return self._founding.problem

    def _server_views(self) -> tuple[ServerView, ...]:
        if self._server is not None:
            return self._server.views()
        return tuple(
            ServerView(
                path=member.path, disk=f"{member.disk:016x}", role="voter", is_leader=member.path == self._near.leader
            )
            for member in self._founding.members
        )


UNKNOWN_RTT = 3_600 * SECOND


def _is_for_any(request: StoreRequest | RestoreChunk) -> bool:
    """Whether any server, not only the leader, takes it on."""
    return isinstance(request, WatchKeys) or (
        isinstance(request, ReadKeys) and request.consistency is not Consistency.LINEARIZABLE
    )


def _is_linearizable(request: ReadKeys, age: int) -> bool:
    """Whether the answer takes a quorum: what is here is too old for it."""
    if request.consistency is Consistency.BOUNDED:
        return age > request.max_age
    return request.consistency is Consistency.LINEARIZABLE


def _for(answered: Answered, asker: NodeId) -> Answered:
    return Answered(answered.seq, answered.result, answered.leader, answered.reason, doubt=answered.doubt, asker=asker)
