"""What a proxy did, in numbers that only grow and a few that stand; of one process, or of several added up."""

from collections.abc import Iterable

import msgspec
from msgspec import Struct

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


class Tally(Struct):
    """Of one service."""

    open: int = 0  # streams now, those that are being connected among them
    accepted: int = 0
    connected: dict[str, int] = {}  # by data center
    failed_connects: int = 0  # tries that ended without a connection; the client was not told
    unserved: int = 0  # clients that got nobody: reset
    short: int = 0  # of them: since this host had no descriptors, ports or memory left
    silent: int = 0  # the endpoint ended first and had said nothing
    reset_by_client: int = 0
    reset_by_endpoint: int = 0
    idle: int = 0  # reset by us
    cut: int = 0  # reset by us, when the time to end was over
    sent: int = 0  # bytes to endpoints
    received: int = 0  # bytes from endpoints
    age: float = 0.0  # seconds since the agent last confirmed where the service is
    trouble: str = ""  # why it does not


class Report(Struct):
    """Of all services of a proxy."""

    services: dict[str, Tally]
    workers: int = 1
    cpu: float = 0.0  # seconds, of the process

    def line(self, service: str) -> str:
        """For people."""
        tally = self.services[service]
        total = sum(tally.connected.values())
        where = ", ".join(f"{name} {100 * n / total:.0f}%" for name, n in sorted(tally.connected.items()) if total)
        parts = [
            f"{service}: {tally.open} open, {tally.accepted} accepted" + (f" ({where})" if where else ""),
            f"{amount(tally.sent)} sent, {amount(tally.received)} received",
            *(f"{count} {words}" for words, count in _mishaps(tally) if count),
        ]
        if tally.trouble:
            parts.append(f"on what was known {tally.age:.0f} s ago: {tally.trouble}")
        return "; ".join(parts)


def _mishaps(tally: Tally) -> tuple[tuple[str, int], ...]:
    return (
        ("failed connects", tally.failed_connects),
        ("unserved", tally.unserved),
        ("for want of descriptors or ports", tally.short),
        ("ended without a word", tally.silent),
        ("reset by clients", tally.reset_by_client),
        ("reset by endpoints", tally.reset_by_endpoint),
        ("idle", tally.idle),
        ("cut", tally.cut),
    )


def amount(size: float) -> str:
    """'512 B', '3.4 MiB'."""
    for unit in _UNITS[:-1]:
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} {_UNITS[-1]}"


def added(reports: Iterable[Report]) -> Report:
    """Several processes as one: counts add up, the oldest knowledge and the first trouble are told."""
    total = Report({}, workers=0)
    for report in reports:
        total.workers += report.workers
        total.cpu += report.cpu
        for service, tally in report.services.items():
            so_far = total.services.setdefault(service, Tally())
            for name in ("open", "accepted", *(field for field in Tally.__struct_fields__[3:-2])):
                setattr(so_far, name, getattr(so_far, name) + getattr(tally, name))
            for datacenter, count in tally.connected.items():
                so_far.connected[datacenter] = so_far.connected.get(datacenter, 0) + count
            so_far.age = max(so_far.age, tally.age)
            so_far.trouble = so_far.trouble or tally.trouble
    return total


def to_json(report: Report) -> str:
    return msgspec.json.encode(report).decode()
