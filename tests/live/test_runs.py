"""Config runs on real processes: what dies on the way loses no change and doubles none.

Three data centers of three agents, five of them servers; every agent records itself.  Each test leaves the fleet whole.
"""

import json
import os
import sys
import threading
import time
from random import Random
from secrets import token_hex

import pytest

from dislocate.core.boundary.runs import NodeState, TaskResult
from dislocate.fleet.dev import dev_scenario
from dislocate.fleet.fleet import Fleet
from dislocate.fleet.operators import latest_run
from dislocate.host.instances import read_instances
from tests.support import shop
from tests.support.live import PATIENCE, command, is_alive, until
from tests.support.live_runs import Callers, Runs, shell, states, template

pytestmark = pytest.mark.live

KILLS = 40 if os.environ.get("DISLOCATE_PROFILE") == "full" else 3
LINGERS = 0.1  # seconds between the effect of a command and its end
NOTED = 'echo "$NOTE" >> "$PLACE/noted"'


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    with Fleet(dev_scenario(3, 3), tmp_path_factory.mktemp("runs"), record=True) as fleet:
        fleet.start()
        runs = Runs(fleet)
        yield runs


@pytest.fixture(autouse=True)
def whole(runs):
    """Everybody runs, knows all others and who leads, whatever the test before did."""
    runs.fleet.steer(**{"do": "heal", "from": "*", "to": "*", "channels": ["udp", "links", "app"]})
    for path, agent in runs.fleet.agents.items():
        if not agent.is_running:
            runs.fleet.restart(path)
    until("the fleet is whole", lambda: all(is_whole(seen) for seen in runs.fleet.living()))


def is_whole(seen):
    alive = [one["state"] for one in seen.members().values()] == ["alive"] * 9
    return alive and seen.store()["leader"] and all(one["reachable"] for one in seen.datacenters().values())


def test_a_template_reaches_every_node_once_while_the_leader_is_killed_and_comes_back(runs):
    leader = runs.leader()
    others = [name for name in ("fra", "tok", "wdc") if not leader.startswith(name)]
    note = "{{ facts.name }} of {{ facts.datacenter }}"
    reload = shell("reload", NOTED, only_notified=True)
    reload["environment"]["NOTE"] = note
    file = template("shop.conf", f"{note} is blue\n", notify=["reload"])
    waves = [*others, leader.partition("/")[0]]  # nothing is under way on its host when it is killed
    run = runs.start("shop", "*", file, reload, waves=waves, batch="50%", soak="1s")
    runs.until("it is in its midst", run, lambda seen: f"{others[0]}/a2" in done(seen))
    runs.fleet.kill(leader)
    until("another one leads", lambda: runs.leader() not in (None, leader))
    runs.fleet.restart(leader)
    seen = runs.over(run)
    assert seen["state"] == "done", seen
    for path in runs.fleet.plans:
        datacenter, _, name = path.partition("/")
        assert runs.file(path, "shop.conf").read_text() == f"{name} of {datacenter} is blue\n"
        assert runs.lines(path, "noted") == [f"{name} of {datacenter}"], path
        journal, *more = runs.journals(path, run)
        assert (journal.state, journal.answered, more) == (NodeState.DONE, True, []), path
        assert [entry.result for entry in journal.entries] == [TaskResult.CHANGED] * 2, path


def done(seen):
    return [path for path, state in states(seen).items() if state == "done"]


def test_a_bad_template_is_caught_at_the_canary_and_the_file_is_as_it_was(runs):
    canary = runs.file("fra/a1", "site.conf")
    canary.write_bytes(b"by hand \xff\n")
    canary.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(canary, 1, 2)
    before = canary.stat()
    file = template("site.conf", "{{ facts.name }} is broken\n", notify=["test"], mode="0600")
    # Its service would not start with that.
    test = shell("test", '! grep broken "$PLACE/site.conf"', only_notified=True)
    run = runs.start("site", "*", file, test)
    seen = runs.over(run)
    assert seen["state"] == "reverted", seen
    assert states(seen).pop("fra/a1") == "reverted"
    assert set(states(seen).values()) == {"reverted", "pending"}, "nobody but the canary was touched"
    after = canary.stat()
    assert canary.read_bytes() == b"by hand \xff\n"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert not [path for path in runs.fleet.plans if path != "fra/a1" and runs.file(path, "site.conf").exists()]


