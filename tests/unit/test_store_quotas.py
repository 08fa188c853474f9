"""The store is bounded, altogether and below prefixes that have a quota; a full one can be emptied."""

import pytest

from dislocate.core.boundary.store import Delete, Put, RevokeLease
from dislocate.core.store import quotas as quotas_module
from dislocate.core.store.machine import StoreMachine
from tests.support.store_log import StoreLog


@pytest.fixture
def log() -> StoreLog:
    return StoreLog()


def test_a_full_store_refuses_what_makes_it_larger_and_says_the_mend(log, monkeypatch):
    monkeypatch.setattr(quotas_module, "STORE_BYTES", 20)
    log.put("a", bytes(19))
    refused = log.transact(Put("b", b""), Put("c", b""))
    assert (refused.kind, refused.field) == ("storage", "store")
    assert "delete keys" in refused.reason
    assert log.names() == ["a"]
    assert log.machine.size == 20


def test_a_full_store_takes_what_makes_it_smaller(log, monkeypatch):
    log.put("a", bytes(50))
    monkeypatch.setattr(quotas_module, "STORE_BYTES", 20)
    assert log.put("a", bytes(30)).version == 2
    assert log.transact(Delete("a"), Put("b", bytes(5))).succeeded
    assert log.machine.size == 6


def test_the_number_of_keys_is_bounded(log, monkeypatch):
    monkeypatch.setattr(quotas_module, "STORE_KEYS", 2)
    log.put("a")
    log.put("b")
    assert log.transact(Put("c", b"")).kind == "storage"
    assert log.transact(Delete("a"), Put("c", b"")).succeeded
    assert log.put("b", b"longer").version == 2


def test_a_prefix_with_a_quota_is_bounded_on_its_own(log):
    log.put("app/1", b"12345")
    log.put("system/quota/app/", b"15")
    refused = log.transact(Put("app/2", b"1"))
    assert (refused.kind, refused.field) == ("storage", "app/")
    assert "raise system/quota/app/" in refused.reason
    log.put("apple", bytes(100))
    assert log.transact(Put("app/2", b"")).succeeded
    log.put("system/quota/app/", b"100")
    assert log.put("app/2", b"1")


def test_what_goes_away_below_a_quota_makes_room(log):
    log.put("system/quota/a", b"10")
    lease = log.grant()
    log.put("a1", bytes(8), lease)
    assert log.transact(Put("a2", b"")).kind == "storage"
    log.do(RevokeLease(lease))
    assert log.put("a2", bytes(8))
    log.delete("system/quota/a")
    assert log.put("a3", bytes(8))


def test_a_quota_below_what_is_there_lets_it_only_shrink(log):
    log.put("a", bytes(50))
    log.put("system/quota/a", b"10")
    assert log.transact(Put("a", bytes(51))).kind == "storage"
    assert log.put("a", bytes(40)).version == 2


def test_quotas_may_lie_within_each_other(log):
    log.put("system/quota/a/", b"100")
    log.put("system/quota/a/b/", b"10")
    assert log.transact(Put("a/b/c", bytes(6))).field == "a/b/"
    assert log.put("a/c", bytes(90))
    assert log.transact(Put("a/b/c", bytes(4))).field == "a/"


def test_a_transaction_is_bound_by_the_quotas_before_it(log):
    assert log.transact(Put("system/quota/a", b"1"), Put("abc", b"")).succeeded
    assert log.transact(Put("abcd", b"")).kind == "storage"


@pytest.mark.parametrize("value", [b"", b"-1", b"1.5", b"10 MiB", "٣".encode(), b"9" * 16])
def test_a_quota_that_is_no_number_is_refused(log, value):
    refused = log.transact(Put("system/quota/a", value))
    assert (refused.kind, refused.field) == ("invalid", "system/quota/a")


def test_quotas_are_bounded_in_number(log, monkeypatch):
    monkeypatch.setattr(quotas_module, "QUOTAS", 1)
    log.put("system/quota/a", b"1")
    assert log.transact(Put("system/quota/b", b"1")).kind == "storage"
    assert log.put("system/quota/a", b"2")


def test_a_recovered_store_counts_on_from_what_is_there(log):
    log.put("system/quota/é", b"20")
    log.put("é1", bytes(10))
    log.put("é2", b"")
    log.delete("é2")
    other = StoreMachine.recover(log.machine.all_records())
    assert other._quotas._used == log.machine._quotas._used == {"é": 13}
    assert StoreLog(other).transact(Put("é2", bytes(5))).kind == "storage"
