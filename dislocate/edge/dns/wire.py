"""DNS queries from bytes, replies to bytes.

Reading is our own and strict (one question, no compression in it, at most one OPT): a server needs nothing else, and what
a stranger sends must cost little and never raise anything but `Malformed`.  Writing is dnslib's.

Invariant: a reply never exceeds the limit of its query; additionals are left out before answers, and only a missing answer
sets TC.  A reply is packed for the name in lower case; since every other name in it points into the question or is our own,
`respell` gives it the spelling of the asker (0x20) by replacing the question's bytes.
"""

from struct import Struct as Layout
from struct import error as LayoutMismatch  # noqa: N812 - the module names its error in lower case

from dnslib import EDNS0, QTYPE, RCODE, RR, DNSHeader, DNSLabel, DNSQuestion, DNSRecord
from msgspec import Struct

HEADER = 12  # bytes
UDP_LIMIT = 512  # bytes, without OPT (RFC 1035)
EDNS_LIMIT = 1232  # bytes: DNS flag day 2020; fits the minimum MTU of IPv6, so nothing is fragmented
TCP_LIMIT = 65_535
ANY_CLASS = 255
BADVERS = 16

_HEAD = Layout("!HHHHHH")
_TYPE_AND_CLASS = Layout("!HH")
_RECORD = Layout("!HHIH")  # type, class, ttl, length of data
_EXTENT = Layout("!H")
_QR, _OPCODE, _AA, _TC, _RD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100


class Malformed(Exception):
    """Bytes that are no query we could answer.  `rcode` None: not even an error is due (it was no query at all)."""

    def __init__(self, reason: str, rcode: int | None = RCODE.FORMERR) -> None:
        super().__init__(reason)
        self.reason = reason
        self.rcode = rcode


class Edns(Struct, frozen=True):
    """What the OPT record of a query says."""

    size: int  # bytes that the asker takes in one datagram
    version: int


class Query(Struct, frozen=True):
    """One question."""

    question: bytes  # as asked: name, type and class
    labels: tuple[str, ...]  # lower case, without the root
    type: int
    class_: int  # without mDNS's QU bit
    recursion: bool  # RD, copied into the reply
    edns: Edns | None

    def limit(self, stream: bool) -> int:
        """Bytes that the reply may have."""
        if stream:
            return TCP_LIMIT
        return UDP_LIMIT if self.edns is None else min(EDNS_LIMIT, max(UDP_LIMIT, self.edns.size))


class Reply(Struct, frozen=True, kw_only=True):
    """The sections of a reply."""

    rcode: int
    authoritative: bool = False
    answers: list[RR] = []
    authority: tuple[RR, ...] = ()
    additional: tuple[RR, ...] = ()


def parse_query(data: bytes) -> Query:
    """The question in `data`.  Raises `Malformed`."""
    if len(data) < HEADER:
        raise Malformed("short", None)
    _, flags, questions, answers, authority, additional = _HEAD.unpack_from(data)
    if flags & _QR:
        raise Malformed("a reply", None)
    if flags & _OPCODE:
        raise Malformed("opcode", RCODE.NOTIMP)
    if questions != 1 or answers or authority:
        raise Malformed("sections")
    try:
        labels, end = _read_name(data, HEADER)
        type_, class_ = _TYPE_AND_CLASS.unpack_from(data, end)
        edns = _read_edns(data, end + 4, additional)
    except (IndexError, LayoutMismatch):
        raise Malformed("cut short") from None
    return Query(
        question=data[HEADER : end + 4],
        labels=tuple(label.decode("latin-1").lower() for label in labels),
        type=type_,
        class_=class_ & 0x7FFF,
        recursion=bool(flags & _RD),
        edns=edns,
    )


