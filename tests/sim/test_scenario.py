"""A scenario file says what it means, or is told what it should have said."""

from pathlib import Path

import pytest

from dislocate.core.errors import ConfigError
from dislocate.core.units import MILLISECOND, SECOND
from sim.claims import EVENT_CLAIMS, VIEW_CLAIMS, check_claim
from sim.faults import VERBS as DONE
from sim.faults import in_words, undoing
from sim.scenario import UNDO, VERBS, parse_scenario, read_scenario, rtt_between
from sim.selectors import Instance

SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.toml"))

TEXT = """
title = "A story"
why = "To be told."
duration = "2m"
[datacenters.fra]
nodes = 3
[datacenters.wdc]
nodes = 2
[[links]]
from = "fra"
to = "wdc"
rtt = "95ms"
[[services]]
name = "shop.web"
per_datacenter = 4
[[at]]
time = "4s"
do = "pause"
target = "fra/a1"
for = "3s"
[[expect]]
kind = "eventually"
claim = "dead"
of = "fra/a1"
within = "1500ms"
"""


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_that_ships_can_be_read_and_has_a_reason(path):
    scenario = read_scenario(path)
    assert scenario.why.endswith(".")
    assert scenario.expect
    for at, expect in enumerate(scenario.expect):
        check_claim(expect, scenario.layout(), f"expect[{at}]")


def test_words_become_nanoseconds():
    scenario = parse_scenario(TEXT)
    assert scenario.duration == 120 * SECOND
    assert scenario.expect[0].within == 1500 * MILLISECOND
    assert rtt_between(scenario, "fra", "wdc") == 95 * MILLISECOND
    assert rtt_between(scenario, "wdc", "fra") == 89 * MILLISECOND


def test_selectors_mean_agents_and_instances():
    layout = parse_scenario(TEXT).layout()
    assert layout.agents("wdc") == ("wdc/a1", "wdc/a2")
    assert layout.agents(("fra/a3", "fra")) == ("fra/a3", "fra/a1", "fra/a2")
    assert len(layout.agents("*")) == 5
    assert layout.chosen_instances("fra/shop.web#4") == (Instance("fra", "shop.web", 4),)
    assert layout.owner(Instance("fra", "shop.web", 4)) == "fra/a1"
    assert len(layout.chosen_instances("shop.web")) == 8


def test_what_lasts_is_undone():
    fault = parse_scenario(TEXT).at[0]
    end = undoing(fault)
    assert (end.do, end.time, end.target) == ("resume", 7 * SECOND, "fra/a1")
    assert in_words(fault) == "pause fra/a1"


def test_every_verb_is_done_and_undone_by_another():
    assert DONE.keys() == VERBS.keys()
    assert all(undo in VERBS for undo in UNDO.values())


def test_every_claim_says_what_it_claims():
    assert all(claim.__doc__ for name, claim in VIEW_CLAIMS.items() if not name.endswith("reachable"))
    assert not VIEW_CLAIMS.keys() & EVENT_CLAIMS.keys()