def test_a_data_center_that_is_cut_in_mid_wave_finishes_its_grant_holds_and_goes_on(runs, tmp_path):
    gate = tmp_path / "tok"
    (tmp_path / "fra").touch()
    (tmp_path / "wdc").touch()
    wait = shell("wait", f"touch $PLACE/waits; while [ ! -e '{tmp_path}'/$DC ]; do sleep 0.1; done; {NOTED}", once=True)
    wait["environment"] |= {"NOTE": "waited", "DC": "{{ facts.datacenter }}"}
    run = runs.start("waits", "*", wait, waves=["fra", "tok"], canary=0, batch="50%", by="fra/a1")
    # By the nodes themselves: one whose grant is on its way when it is cut off has nothing to finish.
    until("tok is at it", lambda: all(runs.file(f"tok/a{n}", "waits").exists() for n in (1, 2)))
    runs.fleet.steer(**{"do": "cut", "from": "tok", "to": "*", "channels": ["udp", "links", "app"]})
    held = runs.until("it holds", run, lambda seen: seen["state"] == "paused")
    assert held["hold"] == "budget", held
    assert "tok/" in held["words"], "it says for whom it waits"
    gate.touch()
    until(
        "what was granted is finished",
        lambda: [runs.lines(f"tok/a{n}", "noted")[-1:] for n in (1, 2)] == [["waited"]] * 2,
    )
    assert "waited" not in runs.lines("tok/a3", "noted"), "nothing else begins there"
    runs.fleet.steer(**{"do": "heal", "from": "tok", "to": "*", "channels": ["udp", "links", "app"]})
    seen = runs.over(run)
    assert seen["state"] == "done", seen
    for path in runs.fleet.plans:
        assert runs.lines(path, "noted").count("waited") == 1, path


def test_an_agent_that_is_killed_between_effect_and_journal_doubles_nothing(runs):
    victims = ["fra/a3", "tok/a3", "wdc/a3"]  # no servers
    random = Random(6)
    for number in range(KILLS):
        lines = [f"{kind} {number}" for kind in ("once", "guarded")]
        once, guarded = (shell(line, f'echo "{line}" >> "$PLACE/doubled"; sleep {LINGERS}') for line in lines)
        once["once"] = True
        guarded["check"] = ["sh", "-c", f'grep -q "{lines[1]}" "$PLACE/doubled"']
        killers = [
            threading.Thread(target=kill_at, args=(runs, path, random.choice(lines), random)) for path in victims
        ]
        for killer in killers:
            killer.start()
        run = runs.start(
            "doubled",
            f"id in {{{', '.join(victims)}}}",
            template("doubled.conf", f"{number}\n"),
            once,
            guarded,
            canary=0,
            parallel=3,
            max_failed="100%",
        )
        for killer in killers:
            killer.join()
        for path in victims:
            runs.fleet.agents[path].start()
        seen = runs.over(run)
        for path in victims:
            noted = [line for line in runs.lines(path, "doubled") if line in lines]
            node = seen["nodes"][path]
            assert len(set(noted)) == len(noted), f"{path}: {noted}"
            assert runs.file(path, "doubled.conf").read_text() == f"{number}\n"
            if node["state"] == "done":
                assert noted == lines, f"{path}: {noted} {node}"
            else:
                assert (node["state"], node["kind"]) == ("failed", "lost"), node


def kill_at(runs, path, line, random):
    """SIGKILL the agent when `line` is written, and before anybody can have noted that the command is at its end, or not
    long after."""
    deadline = time.monotonic() + PATIENCE
    while line not in runs.lines(path, "doubled"):
        assert time.monotonic() < deadline, f"{path} never came to {line}"
        time.sleep(0.001)
    time.sleep(random.choice((0, 0.05, LINGERS, LINGERS + 0.01, LINGERS + 0.02)))
    runs.fleet.kill(path)


