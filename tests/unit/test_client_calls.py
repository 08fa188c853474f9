"""What an application notices of its calls: HTTP, TCP and its own functions, retried where that is right and nowhere else."""

import socket
import threading
import time

import pytest

from dislocate.client import CallFailed, Client, DeadlineExceeded, NoEndpoint, Throttled, balanced
from dislocate.core.boundary.balance import Policy, Retries
from dislocate.core.errors import LocalError
from dislocate.core.units import MILLISECOND
from tests.support.agent_thread import PATIENCE, AgentThread, at
from tests.support.moody import Moody, moody_services, nobody, silent

NO_THROTTLE = Policy(throttle=0.0)


@pytest.fixture
def agent():
    made = AgentThread()
    yield made
    made.end()


@pytest.fixture
def client(agent):
    with Client(agent.where, first_within=PATIENCE) as made:
        yield made


@pytest.fixture
def two(agent):
    """Two instances that answer; `o1` and `o2`."""
    with moody_services(2) as services:
        agent.put(*(at(each.port, f"o{at_ + 1}") for at_, each in enumerate(services)), policy=NO_THROTTLE)
        yield services


def requests(*services: Moody) -> int:
    return sum(len(each.requests) for each in services)


# ---- HTTP


def test_a_session_asks_an_instance_and_gives_its_answer(two, client):
    orders = client.http("orders.api", headers={"X-Team": "shop"})
    response = orders.get("/orders/7?full=1")
    assert (response.status, int(response.data)) == (200, response_port(two, "GET", "/orders/7?full=1"))
    assert orders.post("/orders", json={"item": 3}).status == 200
    assert ("POST", "/orders", b'{"item": 3}') in two[0].requests + two[1].requests
    assert [orders.put("/a", body=b"x").status, orders.delete("/a").status, orders.head("/a").status] == [200] * 3


def response_port(services, method, path):
    return next(each.port for each in services if (method, path, b"") in each.requests)


def test_connections_are_kept(two, client):
    orders = client.http("orders.api")
    for _ in range(20):
        orders.get("/")
    pools = client.connections(1, 1).pools
    made = [pools[key].num_connections for key in pools.keys()]  # noqa: SIM118 (this container iterates by its keys only)
    assert sum(made) <= 2, "one to each instance"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_connection_is_tried_elsewhere_at_no_cost_whatever_the_method(agent, client, method):
    policy = Policy(retries=Retries(ratio=0.0, per_second=0.0, attempts=1), throttle=0.0)
    with moody_services(1) as (well,), nobody() as port:
        agent.put(at(port, "gone"), at(well.port, "well"), policy=policy)
        for _ in range(10):
            assert client.http("orders.api").request(method, "/").status == 200
    assert requests(well) == 10


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_is_not_made_in_time_is_tried_elsewhere_at_no_cost_too(agent, client, method, monkeypatch):
    monkeypatch.setattr("dislocate.client.session.CONNECT_WITHIN", 0.05)
    policy = Policy(retries=Retries(ratio=0.0, per_second=0.0, attempts=1), throttle=0.0)
    with moody_services(1) as (well,), silent() as port:
        agent.put(at(port, "cut-off"), at(well.port, "well"), policy=policy)
        for _ in range(10):
            assert client.http("orders.api").request(method, "/").status == 200
    assert requests(well) == 10


def test_a_tcp_connection_that_is_not_made_in_time_is_tried_elsewhere_at_no_cost_too(agent, client, monkeypatch):
    monkeypatch.setattr("dislocate.client.tcp.CONNECT_WITHIN", 0.05)
    policy = Policy(retries=Retries(ratio=0.0, per_second=0.0, attempts=1), throttle=0.0)
    with moody_services(1) as (well,), silent() as port:
        agent.put(at(port, "cut-off"), at(well.port, "well"), policy=policy)
        for _ in range(10):
            with client.tcp("orders.api") as connection:
                assert connection.getpeername()[1] == well.port


def test_where_all_refuse_the_error_names_each_attempt(agent, client):
    with nobody() as port:
        agent.put(at(port, "gone"))
        with pytest.raises(CallFailed, match=r"fra/a1/gone: .*refused.*connections were not made"):
            client.http("orders.api").get("/")


def test_an_idempotent_call_is_tried_elsewhere_when_its_connection_breaks(two, client):
    two[0].cuts = True
    for _ in range(10):
        assert client.http("orders.api").get("/").status == 200


