"""`dislocate run simulate`, with the real API in front of a fleet that is played."""

import json

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from dislocate.cli import run_rehearsal, run_topology
from dislocate.cli.main import cli
from dislocate.cli.run_durations import Past, part_times
from dislocate.cli.run_foretold import in_lines, service_rows
from dislocate.cli.run_rehearsal import Rehearsals, left_out
from dislocate.cli.run_topology import ALL_OF_THEM, Described, fleet_of
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import NodeState, RunState, Step
from dislocate.core.boundary.spec import File, Gate, Process, RunSpec, Strategy
from dislocate.core.units import MILLISECOND, SECOND
from sim.rehearsal import Lowest, Rehearsed
from tests.support.fake_backend import FakeBackend, datacenter
from tests.support.fake_runs import FakeRuns, seal
from tests.support.tiny_store import served

SPEC = """
name = "web"
targets = "dc:fra"
[strategy]
soak = "1s"
settle = "1s"
[[resources]]
kind = "file"
path = "/etc/motd"
content = "hello"
"""
CALM = Rehearsed(
    seed=1,
    is_troubled=False,
    ending="done",
    words="3 nodes done",
    took=20 * SECOND,
    lowest={"shop.web": Lowest(4, 6, "fra", 0.5)},
    happened=(),
)


class Shell:
    def __init__(self, url, runs, directory):
        self.url, self.runs, self.file = url, runs, directory / "web.toml"
        self.file.write_text(SPEC)

    def run(self, *words, code=0):
        typed = ["run", "simulate", self.file, *words, "--agent", self.url]
        done = CliRunner().invoke(cli, [str(word) for word in typed], prog_name="dislocate")
        assert done.exit_code == code, (done.output, done.exception)
        return done

    def json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options).stdout)


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setattr(run_topology, "PEER_TIMEOUT", 0.5)
    runs = FakeRuns(FakeBackend())
    node = runs.backend.node
    node.members = {path: replace(one, address="127.0.0.1:49701") for path, one in node.members.items()}
    node.datacenters = {"fra": datacenter("fra", rtt=None), "wdc": datacenter("wdc", rtt=90 * MILLISECOND)}
    with served(runs.backend, seal=seal) as url:
        yield Shell(url, runs, tmp_path)


def found(calm=(CALM,), troubled=(), **fields):
    given = {
        "name": "web",
        "batches": 3,
        "targets": ("fra/a1", "fra/a2", "fra/a3"),
        "agents": 6,
        "datacenters": 2,
        "servers": 3,
        "longest_rtt": 90 * MILLISECOND,
        "task_times": (SECOND,),
        "because": "a guess",
        "calm": calm,
        "troubled": troubled,
        "notes": (),
    }
    return Rehearsals(**(given | fields))


# ---- the whole of it


def test_a_run_is_rehearsed_on_the_fleet_as_agents_describe_it_and_nothing_is_written(shell, tmp_path):
    out = tmp_path / "worst.toml"
    said = shell.run("--seeds", "2", "--out", out).output
    assert "web: 3 nodes in 3 batches; rehearsed on 5 agents in 2 data centers, up to 90 ms apart, 2 servers" in said
    assert "a node's part takes 1.0 s, a guess: no run of this name was measured yet" in said
    assert "with faults: " in said
    assert "shop.web  2" in said
    assert "rehearsed 2 of 2" in said
    assert f"dislocate sim run {out} --seed" in said
    assert not shell.runs.started
    assert "rtt" in out.read_text()
    replayed = CliRunner().invoke(cli, ["sim", "run", str(out), "--seed", "1"], prog_name="dislocate")
    assert "web" in replayed.output


def test_rehearsals_in_processes_of_their_own_find_the_same(shell, monkeypatch):
    here = shell.json("--seeds", "2")
    monkeypatch.setattr(run_rehearsal, "WORTH_IT", 1)
    monkeypatch.setattr(run_rehearsal.os, "cpu_count", lambda: 2)
    assert shell.json("--seeds", "2")["rehearsals"] == here["rehearsals"]


