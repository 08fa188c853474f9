"""Other people's proxies: what a HAProxy is told so that its servers are the pool, and what its agent-checks are answered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dislocate.client.connection import NoAgent, Problem
from dislocate.client.pool import Server, State, pool, scaled
from dislocate.core.errors import LocalError
from dislocate.haproxy.agent_check import line
from dislocate.haproxy.driver import Bond, Driver
from dislocate.haproxy.runtime import Slot
from dislocate.haproxy.slots import steps

ADDRESSES = [f"10.0.0.{at}" for at in range(1, 7)]


def instance(at, part=0.5, **changes):
    return {
        "id": f"web-{at}",
        "node": "fra/a1",
        "datacenter": "fra",
        "address": f"10.0.0.{at}",
        "port": 80,
        "status": "passing",
        "weight": 1,
        "load": None,
        "part": part,
        **changes,
    }


def flows(*instances):
    return {"instances": list(instances)}


def server(at, weight=1.0, state=State.READY):
    return Server(f"fra/a1/web-{at}", "fra", f"10.0.0.{at}", 80, weight, state, "passing")


def slot(at, address="127.0.0.1", port=1, weight=1, state="maint", since=100):
    return Slot(f"s{at}", address, port, weight, state, since)


class FakeProxy:
    """Obeys `set server` as HAProxy does; a slot whose address becomes another while it is in is a fault."""

    def __init__(self, slots):
        self.slots = {each.name: each for each in slots}

    def obey(self, commands):
        for command in commands:
            _, _, name, what, value, *more = command.split()
            found = self.slots[name.partition("/")[2]]
            if what == "addr":
                assert found.state == "maint", command
                found = replace(found, address=value, port=int(more[1]))
            else:
                found = replace(found, **{what: int(value) if what == "weight" else value})
            self.slots[found.name] = found

    @property
    def ready(self):
        return {each.address: each.weight for each in self.slots.values() if each.state == "ready"}


# ---- the pool


def test_weights_are_of_the_largest_part_and_who_is_spare_has_none():
    found = pool(flows(instance(1, 0.4), instance(2, 0.2), instance(3, 0.0), instance(4, 0.0001)))
    assert [(each.weight, scaled(each.weight, 100)) for each in found] == [
        (1.0, 100),
        (0.5, 50),
        (0.0, 0),
        (0.00025, 1),
    ]
    assert {each.state for each in found} == {State.READY}


@pytest.mark.parametrize(
    ("status", "state"),
    [("draining", State.DRAIN), ("maintenance", State.MAINT), ("critical", State.DOWN), ("starting", State.DOWN)],
)
def test_who_is_out_has_the_state_of_its_status(status, state):
    (out,) = pool(flows(instance(1, None, status=status)))
    assert (out.state, out.weight) == (state, 0.0)


def test_the_last_known_good_is_ready_whatever_its_status():
    assert pool(flows(instance(1, 1.0, status="critical")))[0].state is State.READY


def test_an_instance_that_can_serve_twice_as_much_gets_twice_as_much_by_load():
    slow = instance(1, load={"utilization": 0.8, "in_flight": 3, "rate": 40.0})
    quick = instance(2, load={"utilization": 0.8, "in_flight": 3, "rate": 80.0})
    idle = instance(3, load={"utilization": 0.01, "in_flight": 0, "rate": 5.0})  # says nothing of what it could serve
    assert [each.weight for each in pool(flows(slow, quick), by_load=True)] == [0.5, 1.0]
    assert [each.weight for each in pool(flows(slow, idle), by_load=True)] == [1.0, 1.0]
    assert [each.weight for each in pool(flows(slow, quick))] == [1.0, 1.0]


def test_a_load_that_cannot_be_moves_a_weight_no_further_than_its_bounds():
    mad = instance(1, load={"utilization": 0.21, "in_flight": 0, "rate": 1e9})
    sane = instance(2, load={"utilization": 0.5, "in_flight": 0, "rate": 50.0})
    found = pool(flows(mad, sane), by_load=True)
    assert min(each.weight for each in found) >= 0.25 / 4.0


# ---- slots


def test_an_empty_backend_takes_the_pool_address_before_state():
    told = steps("web", [slot(1), slot(2)], [server(1), server(2, 0.5)])
    assert told.commands == (
        "set server web/s1 addr 10.0.0.1 port 80",
        "set server web/s1 weight 256",
        "set server web/s1 state ready",
        "set server web/s2 addr 10.0.0.2 port 80",
        "set server web/s2 weight 128",
        "set server web/s2 state ready",
    )


def test_a_server_that_drains_keeps_its_slot_and_one_that_is_gone_leaves_it():
    proxy = FakeProxy([slot(1, "10.0.0.1", 80, 256, "ready"), slot(2, "10.0.0.2", 80, 256, "ready")])
    told = steps("web", list(proxy.slots.values()), [server(2, 0.0, State.DRAIN)])
    assert told.commands == ("set server web/s1 state maint", "set server web/s2 state drain")


def test_who_is_out_takes_no_slot_and_where_slots_are_few_the_busiest_have_them():
    told = steps("web", [slot(1)], [server(1, 0.2), server(2), server(3, 0.0, State.DOWN)])
    assert "addr 10.0.0.2" in told.commands[0]
    assert [each.address for each in told.unplaced] == ["10.0.0.1"]


def test_a_slot_that_was_left_long_ago_is_taken_before_one_just_left():
    told = steps("web", [slot(1, since=2), slot(2, since=900)], [server(1)])
    assert told.commands[0].startswith("set server web/s2 addr")


def test_a_host_name_is_told_and_not_placed():
    named = replace(server(1), address="mx.example.com")
    told = steps("web", [slot(1)], [named])
    assert (told.commands, told.nameless) == ((), (named,))


SERVERS = st.lists(
    st.builds(
        server,
        st.integers(1, 6),
        st.sampled_from([0.0, 0.001, 0.5, 1.0]),
        st.sampled_from(list(State)),
    ),
    max_size=6,
    unique_by=lambda each: each.key,
)


@given(st.lists(SERVERS, min_size=1, max_size=6), st.integers(1, 6))
def test_told_twice_nothing_is_said_and_who_is_ready_is_in_with_its_weight(pools, size):
    proxy = FakeProxy([slot(at) for at in range(size)])
    for wanted in pools:
        told = steps("web", list(proxy.slots.values()), wanted)
        proxy.obey(told.commands)
        assert steps("web", list(proxy.slots.values()), wanted).commands == ()
        missing = {each.address for each in told.unplaced}
        expected = {
            each.address: scaled(each.weight, 256)
            for each in wanted
            if each.state is State.READY and each.address not in missing
        }
        assert proxy.ready == expected


# ---- agent-checks


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ("10.0.0.1:80", "up ready 100%"),
        ("fra/a1/web-2", "up ready 25%"),
        ("10.0.0.3:80", "up drain"),
        ("10.0.0.4:80", "maint"),
        ("10.0.0.5:80", "ready down #critical"),
        ("10.0.0.6:80", "up ready 0%"),
        ("10.0.0.9:80", ""),
    ],
)
def test_an_agent_check_is_answered_by_share_and_status(asked, told):
    found = pool(
        flows(
            instance(1, 0.8),
            instance(2, 0.2),
            instance(3, None, status="draining"),
            instance(4, None, status="maintenance"),
            instance(5, None, status="critical"),
            instance(6, 0.0),
        )
    )
    assert line(found, asked) == told


# ---- the driver


class FakeRuntime(FakeProxy):
    """A HAProxy at the end of a socket."""

    refusal = ""

    def __init__(self, count):
        super().__init__([slot(at) for at in range(count)])
        self.count = count

    def slots_of(self):
        return list(self.slots.values())

    def restart(self):
        self.slots = {each.name: each for each in (slot(at) for at in range(self.count))}

    def ask(self, commands):
        if self.refusal:
            return self.refusal
        self.obey(commands.split(";"))
        return (
            "\nIP changed from '127.0.0.1' to '10.0.0.1', port changed from '1' to '80' by 'stats socket command'\n\n"
        )


class Socket:
    """`Runtime` in front of a `FakeRuntime`."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.ask = proxy.ask

    def slots(self, _backend):
        return self.proxy.slots_of()

    def states(self):
        return "the states\n"


