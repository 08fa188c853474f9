"""The wire: what is said is heard, and what cannot be understood is counted and dropped, whoever made it."""

from enum import Enum
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw
from msgspec.structs import replace

from dislocate.core.boundary.effects import Store
from dislocate.core.boundary.inputs import DatagramReceived, LinkOpened, MessageReceived, Stored, TimeReached
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.store import Put, Transact
from dislocate.core.catalog.messages import Manifest
from dislocate.core.consensus.messages import (
    Append,
    Configuration,
    Consensus,
    Entry,
    GroupId,
    RaftMessage,
    ServerId,
    SnapshotChunk,
)
from dislocate.core.consensus.promises import uuid_of
from dislocate.core.identity import NodeId
from dislocate.core.membership.messages import FactsForwarded
from dislocate.core.node import Node
from dislocate.core.store.commands import Command, CommandBody, encode_command
from dislocate.core.store.messages import Asked, GroupTold, StateTold, StoreAsk
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND
from dislocate.core.wire import Fact, FactMemo, Fragment, Message, decode_envelope, encode_envelope, encode_fact

HERE = NodeId("fra", "a1", 7)
THERE = NodeId("fra", "a2", 9)
ABROAD = NodeId("wdc", "a1", 3)

NODES = [HERE, THERE, ABROAD, NodeId("fra", "a2", 10), NodeId("", "", 0)]
PLAIN = {
    bool: st.booleans(),
    int: st.integers(-(2**63), 2**64 - 1) | st.integers(-2, 20),
    float: st.floats(allow_nan=False),
    str: st.text(max_size=20)
    | st.sampled_from(["fra/a1", "fra/a2", "wdc/a1", "fra", "wdc", "127.0.1.2:49701", "web-1"]),
    bytes: st.binary(max_size=32),
    NodeId: st.sampled_from(NODES),
}


def anything(kind):
    """A strategy for every value that the wire may carry in a field of type `kind`."""
    if kind in PLAIN:
        return PLAIN[kind]
    if kind is NoneType:
        return st.none()
    arguments = get_args(kind)
    match get_origin(kind):
        case origin if origin is tuple and arguments[-1] is Ellipsis:
            return st.lists(anything(arguments[0]), max_size=4).map(tuple)
        case origin if origin is tuple:
            return st.tuples(*map(anything, arguments))
        case origin if origin in (Union, UnionType):
            return st.one_of(*map(anything, arguments))
        case origin if origin is dict:
            return st.dictionaries(*map(anything, arguments), max_size=3)
        case None if issubclass(kind, Enum):
            return st.sampled_from(kind)
        case None:
            return st.builds(kind, **{name: anything(field) for name, field in get_type_hints(kind).items()})
    raise AssertionError(f"no strategy for {kind}")


facts = st.one_of(*map(anything, Fact.__args__))
PLAIN[Raw] = facts.map(encode_fact)
messages = st.one_of(*map(anything, Message.__args__))
senders = st.sampled_from([THERE, ABROAD, HERE, NodeId("fra", "a1", 8)])


def plain(message):
    """`message` with its raw parts as bytes, which compare by content."""
    return [bytes(raw) for raw in message.facts] if isinstance(message, FactsForwarded) else message


@given(facts)
def test_a_fact_is_heard_as_it_was_said(fact):
    assert FactMemo().decode(encode_fact(fact), "") == fact


@given(messages, st.lists(facts, max_size=3))
def test_a_message_is_heard_as_it_was_said(message, riding):
    envelope = decode_envelope(encode_envelope(THERE, message, tuple(map(encode_fact, riding))), "")
    assert envelope.sender == THERE
    assert plain(envelope.body) == plain(message)
    assert [FactMemo().decode(raw, "") for raw in envelope.facts] == riding


