"""Records: how scaling lies in the store, as JSON values that people can read with `dislocate kv get`.

    scale/NAME                        ScalePolicy: operators write it
    system/scale/NAME/DC              ScaleDecision: every agent follows it
    records/scale/past/NAME/DC/EPOCH  the same without driver and nodes: the history, EPOCH of 16 digits
    records/scale/done/NAME/DC        Carried, by drivers that act once a data center
    records/scale/done/NAME/DC/NODE   Carried, of driver `process`, by each node

Nobody writes below `system/scale/` and `records/scale/` but commands of scaling: see `store.validation`.
"""

from typing import TypeVar

import msgspec

POLICIES = "scale/"
DECISIONS = "system/scale/"
PAST = "records/scale/past/"
DONE = "records/scale/done/"

T = TypeVar("T")


def policy_key(service: str) -> str:
    return f"{POLICIES}{service}"


def decision_key(service: str, datacenter: str) -> str:
    return f"{DECISIONS}{service}/{datacenter}"


def past_key(service: str, datacenter: str, epoch: int) -> str:
    return f"{PAST}{service}/{datacenter}/{epoch:016d}"


def past_prefix(service: str, datacenter: str = "") -> str:
    return f"{PAST}{service}/{datacenter}/" if datacenter else f"{PAST}{service}/"


def done_key(service: str, datacenter: str, node: str = "") -> str:
    """`node` 'dc/name' where each node has its own part."""
    name = node.partition("/")[2]
    return f"{DONE}{service}/{datacenter}/{name}" if name else f"{DONE}{service}/{datacenter}"


def split_decision(key: str) -> tuple[str, str]:
    """('orders.api', 'fra') of the key of a decision."""
    service, _, datacenter = key.removeprefix(DECISIONS).rpartition("/")
    return service, datacenter


def encode(record: object) -> bytes:
    """JSON, the same bytes for equal records."""
    return msgspec.json.encode(record)


def read(value: bytes | None, type_: type[T]) -> T | None:
    """A record; None when there is none.  What cannot be read is none: before these keys were reserved anybody may have put
    anything there, and no agent may end for it."""
    if value is None:
        return None
    try:
        return msgspec.json.decode(value, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
