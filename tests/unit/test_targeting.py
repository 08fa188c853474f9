"""An expression means the same nodes everywhere, and says where it is wrong."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from dislocate.core.errors import LocalError
from dislocate.core.runs.amounts import amount, check_amount
from dislocate.core.runs.targeting import DEEPEST, LONGEST, Candidate, parse_target


def candidate(path, tags=(), services=()):
    datacenter, _, name = path.partition("/")
    return Candidate(path, datacenter, name, tuple(tags), tuple(services))


FLEET = (
    candidate("wdc/a2", ["role=web"], ["shop.web"]),
    candidate("fra/a1", ["role=web", "canary"], ["shop.web"]),
    candidate("fra/a2", ["role=web"], ["shop.web"]),
    candidate("fra/b1", ["role=db"], ["db.orders"]),
)
MANY = tuple(candidate(f"{datacenter}/n{number}") for datacenter in ("fra", "wdc") for number in range(40))


def chosen(text, candidates=FLEET):
    return list(parse_target(text).select(candidates))


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("*", ["fra/a1", "fra/a2", "fra/b1", "wdc/a2"]),
        ("dc:fra", ["fra/a1", "fra/a2", "fra/b1"]),
        ("dc:fra & service:shop.web", ["fra/a1", "fra/a2"]),
        ("dc:fra & service:shop.web & !tag:canary", ["fra/a2"]),
        ("dc:fra & (name:a1 | name:b1)", ["fra/a1", "fra/b1"]),
        ("dc:wdc | dc:fra & name:b*", ["fra/b1", "wdc/a2"]),
        ("tag:role=web & !dc:fra", ["wdc/a2"]),
        ("id in {fra/a1, wdc/a2}", ["fra/a1", "wdc/a2"]),
        ("id in {fra/a1} | id:wdc/*", ["fra/a1", "wdc/a2"]),
        ("service:shop.* & !(name:a1|name:zz)", ["fra/a2", "wdc/a2"]),
        ("tag:role=*b & name:*1", ["fra/a1", "fra/b1"]),
        ('tag:"role=web"', ["fra/a1", "fra/a2", "wdc/a2"]),
        ("100%", ["fra/a1", "fra/a2", "fra/b1", "wdc/a2"]),
        ("0%", []),
        ("dc:lon", []),
    ],
)
def test_an_expression_selects(text, paths):
    assert chosen(text) == paths


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "at character 1: an expression such as"),
        ("   ", "at character 1: an expression such as"),
        ("dcc:fra", "at character 1: one of dc, id, name, service, tag, not 'dcc', did you mean 'dc'?"),
        ("dc:fra & servce:shop.web", "at character 10: one of dc, id, name, service, tag, not 'servce', did you mean"),
        ("datacenter:fra", "did you mean 'dc'?"),
        ("dc:", "at character 1: a value right after 'dc:'"),
        ("dc: fra", "a value right after 'dc:'"),
        ("dc:fra &", "at character 9: a term such as 'dc:fra' or '*' before the end"),
        ("dc:fra && dc:wdc", "at character 9: a term such as 'dc:fra' or '*' before '&'"),
        ("dc:fra dc:wdc", "at character 8: '&', '|' or the end before 'dc:wdc'"),
        ("(dc:fra | dc:wdc", "at character 17: ')' for the '(' at 1"),
        ("dc:fra)", "at character 7: '&', '|' or the end before ')'"),
        ("id in {fra/a1", "at character 14: '}'"),
        ("id in fra/a1", "at character 7: '{'"),
        ("id in {}", "at character 8: a node as 'dc/name'"),
        ("id in {a1}", "at character 8: a node as 'dc/name'"),
        ("fra/a1", "'id:fra/a1' for one node"),
        ("role=web", "'tag:role=web'"),
        ("dc=fra", "'dc:fra'"),
        ("web", "such as 'name:web' or 'dc:web'"),
        ("101%", "a part of 0% to 100%"),
        ('tag:"web', "a second '\"' that ends the text"),
        ("!" * (DEEPEST + 2) + "*", f"at most {DEEPEST} parentheses"),
        ("(" * 5000, f"at most {DEEPEST} parentheses"),
        ("x" * (LONGEST + 1), f"at most {LONGEST} characters"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_mend(text, says):
    with pytest.raises(LocalError) as caught:
        parse_target(text)
    assert caught.value.field == "targets"
    assert says in caught.value.expected


def test_what_fits_nobody_is_told_with_the_nearest_that_does():
    assert parse_target("dc:frq & service:shop.weB").strangers(FLEET) == (
        "dc:frq fits no node, did you mean 'fra'?",
        "service:shop.weB fits no node, did you mean 'shop.web'?",
    )
    assert parse_target("dc:fra & name:a*").strangers(FLEET) == ()


def test_nodes_named_by_path_that_nobody_knows_are_not_left_out_in_silence():
    assert parse_target("id in {fra/a1, fra/zz} | id:lon/* | id:lon/c1").unknown_nodes(FLEET) == ("fra/zz", "lon/c1")


def test_a_part_is_taken_of_what_the_other_terms_select_whatever_their_order():
    assert len(chosen("dc:fra & 25%@x", MANY)) == 10
    assert chosen("25%@x & dc:fra", MANY) == chosen("dc:fra & 25%@x", MANY)
    assert set(chosen("dc:fra & (25%@x | dc:wdc)", MANY)) == set(chosen("dc:fra & 25%@x", MANY))
    assert chosen("dc:fra & 25%@x", MANY) != chosen("dc:fra & 25%@y", MANY)


def test_a_part_of_a_few_is_rounded_up():
    assert len(chosen("10%@x & dc:fra")) == 1


percents = some.integers(0, 100)
seeds = some.text("abcxyz019", max_size=5)
fleets = some.lists(some.sampled_from(MANY), unique=True)


@given(percents, percents, seeds, fleets)
def test_a_larger_part_holds_the_smaller(one, other, seed, fleet):
    less, more = sorted((one, other))
    assert set(chosen(f"{less}%@{seed}", fleet)) <= set(chosen(f"{more}%@{seed}", fleet))


@given(percents, seeds, fleets)
def test_a_part_and_its_negation_are_disjoint_and_are_all(percent, seed, fleet):
    inside, outside = chosen(f"dc:fra & {percent}%@{seed}", fleet), chosen(f"dc:fra & !{percent}%@{seed}", fleet)
    assert sorted(inside + outside) == chosen("dc:fra", fleet)


@given(percents, seeds, fleets, some.randoms(use_true_random=False))
def test_the_order_of_the_candidates_does_not_matter(percent, seed, fleet, random):
    shuffled = list(fleet)
    random.shuffle(shuffled)
    assert chosen(f"{percent}%@{seed}", shuffled) == chosen(f"{percent}%@{seed}", fleet)


@given(percents, seeds, fleets.filter(bool))
def test_who_leaves_takes_no_other_out_and_lets_at_most_one_in(percent, seed, fleet):
    before, after = chosen(f"{percent}%@{seed}", fleet), chosen(f"{percent}%@{seed}", fleet[1:])
    stayed = set(before) - {fleet[0].path}
    assert len(set(after) - stayed) <= 1
    assert len(stayed - set(after)) <= 1


def expressions():
    words = some.sampled_from(
        ["*", "dc:fra", "!dc:wdc", "name:n1*", "id in {fra/n1, wdc/n2}", "service:a.b", "tag:x", "30%@s", "!50%"]
    )
    return some.recursive(
        words,
        lambda inner: some.one_of(
            some.tuples(inner, some.sampled_from([" & ", "|"]), inner).map("".join),
            inner.map(lambda text: f"({text})"),
            inner.map(lambda text: f"!({text})"),
        ),
        max_leaves=8,
    )


@given(expressions(), fleets)
@settings(max_examples=200)
def test_every_expression_selects_each_node_at_most_once_and_none_but_candidates(text, fleet):
    paths = chosen(text, fleet)
    assert paths == sorted(set(paths))
    assert set(paths) <= {each.path for each in fleet}


@given(some.text('dcfra:&|!(){},*%@" =/id in1', max_size=30))
@settings(max_examples=500)
def test_whatever_is_written_is_read_or_refused(text):
    with suppress(LocalError):  # and nothing else
        parse_target(text).select(FLEET)


@pytest.mark.parametrize(
    ("given_", "of", "nodes"), [(3, 10, 3), ("25%", 10, 3), ("1%", 3, 1), ("0%", 3, 0), (0, 3, 0), ("100%", 7, 7)]
)
def test_an_amount_is_rounded_up_and_at_least_one(given_, of, nodes):
    assert amount(given_, of) == nodes


@pytest.mark.parametrize("given_", ["x", "-1%", "101%", "25", "2.5%", -1, True, ""])
def test_what_is_no_amount_is_refused(given_):
    with pytest.raises(LocalError, match="a whole number of nodes"):
        check_amount(given_, "strategy.batch")
