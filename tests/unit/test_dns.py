"""DNS as its users see it: what a question is answered, in bytes, by UDP and by TCP, and when the world changes."""

from random import Random

import gevent
import msgspec
import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord, EDNSOption
from gevent import socket as gevent_socket
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.boundary.events import DatacenterChanged
from dislocate.core.boundary.values import Status
from dislocate.core.boundary.views import ServiceView
from dislocate.core.units import SECOND
from dislocate.edge.dns.answers import ROTATIONS
from dislocate.edge.dns.names import (
    AddressAsked,
    NodeAsked,
    OutsideAsked,
    ServiceAsked,
    address_name,
    to_ip,
    understand,
)
from dislocate.edge.dns.preference import rank
from dislocate.edge.dns.resolver import ENTRIES, Resolver
from dislocate.edge.dns.server import DRAIN, DnsServer
from tests.support.addresses import await_loopback, own_host
from tests.support.fake_dns_backend import FakeBackend

LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True).filter(
    lambda label: label not in ("service", "node")
)


class World:
    """A backend and the resolver that answers for it."""

    def __init__(self) -> None:
        self.backend = FakeBackend()
        self.resolver = Resolver(self.backend.node, Random(1))
        self.backend.subscribe(self.resolver.notice)

    def ask_bytes(self, data: bytes, stream: bool = False) -> bytes | None:
        return self.resolver.reply(bytes(data), self.backend.now(), stream=stream)

    def ask(self, name: str, type_: str = "A", stream: bool = False, **edns: int) -> DNSRecord:
        question = DNSRecord.question(name, type_)
        if edns:
            question.add_ar(EDNS0(**edns))
        return DNSRecord.parse(self.ask_bytes(question.pack(), stream))

    def addresses(self, name: str, type_: str = "A") -> list[str]:
        return [str(rr.rdata) for rr in self.ask(name, type_).rr]


@pytest.fixture
def world():
    return World()


def rcode(reply: DNSRecord) -> str:
    return RCODE[reply.header.rcode]


# ---- names


@given(st.lists(LABEL, min_size=1, max_size=4).filter(lambda name: not name[-1].startswith("_")), st.none() | LABEL)
def test_a_service_name_with_dots_is_read_back_with_and_without_a_data_center(name, datacenter):
    where = () if datacenter is None else (datacenter,)
    assert understand((*name, "service", *where, "dislocate")) == ServiceAsked(".".join(name), datacenter)
    located = understand((f"_{name[0]}", *name[1:], "_tcp", "service", *where, "dislocate"))
    assert located == ServiceAsked(".".join(name), datacenter, located=True)


@given(LABEL, st.none() | LABEL)
def test_a_node_name_is_read_back(name, datacenter):
    where = () if datacenter is None else (datacenter,)
    assert understand((name, "node", *where, "dislocate")) == NodeAsked(name, datacenter)


@given(st.ip_addresses())
def test_every_address_is_its_own_name(address):
    assert understand(tuple(address_name(address).split("."))) == AddressAsked(address)


@given(st.lists(st.text(max_size=8), max_size=6))
def test_no_name_is_too_strange_to_be_understood(labels):
    understand((*labels, "dislocate"))
    if labels[-1:] != ["dislocate"]:
        assert understand(tuple(labels)) == OutsideAsked()


# ---- answers


def test_the_addresses_of_a_service_are_answered_with_authority(world):
    world.backend.runs("shop.web", "10.0.0.1")
    world.backend.runs("shop.web", "10.0.0.2")
    reply = world.ask("shop.web.service.dislocate")
    assert reply.header.aa
    assert not reply.header.ra
    assert sorted(str(rr.rdata) for rr in reply.rr) == ["10.0.0.1", "10.0.0.2"]
    assert {rr.ttl for rr in reply.rr} == {5}


def test_an_instance_on_ipv6_is_answered_to_aaaa_and_is_nodata_to_a(world):
    world.backend.runs("web", "2001:db8::1")
    assert [to_ip(text) for text in world.addresses("web.service.dislocate", "AAAA")] == [to_ip("2001:db8::1")]
    reply = world.ask("web.service.dislocate", "A")
    assert rcode(reply) == "NOERROR"
    assert not reply.rr
    assert reply.auth[0].rtype == QTYPE.SOA


