"""What an application notices of its client: first picks, changes, an agent that dies, forks, gevent."""

import logging
import os
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import ExitStack

import msgspec
import pytest

from dislocate.client import Client, NoAgent, NoEndpoint, Outcome
from dislocate.client.connection import Problem, find_agent
from dislocate.client.owed import with_owed
from dislocate.client.sync import Exchange
from dislocate.core.boundary.balance import Outcomes, Policy, ReportUsage, Share, Usage
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.values import Status
from dislocate.core.errors import DislocateError, LocalError
from dislocate.edge.http.access import Access, Role
from tests.support.agent_thread import PATIENCE, AgentThread, at
from tests.support.moody import nobody


@pytest.fixture
def agent():
    made = AgentThread()
    yield made
    made.end()


@pytest.fixture
def client(agent):
    with Client(agent.where, first_within=PATIENCE) as made:
        yield made


def until(claim):
    ends = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < ends
        time.sleep(0.01)


def picked_ports(client, times=10):
    """Where calls go that are all under way at once: what is in flight counts for more than chance latencies."""
    with ExitStack() as calls:
        return {calls.enter_context(client.pick("orders.api")).port for _ in range(times)}


def usages(agent):
    return [request.usages for request in agent.asked if type(request) is ReportUsage]


# ---- picking


def test_a_pick_names_an_instance_and_why(agent, client):
    agent.put(at(7001))
    with client.pick("orders.api") as picked:
        assert (picked.address, picked.port, picked.netloc) == ("127.0.0.1", 7001, "127.0.0.1:7001")
        assert (picked.name, picked.instance, picked.datacenter) == ("fra/a1/o1", "o1", "fra")
        assert "fra" in picked.why
        assert picked.meta == {"version": "7"}
    assert client.route("orders.api").home == "fra"


def test_nothing_is_picked_outside_the_block(client):
    with pytest.raises(DislocateError, match=r"with client\.pick"):
        _ = client.pick("orders.api").port


def test_picks_spread_and_follow_what_changes(agent, client):
    agent.put(at(7001), at(7002, "o2"))
    assert picked_ports(client) == {7001, 7002}
    agent.put(at(7002, "o2"))
    until(lambda: picked_ports(client) == {7002})


def test_picks_follow_the_shares(agent, client):
    far = at(7002, "o2", node="wdc/b1", datacenter="wdc")
    agent.put(at(7001), far, shares=(Share("fra", 0.75), Share("wdc", 0.25)))
    ports = []
    for _ in range(100):
        with client.pick("orders.api") as picked:
            ports.append(picked.port)
    assert 20 <= ports.count(7002) <= 30


def test_a_key_leads_to_one_instance_and_exclude_away_from_it(agent, client):
    agent.put(*(at(7000 + number, f"o{number}") for number in range(5)))
    with client.pick("orders.api", key="alice") as first:
        pass
    for _ in range(10):
        with client.pick("orders.api", key="alice") as again:
            assert again.name == first.name
    with client.pick("orders.api", key="alice", exclude=[first.name]) as other:
        assert other.name != first.name


def test_many_threads_share_one_client(agent, client):
    agent.put(at(7001), at(7002, "o2"))
    failures = []

    def call():
        try:
            picked_ports(client, 200)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test fails
            failures.append(error)

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert failures == []
    with client.pick("orders.api") as picked:
        assert picked.endpoint.pending == 1, "each of the others was given back"
    until(lambda: sum(one.calls for told in usages(agent) for usage in told for one in usage.outcomes) == 1601)


# ---- outcomes


def test_how_calls_ended_is_told_to_the_agent(agent, client):
    agent.put(at(7001))
    errors = (ValueError("a bug of the service"), TimeoutError(), ConnectionRefusedError(), ConnectionResetError())
    for error in errors:
        with pytest.raises(type(error)), client.pick("orders.api"):
            raise error
    with client.pick("orders.api"):
        pass
    until(lambda: any(usages(agent)))
    ((usage,),) = [told for told in usages(agent) if told]
    (outcome,) = usage.outcomes
    assert (usage.service, outcome.node, outcome.instance) == ("orders.api", "fra/a1", "o1")
    assert (outcome.calls, outcome.failed) == (5, 4)
    assert usage.offered > 0
    until(lambda: usages(agent)[-1] == ())  # it is said that nothing more was done, once