class Agent:
    """Answers for one service; `gone` or a problem instead."""

    def __init__(self, *instances):
        self.answer = flows(*instances)
        self.error = None

    def get(self, _path):
        if self.error is not None:
            raise self.error
        return self.answer


@pytest.fixture
def driven(tmp_path):
    proxy, agent, said = FakeRuntime(2), Agent(instance(1), instance(2)), []
    driver = Driver(agent, Socket(proxy), (Bond("web", "shop.web"),), said.append, tmp_path / "state")
    driver.refresh("shop.web")
    return driver, proxy, agent, said


def test_a_driver_says_each_command_once_and_keeps_the_state_file(driven, tmp_path):
    driver, proxy, _, said = driven
    assert (driver.apply(), driver.apply(), len(said)) == (6, 0, 6)
    assert proxy.ready == {"10.0.0.1": 256, "10.0.0.2": 256}
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_a_proxy_that_begins_anew_is_given_what_is_known_even_without_an_agent(driven):
    driver, proxy, agent, _ = driven
    driver.apply()
    proxy.restart()
    agent.error = NoAgent("unix:/x", "gone")
    with pytest.raises(NoAgent):
        driver.refresh("shop.web")
    assert driver.apply() == 6
    assert proxy.ready == {"10.0.0.1": 256, "10.0.0.2": 256}


def test_a_service_that_the_agent_forgot_stays_as_it_was_and_that_is_said_once(driven):
    driver, proxy, agent, said = driven
    driver.apply()
    agent.error = Problem(404, {"detail": "No service"})
    driver.refresh("shop.web")
    driver.refresh("shop.web")
    assert driver.apply() == 0
    assert said[6:] == ["shop.web: the agent knows no such service"]
    assert set(proxy.ready) == {"10.0.0.1", "10.0.0.2"}


def test_what_is_lacking_is_said_once_while_it_lacks(driven):
    driver, _, agent, said = driven
    agent.answer = flows(instance(1), instance(2), instance(3, 0.1))
    driver.refresh("shop.web")
    driver.apply()
    driver.apply()
    lacking = [words for words in said if "have no slot" in words]
    assert (len(lacking), "fra/a1/web-3" in lacking[0]) == (1, True)


def test_a_refusal_of_the_socket_names_its_words(driven):
    driver, proxy, _, said = driven
    proxy.refusal = "Permission denied\n\n"
    with pytest.raises(LocalError, match="Permission denied"):
        driver.apply()
    assert said == []


def test_a_directory_that_cannot_be_written_is_named(driven, tmp_path):
    driver, *_ = driven
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "in the way").touch()
    with pytest.raises(LocalError, match="--state-file"):
        driver.apply()