def test_every_srv_target_resolves_and_comes_with_its_address(world):
    world.backend.runs("web", "10.0.0.1", port=81)
    world.backend.runs("web", "2001:db8::1", port=82, weight=7)
    reply = world.ask("_web._tcp.service.dislocate", "SRV")
    assert {(rr.rdata.port, rr.rdata.weight) for rr in reply.rr} == {(81, 125), (82, 875)}  # of a thousand
    extra = {str(rr.rname): str(rr.rdata) for rr in reply.ar}
    for rr in reply.rr:
        target = str(rr.rdata.target)
        assert world.addresses(target, "A") + world.addresses(target, "AAAA") == [extra[target]]


def test_a_host_name_in_place_of_an_address_is_an_alias_and_an_srv_target(world):
    world.backend.runs("mail", "mx.example.com", port=25)
    assert [str(rr.rdata.target) for rr in world.ask("mail.service.dislocate", "SRV").rr] == ["mx.example.com."]
    (alias,) = world.ask("mail.service.dislocate", "A").rr
    assert (alias.rtype, str(alias.rdata)) == (QTYPE.CNAME, "mx.example.com.")


def test_the_ages_in_txt_grow_within_a_second(world):
    world.backend.runs("web", "10.0.0.1")

    def age() -> float:
        (record,) = world.ask("web.service.dislocate", "TXT").rr
        pairs = dict(text.decode().split("=", 1) for text in record.rdata.data)
        assert (pairs["datacenter"], pairs["reachable"], pairs["status"]) == ("fra", "true", "passing")
        return float(pairs["age"])

    before = age()
    world.backend.time += SECOND
    assert age() == pytest.approx(before + 1)


def test_a_node_is_found_with_and_without_its_data_center(world):
    world.backend.knows_member("wdc/b1", "10.9.0.1")
    assert world.addresses("a1.node.dislocate") == ["10.0.0.1"]
    assert world.addresses("a1.node.fra.dislocate") == ["10.0.0.1"]
    assert world.addresses("b1.node.wdc.dislocate") == ["10.9.0.1"]
    assert rcode(world.ask("b1.node.dislocate")) == "NXDOMAIN"
    assert world.ask("a1.node.dislocate").rr[0].ttl == 30


def test_unknown_is_nxdomain_and_known_without_records_is_nodata_both_with_the_soa(world):
    world.backend.runs("db.orders", "10.0.0.1")
    world.backend.runs("idle", "10.0.0.2")
    world.backend.stops("idle")
    unknown = ["x.service", "x.node", "x.service.mars", "db.orders.service.mars", "zz.addr", "a.b", "mars"]
    known = ["orders.service", "idle.service", "service", "node", "fra", "service.fra", "_tcp.service", "addr"]
    for name, expected in [(n, "NXDOMAIN") for n in unknown] + [(n, "NOERROR") for n in known]:
        reply = world.ask(f"{name}.dislocate")
        assert (name, rcode(reply), len(reply.rr)) == (name, expected, 0)
        assert reply.auth[0].rdata.times[4] == 5


def test_the_apex_has_soa_and_ns_and_other_zones_are_refused(world):
    assert world.ask("dislocate", "SOA").rr[0].rtype == QTYPE.SOA
    server = world.ask("dislocate", "NS")
    assert world.addresses(str(server.rr[0].rdata)) == ["10.0.0.1"]
    refused = world.ask("example.com")
    assert (rcode(refused), refused.header.aa) == ("REFUSED", 0)


def test_any_is_answered_with_addresses_alone(world):
    world.backend.runs("web", "10.0.0.1")
    assert [rr.rtype for rr in world.ask("web.service.dislocate", "ANY").rr] == [QTYPE.A]


# ---- whom to prefer


