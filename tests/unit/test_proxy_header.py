"""The PROXY protocol's header, byte by byte as section 2.2 of its text lays it out."""

import pytest

from dislocate.proxy.header import proxy_header

SIGNATURE = bytes.fromhex("0D0A0D0A000D0A515549540A")


def test_ipv4_is_told_as_the_protocol_lays_it_out():
    header = proxy_header(("192.0.2.1", 56324), ("198.51.100.7", 443))
    assert header == SIGNATURE + bytes.fromhex("21 11 000C C0000201 C6336407 DC04 01BB")
    assert len(header) == 28


def test_ipv6_is_told_as_the_protocol_lays_it_out():
    header = proxy_header(("2001:db8::1", 1), ("2001:db8::2", 65535))
    addresses = "20010db8000000000000000000000001 20010db8000000000000000000000002"
    assert header == SIGNATURE + bytes.fromhex(f"21 21 0024 {addresses} 0001 FFFF")
    assert len(header) == 52


def test_ipv4_that_a_dual_stack_socket_shows_is_told_as_ipv4():
    shown = proxy_header(("::ffff:192.0.2.1", 56324), ("::ffff:198.51.100.7", 443))
    assert shown == proxy_header(("192.0.2.1", 56324), ("198.51.100.7", 443))


def test_two_families_are_told_as_the_wider_one():
    header = proxy_header(("::ffff:192.0.2.1", 1), ("2001:db8::2", 2))
    assert header[13] == 0x21
    assert header[16:32] == bytes(10) + b"\xff\xff\xc0\x00\x02\x01"


@pytest.mark.parametrize("host", ["fe80::1%eth0", "fe80::1"])
def test_a_link_local_address_is_told_without_its_link(host):
    assert proxy_header((host, 1), ("fe80::2", 2))[16:32] == bytes.fromhex("fe80") + bytes(13) + b"\x01"