def test_programs_get_spans_in_seconds_and_every_rehearsal(shell):
    answer = shell.json("--seeds", "1", "--no-faults")
    assert 3 * (1 + 1) < answer["duration"]["median"] < 20
    assert answer["targets"] == ["fra/a1", "fra/a2", "fra/a3"]
    assert (answer["endings"], [one["ending"] for one in answer["rehearsals"]]) == ({}, ["done"])
    assert answer["lowest"]["shop.web"]["instances"] == 2


def test_what_nodes_took_in_the_latest_run_that_is_over_is_what_they_take(shell):
    CliRunner().invoke(cli, ["run", "start", str(shell.file), "--detach", "--agent", shell.url])
    for node, took in (("fra/a1", 2), ("fra/a2", 4), ("fra/a3", 3)):
        steps = (Step("file /etc/motd", "changed", took=took * SECOND),)
        shell.runs.move_node("1", node, NodeState.DONE, took=took * SECOND, steps=steps)
    assert "a guess" in shell.json("--seeds", "1", "--no-faults")["task_time"]["because"]
    shell.runs.move("1", RunState.DONE)
    assert shell.json("--seeds", "1", "--no-faults")["task_time"] == {"seconds": 3.0, "because": "as measured in run 1"}


def test_targets_that_nobody_fits_are_refused_as_a_plan_would_be(shell):
    shell.file.write_text(SPEC.replace("dc:fra", "dc:fro"))
    assert "an expression that some node fits" in shell.run(code=1).output
    shell.file.write_text(SPEC.replace("soak", "saok"))
    assert "did you mean 'soak'?" in shell.run(code=1).output


def test_without_an_agent_it_ends_as_every_command_does(shell):
    done = CliRunner().invoke(
        cli, ["run", "simulate", str(shell.file), "--agent", "unix:/nowhere"], prog_name="dislocate"
    )
    assert done.exit_code == 3
    assert "no agent at unix:/nowhere" in done.output


def test_where_nothing_keeps_runs_it_says_so(shell):
    shell.runs.backend.result = Refused("unavailable", "", "no servers are named here")
    assert shell.run(code=1).output.startswith("no servers are named here\n")


def test_data_centers_that_nobody_can_be_asked_about_are_as_far_apart_as_the_way_through_ours(shell):
    node = shell.runs.backend.node
    members = list(node.members.values())
    node.members["tok/c1"] = replace(members[0], node=replace(members[0].node, datacenter="tok", name="c1"))
    node.datacenters["tok"] = datacenter("tok", rtt=200 * MILLISECOND)
    for path in ("wdc/b1", "wdc/b2", "tok/c1"):
        node.members[path] = replace(node.members[path], address="127.0.0.99:1")
    answer = shell.json("--seeds", "1", "--no-faults")
    assert answer["notes"] == ["nobody could be asked how far apart these are, taken is the way through fra: tok-wdc"]


# ---- its parts


def described(count, services):
    members = [{"datacenter": "fra", "name": f"n{at:02}", "state": "alive", "tags": []} for at in range(count)]
    return Described("fra/n00", members, services, ("fra/n01", "fra/n02"), "fra/n01", {}, ())


def placed(*nodes):
    return [{"node": node, "status": "passing"} for node in nodes]


def test_a_small_fleet_is_rehearsed_whole():
    fleet, note = fleet_of(described(ALL_OF_THEM, {"shop.web": placed("fra/n40")}), ("fra/n05",), (), 0)
    assert (len(fleet.names["fra"]), list(fleet.services), note) == (ALL_OF_THEM, ["shop.web"], "")


def test_of_a_large_fleet_only_those_are_rehearsed_whom_the_run_is_about():
    services = {"shop.web": placed("fra/n40"), "shop.api": placed("fra/n41")}
    fleet, note = fleet_of(described(ALL_OF_THEM + 1, services), ("fra/n05",), ("shop.web",), 0)
    assert fleet.names["fra"] == ("n00", "n01", "n02", "n05", "n40")
    assert list(fleet.services) == ["shop.web"]
    assert note == f"rehearsed are the 5 of {ALL_OF_THEM + 1} agents that this run is about"


def test_where_task_times_come_from_is_said():
    spec = RunSpec(name="web", targets="*", resources=(File(path="/etc/motd"),))
    assert part_times(spec, Past("7", (5, 6)), ()) == ((5, 6), "as measured in run 7")
    assert part_times(replace(spec, task_time=9), Past(), ())[0] == (9,)
    assert part_times(spec, Past(), ())[1].startswith("a guess: no run of this name")


