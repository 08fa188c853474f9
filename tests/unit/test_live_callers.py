"""Callers of a live scenario: who calls whom from where, what they say, and services that are told to be in trouble."""

import io
import json

import msgspec
import pytest

from dislocate.core.errors import ConfigError
from dislocate.core.streams import Stream
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.fleet.blueprint import plan_agents, plan_callers, write
from dislocate.fleet.called import Application, CalledPlan
from dislocate.fleet.calling.reports import Reports
from dislocate.fleet.calling.words import Told
from dislocate.fleet.fleet import Fleet
from dislocate.fleet.live import LiveFaults
from dislocate.fleet.operators import Operators
from sim.scenario import Fault, parse_scenario

STORY = parse_scenario("""
title = "A story"
why = "To be told."
duration = "30s"
[datacenters.fra]
nodes = 2
[datacenters.wdc]
nodes = 1
[[services]]
name = "orders.api"
[[services]]
name = "shop.web"
[[workloads]]
name = "callers"
kind = "requests"
service = "orders.api"
clients = 3
at = ["fra/a2", "wdc"]
[[workloads]]
name = "keys"
""")


def test_a_process_calls_at_each_agent_that_a_workload_names(tmp_path):
    plans = plan_callers(STORY, plan_agents(STORY), tmp_path)
    assert {name: plan.names for name, plan in plans.items()} == {
        "callers@fra/a2": ("callers-1", "callers-3"),
        "callers@wdc/a1": ("callers-2",),
    }
    assert {plan.service for plan in plans.values()} == {"orders.api"}


def test_a_service_that_is_called_registers_itself(tmp_path):
    write(STORY, tmp_path)
    told = (tmp_path / "fra" / "a1" / "agent.toml").read_text()
    assert "shop.web" in told
    assert "orders.api" not in told


@pytest.mark.parametrize(("service", "is_called"), [("orders.api", True), ("shop.web", False)])
def test_only_who_is_called_can_serve_slowly(tmp_path, service, is_called):
    fault = Fault(time=0, do="serve_slow", target=f"fra/{service}#1", factor=5.0)
    with Fleet(STORY, tmp_path) as fleet:
        faults = LiveFaults(fleet, Operators(fleet))
        if is_called:
            faults.check(fault, "at[0]")
        else:
            with pytest.raises(ConfigError, match=r"fra/shop\.web#1.*calls"):
                faults.check(fault, "at[0]")


# ---- reports


@pytest.fixture
def plans(tmp_path):
    plans = plan_callers(STORY, plan_agents(STORY), tmp_path)
    for path in ("fra/a2", "wdc/a1"):
        (tmp_path / path).mkdir(parents=True)
    return plans


def told(caller, *ends, hanging=(), sent=None, wanted=None):
    begun = len(ends) + len(hanging)
    line = Told(caller=caller, at=0, begun=begun, ends=ends, sent=sent or {}, wanted=wanted or {}, hanging=hanging)
    return msgspec.json.encode(line) + b"\n"


def say(plan, *lines):
    with open(plan.reports, "ab") as file:
        file.write(b"".join(lines))


def seen(reports, *, services=("orders.api",), agents=("fra/a2", "wdc/a1"), until=30 * SECOND):
    return reports.seen(services, agents, 0, until)


def test_what_all_callers_wrote_is_judged_once_however_often_it_is_read(plans):
    reports = Reports(plans.values())
    say(plans["callers@fra/a2"], told("callers-1", (SECOND, MILLISECOND, False)), b'{"half a line')
    assert (seen(reports).ended, seen(reports).failed) == (1, 0)
    say(plans["callers@wdc/a1"], told("callers-2", (SECOND, MILLISECOND, True), (2 * SECOND, MILLISECOND, False)))
    assert (seen(reports).ended, seen(reports).failed) == (3, 1)
    assert seen(reports, agents=("fra/a2",)).failed == 0
    assert seen(reports, services=("shop.web",)).ended == 0


def test_a_call_that_hangs_has_failed(plans):
    reports = Reports(plans.values())
    say(plans["callers@wdc/a1"], told("callers-2", hanging=(SECOND,)))
    assert (seen(reports).ended, seen(reports).failed) == (1, 1)
    say(plans["callers@wdc/a1"], told("callers-2", (SECOND, 9 * SECOND, False)))
    assert (seen(reports).ended, seen(reports).failed) == (1, 0)


def test_a_second_that_is_told_in_two_parts_is_one(plans):
    reports = Reports(plans.values())
    for sent in ({"fra": 3}, {"wdc": 1}):
        say(plans["callers@fra/a2"], told("callers-1", sent={1: sent}, wanted={1: {"fra": float(sum(sent.values()))}}))
    assert seen(reports).astray == pytest.approx(0.25)


# ---- services


def ask(application, method="GET", path="/", body=b""):
    """The status."""
    statuses = []
    environ = {"REQUEST_METHOD": method, "PATH_INFO": path, "wsgi.input": io.BytesIO(body)}
    application(environ, lambda status, _headers: statuses.append(int(status.split()[0])))
    return statuses[0]


def test_a_service_is_told_its_trouble_and_told_that_it_is_over():
    plan = CalledPlan(
        name="fra/orders.api#1",
        service="orders.api",
        id="orders.api-1",
        agent="",
        host="",
        port=1,
        interval=SECOND,
        timeout=SECOND,
        workers=1,
        takes=1,
        queue=0,
    )
    application = Application(plan, Stream(1))
    assert ask(application) == 200
    assert ask(application, "PUT", "/trouble", json.dumps({"fails": 1.0}).encode()) == 204
    assert ask(application) == 503
    assert ask(application, "PUT", "/trouble", b'{"fail": 1.0}') == 400
    assert ask(application, "PUT", "/trouble", b"{}") == 204
    assert ask(application) == 200
