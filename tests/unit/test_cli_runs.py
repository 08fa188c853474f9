"""What `dislocate run`, `exec` and `secret` print and how they end, with the real API in front of runs that are played."""

import json

import pytest
from click.testing import CliRunner

from dislocate.cli import run_follow
from dislocate.cli.main import cli
from dislocate.cli.run_follow import _follow_live, _picture
from dislocate.cli.run_progress import Progress, _details, headline, interesting, overview
from dislocate.client.connection import AgentConnection, NoAgent
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import Applied, Hold, NodeState, RunState, Step, TaskOutcome, TaskResult
from dislocate.core.boundary.store import Uncertain
from dislocate.core.runs.records import audit_key
from dislocate.core.units import SECOND
from dislocate.run_files import read_spec
from tests.support.fake_backend import FakeBackend, member
from tests.support.fake_runs import FLEET, FakeRuns, seal
from tests.support.tiny_store import TOKEN, served

SPEC = """
name = "web"
targets = "dc:fra"
[[resources]]
kind = "file"
path = "/etc/motd"
content = "hello"
"""
WOULD = TaskOutcome(TaskResult.WOULD_CHANGE, before="d0", after="d1", diff="-old\n+hello\n")


class Shell:
    def __init__(self, url, runs, directory):
        self.url, self.runs, self.file = url, runs, directory / "web.toml"
        self.file.write_text(SPEC)

    def run(self, *words, stdin=None, code=0):
        at = words.index("--") if "--" in words else len(words)
        typed = [*words[:at], "--agent", self.url, *words[at:]]
        done = CliRunner().invoke(cli, [str(word) for word in typed], prog_name="dislocate", input=stdin)
        assert done.exit_code == code, (done.output, done.exception)
        return done

    def says(self, *words, **options):
        return self.run(*words, **options).output

    def json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options).stdout)

    def spec(self, text):
        self.file.write_text(text)
        return self.file


@pytest.fixture
def shell(tmp_path, monkeypatch):
    monkeypatch.setattr(run_follow, "RETRY", 0.01)
    monkeypatch.setenv("DISLOCATE_TOKEN", TOKEN)
    runs = FakeRuns(FakeBackend())
    with served(runs.backend, seal=seal) as url:
        yield Shell(url, runs, tmp_path)


def play(shell, *moves):
    """Make these moves one after the other, each when the stream looks for changes."""
    answers, left = shell.runs, iter(moves)

    def moving(request):
        if type(request).__name__ == "WatchKeys":
            next(left, lambda: None)()
        return answers(request)

    shell.runs.backend.result = moving


# ---- plan and check


def test_a_plan_shows_batches_and_each_difference_once(shell):
    shell.runs.looks = {"fra/a1": (WOULD,), "fra/a3": (WOULD,)}
    shell.runs.unreachable = {"fra/a2": "it is dead"}
    said = shell.says("run", "plan", shell.file)
    assert "web: 3 nodes in 3 batches" in said
    assert "1      canary  1      fra/a1" in said
    assert "fra/a1, fra/a3:\n  ~ file /etc/motd: would change\n      -old\n      +hello\n" in said
    assert "not known of 1 node:\n  fra/a2: it is dead" in said
    assert said.endswith(f"dislocate run start {shell.file}\n")
    assert not shell.runs.started


def test_a_plan_says_what_nobody_has(shell):
    said = shell.says("run", "plan", shell.spec(SPEC + '[strategy]\nwaves = ["frx"]\n'))
    assert "\nnote: strategy.waves[0]: no node is in 'frx', did you mean 'fra'?\n" in said


def test_a_template_error_is_shown_with_its_place_and_ends_with_1(shell):
    words = "content, line 1: 'facts.colour' is undefined, did you mean 'color'?"
    shell.runs.looks = {"fra/a1": (TaskOutcome(TaskResult.FAILED, kind="render", words=words),)}
    said = shell.says("run", "plan", shell.file, code=1)
    assert f"! file /etc/motd: failed (render): {words}" in said
    assert "dislocate run start" not in said


def test_a_check_ends_with_0_only_when_all_is_as_it_should_be(shell):
    assert "3 nodes, all as they should be" in shell.says("run", "check", shell.file)
    shell.runs.looks = {"fra/a1": (TaskOutcome(TaskResult.UNTOLD),)}
    assert "? file /etc/motd: unknown: this command has no check" in shell.says("run", "check", shell.file, code=1)
    shell.runs.looks = {"fra/a1": (WOULD,)}
    assert "3 nodes, not all as they should be" in shell.says("run", "check", shell.file, code=1)
    shell.runs.looks, shell.runs.unreachable = {}, {"fra/a1": "gone"}
    assert "3 nodes, not all known to be as they should be" in shell.says("run", "check", shell.file, code=1)
    assert shell.json("run", "check", shell.file, code=1)["unreachable"] == {"fra/a1": "gone"}


