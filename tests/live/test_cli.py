"""Every command, against a living fleet: what it prints for people, its JSON for programs, its exit code."""

import json
import subprocess
import sys

import pytest

from tests.live.test_answers import dig
from tests.support.live import PATIENCE, command, curl, until

pytestmark = pytest.mark.live


@pytest.fixture
def ask(settled):
    """Run a command against fra/a1: its exit code, output and errors; never a trace."""
    where = f"unix:{settled.home('fra/a1')}/state/http.sock"

    def run(*arguments):
        done = command(*arguments, agent=where)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    return run


def table(done):
    """The rows under the head of a table."""
    code, out, errors = done
    assert code == 0, errors
    return [line.split() for line in out.splitlines()[1:]]


def test_commands_that_look(ask, settled):
    assert [row[:2] for row in table(ask("members", "--dc", "wdc"))] == [[f"wdc/a{j}", "alive"] for j in (1, 2, 3)]
    assert [(row[0], row[1]) for row in table(ask("datacenters"))] == [("fra", "yes"), ("wdc", "yes")]
    assert table(ask("services", "--prefix", "shop.w")) == [["shop.web", "4/4", "fra,wdc"]]
    assert {(row[0], row[1], row[3]) for row in table(ask("service", "shop.web"))} == {
        (f"shop.web-{j}", f"{dc}/a{j}", "passing") for dc in ("fra", "wdc") for j in (1, 2)
    }
    assert any("joined" in row for row in table(ask("history", "wdc/a1")))
    assert [row[0] for row in table(ask("rtt"))] == ["fra", "wdc"]
    for arguments in (
        ["members"],
        ["datacenters"],
        ["services"],
        ["service", "shop.web"],
        ["history", "fra/a1"],
        ["rtt"],
    ):
        code, out, errors = ask(*arguments, "--json")
        assert (code, type(json.loads(out))) == (0, dict), errors


def test_commands_that_change_an_instance(ask, settled):
    far = settled.observers["wdc/a1"]

    def status():
        return [(one["status"], one["tags"], one["meta"]) for one in far.instances("jobs.mail")]

    new = ("register", "jobs.mail", "--port", "2500", "--ttl", "1h", "--tag", "blue", "--meta", "v=2", "--weight", "3")
    assert table(ask(*new)) == [["jobs.mail-2500", "jobs.mail", "2500"]]
    described = (["blue"], {"v": "2"})
    assert curl(settled.plans["fra/a1"].host, "POST", "/api/instances/jobs.mail-2500/heartbeat", b"{}")[0] == 200
    until("it is answered far away", lambda: status() == [("passing", *described)])
    assert table(ask("drain", "instance", "jobs.mail-2500", "--for", "10m", "--reason", "test"))[0][1] == "yes"
    until("it drains", lambda: status() == [("draining", *described)])
    assert table(ask("drain", "instance", "jobs.mail-2500", "--off"))[0][1] == "no"
    assert table(ask("maint", "jobs.mail-2500", "--reason", "test"))[0][1] == "yes"
    until("it is in maintenance", lambda: status() == [("maintenance", *described)])
    assert table(ask("maint", "jobs.mail-2500", "--off"))[0][1] == "no"
    assert ask("deregister", "jobs.mail-2500")[0] == 0
    until("it is gone", lambda: "jobs.mail" not in far.services())


def test_a_node_and_a_data_center_are_drained_from_anywhere(ask, settled):
    far = settled.observers["wdc/a1"]

    def draining():
        return {one["node"] for one in far.instances("shop.web") if one["status"] == "draining"}

    assert table(ask("drain", "node", "wdc/a1", "--for", "5m")) == [["wdc/a1", "yes"]]
    until("the node drains", lambda: draining() == {"wdc/a1"})
    assert ask("drain", "node", "wdc/a1", "--off")[0] == 0
    assert ask("drain", "dc", "fra")[0] == 0
    until("the data center drains", lambda: draining() == {"fra/a1", "fra/a2"})
    assert ask("drain", "dc", "fra", "--off")[0] == 0
    until("nothing drains", lambda: draining() == set())


