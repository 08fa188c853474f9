"""The store's part of an agent: whether it is a server or not, it takes requests and gets them answered.

It belongs to a group (`belonging`), holds links to servers (`serverlinks`), sends requests there (`whom`, `router`) and, where
this agent is a server, runs it (`server`) and answers others (`answering`).  What other agents keep of the state is `near`'s
business; what the node's other parts see of it all is its `face`.

Invariant: who belongs to another group, or means another disk, is not listened to.
"""

from collections.abc import Callable
from typing import Any

from dislocate.core.boundary.events import StoreTroubled
from dislocate.core.boundary.inputs import ConnectTried
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.store import (
    BackUp,
    Consistency,
    KeysRead,
    ReadKeys,
    Restore,
    StoreRequest,
    StoreView,
)
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.catalog.ledger import Ledger
from dislocate.core.consensus.bootstrap import Founding
from dislocate.core.consensus.duties import Timing
from dislocate.core.consensus.messages import Configuration, Consensus
from dislocate.core.consensus.promises import DIVERGED_KEY, is_of_store
from dislocate.core.consensus.wellformed import fault
from dislocate.core.errors import Bug
from dislocate.core.identity import Address, NodeId, Path
from dislocate.core.membership.members import Member, Members
from dislocate.core.outbox import Outbox, Timer
from dislocate.core.store.answering import Answering
from dislocate.core.store.belonging import Belonging
from dislocate.core.store.copying import Copying
from dislocate.core.store.distances import Distances
from dislocate.core.store.durable import Found, find
from dislocate.core.store.face import StoreFace
from dislocate.core.store.messages import (
    GroupAsked,
    GroupTold,
    StateTold,
    StoreGroup,
)
from dislocate.core.store.near import Near
from dislocate.core.store.router import Router
from dislocate.core.store.server import SERVER_TIMERS, Server
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.store.standing import leader_of, view
from dislocate.core.store.together import Together
from dislocate.core.store.whom import Whom
from dislocate.core.streams import Streams
from dislocate.core.units import SECOND

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
        is_reachable: Callable[[str], bool],
    ) -> None:
        self._settings = settings
        self._path = settings.node.path
        self._streams = streams
        self._out = out
        self._members = members
        self._records = tuple(record for record in recovered.records if is_of_store(record.key))
        self._diverged = ""  # what is on the disk is wrong, and never served again: why
        self._founding = Founding(self._path, settings.servers, streams["disk"].bits(63), recovered.records)
        self._links = ServerLinks(self._path, out, members, streams["store links"])
        self._distances = Distances(self._path, out, members, self._founding, rtt, is_reachable)
        self._belonging = Belonging(settings, out, members, ledger, self._links, self._founding)
        self._belonging.enrolled = self._run
        self._belonging.expelled = self._end_server
        self._belonging.moved = self._group_moved
        self._together = Together(out)
        self._near = Near(out, self._links, recovered, self._distances.rtt)
        self._server: Server | None = None
        self._router = Router(out)
        self._whom = Whom(settings, out, self._links, self._founding, self._distances, self._near, lambda: self._server)
        self._answering = Answering(out, self._links, self._together, self._router, lambda: self._server)
        self._router.send = self._together.ask
        self._router.target = self._whom.target
        self._router.problem = self._whom.problem
        self._router.serve = self._answering.serve_own
        self._router.ended = self._answering.asking_ended
        self._router.turned_away = self._shun
        self._copying = Copying(out, self._router)
        self._face = StoreFace(self._router, self._near, lambda: self._server)

    def timers(self) -> dict[type, Callable[[Any], None]]:
        return {
            **self._router.timers(),
            **self._together.timers(),
            **self._links.timers(),
            **self._near.timers(),
            **dict.fromkeys(SERVER_TIMERS, self._server_timer),
            StoreTick: self._tick,
        }

    def start(self) -> None:
        self._whom.out_of_reach_since = self._out.now
        self._belonging.restore()
        self._near.start()
        records, self._records = self._records, ()
        mark = next((record for record in records if record.key == DIVERGED_KEY), None)
        if self._founding.is_member and mark is None:
            self._run(find(records))
        else:
            self._belonging.left_behind = tuple(record.key for record in records)
            self._diverged = "" if mark is None or not self._founding.is_member else (mark.value or b"").decode()
        self._belonging.carry_out()
        if self._diverged:
            self._out.notify(StoreTroubled(self._diverged))
        if self._settings.servers or self._founding.group is not None:
            self._tick(StoreTick())

    @property
    def belonging(self) -> Belonging:
        """This agent's ties to the group: what is gossiped and repaired of it."""
        return self._belonging

    # ---- what others say

    def on_group(self, sender: NodeId, fact: StoreGroup, repaired: bool) -> bool:
        news = self._belonging.on_group(sender, fact, repaired)
        if news and self._server is None:
            self._choose()
        return news

    def on_group_asked(self, sender: NodeId, source: Address | None, asked: GroupAsked) -> None:
        self._belonging.asked(sender, source, asked)

    def on_group_told(self, sender: NodeId, source: Address | None, told: GroupTold) -> None:
        if self._belonging.told(sender, told) and self._server is not None:
            self._server.told(sender.path, told)

    def on_consensus(self, sender: NodeId, source: Address | None, message: Consensus) -> None:
        if source is not None or message.origin.path != sender.path:
            self._out.drop(sender.path, "a message of consensus that is not from where it says")
            return
        if words := fault(message):
            self._out.drop(sender.path, f"a message of consensus in which {words}")
            return
        wanted = self._founding.consensus(sender, message)
        self._belonging.carry_out()
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

    @property
    def answering(self) -> Answering:
        """What this agent does for others."""
        return self._answering

    @property
    def face(self) -> StoreFace:
        """What the node's other parts see of the store."""
        return self._face

    @property
    def near(self) -> Near:
        """What this agent holds without being a server."""
        return self._near

    # ---- links and members

    def link_opened(self, peer: NodeId) -> None:
        before = self._links.node(peer.path)
        if before is not None and before != peer:
            self.link_lost(before)
        self._links.opened(peer)
        if self._server is not None:
            self._server.link_opened(peer.path)
        elif self._is_server(peer.path):
            self._whom.out_of_reach_since = None
            self._out.send_message(peer, self._founding.question())
        self._router.retry_now()

    def link_lost(self, peer: NodeId) -> None:
        if not self._links.lost(peer):
            return
        self._together.lost(peer)
        self._answering.passing.lost(peer)
        if self._server is not None:
            self._server.peer_gone(peer.path)
            self._server.link_lost(peer.path)
        else:
            self._near.link_lost(peer.path)
            self._choose()
        self._router.link_lost(peer)

    def send_failed(self, peer: NodeId) -> None:
        """Something sent on the link did not arrive, and nobody knows what.  Servers know how to go on; any other link is
        ended, so that whoever waits there for an answer asks again, and what is followed there is followed anew."""
        if self._links.node(peer.path) != peer:
            return
        if self._server is not None and self._is_server(peer.path):
            self._server.send_failed(peer.path)
            self._answering.passing.lost(peer)
            self._router.link_lost(peer)
        elif self._router.sent_to(peer) or self._is_needed_there(peer.path):
            self._out.reset_link(peer)

    def _is_needed_there(self, path: Path) -> bool:
        """Whether something that is no request hangs on the link to `path`: what is followed, or whoever waits for news."""
        return self._is_server(path) if self._server is None else self._server.waiting.holds(path)

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

    def _shun(self, server: NodeId) -> None:
        if self._distances.shun(server.path) and self._server is None:
            self._choose()

    # ---- becoming a server, and ceasing to be one

    def _group_moved(self) -> None:
        if self._server is None:
            self._choose()

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
            self._belonging.ask_disk,
            Timing(),
            self._settings.feature_level,
        )
        self._diverged = ""
        server.reconfigured = self._reconfigured
        server.settled = self._router.retry_now
        server.ended = self._server_ended
        server.told_changes = self._face.tell
        self._near.stop()
        self._want_links()
        server.start()

    def _server_ended(self, problem: str) -> None:
        self._out.notify(StoreTroubled(problem))
        self._mark_diverged()

    def _end_server(self) -> None:
        server, self._server = self._server, None
        self._diverged = ""
        self._whom.out_of_reach_since = self._out.now
        if server is not None:
            self._belonging.left_behind = server.end()

    def _reconfigured(self, index: int, configuration: Configuration) -> None:
        server = self._server
        assert server is not None
        self._belonging.applied(server.group, index, configuration, leads=server.leads)
        self._want_links()

    # ---- who is near

    def _tick(self, _timer: StoreTick) -> None:
        self._out.arm(self._out.now + TICK_PERIOD, StoreTick())
        self._founding.leader = leader_of(self._server, self._near)
        if self._founding.wants_tick:
            self._founding.tick(self._out.now, self._distances.living_agents())
        self._belonging.carry_out()
        if self._server is None:
            self._choose()
        else:
            self._want_links()
            voters = self._server.replica.raft.configuration.voters
            self._server.tick(self._distances.to_majority(voters))
            self._mark_diverged()
        self._answering.passing.sweep()

    def _want_links(self) -> None:
        """Servers hold links to each other; who has no log yet, to those of whom it heard."""
        servers = () if self._server is None else self._server.servers()
        self._links.want({one.path: None for one in servers or self._founding.members}, mutual=True)

    def _choose(self) -> None:
        """Who is no server holds a link to the nearest one that lives; who is to found the group, to all it founds it with."""
        if self._founding.is_forming:
            self._links.want(dict.fromkeys(self._settings.servers), mutual=True)
            return
        alive = self._distances.living_servers()
        open_ = next((path for path in alive if self._links.is_open(path)), None)
        if open_ is not None:
            self._whom.out_of_reach_since = None
        elif self._whom.out_of_reach_since is None:
            self._whom.out_of_reach_since = self._out.now
        if self._founding.group is not None:
            self._near.follow(self._founding.group, [path for path in alive if self._links.is_open(path)])
        is_nearest = open_ == next(iter(alive), None)
        wanted = dict.fromkeys(alive[:1] if is_nearest else [*alive[:2], *([open_] if open_ else [])])
        self._links.want(wanted, mutual=False)

    def _server_timer(self, timer: Timer) -> None:
        if self._server is not None:
            self._server.time_reached(timer)

    # ---- snapshots for the edge

    @property
    def view(self) -> StoreView:
        unled, trouble = self._whom.unled(), self._distances.trouble
        return view(
            self._founding,
            self._server,
            self._near,
            self._links,
            self._belonging.disks,
            trouble,
            self._diverged,
            unled,
            self._out.now,
        )