def new_node(**more):
    settings = Settings(
        node=HERE, nonce=1, gossip="127.0.1.1:49701", links="127.0.1.1:49702", public_key=b"k" * 32, seeds=(), **more
    )
    return Node(settings, Streams("fuzz"), Recovered())


def make_node():
    node = new_node()
    node.start(0)
    return node


def hear(node, packets):
    """Give them to `node` as datagrams and as messages, with time passing between."""
    now = 0
    for data in packets:
        now += 50 * MILLISECOND
        node.handle(DatagramReceived("127.0.1.2:49701", data), now)
        node.handle(MessageReceived(ABROAD, data), now)
    node.handle(DatagramReceived("127.0.1.2:49701", b""), now + 60_000 * MILLISECOND)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8))
def test_random_bytes_are_counted_and_change_nothing(packets):
    node = make_node()
    digest = node.digest
    hear(node, packets)
    assert node.counters["input_dropped"] == 2 * len(packets) + 1
    assert node.digest == digest
    assert list(node.members) == ["fra/a1"]


@given(messages, st.lists(facts, max_size=2), st.data())
def test_truncated_and_changed_packets_never_raise(message, riding, data):
    whole = encode_envelope(THERE, message, tuple(map(encode_fact, riding)))
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    at, byte = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(0, 255))
    node = make_node()
    hear(node, [cut])
    assert node.counters["input_dropped"] == 3  # no prefix is a packet, nor is nothing
    hear(make_node(), [whole[:at] + bytes([byte]) + whole[at + 1 :]])


@given(st.lists(st.tuples(senders, st.none() | messages, st.lists(facts, max_size=3)), min_size=1, max_size=8))
def test_well_formed_nonsense_never_raises(packets):
    hear(make_node(), [encode_envelope(sender, body, tuple(map(encode_fact, said))) for sender, body, said in packets])


# ---- the same to a server of a store


def alone():
    """A node that founded a group of its own."""
    return Conversation(new_node(servers=("fra/a1",)))


def one_of_three():
    """A follower of a group of three, whose leader is fra/a2; the other one is abroad."""
    talk = Conversation(new_node(servers=("fra/a1", "fra/a2", "wdc/a1")))
    disks = {"fra/a1": talk.disk, "fra/a2": 2, "wdc/a1": 3}
    promised = tuple(ServerId(path, disk) for path, disk in sorted(disks.items()))
    for sender in (THERE, ABROAD):
        listed = talk.node.settings.servers
        for told in ((), promised):
            talk.hear(sender, GroupTold(None, disks[sender.path], listed, told))
    talk.wait(4)
    talk.hear(THERE, GroupTold(None, 2, talk.node.settings.servers, promised))
    talk.hear(ABROAD, GroupTold(None, 3, talk.node.settings.servers, promised))
    talk.wait(1)
    group = GroupId(uuid_of(promised))
    put_ = encode_command(Command(Transact(then=(Put("k", b"v"),))))
    entries = (Entry(2, 2), Entry(2, 3, put_))
    talk.hear(THERE, Consensus(group, promised[1], promised[0], 2, Append(1, 1, entries, 3, 1)))
    talk.wait(0)
    assert talk.node.store.role == "follower"
    assert talk.node.store.revision == 1
    return talk


class Conversation:
    """A node whose disk answers at once, and two others that talk to it on links."""

    def __init__(self, node):
        self.node = node
        self.now = 0
        self.disk = node._store._founding.server.disk
        self._took(node.start(0))
        for peer in (THERE, ABROAD):
            self.give(LinkOpened(peer))
        self.wait(3)

    def give(self, input_):
        self.now += MILLISECOND
        self._took(self.node.handle(input_, self.now))

    def hear(self, sender, body, riding=()):
        self.give(MessageReceived(sender, encode_envelope(sender, body, riding)))

    def wait(self, seconds):
        for _ in range(max(1, 20 * seconds)):
            self.now += 50 * MILLISECOND
            self.give(TimeReached())

    def _took(self, effects):
        for effect in effects:
            if isinstance(effect, Store):
                self.give(Stored(effect.seq))

    @property
    def ids(self):
        """(group, own id, ids of the others): what well-formed nonsense is to name."""
        founding = self.node._store._founding
        return founding.group, founding.server