def three_data_centers(world: World) -> None:
    world.backend.knows_datacenter("wdc", rtt_ms=90)
    world.backend.knows_datacenter("lon", rtt_ms=12)
    world.backend.runs("web", "10.3.0.1", datacenter="wdc")
    world.backend.runs("web", "10.2.0.1", datacenter="lon")
    world.backend.runs("web", "10.1.0.1", datacenter="fra")


def test_home_comes_first_then_the_others_by_distance(world):
    three_data_centers(world)
    assert world.addresses("web.service.dislocate") == ["10.1.0.1"]
    srv = world.ask("web.service.dislocate", "SRV").rr
    assert [(rr.rdata.priority, str(rr.rdata.target)) for rr in srv] == [
        (10, "0a010001.addr.dislocate."),
        (20, "0a020001.addr.dislocate."),
        (30, "0a030001.addr.dislocate."),
    ]
    assert world.addresses("web.service.wdc.dislocate") == ["10.3.0.1"]


def test_when_home_fails_the_nearest_data_center_answers(world):
    three_data_centers(world)
    world.backend.turns("web", "10.1.0.1", status=Status.CRITICAL)
    assert world.addresses("web.service.dislocate") == ["10.2.0.1"]


def test_an_unreachable_data_center_is_named_only_when_nothing_else_is_known(world):
    three_data_centers(world)
    world.backend.turns("web", "10.2.0.1", reachable=False)
    world.backend.turns("web", "10.1.0.1", status=Status.CRITICAL)
    assert world.addresses("web.service.dislocate") == ["10.3.0.1"]
    world.backend.turns("web", "10.3.0.1", status=Status.CRITICAL)
    assert world.addresses("web.service.dislocate") == ["10.2.0.1"]


def test_a_data_center_that_is_named_is_the_only_one_answered(world):
    three_data_centers(world)
    world.backend.turns("web", "10.3.0.1", status=Status.CRITICAL)
    assert world.addresses("web.service.wdc.dislocate") == ["10.3.0.1"]


@pytest.mark.parametrize("status", [Status.STARTING, Status.DRAINING, Status.MAINTENANCE, Status.CRITICAL])
def test_what_is_not_up_stays_out_while_something_is(world, status):
    world.backend.runs("web", "10.0.0.1", status=Status.WARNING)
    world.backend.runs("web", "10.0.0.2", status=status)
    assert world.addresses("web.service.dislocate") == ["10.0.0.1"]


def test_the_unattended_answer_only_for_want_of_attended_ones(world):
    world.backend.runs("web", "10.0.0.1", status=Status.UNATTENDED)
    world.backend.runs("web", "10.0.0.2", status=Status.CRITICAL)
    assert world.addresses("web.service.dislocate") == ["10.0.0.1"]
    world.backend.runs("web", "10.0.0.3")
    assert world.addresses("web.service.dislocate") == ["10.0.0.3"]


def test_an_instance_of_a_suspected_agent_is_picked_last(world):
    world.backend.runs("web", "10.0.0.1", suspected=True)
    assert world.addresses("web.service.dislocate") == ["10.0.0.1"]
    world.backend.runs("web", "10.0.0.2", status=Status.WARNING)
    assert world.addresses("web.service.dislocate") == ["10.0.0.2"]


def test_a_service_without_anybody_alive_is_answered_with_the_last_known(world):
    world.backend.runs("web", "10.0.0.1", status=Status.CRITICAL)
    reply = world.ask("web.service.dislocate")
    assert [(str(rr.rdata), rr.ttl) for rr in reply.rr] == [("10.0.0.1", 2)]


def test_maintenance_is_an_order_and_not_a_last_resort(world):
    world.backend.runs("web", "10.0.0.1", status=Status.MAINTENANCE)
    assert world.addresses("web.service.dislocate") == []


@given(st.lists(st.tuples(st.sampled_from(Status), st.booleans(), st.sampled_from(["fra", "wdc", "lon"])), max_size=8))
def test_an_answer_is_empty_only_when_everything_is_in_maintenance(specs):
    backend = FakeBackend()
    for at, (status, reachable, datacenter) in enumerate(specs):
        backend.runs("web", f"10.0.0.{at}", status=status, reachable=reachable, datacenter=datacenter)
    view = backend.catalog.service("web")
    chosen = [i for group in rank(view.instances if view else (), "fra", backend.datacenters) for i in group]
    assert bool(chosen) == any(status is not Status.MAINTENANCE for status, _, _ in specs)
    if any(i.status is Status.PASSING and i.reachable for i in (view.instances if view else ())):
        assert all(i.reachable and i.status in (Status.PASSING, Status.WARNING) for i in chosen)


