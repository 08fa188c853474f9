"""The audit's chain: whatever was done to it later shows."""

from msgspec.structs import replace

from dislocate.core.boundary.runs import Verb
from dislocate.core.runs.ledger import draft as draft_module
from dislocate.core.runs.ledger.audit import first_that_does_not_fit, hash_of, next_entry
from tests.support.runs_log import RunsLog


def chain(length):
    entries, before = [], None
    for number in range(length):
        before = next_entry(before, at=number, actor="ann", verb="pause", run="1", evidence=f"the {number}th")
        entries.append(before)
    return entries


def test_a_chain_that_nobody_touched_fits():
    assert first_that_does_not_fit(chain(5)) is None
    assert first_that_does_not_fit([]) is None
    assert [entry.number for entry in chain(3)] == [1, 2, 3]


def test_an_entry_that_was_changed_is_named():
    entries = chain(5)
    entries[2] = replace(entries[2], actor="mallory")
    assert first_that_does_not_fit(entries) == (3, "it was changed after it was written: its hash is another")


def test_an_entry_that_was_changed_with_its_hash_breaks_the_next_one():
    entries = chain(5)
    forged = replace(entries[2], actor="mallory")
    entries[2] = replace(forged, hash=hash_of(forged))
    number, why = first_that_does_not_fit(entries)
    assert number == 4
    assert "does not follow" in why


def test_an_entry_that_was_taken_out_is_missing():
    entries = chain(5)
    del entries[1]
    assert first_that_does_not_fit(entries) == (3, "entry 2 is missing")


def test_a_first_entry_that_says_it_follows_another_does_not_fit():
    entry = replace(chain(1)[0], before="00")
    assert first_that_does_not_fit([replace(entry, hash=hash_of(entry))]) is not None


def test_a_chain_whose_oldest_entries_went_still_fits():
    assert first_that_does_not_fit(chain(5)[2:]) is None


def test_the_oldest_entries_go_and_the_chain_goes_on(monkeypatch):
    monkeypatch.setattr(draft_module, "RUN_AUDIT_KEPT", 4)
    log = RunsLog()
    log.start()
    for _ in range(4):
        log.steer(Verb.PAUSE)
        log.steer(Verb.RESUME)
    assert [entry.number for entry in log.audit()] == [6, 7, 8, 9]
    assert first_that_does_not_fit(log.audit()) is None


def test_an_entry_says_who_did_what_to_which_run_and_what_came_of_it():
    log = RunsLog()
    log.start()
    log.steer(Verb.PAUSE, words="lunch")
    started, paused = log.audit()
    assert (started.actor, started.verb, started.run) == ("ann", "start", "1")
    assert (paused.actor, paused.verb, paused.evidence) == ("bob", "pause", "running -> paused (operator); lunch")
    assert (paused.before, paused.number) == (started.hash, 2)
