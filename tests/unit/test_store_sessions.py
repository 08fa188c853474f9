"""An asking sent twice is done once, and answered the same both times."""

import pytest

from dislocate.core.boundary.store import Delete, Get, Put, Transact, Transacted, Uncertain
from dislocate.core.store import sessions as sessions_module
from dislocate.core.store.machine import StoreMachine
from dislocate.core.store.sessions import Sessions
from dislocate.core.tunables import SESSION_RESULT_BYTES, SESSION_RESULTS
from tests.support.store_log import StoreLog, asked, contents


@pytest.fixture
def log() -> StoreLog:
    return StoreLog()


def put(key: str, value: bytes = b"") -> Transact:
    return Transact((), (Put(key, value),))


def test_a_repeated_put_is_done_once_and_answered_the_same(log):
    first = log.do(put("a", b"1"), asked(1))
    log.put("a", b"2")
    again = log.do(put("a", b"1"), asked(1))
    assert again.result == first.result
    assert again.changes == ()
    assert log.get("a")[0].value == b"2"


def test_a_refusal_is_repeated_too(log):
    body = Transact((), (Put("a", b"", lease=3),))
    first = log.do(body, asked(1)).result
    log.put("b")
    log.grant()
    assert 3 in log.machine.leases
    assert log.do(body, asked(1)).result == first


def test_what_was_read_and_removed_is_repeated(log):
    log.put("a", b"1")
    body = Transact((), (Get("a"), Put("b", b"2"), Delete("a")))
    first = log.do(body, asked(1)).result
    assert log.do(body, asked(1)).result == first


def test_the_value_of_a_large_put_comes_back_from_the_repeated_command_and_is_not_kept(log):
    body = put("a", bytes(200_000))
    first = log.do(body, asked(1)).result
    session = next(record for record in log.machine.all_records() if record.key == "store/s/fra/a1")
    assert len(session.value) < 200
    assert log.do(body, asked(1)).result == first


def test_a_large_answer_is_not_kept_and_its_repetition_says_so(log):
    log.put("a", bytes(SESSION_RESULT_BYTES))
    body = Transact((), (Get("a"), Delete("a")))
    assert isinstance(log.do(body, asked(1)).result, Transacted)
    log.put("a")
    again = log.do(body, asked(1)).result
    assert isinstance(again, Uncertain)
    assert "it was done by revision 2" in again.reason
    assert log.names() == ["a"]


def test_an_asking_below_the_floor_is_not_done(log):
    log.do(put("a"), asked(5, floor=4))
    refused = log.do(put("b"), asked(3, floor=1)).result
    assert (refused.kind, refused.field) == ("conflict", "seq")
    assert log.do(put("c"), asked(4, floor=1)).result.succeeded
    assert log.names() == ["a", "c"]


def test_askings_may_overtake_each_other(log):
    assert log.do(put("b"), asked(2)).result.succeeded
    assert log.do(put("a"), asked(1)).result.succeeded
    assert log.names() == ["a", "b"]


def test_a_newer_start_ends_the_session_before_it(log):
    log.do(put("a"), asked(1, boot=7))
    log.do(put("b"), asked(1, boot=8))
    refused = log.do(put("c"), asked(2, boot=7)).result
    assert (refused.kind, refused.field) == ("conflict", "session")
    assert log.names() == ["a", "b"]
    assert len([record for record in log.machine.all_records() if record.key.startswith("store/s/")]) == 1


def test_too_many_askings_under_way_lose_the_oldest_answer_but_are_never_done_again(log):
    for seq in range(1, SESSION_RESULTS + 2):
        log.do(put("a"), asked(seq))
    assert isinstance(log.do(put("a"), asked(1)).result, Uncertain)
    assert isinstance(log.do(put("a"), asked(2)).result, Transacted)
    assert log.get("a")[0].version == SESSION_RESULTS + 1


def test_the_session_unused_for_longest_is_forgotten_first(log):
    log.machine._sessions._limit = 2
    log.do(put("a"), asked(1, agent="fra/a1"))
    log.do(put("a"), asked(1, agent="fra/a2"))
    log.do(put("a"), asked(2, agent="fra/a1"))
    log.do(put("a"), asked(1, agent="fra/a3"))
    kept = [key for key in contents(log.machine) if key.startswith("store/s/")]
    assert kept == ["store/s/fra/a1", "store/s/fra/a3"]


def test_a_recovered_store_forgets_the_same_session_next(log):
    for seq, agent in ((1, "fra/a1"), (1, "fra/a3"), (1, "fra/a2"), (2, "fra/a1")):
        log.do(put("a"), asked(seq, agent=agent))
    other = StoreMachine.recover(log.machine.all_records())
    for machine in (log.machine, other):
        machine._sessions._limit = 3
        StoreLog(machine).do(put("a"), asked(1, agent="wdc/a1"))
    assert contents(other) == contents(log.machine)
    assert "store/s/fra/a3" not in contents(other)


def test_answers_are_bounded_in_bytes_too():
    log = StoreLog()
    log.machine._sessions._limit_bytes = 2_000
    for number in range(50):
        log.do(put("a"), asked(1, agent=f"fra/a{number}"))
    kept = [key for key in contents(log.machine) if key.startswith("store/s/")]
    assert 1 <= len(kept) < 10
    assert "store/s/fra/a49" in kept


def test_the_floor_frees_the_answers_below_it():
    sessions = Sessions()
    log = StoreLog()
    log.machine._sessions = log.machine._parts.sessions = sessions
    for seq in range(1, 100):
        log.do(put("a"), asked(seq, floor=max(1, seq - 4)))
    assert len(sessions._sessions["fra/a1"].answers) == 5
    assert sessions._size == 5 * (2 * sessions_module._ANSWER_COST + 1)
