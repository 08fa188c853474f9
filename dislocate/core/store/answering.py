"""Answering: what other agents ask of this one's store, and the answers that come back to it.

A server answers itself or passes on to the leader, once; whoever is no server says so.  What comes back is for this agent's
own askings (`router`) or for those that it passed on (`passing`).

Invariant: what is heard outside of a link, or is no asking that an agent makes, changes nothing.
"""

from collections.abc import Callable

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.store import ReadKeys
from dislocate.core.catalog.validation import refused
from dislocate.core.errors import LocalError
from dislocate.core.identity import Address, NodeId
from dislocate.core.outbox import Outbox
from dislocate.core.store.asks import addressed, is_for_any, is_linearizable, is_plausible
from dislocate.core.store.commands import RestoreChunk
from dislocate.core.store.messages import (
    Answered,
    AnsweredTogether,
    Asked,
    AskedTogether,
    AskingEnded,
    BackupPart,
    Follow,
    Unfollow,
)
from dislocate.core.store.passing import Answer, Passing
from dislocate.core.store.router import Router
from dislocate.core.store.server import Server
from dislocate.core.store.serverlinks import ServerLinks
from dislocate.core.store.together import Together
from dislocate.core.store.validation import check_request


class Answering:
    """What one agent does for others."""

    def __init__(
        self, out: Outbox, links: ServerLinks, together: Together, router: Router, server: Callable[[], Server | None]
    ) -> None:
        self._out = out
        self._links = links
        self._together = together
        self._router = router
        self._server = server  # that this agent is, now
        self.passing = Passing(out, together.ask)

    # ---- what others ask

    def on_asked_together(self, sender: NodeId, source: Address | None, together: AskedTogether) -> None:
        for asked in together.asked:
            self.on_asked(sender, source, asked)

    def on_asked(self, sender: NodeId, source: Address | None, asked: Asked) -> None:
        """Another agent wants something: answer it, or pass it on to the leader, once."""
        if source is not None or not is_plausible(asked):
            self._out.drop(sender.path, "an asking that no agent makes")
            return
        asker = asked.asker or sender
        self._links.claim(sender)

        def answer(answered: Answered) -> None:
            if self._links.node(sender.path) == sender:
                reply = answered if asked.asker is None else addressed(answered, asker)
                self._together.answer(sender, reply)

        if not isinstance(asked.request, RestoreChunk | BackupPart):
            try:
                check_request(asked.request)
            except LocalError as error:
                answer(Answered(asked.seq, refused(error), unlogged=True))
                return
        server = self._server()
        if server is None or server.problem:
            answer(Answered(asked.seq, None, reason=f"{self._out.node.path} serves nothing now", elsewhere=True))
        elif is_for_any(asked.request) or server.leads:
            self._serve(server, asker, asked, answer)
        else:
            self._pass_on(server, asker, asked, answer)

    def on_asking_ended(self, sender: NodeId, source: Address | None, ended: AskingEnded) -> None:
        if source is None:
            self.asking_ended(sender, ended.seq)

    def asking_ended(self, asker: NodeId, seq: int) -> None:
        server = self._server()
        if server is not None:
            server.asking_ended(asker, seq)

    def serve_own(self, asked: Asked) -> None:
        """This agent's own asking, which the server here takes on."""
        server = self._server()
        assert server is not None
        me = self._out.node
        self._serve(server, me, asked, lambda answered: self._router.answered(me, answered))

    def _serve(self, server: Server, asker: NodeId, asked: Asked, answer: Answer) -> None:
        request = asked.request
        if isinstance(request, ReadKeys) and not is_linearizable(request, server.age):
            server.read_here(request, answer, asked.seq)
        elif isinstance(request, ReadKeys) and not server.leads:  # a bounded read, and what is here is too old
            self._pass_on(server, asker, asked, answer)
        else:
            server.ask(asker, asked, answer)

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
            self.passing.pass_on(node, asker, asked, answer)

    # ---- what others answer

    def on_answered_together(self, sender: NodeId, source: Address | None, together: AnsweredTogether) -> None:
        for answered in together.answered:
            self.on_answered(sender, source, answered)

    def on_answered(self, sender: NodeId, source: Address | None, answered: Answered) -> None:
        if source is not None:
            return
        asker = answered.asker
        if asker is not None:
            self.passing.answered(sender, asker, answered)
            return
        self._router.answered(sender, answered)

    # ---- who follows

    def on_follow(self, sender: NodeId, source: Address | None, body: Follow) -> None:
        server = self._server()
        if source is None and server is not None and body.group == server.group:
            server.telling.follow(sender, body)

    def on_unfollow(self, sender: NodeId, source: Address | None, body: Unfollow) -> None:
        server = self._server()
        if server is not None:
            server.telling.unfollow(sender, body)
