"""Requests in the simulated fleet: callers on hosts, instances that queue, and what is claimed of both."""

from dataclasses import dataclass

import pytest

from dislocate.core.boundary.balance import Share, Spill
from dislocate.core.errors import ConfigError
from dislocate.core.units import SECOND
from sim.run import Run
from sim.scenario import parse_scenario
from sim.traffic.book import CallBook, CallerBook
from sim.traffic.claims import REQUEST_CLAIMS

TEXT = """
title = "Callers"
why = "To see what they do."
duration = "{duration}s"
[datacenters.fra]
nodes = 2
[datacenters.lon]
nodes = 2
[[services]]
name = "shop.web"
per_datacenter = 2
interval = "1s"
timeout = "1s"
takes = "20ms"
[[workloads]]
name = "callers"
kind = "requests"
service = "shop.web"
at = ["fra/a1", "lon/a1"]
clients = 2
rate = {rate}
from = "6s"
{more}
"""


def tell(more="", duration=20, rate=20.0, seed=1):
    run = Run(parse_scenario(TEXT.format(more=more, duration=duration, rate=rate)), seed)
    return run, run.to_the_end()


def test_callers_are_served_at_home_and_all_calls_are_in_the_book():
    run, report = tell('[[expect]]\nkind = "budget"\nclaim = "requests_ok"')
    assert report.holds, report.as_text("")
    fra, lon = run.world.truth.calls.callers
    assert fra.ended == len(fra.ends) > 200
    assert {name for there in fra.sent.values() for name in there} == {"fra"}
    assert {name for there in lon.sent.values() for name in there} == {"lon"}


def test_instances_tell_their_load_and_callers_their_usage():
    run, _ = tell()
    node = run.world.node("lon/a2")
    loads = [one.load for one in run.world.instances("lon/a2", "shop.web")]
    assert all(load is not None for load in loads)
    assert node.flows.of("shop.web").inputs[0].demand == pytest.approx(20, rel=0.5)


def test_a_killed_instance_costs_no_call_and_a_fleet_without_any_does():
    kill = '[[at]]\ntime = "12s"\ndo = "kill"\ntarget = "{}"\n'
    _, one = tell(kill.format("fra/shop.web#1") + '[[expect]]\nkind = "budget"\nclaim = "requests_ok"')
    assert one.holds, one.as_text("")
    _, all_of_them = tell(kill.format("shop.web") + '[[expect]]\nkind = "budget"\nclaim = "requests_ok"')
    assert not all_of_them.holds
    assert "calls failed" in all_of_them.verdicts[0].why


def test_callers_go_on_with_what_they_know_while_their_agent_is_dead():
    story = '[[at]]\ntime = "10s"\ndo = "kill"\ntarget = "fra/a1"\n[[expect]]\nkind = "budget"\nclaim = "requests_ok"'
    run, report = tell(story)
    assert report.holds, report.as_text("")
    assert max(begun for begun, *_ in run.world.truth.calls.callers[0].ends) > 19 * SECOND


def test_a_closed_loop_asks_again_when_it_was_answered():
    closed = TEXT.replace("rate = {rate}", 'rate = 0\nusers = 3\nthink = "10ms"')
    run = Run(parse_scenario(closed.format(more="", duration=12)), seed=1)
    assert run.to_the_end().holds
    for book in run.world.truth.calls.callers:
        assert book.begun > 200
        assert book.begun - book.ended <= 3


def test_slow_and_failing_instances_are_so_until_they_are_mended():
    faults = '[[at]]\ntime = "8s"\ndo = "serve_{}"\ntarget = "fra/shop.web#1"\n{}\nfor = "4s"\n'
    run, _ = tell(faults.format("slow", "factor = 5.0") + faults.format("fail", "loss = 0.5").replace('"8s"', '"14s"'))
    places = [service for machine in run.world.machines.values() for service in machine.services.values()]
    first = next(one.station for one in places if str(one.instance) == "fra/shop.web#1")
    assert (first.slowness, first.fails) == (1.0, 0.0)
    assert any(failed == 0 for *_, failed in run.world.truth.calls.callers[0].ends)
    assert run.world.truth.calls.callers[0].attempts > run.world.truth.calls.callers[0].begun


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        ('service = "shop.web"', 'service = "shop.wbe"', "workloads[0].service"),
        ('kind = "requests"', 'kind = "kv"', "workloads[0].service"),
        ("rate = 20", "rate = 20\nusers = 0", "workloads[0].users"),
        ("rate = 20", 'rate = 20\ntimeout = "0s"', "workloads[0].timeout"),
        ('takes = "20ms"', 'takes = "0s"', "services[0].takes"),
        ('takes = "20ms"', "workers = 0", "services[0].workers"),
    ],
)
def test_what_means_nothing_is_told(line, field, words):
    text = TEXT.format(more="", duration=20, rate=20)
    assert line in text
    with pytest.raises(ConfigError) as caught:
        parse_scenario(text.replace(line, field))
    assert caught.value.field == words


