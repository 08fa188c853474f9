"""Policies: how an operator wants each service balanced, from the keys `policy/NAME` of the store.

A value is JSON; its durations are words ("5s"), or nanoseconds.  Invariants: what cannot be meant is refused with its
field, what stood there and the mend, and never takes effect, not even in part: the last good policy stays, and the
explanation of the flows says why.  A service without a policy has the defaults.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from math import isfinite
from typing import Any, get_type_hints

import msgspec

from dislocate.core.boundary.balance import Algorithm, Eject, Policy, Retries, Spill
from dislocate.core.boundary.store import KeyChange, KeyValue
from dislocate.core.errors import LocalError
from dislocate.core.identity import check_label
from dislocate.core.nearest import nearest
from dislocate.core.tunables import SLOW_START_LONGEST
from dislocate.core.units import HOUR, MILLISECOND, Duration, format_duration, parse_duration

PREFIX = "policy/"
POLICY_BYTES = 16 * 1024  # the longest that can be meant: a tier and a price for each of a hundred data centers
TIERS = 100  # of tiers, and of data centers named
APERTURE_MOST = 10_000

DEFAULT = Policy()


def decode_policy(value: bytes) -> Policy:
    """The policy in `value`.  Raises `LocalError` naming field, mend and, for an unknown name, the nearest known one."""
    if len(value) > POLICY_BYTES:
        raise LocalError("policy", got=f"{len(value)} bytes", expected=f"at most {POLICY_BYTES} bytes of JSON")
    try:
        table = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise LocalError("policy", got=None, expected=f"a JSON object ({error})") from error
    policy = _typed(table, Policy, "policy")
    assert isinstance(policy, Policy)
    check_policy(policy)
    return policy


def encode_policy(policy: Policy) -> bytes:
    """What `decode_policy` reads back; durations in words, defaults left out."""
    return msgspec.json.encode(_in_words(policy))


def check_policy(policy: Policy) -> None:
    """Raises `LocalError` naming the field and the mend unless `policy` can be followed."""
    _number(policy.target_load, "target_load", 0.05, 1.0, "a part of the capacity, 0.05 to 1.0")
    _number(policy.capacity, "capacity", 0.0, 1e9, "requests a second of one endpoint, or 0 where it is measured")
    _places(policy.tiers, "tiers")
    for name, tier in policy.tiers.items():
        _number(tier, f"tiers.{name}", 0, TIERS, f"a whole number, 0 to {TIERS}: the lower is used up first")
    _places(policy.prices, "prices")
    for name, price in policy.prices.items():
        _number(price, f"prices.{name}", 0.0, 1e9, "a price, 0 or more")
    _span(policy.price_weight, "price_weight", 0, HOUR)
    if any(price * policy.price_weight > HOUR for price in policy.prices.values()):
        raise LocalError(
            "price_weight", got=format_duration(policy.price_weight), expected="prices worth an hour at most"
        )
    _number(policy.probe, "probe", 0.0, 0.5, "a part of the traffic, 0 to 0.5; 0.01 is usual")
    _number(policy.aperture, "aperture", 1, APERTURE_MOST, f"a number of endpoints, 1 to {APERTURE_MOST}")
    _span(policy.slow_start, "slow_start", 0, SLOW_START_LONGEST)
    _eject(policy.eject)
    _number(policy.retries.attempts, "retries.attempts", 1, 20, "a number of attempts, the first included, 1 to 20")
    _number(policy.retries.ratio, "retries.ratio", 0.0, 1.0, "retries per call, 0 to 1")
    _number(policy.retries.per_second, "retries.per_second", 0.0, 1e6, "retries a second, 0 or more")
    _span(policy.timeout, "timeout", MILLISECOND, HOUR)
    is_off = policy.throttle == 0.0
    _number(
        policy.throttle, "throttle", 0.0 if is_off else 1.0, 100.0, "requests per accepted one, 1 to 100, or 0: off"
    )


def _eject(eject: Eject) -> None:
    _number(eject.consecutive, "eject.consecutive", 0, 10_000, "failures in a row, or 0: never")
    _number(eject.success_sigma, "eject.success_sigma", 0.0, 10.0, "deviations below the mean, 0 to 10; 0: not judged")
    _span(eject.base, "eject.base", MILLISECOND, HOUR)
    _span(eject.longest, "eject.longest", eject.base, 24 * HOUR)
    _number(eject.at_most, "eject.at_most", 0.0, 0.5, "a part of the endpoints, 0 to 0.5")


def _number(value: float, field: str, least: float, most: float, expected: str) -> None:
    if not (isfinite(value) and least <= value <= most):
        raise LocalError(field, got=value, expected=expected)


def _span(value: int, field: str, least: int, most: int) -> None:
    if not least <= value <= most:
        expected = f"a duration from {format_duration(least)} to {format_duration(most)}"
        raise LocalError(field, got=format_duration(value) if value >= 0 else value, expected=expected)


def _places(table: Mapping[str, float], field: str) -> None:
    if len(table) > TIERS:
        raise LocalError(field, got=len(table), expected=f"at most {TIERS} data centers")
    for name in table:
        check_label(name, f"{field}.{name}")


# ---- JSON and structs


def _typed(value: Any, kind: Any, field: str) -> Any:
    """`value`, as JSON has it, as a `kind` that a policy may have in a field."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return _struct(value, kind, field)
    if kind == Duration:
        return value if _is_whole(value) else parse_duration(value, field)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _enum(value, kind, field)
    if kind == dict[str, int] or kind == dict[str, float]:
        item = int if kind == dict[str, int] else float
        if not isinstance(value, dict):
            raise LocalError(field, got=value, expected="an object from data center to number")
        return {name: _typed(one, item, f"{field}.{name}") for name, one in value.items()}
    if kind is bool and isinstance(value, bool):
        return value
    if kind is int and _is_whole(value):
        return value
    if kind is float and (_is_whole(value) or isinstance(value, float)):
        return _as_float(value, field)
    raise LocalError(field, got=value, expected={bool: "true or false", int: "a whole number", float: "a number"}[kind])


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _as_float(value: Any, field: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise LocalError(field, got=value, expected="a number that can be meant") from None


def _struct(value: Any, kind: type[msgspec.Struct], field: str) -> msgspec.Struct:
    at = "" if field == "policy" else f"{field}."
    if not isinstance(value, dict):
        raise LocalError(field, got=value, expected="a JSON object")
    kinds = get_type_hints(kind, include_extras=True)
    for name in value:
        if name not in kinds:
            known = ", ".join(kinds)
            raise LocalError(f"{at}{name}", got=name, expected=f"one of {known}{nearest(name, kinds)}")
    return kind(**{name: _typed(one, kinds[name], f"{at}{name}") for name, one in value.items()})


def _enum(value: Any, kind: type[Enum], field: str) -> Enum:
    known = {str(one.value): one for one in kind}
    found = known.get(value) if isinstance(value, str) else None
    if found is None:
        raise LocalError(field, got=value, expected=f"one of {', '.join(known)}{nearest(str(value), known)}")
    return found


def _in_words(struct: msgspec.Struct) -> dict[str, Any]:
    """A table without what is as it would be anyway."""
    kinds = get_type_hints(type(struct), include_extras=True)
    plain = type(struct)()
    return {
        name: _word(getattr(struct, name), kind)
        for name, kind in kinds.items()
        if getattr(struct, name) != getattr(plain, name)
    }


def _word(value: Any, kind: Any) -> Any:
    match value:
        case Eject() | Retries():
            return _in_words(value)
        case Spill() | Algorithm():
            return value.value
        case _:
            return format_duration(value) if kind == Duration else value


# ---- following them


class Policies:
    """All policies that this node knows."""

    def __init__(self, held: Callable[[str], Sequence[KeyValue]]) -> None:
        self._held = held
        self._values: dict[str, bytes] = {}  # by service, as the store has them
        self._policies: dict[str, Policy] = {}
        self._problems: dict[str, str] = {}

    def of(self, service: str) -> Policy:
        return self._policies.get(service, DEFAULT)

    def problem(self, service: str) -> str:
        """What is wrong with the newest value, so that an older one is followed; empty: nothing."""
        return self._problems.get(service, "")

    def changed(self, changes: Sequence[KeyChange]) -> tuple[str, ...]:
        """The store changed, perhaps anything where nothing is named.  Returns the services whose policy or problem did."""
        if changes and not any(change.key.startswith(PREFIX) for change in changes):
            return ()
        values = {one.key.removeprefix(PREFIX): one.value for one in self._held(PREFIX)}
        moved = [name for name, value in values.items() if self._values.get(name) != value]
        gone = [name for name in self._values if name not in values]
        self._values = values
        return tuple(sorted(name for name, found in self._outcomes(moved, gone) if found))

    def _outcomes(self, moved: Iterable[str], gone: Iterable[str]) -> list[tuple[str, bool]]:
        return [(name, self._take(name)) for name in moved] + [(name, self._drop(name)) for name in gone]

    def _take(self, name: str) -> bool:
        before = (self.of(name), self.problem(name))
        try:
            self._policies[name] = decode_policy(self._values[name])
            self._problems.pop(name, None)
        except LocalError as error:
            self._problems[name] = str(error)
        return before != (self.of(name), self.problem(name))

    def _drop(self, name: str) -> bool:
        known = self._policies.pop(name, None)
        problem = self._problems.pop(name, None)
        return known not in (None, DEFAULT) or problem is not None
