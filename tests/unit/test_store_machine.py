"""Keys, transactions and leases, as who uses them sees it."""

import pytest

from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import (
    Compare,
    Delete,
    Field,
    Get,
    GrantLease,
    KeyChange,
    KeyValue,
    LeaseStanding,
    Put,
    Relation,
    RevokeLease,
    Transact,
    Transacted,
)
from dislocate.core.errors import Bug
from dislocate.core.store import machine as machine_module
from dislocate.core.store.commands import LeasesEnded, SetFeatureLevel
from dislocate.core.tunables import LEASE_KEYS, TRANSACTION_ANSWER, TRANSACTION_KEYS
from dislocate.core.units import SECOND
from tests.support.store_log import StoreLog, contents


@pytest.fixture
def log() -> StoreLog:
    return StoreLog()


def test_a_put_is_one_revision_and_says_how_the_key_stands(log):
    assert log.put("a", b"1") == KeyValue("a", b"1", created=1, modified=1, version=1)
    assert log.put("b", b"1") == KeyValue("b", b"1", created=2, modified=2, version=1)
    assert log.put("a", b"1") == KeyValue("a", b"1", created=1, modified=3, version=2)
    assert log.machine.revision == 3


def test_a_key_that_comes_back_is_a_new_one(log):
    log.put("a")
    log.delete("a")
    assert log.put("a") == KeyValue("a", b"", created=3, modified=3, version=1)


def test_what_changes_nothing_takes_no_revision(log):
    log.put("a")
    assert log.delete("b") == ()
    assert log.get("a") == (KeyValue("a", b"", 1, 1, 1),)
    assert log.transact() == Transacted(True, 1, ())
    assert log.machine.revision == 1


def test_a_transaction_is_one_revision_for_all_that_it_does(log):
    log.put("old")
    applied = log.do(Transact((), (Put("a", b"1"), Put("b", b"2"), Delete("old"))))
    assert log.machine.revision == 2
    assert applied.changes == (
        KeyChange("a", 2, KeyValue("a", b"1", 2, 2, 1)),
        KeyChange("b", 2, KeyValue("b", b"2", 2, 2, 1)),
        KeyChange("old", 2, None),
    )


def test_later_operations_see_what_earlier_ones_did(log):
    log.put("x/1", b"old")
    result = log.transact(Put("x/2", b"new"), Delete("x/1"), Get("x/", True), Put("x/1", b"again"), Get("x/1"))
    assert [kv.key for kv in result.results[2]] == ["x/2"]
    assert result.results[4] == (KeyValue("x/1", b"again", created=2, modified=2, version=1),)


def test_a_key_that_is_touched_more_than_once_has_one_change(log):
    applied = log.do(Transact((), (Put("a", b"1"), Delete("a"))))
    assert applied.changes == (KeyChange("a", 1, None),)
    assert log.names() == []


def test_a_key_put_twice_in_one_transaction_is_refused_and_nothing_is_done(log):
    refused = log.transact(Put("a", b"1"), Put("b", b""), Put("a", b"2"))
    assert (refused.kind, refused.field) == ("conflict", "then[2].key")
    assert log.machine.revision == 0
    assert log.names() == []


def test_compares_choose_what_is_done(log):
    log.put("a", b"1")
    wanted = (Compare("a", Field.VALUE, value=b"1"), Compare("b", Field.CREATED, Relation.EQUAL, 0))
    assert log.transact(Put("b", b"then"), compares=wanted, otherwise=(Put("c", b""),)).succeeded
    assert not log.transact(Put("b", b"then"), compares=wanted, otherwise=(Put("c", b""),)).succeeded
    assert log.names() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("compare", "is_so"),
    [
        (Compare("a", Field.VALUE, Relation.LESS, value=b"2"), True),
        (Compare("a", Field.VERSION, Relation.GREATER, 1), True),
        (Compare("a", Field.VERSION, Relation.GREATER, 2), False),
        (Compare("a", Field.CREATED, Relation.EQUAL, 1), True),
        (Compare("a", Field.MODIFIED, Relation.NOT_EQUAL, 2), False),
        (Compare("a", Field.LEASE, Relation.EQUAL, 0), True),
        (Compare("none", Field.VALUE, Relation.EQUAL), True),
        (Compare("none", Field.VERSION, Relation.LESS, 1), True),
    ],
)
def test_each_field_is_compared_as_it_stands(log, compare, is_so):
    log.put("a", b"0")
    log.put("a", b"1")
    assert log.transact(compares=(compare,)).succeeded is is_so


def test_a_prefix_is_read_in_order_and_in_pages(log):
    for name in ("a/3", "a/1", "b", "a", "a/2", "a0"):
        log.put(name)
    page, more = log.machine.read("a/", True, limit=2)
    assert ([kv.key for kv in page], more) == (["a/1", "a/2"], True)
    page, more = log.machine.read("a/", True, limit=2, after="a/2")
    assert ([kv.key for kv in page], more) == (["a/3"], False)
    assert log.names() == ["a", "a/1", "a/2", "a/3", "a0", "b"]
    assert log.machine.read("none", False) == ((), False)


