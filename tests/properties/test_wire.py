"""The wire: what is said is heard, and what cannot be understood is counted and dropped, whoever made it."""

from enum import Enum
from types import NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from dislocate.core.boundary.inputs import DatagramReceived, MessageReceived
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.catalog.messages import Manifest
from dislocate.core.identity import NodeId
from dislocate.core.membership.messages import FactsForwarded
from dislocate.core.node import Node
from dislocate.core.streams import Streams
from dislocate.core.units import MILLISECOND
from dislocate.core.wire import Fact, FactMemo, Message, decode_envelope, encode_envelope, encode_fact

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


def make_node():
    settings = Settings(
        node=HERE, nonce=1, gossip="127.0.1.1:49701", links="127.0.1.1:49702", public_key=b"k" * 32, seeds=()
    )
    node = Node(settings, Streams("fuzz"), Recovered())
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


def test_a_manifest_in_no_part_is_no_manifest():
    hear(make_node(), [encode_envelope(THERE, None, (encode_fact(Manifest(THERE, 1, (), 3, 0)),))])


def test_text_that_is_no_utf_8_is_counted_like_any_garbage():
    node = make_node()
    hear(node, [encode_envelope(NodeId("fra", "xx", 1), None).replace(b"xx", b"\xff\xff")])
    assert node.counters["input_dropped"] == 3
