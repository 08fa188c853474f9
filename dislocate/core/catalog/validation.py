"""What may be registered: one pure check for requests, configuration files and scenarios.

Invariant: a record of an accepted spec fits a datagram (`RECORD_BUDGET`), whatever its owner is called and whatever its
cause says.  Changes nothing; raises `LocalError` naming the field and the mend.
"""

import re
from collections.abc import Iterable

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.values import CheckSpec, InstanceSpec, Load
from dislocate.core.errors import LocalError, brief
from dislocate.core.identity import check_service_name, split_address
from dislocate.core.tunables import LOAD_IN_FLIGHT_LIMIT, LOAD_RATE_LIMIT, SPEC_BUDGET
from dislocate.core.units import HOUR, MILLISECOND, MINUTE, format_duration
from dislocate.core.wire import encoded_size

MIN_INTERVAL = 100 * MILLISECOND  # below it, checking costs more than serving
MAX_INTERVAL = 24 * HOUR
MAX_TIMEOUT = 10 * MINUTE
MAX_LABELS = 32  # tags, and keys of meta

_ID = re.compile(r"[a-zA-Z0-9._:-]{1,128}", re.ASCII)
_HOST = re.compile(r"[a-zA-Z0-9._:%-]{0,253}", re.ASCII)
_META_KEY = re.compile(r"[a-zA-Z0-9._-]{1,64}", re.ASCII)


def check_instance(spec: InstanceSpec, field_prefix: str = "") -> InstanceSpec:
    """`spec` itself when it may be registered.  Raises `LocalError`; its field starts with `field_prefix`."""
    at = field_prefix
    check_id(spec.id, at + "id")
    check_service_name(spec.service, at + "service")
    _claim(0 < spec.port < 65536, at + "port", spec.port, "a whole number, 1..65535")
    _claim(
        _HOST.fullmatch(spec.address) is not None and spec.address.count(":") != 1,
        at + "address",
        spec.address,
        "a host name or IP address without a port",
    )
    _claim(0 <= spec.weight < 65536, at + "weight", spec.weight, "a weight from 0 to 65535")
    _check_labels(spec, at)
    size = encoded_size((spec.id, spec.service, spec.address, spec.tags, spec.meta))
    _claim(size <= SPEC_BUDGET, at + "meta", f"{size} bytes", f"names, tags and meta of {SPEC_BUDGET} bytes at most")
    if spec.check is not None:
        _check_check(spec.check, at + "check.")
    return spec


def check_instances(specs: Iterable[InstanceSpec], field_prefix: str = "service") -> tuple[InstanceSpec, ...]:
    """All of them, with distinct ids; fields are named 'service[2].port'.  Raises `LocalError`."""
    seen: dict[str, InstanceSpec] = {}
    for position, spec in enumerate(specs):
        prefix = f"{field_prefix}[{position}]."
        check_instance(spec, prefix)
        _claim(spec.id not in seen, prefix + "id", spec.id, "an id that no other instance of this agent has")
        seen[spec.id] = spec
    return tuple(seen.values())


def check_id(text: str, field: str) -> str:
    """`text` itself when it may be an instance id.  Raises `LocalError`."""
    _claim(_ID.fullmatch(text) is not None, field, text, "1 to 128 of a-z A-Z 0-9 and '._:-'")
    return text


def check_load(load: Load, field_prefix: str = "load.") -> Load:
    """`load` itself when it can be measured.  Raises `LocalError` (NaN fails each claim)."""
    _claim(0.0 <= load.utilization <= 1.0, field_prefix + "utilization", load.utilization, "a number from 0 to 1")
    at, rate, in_flight = field_prefix, load.rate, load.in_flight
    few = f"requests being worked on now, 0 to {LOAD_IN_FLIGHT_LIMIT}"
    _claim(0 <= in_flight <= LOAD_IN_FLIGHT_LIMIT, at + "in_flight", in_flight, few)
    _claim(0.0 <= rate <= LOAD_RATE_LIMIT, at + "rate", rate, f"requests a second, 0 to {LOAD_RATE_LIMIT:.0f}")
    _claim(0.0 <= load.errors <= 1.0, field_prefix + "errors", load.errors, "a part of the calls, 0 to 1")
    _claim(0.0 <= load.p99 < 1e6, field_prefix + "p99", load.p99, "seconds")
    return load


def refused(error: LocalError) -> Refused:
    """The answer to a request that raised `error`."""
    got = brief(error.got)
    return Refused("invalid", error.field, f"got {got!r}, expected {error.expected}", got, error.expected)


def _check_labels(spec: InstanceSpec, at: str) -> None:
    _claim(len(spec.tags) <= MAX_LABELS, at + "tags", len(spec.tags), f"at most {MAX_LABELS} tags")
    for tag in spec.tags:
        _claim(0 < len(tag) <= 64 and tag.isprintable(), at + "tags", tag, "tags of 1 to 64 printable characters")
    _claim(len(spec.meta) <= MAX_LABELS, at + "meta", len(spec.meta), f"at most {MAX_LABELS} keys")
    for key, value in spec.meta.items():
        _claim(_META_KEY.fullmatch(key) is not None, at + "meta", key, "keys of 1 to 64 of a-z A-Z 0-9 and '._-'")
        _claim(len(value) <= 256 and value.isprintable(), at + f"meta.{key}", value, "at most 256 printable characters")


def _check_check(check: CheckSpec, at: str) -> None:
    kinds = [kind for kind in ("ttl", "tcp", "http", "command") if getattr(check, kind)]
    _claim(len(kinds) == 1, at[:-1], ", ".join(kinds) or "nothing", "exactly one of ttl, tcp, http, command")
    _check_duration(check.interval, MIN_INTERVAL, MAX_INTERVAL, at + "interval")
    _check_duration(check.timeout, 1, MAX_TIMEOUT, at + "timeout")
    if check.ttl:
        _check_duration(check.ttl, MIN_INTERVAL, MAX_INTERVAL, at + "ttl")
    if check.tcp and not (check.tcp.startswith("unix:/") and len(check.tcp) <= 128):
        split_address(check.tcp, at + "tcp")
    if check.http:
        is_url = check.http.startswith(("http://", "https://")) and len(check.http) <= 2_000
        _claim(is_url and check.http.isprintable(), at + "http", check.http, "a URL with http:// or https://")
    if check.command:
        fits = all(check.command[:1]) and sum(map(len, check.command)) <= 4_096
        _claim(fits, at + "command", check.command[:1], "a program and its arguments, 4096 characters at most")
    wants_http = bool(check.statuses or check.body)
    _claim(not wants_http or bool(check.http), at + "statuses", kinds[0], "statuses and body only with http")
    _claim(len(check.body) <= 1_024, at + "body", len(check.body), "a text of at most 1024 characters")
    for status in check.statuses:
        _claim(100 <= status < 600, at + "statuses", status, "HTTP statuses from 100 to 599")


def _check_duration(value: int, least: int, most: int, field: str) -> None:
    """Nanoseconds, told in the words that they are written in."""
    bounds = f"of {format_duration(least)} to" if least > 1 else "above 0, at most"
    _claim(least <= value <= most, field, format_duration(value), f"a duration {bounds} {format_duration(most)}")


def _claim(holds: bool, field: str, got: object, expected: str) -> None:
    if not holds:
        raise LocalError(field, got=got, expected=expected)
