"""The DNS face of an agent: names, answers, wire, cache, sockets; one module each."""

from dislocate.edge.dns.server import DnsServer

__all__ = ["DnsServer"]