def test_a_busy_caller_costs_its_agent_one_exchange_a_report(agent, client):
    agent.put(at(7001))
    picked_ports(client)

    def exchanges():
        return agent.counters.total("http_requests")

    until(lambda: not picked_ports(client) or len(usages(agent)) >= 1)
    reports, before = len(usages(agent)), exchanges()
    until(lambda: not picked_ports(client) or len(usages(agent)) >= reports + 3)
    assert exchanges() - before <= 4


def test_a_caller_that_may_only_read_picks_and_is_not_counted(caplog):
    agent = AgentThread(access=Access(loopback=Role.READ))
    try:
        agent.put(at(7001))
        with Client(agent.where, first_within=PATIENCE) as client:
            until(lambda: picked_ports(client) and any("is not counted" in one.message for one in caplog.records))
            agent.put(at(7002))
            until(lambda: picked_ports(client) == {7002})
            assert client.status.is_current
    finally:
        agent.end()
    assert len([one for one in caplog.records if "is not counted" in one.message]) == 1


def test_a_report_that_a_busy_agent_did_not_hear_is_told_with_the_next_one(agent, client, caplog):
    agent.put(at(7001))
    agent.do(lambda: setattr(agent.backend, "result", Refused("unavailable", "caller", "too many report here")))
    picked_ports(client, 9)
    until(lambda: any("too many report here" in one.message for one in caplog.records))
    agent.put(at(7002, "o2"))
    until(lambda: picked_ports(client, 1) == {7002})  # routes come all the same
    heard = len(agent.asked)
    agent.do(lambda: setattr(agent.backend, "result", Done()))
    until(lambda: told_calls(agent.asked[heard:]).get("o1") == 9)
    time.sleep(1.2)
    assert told_calls(agent.asked[heard:])["o1"] == 9, "and once"


def told_calls(asked):
    outcomes = [one for told in asked if type(told) is ReportUsage for usage in told.usages for one in usage.outcomes]
    return {name: sum(one.calls for one in outcomes if one.instance == name) for name in {o.instance for o in outcomes}}


def test_a_connection_that_the_agent_ended_meanwhile_is_seen_before_anything_is_sent(agent):
    agent.put(at(7001))
    exchange = Exchange(find_agent(agent.where), "4711-1")
    assert exchange.open()
    assert exchange.ask([], {"orders.api": None}, 0.0).routes.keys() == {"orders.api"}
    assert not exchange.open()
    agent.stop()
    agent.start()
    until(exchange.open)
    assert exchange.ask([], {"orders.api": None}, 0.0).routes.keys() == {"orders.api"}
    exchange.close()


def test_outcomes_that_are_owed_are_added_up_and_rates_are_those_of_now():
    web = Outcomes("fra/a1", "web-1", 10, 1, 0.2)
    owed = [Usage("a", 50.0, 1.0, (web,)), Usage("gone", 9.0, 0.0, (web,)), Usage("silent", 9.0)]
    new = [Usage("a", 4.0, 0.5, (Outcomes("fra/a1", "web-2", 15, 0, 0.1), Outcomes("fra/a1", "web-1", 1, 1, 0.3)))]
    assert with_owed(owed, new) == [
        Usage("a", 4.0, 0.5, (Outcomes("fra/a1", "web-2", 15, 0, 0.1), Outcomes("fra/a1", "web-1", 11, 2, 0.3))),
        Usage("gone", 0.0, 0.0, (web,)),
    ]


def test_an_interrupt_says_nothing_of_the_endpoint(agent, client):
    agent.put(at(7001))
    with pytest.raises(KeyboardInterrupt), client.pick("orders.api") as picked:
        raise KeyboardInterrupt
    assert (picked.endpoint.pending, picked.endpoint.failed) == (0, 0)


