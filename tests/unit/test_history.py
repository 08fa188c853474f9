"""A history is explained by an order, or it is said which answer no order explains; both checkers agree."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.streams import Streams
from sim.history import (
    Action,
    Commit,
    History,
    Operation,
    Outcome,
    Seen,
    Verdict,
    cas,
    check_by_commits,
    check_linearizable,
    delete,
    get,
    put,
)

OPEN = None


def did(client, action, invoked, returned, *values, ok=True, at=None):
    """An operation with its answer, or (`returned` OPEN) without one."""
    if returned is OPEN:
        return Operation(client, action, invoked, None, Outcome.UNCERTAIN)
    return Operation(client, action, invoked, returned, Outcome.OK, Seen(ok, values, at))


def verdict(*operations, **options):
    return check_linearizable(operations, **options).verdict


OK, ILLEGAL, UNKNOWN = Verdict.OK, Verdict.ILLEGAL, Verdict.UNKNOWN

GOOD = {
    "nothing happened": (),
    "a read of what was written": (did("a", put("k", b"1"), 1, 2), did("b", get("k"), 3, 4, b"1")),
    "a read beside the write sees it or not": (
        did("a", put("k", b"1"), 1, 6),
        did("b", get("k"), 2, 3, None),
        did("b", get("k"), 4, 5, b"1"),
    ),
    "writes beside each other in either order": (
        did("a", put("k", b"1"), 1, 4),
        did("b", put("k", b"2"), 2, 3),
        did("c", get("k"), 5, 6, b"1"),
    ),
    "one of two races wins": (
        did("a", cas("k", None, b"1"), 1, 4),
        did("b", cas("k", None, b"2"), 2, 3, ok=False),
        did("c", get("k"), 5, 6, b"1"),
    ),
    "a write without an answer shows late": (
        did("a", put("k", b"1"), 1, 2),
        did("b", put("k", b"2"), 3, OPEN),
        did("a", get("k"), 4, 5, b"1"),
        did("a", get("k"), 6, 7, b"2"),
    ),
    "a write without an answer never shows": (
        did("b", put("k", b"2"), 1, OPEN),
        did("a", get("k"), 2, 3, None),
    ),
    "an unseen write without an answer explains a race lost": (
        did("b", put("k", b"2"), 1, OPEN),
        did("a", cas("k", None, b"1"), 2, 3, ok=False),
    ),
    "one without an answer enables another": (
        did("a", put("k", b"1"), 1, OPEN),
        did("b", cas("k", b"1", b"2"), 2, OPEN),
        did("c", get("k"), 3, 4, b"2"),
    ),
    "what was refused is not there": (
        Operation("a", put("k", b"1"), 1, 2, Outcome.FAILED),
        did("b", get("k"), 3, 4, None),
    ),
    "a delete": (did("a", put("k", b"1"), 1, 2), did("a", delete("k"), 3, 4), did("b", get("k"), 5, 6, None)),
    "a transaction over two keys": (
        did("a", Action(writes=(("j", b"1"), ("k", b"1"))), 1, 4),
        did("b", get("j"), 2, 3, b"1"),
        did("b", get("k"), 5, 6, b"1"),
    ),
}

BAD = {
    "a stale read": (
        did("a", put("k", b"1"), 1, 2),
        did("a", put("k", b"2"), 3, 4),
        did("b", get("k"), 5, 6, b"1"),
    ),
    "a lost write": (did("a", put("k", b"1"), 1, 2), did("b", get("k"), 3, 4, None)),
    "a write done twice": (
        did("a", put("k", b"1"), 1, 2),
        did("b", put("k", b"2"), 3, 4),
        did("c", get("k"), 5, 6, b"2"),
        did("c", get("k"), 7, 8, b"1"),
    ),
    "a read that goes back between clients": (
        did("a", put("k", b"1"), 1, 10),
        did("b", get("k"), 2, 3, b"1"),
        did("c", get("k"), 4, 5, None),
    ),
    "both win a race": (
        did("a", cas("k", None, b"1"), 1, 4),
        did("b", cas("k", None, b"2"), 2, 3),
    ),
    "a race lost against nobody": (did("a", cas("k", None, b"1"), 1, 2, ok=False),),
    "a value out of nowhere": (did("a", get("k"), 1, 2, b"9"),),
    "what was refused is there": (
        Operation("a", put("k", b"1"), 1, 2, Outcome.FAILED),
        did("b", get("k"), 3, 4, b"1"),
    ),
    "a write without an answer shows, and shows no more": (
        did("b", put("k", b"2"), 1, OPEN),
        did("a", get("k"), 2, 3, b"2"),
        did("a", get("k"), 4, 5, None),
    ),
    "a write seen before it was asked for": (did("a", get("k"), 1, 2, b"1"), did("b", put("k", b"1"), 3, OPEN)),
    "half of a transaction": (
        did("a", Action(writes=(("j", b"1"), ("k", b"1"))), 1, 6),
        did("b", get("j"), 2, 3, b"1"),
        did("b", get("k"), 4, 5, None),
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_an_order_is_found_for(name):
    assert verdict(*GOOD[name]) is OK


@pytest.mark.parametrize("name", BAD)
def test_no_order_is_found_for(name):
    assert verdict(*BAD[name]) is ILLEGAL


def test_a_culprit_is_named_with_what_led_to_it():
    finding = check_linearizable((*BAD["a stale read"], did("b", put("j", b"7"), 7, 8)))
    assert str(finding) == (
        "k: no order explains the answer to b: get k -> 1 (5-6)\n"
        "  a: put k=1 (1-2)\n"
        "  a: put k=2 (3-4)\n"
        "  and now k is 2"
    )


def test_a_search_that_takes_too_long_says_so():
    writes = [did(f"c{n}", put("k", b"%d" % n), n, 100 + n) for n in range(1, 13)]
    assert verdict(*writes, did("r", get("k"), 200, 201, b"nothing like it"), steps=1000) is UNKNOWN


def test_keys_that_have_nothing_in_common_are_searched_one_by_one():
    """Together, 12 writers at a time for 8 keys would be 96 beside each other."""
    operations = []
    for key in "abcdefgh":
        writes = [did(f"{key}{n}", put(key, b"%d" % n), n, 100 + n) for n in range(1, 7)]
        operations += [*writes, did("r", get(key), 200, 201, b"3")]
    finding = check_linearizable(operations)
    assert finding.verdict is OK
    assert finding.steps < 20_000


def test_a_hundred_writes_without_an_answer_that_nobody_saw_cost_nothing():
    lost = [did(f"c{n}", put("k", b"lost %d" % n), n, OPEN) for n in range(1, 101)]
    seen = [did("w", put("k", b"%d" % n), 1000 + n, 2000 - n) for n in range(10)]
    finding = check_linearizable((*lost, *seen, did("r", get("k"), 3000, 3001, b"7")))
    assert finding.verdict is OK
    assert finding.steps < 5_000


def test_a_history_is_collected_while_it_happens():
    history = History()
    first = history.invoke("a", put("k", b"1"))
    second = history.invoke("b", get("k"))
    history.invoke("c", get("k"))
    history.complete(second, Outcome.OK, Seen(values=(b"1",), revision=1))
    history.complete(first, Outcome.UNCERTAIN)
    assert [(one.client, one.invoked, one.returned, one.outcome) for one in history.operations()] == [
        ("a", 1, None, Outcome.UNCERTAIN),
        ("b", 2, 4, Outcome.OK),
        ("c", 3, None, Outcome.UNCERTAIN),
    ]


# ---- the order of commits


def test_commits_that_explain_a_history():
    history = (
        did("a", put("k", b"1"), 1, 4, at=1),
        did("b", get("k"), 2, 3, None, at=0),
        did("b", put("k", b"2"), 5, OPEN),
        did("a", cas("k", b"2", b"3"), 6, 7, at=3),
        did("a", delete("j"), 8, 9, at=3),
        did("a", delete("k"), 10, 11, at=4),
        did("a", get("k"), 12, 13, None, at=4),
    )
    commits = [Commit(1, "k", b"1"), Commit(2, "k", b"2"), Commit(3, "k", b"3"), Commit(4, "k", None)]
    assert check_by_commits(history, commits) is None


@pytest.mark.parametrize(
    ("history", "commits", "words"),
    [
        ([did("a", put("k", b"1"), 1, 2, at=1)], [], "is not there"),
        ([], [(1, b"1")], "asked for by nobody"),
        ([Operation("a", put("k", b"1"), 1, 2, Outcome.FAILED)], [(1, b"1")], "or refused"),
        ([did("a", put("k", b"1"), 1, OPEN)], [(1, b"1"), (2, b"1")], "was done twice, at revisions 1 and 2"),
        (
            [did("a", put("k", b"1"), 1, 2, at=1), did("b", get("k"), 3, 4, None, at=0)],
            [(1, b"1")],
            "had ended at revision 1 before it began",
        ),
        ([did("a", put("k", b"1"), 1, 4, at=1), did("b", get("k"), 2, 3, None, at=1)], [(1, b"1")], "when k was 1"),
        (
            [did("a", put("k", b"1"), 1, 2, at=2), did("b", put("k", b"2"), 3, 4, at=1)],
            [(1, b"2"), (2, b"1")],
            "b: put k=2 (3-4) has revision 1",
        ),
        (
            [did("a", put("k", b"1"), 1, 4, at=1), did("b", cas("k", None, b"2"), 2, 3, at=2)],
            [(1, b"1"), (2, b"2")],
            "when k was 1",
        ),
        (
            [did("a", get("k"), 1, 2, None, at=5), did("b", put("k", b"2"), 3, OPEN)],
            [(4, b"2")],
            "when k was 2",
        ),
        (
            [did("x", put("j", b"1"), 1, 2, at=5), did("b", put("k", b"2"), 3, OPEN)],
            [(4, b"2"), (5, b"1", "j")],
            "had ended at revision 5",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_commits_that_do_not_explain_a_history(history, commits, words):
    found = check_by_commits(history, [Commit(at, *key or ["k"], value) for at, value, *key in commits])
    assert found is not None
    assert words in found


# ---- both agree


def executed(stream, clients=4, keys=2, count=14, unanswered=0.15):
    """A sequential execution stretched over time: operations with the instant at which each really took effect inside,
    and the changes that were made."""
    state, commits, operations, revision = {}, [], [], 0
    free = dict.fromkeys(range(clients), 0)  # when a client's last operation ended
    for number in range(count):
        instant = 100 * (number + 1)
        client = stream.below(clients)
        key = f"k{stream.below(keys)}"
        value = b"%d" % number
        action = stream.choice(
            [get(key), put(key, value), delete(key), cas(key, state.get(key), value), cas(key, b"never", value)]
        )
        if free[client] >= instant:
            continue
        invoked = stream.between(max(free[client] + 1, instant - 350), instant)
        returned = stream.between(instant, instant + 350)
        free[client] = returned
        is_unanswered = stream.chance(unanswered)
        succeeded = all(state.get(at) == wanted for at, wanted in action.expects)
        values = tuple(state.get(at) for at in action.reads)
        if succeeded and not (is_unanswered and stream.chance(0.5)):
            for at, new in action.writes:
                if new is not None or state.get(at) is not None:
                    revision += 1
                    commits.append(Commit(revision, at, new))
                state[at] = new
        operations.append(
            did(f"c{client}", action, invoked, OPEN)
            if is_unanswered
            else did(f"c{client}", action, invoked, returned, *values, ok=succeeded, at=revision)
        )
    return _numbered(operations), commits


def _numbered(operations):
    """With order numbers, all different, for instants."""
    instants = [(one.invoked, 0, at) for at, one in enumerate(operations)]
    instants += [(one.returned, 1, at) for at, one in enumerate(operations) if one.returned is not None]
    number = {(end, at): place for place, (_, end, at) in enumerate(sorted(instants), 1)}
    return [
        Operation(one.client, one.action, number[0, at], number.get((1, at)), one.outcome, one.seen)
        for at, one in enumerate(operations)
    ]


@given(st.integers(0, 1 << 32))
def test_a_sequential_execution_stretched_over_time_is_linearizable(seed):
    history, commits = executed(Streams(str(seed))["history"])
    assert check_linearizable(history).verdict is OK
    assert check_by_commits(history, commits) is None


def spoiled(stream, history):
    """The same history with one answer that is another; None when there is none to spoil."""
    victims = [
        at for at, one in enumerate(history) if one.seen is not None and (one.action.reads or one.action.expects)
    ]
    if not victims:
        return None
    at = stream.choice(victims)
    one = history[at]
    values = tuple(b"%d" % stream.below(14) for _ in one.action.reads)
    seen = Seen(one.seen.succeeded if values else not one.seen.succeeded, values, one.seen.revision)
    return [
        *history[:at],
        Operation(one.client, one.action, one.invoked, one.returned, one.outcome, seen),
        *history[at + 1 :],
    ]


def brute_force(history):
    """Whether any order explains `history`: all are tried, with nothing remembered."""
    live = [one for one in history if one.outcome is not Outcome.FAILED]

    def explained(left, state):
        if all(one.returned is None for one in left):
            return True
        first_end = min(one.returned for one in left if one.returned is not None)
        for one in left:
            if one.invoked > first_end:
                continue
            holds = all(state.get(key) == value for key, value in one.action.expects)
            if one.seen is not None and (
                holds != one.seen.succeeded or tuple(state.get(key) for key in one.action.reads) != one.seen.values
            ):
                continue
            after = state | (dict(one.action.writes) if holds else {})
            if explained([other for other in left if other is not one], after):
                return True
        return False

    return explained(live, {})


@given(st.integers(0, 1 << 32))
def test_a_spoiled_history_is_judged_as_trying_all_orders_judges_it(seed):
    stream = Streams(str(seed))["history"]
    history, _ = executed(stream, count=9)
    history = spoiled(stream, history) or history
    assert (verdict(*history) is OK) == brute_force(history)


@given(st.integers(0, 1 << 32))
def test_what_the_search_finds_illegal_no_commits_explain(seed):
    stream = Streams(str(seed))["history"]
    history, commits = executed(stream)
    history = spoiled(stream, history) or history
    if verdict(*history) is ILLEGAL:
        assert check_by_commits(history, commits) is not None


def test_most_spoiled_histories_are_found_illegal():
    judged = []
    for seed in range(300):
        stream = Streams(str(seed))["history"]
        history = spoiled(stream, executed(stream, count=30)[0])
        if history is not None:
            judged.append(verdict(*history))
    assert judged.count(ILLEGAL) > 0.8 * len(judged)
    assert UNKNOWN not in judged
