"""Other people's proxies: the pool of a service, what agent-checks are answered, and the driver of a HAProxy."""

import pytest

from dislocate.client.connection import NoAgent, Problem
from dislocate.client.pool import State, pool, scaled
from dislocate.core.errors import LocalError
from dislocate.haproxy.agent_check import line
from dislocate.haproxy.driver import Bond, Driver
from dislocate.haproxy.runtime import NoProxy, Runtime
from tests.support.fake_haproxy import FakeProxy, slot


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


# ---- the runtime socket

STATE = """1
# be_id be_name srv_name srv_addr srv_port srv_uweight srv_admin_state srv_time_since_last_change
3 web s1 10.0.0.1 80 256 0 7
3 web b1 10.0.0.2 80 256 0 7
"""


def saying(stat):
    """A runtime whose HAProxy answers so to `show stat`."""
    runtime = Runtime("/nowhere")
    runtime.ask = {"show servers state web": STATE, "show stat 3 4 -1": stat}.__getitem__
    return runtime


def test_a_slot_is_a_backup_as_the_statistics_say():
    runtime = saying("# pxname,svname,qcur,bck,\nweb,s1,0,0,\nweb,b1,0,1,\n\n")
    assert [(each.name, each.is_backup) for each in runtime.slots("web")] == [("s1", False), ("b1", True)]


@pytest.mark.parametrize(
    "stat",
    ["", "Permission denied\n", "# pxname,svname,bck,\nweb,s1,0,\n", "# pxname,svname,bck,\napi,s1,0,\napi,b1,1,\n"],
)
def test_statistics_that_do_not_say_of_each_server_what_it_is_are_no_reason_to_move_any(stat):
    with pytest.raises(NoProxy, match="do not know all servers of web"):
        saying(stat).slots("web")


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
    assert driver.unknown == (), "it was known"


def test_what_is_lacking_is_said_once_while_it_lacks(driven):
    driver, _, agent, said = driven
    agent.answer = flows(instance(1), instance(2), instance(3, 0.1))
    driver.refresh("shop.web")
    driver.apply()
    driver.apply()
    lacking = [words for words in said if "have no slot" in words]
    assert (len(lacking), "fra/a1/web-3" in lacking[0]) == (1, True)


def test_a_backend_without_backups_is_told_of_once_with_what_to_add(driven):
    driver, _, agent, said = driven
    for other in (0.0, 0.5, 0.0):
        agent.answer = flows(instance(1), instance(2, other))
        driver.refresh("shop.web")
        driver.apply()
    lacking = [words for words in said if "no backup servers" in words]
    assert (len(lacking), "option allbackups" in lacking[0]) == (1, True)


def test_a_backend_that_is_not_there_any_more_keeps_no_other_from_being_driven(tmp_path):
    proxy, said = FakeRuntime(2), []
    runtime = Socket(proxy)
    found = runtime.slots

    def slots(backend):
        if backend == "old":
            raise LocalError("--backend", got="old", expected="a backend of that HAProxy")
        return found(backend)

    runtime.slots = slots
    bonds = (Bond("old", "shop.web"), Bond("web", "shop.web"))
    driver = Driver(Agent(instance(1)), runtime, bonds, said.append, tmp_path / "state")
    driver.refresh("shop.web")
    with pytest.raises(LocalError, match="old"):
        driver.apply()
    assert proxy.ready == {"10.0.0.1": 256}
    assert (tmp_path / "state").exists()


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