def test_a_page_is_ended_before_it_is_too_large_to_answer(log):
    for number in range(20):
        log.put(f"a/{number:02}", bytes(TRANSACTION_ANSWER // 16))
    page, more = log.machine.read("a/", True)
    assert more
    assert 14 <= len(page) < 16
    rest, more = log.machine.read("a/", True, after=page[-1].key)
    assert (len(page) + len(rest), more) == (20, False)


def test_a_transaction_that_covers_too_much_is_refused(log):
    for number in range(TRANSACTION_KEYS + 1):
        log.put(f"a/{number:05}")
    before = log.machine.digest
    refused = log.transact(Delete("a/", True))
    assert (refused.kind, refused.field) == ("invalid", "then[0].key")
    assert "longer ones" in refused.reason
    assert log.machine.digest == before
    assert len(log.delete("a/0", True)) == 10_000


def test_what_is_removed_is_told_without_values_so_that_any_prefix_can_be_removed(log):
    for number in range(20):
        log.put(f"a/{number:02}", bytes(TRANSACTION_ANSWER // 16))
    assert log.transact(Get("a/", True)).kind == "invalid"
    removed = log.transact(Delete("a/", True)).results[0]
    assert removed[0] == KeyValue("a/00", b"", created=1, modified=1, version=1)
    assert len(removed) == 20
    assert log.names() == []


# ---- leases


def test_a_lease_has_the_index_of_its_entry_for_an_id(log):
    log.put("a")
    assert log.do(GrantLease(5 * SECOND)).result == LeaseStanding(2, 5 * SECOND, 5 * SECOND)
    assert log.machine.leases[2].ttl == 5 * SECOND


def test_a_put_under_a_lease_that_is_not_there_does_nothing(log):
    refused = log.transact(Put("a", b""), Put("b", b"", lease=99))
    assert (refused.kind, refused.field) == ("unknown", "then[1].lease")
    assert log.names() == []
    assert log.machine.revision == 0


@pytest.mark.parametrize("end", [RevokeLease, lambda lease: LeasesEnded((lease,))])
def test_with_a_lease_its_keys_end_in_one_revision(log, end):
    lease = log.grant()
    log.put("b", lease=lease)
    log.put("a", lease=lease)
    log.put("c")
    applied = log.do(end(lease))
    assert applied.result == Done(4)
    assert applied.changes == (KeyChange("a", 4, None), KeyChange("b", 4, None))
    assert log.names() == ["c"]
    assert dict(log.machine.leases) == {}


def test_a_lease_without_keys_ends_without_a_revision(log):
    lease = log.grant()
    assert log.do(RevokeLease(lease)).result == Done(0)


def test_each_of_several_leases_ends_in_a_revision_of_its_own(log):
    one, other = log.grant(), log.grant()
    log.put("a", lease=one)
    log.put("b", lease=other)
    applied = log.do(LeasesEnded((one, other, 99)))
    assert [(change.key, change.revision) for change in applied.changes] == [("a", 3), ("b", 4)]


def test_a_lease_that_is_not_there_may_end_but_not_be_revoked(log):
    assert log.do(LeasesEnded((7,))).result == Done(0)
    assert log.do(RevokeLease(7)).result.kind == "unknown"


def test_a_key_put_under_another_lease_leaves_the_first(log):
    one, other = log.grant(), log.grant()
    log.put("a", lease=one)
    log.put("a", lease=other)
    assert log.machine.leases[one].ordered_keys() == ()
    log.do(RevokeLease(one))
    assert log.names() == ["a"]
    log.put("a")
    log.do(RevokeLease(other))
    assert log.names() == ["a"]


def test_a_deleted_key_leaves_its_lease(log):
    lease = log.grant()
    log.put("a", lease=lease)
    log.delete("a")
    log.put("a")
    log.do(RevokeLease(lease))
    assert log.names() == ["a"]


def test_a_lease_has_a_bounded_number_of_keys(log):
    lease = log.grant()
    for number in range(LEASE_KEYS):
        log.put(f"{number}", lease=lease)
    assert log.transact(Put("more", b"", lease=lease)).kind == "storage"
    assert log.put("0", b"again", lease).version == 2


def test_leases_are_bounded(log, monkeypatch):
    monkeypatch.setattr(machine_module, "LEASES", 2)
    log.grant()
    log.grant()
    refused = log.do(GrantLease(SECOND)).result
    assert isinstance(refused, Refused)
    assert refused.kind == "storage"


# ---- the log


def test_an_empty_entry_moves_the_index_only(log):
    log.put("a")
    before = log.machine.digest
    assert log.apply(b"").result is None
    assert (log.machine.index, log.machine.revision, log.machine.digest) == (2, 1, before)


def test_a_gap_in_the_log_is_a_bug(log):
    with pytest.raises(Bug, match="entry 2 after 0"):
        log.machine.apply(2, b"")


def test_an_entry_that_cannot_be_read_is_a_bug(log):
    with pytest.raises(Bug, match="entry 1 cannot be read"):
        log.machine.apply(1, b"\x01")


def test_the_feature_level_only_rises(log):
    assert log.do(SetFeatureLevel(3)).result == Done(3)
    assert log.do(SetFeatureLevel(2)).result == Done(3)
    assert contents(log.machine) == contents(type(log.machine).recover(log.machine.all_records()))


# ---- the digest


def test_any_difference_shows_in_the_digest():
    def digest(*deeds) -> int:
        log = StoreLog()
        lease = log.grant()
        for deed in deeds:
            deed(log, lease)
        return log.machine.digest

    def put(name, value, leased=False):
        return lambda log, lease: log.put(name, value, lease if leased else 0)

    digests = [
        digest(),
        digest(put("a", b"")),
        digest(put("a", b"1")),
        digest(put("a1", b"")),
        digest(put("a", b"", True)),
        digest(put("a", b""), put("a", b"")),
        digest(put("a", b""), put("b", b"")),
        digest(put("b", b""), put("a", b"")),
        digest(lambda log, lease: log.grant()),
    ]
    assert len(set(digests)) == len(digests)


def test_what_came_and_went_leaves_no_trace_in_the_digest(log):
    log.put("a", b"1")
    before = log.machine.digest
    lease = log.grant()
    for number in range(3_000):
        log.put(f"b/{number}", b"x", lease)
    log.do(RevokeLease(lease))
    assert log.machine.digest == before
    assert log.machine.size == 2