def test_a_call_that_is_not_idempotent_is_never_sent_twice(two, client):
    two[0].cuts = two[1].cuts = True
    with pytest.raises(CallFailed, match="not idempotent, and may have been done"):
        client.http("orders.api").post("/orders", json=1)
    assert requests(*two) == 1
    with pytest.raises(CallFailed, match="no attempt is left"):
        client.http("orders.api").post("/orders", json=1, idempotent=True)
    assert requests(*two) == 1 + 3


@pytest.mark.parametrize("status", [502, 503, 504])
def test_an_instance_that_cannot_answer_is_retried_elsewhere(two, client, status):
    two[0].status = status
    for _ in range(10):
        assert client.http("orders.api").get("/").status == 200
    two[1].status = status
    assert client.http("orders.api").get("/").status == status, "the last answer is the answer"
    assert client.http("orders.api").post("/").status == status


@pytest.mark.parametrize(("status", "failed"), [(404, 0), (500, 1)])
def test_other_statuses_are_answers_and_500_counts_against_the_instance(agent, client, status, failed):
    with moody_services(1) as (one,):
        one.status = status
        agent.put(at(one.port))
        assert client.http("orders.api").get("/").status == status
        assert requests(one) == 1
        with client.pick("orders.api") as picked:
            assert picked.endpoint.failed == failed


def test_what_a_full_server_did_not_begin_is_tried_elsewhere_whatever_the_method(two, client):
    two[0].status, two[0].headers = 503, {"Dislocate-Not-Begun": "1"}
    for _ in range(10):
        assert client.http("orders.api").post("/orders").status == 200


def test_the_retry_budget_ends_retries(agent, client):
    policy = Policy(retries=Retries(attempts=3, ratio=0.0, per_second=0.2), throttle=0.0)  # two in ten seconds
    with moody_services(2) as services:
        agent.put(*(at(each.port, f"o{each.port}") for each in services), policy=policy)
        for each in services:
            each.cuts = True
        words = []
        for _ in range(4):
            with pytest.raises(CallFailed) as raised:
                client.http("orders.api").get("/")
            words.append(str(raised.value))
        assert requests(*services) == 4 + 2
    assert "no attempt is left" in words[0]
    assert "no retry is left" in words[-1]


def test_attempts_of_a_call_or_a_session_overrule_the_policy(two, client):
    two[0].cuts = two[1].cuts = True
    with pytest.raises(CallFailed):
        client.http("orders.api").get("/", attempts=1)
    with pytest.raises(CallFailed):
        client.http("orders.api", attempts=2).get("/")
    assert requests(*two) == 3


def test_an_instance_that_says_nothing_does_not_take_all_the_time(two, client):
    two[0].held.clear()
    for _ in range(3):
        assert client.http("orders.api").get("/", timeout=1.5).status == 200
    assert requests(two[1]) == 3


def test_the_deadline_of_a_call_holds_with_all_its_attempts(two, client):
    two[0].held.clear()
    two[1].held.clear()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"no answer in time.*0.3 s are over") as raised:
        client.http("orders.api", timeout=0.3).get("/")
    assert isinstance(raised.value, TimeoutError)
    assert time.monotonic() - began < PATIENCE / 2
    assert len(raised.value.attempts) >= 2


def test_the_policy_of_the_service_sets_the_deadline(agent, client):
    with moody_services(1) as (one,):
        one.held.clear()
        agent.put(at(one.port), policy=Policy(timeout=100 * MILLISECOND))
        with pytest.raises(DeadlineExceeded):
            client.http("orders.api").post("/")


def test_a_service_that_accepts_nothing_is_spared(agent, client):
    with moody_services(1) as (one,):
        one.status = 503
        agent.put(at(one.port), policy=Policy(throttle=1.1, retries=Retries(attempts=1)))
        with pytest.raises(Throttled, match=r"orders\.api: throttled"):
            ask_for(PATIENCE, client)
        assert requests(one) > 0


def ask_for(seconds, client):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        client.http("orders.api").get("/")


def test_nobody_to_ask_is_the_picks_own_error(agent, client):
    agent.put()
    with pytest.raises(NoEndpoint):
        client.http("orders.api").get("/")


# ---- the caller's own mistakes


def counted(client):
    """What its calls taught of the instances."""
    with client._process.copy.lock:
        ends = client._process.copy.services["orders.api"].picker._endpoints.values()
        return sum(each.failed for each in ends), sum(each.pending for each in ends)