def test_a_command_whose_agent_was_killed_is_ended_before_it_is_begun_again(runs, tmp_path):
    path, gate = "wdc/a3", tmp_path / "go on"
    script = f'''echo $$ >> "$PLACE/begun"; while [ ! -e '{gate}' ]; do sleep 0.1; done; echo done >> "$PLACE/effect"'''
    slow = shell("slow", script, check=["sh", "-c", 'test -e "$PLACE/effect"'])
    run = runs.start("slow", f"id:{path}", slow)
    until("it is begun", lambda: runs.lines(path, "begun"))
    runs.fleet.restart(path)
    until("it is begun again", lambda: len(runs.lines(path, "begun")) == 2)
    gate.touch()
    assert runs.over(run)["state"] == "done"
    until("none of them is left", lambda: not any(is_alive(int(pid)) for pid in runs.lines(path, "begun")))
    assert runs.lines(path, "effect") == ["done"]


def test_operators_plan_check_abort_revert_and_run_commands(runs, tmp_path):
    where = f"unix:{runs.fleet.home('fra/a1')}/state/http.sock"

    def dislocate(*arguments, exits=0):
        ended = command(*arguments, agent=where)
        assert ended.returncode == exits, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr

    spec, plan = tmp_path / "motd.toml", tmp_path / "plan.json"
    spec.write_text(MOTD)
    planned = dislocate("run", "plan", str(spec), "--out", str(plan))
    assert "+color = blue" in planned
    assert "fra/a1" in planned
    assert not runs.file("fra/a1", "motd").exists(), "nothing is changed"
    dislocate("run", "check", str(spec), exits=1)
    runs.file("fra/a2", "motd").write_text("somebody was here\n")
    refused = dislocate("run", "start", str(spec), "--plan", str(plan), exits=1)
    assert "changed since on fra/a2" in refused
    dislocate("run", "plan", str(spec), "--out", str(plan))
    assert "is done" in dislocate("run", "start", str(spec), "--plan", str(plan))
    assert "all as they should be" in dislocate("run", "check", str(spec))
    assert "done" in dislocate("run", "status", "motd")
    dislocate("run", "revert", "motd", "--why", "a drill")
    runs.until("it is reverted", latest(runs, "motd"), lambda seen: seen["state"] == "reverted")
    assert runs.file("fra/a2", "motd").read_text() == "somebody was here\n"
    assert not runs.file("fra/a1", "motd").exists()
    gate = tmp_path / "go on"
    run = runs.start("aborted", "dc:fra", shell("wait", f"while [ ! -e '{gate}' ]; do sleep 0.1; done", once=True))
    runs.until("it is begun", run, lambda seen: "started" in states(seen).values())
    assert dislocate("run", "abort", run, "--why", "a drill")
    gate.touch()
    assert runs.over(run)["state"] == "aborted"
    runs.until("who was in flight reports", run, lambda seen: done(seen) == ["fra/a1"])
    assert "a drill" in dislocate("run", "audit", "--json")
    assert "yes" in dislocate("run", "audit", "verify")
    runs.fleet.kill("fra/a3")
    until("it is missed", lambda: runs.fleet.observers["fra/a1"].members()["fra/a3"]["state"] == "dead")
    said = dislocate("exec", "dc:fra", "--", "sh", "-c", "echo hello from $$", exits=1)
    assert said.count("| hello from") == 2
    assert "fra/a3" in said
    assert "dead" in said


MOTD = """
name = "motd"
targets = "dc:fra"
[[resources]]
kind = "file"
path = "{{ facts.state_dir }}/motd"
content = "color = blue"
[strategy]
soak = "0s"
settle = "0s"
batch = "100%"
"""


def latest(runs, name):
    return latest_run(runs.agent("fra/a1"), name)