def test_only_the_first_word_on_a_call_counts(agent, client):
    agent.put(at(7001))
    with client.pick("orders.api") as picked:
        picked.report(Outcome.FAILED)
    assert (picked.endpoint.pending, picked.endpoint.failed, picked.endpoint.succeeded) == (0, 1, 0)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [(("x",), "outcome"), ((None,), "outcome")]
    + [((Outcome.OK, seconds), "latency") for seconds in (-1.0, float("nan"), float("inf"), "1")],
)
def test_a_report_that_is_none_is_a_mistake_and_counts_for_nothing(agent, client, arguments, field):
    agent.put(at(7001))
    with client.pick("orders.api") as picked:
        with pytest.raises(LocalError, match=f"^{field}: got"):
            picked.report(arguments[0], latency=arguments[1] if len(arguments) > 1 else None)
        assert picked.endpoint.pending == 1
    assert (picked.endpoint.pending, picked.endpoint.failed, picked.endpoint.succeeded) == (0, 0, 1)


def test_an_instance_that_fails_is_left_alone(agent, client):
    agent.put(at(7001), at(7002, "o2"), policy=Policy())
    for _ in range(5):
        with client.pick("orders.api", exclude=["fra/a1/o2"]) as picked:
            picked.report(Outcome.FAILED)
    assert picked_ports(client) == {7002}


# ---- bad news


def test_without_an_agent_the_first_pick_says_how_to_start_one():
    with (
        nobody() as port,
        Client(f"http://127.0.0.1:{port}", first_within=0.2) as client,
        pytest.raises(NoAgent, match="dislocate agent --config") as raised,
    ):
        client.pick("orders.api").__enter__()
    assert f"127.0.0.1:{port}" in str(raised.value)


def test_who_waited_in_vain_spares_the_others_the_wait():
    with nobody() as port, Client(f"http://127.0.0.1:{port}", first_within=0.2) as client:
        for _ in range(2):
            with pytest.raises(NoAgent):
                client.pick("orders.api").__enter__()
            client._first_within = 10 * PATIENCE  # the second does not


def test_an_agent_that_comes_late_is_waited_for(agent):
    agent.put(at(7001))
    agent.stop()
    threading.Timer(0.3, agent.start).start()
    with Client(agent.where, first_within=PATIENCE) as client:
        assert picked_ports(client) == {7001}


def test_an_unknown_service_is_named_with_the_nearest_one(agent):
    agent.do(lambda: agent.backend.put(at(7001), service="orders.api"))
    with Client(agent.where, first_within=0.2) as client:
        with pytest.raises(NoEndpoint, match=r"knows no service of this name, did you mean 'orders.api'\?"):
            client.pick("order.api").__enter__()
        agent.put(at(7001), service="order.api")
        until(lambda: "order.api" in client.status.services)
        with client.pick("order.api") as picked:
            assert picked.port == 7001


@pytest.mark.parametrize("name", ["nosuch.service", "Bad Name", "", "a..b"])
def test_what_can_be_no_name_is_said_at_once_and_spoils_nothing(agent, client, name):
    agent.put(at(7001))
    assert picked_ports(client) == {7001}
    for ask in (client.pick(name).__enter__, lambda: client.route(name), lambda: client.http(name).get("/")):
        with pytest.raises(LocalError, match=r"service: got .* expected lower-case labels"):
            ask()
    with Client("http://127.0.0.1:1", first_within=PATIENCE) as alone, pytest.raises(LocalError):
        alone.pick(name).__enter__()  # no agent is needed to know
    agent.put(at(7002))
    until(lambda: picked_ports(client) == {7002})
    assert client.status.is_current


def test_a_name_that_only_the_agent_refuses_spoils_nothing_either(agent, client, caplog):
    """An agent of another version may know more mistakes: the whole request is refused then."""
    agent.put(at(7001))
    for number in range(4):
        agent.put(at(7001), service=f"shop-{number}")
        client.route(f"shop-{number}")
    assert picked_ports(client) == {7001}
    agent.do(lambda: agent.backend.refuse("shop-2"))
    until(lambda: any("shop-2: the agent at" in one.message for one in caplog.records))
    agent.put(at(7002))
    until(lambda: picked_ports(client) == {7002})
    until(lambda: client.status.is_current)
    with client.pick("shop-2") as picked:
        assert picked.port == 7001, "what was known of it stays"
    agent.do(lambda: agent.backend.refuse("shop-9"))
    with pytest.raises(NoEndpoint, match=r"refuses it: .*no name"):
        client.pick("shop-9").__enter__()
    assert client.status.is_current