def test_answers_are_short_lived_while_something_drains(world):
    world.backend.runs("web", "10.0.0.1")
    world.backend.runs("web", "10.0.0.2", status=Status.DRAINING)
    assert world.ask("web.service.dislocate").rr[0].ttl == 2


def test_the_first_address_follows_the_weights(world):
    for last, weight in [(1, 1), (2, 2), (3, 5)]:
        world.backend.runs("web", f"10.0.0.{last}", weight=weight)
    firsts = [world.addresses("web.service.dislocate")[0] for _ in range(320)]
    shares = [firsts.count(f"10.0.0.{last}") / 320 for last in (1, 2, 3)]
    assert shares == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=2 / 32)


def test_a_warning_stands_behind_what_passes_and_weight_zero_stays_out(world):
    world.backend.runs("web", "10.0.0.1", status=Status.WARNING, weight=100)
    world.backend.runs("web", "10.0.0.2", weight=1)
    world.backend.runs("web", "10.0.0.3", weight=0)
    for _ in range(40):
        assert world.addresses("web.service.dislocate") == ["10.0.0.2", "10.0.0.1"]


def test_two_instances_on_one_host_are_one_address(world):
    world.backend.runs("web", "10.0.0.1", port=1)
    world.backend.runs("web", "10.0.0.1", port=2)
    assert world.addresses("web.service.dislocate") == ["10.0.0.1"]
    srv = world.ask("web.service.dislocate", "SRV")
    assert (len(srv.rr), len(srv.ar)) == (2, 1)


# ---- bytes


def many(world: World, count: int) -> None:
    for at in range(count):
        world.backend.runs("web", f"10.0.{at}.1")


def test_eight_addresses_at_most_by_udp_and_all_by_tcp(world):
    many(world, 20)
    assert len(world.ask("web.service.dislocate").rr) == 8
    assert len(world.ask("web.service.dislocate", stream=True).rr) == 20


def test_more_addresses_than_any_message_takes_are_cut_and_not_an_error(world):
    world.backend.runs("web", "10.0.0.1")
    (first,) = world.backend.catalog.service("web").instances
    crowd = tuple(msgspec.structs.replace(first, address=f"10.{at >> 8}.{at & 255}.1") for at in range(2_500))
    world.backend.catalog.services["web"] = ServiceView(name="web", index=2, instances=crowd)
    reply = world.ask("web.service.dislocate", stream=True)
    assert (rcode(reply), len(reply.rr)) == ("NOERROR", 2_000)


def test_eight_addresses_fit_the_smallest_datagram_under_the_longest_name(world):
    name = ".".join(["n" * 60] * 3)
    for at in range(12):
        world.backend.runs(name, f"2001:db8::{at}")
    reply = world.ask_bytes(DNSRecord.question(f"{name}.service.dislocate", "AAAA").pack())
    assert len(reply) <= 512
    assert len(DNSRecord.parse(reply).rr) == 8


@pytest.mark.parametrize(("edns", "limit"), [({}, 512), ({"udp_len": 100}, 512), ({"udp_len": 4096}, 1232)])
def test_no_datagram_exceeds_what_the_asker_takes(world, edns, limit):
    many(world, 60)
    question = DNSRecord.question("web.service.dislocate", "SRV")
    if edns:
        question.add_ar(EDNS0(**edns))
    data = world.ask_bytes(question.pack())
    reply = DNSRecord.parse(data)
    assert len(data) <= limit
    assert reply.header.tc
    assert len(reply.rr) >= 3
    assert [rr for rr in reply.ar if rr.rtype != QTYPE.OPT] == []
    whole = world.ask("web.service.dislocate", "SRV", stream=True)
    assert (whole.header.tc, len(whole.rr), len(whole.ar)) == (0, 60, 60)


