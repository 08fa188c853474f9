"""Keeping one instance known: registered, alive by a sign of life each second, and with its load.

Signs of life go by datagram where the agent's socket is at hand, else over HTTP.  An agent that does not answer is asked
again for as long as the process lives; one that does not know the instance (its disk was replaced) is told of it anew.
One that refuses it at the start is believed, since asking again would change nothing: the start fails; a refusal that comes
later is logged as an error.  Nothing here blocks the hub, monkey-patched or not.

A process that an agent runs (resource or driver `process`) is registered by that agent, which looks after its end as well:
here only its load is told then.

An instance that a killed process left behind, critical by its ttl, is removed by the next one of its service on this host.
"""

import http.client
import json
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
from gevent import socket as gsocket
from msgspec import Struct

from dislocate.client.connection import AgentConnection, NoAgent, Problem, UnixConnection, segment
from dislocate.client.meter import Reading
from dislocate.core.boundary.values import InstanceSpec
from dislocate.core.catalog.validation import check_instance
from dislocate.core.errors import DislocateError, LocalError
from dislocate.core.identity import check_service_name
from dislocate.core.units import parse_duration
from dislocate.strict import typed

log = logging.getLogger("dislocate.client")

BEAT = 1.0  # seconds between signs of life
TTL = "5s"  # four may be lost; a process that does not get to say it for so long does not serve either
ASK_WITHIN = 5.0  # seconds that the agent has for an answer
TIDY_EVERY = 60.0  # seconds between looks for instances of killed processes
MARK = "served"  # in `meta`: such an instance may be removed once its ttl is over

NOT_FOUND = 404
LATER = (408, 429)  # statuses of 4xx that may be otherwise when asked again

_ASKED_AS = {  # a field of a registration, as `Server` calls it
    "service": "name",
    "id": "instance_id",
    "check.interval": "check_interval",
    "check.timeout": "check_timeout",
    "check.http": "health",
}


class Instance(Struct, frozen=True, kw_only=True):
    """What is registered."""

    id: str
    service: str
    port: int
    address: str = ""  # empty: what the agent advertises
    tags: tuple[str, ...] = ()
    meta: dict[str, str] = {}
    weight: int = 1
    check: dict[str, str] = {}

    def body(self) -> dict[str, object]:
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "id"}
        return {**fields, "meta": {**self.meta, MARK: "ttl" if "ttl" in self.check else "http"}}

    def verify(self) -> None:
        """Raises `LocalError` for what every agent would refuse; its field as `Server` calls it."""
        try:
            check = {
                name: parse_duration(text, f"check.{name}") if name != "http" else text
                for name, text in self.check.items()
            }
            spec = typed({**self.body(), "id": self.id, "check": check}, InstanceSpec)
            check_service_name(spec.service, "name")  # before the id, which is made of it
            check_instance(spec)
        except LocalError as error:
            raise LocalError(_ASKED_AS.get(error.field, error.field), got=error.got, expected=error.expected) from None


class _CooperativeAgent(AgentConnection):
    """An agent's API through gevent's sockets."""

    def connection(self, timeout: float | None) -> http.client.HTTPConnection:
        made: Any = super().connection(timeout)
        if isinstance(made, UnixConnection):
            made.make_socket = gsocket.socket
        else:
            made._create_connection = gsocket.create_connection  # as http.client's own tests replace it
        return made  # type: ignore[no-any-return]  # Any, for what is set above


class _Datagrams:
    """The agent's datagram socket, and what it answers."""

    def __init__(self, path: Path, hear: Callable[[dict[str, Any]], None]) -> None:
        self._path = str(path)
        self._hear = hear
        self._socket = gsocket.socket(gsocket.AF_UNIX, gsocket.SOCK_DGRAM)
        self._socket.bind("")  # the kernel gives it a name, so it is answered
        self._reader = gevent.spawn(self._read)

    def say(self, op: str, instance_id: str, **fields: object) -> None:
        """Raises OSError where nobody listens."""
        self._socket.sendto(json.dumps({"op": op, "id": instance_id, **fields}).encode(), self._path)

    def close(self) -> None:
        self._reader.kill()
        self._socket.close()

    def _read(self) -> None:
        while True:
            try:
                self._hear(json.loads(self._socket.recv(1 << 16)))
            except ValueError:
                log.debug("the agent answered a datagram with no JSON")