NOT_SENT = [
    ({"path": "x-no-slash"}, "path"),
    ({"path": "http://elsewhere/x"}, "path"),
    ({"path": ""}, "path"),
    ({"path": None}, "path"),
    ({"path": "/\ud800"}, "path"),
    ({"headers": {"X-A": "a\r\nb: c"}}, "headers.X-A"),
    ({"headers": {"X-A": "\u20ac"}}, "headers.X-A"),
    ({"headers": {"X-A": None}}, "headers.X-A"),
    ({"headers": {"bad name": "a"}}, "headers"),
    ({"method": "GE T"}, "method"),
    ({"timeout": float("nan")}, "timeout"),
    ({"timeout": float("inf")}, "timeout"),
    ({"timeout": -1}, "timeout"),
    ({"timeout": 0}, "timeout"),
    ({"attempts": 0}, "attempts"),
    ({"attempts": -1}, "attempts"),
    ({"attempts": True}, "attempts"),
    ({"attempts": 1.5}, "attempts"),
]


@pytest.mark.parametrize(("mistake", "field"), NOT_SENT)
def test_a_mistake_of_the_caller_is_named_and_counts_against_nobody(agent, client, mistake, field):
    with moody_services(2) as services:
        agent.put(*(at(each.port, f"o{number}") for number, each in enumerate(services)))
        orders = client.http("orders.api")
        asked = {"method": "GET", "path": "/x", **mistake}
        for _ in range(40):
            with pytest.raises(LocalError) as raised:
                orders.request(asked.pop("method", "GET"), asked.pop("path", "/x"), **asked)
            assert raised.value.field == field
            asked = {"method": "GET", "path": "/x", **mistake}
        assert [orders.get("/x").status for _ in range(100)] == [200] * 100, "nothing is throttled or ejected"
        assert counted(client) == (0, 0)
        assert requests(*services) == 100


def test_a_body_that_cannot_be_sent_counts_against_nobody_whether_hedged_or_not(agent, client):
    with moody_services(2) as services:
        hedging(agent, client, services)
        for ask in (client.http("orders.api").put, client.http("orders.api").post):
            for _ in range(20):
                with pytest.raises(TypeError):
                    ask("/x", body=17)
        assert counted(client) == (0, 0)


def test_a_fragment_stays_at_home_and_what_is_odd_is_escaped(two, client):
    assert client.http("orders.api").get("/a b?q=\n#there\nit is").status == 200
    assert ("GET", "/a%20b?q=%0A", b"") in two[0].requests + two[1].requests


@pytest.mark.parametrize("address", ["a..b", "a" * 64])
def test_an_instance_whose_address_is_none_is_passed_over(agent, client, address):
    with moody_services(1) as (well,):
        agent.put(at(7001, "odd", address=address), at(well.port, "well"), policy=NO_THROTTLE)
        for _ in range(5):
            assert client.http("orders.api").post("/").status == 200
            with client.tcp("orders.api"):
                pass


@pytest.mark.parametrize(
    "make",
    [
        lambda client: client.http("orders.api", timeout=-1),
        lambda client: client.http("orders.api", attempts=0),
        lambda client: client.tcp("orders.api", timeout=float("nan")),
        lambda client: client.balanced("orders.api", timeout=0),
        lambda client: client.balanced("orders.api", attempts=0),
        lambda client: client.balanced("Bad Name"),
        lambda _: Client(first_within=float("nan")),
        lambda _: Client(first_within=-1),
    ],
)
def test_a_number_that_cannot_be_meant_is_named_before_any_call(client, make):
    with pytest.raises(LocalError, match=r": got .*, expected "):
        make(client)


def test_arguments_that_do_not_fit_a_balanced_function_count_against_nobody(two, client):
    @client.balanced("orders.api")
    def total(endpoint, order_id):
        return order_id + 1

    assert total(7) == 8
    for _ in range(5):
        with pytest.raises(TypeError, match="positional argument"):
            total()
    assert counted(client) == (0, 0)
    with pytest.raises(TypeError):
        total("seven")
    assert counted(client) == (1, 0), "what it does itself is its own"


# ---- hedging


def hedging(agent, client, services):
    """The client has seen enough quick answers to know what is late."""
    policy = Policy(hedge=True, throttle=0.0)
    agent.put(*(at(each.port, f"o{number}") for number, each in enumerate(services)), policy=policy)
    ends = time.monotonic() + PATIENCE
    while client.hedge_after("orders.api") is None:
        assert time.monotonic() < ends
        client.http("orders.api").get("/warm-up")
    for each in services:
        each.requests.clear()


