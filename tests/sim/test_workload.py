"""Clients of a simulated store ask, testify, and are judged; a mistake in their tables is told."""

import pytest

from dislocate.core.errors import ConfigError
from dislocate.core.units import SECOND
from sim.history import Outcome, Verdict, check_linearizable
from sim.run import Run
from sim.scenario import parse_scenario
from sim.workload.testimony import Reread, Watched

TEXT = """
title = "Clients"
why = "To see what they ask."
duration = "30s"
servers = ["fra/a1", "fra/a2", "fra/a3"]
[datacenters.fra]
nodes = 4
[[workloads]]
name = "keys"
clients = 3
rate = 5.0
mix = { put = 2, get = 2, cas = 1, delete = 1, txn = 1, scan = 1, local = 1 }
[[workloads]]
name = "locks"
kind = "locks"
clients = 2
keys = 1
ttl = "4s"
[[workloads]]
name = "eyes"
kind = "watch"
of = "keys"
clients = 1
[[expect]]
kind = "eventually"
claim = "store_writable"
within = "10s"
[[expect]]
kind = "eventually"
claim = "servers_are"
of = ["fra/a1", "fra/a2", "fra/a3"]
within = "10s"
"""


@pytest.fixture(scope="module")
def run():
    told = Run(parse_scenario(TEXT), seed=1)
    report = told.to_the_end()
    assert report.holds, report.as_text("")
    return told


def test_every_kind_of_operation_is_in_the_history_and_an_order_explains_it(run):
    history = run.world.truth.clients.history.operations()
    done = {one.action.kind for one in history if one.outcome is Outcome.OK}
    assert done == {"get", "put", "delete", "cas", "txn"}
    assert check_linearizable(history).verdict is Verdict.OK


def test_values_tell_who_wrote_them(run):
    written = [value for one in run.world.truth.clients.history.operations() for _, value in one.action.writes if value]
    assert len(set(written)) == len(written)
    assert all(value.startswith(b"keys-") for value in written)


def test_a_watcher_begins_with_what_is_there_and_then_hears_changes(run):
    told = run.world.truth.clients.watched
    assert isinstance(told[0], Reread)
    changes = [change for one in told if isinstance(one, Watched) for change in one.changes]
    assert len(changes) > 20
    assert all(change.key.startswith("work/keys/") for change in changes)


def test_locks_are_granted_in_turn_with_growing_tokens(run):
    tokens = [grant.token for grant in run.world.truth.clients.grants]
    assert len(tokens) > 1
    assert tokens == sorted(set(tokens))


def test_the_invariants_of_the_store_had_something_to_judge(run):
    idle = {one.name for one in run.monitor.invariants if not one.exercised}
    assert not idle & {"one log", "the store is linearizable", "watchers miss nothing", "tokens fence"}


def test_a_client_whose_agent_dies_cannot_know_what_became_of_its_question():
    story = parse_scenario(TEXT + '[[at]]\ntime = "15s"\ndo = "pause"\ntarget = "fra/a4"\nfor = "20s"\n')
    told = Run(story, seed=1)
    told.world.run(16 * SECOND)
    waiting = [one for one in told.world.truth.clients.history.operations() if one.returned is None]
    told.world.end(told.world.machines["fra/a4"])
    told.world.run(17 * SECOND)
    ended = {one.invoked: one for one in told.world.truth.clients.history.operations()}
    assert waiting
    assert all(ended[one.invoked].outcome is Outcome.UNCERTAIN for one in waiting)


@pytest.mark.parametrize(
    ("before", "after", "field", "mend"),
    [
        ('servers = ["fra/a1"', 'servers = ["fra/a9"', "servers[0]", "fra/a1"),
        ('name = "locks"', 'name = "keys"', "workloads[1].name", "another name"),
        ('kind = "locks"', 'kind = "lock"', "workloads[1].kind", "locks"),
        ("clients = 3", "clients = 0", "workloads[0].clients", "1 or more"),
        ("rate = 5.0", "rate = -1.0", "workloads[0].rate", "0 or more"),
        ("put = 2", "putt = 2", "workloads[0].mix", "put"),
        (
            "{ put = 2, get = 2, cas = 1, delete = 1, txn = 1, scan = 1, local = 1 }",
            "{ put = 0 }",
            "workloads[0].mix",
            "do",
        ),
        ('of = "keys"', 'of = "kays"', "workloads[2].of", "keys"),
        ('of = "keys"', 'at = "wdc"', "workloads[2].at", "fra"),
    ],
)
def test_a_mistake_in_a_table_names_its_field_and_the_mend(before, after, field, mend):
    assert before in TEXT
    with pytest.raises(ConfigError) as caught:
        parse_scenario(TEXT.replace(before, after, 1))
    assert caught.value.field == field
    assert mend in str(caught.value)