def test_additionals_go_before_answers_and_without_the_truncation_flag(world):
    many(world, 8)
    reply = world.ask("web.service.dislocate", "SRV")
    assert (reply.header.tc, len(reply.rr), len(reply.ar)) == (0, 8, 0)


def test_the_spelling_of_the_asker_comes_back(world):
    world.backend.runs("web", "10.0.0.1")
    for spelling in ("web.service.dislocate", "wEb.SERvice.disLOCate", "WEB.service.DISLOCATE"):
        reply = world.ask(spelling)
        assert str(reply.q.qname) == f"{spelling}."
        assert str(reply.rr[0].rname) == f"{spelling}."
        assert str(world.ask(f"No-{spelling}").q.qname) == f"No-{spelling}."


def test_edns_is_answered_by_edns_and_its_unknown_versions_by_badvers(world):
    world.backend.runs("web", "10.0.0.1")
    plain = world.ask("web.service.dislocate")
    assert plain.ar == []
    (opt,) = world.ask("web.service.dislocate", udp_len=1232).ar
    assert opt.edns_len == 1232
    reply = world.ask("web.service.dislocate", version=1)
    assert (reply.header.rcode, reply.ar[0].edns_rcode, reply.rr) == (0, 1, [])


def test_options_such_as_cookies_are_passed_over_and_remembered_for_nobody(world):
    world.backend.runs("web", "10.0.0.1")
    for cookie in range(5):
        question = DNSRecord.question("web.service.dislocate")
        question.add_ar(EDNS0(udp_len=1232, opts=[EDNSOption(10, bytes([cookie] * 8))]))
        assert len(DNSRecord.parse(world.ask_bytes(question.pack())).rr) == 1
    assert world.resolver.recent == {}


@pytest.mark.parametrize(
    ("flags", "body", "expected"),
    [
        ("2800", "0001000000000000" + "00" + "00010001", "NOTIMP"),
        ("0100", "0000000000000000", "FORMERR"),
        ("0100", "0002000000000000" + "00" + "00010001", "FORMERR"),
        ("0100", "0001000000000000" + "c00c" + "00010001", "FORMERR"),
        ("0100", "0001000000000000" + "3f", "FORMERR"),
        ("0100", "0001000000000001" + "00" + "00010001", "FORMERR"),
        (
            "0100",
            "0001000000000000"
            + "3f"
            + "61" * 63 * 1
            + "3f"
            + "61" * 63
            + "3f"
            + "61" * 63
            + "3f"
            + "61" * 63
            + "00"
            + "00010001",
            "FORMERR",
        ),
    ],
)
def test_what_cannot_be_understood_is_answered_as_an_error_with_its_id(world, flags, body, expected):
    reply = DNSRecord.parse(world.ask_bytes(bytes.fromhex("abcd" + flags + body)))
    assert (reply.header.id, reply.header.qr, rcode(reply)) == (0xABCD, 1, expected)


def test_replies_and_scraps_are_never_answered_and_counted(world):
    assert world.ask_bytes(b"\0" * 11) is None
    assert world.ask_bytes(DNSRecord.question("web.service.dislocate").reply().pack()) is None
    assert world.resolver.counters == {"malformed": 2}


def test_other_classes_and_transfers_are_refused_and_qu_is_none_of_them(world):
    world.backend.runs("web", "10.0.0.1")
    for class_, expected in [(3, "REFUSED"), (0x8001, "NOERROR"), (255, "NOERROR")]:
        question = DNSRecord.question("web.service.dislocate")
        question.q.qclass = class_
        assert rcode(DNSRecord.parse(world.ask_bytes(question.pack()))) == expected
    assert rcode(world.ask("dislocate", "AXFR")) == "REFUSED"


@given(st.binary(max_size=600), st.booleans())
def test_garbage_never_breaks_the_resolver(data, stream):
    world = World()
    reply = world.ask_bytes(data, stream)
    assert reply is None or reply[:2] == data[:2]