def test_any_number_of_wrong_names_costs_no_more_than_a_full_list(agent, monkeypatch):
    monkeypatch.setattr("dislocate.client.copy.SERVICES", 3)
    agent.put(at(7001))
    with Client(agent.where, first_within=0.05) as client:
        assert picked_ports(client) == {7001}
        for number in range(10):
            with pytest.raises(NoEndpoint, match="knows no service"):
                client.pick(f"wrong-{number}").__enter__()
        assert len(client._process.copy.services) == 3
        assert picked_ports(client) == {7001}
        for number in range(2):
            agent.put(at(7001), service=f"right-{number}")
            client._first_within = PATIENCE
            client.route(f"right-{number}")
        with pytest.raises(NoEndpoint, match="calls 3 services already"):
            client.route("one-more")


def test_a_client_that_nobody_has_any_more_leaves_its_agent_alone(agent):
    agent.put(at(7001))
    client = Client(agent.where)
    assert picked_ports(client) == {7001}
    thread = client._process.sync._thread
    del client
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_a_service_that_starts_with_its_caller_is_waited_for(agent, client):
    threading.Timer(0.3, lambda: agent.put(at(7001))).start()
    assert picked_ports(client) == {7001}


def test_an_empty_service_is_a_named_error(agent, client):
    agent.put()
    with pytest.raises(NoEndpoint, match=r"^orders\.api: "):
        client.pick("orders.api").__enter__()


def test_where_all_are_down_the_last_known_are_picked(agent, client):
    agent.put(at(7001, status=Status.CRITICAL), at(7002, "o2", status=Status.CRITICAL))
    assert picked_ports(client) == {7001, 7002}


def test_a_service_that_was_removed_is_last_known_good_and_comes_back(agent, client):
    agent.put(at(7001))
    assert picked_ports(client) == {7001}
    agent.put()
    until(lambda: client.route("orders.api").instances == ())
    with client.pick("orders.api") as picked:
        assert (picked.port, "last known good" in picked.why) == (7001, True)
    agent.put(at(7002))
    until(lambda: picked_ports(client) == {7002})


def test_a_name_that_an_agent_forgot_is_last_known_good(agent, client):
    agent.put(at(7001))
    assert picked_ports(client) == {7001}
    agent.stop()
    agent.forget()
    agent.start()
    until(lambda: client.route("orders.api").instances == ())
    assert picked_ports(client) == {7001}


# ---- an agent that dies


def test_an_agent_that_dies_leaves_its_callers_what_they_knew(agent, client, caplog):
    caplog.set_level(logging.INFO, "dislocate.client")
    agent.put(at(7001))
    assert picked_ports(client) == {7001}
    assert client.status.is_current
    assert str(client.status).endswith("current")
    agent.stop()
    until(lambda: not client.status.is_current)
    assert picked_ports(client) == {7001}
    with client.pick("orders.api") as picked:
        assert "by what was known: no agent at" in picked.why
    status = client.status
    assert "last heard" in str(status)
    assert status.age > 0
    assert status.services.keys() == {"orders.api"}
    until(lambda: len([one for one in caplog.records if "going on with what was known" in one.message]) == 1)

    agent.put(at(7002))
    agent.start()
    until(lambda: picked_ports(client) == {7002})
    assert client.status.is_current
    until(lambda: any("answers again" in one.message for one in caplog.records))
    assert len([one for one in caplog.records if "going on" in one.message]) == 1, "it was said once"


def test_another_start_of_the_agent_with_the_same_numbers_is_not_taken_for_the_old_one(agent, client):
    agent.put(at(7001), index=17)
    assert picked_ports(client) == {7001}
    agent.stop()
    agent.put(at(7002), index=17)
    agent.start()
    until(lambda: picked_ports(client) == {7002})


def test_a_closed_client_still_picks_what_it_knew(agent, client):
    agent.put(at(7001))
    assert picked_ports(client) == {7001}
    client.close()
    assert picked_ports(client) == {7001}
    assert (client.status.is_current, "this client is closed" in str(client.status)) == (False, True)
    with pytest.raises(DislocateError):
        Client(agent.where, first_within=0.05).pick("nobody.here").__enter__()