class Registration:
    """One instance at one agent, from `start` to `end`; `read` gives its load."""

    def __init__(
        self, agent: AgentConnection, instance: Instance, read: Callable[[], Reading], *, is_agents: bool = False
    ) -> None:
        """`is_agents`: the agent that runs this process registers it."""
        self.instance = instance
        self.is_out = False  # the agent that runs this process has drained it and taken it out
        self._is_agents = is_agents
        self.is_known = False  # the agent has it, as far as it said
        self.problem = ""
        self._agent = _CooperativeAgent(agent.where, timeout=ASK_WITHIN)
        self._agent.headers = agent.headers
        self._read = read
        self._path = f"/api/instances/{segment(instance.id)}"
        self._datagrams: _Datagrams | None = None
        self._greenlets: list[gevent.Greenlet] = []

    def start(self) -> None:
        """Raises `Problem` where the agent refuses it.  One that does not answer is asked again from now on."""
        if self._is_agents:
            self._greenlets = [gevent.spawn(self._run)]
            return
        try:
            self._register()
        except Problem as problem:
            if _is_refusal(problem):
                raise
            self._say(problem)
        except (NoAgent, OSError) as error:
            self._say(error)
        self._greenlets = [gevent.spawn(self._run), gevent.spawn(self._tidy)]

    def drain(self, within: float, reason: str) -> bool:
        """Send callers elsewhere from now on; ends by itself after `within` seconds.  Whether the agent did it."""
        body = {"draining": True, "expires": f"{max(1, round(within * 1000))}ms", "reason": reason}
        return self._try("drain", "POST", f"{self._path}/drain", body)

    def end(self) -> bool:
        """Say no more, and be forgotten.  Whether the agent did it."""
        gevent.killall(self._greenlets)
        if self._datagrams is not None:
            self._datagrams.close()
        return self._is_agents or self._try("deregister", "DELETE", self._path)

    # ---- each second

    def _run(self) -> None:
        while True:
            try:
                if not (self.is_known or self._is_agents):
                    self._register()
                self._beat(self._read())
                self._solved()
            except Problem as problem:
                self.is_known = False if problem.status == NOT_FOUND else self.is_known
                self._say(problem)
            except (NoAgent, OSError) as error:
                self._say(error)
            gevent.sleep(BEAT * random.uniform(0.9, 1.0))

    def _register(self) -> None:
        self._agent.send("PUT", self._path, self.instance.body())
        self.is_known = True
        log.info("%s: registered at %s", self.instance.id, self._agent.where)

    def _beat(self, load: Reading) -> None:
        self._datagrams = self._datagrams or self._open_datagrams()
        has_ttl = "ttl" in self.instance.check and not self._is_agents
        fields = {"utilization": load.utilization, "in_flight": load.in_flight, "rate": load.rate}
        if self._datagrams is None:
            if has_ttl:
                self._agent.send("POST", f"{self._path}/heartbeat", {})
            self._agent.send("POST", f"{self._path}/load", fields)
            return
        if has_ttl:
            self._datagrams.say("heartbeat", self.instance.id)
        self._datagrams.say("load", self.instance.id, **fields)

    def _hear(self, answer: dict[str, Any]) -> None:
        """What the agent says to a datagram: that all is well, or that it does not know the instance."""
        error = answer.get("error")
        if isinstance(error, dict) and error.get("field") == "id":
            self.is_known = False
        elif error is not None:
            log.warning("%s: the agent refused a datagram: %s", self.instance.id, error)

    def _open_datagrams(self) -> "_Datagrams | None":
        if not self._agent.where.startswith("unix:"):
            return None
        path = Path(self._agent.where.removeprefix("unix:")).with_name("agent.sock")
        return _Datagrams(path, self._hear) if path.is_socket() else None

    # ---- what others left

    def _tidy(self) -> None:
        while True:
            with suppress(DislocateError, OSError, LookupError, TypeError):
                self._remove_the_dead()
            gevent.sleep(TIDY_EVERY)

    def _remove_the_dead(self) -> None:
        own = self._agent.get("/api/health")["node"]
        for one in self._agent.get(f"/api/services/{segment(self.instance.service)}")["instances"]:
            is_dead = one["status"] == "critical" and one["meta"].get(MARK) == "ttl"
            if is_dead and one["node"] == own and one["id"] != self.instance.id:
                log.info("removing %s, whose process is gone", one["id"])
                self._agent.send("DELETE", f"/api/instances/{segment(one['id'])}")

    # ---- words

    def _try(self, what: str, method: str, path: str, body: object = None) -> bool:
        try:
            self._agent.send(method, path, body)
        except (NoAgent, Problem) as error:
            if self._is_agents and isinstance(error, Problem) and error.status == NOT_FOUND:
                self.is_out = True
                return False
            log.warning("%s: could not %s: %s", self.instance.id, what, str(error).splitlines()[0])
            return False
        return True

    def _say(self, error: Exception) -> None:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        if words != self.problem and _is_refusal(error):
            log.error("%s: the agent refuses it: %s", self.instance.id, "; ".join(str(error).splitlines()))
        elif words != self.problem:
            log.warning("%s: %s; trying on", self.instance.id, words)
        self.problem = words

    def _solved(self) -> None:
        if self.problem:
            log.info("%s: the agent at %s answers again", self.instance.id, self._agent.where)
        self.problem = ""


def _is_refusal(error: Exception) -> bool:
    """Whether asking the same again would change nothing.  An instance that is not known is told of anew."""
    return isinstance(error, Problem) and 400 <= error.status < 500 and error.status not in (NOT_FOUND, *LATER)