def _read_name(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The labels of an uncompressed name and where it ends."""
    start, labels = at, []
    while length := data[at]:
        if length > 63:
            raise Malformed("label")
        labels.append(data[at + 1 : at + 1 + length])
        at += 1 + length
        if at - start > 254:
            raise Malformed("long name")
    return labels, at + 1


def _read_edns(data: bytes, at: int, records: int) -> Edns | None:
    """The OPT among the additional records; others (TSIG, say) are not understood and not needed."""
    found = None
    for _ in range(records):
        while (length := data[at]) and length < 64:
            at += 1 + length
        is_root = length == 0 and data[at] == 0
        at += 1 if length == 0 else 2
        type_, size, ttl, extent = _RECORD.unpack_from(data, at)
        at += _RECORD.size + extent
        if at > len(data):
            raise Malformed("cut short")
        if type_ == QTYPE.OPT:
            if found is not None or not is_root:
                raise Malformed("opt")
            found = Edns(size, ttl >> 16 & 0xFF)
    return found


def pack_reply(query: Query, reply: Reply, limit: int) -> bytes:
    """The reply without its two bytes of id, at most `limit` long with them, for the name in lower case."""
    packed = _pack(query, reply.answers, reply, reply.additional, False)
    if len(packed) <= limit or not reply.additional:
        return packed[2:] if len(packed) <= limit else _pack_fewer(query, reply, limit)[2:]
    packed = _pack(query, reply.answers, reply, (), False)
    return packed[2:] if len(packed) <= limit else _pack_fewer(query, reply, limit)[2:]


def _pack_fewer(query: Query, reply: Reply, limit: int) -> bytes:
    """As many answers as fit, the first ones (musl never asks again by TCP, so they must be of use), and TC."""
    low, high = 0, len(reply.answers) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if len(_pack(query, reply.answers[:middle], reply, (), True)) <= limit:
            low = middle
        else:
            high = middle - 1
    return _pack(query, reply.answers[:low], reply, (), True)


def _pack(query: Query, answers: list[RR], reply: Reply, additional: tuple[RR, ...], truncated: bool) -> bytes:
    flags = _QR | (_AA if reply.authoritative else 0) | (_TC if truncated else 0) | (_RD if query.recursion else 0)
    name = DNSLabel([label.encode("latin-1") for label in query.labels])
    question_class = _TYPE_AND_CLASS.unpack(query.question[-4:])[1]
    options = () if query.edns is None else (EDNS0(udp_len=EDNS_LIMIT, ext_rcode=reply.rcode >> 4),)
    record = DNSRecord(
        DNSHeader(id=0, bitmap=flags | reply.rcode & 0xF),
        questions=[DNSQuestion(name, query.type, question_class)],
        rr=answers,
        auth=list(reply.authority),
        ar=[*additional, *options],
    )
    return bytes(record.pack())


class Deck(Struct, frozen=True):
    """A packed reply taken apart, so that its answers can be dealt in another order without packing again."""

    head: bytes  # header without id, and question
    cards: tuple[bytes, ...]  # the answers
    tail: bytes  # all that follows them


def split_deck(packed: bytes, query: Query, answers: int) -> Deck:
    """`packed` (without id) with its `answers`, whose owner is the question's name and in which nothing else points."""
    end = HEADER - 2 + len(query.question)
    head, cards = packed[:end], []
    for _ in range(answers):
        (extent,) = _EXTENT.unpack_from(packed, end + 10)  # after a pointer, type, class and ttl
        cards.append(packed[end : end + 12 + extent])
        end += 12 + extent
    return Deck(head, tuple(cards), packed[end:])


def deal(deck: Deck, order: list[int]) -> bytes:
    """The reply with the answers at the positions of `order`, and no others."""
    counted = deck.head[:4] + _EXTENT.pack(len(order)) + deck.head[6:]
    return b"".join([counted, *[deck.cards[at] for at in order], deck.tail])


def respell(packed: bytes, question: bytes) -> bytes:
    """`packed` (without id) with the question as it was asked."""
    start = HEADER - 2
    return packed[:start] + question + packed[start + len(question) :]


def pack_error(data: bytes, rcode: int) -> bytes:
    """An error for `data`, which was not understood: its header alone."""
    _, flags, *_ = _HEAD.unpack_from(data)
    return _HEAD.pack(0, _QR | flags & (_OPCODE | _RD) | rcode, 0, 0, 0, 0)[2:]