def test_a_claim_about_calls_names_a_service_or_nobody():
    with pytest.raises(ConfigError, match=r"shop\.web"):
        tell('[[expect]]\nkind = "budget"\nclaim = "requests_ok"\nof = "fra"')


STORE = 'servers = ["fra/a1", "lon/a1"]\n[datacenters.fra]'


def test_a_policy_is_written_and_followed():
    policy = '[policies."shop.web"]\nspill = "never"\nretries = { attempts = 2 }\n'
    run = Run(parse_scenario(TEXT.replace("[datacenters.fra]", STORE).format(more=policy, duration=14, rate=5)), seed=1)
    run.to_the_end()
    found = run.world.node("lon/a2").flows.of("shop.web").policy
    assert (found.spill, found.retries.attempts) == (Spill.NEVER, 2)


@pytest.mark.parametrize(
    ("table", "field"),
    [
        ('[policies."shop.web"]\nspill = "sometimes"', "policies.shop.web.spill"),
        ('[policies."shop.web"]\nspil = "never"', "policies.shop.web.spil"),
        ('[policies."shop.db"]\nspill = "never"', "policies.shop.db"),
    ],
)
def test_a_policy_that_means_nothing_is_told(table, field):
    with pytest.raises(ConfigError) as caught:
        parse_scenario(TEXT.replace("[datacenters.fra]", STORE).format(more=table, duration=20, rate=5))
    assert caught.value.field == field
    with pytest.raises(ConfigError, match="kept in the store"):
        parse_scenario(TEXT.format(more='[policies."shop.web"]\nspill = "never"', duration=20, rate=5))


# ---- claims


@dataclass
class SeenHere:
    ended: int = 100
    failed: int = 0
    p99: float = 0.1
    astray: float = 0.01
    where: str = ""
    crossing: float = 0.0


def test_claims_hold_up_to_their_budget_and_never_where_nobody_called():
    for name, good, bad in (
        ("requests_ok", SeenHere(), SeenHere(failed=1)),
        ("shares_follow_flows", SeenHere(), SeenHere(astray=0.06)),
        ("request_p99", SeenHere(), SeenHere(p99=0.3)),
        ("requests_cross", SeenHere(), SeenHere(crossing=0.1)),
    ):
        at_most = {"requests_ok": 0, "shares_follow_flows": 0.05, "request_p99": 0.2, "requests_cross": 0}[name]
        assert REQUEST_CLAIMS[name](good, at_most)[0]
        assert not REQUEST_CLAIMS[name](bad, at_most)[0]
        assert not REQUEST_CLAIMS[name](SeenHere(ended=0), at_most)[0]


def test_astray_is_the_most_that_a_part_differs_from_what_was_published():
    book, shares = CallBook(), (Share("fra", 0.5), Share("lon", 0.5))
    caller = CallerBook("one", "fra/a1", "shop.web")
    for second, there in ((1, ("fra",) * 8 + ("lon",) * 2), (2, ("fra",) * 4 + ("lon",) * 6)):
        for datacenter in there:
            caller.first_sent(datacenter, shares, second)
    for published in (shares, ()):  # a second in which the agent was away for some
        caller.first_sent("fra", published, 3)
    book.callers.append(caller)
    assert book.seen((), ("fra/a1",), 0, 4 * SECOND).astray == pytest.approx(0.1)
    assert book.seen((), ("fra/a1",), 0, 2 * SECOND).astray == pytest.approx(0.3)
    assert "80.0 % sent" in book.seen(("shop.web",), ("fra/a1",), 0, 2 * SECOND).where
    assert book.seen(("shop.db",), ("fra/a1",), 0, 3 * SECOND).ended == 0


def test_where_nothing_was_published_no_call_went_where_it_should():
    book, caller = CallBook(), CallerBook("one", "fra/a1", "shop.web")
    caller.first_sent("fra", (), 1)
    book.callers.append(caller)
    seen = book.seen((), ("fra/a1",), 0, 4 * SECOND)
    assert seen.astray == 1.0
    assert "nothing was published" in seen.where
