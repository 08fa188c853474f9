"""Resource records, made by dnslib: one function a type, so that no other module knows how it spells them."""

from dnslib import AAAA, CNAME, NS, QTYPE, RR, SOA, SRV, TXT, A

from dislocate.edge.dns.names import IpAddress


def address_record(owner: str, ip: IpAddress, ttl: int) -> RR:
    """A or AAAA, as the address is."""
    if ip.version == 4:
        return RR(owner, QTYPE.A, ttl=ttl, rdata=A(tuple(ip.packed)))
    return RR(owner, QTYPE.AAAA, ttl=ttl, rdata=AAAA(tuple(ip.packed)))


def alias_record(owner: str, target: str, ttl: int) -> RR:
    return RR(owner, QTYPE.CNAME, ttl=ttl, rdata=CNAME(target))


def place_record(owner: str, priority: int, weight: int, port: int, target: str, ttl: int) -> RR:
    """SRV.  Weight 0 would mean 'hardly ever' (RFC 2782), so it is never said."""
    return RR(owner, QTYPE.SRV, ttl=ttl, rdata=SRV(priority, max(1, weight), port, target))


def text_record(owner: str, ttl: int, **pairs: str) -> RR:
    """TXT of 'key=value' strings (RFC 1464), each cut at 255 bytes."""
    return RR(owner, QTYPE.TXT, ttl=ttl, rdata=TXT([f"{key}={value}".encode()[:255] for key, value in pairs.items()]))


def server_record(zone: str, server: str, ttl: int) -> RR:
    return RR(zone, QTYPE.NS, ttl=ttl, rdata=NS(server))


def authority_record(zone: str, server: str, ttl: int) -> RR:
    """SOA; `ttl` is also how long a negative answer may be believed (RFC 2308).  The serial never changes: there are no
    secondaries that would transfer the zone."""
    return RR(zone, QTYPE.SOA, ttl=ttl, rdata=SOA(server, f"hostmaster.{zone}", (1, 3600, 600, 86_400, ttl)))
