"""Every planted bug is found, by the invariant that is there for it, and without it the same story is clean."""

import ast
import os
from functools import cache

import pytest

from sim.invariants import INVARIANTS
from tests.mutants.catalogue import CLOCK, HASH_ORDER, MUTANTS, SET_ORDER
from tests.mutants.plant import planted, run_planted, source_of
from tests.support.purity import violations

SEEN_BY_INVARIANTS = [mutant for mutant in MUTANTS.values() if mutant.invariant]
# Two runs in processes of their own for each: `make test` tries every fourth, `make prove` all.
TRIED = SEEN_BY_INVARIANTS if os.environ.get("DISLOCATE_PROFILE") == "full" else SEEN_BY_INVARIANTS[::4]


@cache
def clean_run(scenario, seed, hash_seed="0"):
    return run_planted(None, scenario, seed, hash_seed=hash_seed)


@pytest.mark.parametrize("mutant", TRIED, ids=lambda mutant: mutant.name)
def test_a_mutant_is_found_by_its_invariant(mutant):
    found = []
    for seed in mutant.seeds:
        assert clean_run(mutant.scenario, seed).violated is None
        found.append(run_planted(mutant, mutant.scenario, seed).violated)
        if found[-1] == mutant.invariant:
            return
    pytest.fail(f"{mutant.invariant!r} did not notice it; seeds {mutant.seeds} found {found}")


def test_every_invariant_has_a_mutant():
    assert {mutant.invariant for mutant in SEEN_BY_INVARIANTS} == {invariant.name for invariant in INVARIANTS}


@pytest.mark.parametrize("mutant", [HASH_ORDER, SET_ORDER], ids=lambda mutant: mutant.name)
def test_an_order_that_hashes_make_shows_in_the_digest(mutant):
    clean = {clean_run(mutant.scenario, 1, hash_seed).digest for hash_seed in ("0", "1")}
    digests = {run_planted(mutant, mutant.scenario, 1, hash_seed=hash_seed).digest for hash_seed in ("0", "1", "2")}
    assert len(clean) == 1 < len(digests)


@pytest.mark.parametrize(
    ("mutant", "words"),
    [(CLOCK, "imports time"), (SET_ORDER, "iterates a set"), (HASH_ORDER, "calls hash()")],
    ids=lambda value: getattr(value, "name", ""),
)
def test_what_a_core_module_may_not_do_is_seen_in_its_syntax_tree(mutant, words):
    assert not violations(ast.parse(source_of(mutant).read_text()))
    assert words in [what for _, what in violations(ast.parse(planted(mutant)))]