def test_a_late_answer_is_raced_by_a_second_attempt_if_the_policy_says_so(agent, client):
    with moody_services(2) as services:
        hedging(agent, client, services)
        services[0].held.clear()
        for _ in range(4):
            assert client.http("orders.api").get("/").status == 200
        assert len(services[1].requests) == 4
        services[0].held.set()


def test_what_is_not_idempotent_is_not_hedged(agent, client):
    with moody_services(2) as services:
        hedging(agent, client, services)
        for each in services:
            each.held.clear()
        threading.Timer(0.5, lambda: [each.held.set() for each in services]).start()
        assert client.http("orders.api").post("/").status == 200
        assert requests(*services) == 1


def test_two_hedged_attempts_that_fail_are_one_failure(agent, client):
    with moody_services(2) as services:
        hedging(agent, client, services)
        for each in services:
            each.cuts = True
        with pytest.raises(CallFailed):
            client.http("orders.api").get("/", attempts=1)


# ---- TCP


def test_a_tcp_connection_goes_where_somebody_accepts(agent, client):
    with moody_services(1) as (well,), nobody() as port:
        agent.put(at(port, "gone"), at(well.port, "well"), policy=NO_THROTTLE)
        for _ in range(5):
            call = client.tcp("orders.api")
            with call as connection:
                assert call.picked.instance == "well"
                assert call.picked.endpoint.pending == 1
                assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
                assert connection.gettimeout() == 10.0, "the policy's"
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert connection.makefile("rb").readline().split()[1] == b"200"
            assert call.picked.endpoint.pending == 0


def test_an_error_on_a_tcp_connection_counts_against_the_instance(agent, client):
    with moody_services(1) as (one,):
        agent.put(at(one.port))
        call = client.tcp("orders.api", timeout=2.0)
        with pytest.raises(ConnectionResetError), call:
            raise ConnectionResetError
        assert call.picked.endpoint.failed == 1


def test_where_nobody_accepts_tcp_the_error_says_so(agent, client):
    with nobody() as port:
        agent.put(at(port))
        with pytest.raises(CallFailed, match="refused"):
            client.tcp("orders.api").__enter__()


# ---- functions


def test_a_balanced_function_is_given_an_endpoint(two, client):
    @client.balanced("orders.api")
    def ask(endpoint, path, *, name):
        """Ask one."""
        with socket.create_connection((endpoint.address, endpoint.port)) as connection:
            connection.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return endpoint.port, name, connection.makefile("rb").readline().split()[1]

    port, name, status = ask("/orders", name="x")
    assert (port in {each.port for each in two}, name, status) == (True, "x", b"200")
    assert (ask.__name__, ask.__doc__) == ("ask", "Ask one.")


def test_a_balanced_function_that_is_refused_is_called_again_elsewhere(two, client):
    seen = []

    @client.balanced("orders.api")
    def ask(endpoint):
        seen.append(endpoint.name)
        if len(seen) == 1:
            raise ConnectionRefusedError
        return "done"

    assert ask() == "done"
    assert len(set(seen)) == 2


@pytest.mark.parametrize(("idempotent", "calls"), [(False, 1), (True, 3)])
def test_another_error_is_retried_only_if_it_is_idempotent(two, client, idempotent, calls):
    seen = []

    @client.balanced("orders.api", idempotent=idempotent)
    def ask(endpoint):
        seen.append(endpoint.name)
        raise BrokenPipeError("mid-way")

    with pytest.raises(BrokenPipeError, match="mid-way") as raised:
        ask()
    assert len(seen) == calls
    assert "fra/a1/o" in raised.value.__notes__[0]


def test_an_error_that_does_not_speak_of_the_endpoint_passes_at_once(two, client):
    @client.balanced("orders.api", idempotent=True)
    def ask(endpoint):
        raise KeyError("no such order")

    with pytest.raises(KeyError):
        ask()


def test_a_key_keeps_a_balanced_function_at_one_instance(two, client):
    @client.balanced("orders.api", key=lambda user: user)
    def where(endpoint, user):
        return endpoint.name

    assert len({where("alice") for _ in range(10)}) == 1
    assert len({where(f"user-{number}") for number in range(40)}) == 2


def test_a_balanced_function_makes_its_own_client_at_its_first_call(two, agent, monkeypatch):
    monkeypatch.setenv("DISLOCATE_AGENT", agent.where)

    @balanced("orders.api")
    def where(endpoint):
        return endpoint.port

    assert where() in {each.port for each in two}