def test_a_secret_is_in_the_file_and_nowhere_else(runs, tmp_path):
    value = token_hex(16)
    token = tmp_path / "token"
    token.write_text(value)
    where = f"unix:{runs.fleet.home('tok/a2')}/state/http.sock"
    put = command("secret", "put", "shop/token", f"@{token}", "--targets", "dc:tok", agent=where)
    assert put.returncode == 0, put.stderr
    login = shell("login", 'test "$TOKEN" = "$(cut -d" " -f3 "$PLACE/token.conf")" && echo "with $TOKEN"', once=True)
    login["environment"]["TOKEN"] = "{{ secret('shop/token') }}"
    login["require"] = ["conf"]
    file = template("token.conf", "token = {{ secret('shop/token') }}", id="conf", mode="0600")
    run = runs.start("token", "dc:tok", file, login, canary=0)
    seen = runs.over(run)
    assert seen["state"] == "done", seen
    own = [runs.file(path, "token.conf") for path in states(seen)]
    assert [path.read_text() for path in own] == [f"token = {value}"] * 3
    spec = tmp_path / "token.json"
    spec.write_text(json.dumps({"name": "token", "targets": "dc:tok", "resources": [{**file, "content": "x"}, login]}))
    answers = [
        command("run", "plan", str(spec), agent=where).stdout,
        command("run", "status", run, "--json", agent=where).stdout,
        command("run", "audit", "--json", agent=where).stdout,
        command("secret", "list", "--json", agent=where).stdout,
    ]
    assert "+x" in answers[0], "the difference is shown, with a mark in place of the old line"
    assert not [answer for answer in answers if value in answer]
    holders = [
        path for path in runs.fleet.directory.rglob("*") if path.is_file() and value.encode() in path.read_bytes()
    ]
    assert sorted(holders) == sorted(own)


def test_a_new_version_of_a_service_takes_over_behind_real_traffic_without_one_failed_request(runs):
    nodes = ["wdc/a1", "wdc/a2", "wdc/a3"]

    def roll(version, batch=2, **more):
        run = [sys.executable, shop.__file__, "{address}", "{port}", version]
        resource = {"kind": "process", "name": "shop", "run": run, "service": "live.shop", "health": "/health"}
        resource |= {"count": 2, "ready_within": "120s", "drain_for": "3s", "timeout": "5m", **more}
        return runs.over(runs.start("service", "dc:wdc", resource, floor={"live.shop": 0.3}, batch=batch))

    def pids():
        return {path: [one.record.pid for one in read_instances(runs.file(path, "processes/shop"))] for path in nodes}

    assert roll("1", batch=3)["state"] == "done"
    agents = [runs.agent(path) for path in nodes]
    until("all are known", lambda: all(len(passing(agent, nodes)) == 6 for agent in agents))
    with Callers(agents[:2], "live.shop") as callers:
        until("1 answers", lambda: callers.answers["1"] > 50)
        assert roll("2")["state"] == "done"
        until("2 answers", lambda: callers.answers["2"] > 50)
        assert callers.failures == []
        before = pids()
        seen = roll("bad", ready_within="3s")
        assert (seen["state"], "not ready in time" in seen["words"]) == ("reverted", True), seen
        assert pids() == before, "nothing was taken away for it"
        runs.fleet.kill("wdc/a3")
        assert all(is_alive(pid) for pid in before["wdc/a3"])
        runs.fleet.restart("wdc/a3")
        until("they are adopted", lambda: len(passing(agents[2], ["wdc/a3"])) == 2)
        answered = callers.answers["2"]
        until("2 still answers", lambda: callers.answers["2"] > answered + 50)
        assert callers.failures == []
        assert set(callers.answers) == {"1", "2"}
    assert pids() == before
    assert roll("2", batch=3)["state"] == "done"
    assert pids() == before


def passing(agent, nodes):
    """The instances on these nodes that pass, as `agent` has it."""
    instances = agent.get("/api/services/live.shop")["instances"]
    return [one for one in instances if one["status"] == "passing" and one["node"] in nodes]