def to_servers(talk):
    """Bodies that pass as of the group, from a peer, with anything in them."""
    group, me = talk.ids
    numbers = st.integers(0, 6) | st.integers(0, 2**61 - 1)
    terms = st.integers(0, 5)
    servers = st.sampled_from([me, ServerId("fra/a2", 2), ServerId("wdc/a1", 3), ServerId("fra/a9", 9)])
    sets = st.lists(servers, max_size=3, unique=True).map(lambda some: tuple(sorted(some)))
    configurations = st.none() | st.builds(Configuration, sets, sets, sets)
    data = st.binary(max_size=8) | st.builds(lambda body: encode_command(Command(body)), anything(CommandBody))
    entries = st.builds(Entry, terms, st.integers(0, 6), data, configurations)
    runs = st.lists(entries, max_size=3).map(tuple)
    in_order = st.builds(_in_order, st.integers(0, 4), terms, runs, numbers)
    appends = st.builds(Append, st.integers(0, 5), terms, runs, numbers, numbers) | in_order
    whole = st.builds(Configuration, sets, sets, sets)
    chunks = st.builds(
        SnapshotChunk, numbers, terms, whole, numbers, st.integers(0, 2), st.integers(0, 2), data, numbers
    )
    bodies = appends | chunks | anything(RaftMessage)
    words = st.tuples(st.sampled_from([(THERE, ServerId("fra/a2", 2)), (ABROAD, ServerId("wdc/a1", 3))]), terms, bodies)
    spoken = words.map(lambda word: (word[0][0], Consensus(group, word[0][1], me, word[1], word[2])))
    asked = st.builds(Asked, st.integers(1, 9), st.integers(0, 9), anything(StoreAsk), st.none() | anything(NodeId))
    told = st.builds(StateTold, st.just(group), st.sampled_from([256, 512, 1 << 60]), numbers, st.booleans())
    rest = st.tuples(st.sampled_from([THERE, ABROAD]), asked | told | messages)
    return st.lists(spoken | rest, min_size=1, max_size=12)


def _in_order(prev, term, entries, commit):
    """Entries that follow each other, as any leader's do."""
    followed = tuple(replace(entry, index=prev + at, term=term) for at, entry in enumerate(entries, 1))
    return Append(prev, term if prev else 0, followed, commit, 1)


@pytest.mark.parametrize("world", [alone, one_of_three])
@given(data=st.data())
def test_well_formed_nonsense_to_a_server_never_raises(world, data):
    talk = world()
    for sender, body in data.draw(to_servers(talk)):
        talk.hear(sender, body)
    talk.wait(15)
    assert talk.node.store.role in ("leader", "follower", "candidate", "learner", "failed", "agent")


def test_an_envelope_of_fragments_that_is_a_fragment_itself_is_dropped():
    """Each in the next: a thousand would be more than Python's stack."""
    node = make_node()
    data = encode_envelope(THERE, None)
    for number in range(1_500):
        data = encode_envelope(THERE, Fragment(number, 0, 1, data))
        if len(data) > 60_000:
            break
    node.handle(MessageReceived(THERE, data), 1)
    assert node.counters["input_dropped"] == 1


def test_a_manifest_in_no_part_is_no_manifest():
    hear(make_node(), [encode_envelope(THERE, None, (encode_fact(Manifest(THERE, 1, (), 3, 0)),))])


def test_text_that_is_no_utf_8_is_counted_like_any_garbage():
    node = make_node()
    hear(node, [encode_envelope(NodeId("fra", "xx", 1), None).replace(b"xx", b"\xff\xff")])
    assert node.counters["input_dropped"] == 3
