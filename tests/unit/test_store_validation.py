"""What may be asked: bad input is refused before anything is proposed, with its field and the mend."""

import pytest

from dislocate.core.boundary.store import (
    AddServer,
    BackUp,
    Compare,
    Delete,
    Field,
    Get,
    GrantLease,
    KeepLeaseAlive,
    Put,
    ReadKeys,
    ReadLease,
    RemoveServer,
    Restore,
    RevokeLease,
    Transact,
    TransferLeadership,
    WatchKeys,
)
from dislocate.core.consensus.messages import GroupId
from dislocate.core.errors import LocalError
from dislocate.core.store.validation import check_key, check_request
from dislocate.core.tunables import KEY_BYTES, TRANSACTION_BYTES, VALUE_BYTES
from dislocate.core.units import HOUR, MILLISECOND, SECOND
from tests.support.store_log import GROUP, StoreLog, write_backup


@pytest.mark.parametrize(
    "request_",
    [
        Transact(),
        Transact(
            (Compare("a", Field.VALUE, value=b"1"), Compare("a", Field.VERSION, number=1)),
            (Put("a", bytes(VALUE_BYTES)), Get("", True), Delete("a", True), Get("b")),
            (Put("a", b"", 7),),
        ),
        ReadKeys("", True),
        ReadKeys("a", max_age=SECOND, after="a"),
        WatchKeys("", True, 0),
        GrantLease(10 * SECOND),
        KeepLeaseAlive(1),
        RevokeLease(1),
        ReadLease(1),
        AddServer("fra/a1"),
        RemoveServer("fra/a1"),
        TransferLeadership(),
        TransferLeadership("fra/a1"),
        BackUp(),
        Restore(write_backup(StoreLog().machine, GroupId(GROUP))),
    ],
    ids=lambda request: type(request).__name__,
)
def test_what_can_be_carried_out_passes(request_):
    check_request(request_)


@pytest.mark.parametrize(
    "key", ["a", "policy/shop.web", "é" * 256, "a b", "a/", "\U0001f512", "locks/db primary", "a" * KEY_BYTES]
)
def test_a_key_is_any_text(key):
    check_key(key)


@pytest.mark.parametrize(
    "key", ["", "/a", "a\nb", "a\x00", "\x7f", "a\x85", "\ud800", "a" * (KEY_BYTES + 1), "é" * 257]
)
def test_a_key_is_not_this(key):
    with pytest.raises(LocalError, match="512 bytes of text without control characters"):
        check_key(key)


@pytest.mark.parametrize(
    ("request_", "field", "mend"),
    [
        (Transact((), (Put("a", bytes(VALUE_BYTES + 1)),)), "then[0].value", "keep larger ones elsewhere"),
        (Transact((), (), (Get("/a"),)), "otherwise[0].key", "not beginning with '/'"),
        (Transact((), (Delete("", True),)), "then[0].key", "a key of 1 to"),
        (Transact((), (Put("a", b"", -1),)), "then[0].lease", "the id of a lease"),
        (Transact((), (Put("a", b""), Put("a", b""))), "then[1].key", "one Put of each key"),
        (Transact((), (Get("a"),) * 129), "then", "at most 128 operations"),
        (Transact((Compare("a", Field.VERSION),) * 129), "compares", "at most 128 compares"),
        (Transact((Compare("a", Field.VERSION, value=b"1"),)), "compares[0].value", "no value"),
        (Transact((Compare("a", Field.VALUE, number=1),)), "compares[0].number", "no number"),
        (Transact((Compare("a", Field.VERSION, number=-1),)), "compares[0].number", "a number from 0"),
        (Transact((Compare("", Field.VERSION),)), "compares[0].key", "a key of 1 to"),
        (
            Transact((), tuple(Put(f"{number}", bytes(VALUE_BYTES)) for number in range(2))),
            "transaction",
            f"at most {TRANSACTION_BYTES} bytes",
        ),
        (ReadKeys(""), "key", "a key of 1 to"),
        (ReadKeys("a", limit=0), "limit", "read on with `after`"),
        (ReadKeys("a", limit=10_001), "limit", "1 to 10000"),
        (ReadKeys("a", after="\n"), "after", "a key of 1 to"),
        (ReadKeys("a", max_age=2 * HOUR), "max_age", "at most 1h"),
        (ReadKeys("a", max_age=-1), "max_age", "at most 1h"),
        (WatchKeys("a", False, -1), "after", "the revision of an earlier answer"),
        (WatchKeys("", False, 0), "key", "a key of 1 to"),
        (GrantLease(999 * MILLISECOND), "ttl", "a duration of 1s to 168h"),
        (GrantLease(-1), "ttl", "a duration of 1s"),
        (GrantLease(10**18), "ttl", "168h"),
        (KeepLeaseAlive(0), "lease", "the id of a lease"),
        (RevokeLease(-1), "lease", "the id of a lease"),
        (ReadLease(1 << 63), "lease", "the id of a lease"),
        (AddServer("fra"), "path", "'datacenter/name'"),
        (RemoveServer("fra/A1"), "path", "a-z"),
        (TransferLeadership("x"), "path", "'datacenter/name'"),
        (Restore(b""), "backup", "dislocate store backup"),
    ],
)
def test_bad_input_names_its_field_and_the_mend(request_, field, mend):
    with pytest.raises(LocalError, match=r".*") as raised:
        check_request(request_)
    assert raised.value.field == field
    assert mend in raised.value.expected
    assert len(str(raised.value)) < 400