def test_a_check_advises_what_helps_and_a_plan_only_for_what_it_would_change(shell):
    plan, again = f"dislocate run plan {shell.file}", f"dislocate run check {shell.file}"
    shell.runs.unreachable = {"fra/a2": "it is dead"}
    assert shell.says("run", "check", shell.file, code=1).endswith(
        f"\n\nonce fra/a2 can be asked: {again}\nwhat does not come back: dislocate members forget fra/a2\n"
    )
    shell.runs.looks = {"fra/a1": (WOULD,)}
    said = shell.says("run", "check", shell.file, code=1)
    assert f"\n\nbring it about, beginning with: {plan}\nonce fra/a2 can be asked: " in said
    shell.runs.looks = {"fra/a1": (TaskOutcome(TaskResult.FAILED, words="no such user"),)}
    shell.runs.unreachable = {}
    assert shell.says("run", "check", shell.file, code=1).endswith(f"\n\nmend what failed, then look again: {again}\n")
    shell.runs.looks = {"fra/a1": (TaskOutcome(TaskResult.UNTOLD),)}
    assert shell.says("run", "check", shell.file, code=1).endswith("give it 'unless', 'creates' or 'check'\n")


def test_a_plan_in_a_file_binds_the_start_and_a_stale_one_is_refused(shell, tmp_path):
    out = tmp_path / "plan.json"
    assert f"--plan {out}" in shell.says("run", "plan", shell.file, "--out", out)
    assert shell.json("run", "start", shell.file, "--plan", out, "--detach")["id"] == "1"
    assert sorted(shell.runs.started[0].plan.expected) == ["fra/a1", "fra/a2", "fra/a3"]
    shell.runs.looks = {"fra/a2": (WOULD,)}
    said = shell.says("run", "start", shell.file, "--plan", out, code=1)
    assert "The plan is stale: something was changed since on fra/a2" in said
    assert "dislocate run plan FILE --out plan.json" in said
    out.write_text("{}")
    assert "it is no plan" in shell.says("run", "start", shell.file, "--plan", out, code=1)
    assert len(shell.runs.started) == 1


# ---- start


def test_what_a_file_says_arrives_as_it_says_it(shell):
    extra = 'timeout = "7s"\n[strategy]\nsoak = "90s"\n[[gates]]\nservice = "shop.web"\nwindow = "3s"\n'
    shell.run("run", "start", shell.spec(SPEC + extra), "--detach")
    assert shell.runs.started[0].spec == read_spec(shell.file)
    assert shell.runs.started[0].spec.gates[0].window == 3 * SECOND


def test_a_start_follows_the_run_and_ends_with_0_when_it_is_done(shell):
    runs = shell.runs
    play(
        shell,
        lambda: runs.move_node("1", "fra/a1", NodeState.STARTED),
        lambda: runs.move_node("1", "fra/a1", NodeState.DONE, steps=(Step("file /etc/motd", "changed"),)),
        lambda: runs.move("1", RunState.RUNNING, batch=1),
        lambda: runs.move("1", RunState.DONE, words="all nodes are done"),
    )
    said = shell.says("run", "start", shell.file)
    assert "run 1 of web: running, 3 nodes, batch 1 of 3, started by ann" in said
    assert "fra/a1  done  1 of 1 changed, 0.0 s" in said
    assert "run 1: running -> done\n" in said
    assert "run 1 is done: all nodes are done (1 done, 2 pending)" in said
    assert said.endswith("take it back: dislocate run revert 1\n")


@pytest.mark.parametrize("state", [RunState.FAILED, RunState.ABORTED, RunState.REVERTED, RunState.REVERT_FAILED])
def test_every_other_end_is_a_failure_and_says_what_to_type(shell, state):
    play(shell, lambda: shell.runs.move("1", state, words="too many failed"))
    said = shell.says("run", "start", shell.file, code=1)
    assert f"run 1 is {state.value}: too many failed" in said
    assert "dislocate run status 1" in said


def test_what_nobody_has_is_said_aloud_at_the_start(shell):
    file = shell.spec(SPEC + '[strategy]\nwaves = ["frx"]\nfloor = { "shop.wbe" = 0.9 }\n')
    refused = shell.run("run", "start", file, "--detach", code=1)
    assert f"{file}: strategy.floor: got 'shop.wbe'" in refused.stderr
    assert not shell.runs.started
    done = shell.run("run", "start", file, "--detach", "--unknown-services")
    assert "note: strategy.waves[0]: no node is in 'frx', did you mean 'fra'?\n" in done.stderr
    assert "note: strategy.floor: no node has an instance of 'shop.wbe', did you mean 'shop.web'?" in done.stderr