@pytest.mark.parametrize(
    ("before", "after", "field", "mend"),
    [
        ('"pause"', '"paus"', "at[0].do", "'pause'"),
        ("nodes = 3", "node = 3", "datacenters.fra.node", "'nodes'"),
        ("nodes = 3", "nodes = 0", "datacenters.fra.nodes", "from 1 to 5000"),
        ("nodes = 3", "nodes = 30000", "datacenters.fra.nodes", "from 1 to 5000"),
        ("nodes = 3", "nodes = '3'", "datacenters.fra.nodes", "a whole number"),
        ('"4s"', "4", "at[0].time", "duration"),
        ('"fra/a1"\nfor', '"fra/b1"\nfor', "at[0].target", "'fra/a1'"),
        ('"fra/a1"\nfor', '"fra/shop.web#5"\nfor', "at[0].target", "fra/shop.web#1 to fra/shop.web#4"),
        ('"fra/a1"\nfor', '"fra/shop.wib#1"\nfor', "at[0].target", "did you mean 'shop.web'"),
        ('of = "fra/a1"', 'of = "wdc/shop.web#9"', "expect[0].of", "wdc/shop.web#4"),
        ('"2m"', '"0s"', "duration", "such as '2m'"),
        ("nodes = 3", "nodes = 3\nloss = -0.1", "datacenters.fra.loss", "0 to 1"),
        ("nodes = 3", "nodes = 3\nregion = 'frx'", "datacenters.fra.region", "did you mean 'fra'"),
        ('rtt = "95ms"', "loss = 1.5", "links[0].loss", "0 to 1"),
        ('rtt = "95ms"', "jitter = -0.5", "links[0].jitter", "0 to 1"),
        ('rtt = "95ms"', "duplicate = nan", "links[0].duplicate", "0 to 1"),
        ("[[at]]", "[[services]]\nname = 'shop.web'\n[[at]]", "services[1].name", "per_datacenter"),
        ('"4s"', '"121s"', "at[0].time", "no later than the end"),
        ("within =", "after = '3m'\nwithin =", "expect[0].after", "no later than the end"),
        ('"pause"\ntarget = "fra/a1"', '"slow"\nfrom = "fra"\nfactor = -2.0', "at[0].factor", "more than 0"),
        ('"pause"\ntarget = "fra/a1"', '"slow"\nfrom = "fra"\nfactor = 0.0', "at[0].factor", "more than 0"),
        ('"pause"\ntarget = "fra/a1"', '"slow"\nfrom = "fra"', "at[0].factor", "'slow' needs it"),
        ('"pause"\ntarget = "fra/a1"', '"drop"\nfrom = "fra"\nloss = 1.1', "at[0].loss", "0 to 1"),
        ("for =", "fro =", "at[0].fro", "'for'"),
        ('target = "fra/a1"', "", "at[0].target", "'pause' needs it"),
        ("for =", "factor = 2.0\nfor =", "at[0].factor", "'pause' takes target"),
        ("datacenters.wdc", "datacenters.wash", "links[0].to", "one of"),
        ("title =", "titel =", "titel", "'title'"),
        ('within = "1500ms"', "", "expect[0].within", "duration"),
        ('"eventually"', '"evntually"', "expect[0].kind", "'eventually'"),
        ("why = ", "servises = []\nwhy = ", "servises", "'services'"),
    ],
)
def test_a_mistake_names_its_field_and_the_mend(before, after, field, mend):
    assert before in TEXT
    with pytest.raises(ConfigError) as caught:
        parse_scenario(TEXT.replace(before, after, 1))
    assert caught.value.field == field
    assert mend in caught.value.expected


@pytest.mark.parametrize(
    ("fields", "mend"),
    [
        ('kind = "always"\nclaim = "nobody_ded"', "'nobody_dead'"),
        ('kind = "always"\nclaim = "suspected"', "'suspect'"),
        ('kind = "always"\nclaim = "service_known"', "a service"),
        ('kind = "always"\nclaim = "service_status"\nof = "shop.web"\nstatus = "pasing"', "'passing'"),
        ('kind = "always"\nclaim = "dead"\nof = "shop.web"', "agents"),
        ('kind = "budget"\nclaim = "msgs_per_node"\nat_most = 3', "'msgs_per_node_s'"),
    ],
)
def test_a_claim_that_nobody_can_judge_is_an_error(fields, mend):
    scenario = parse_scenario(TEXT[: TEXT.index("[[expect]]")] + "[[expect]]\n" + fields)
    with pytest.raises(ConfigError) as caught:
        check_claim(scenario.expect[0], scenario.layout(), "expect[0]")
    assert mend in caught.value.expected


def test_one_data_center_alone_may_not_be_in_an_unknown_region():
    alone = 'title = "t"\nwhy = "w"\nduration = "9s"\n[datacenters.home]\nnodes = 1\n'
    assert parse_scenario(alone).datacenters["home"].nodes == 1
    with pytest.raises(ConfigError, match="did you mean 'fra'"):
        parse_scenario(alone + "region = 'frx'")


def test_an_unknown_region_asks_for_a_known_one_or_a_link():
    with pytest.raises(ConfigError, match=r"or one of .* did you mean 'fra'"):
        parse_scenario(TEXT.replace("[datacenters.wdc]\nnodes = 2", "[datacenters.wdc]\nnodes = 2\nregion = 'frx'"))


REGISTERED = """
[[at]]
time = "{registered}"
do = "register"
target = "fra/a1"
service = "db.orders"
[[at]]
time = "20s"
do = "deregister"
target = "fra/db.orders#{number}"
"""


def test_an_instance_may_be_named_once_it_was_registered():
    assert parse_scenario(TEXT + REGISTERED.format(registered="10s", number=1)).at[2].do == "deregister"
    for registered, number in (("10s", 2), ("30s", 1)):
        with pytest.raises(ConfigError) as caught:
            parse_scenario(TEXT + REGISTERED.format(registered=registered, number=number))
        assert caught.value.field == "at[2].target"