@given(st.data())
def test_a_damaged_query_is_answered_with_something_that_parses_or_not_at_all(data):
    world = World()
    world.backend.runs("shop.web", "10.0.0.1")
    question = DNSRecord.question("shop.web.service.dislocate", data.draw(st.sampled_from(["A", "SRV", "TXT", "NS"])))
    question.add_ar(EDNS0(udp_len=data.draw(st.integers(0, 65_535))))
    damaged = bytearray(question.pack())
    for _ in range(data.draw(st.integers(0, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    reply = world.ask_bytes(bytes(damaged))
    if reply is not None:
        assert len(reply) <= 1232
        assert reply[:2] == bytes(damaged[:2])
        assert f"rcode_{RCODE.SERVFAIL}" not in world.resolver.counters


# ---- memory


def test_a_change_of_the_service_is_answered_at_once(world):
    world.backend.runs("web", "10.0.0.1")
    assert world.addresses("web.service.dislocate") == ["10.0.0.1"]
    world.backend.turns("web", "10.0.0.1", address="10.0.0.9")
    assert world.addresses("web.service.dislocate") == ["10.0.0.9"]
    assert rcode(world.ask("new.service.dislocate")) == "NXDOMAIN"
    world.backend.runs("new", "10.0.0.7")
    assert world.addresses("new.service.dislocate") == ["10.0.0.7"]


def test_a_change_elsewhere_outdates_nothing(world):
    world.backend.runs("web", "10.0.0.1")
    world.ask("web.service.dislocate")
    (entry,) = world.resolver.recent.values()
    world.backend.runs("other", "10.0.0.2")
    assert entry.expires > world.backend.now()
    world.backend.turns("web", "10.0.0.1", weight=2)
    assert entry.expires == 0


def test_what_no_event_tells_is_noticed_within_five_seconds(world):
    three_data_centers(world)
    world.backend.turns("web", "10.1.0.1", status=Status.CRITICAL)
    assert world.addresses("web.service.dislocate") == ["10.2.0.1"]
    world.backend.knows_datacenter("wdc", rtt_ms=3)
    assert world.addresses("web.service.dislocate") == ["10.2.0.1"]
    world.backend.time += 5 * SECOND
    assert world.addresses("web.service.dislocate") == ["10.3.0.1"]
    world.backend.knows_datacenter("wdc", rtt_ms=90)
    world.backend.tell(DatacenterChanged("wdc", True, 0.0, ""))
    assert world.addresses("web.service.dislocate") == ["10.2.0.1"]


def test_a_flood_of_invented_names_takes_bounded_memory(world):
    template = bytearray(DNSRecord.question("00000000.service.dislocate").pack())
    for number in range(ENTRIES + 50):
        template[13:21] = f"{number:08}".encode()
        world.ask_bytes(bytes(template))
    assert len(world.resolver.recent) <= ENTRIES
    assert len(world.resolver._entries) <= ENTRIES
    assert len(world.resolver._keys) <= ENTRIES


def test_an_answer_that_cannot_be_told_is_servfail_and_the_server_lives(world):
    world.backend.runs("web", "10.0.0.1", port=70_000)
    assert rcode(world.ask("web.service.dislocate", "SRV")) == "SERVFAIL"
    assert world.addresses("web.service.dislocate") == ["10.0.0.1"]


def test_counts_are_exact_however_often_they_are_read(world):
    world.backend.runs("web", "10.0.0.1")
    world.backend.runs("web", "10.0.0.2")
    for asked in range(1, 100):
        world.ask("web.service.dislocate")
        assert world.resolver.counters == world.resolver.counters == {"rcode_0": asked}


def test_a_question_asked_once_is_known_by_its_bytes_and_still_answered_in_every_order(world):
    world.backend.runs("web", "10.0.0.1")
    world.backend.runs("web", "10.0.0.2")
    question = DNSRecord.question("web.service.dislocate").pack()
    first = world.ask_bytes(question)[2:]
    entry = world.resolver.recent[bytes(question[2:])]
    replies = [first, *(next(entry.replies) for _ in range(3 * ROTATIONS - 1))]
    assert replies[:ROTATIONS] == replies[ROTATIONS : 2 * ROTATIONS] == replies[2 * ROTATIONS :]
    assert len(set(replies)) == len({id(reply) for reply in replies[ROTATIONS:]}) == 2  # each order is kept once
    assert world.resolver.counters == {"rcode_0": 3 * ROTATIONS}


# ---- sockets


@pytest.fixture
def server():
    backend = FakeBackend()
    backend.runs("web", "10.0.0.1")
    server = DnsServer(backend, own_host(), 0, Random(1))
    server.start()
    yield server
    server.stop()


def test_a_datagram_is_answered_and_the_fast_path_says_the_same(server):
    with gevent_socket.socket(gevent_socket.AF_INET, gevent_socket.SOCK_DGRAM) as asker, gevent.Timeout(60):
        replies = []
        for number in range(3):
            question = DNSRecord.question("web.service.dislocate")
            question.header.id = number
            asker.sendto(question.pack(), server.address)
            replies.append(asker.recv(2000))
        assert [reply[:2] for reply in replies] == [b"\0\0", b"\0\1", b"\0\2"]
        assert len({reply[2:] for reply in replies}) == 1
        assert len(server.resolver.recent) == 1
        asker.sendto(b"garbage", server.address)
        asker.sendto(DNSRecord.question("web.service.dislocate").pack(), server.address)
        assert len(DNSRecord.parse(asker.recv(2000)).rr) == 1
    assert server.counters == {"queries": 5, "unsent": 0, "malformed": 1, "rcode_0": 4}


def test_every_query_is_counted_once_by_what_became_of_it_however_fast_it_was_answered(server):
    names = ("web.service.dislocate", "nobody.service.dislocate", "elsewhere.example")
    with gevent_socket.socket(gevent_socket.AF_INET, gevent_socket.SOCK_DGRAM) as asker, gevent.Timeout(60):
        asker.connect(server.address)
        for _ in range(10):
            for data in (*(DNSRecord.question(name).pack() for name in names), b"garbage"):
                asker.send(data)
            for _ in names:
                asker.recv(2000)
    codes = {"rcode_0": 10, "rcode_3": 10, "rcode_5": 10}
    assert server.counters == {"queries": 40, "unsent": 0, "malformed": 10, **codes}


def test_a_flood_is_answered_whole_and_the_loop_gets_its_turn_between_batches(server):
    turns = []
    with gevent_socket.socket(gevent_socket.AF_INET, gevent_socket.SOCK_DGRAM) as asker, gevent.Timeout(60):
        asker.connect(server.address)
        for number in range(2 * DRAIN + 1):
            question = DNSRecord.question("web.service.dislocate")
            question.header.id = number
            asker.send(question.pack())
        await_loopback()
        drain = server._drain
        for _ in range(3):
            drain()
            turns.append(server.queries)
        assert [DNSRecord.parse(asker.recv(2000)).header.id for _ in range(2 * DRAIN + 1)] == list(range(2 * DRAIN + 1))
    assert turns == [DRAIN, 2 * DRAIN, 2 * DRAIN + 1]


def test_pipelined_questions_on_one_connection_are_answered_in_order(server):
    with gevent_socket.create_connection(server.address) as asker, gevent.Timeout(60):
        stream = b""
        for number in range(5):
            question = DNSRecord.question("web.service.dislocate")
            question.header.id = number
            packed = bytes(question.pack())
            stream += len(packed).to_bytes(2, "big") + packed
        for at in range(0, len(stream), 7):  # in pieces that respect no boundary
            asker.sendall(stream[at : at + 7])
        received = b""
        seen = []
        while len(seen) < 5:
            received += asker.recv(2000)
            while len(received) >= 2 and len(received) >= 2 + int.from_bytes(received[:2], "big"):
                end = 2 + int.from_bytes(received[:2], "big")
                seen.append(DNSRecord.parse(received[2:end]).header.id)
                received = received[end:]
        assert seen == [0, 1, 2, 3, 4]


def test_a_connection_that_speaks_no_dns_is_closed(server):
    with gevent_socket.create_connection(server.address) as asker, gevent.Timeout(60):
        asker.sendall(b"\0\x05hello")
        assert asker.recv(100) == b""
