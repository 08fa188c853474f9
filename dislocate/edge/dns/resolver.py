"""The resolver: bytes of a query in, bytes of a reply out, with everything remembered that can be.

Two tables share their entries.  `recent` knows whole queries by their bytes after the id: a hit costs one look-up, and only
the id is new.  `_entries` knows questions whatever their spelling, options or id: a hit costs the parsing, and the question
is respelled.  A query enters `recent` only when nothing in it varies from asker to asker (0x20 spelling, options such as
cookies).  The rotations of an answer are made one by one, as they are asked for, and then given in turn.

Invariant: no reply is older than its shelf life, nor than the last event about its subject.  Entries are never removed for
that, only outdated; memory is bounded by starting again.  Does no I/O and reads no clock: see `server`.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, compress, count, cycle, repeat
from random import Random
from typing import TypeAlias

from dnslib import QTYPE, RCODE, RR

from dislocate.core.boundary.events import (
    BrakeChanged,
    DatacenterChanged,
    Event,
    FlowsChanged,
    MemberDied,
    MemberForgotten,
    MemberJoined,
    MemberLeft,
    MemberRefuted,
    MemberSuspected,
    ServiceChanged,
)
from dislocate.core.units import SECOND
from dislocate.edge.dns.answers import TCP_ADDRESSES, UDP_ADDRESSES, Answer, Knowledge, Question, answer
from dislocate.edge.dns.wire import (
    ANY_CLASS,
    BADVERS,
    HEADER,
    TCP_LIMIT,
    Deck,
    Malformed,
    Query,
    Reply,
    deal,
    pack_error,
    pack_reply,
    parse_query,
    respell,
    split_deck,
)

RECENT = 10_000  # queries
ENTRIES = 10_000  # questions; a flood of invented names must not grow for ever
_IN = 1
_BARE_OPT = 11  # bytes of an OPT record without options

# (labels, type and class, limit, without EDNS, RD): all of a query that its reply depends on
Key: TypeAlias = tuple[tuple[str, ...], bytes, int, bool, bool]

log = logging.getLogger(__name__)


class Entry:
    """One answer in as many orders as it has."""

    __slots__ = ("expires", "replies")

    def __init__(self, replies: Iterator[bytes], expires: int) -> None:
        self.replies = replies  # packed without id; endless
        self.expires = expires  # monotonic nanoseconds; 0: outdated


class Tally:
    """A count that iterators keep by themselves: what they give draws one mark each, and no line of Python runs for it."""

    __slots__ = ("_marks", "_readings")

    def __init__(self) -> None:
        self._marks = count(1)  # all of them true
        self._readings = 0  # they draw marks too

    def add(self) -> None:
        next(self._marks)

    def over(self, items: Iterable[bytes]) -> Iterator[bytes]:
        """`items`, each counted when it is taken."""
        return compress(items, self._marks)

    def read(self) -> int:
        self._readings += 1
        return next(self._marks) - self._readings


class Resolver:
    """Answers queries about what `knowledge` knows."""

    def __init__(self, knowledge: Knowledge, random: Random) -> None:
        self.recent: dict[bytes, Entry] = {}  # read by the server's fast path
        self._tallies: defaultdict[str, Tally] = defaultdict(Tally)
        self._knowledge = knowledge
        self._random = random
        self._entries: dict[Key, Entry] = {}
        self._keys: dict[str, dict[Key, None]] = {}  # by subject; a dict for its order
        self._outdated_by: dict[type, Callable[[Event], None]] = {
            ServiceChanged: lambda event: self._outdate(event.service),
            FlowsChanged: lambda event: self._outdate(event.service),
            DatacenterChanged: lambda _: self._outdate_all(),
            BrakeChanged: lambda _: self._outdate_all(),
            **dict.fromkeys(
                (MemberJoined, MemberSuspected, MemberRefuted, MemberDied, MemberLeft, MemberForgotten),
                lambda event: self._outdate(event.member.path),
            ),
        }

    @property
    def counters(self) -> dict[str, int]:
        """What became of the queries until now."""
        return {name: tally.read() for name, tally in self._tallies.items()}

    def notice(self, event: Event) -> None:
        """Something happened: what was answered about it holds no longer."""
        outdate = self._outdated_by.get(type(event))
        if outdate is not None:
            outdate(event)

    def reply(self, data: bytes, now: int, *, stream: bool = False) -> bytes | None:
        """The reply to `data` at `now`, id included; None when none is due.  `stream`: it came by TCP."""
        try:
            query = parse_query(data)
        except Malformed as malformed:
            self._count("malformed" if malformed.rcode is None else f"rcode_{malformed.rcode}")
            return None if malformed.rcode is None else data[:2] + pack_error(data, malformed.rcode)
        try:
            return data[:2] + self._reply(query, data, now, stream)
        except Exception:  # one record that cannot be told must not silence the server; logged with its cause
            log.exception("no answer to %s type %d", ".".join(query.labels), query.type)
            self._count(f"rcode_{RCODE.SERVFAIL}")
            return data[:2] + pack_error(data, RCODE.SERVFAIL)

    def _reply(self, query: Query, data: bytes, now: int, stream: bool) -> bytes:
        refusal = _refusal(query)
        if refusal is not None:
            self._count(f"rcode_{refusal}")
            return respell(pack_reply(query, Reply(rcode=refusal), query.limit(stream)), query.question)
        entry = self._entry(query, now, stream)
        packed = next(entry.replies)
        if not stream and _is_plain(query, data):
            if len(self.recent) >= RECENT:
                self.recent.clear()
            self.recent[data[2:]] = entry
        return respell(packed, query.question)

    def _entry(self, query: Query, now: int, stream: bool) -> Entry:
        key = (query.labels, query.question[-4:], query.limit(stream), query.edns is None, query.recursion)
        entry = self._entries.get(key)
        if entry is not None and entry.expires > now:
            return entry
        said = answer(Question(query.labels, query.type), self._knowledge, now)
        replies = self._tallies[f"rcode_{said.rcode}"].over(self._rotations(said, query, stream))
        entry = Entry(replies, now + int(said.shelf_life * SECOND))
        if len(self._entries) >= ENTRIES:
            self._outdate_all()
        self._entries[key] = entry
        self._keys.setdefault(said.subject, {})[key] = None
        return entry

    def _rotations(self, said: Answer, query: Query, stream: bool) -> Iterator[bytes]:
        """`said` in all its orders, in turn, for ever.  Raises what dnslib raises at a record that cannot be told."""
        if not said.pools:
            return repeat(_pack(query, said, list(said.records), query.limit(stream)))
        deck = split_deck(_pack(query, said, said.pooled, TCP_LIMIT), query, len(said.pooled))
        made: list[bytes] = []
        return chain(self._draw(said, deck, TCP_ADDRESSES if stream else UDP_ADDRESSES, made), cycle(made))

    def _draw(self, said: Answer, deck: Deck, limit: int, made: list[bytes]) -> Iterator[bytes]:
        """Deals each rotation and adds it to `made`.  Few records have few orders: each is kept once, which leaves the
        processor's cache to other names."""
        orders: dict[bytes, bytes] = {}
        for turn in range(said.rotations):
            packed = deal(deck, said.draw(turn, self._random, limit))
            made.append(orders.setdefault(packed, packed))
            yield packed

    def _outdate(self, subject: str) -> None:
        for key in self._keys.pop(subject, ()):
            self._entries.pop(key).expires = 0

    def _outdate_all(self) -> None:
        for subject in list(self._keys):
            self._outdate(subject)
        self.recent.clear()

    def _count(self, name: str) -> None:
        self._tallies[name].add()


def _pack(query: Query, said: Answer, answers: list[RR], limit: int) -> bytes:
    reply = Reply(
        rcode=said.rcode,
        authoritative=said.authoritative,
        answers=answers,
        authority=said.authority,
        additional=said.additional,
    )
    return pack_reply(query, reply, limit)


def _refusal(query: Query) -> int | None:
    """The rcode of a query that is understood and not answered."""
    if query.edns is not None and query.edns.version != 0:
        return BADVERS
    if query.class_ not in (_IN, ANY_CLASS) or query.type in (QTYPE.AXFR, QTYPE.IXFR):
        return RCODE.REFUSED
    return None


def _is_plain(query: Query, data: bytes) -> bool:
    """Whether other askers will send the same bytes: lower case, and no option in the OPT."""
    end = HEADER + len(query.question)
    return query.question == query.question.lower() and len(data) - end in (0, _BARE_OPT)
