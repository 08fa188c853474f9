"""The PROXY protocol's header, version 2, as a sender writes it: who connected, and to what.

Source: proxy-protocol.txt of HAProxy, section 2.2.  Sends no TLVs, and reads none: what connects to us is not asked.
"""

from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import pack

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_VERSION_2_PROXY = 0x21
_TCP_OVER_IPV4 = 0x11
_TCP_OVER_IPV6 = 0x21

Peer = tuple[str, int]


def proxy_header(source: Peer, destination: Peer) -> bytes:
    """The bytes that go before the stream of a connection from `source` to `destination`, numeric addresses and ports.

    An IPv4 address that a dual-stack socket shows as IPv6 (::ffff:192.0.2.1) is told as what it is, if both are."""
    from_, to = _plain(source[0]), _plain(destination[0])
    if isinstance(from_, IPv4Address) and isinstance(to, IPv4Address):
        family, addresses = _TCP_OVER_IPV4, from_.packed + to.packed
    else:
        family, addresses = _TCP_OVER_IPV6, _wide(from_) + _wide(to)
    body = addresses + pack("!HH", source[1], destination[1])
    return SIGNATURE + pack("!BBH", _VERSION_2_PROXY, family, len(body)) + body


def _plain(host: str) -> IPv4Address | IPv6Address:
    address = ip_address(host.partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _wide(address: IPv4Address | IPv6Address) -> bytes:
    return address.packed if isinstance(address, IPv6Address) else IPv6Address(f"::ffff:{address}").packed
