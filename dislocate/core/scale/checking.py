"""What a policy of scaling may say, and what nodes may ask about it: pure checks, before anything is proposed.

Invariant: what passes can be decided and carried out; what does not is refused with its field, what stood there and the mend.
What a host alone can tell (is there such a program?) is found there, and is what came of the decision.
"""

import re
from collections.abc import Callable
from math import isfinite
from typing import Any

import msgspec

from dislocate.core.boundary.scaling import (
    BeginScale,
    CommandDriver,
    Driver,
    ProcessDriver,
    ReportScale,
    ScalePolicy,
    WebhookDriver,
)
from dislocate.core.boundary.spec import Process
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_label, check_service_name, split_path
from dislocate.core.nearest import nearest
from dislocate.core.runs.resources import COPIES, check_path, check_resource, check_span, check_words
from dislocate.core.runs.targeting import parse_target
from dislocate.core.scaling import BELIEVABLE, SCALE_MOST
from dislocate.core.tunables import SCALE_WORDS
from dislocate.core.units import HOUR, MINUTE, SECOND, format_duration

_NUMBER_LIMIT = 1 << 63
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`(?: - at `\$\.?(.*)`)?", re.DOTALL)
_URL = re.compile(r"https?://[^\s/?#@]+(?:[/?][^\s]*)?", re.ASCII)
_HEADER = re.compile(r"[A-Za-z0-9-]{1,100}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
POLICY_BYTES = 16 * 1024  # each decision has the driver with it, and every agent follows decisions
ARGUMENTS = 64
ARGUMENT = 4_096  # characters
WEBHOOK_LONGEST = 5 * MINUTE
REVERSALS = 1_000


def decode_scale_policy(value: bytes, service: str = "") -> ScalePolicy:
    """The policy that is the value of a key; durations are nanoseconds there.  Raises `LocalError`."""
    try:
        policy = msgspec.json.decode(value, type=ScalePolicy)
    except msgspec.ValidationError as error:
        raise _explained(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LocalError(
            "policy", got=value[:80].decode(errors="replace"), expected=f"JSON in UTF-8 ({error})"
        ) from None
    check_scale_policy(policy, service)
    return policy


def _explained(message: str) -> LocalError:
    found = _UNKNOWN.fullmatch(message)
    if found is None:
        return LocalError("policy", got=message, expected="a policy as `dislocate scale set` writes it")
    drivers = {"command": CommandDriver, "webhook": WebhookDriver, "process": ProcessDriver}
    known = ScalePolicy.__struct_fields__
    if found[2]:
        known = tuple(sorted({name for one in drivers.values() for name in one.__struct_fields__}))
    field = f"{found[2]}.{found[1]}" if found[2] else found[1]
    return LocalError(field, got=found[1], expected=f"one of {', '.join(known)}{nearest(found[1], known)}")


def check_scale_policy(policy: ScalePolicy, service: str = "") -> None:
    """Raises `LocalError` naming the field and the mend."""
    if service:
        check_service_name(service, "name")
    _check_whole(policy.min, "min", 0, SCALE_MOST)
    _check_whole(policy.max, "max", 1, SCALE_MOST)
    if policy.min > policy.max:
        raise LocalError("min", got=policy.min, expected=f"at most `max`, which is {policy.max}")
    load = policy.target_load
    _claim(isfinite(load) and 0.05 <= load <= 1, "target_load", load, "a part of what an instance can do, 0.05 to 1")
    capacity = policy.capacity
    words = "requests a second of one instance, or 0: then it is measured"
    _claim(isfinite(capacity) and 0 <= capacity < BELIEVABLE, "capacity", capacity, words)
    _check_window(policy.up_window, "up_window", SECOND, 10 * MINUTE)
    _check_window(policy.down_window, "down_window", 10 * SECOND, 24 * HOUR)
    _check_window(policy.pause, "pause", 0, 24 * HOUR)
    _check_whole(policy.reversals, "reversals", 0, REVERSALS)
    for at, datacenter in enumerate(policy.datacenters):
        check_label(datacenter, f"datacenters[{at}]")
        once = datacenter not in policy.datacenters[:at]
        _claim(once, f"datacenters[{at}]", datacenter, "each data center once")
    if policy.driver is not None:
        _DRIVERS[type(policy.driver)](policy.driver, policy, service)
    size = len(msgspec.json.encode(policy))
    _claim(size <= POLICY_BYTES, "policy", f"{size} bytes", f"at most {POLICY_BYTES} bytes")


# ---- drivers


def _check_command(driver: CommandDriver, _policy: ScalePolicy, _service: str) -> None:
    _check_arguments(driver.run)
    check_path(driver.directory, "driver.directory")
    _check_environment(driver)
    check_span(driver.timeout, "driver.timeout")


def _check_webhook(driver: WebhookDriver, _policy: ScalePolicy, _service: str) -> None:
    is_url = len(driver.url) <= 2_000 and _URL.fullmatch(driver.url) is not None
    _claim(is_url, "driver.url", driver.url, "a URL without a password, such as 'https://scaler.example/hook'")
    _check_window(driver.timeout, "driver.timeout", SECOND // 10, WEBHOOK_LONGEST)
    for name, value in driver.headers.items():
        _claim(
            _HEADER.fullmatch(name) is not None, "driver.headers", name, "the name of a header: letters, digits, '-'"
        )
        check_words(value, f"driver.headers.{name}", 2_000, may_be_empty=True)


def _check_process(driver: ProcessDriver, policy: ScalePolicy, service: str) -> None:
    try:
        parse_target(driver.targets)
    except LocalError as error:
        raise LocalError("driver.targets", got=error.got, expected=error.expected) from None
    most = min(policy.max, COPIES)
    _check_whole(driver.per_node, "driver.per_node", 0, COPIES)
    shown = as_process(driver, service or "any", max(1, min(driver.per_node or most, most)))
    check_resource(shown, "driver")


def as_process(driver: ProcessDriver, service: str, count: int) -> Process:
    """What a node is to run: `count` of them, which may be none."""
    work = driver.ready_within + driver.drain_for + driver.stop_within
    return Process(
        name=service,
        service=service,
        run=driver.run,
        count=count,
        ports=driver.ports,
        health=driver.health,
        directory=driver.directory,
        environment=driver.environment,
        ready_within=driver.ready_within,
        drain_for=driver.drain_for,
        stop_within=driver.stop_within,
        timeout=work + 30 * SECOND,  # for what else a host may be busy with
    )


_DRIVERS: dict[type[Driver], Callable[[Any, ScalePolicy, str], None]] = {
    CommandDriver: _check_command,
    WebhookDriver: _check_webhook,
    ProcessDriver: _check_process,
}


def _check_arguments(run: tuple[str, ...]) -> None:
    _claim(0 < len(run) <= ARGUMENTS, "driver.run", list(run), f"a program and its arguments, at most {ARGUMENTS}")
    for at, argument in enumerate(run):
        check_words(argument, f"driver.run[{at}]", ARGUMENT, may_be_empty=at > 0)


def _check_environment(driver: CommandDriver) -> None:
    for name, value in driver.environment.items():
        _claim(
            _VARIABLE.fullmatch(name) is not None, "driver.environment", name, "the name of a variable, such as 'MODE'"
        )
        check_words(value, f"driver.environment.{name}", ARGUMENT, may_be_empty=True)


# ---- what nodes ask


def _check_begin(request: BeginScale) -> None:
    _check_asked(request)
    if request.instead_of:
        split_path(request.instead_of, "instead_of")


def _check_report(request: ReportScale) -> None:
    _check_asked(request)
    _check_whole(request.tries, "tries", 1, _NUMBER_LIMIT - 1)
    _claim(len(request.words) <= SCALE_WORDS, "words", request.words, f"at most {SCALE_WORDS} characters")


def _check_asked(request: BeginScale | ReportScale) -> None:
    check_service_name(request.service, "service")
    check_label(request.datacenter, "datacenter")
    split_path(request.node, "node")
    is_there = request.node.startswith(f"{request.datacenter}/")
    _claim(is_there, "node", request.node, f"a node of {request.datacenter}")
    _check_whole(request.epoch, "epoch", 1, _NUMBER_LIMIT - 1)
    _check_whole(request.at, "at", 0, _NUMBER_LIMIT - 1)


def _check_whole(number: int, field: str, least: int, most: int) -> None:
    expected = f"a whole number, {least}..{most}" if most < _NUMBER_LIMIT - 1 else f"a whole number from {least}"
    _claim(least <= number <= most, field, number, expected)


def _check_window(nanoseconds: int, field: str, least: int, most: int) -> None:
    expected = f"a duration of {format_duration(least)} to {format_duration(most)}"
    _claim(least <= nanoseconds <= most, field, format_duration(nanoseconds), expected)


def _claim(holds: bool, field: str, got: object, expected: str) -> None:
    if not holds:
        raise LocalError(field, got=got, expected=expected)


# By request: raises `LocalError` naming the field and the mend.
CHECKS: dict[type, Callable[[Any], None]] = {BeginScale: _check_begin, ReportScale: _check_report}
