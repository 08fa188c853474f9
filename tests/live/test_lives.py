"""Agents that an operator starts, kills, restarts, sends away and wipes: what the others say, and what is kept."""

import shutil
import signal
import time

import pytest

from dislocate.core.tunables import RESTART_GRACE
from dislocate.core.units import SECOND
from tests.support.live import PATIENCE, command, curl, until

pytestmark = pytest.mark.live

ALL = {"fra/a1": "alive", "fra/a2": "alive", "wdc/a1": "alive"}
REGISTRATION = b'{"service": "orders", "port": 7001, "tags": ["blue"], "meta": {"v": "2"}}'


@pytest.fixture
def three(by_hand):
    """Two in one data center, one in another; the second and third know the first only."""
    agents = [by_hand(path).start() for path in ALL]
    until("everybody knows everybody", lambda: all(agent.states() == ALL for agent in agents))
    return agents


def orders(agent):
    return [(one["node"], one["status"], one["tags"]) for one in agent.instances("orders")]


def test_three_agents_by_hand_join_with_one_seed_and_registrations_outlive_a_killed_agent(three):
    first, second, far = three
    assert curl(second.host, "PUT", "/api/instances/o1", REGISTRATION)[0] == 200
    expected = [("fra/a2", "passing", ["blue"])]
    until("all answer it", lambda: all(orders(agent) == expected for agent in three))

    second.process.kill()
    until("the others say dead", lambda: all(agent.states()["fra/a2"] == "dead" for agent in (first, far)))
    kept = [("fra/a2", "unattended", ["blue"])]
    until("its instance is kept, unattended", lambda: orders(first) == kept and orders(far) == kept)

    second.start()
    assert orders(second) == expected, "durable when it was answered"
    until("all answer it again", lambda: all(orders(agent) == expected for agent in three))


def test_sigterm_is_a_planned_restart_that_nobody_calls_a_death(three):
    first, second, far = three
    curl(second.host, "PUT", "/api/instances/o1", REGISTRATION)
    expected = [("fra/a2", "passing", ["blue"])]
    until("all answer it", lambda: all(orders(agent) == expected for agent in three))

    asked = time.monotonic()
    assert second.process.terminate(PATIENCE) == 0
    said: dict[str, set] = {"member": set(), "service": set()}
    ends = time.monotonic() + 4  # longer than a killed agent needs to be dead everywhere, far below the grace
    while time.monotonic() < ends:
        for agent in (first, far):
            said["member"].add(agent.states()["fra/a2"])
            said["service"].update(status for _, status, _ in orders(agent))
    assert said == {"member": {"alive"}, "service": {"passing"}}

    second.start()
    until("it is back", lambda: all(agent.states() == ALL for agent in three))
    if time.monotonic() - asked < RESTART_GRACE / SECOND:  # for longer nothing was promised
        assert not any("fra/a2 dead" in agent.log for agent in three)


def test_leave_ends_the_process_and_the_others_say_left(three):
    first, second, far = three
    done = command("leave", agent=f"http://{second.host}:49700")
    assert (done.returncode, "fra/a2" in done.stdout) == (0, True), done.stderr
    assert second.process.wait(PATIENCE) == 0
    until("the others say left", lambda: all(agent.states()["fra/a2"] == "left" for agent in (first, far)))
    second.start()
    until("it may come back", lambda: all(agent.states() == ALL for agent in three))


def test_an_agent_whose_disk_was_wiped_comes_back_alive(three):
    first, second, far = three
    second.process.kill()
    until("the others say dead", lambda: all(agent.states()["fra/a2"] == "dead" for agent in (first, far)))
    shutil.rmtree(second.state)
    second.start()
    until("everybody knows everybody", lambda: all(agent.states() == ALL for agent in three))


def test_sighup_takes_over_services_and_tags_everywhere_and_keeps_all_when_the_file_is_bad(three):
    first, second, far = three
    second.configure('[[service]]\nname = "mail"\nport = 25\n')
    second.process.send_signal(signal.SIGHUP)
    until("the far agent answers it", lambda: [i["port"] for i in far.instances("mail")] == [25])
    until("so does the near one", lambda: [i["port"] for i in first.instances("mail")] == [25])
    second.file.write_text("[node]\nnmae = 1\n")
    second.process.send_signal(signal.SIGHUP)
    until("it says what is wrong", lambda: "did you mean 'name'" in second.log)
    assert [one["port"] for one in first.instances("mail")] == [25]
    assert second.process.is_running
