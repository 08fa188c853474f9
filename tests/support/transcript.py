"""A transcript: who said what to whom, one line a message, as text that reads like a conversation.

A transcript file is a scenario in TOML with a `[transcript]` table, a line of dashes, and what was said:

    [transcript]
    from = "10s"          # of the story
    until = "12s"
    say = ["RefusalCheck", "Dead", "LinkLost"]   # messages, facts, inputs and effects to tell of

`DISLOCATE_REWRITE=1 pytest tests/transcripts` writes the second half anew; the difference is the review.
"""

import tomllib
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from dislocate.core.boundary.effects import Effect, Notify, SendDatagram, SendMessage
from dislocate.core.boundary.inputs import DatagramReceived, Input, MessageReceived
from dislocate.core.boundary.store import Transact
from dislocate.core.catalog.messages import Repaired
from dislocate.core.consensus.messages import Append, Consensus, Entry, GroupId, ServerId
from dislocate.core.identity import NodeId
from dislocate.core.membership.messages import FactsForwarded, MemberRecord
from dislocate.core.store.commands import decode_command
from dislocate.core.units import parse_duration
from dislocate.core.wire import FactMemo, decode_envelope
from sim.process import Machine
from sim.run import Run
from sim.scenario import parse_scenario

DASHES = "----"


class Excerpt(Struct, frozen=True, forbid_unknown_fields=True, rename={"since": "from"}):
    """Which part of a story is told, and of what."""

    since: str
    until: str
    say: tuple[str, ...]
    by: tuple[str, ...] = ()  # only these agents; empty: all
    seed: int = 1


def tell(text: str) -> str:
    """What the scenario in `text` says, one line a message."""
    table = tomllib.loads(text)
    excerpt = msgspec.convert(table.pop("transcript"), Excerpt)
    scenario = parse_scenario(text[: text.index("[transcript]")])
    teller = _Teller(excerpt)
    run = Run(scenario, excerpt.seed, tracer=teller.heard)
    teller.names = {machine.gossip: machine.path for machine in run.world.machines.values()}
    report = run.to_the_end()
    if not report.holds:
        raise AssertionError(report.as_text("the transcript's story"))
    return "\n".join(teller.lines) + "\n"


class _Teller:
    """Turns inputs and effects into lines."""

    def __init__(self, excerpt: Excerpt) -> None:
        self.lines: list[str] = []
        self.names: dict[str, str] = {}
        self._since, self._until = parse_duration(excerpt.since), parse_duration(excerpt.until)
        self._say = frozenset(excerpt.say)
        self._by = frozenset(excerpt.by)
        self._memo = FactMemo()
        self._told: dict[type, Callable[[int, str, Any], None]] = {
            SendDatagram: lambda now, path, effect: self._envelope(
                now, path, self.names.get(effect.address), effect.data
            ),
            SendMessage: lambda now, path, effect: self._envelope(now, path, effect.peer.path, effect.data),
            Notify: lambda now, path, effect: self._line(now, path, "notes", effect.event),
        }

    def heard(self, now: int, machine: Machine, input_: Input, effects: list[Effect]) -> None:
        if not self._since <= now < self._until or (self._by and machine.path not in self._by):
            return
        if type(input_) not in (DatagramReceived, MessageReceived):
            self._line(now, machine.path, "learns", input_)
        for effect in effects:
            tell_of = self._told.get(type(effect))
            if tell_of is not None:
                tell_of(now, machine.path, effect)
            else:
                self._line(now, machine.path, "does", effect)

    def _envelope(self, now: int, path: str, to: str | None, data: bytes) -> None:
        envelope = decode_envelope(data, path)
        verb = f"to {to or 'nobody'}"
        if isinstance(envelope.body, Consensus):
            self._consensus(now, path, verb, envelope.body)
        elif envelope.body is not None and type(envelope.body) not in (FactsForwarded, Repaired):
            self._line(now, path, verb, envelope.body)
        raws = envelope.body.facts if isinstance(envelope.body, FactsForwarded) else envelope.facts
        for raw in raws:
            self._line(now, path, verb, self._memo.decode(raw, path))

    def _consensus(self, now: int, path: str, verb: str, message: Consensus) -> None:
        """What a server says; an append without entries is told of as 'Heartbeat'."""
        body = message.body
        is_heartbeat = isinstance(body, Append) and not body.entries
        self._line(now, path, f"{verb}, in term {message.term}", body, "Heartbeat" if is_heartbeat else "")

    def _line(self, now: int, path: str, verb: str, said: Struct, name: str = "") -> None:
        if (name or type(said).__name__) in self._say:
            self.lines.append(f"{now / 1e9:9.4f}s  {path}  {verb}: {_words(said)}")


def _words(value: Any) -> str:
    """A struct as 'Name field=value ...', nodes by path, what is empty or only a number of the wire left out."""
    match value:
        case NodeId():
            return value.path
        case MemberRecord():
            return f"{value.node.path}/{value.incarnation}"
        case ServerId():
            return value.path
        case GroupId():
            return value.uuid.hex()[:8]
        case Entry():
            what = _words(decode_command(value.data).body) if value.data else _words(value.configuration) or "nothing"
            return f"[{value.index} of term {value.term}: {what}]"
        case Transact():
            return ", ".join(_words(operation) for operation in value.then)
        case Struct():
            fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
            unsaid: tuple[Any, ...] = ((), "", None)
            if type(value).__module__.startswith(_TERSE):
                unsaid += (0, False)
            words = [f"{name}={_words(one)}" for name, one in fields if name not in _NOISE and one not in unsaid]
            return " ".join([type(value).__name__, *words])
        case tuple() | list():
            return ",".join(_words(one) for one in value)
        case bytes():
            return f"<{len(value)} bytes>"
        case None:
            return ""
    return str(getattr(value, "value", value))


_TERSE = ("dislocate.core.consensus", "dislocate.core.store")  # whose numbers are 0 and claims false unless they say so
_NOISE = frozenset(
    {"digest", "seq", "freshness", "public_key", "coordinate", "version", "nonce"}
    | {"disk", "floor", "round", "largest_rtt", "quorum_rtt", "age", "level", "created", "modified", "lease"}
)