def test_a_run_can_be_left_to_itself(shell):
    assert shell.says("run", "start", shell.file, "--detach").splitlines()[1].split() == ["1", "web", "3", "running"]
    assert shell.json("run", "start", shell.file, "--detach") == {
        "id": "2",
        "state": "running",
        "targets": 3,
        "doubts": [],
    }


def test_events_are_json_for_programs(shell):
    play(shell, lambda: shell.runs.move("1", RunState.DONE))
    told = [json.loads(line) for line in shell.says("run", "start", shell.file, "--json").splitlines()]
    assert (told[0]["event"], told[0]["nodes"]["fra/a1"]["state"]) == ("status", "pending")
    assert (told[-1]["event"], told[-1]["state"]) == ("status", "done")


def test_a_watch_goes_on_when_the_agent_comes_back(shell):
    shell.run("run", "start", shell.file, "--detach")
    answers, lost = shell.runs, iter([1])

    def failing(request):
        if type(request).__name__ == "WatchKeys":
            if next(lost, None):
                return Uncertain("the leader is gone")
            shell.runs.move("1", RunState.DONE)
        return answers(request)

    shell.runs.backend.result = failing
    assert "run 1 is done" in shell.says("run", "watch", "web")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('name = "web"', 'nmae = "web"', "nmae: got 'web', expected one of confirm"),
        ("path =", "pth =", "resources[0].pth"),
        ("[[resources]]", "[[resources", "line 4"),
        ('"dc:fra"', '"dc:fra &"', "at character 9"),
        ('"dc:fra"', '"dc:fri"', "dc:fri fits no node, did you mean 'fra'?"),
        ('path = "/etc/motd"', 'path = "/etc/motd"\nrequire = ["file /etc/mod"]', "did you mean 'file /etc/motd'?"),
        ('path = "/etc/motd"', 'path = "/etc/motd"\nrequire = ["file /etc/motd"]', "file /etc/motd -> file /etc/motd"),
        ('"hello"', "\"{{ secret('db/pass') }}\"", "put it: dislocate secret put db/pass"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_place(shell, old, new, says):
    assert old in SPEC
    for command in ("plan", "check", "start"):
        said = shell.says("run", command, shell.spec(SPEC.replace(old, new)), code=1)
        assert said.startswith(f"{shell.file}: ")
        assert says in said
    assert not shell.runs.started
    assert not shell.runs.visits


def test_a_target_larger_than_confirmed_is_refused(shell):
    shell.runs.backend.node.members |= {f"lon/c{number}": member(f"lon/c{number}") for number in range(30)}
    file = shell.spec(SPEC.replace("dc:fra", "dc:lon"))
    assert "30: so many nodes are meant" in shell.says("run", "start", file, code=1)
    assert shell.json("run", "start", file, "--confirm", "30", "--detach")["targets"] == 30


def test_a_missing_file_is_named(shell, tmp_path):
    assert "No such file" in shell.says("run", "plan", tmp_path / "none.toml", code=1)


# ---- seeing and steering


def test_a_status_shows_data_centers_nodes_and_what_it_waits_for(shell):
    shell.spec(SPEC.replace("dc:fra", "*"))
    shell.run("run", "start", shell.file, "--detach")
    shell.runs.move_node("1", "fra/a1", NodeState.DONE)
    shell.runs.move_node("1", "fra/a2", NodeState.FAILED, kind="validate", words="nginx: [emerg]\nunknown directive")
    shell.runs.kill("wdc/b2")
    shell.runs.move("1", RunState.PAUSED, hold=Hold.FAILURE, words="1 node failed")
    said = shell.says("run", "status", "web")
    assert "held (failure): 1 node failed" in said
    assert [line.split() for line in said.splitlines() if line.startswith(("fra ", "wdc "))] == [
        ["fra", "1", "0", "1", "1", "0"],
        ["wdc", "0", "0", "2", "0", "0"],
    ]
    assert "(validate): nginx: [emerg] ... unknown directive\n" in said
    assert said.count("unknown directive") == 1
    assert [line for line in said.splitlines() if line.startswith("wdc/b2") and " NO " in line]
    assert "dislocate run resume 1" in said
    assert shell.json("run", "status", "1", "--local")["nodes"]["fra/a1"]["state"] == "done"


def test_a_status_by_name_is_told_in_a_data_center_that_is_cut_off(shell):
    shell.run("run", "start", shell.file, "--detach")
    shell.runs.missing = "wdc/b1"
    said = shell.says("run", "status", "web", code=1)
    assert "run status --local" in said
    assert "run 1 of web: running" in shell.says("run", "status", "web", "--local")
    age, _, row = shell.says("run", "status", "--local").splitlines()[:3]
    assert (age, row.split()[:2]) == ("as it was at most 1.5 s ago", ["1", "web"])
    shell.runs.missing = ""
    shell.runs.move("1", RunState.DONE)
    shell.runs.missing = "wdc/b1"
    said = shell.says("run", "status", "web", "--local")
    assert said.startswith("as it was at most 1.5 s ago\nrun 1 of web: done")


def test_runs_are_listed_and_named_by_name(shell):
    assert "no runs" in shell.says("run", "list")
    shell.run("run", "start", shell.file, "--detach")
    assert shell.says("run", "status").splitlines()[1].split()[:5] == ["1", "web", "running", "1/3", "3"]
    assert "did you mean 'web'?" in shell.says("run", "status", "wbe", code=1)
    assert "dislocate run list shows" in shell.says("run", "status", "17", code=1)


@pytest.mark.parametrize(
    ("verb", "then", "says", "next_"),
    [
        ("approve", {}, "running, version 2: your approval counts", "dislocate run watch 1"),
        ("approve", {"state": RunState.AWAITING}, "awaiting approval, ", "another operator: dislocate run approve 1"),
        (
            "pause",
            {"state": RunState.PAUSED, "hold": Hold.OPERATOR},
            "paused (operator), version 2: nothing more of it begins, and what is in flight finishes",
            "go on: dislocate run resume 1      take it back: dislocate run revert 1",
        ),
        ("resume", {}, "running, version 2: it was resumed", "dislocate run watch 1"),
        ("resume", {"state": RunState.PAUSED, "hold": Hold.GATE}, "paused (gate), ", "it goes on by itself"),
        ("promote", {}, "running, version 2: soak and gates of the present batch count", "dislocate run watch 1"),
        (
            "abort",
            {"state": RunState.ABORTED},
            "aborted, version 2: everything is left as it is, and what is in flight finishes",
            "take it back: dislocate run revert 1",
        ),
        (
            "revert",
            {"state": RunState.REVERTING},
            "reverting, version 2: what it did is taken",
            "dislocate run watch 1",
        ),
    ],
)
def test_a_verb_says_what_is_the_case_then_and_what_to_type_next(shell, verb, then, says, next_):
    shell.run("run", "start", shell.file, "--detach")
    shell.runs.move("1", **{"state": RunState.RUNNING, **then})
    now, hint = shell.says("run", verb, "web", "--why", "because", "--version", "1").splitlines()
    assert now.startswith(f"run 1 of web is {says}")
    assert hint.startswith(next_)
    (asked,) = shell.runs.steered
    assert (asked.verb.value, asked.words, asked.version, asked.actor) == (verb, "because", 1, "ann")


def test_a_node_that_drifted_since_says_what():
    done = {"state": "done", "steps": [], "took": 0.1, "kind": ""}
    assert _details(done, "") == "  0 of 0 changed, 0.1 s"
    told = _details({**done, "kind": "drift"}, "file /etc/motd: changed")
    assert told == "  0 of 0 changed, 0.1 s; drifted since: file /etc/motd: changed"


def test_a_revert_is_forced_with_words_for_the_audit(shell):
    shell.run("run", "start", shell.file, "--detach")
    assert "--why" in shell.says("run", "revert", "web", "--force", code=1)
    assert shell.runs.steered == []
    shell.run("run", "revert", "web", "--force", "--why", "run 9 is stuck")
    assert (shell.runs.steered[0].force, shell.runs.steered[0].words) == (True, "run 9 is stuck")


@pytest.mark.parametrize("verb", ["skip", "retry"])
def test_a_node_is_steered(shell, verb):
    shell.run("run", "start", shell.file, "--detach")
    said = shell.says("run", verb, "1", "fra/a2")
    assert said.startswith("run 1 of web is running, version 1: fra/a2 is ")
    assert shell.runs.steered[0].node == "fra/a2"
    assert shell.json("run", verb, "1", "fra/a2") == {"id": "1", "version": 5}
    assert "is no target of run 1" in shell.says("run", verb, "1", "wdc/b1", code=1)


def test_a_verb_that_was_done_is_no_failure_where_nobody_can_tell_how_the_run_stands(shell):
    shell.run("run", "start", shell.file, "--detach")
    answers = shell.runs

    def lost(request):
        return Uncertain("the leader is gone") if answers.steered else answers(request)

    def steered(request):
        shell.runs.backend.result = lost
        return answers(request)

    shell.runs.backend.result = steered
    done = shell.run("run", "pause", "1")
    assert done.stdout == "run 1, version 5: nothing more of it begins, and what is in flight finishes\n"
    assert done.stderr.endswith("\ndislocate run status 1\n")


def test_an_illegal_transition_says_what_helps(shell):
    shell.run("run", "start", shell.file, "--detach")
    shell.runs.refusal = Refused("conflict", "verb", "run 1 is done: revert takes it back")
    assert "revert takes it back" in shell.says("run", "pause", "1", code=1)
    assert json.loads(shell.run("run", "pause", "1", "--json", code=1).stderr)["status"] == 409


def test_the_audit_is_verified_here_and_not_by_the_agent(shell):
    assert "nothing was done yet" in shell.says("run", "audit")
    for verb in ("start", "pause", "abort"):
        shell.runs.audit(verb)
    assert [line.split()[4] for line in shell.says("run", "audit").splitlines()[1:]] == ["start", "pause", "abort"]
    assert len(shell.json("run", "audit", "--limit", "2")["entries"]) == 2
    assert shell.json("run", "audit", "verify")["broken"] is None
    entry = json.loads(shell.runs.keys[audit_key(2)].value)
    shell.runs.write(audit_key(2), {**entry, "actor": "eve"})
    assert "does not hold from entry 2 on" in shell.says("run", "audit", "verify", code=1)


# ---- exec


def test_a_command_prints_whole_lines_with_the_name_of_the_node(shell):
    shell.runs.output = {"fra/a1": (b"one\ntw", b"o\nthree"), "fra/a2": (b"\xff\n",)}
    shell.runs.looks = {"fra/a2": (TaskOutcome(TaskResult.FAILED, code=3, words="it failed"),)}
    shell.runs.looks["fra/a1"] = (TaskOutcome(TaskResult.CHANGED, code=0),)
    shell.runs.unreachable = {"fra/a3": "dead"}
    done = shell.run("exec", "dc:fra", "--", "uptime", "-p", code=1)
    assert done.stdout == "fra/a1 | one\nfra/a1 | two\nfra/a1 | three\nfra/a2 | \ufffd\n"
    assert done.stderr == "fra/a2: exit code 3\nfra/a3: not reached: dead\n1 of 3 nodes did it\n"
    assert shell.runs.visits[0].tasks[0].resource.run == ("uptime", "-p")


def test_a_command_that_failed_in_silence_says_why_at_the_end(shell):
    shell.runs.looks = {
        "wdc/b1": (TaskOutcome(TaskResult.FAILED, kind="apply", words="uptimo: no such program"),),
        "wdc/b2": (TaskOutcome(TaskResult.FAILED, code=1, words="uptimo: exit code 1"),),
    }
    done = shell.run("exec", "dc:wdc", "--", "uptimo", code=1)
    assert done.stderr.startswith("wdc/b1: apply: uptimo: no such program\nwdc/b2: uptimo: exit code 1\n")


def test_a_command_that_all_did_ends_with_0(shell):
    shell.runs.looks = {path: (TaskOutcome(TaskResult.CHANGED, code=0),) for path in ("wdc/b1", "wdc/b2")}
    assert shell.run("exec", "dc:wdc", "--", "true").stderr == "2 of 2 nodes did it\n"
    told = [json.loads(line) for line in shell.run("exec", "--json", "dc:wdc", "--", "true").stdout.splitlines()]
    assert [line["event"] for line in told] == ["start", "done", "done", "end"]


def test_what_nodes_say_is_shown_to_the_terminal_and_does_not_command_it(shell):
    escape = "\033]0;evil\007"
    shell.runs.output = {"wdc/b1": (f"\tall\r\n{escape}\n".encode(),)}
    failed = TaskOutcome(TaskResult.FAILED, kind="apply", words=escape, diff=f"+{escape}\n")
    shell.runs.looks = {"wdc/b1": (failed,), "wdc/b2": (failed,)}
    done = shell.run("exec", "dc:wdc", "--", "true", code=1)
    assert done.stdout == "wdc/b1 | \tall\nwdc/b1 | \\x1b]0;evil\\x07\n"
    shell.runs.looks |= dict.fromkeys(FLEET, (failed,))
    for said in (
        done.output,
        shell.says("run", "plan", shell.file, code=1),
        shell.says("run", "check", shell.file, code=1),
    ):
        assert "\\x1b]0;evil\\x07" in said
        assert "\033" not in said
    told = Progress().take("node", {"node": "a", "part": part("failed", escape)})
    assert told == ["a  failed: \\x1b]0;evil\\x07"]


def test_a_command_for_nobody_is_refused(shell):
    assert "fits no node" in shell.says("exec", "dc:fre", "--", "true", code=1)
    shell.runs.refusal = Refused("unavailable", "", "this agent is leaving")
    assert "this agent is leaving" in shell.says("exec", "dc:fra", "--", "true", code=1)


# ---- secrets


def test_a_secret_comes_from_a_prompt_a_file_or_standard_input_and_never_from_an_argument(shell, tmp_path):
    shell.run("secret", "put", "a", "--targets", "dc:fra", stdin="s3cret\n")
    shell.run("secret", "put", "b", "-", "--targets", "dc:fra", stdin="s3cret\n")
    file = tmp_path / "key.pem"
    file.write_bytes(b"\xff\n")
    shell.run("secret", "put", "tls/key", f"@{file}", "--targets", "*")
    found = {key: value.value for key, value in shell.runs.keys.items()}
    assert json.loads(found["records/secrets/a"])["sealed"] == json.loads(found["records/secrets/b"])["sealed"]
    assert [line.split()[:3] for line in shell.says("secret", "list").splitlines()[1:]] == [
        ["a", "1", "3"],
        ["b", "1", "3"],
        ["tls/key", "1", "5"],
    ]
    said = shell.says("secret", "put", "a", "s3cret", "--targets", "*", code=1)
    assert "arguments are seen by every user" in said
    assert "s3cret" not in said
    assert "expected at most 16 KiB" in shell.says("secret", "put", "a", "@/dev/zero", "--targets", "*", code=1)
    endless = "x" * 20_000
    assert "expected at most 16 KiB" in shell.says("secret", "put", "a", "-", "--targets", "*", code=1, stdin=endless)
    shell.run("secret", "delete", "tls/key")
    assert "dislocate secret list shows" in shell.says("secret", "delete", "tls/ke", code=1)


# ---- an agent that goes away


def test_without_an_agent_nothing_begins(shell, monkeypatch):
    shell.url = "http://127.0.0.1:1"
    assert "no agent at" in shell.says("run", "start", shell.file, code=3)
    assert "no agent at" in shell.says("exec", "*", "--", "true", code=3)


def test_a_run_whose_agent_is_lost_goes_on_and_says_where_to_look(shell, monkeypatch):
    monkeypatch.setattr(run_follow, "TRIES", 3)
    events, asked = AgentConnection.events, iter([1])

    def lost(agent, path, since=None):
        if not next(asked, None):
            raise NoAgent(agent.where, "Connection refused")
        yield next(events(agent, path, since))

    monkeypatch.setattr(AgentConnection, "events", lost)
    said = shell.says("run", "start", shell.file, code=3)
    assert "ended the watch; asking again" in said
    assert "run 1 goes on without it: dislocate run watch 1 --agent ANOTHER" in said


def test_a_command_whose_agent_is_lost_names_those_nobody_knows_of(shell, monkeypatch):
    def lost(agent, *_):
        yield {"event": "start", "nodes": ["fra/a1", "fra/a2"]}
        yield {"event": "done", "node": "fra/a1", "ok": True, "code": 0, "kind": "", "words": "", "took": 0.1}

    monkeypatch.setattr(AgentConnection, "lines", lost)
    assert "nobody knows of fra/a2" in shell.says("exec", "dc:fra", "--", "true", code=1)


# ---- the view


def test_on_a_terminal_the_last_picture_stays_as_lines(shell, capsys):
    shell.run("run", "start", shell.file, "--detach")
    play(shell, lambda: shell.runs.move("1", RunState.DONE))
    progress = Progress()
    _follow_live(AgentConnection(shell.url), "1", progress)
    assert progress.run["state"] == "done"
    assert "DATACENTER  DONE" in capsys.readouterr().out


def test_the_view_of_a_large_run_shows_what_matters_first():
    progress = Progress()
    nodes = {f"fra/n{number:03}": part("pending") for number in range(100)}
    nodes |= {"fra/n050": part("failed", words="no"), "fra/n060": part("started"), "fra/n070": part("done")}
    progress.take("status", {**RUN, "nodes": nodes, "plan": []})
    assert [node for node, _ in interesting(progress, 3)] == ["fra/n050", "fra/n060", "fra/n070"]
    shown = picture(progress)
    assert "run 7 of web: running" in shown
    assert "fra/n050" in shown


def picture(progress):
    from rich.console import Console

    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115 (as long as the test)
    console.print(_picture(progress))
    return console.export_text()


def test_the_view_says_what_it_waits_for_and_for_how_long_it_has_and_what_may_be_done():
    progress = Progress()
    plan = [{"wave": "canary", "nodes": ["fra/a1"]}, {"wave": "fra", "nodes": ["fra/a2"]}]
    run = {**RUN, "words": "started by ann", "plan": plan}
    progress.take("status", {**run, "nodes": {"fra/a1": part("granted"), "fra/a2": part("pending")}})
    progress.take("node", {"node": "fra/a1", "part": part("started")})
    shown = picture(progress)
    assert "waits for fra/a1 to report" in shown
    assert "0:00" in shown
    assert shown.count("started by ann") == 1
    assert "dislocate run pause|abort|revert 7" in shown
    progress.take("node", {"node": "fra/a1", "part": {**part("done"), "reachable": False}})
    shown = picture(progress)
    assert "batch 1, canary" in shown
    assert "OUT OF REACH" in shown
    progress.take("run", {**RUN, "state": "paused", "hold": "budget", "words": "fra/a1 is out of reach"})
    shown = picture(progress)
    assert "fra/a1 is out of reach" in shown
    assert "it goes on by itself; to take it back: dislocate run revert 7" in shown


def test_one_node_is_no_nodes(shell):
    said = shell.says("run", "plan", shell.spec(SPEC.replace("dc:fra", "id:fra/a1")))
    assert "web: 1 node in 1 batch\n" in said
    assert headline({**RUN, "targets": 1}).startswith("run 7 of web: running, 1 node, ")


def test_the_end_of_a_log_is_told_once_and_whole():
    progress = Progress()
    progress.take("status", {**RUN, "nodes": {"fra/a1": part("started")}, "plan": []})
    words = "apply web: not ready\nIts log ends: 1\n2"
    assert progress.take("node", {"node": "fra/a1", "part": part("failed", words)}) == [
        "fra/a1  failed: apply web: not ready\n    Its log ends: 1\n    2"
    ]
    shown = list(overview(progress))
    assert shown[-1] == "fra/a1: apply web: not ready\n    Its log ends: 1\n    2"
    assert "\n".join(shown).count("Its log ends") == 1
    assert "apply web: not ready ... 2\n" in "\n".join(shown)


def test_what_a_revert_left_and_why_it_was_is_told(shell):
    assert shell.says("run", "start", shell.file, "--detach")
    steps = (
        Step("file /etc/motd", "changed", "was removed"),
        Step("key color", "left", "color was changed again since, so it was left"),
    )
    failed = Applied(state=NodeState.FAILED, kind="apply", words="x: exit 100: Reading lists\nE: no package x")
    shell.runs.move_node("1", "fra/a1", NodeState.REVERTED, steps=steps, applied=failed)
    shell.runs.move("1", RunState.REVERTED)
    said = shell.says("run", "status", "1")
    details = "key color: color was changed again since, so it was left; it had failed (apply): x: exit 100: Reading lists ..."
    assert f"{details} E: no package x\n" in said
    assert said.count("E: no package x") == 1
    applied = shell.json("run", "status", "1")["nodes"]["fra/a1"]["applied"]
    assert (applied["state"], applied["kind"]) == ("failed", "apply")


def test_a_node_that_left_something_says_so_as_it_comes():
    progress = Progress()
    progress.take("status", {**RUN, "nodes": {"fra/a1": part("started")}, "plan": []})
    edited = ("file /etc/motd", "replaced", "was removed; it was changed since the run, and what it was then is in /x")
    left = ("migrate", "left", "nothing says how to undo: migrate")
    assert progress.take("node", {"node": "fra/a1", "part": part("reverted", steps=[edited, left])}) == [
        f"fra/a1  reverted  {edited[0]}: {edited[2]}; {left[0]}: {left[2]}"
    ]


def test_what_fails_on_the_way_back_as_it_did_before_is_told_once():
    words = "reload: exit 1\nno such unit"
    failed = {"state": "failed", "kind": "apply", "words": words, "steps": []}
    progress = Progress()
    progress.take("status", {**RUN, "nodes": {"fra/a1": part("revert failed", words, applied=failed)}, "plan": []})
    assert "\n".join(overview(progress)).count("reload: exit 1") == 1


FAILS = "sh: exit 1: starting\nHullo: no such greeting"
SHORT = "sh: exit 1: starting ... Hullo: no such greeting"
REASON = f"1 node failed (fra/a1), and none may: fra/a1: apply reload: {SHORT}"


def failed_part(state="failed"):
    return {**part(state, f"reload: {FAILS}", [("reload", "failed", FAILS)]), "kind": "apply"}


def test_a_failure_is_told_where_one_looks_first_and_referred_to_below_it():
    progress = Progress()
    nodes = {"fra/a1": failed_part(), "fra/a2": failed_part()}
    progress.take("status", {**RUN, "state": "failed", "words": REASON, "nodes": nodes, "plan": []})
    lines = "\n".join(overview(progress)).splitlines()
    assert lines[1] == REASON
    assert [" ".join(line.split()[4:]) for line in lines if line.startswith("fra/a")] == [
        "(apply): reload: as told above",
        "(apply): reload: as told above",
    ]
    assert lines[-1].startswith("fra/a2"), "nothing stands below the table that was told above it"
    shown = " ".join(picture(progress).split())
    assert shown.count("no such greeting") == 1


def test_a_failure_is_told_once_line_by_line_whole_where_it_happens():
    progress = Progress()
    lines = progress.take("status", {**RUN, "nodes": {"fra/a1": part("started")}, "plan": []})
    lines += progress.take("node", {"node": "fra/a1", "part": failed_part()})
    assert lines[-1] == "fra/a1  failed (apply): reload: sh: exit 1: starting\n    Hullo: no such greeting"
    paused = {**RUN, "state": "paused", "hold": "failure", "words": REASON}
    reason = "1 node failed (fra/a1), and none may: fra/a1: apply reload: as told above"
    assert progress.take("run", paused)[0] == f"run 7: running -> paused (failure): {reason}"
    assert progress.take("run", {**RUN, "state": "aborted", "words": REASON}) == ["run 7: paused (failure) -> aborted"]
    assert progress.ending() == f"run 7 is aborted: {reason} (1 failed)"


def test_a_failure_that_a_run_names_before_its_node_does_is_not_told_again():
    progress = Progress()
    progress.take("status", {**RUN, "nodes": {"fra/a1": part("granted")}, "plan": []})
    assert REASON in progress.take("run", {**RUN, "state": "reverting", "words": REASON})[0]
    applied = {**failed_part(), "applied": None}
    left = ("reload", "left", f"fails as it did: {FAILS}")
    reverted = part("reverted", steps=[left], applied=applied)
    assert progress.take("node", {"node": "fra/a1", "part": reverted}) == [
        "fra/a1  reverted  reload: fails as it did: as told above"
    ]
    progress.take("run", {**RUN, "state": "reverted", "words": f"1 node as before; {REASON}"})
    assert SHORT not in progress.ending()


def test_what_one_line_cannot_hold_is_told_once_for_all_that_said_it():
    progress = Progress()
    words = "apply web: it is not ready after 30 s\nits log:\nE: no port\nE: no route"
    nodes = {"fra/a1": part("failed", words), "fra/a2": part("failed", words), "fra/a3": part("failed", "exit 1")}
    shown = "\n".join(overview_of(progress, nodes))
    assert shown.count("E: no port") == 1
    assert "\nfra/a1, fra/a2: apply web: it is not ready" in shown
    assert "exit 1" in shown


def overview_of(progress, nodes):
    progress.take("status", {**RUN, "nodes": nodes, "plan": []})
    return list(overview(progress))


def test_a_status_does_not_send_to_itself(shell):
    shell.run("run", "start", shell.file, "--detach")
    shell.runs.move("1", RunState.REVERTED)
    said = shell.says("run", "status", "1")
    assert "dislocate run status" not in said
    assert said.endswith("\nwho did what: dislocate run audit\n")


def test_each_thing_is_told_once():
    progress = Progress()
    progress.take("status", {**RUN, "nodes": {"fra/a1": part("pending")}, "plan": []})
    assert progress.take("node", {"node": "fra/a1", "part": part("started")}) == ["fra/a1  started"]
    assert progress.take("node", {"node": "fra/a1", "part": part("started")}) == []
    assert progress.take("run", RUN) == []
    assert progress.take("run", {**RUN, "state": "paused", "hold": "gate", "words": "no data"}) == [
        "run 7: running -> paused (gate): no data",
        "it goes on by itself; to take it back: dislocate run revert 7",
    ]


RUN = {
    "id": "7",
    "name": "web",
    "title": "",
    "state": "running",
    "hold": "",
    "version": 1,
    "batch": 0,
    "batches": 3,
    "targets": 100,
    "actor": "ann",
    "words": "",
    "started_at": 0.0,
}


def part(state, words="", steps=(), applied=None):
    return {
        "state": state,
        "kind": "",
        "words": words,
        "steps": [{"resource": name, "result": result, "words": said, "took": 0.0} for name, result, said in steps],
        "took": 0.0,
        "wave": "fra",
        "reachable": True,
        "applied": applied,
    }