def test_commands_about_balancing(ask, settled):
    code, out, errors = ask("pick", "shop.web")
    assert (code, out.strip() in {f"{settled.plans[f'fra/a{j}'].host}:18000" for j in (1, 2)}) == (0, True), errors
    code, out, errors = ask("pick", "shop.web", "--from", "wdc", "--json")
    assert (code, json.loads(out)["datacenter"]) == (0, "wdc"), errors
    code, out, errors = ask("flows", "shop.web")
    assert (code, "fra gets 100%" in out) == (0, True), errors
    assert ask("policy", "set", "shop.web", "--tier", "fra=1", "--file", "/no/such")[0] == 1
    assert ask("policy", "set", "shop.web", "--tier", "fra=1")[0] == 0
    try:
        assert table(ask("policy", "list"))[0][:2] == ["shop.web", "tiers"]
        until("the policy holds", lambda: json.loads(ask("pick", "shop.web", "--json")[1])["datacenter"] == "wdc")
        assert "fra gets 0%" in ask("flows", "shop.web")[1]
        hosts = {settled.plans[f"wdc/a{j}"].host for j in (1, 2)}
        asked = (settled.plans["fra/a1"].host, "shop.web.service.dislocate")
        until("DNS follows", lambda: set(dig(*asked)) == hosts)
        code, out, errors = ask("policy", "set", "shop.web", "--spill", "ded")
        assert (code, "did you mean 'dead'?" in errors) == (1, True)
    finally:
        assert ask("policy", "delete", "shop.web")[0] == 0
    until("the defaults hold again", lambda: json.loads(ask("pick", "shop.web", "--json")[1])["datacenter"] == "fra")


def test_a_data_center_that_nothing_could_replace_is_drained_only_by_force(ask, settled):
    far = settled.observers["wdc/a1"]

    def status():
        return [one["status"] for one in far.instances("jobs.only")]

    assert ask("register", "jobs.only", "--port", "2501")[0] == 0
    try:
        until("it is answered far away", lambda: status() == ["passing"])
        code, out, errors = ask("drain", "dc", "fra")
        assert (code, "nobody of jobs.only lives anywhere else" in errors) == (1, True), (out, errors)
        assert status() == ["passing"]
        assert ask("drain", "dc", "fra", "--force", "--for", "5m")[0] == 0
        until("it drains", lambda: status() == ["draining"])
    finally:
        assert ask("drain", "dc", "fra", "--off")[0] == 0
        assert ask("deregister", "jobs.only-2501")[0] == 0
    until("it is gone", lambda: "jobs.only" not in far.services())


def test_a_dead_member_is_forgotten_and_an_agent_leaves_and_both_come_back(ask, settled):
    settled.kill("wdc/a3")
    until("it is dead", lambda: settled.observers["fra/a1"].members()["wdc/a3"]["state"] == "dead")
    url = settled.plans["fra/a1"].http  # where --agent stands makes no difference
    assert command("members", "forget", "wdc/a3", "--agent", url).returncode == 0
    again = command("members", "--agent", url, "forget", "wdc/a3")
    assert (again.returncode, "no member wdc/a3" in again.stderr) == (1, True)
    assert ["wdc/a3"] not in [row[:1] for row in table(ask("members"))]
    settled.restart("wdc/a3")
    done = command("leave", "--json", agent=settled.plans["fra/a3"].http)
    assert done.returncode == 0, done.stderr
    assert settled.agents["fra/a3"].wait(PATIENCE) == 0
    until("it has left", lambda: settled.observers["fra/a1"].members()["fra/a3"]["state"] == "left")
    settled.restart("fra/a3")