def test_an_answer_that_is_none_is_a_problem_and_no_crash(agent, client, monkeypatch):
    agent.put(at(7001))
    assert picked_ports(client) == {7001}
    monkeypatch.setattr("dislocate.client.wire._DECODER", msgspec.json.Decoder(int))
    until(lambda: "expected an agent's" in client.status.problem)
    assert picked_ports(client) == {7001}
    monkeypatch.undo()
    until(lambda: client.status.is_current)


# ---- a place that is none, roles


def test_a_place_that_cannot_be_one_is_an_error_at_once():
    with pytest.raises(DislocateError, match="unix:/PATH"):
        Client("ftp://nowhere", first_within=0.1).pick("orders.api").__enter__()


def test_problem_is_what_an_agent_refuses_with():
    assert issubclass(Problem, DislocateError)


# ---- forks


def test_a_child_goes_on_with_what_was_known_and_speaks_for_itself(agent, client):
    agent.put(at(7001))
    assert picked_ports(client) == {7001}
    with client.pick("orders.api"):  # in flight here, not there
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                with client.pick("orders.api") as picked:
                    os.write(writer, f"{picked.port} {picked.endpoint.pending}".encode())
                until(lambda: client.status.is_current)
                os.write(writer, b" current")
            finally:
                os._exit(0)
        _, code = os.waitpid(pid, 0)
        assert (code, os.read(reader, 100)) == (0, b"7001 1 current")
    agent.put(at(7002))
    until(lambda: picked_ports(client) == {7002})
    own = f"{os.getpid()}-"
    until(lambda: any(type(told) is ReportUsage and told.caller.startswith(own) for told in agent.asked))


# ---- gevent


SCRIPT = """
from gevent import monkey
if {patched}:
    monkey.patch_all()
import os, sys, time
from contextlib import ExitStack
import gevent
from dislocate.client import Client

client = Client({where!r}, first_within=60)

def ports(times=20):
    with ExitStack() as calls:
        return {{calls.enter_context(client.pick("orders.api")).port for _ in range(times)}}

jobs = [gevent.spawn(ports) for _ in range(10)]
gevent.joinall(jobs, raise_error=True)
assert set.union(*(job.value for job in jobs)) == {{7001, 7002}}, [job.value for job in jobs]
try:
    with gevent.Timeout(0.01), client.pick("orders.api") as late:
        gevent.sleep(60)
except gevent.Timeout:
    assert late.endpoint.failed == 1, "a gevent.Timeout is one"
killed = gevent.spawn(lambda: client.pick("orders.api").__enter__() and gevent.sleep(60))
pid = os.fork()
ends = time.monotonic() + 60
while not client.status.is_current and time.monotonic() < ends:
    assert ports() == {{7001, 7002}}
    gevent.sleep(0.05)
assert client.status.is_current
if pid:
    assert os.waitpid(pid, 0)[1] == 0
    gevent.sleep(1.5)
    assert client.status.is_current, client.status
    print("ok", flush=True)
os._exit(0)
"""


@pytest.mark.parametrize("patched", [True, False])
def test_it_works_in_gevent_and_across_a_fork_there(agent, patched):
    agent.put(at(7001), at(7002, "o2"))
    script = textwrap.dedent(SCRIPT).format(patched=patched, where=agent.where)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


WAITING = """
from gevent import monkey
if {patched}:
    monkey.patch_all()
import time
import gevent
from dislocate.client import Client, NoEndpoint

client, late = Client({where!r}, first_within=1.0), []

def beat():
    before = time.monotonic()
    while True:
        gevent.sleep(0.02)
        late.append(time.monotonic() - before)
        before = time.monotonic()

def first():
    try:
        client.route("no.such")
    except NoEndpoint:
        return True

beating = gevent.spawn(beat)
waiting = [gevent.spawn(first) for _ in range(3)]
gevent.joinall(waiting, raise_error=True)
assert all(one.value for one in waiting)
assert len(late) >= 10, late
print("ok")
"""


@pytest.mark.parametrize("patched", [True, False])
def test_who_waits_for_a_first_route_stops_no_other_greenlet(agent, patched):
    script = textwrap.dedent(WAITING).format(patched=patched, where=agent.where)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


def test_the_package_loads_nothing_until_it_is_used():
    code = "import dislocate.client.connection, sys; print([m for m in ('gevent', 'urllib3') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    code = "from dislocate.client import Client, balanced; import sys; print('gevent' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