def test_a_process_takes_its_start_and_where_it_replaces_one_the_drain():
    process = Process(name="web", run=("web",), service="shop.web", drain_for=3 * SECOND)
    spec = RunSpec(name="web", targets="*", resources=(process, File(path="/etc/motd")))
    (first,), _ = part_times(spec, Past(), ())
    (later,), _ = part_times(spec, Past(), ("shop.web",))
    assert later - first > 3 * SECOND
    assert part_times(spec, Past("7", (first,)), ("shop.web",))[0] == (later,), "run 7 was the first start"
    assert part_times(spec, Past(resources={"process web": ("3", first)}), ("shop.web",))[0] == (later,)
    assert part_times(spec, Past(resources={"process web": ("3", 9 * SECOND)}), ("shop.web",))[0] == (9 * SECOND,)
    alone = replace(spec, resources=(replace(process, service=""),))
    assert part_times(alone, Past(), ("shop.web",))[0][0] < first


def test_what_is_left_out_is_said():
    process, gate = Process(name="pool", run=("pool",), service="shop.pool"), Gate(service="shop.pool", utilization=0.8)
    spec = RunSpec(name="web", targets="*", resources=(process,), gates=(gate,), strategy=Strategy(approvals=1))
    assert list(left_out(spec, ())) == [
        "approvals are not waited for",
        "how busy instances are, and what callers say of them, is not rehearsed: gates judge only whether they pass",
        "shop.pool has no instance before this run: its gates are not rehearsed",
    ]
    assert len(list(left_out(spec, ("shop.pool",)))) == 2


def test_what_a_resource_took_under_another_name_and_id_is_what_it_takes(shell):
    pool = '[[resources]]\nkind = "process"\nid = "{}"\nname = "pool"\nrun = ["pool"]\n'
    shell.file.write_text(SPEC.replace('"web"', '"other"') + pool.format("the pool"))
    CliRunner().invoke(cli, ["run", "start", str(shell.file), "--detach", "--agent", shell.url])
    for node, took in (("fra/a1", 4), ("fra/a2", 6), ("fra/a3", 5)):
        steps = (Step("file /etc/motd", "same", took=9 * SECOND), Step("the pool", "changed", took=took * SECOND))
        shell.runs.move_node("1", node, NodeState.DONE, took=took * SECOND, steps=steps)
    shell.runs.move("1", RunState.DONE)
    shell.file.write_text('name = "web"\ntargets = "dc:fra"\n' + pool.format("mine"))
    found = shell.json("--seeds", "1", "--no-faults")["task_time"]
    assert found["seconds"] == 5.0
    assert found["because"].startswith("a guess from what its resources took in run 1: no run of this name")


def test_the_lines_have_the_spread_the_chances_and_the_worst_in_words():
    slow = replace(CALM, seed=2, took=30 * SECOND)
    held = replace(
        CALM, seed=3, is_troubled=True, ending="held", words="1 node failed", happened=((5 * SECOND, "kill fra/a2"),)
    )
    lines = "\n".join(in_lines(found((CALM, slow), (held, replace(CALM, seed=4)), notes=("one thing",))))
    assert "it takes 25.0 s (20.0 s to 30.0 s, 2 without faults)" in lines
    assert "with faults: held 50%, done 50% of 2 (kills, cuts of a data center, slow links, failing nodes)" in lines
    assert (
        "the worst, seed 3: held, still so after 20.0 s: 1 node failed\n     5.0 s  kill fra/a2\nnote: one thing"
        in lines
    )


def test_a_row_of_a_service_has_its_lowest_with_and_without_faults():
    worse = replace(CALM, lowest={"shop.web": Lowest(2, 6, "wdc", 0.0)})
    assert list(service_rows(found())) == [("shop.web", 6, 4, "50% in fra")]
    assert list(service_rows(found(troubled=(worse,)))) == [("shop.web", 6, 4, "50% in fra", "2, 0% in wdc")]


def test_a_rehearsal_that_does_not_end_as_done_is_named_beside_the_duration():
    assert any("but 1 did not end as done: held" in line for line in in_lines(found((replace(CALM, ending="held"),))))