def test_a_watch_prints_runs_commands_and_survives_a_restart_of_its_agent(ask, by_hand):
    assert ask("watch", "shop.web", "--once")[1].count("passing") == 4
    code, out, errors = ask("watch", "shop.web", "--once", "--", sys.executable, "-c", "print(input()[:11])")
    assert (code, out.strip()) == (0, '{"service":'), errors
    code, _, errors = ask("watch", "shop.web", "--once", "--", "/no/such/program")
    assert (code, "/no/such/program" in errors) == (2, True)

    agent = by_hand("fra/a1", '[[service]]\nname = "web"\nport = 80\n').start()
    watch = subprocess.Popen(
        [sys.executable, "-m", "dislocate", "watch", "web", "--agent", f"unix:{agent.state}/http.sock"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert ":80 passing" in watch.stdout.readline()
        agent.process.kill()
        agent.configure('[[service]]\nname = "web"\nport = 81\n')
        agent.start()
        assert any(":81 passing" in line for line in watch.stdout)
    finally:
        watch.kill()
        watch.wait()
        watch.stdout.close()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["service", "shop.wbe"], 1, "did you mean 'shop.web'?"),
        (["history", "fra/nobody"], 1, "Nothing is known of 'fra/nobody'"),
        (["members", "forget", "fra/a1"], 1, "is alive"),
        (["members", "forget", "fra/zz"], 1, "no member fra/zz"),
        (["register", "BAD", "--port", "1"], 1, "service: got 'BAD', expected lower-case"),
        (["register", "x", "--port", "70000"], 1, "port: got 70000, expected"),
        (["register", "x", "--port", "1", "--ttl", "soon"], 1, "check.ttl"),
        (["register", "x", "--port", "1", "--meta", "novalue"], 2, "KEY=VALUE"),
        (["register", "x"], 2, "--port"),
        (["deregister", "nope"], 1, "no instance 'nope' on this agent"),
        (["drain", "node", "wdc"], 2, "DC/NAME"),
        (["drain", "dc", "wdc/a1"], 2, "name of a data center"),
        (["drain", "dc", "fra", "--for", "73h"], 1, "at most '72h'"),
        (["pick", "shop.wbe"], 1, "did you mean 'shop.web'?"),
        (["pick", "shop.web", "--from", "tok"], 1, "from: got 'tok', expected one of"),
        (["flows", "shop.wbe"], 1, "did you mean 'shop.web'?"),
        (["drain", "dc", "tokyo"], 1, "No data center 'tokyo'"),
        (["drain", "node", "wdc/a9"], 1, "No member 'wdc/a9'"),
        (["drain", "instance", "shop.web-1", "--for", "soon"], 1, "--for"),
        (["maint", "nope"], 1, "no instance 'nope'"),
        (["watch", "Shop!"], 1, "service: got 'Shop!', expected"),
        (["memberz"], 2, "did you mean 'members'?"),
    ],
)
def test_a_mistake_is_explained_and_has_its_exit_code(ask, arguments, code, words):
    ended, out, errors = ask(*arguments) if arguments != ["memberz"] else command_code("memberz")
    assert (ended, words in errors, out) == (code, True, ""), errors


def command_code(*arguments):
    done = command(*arguments)
    return done.returncode, done.stdout, done.stderr


def test_errors_are_json_where_json_was_asked_for(ask):
    code, _, errors = ask("service", "nope", "--json")
    assert (code, json.loads(errors)["field"]) == (1, "name")


@pytest.mark.parametrize("where", ["http://127.255.0.1:1", "unix:/no/such/http.sock"])
def test_without_an_agent_commands_exit_3_and_say_how_to_start_or_name_one(where):
    for arguments in (
        ["members"],
        ["leave"],
        ["watch", "x"],
        ["watch", "x", "--template", "t"],
        ["register", "x", "--port", "1"],
        ["pick", "x"],
        ["flows", "x"],
        ["policy", "list"],
        ["haproxy", "drive", "--socket", "/x", "--backend", "a=b"],
    ):
        done = command(*arguments, agent=where)
        assert (done.returncode, "no agent at" in done.stderr, "dislocate dev" in done.stderr) == (3, True, True)
        assert "Traceback" not in done.stderr


def test_keys_are_new_each_time_and_of_the_right_size():
    one, two = (command("keys", "generate").stdout.strip() for _ in range(2))
    assert one != two
    assert len(one) == 44
    assert json.loads(command("keys", "generate", "--json").stdout).keys() == {"secret"}
