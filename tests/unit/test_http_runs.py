"""What operators of runs notice over HTTP."""

from hashlib import sha256

import gevent
import msgspec
import pytest

from dislocate.core.boundary.events import VisitTold
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import (
    Hold,
    NodeState,
    RunState,
    Step,
    TaskOutcome,
    TaskResult,
    TaskVerb,
    Verb,
    Visited,
)
from dislocate.core.boundary.store import ReadKeys, Uncertain
from dislocate.core.runs.records import active_key, audit_key, node_key
from dislocate.core.runs.spec import CONFIRM_ABOVE
from dislocate.core.tunables import RECOVERY_RUNS
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.edge.http import exec as exec_
from dislocate.edge.http.access import Access, Role, Token
from tests.support.api_client import ApiClient
from tests.support.fake_backend import NEVER, FakeBackend, member
from tests.support.fake_runs import FLEET, SAME, FakeRuns, seal

OPERATOR = {"dislocate.peer_uid": 0}
NO_USER = 4_000_000_000  # of this host, as far as anybody knows
SPEC = {
    "name": "web",
    "targets": "dc:fra",
    "resources": [{"kind": "file", "path": "/etc/motd", "content": "hello", "timeout": "5s"}],
}
WOULD = TaskOutcome(TaskResult.WOULD_CHANGE, before="d0", after="d1", diff="-old\n+hello\n")


@pytest.fixture
def runs():
    return FakeRuns(FakeBackend())


@pytest.fixture
def api(runs):
    client = ApiClient(runs.backend, Access(loopback=Role.OPERATE), seal=seal)
    return client


def started(api, **changes):
    result = api.ask("POST", "/api/runs", {**SPEC, **changes})
    assert result.status_code == 200, result.text
    return result.json


# ---- starting


def test_a_specification_with_durations_in_words_becomes_a_run(api, runs):
    assert started(api) == {"id": "1", "state": "running", "targets": 3, "doubts": []}
    (asked,) = runs.started
    assert asked.spec.resources[0].timeout == 5 * SECOND
    assert asked.plan.targets == ("fra/a1", "fra/a2", "fra/a3")
    assert asked.actor == "somebody at 127.0.0.1 via fra/a1"
    assert asked.at > 0


def test_dead_nodes_are_targets_too_and_those_that_left_are_none(api, runs):
    runs.kill("fra/a2")
    assert started(api)["targets"] == 3


@pytest.mark.parametrize(
    ("changes", "field", "says"),
    [
        ({"nme": "x"}, "nme", "did you mean 'name'?"),
        ({"resources": [{"kind": "fil", "path": "/x"}]}, "resources[0].kind", "did you mean 'file'?"),
        ({"resources": [{"kind": "file", "path": "/x", "timeout": 5}]}, "resources[0].timeout", "a duration such as"),
        ({"resources": [{"kind": "file", "path": "/x", "source": "y"}]}, "resources[0].source", "'content'"),
        (
            {
                "resources": [
                    {"kind": "file", "path": "/1", "require": ["file /2"]},
                    {"kind": "file", "path": "/2", "require": ["file /1"]},
                ]
            },
            "resources",
            "no cycle",
        ),
        ({"targets": "dcc:fra"}, "targets", "at character 1"),
        ({"targets": "dc:fre"}, "targets", "dc:fre fits no node, did you mean 'fra'?"),
        ({"targets": "dc:fra & name:b1"}, "targets", "each term fits some node, but none fits all"),
        ({"targets": "id in {fra/a1, fra/a9}"}, "targets", "nodes that are known, did you mean"),
        ({"confirm": 2}, "confirm", "3: so many nodes are meant, and more than 2 must be confirmed"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_begins(api, runs, changes, field, says):
    problem = api.problem("POST", "/api/runs", {**SPEC, **changes})
    assert (problem.status, problem.field) == (422, field)
    assert says in problem.detail
    assert not runs.started


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"strategy": {"floor": {"shop.wbe": 0.9}}}, "strategy.floor"),
        ({"gates": [{"service": "shop.web"}, {"service": "shop.wbe"}]}, "gates[1].service"),
    ],
)
def test_a_floor_or_gate_on_what_nobody_has_is_refused_unless_somebody_says_that_it_may(api, runs, changes, field):
    problem = api.problem("POST", "/api/runs", {**SPEC, **changes})
    assert (problem.status, problem.field) == (422, field)
    assert "did you mean 'shop.web'?" in problem.detail
    assert "--unknown-services" in problem.detail
    assert not runs.started
    (doubt,) = started(api, **changes, unknown_services=True)["doubts"]
    assert doubt.startswith(f"{field}: no node has an instance of 'shop.wbe'")
    assert len(runs.started) == 1


def test_a_template_that_cannot_be_filled_in_is_refused_before_a_canary_meets_it(api, runs):
    words = "content, line 1: 'facts.colour' is undefined"
    runs.kill("fra/a1")
    runs.looks = {"fra/a2": (TaskOutcome(TaskResult.FAILED, kind="render", words=words),)}
    plain = {"kind": "file", "path": "/etc/plain", "content": "hello"}
    resources = [plain, {**plain, "path": "/etc/motd", "content": "{{ facts.colour }}"}]
    problem = api.problem("POST", "/api/runs", {**SPEC, "resources": resources})
    assert (problem.status, problem.field) == (422, "resources[1]")
    assert "fra/a2" in problem.detail
    assert words in problem.detail
    assert not runs.started
    (visit,) = runs.visits
    assert [task.resource.path for task in visit.tasks] == ["/etc/motd"]


def test_a_template_that_nobody_could_try_is_told(api, runs):
    template = {"kind": "file", "path": "/etc/motd", "content": "{{ facts.hostname }}"}
    runs.unreachable = {"fra/a1": "it did not answer within 5s"}
    answer = started(api, resources=[template])
    assert answer["doubts"] == ["its templates were not all tried: fra/a1: it did not answer within 5s"]
    for node in ("fra/a1", "fra/a2", "fra/a3"):
        runs.kill(node)
    assert started(api, resources=[template], name="other")["doubts"] == [
        "its templates were not tried: no target is within reach"
    ]


def test_a_large_target_must_be_confirmed(api, runs):
    runs.backend.node.members |= {f"lon/c{number}": member(f"lon/c{number}") for number in range(CONFIRM_ABOVE + 1)}
    problem = api.problem("POST", "/api/runs", {**SPEC, "targets": "dc:lon"})
    assert (problem.field, f"more than {CONFIRM_ABOVE}" in problem.detail) == ("confirm", True)
    assert started(api, targets="dc:lon", confirm=CONFIRM_ABOVE + 1)["targets"] == CONFIRM_ABOVE + 1


def test_keys_that_templates_name_are_frozen_with_the_run(api, runs):
    runs.put("config/color", "blue")
    started(api, resources=[{"kind": "file", "path": "/x", "content": "{{ key('config/color') }}"}])
    assert runs.started[0].values == {"config/color": "blue"}
    assert runs.started[0].plan.revision == runs.started[0].plan.revision
    problem = api.problem(
        "POST",
        "/api/runs",
        {**SPEC, "resources": [{"kind": "file", "path": "/x", "content": "{{ key('config/colr') }}"}]},
    )
    assert "did you mean 'config/color'?" in problem.detail
    assert problem.got == "key('config/colr')"


def test_a_secret_must_be_there_and_for_every_target(api, runs):
    spec = {**SPEC, "resources": [{"kind": "file", "path": "/x", "content": "{{ secret('db/password') }}"}]}
    problem = api.problem("POST", "/api/runs", spec)
    assert "put it: dislocate secret put db/password" in problem.detail
    api.ask("PUT", "/api/secrets/db/password", {"value": "s3cret", "targets": "id in {fra/a1, fra/a2}"})
    assert "fra/a3 can read" in api.problem("POST", "/api/runs", spec).detail
    api.ask("PUT", "/api/secrets/db/password", {"value": "s3cret", "targets": "dc:fra"})
    assert api.ask("POST", "/api/runs", spec).status_code == 200
    assert "s3cret" not in msgspec.json.encode(runs.started).decode()


def test_what_the_ledger_refuses_is_answered_as_it_says(api, runs):
    runs.refusal = Refused("conflict", "targets", "fra/a1 is a target of run 3 (db, running): wait for it")
    problem = api.problem("POST", "/api/runs", SPEC)
    assert (problem.status, problem.field) == (409, "targets")
    assert "run 3" in problem.detail
    runs.backend.result = Uncertain("the leader is gone")
    assert api.problem("POST", "/api/runs", SPEC).status == 504


def test_runs_need_the_role_operate(runs):
    api = ApiClient(runs.backend, Access(loopback=Role.WRITE), seal=seal)
    for method, path, body in (
        ("POST", "/api/runs", SPEC),
        ("POST", "/api/runs/plan", SPEC),
        ("POST", "/api/runs/check", SPEC),
        ("POST", "/api/runs/1/pause", {}),
        ("GET", "/api/runs/audit", None),
        ("POST", "/api/exec", {"targets": "*", "command": ["true"]}),
        ("PUT", "/api/secrets/x", {"value": "x", "targets": "*"}),
        ("GET", "/api/secrets", None),
        ("DELETE", "/api/secrets/x", None),
        ("PUT", "/api/kv/records/secrets/x", b"x"),
        ("DELETE", "/api/kv/r?prefix=true", None),
    ):
        assert api.problem(method, path, body).status == 403, path
    assert not runs.started


def test_who_did_it_is_the_token_or_the_user_at_the_socket_and_nobody_is_believed_on_his_word(runs):
    access = Access(loopback=Role.OPERATE, tokens={sha256(b"s").hexdigest(): Token("alice", Role.OPERATE)})
    api = ApiClient(runs.backend, access)
    api.ask("POST", "/api/runs", SPEC, X_Dislocate_Actor="bob")
    api.ask("POST", "/api/runs", SPEC, X_Dislocate_Actor="bob", Authorization="Bearer s")
    api.environ |= OPERATOR
    api.ask("POST", "/api/runs", SPEC, X_Dislocate_Actor="bob")
    api.environ["dislocate.peer_uid"] = NO_USER
    api.ask("POST", "/api/runs", SPEC)
    assert [asked.actor for asked in runs.started] == [
        "somebody at 127.0.0.1 via fra/a1",
        "alice",
        "root@fra/a1",
        f"uid-{NO_USER}@fra/a1",
    ]


def test_who_has_no_name_neither_approves_nor_starts_what_others_are_to_approve(api, runs):
    held = {**SPEC, "strategy": {"approvals": 1}}
    for path, body in (("/api/runs", held), ("/api/runs/1/approve", {})):
        problem = api.problem("POST", path, body)
        assert (problem.status, problem.field) == (403, "Authorization")
        assert "who asks is to have a name" in problem.detail
    assert not runs.started
    assert not runs.steered
    api.environ |= OPERATOR
    assert started(api, strategy={"approvals": 1})["state"] == "awaiting approval"
    assert api.ask("POST", "/api/runs/1/approve", {}).status_code == 200


# ---- plan and check


def test_a_plan_names_what_nobody_has(api):
    spec = {
        **SPEC,
        "strategy": {"waves": ["frx", "wdc"], "floor": {"shop.web": 0.5, "shop.wbe": 0.5}},
        "gates": [{"service": "no.such"}, {"service": "shop.web"}, {"service": "new"}],
        "resources": [{"kind": "process", "name": "new", "run": ["x"], "service": "new"}],
    }
    assert api.ask("POST", "/api/runs/plan", spec).json["doubts"] == [
        "strategy.waves[0]: no node is in 'frx', did you mean 'fra'?",
        "strategy.floor: no node has an instance of 'shop.wbe', did you mean 'shop.web'?: so no floor is kept; "
        "only --unknown-services starts it so",
        "gates[0].service: no node has an instance of 'no.such': a gate without data holds the run; "
        "only --unknown-services starts it so",
    ]


def test_a_plan_has_its_batches_and_each_difference_once_for_those_that_share_it(api, runs):
    runs.looks = {"fra/a1": (WOULD,), "fra/a3": (WOULD,)}
    runs.unreachable = {"wdc/b1": "its data center is out of reach"}
    plan = api.ask("POST", "/api/runs/plan", {**SPEC, "targets": "*"}).json
    assert [batch["wave"] for batch in plan["plan"]] == ["canary", "fra", "fra", "wdc", "wdc"]
    assert [group["nodes"] for group in plan["groups"]] == [["fra/a1", "fra/a3"], ["fra/a2", "wdc/b2"]]
    changed = {"id": "file /etc/motd", "result": "would change", "kind": "", "words": "", "diff": "-old\n+hello\n"}
    assert plan["groups"][0]["resources"] == [changed]
    assert plan["unreachable"] == {"wdc/b1": "its data center is out of reach"}
    assert sorted(plan["digests"]) == ["fra/a1", "fra/a2", "fra/a3", "wdc/b2"]
    assert plan["digests"]["fra/a1"] == plan["digests"]["fra/a3"] != plan["digests"]["fra/a2"]
    (visit,) = runs.visits
    assert {task.verb for task in visit.tasks} == {TaskVerb.LOOK}
    assert not runs.started


def test_a_check_says_how_nodes_are_and_an_untold_command_is_no_pass(api, runs):
    failed = TaskOutcome(TaskResult.FAILED, kind="render", words="line 1: 'colour' is undefined")
    runs.looks = {"fra/a1": (TaskOutcome(TaskResult.UNTOLD),), "fra/a2": (failed,)}
    runs.unreachable = {"fra/a3": "gone"}
    two = [*SPEC["resources"], {"kind": "directory", "path": "/srv"}]
    check = api.ask("POST", "/api/runs/check", {**SPEC, "resources": two}).json
    results = {group["nodes"][0]: [each["result"] for each in group["resources"]] for group in check["groups"]}
    assert results == {"fra/a1": ["untold", "not reached"], "fra/a2": ["failed", "not reached"]}
    assert check["unreachable"] == {"fra/a3": "gone"}
    assert check["targets"] == ["fra/a1", "fra/a2", "fra/a3"]


def test_what_is_only_notified_is_judged_by_who_would_notify_it(api, runs):
    same, untold = TaskOutcome(TaskResult.SAME), TaskOutcome(TaskResult.UNTOLD, words="no guard: true")
    runs.looks = {"fra/a1": (same, untold), "fra/a2": (WOULD, untold), "fra/a3": (same, untold)}
    reload = {"kind": "command", "id": "reload", "run": ["true"], "only_notified": True}
    resources = [{**SPEC["resources"][0], "notify": ["reload"]}, reload]
    check = api.ask("POST", "/api/runs/check", {**SPEC, "resources": resources}).json
    told = {
        tuple(group["nodes"]): [(each["result"], each["words"]) for each in group["resources"]]
        for group in check["groups"]
    }
    assert told == {
        ("fra/a1", "fra/a3"): [("same", ""), ("same", "")],
        ("fra/a2",): [("would change", ""), ("would change", "it is notified by file /etc/motd")],
    }


def test_nodes_that_no_answer_names_are_told_as_unreachable(api, runs):
    runs.backend.result = lambda request: Visited(())
    check = api.ask("POST", "/api/runs/check", SPEC).json
    assert check["unreachable"] == {f"fra/a{number}": "it did not answer" for number in (1, 2, 3)}


def test_each_node_gets_the_secrets_that_are_sealed_to_it(api, runs):
    api.ask("PUT", "/api/secrets/db/password", {"value": "s3cret", "targets": "dc:fra"})
    spec = {**SPEC, "resources": [{"kind": "file", "path": "/x", "content": "{{ secret('db/password') }}"}]}
    assert api.ask("POST", "/api/runs/plan", spec).status_code == 200
    assert sorted(visit.nodes for visit in runs.visits) == [("fra/a1",), ("fra/a2",), ("fra/a3",)]
    assert all(visit.tasks[0].secrets == {"db/password": b"sealed:" + b"terc3s"} for visit in runs.visits)


def bound(plan):
    return {name: plan[name] for name in ("spec_digest", "values_digest", "targets", "digests")}


def test_a_plan_that_still_holds_binds_the_run(api, runs):
    plan = api.ask("POST", "/api/runs/plan", SPEC).json
    started(api, plan=bound(plan))
    assert runs.started[0].plan.expected == plan["digests"]


def test_a_key_of_the_store_that_another_node_sets_first_makes_no_plan_stale(api, runs):
    spec = {**SPEC, "resources": [*SPEC["resources"], {"kind": "key", "key": "web/version", "value": "7"}]}
    runs.looks = dict.fromkeys(FLEET, (SAME, WOULD))
    plan = bound(api.ask("POST", "/api/runs/plan", spec).json)
    runs.looks = dict.fromkeys(FLEET, (SAME, SAME))
    assert api.ask("POST", "/api/runs", {**spec, "plan": plan}).status_code == 200


def test_a_node_that_could_not_tell_how_it_is_is_bound_to_nothing(api, runs):
    runs.looks = {"fra/a1": (TaskOutcome(TaskResult.FAILED, kind="render", words="no"),)}
    assert sorted(api.ask("POST", "/api/runs/plan", SPEC).json["digests"]) == ["fra/a2", "fra/a3"]


@pytest.mark.parametrize("what", ["spec", "node", "key", "host"])
def test_a_stale_plan_is_refused_with_what_changed(api, runs, what):
    runs.put("config/color", "blue")
    spec = {**SPEC, "resources": [{"kind": "file", "path": "/x", "content": "{{ key('config/color') }}"}]}
    plan = bound(api.ask("POST", "/api/runs/plan", spec).json)
    says = {
        "spec": "the specification was changed",
        "node": "other nodes are meant now: fra/a4",
        "key": "a key or secret",
        "host": "something was changed since on fra/a2",
    }[what]
    if what == "spec":
        spec = {**spec, "title": "another"}
    if what == "node":
        runs.backend.node.members["fra/a4"] = member("fra/a4")
    if what == "key":
        runs.put("config/color", "red")
    if what == "host":
        runs.looks = {"fra/a2": (WOULD,)}
    problem = api.problem("POST", "/api/runs", {**spec, "plan": plan})
    assert (problem.status, problem.field) == (409, "plan")
    assert says in problem.detail
    assert not runs.started


# ---- seeing


def test_a_run_shows_every_target_with_its_part(api, runs):
    started(api, targets="*")
    runs.move_node("1", "fra/a1", NodeState.DONE, steps=(Step("file /etc/motd", "changed", "", SECOND),), took=SECOND)
    runs.move_node("1", "fra/a2", NodeState.STARTED)
    runs.kill("wdc/b2")
    run = api.get("/api/runs/1")
    assert list(run["nodes"]) == sorted(FLEET)
    assert run["nodes"]["fra/a1"]["steps"][0] == {
        "resource": "file /etc/motd",
        "result": "changed",
        "words": "",
        "took": 1.0,
    }
    assert [part["state"] for part in run["nodes"].values()] == ["done", "started", "pending", "pending", "pending"]
    assert run["nodes"]["wdc/b2"]["reachable"] is False
    assert run["counts"] == {"done": 1, "started": 1, "pending": 3}
    assert run["waits"] == "batch 1 of 5, canary: waits for fra/a2 to report"
    assert api.get("/api/runs/1?consistency=local")["id"] == "1"


def test_what_a_run_waits_for_is_said_in_words(api, runs):
    api.environ |= OPERATOR
    started(api, strategy={"approvals": 2})
    waits = "waits for 2 approvals by others than root@fra/a1: 'dislocate run approve 1'"
    assert api.get("/api/runs/1")["waits"] == waits
    runs.move("1", RunState.PAUSED, hold=Hold.BUDGET, words="fra/a2 is out of reach")
    assert api.get("/api/runs/1")["waits"].endswith("held (budget): fra/a2 is out of reach")
    runs.move("1", RunState.RUNNING, hold=None)
    runs.kill("fra/a1")
    assert api.get("/api/runs/1")["waits"].endswith("waits for fra/a1 to be within reach")
    runs.move("1", RunState.DONE)
    assert (api.get("/api/runs/1")["state"], api.get("/api/runs/1")["waits"]) == ("done", "")


def test_runs_are_listed_the_latest_first_over_or_not(api, runs):
    assert api.get("/api/runs") == {"runs": [], "age": 0.0}
    for number in range(3):
        started(api, name=f"run-{number}")
    runs.move("2", RunState.REVERTED)
    assert [(run["id"], run["state"]) for run in api.get("/api/runs")["runs"]] == [
        ("3", "running"),
        ("2", "reverted"),
        ("1", "running"),
    ]
    runs.tell_last(3 + RECOVERY_RUNS)
    assert [run["id"] for run in api.get("/api/runs?limit=1")["runs"]] == ["3", "1"], "all that are under way"
    assert [run["id"] for run in api.get("/api/runs?limit=3")["runs"]] == ["3", "2", "1"]
    assert api.problem("GET", "/api/runs?limit=0").field == "limit"
    assert api.problem("GET", "/api/runs?consistency=locl").field == "consistency"


def test_what_is_known_here_has_runs_that_are_over_too_and_says_how_old_it_may_be(api, runs):
    started(api)
    runs.move("1", RunState.DONE)
    assert (api.get("/api/runs")["age"], api.get("/api/runs/1")["age"]) == (0.0, 0.0)
    runs.missing = "wdc/s1"
    assert [run["state"] for run in api.get("/api/runs?consistency=local")["runs"]] == ["done"]
    assert api.get("/api/runs?consistency=local")["age"] == 1.5
    assert api.get("/api/runs/1?consistency=local")["age"] == 1.5


def test_a_run_that_does_not_exist_is_not_found(api):
    problem = api.problem("GET", "/api/runs/17")
    assert (problem.status, problem.field) == (404, "run")
    assert "GET /api/runs shows" in problem.hint
    assert api.problem("GET", "/api/runs/web").status == 404
    assert api.problem("POST", "/api/runs/1%2F2/pause", {}).status == 404


# ---- steering


@pytest.mark.parametrize("verb", list(Verb), ids=lambda verb: verb.value)
def test_every_verb_reaches_the_ledger(api, runs, verb):
    started(api)
    api.environ |= OPERATOR
    body = {"version": 3, "words": "because"} | ({"node": "fra/a2"} if verb in (Verb.SKIP, Verb.RETRY) else {})
    assert api.ask("POST", f"/api/runs/1/{verb.value}", body).json == {"id": "1", "version": 5}
    (asked,) = runs.steered
    assert (asked.run, asked.verb, asked.version, asked.words) == ("1", verb, 3, "because")
    assert asked.node == body.get("node", "")


def test_only_a_revert_can_be_forced_and_says_why(api, runs):
    started(api)
    api.environ |= OPERATOR
    for verb, body, field in (
        ("pause", {"force": True, "words": "now"}, "force"),
        ("revert", {"force": True}, "words"),
    ):
        problem = api.problem("POST", f"/api/runs/1/{verb}", body)
        assert (problem.status, problem.field) == (422, field)
    api.ask("POST", "/api/runs/1/revert", {"force": True, "words": "9 is stuck"})
    (asked,) = runs.steered
    assert (asked.force, asked.words) == (True, "9 is stuck")


def test_an_illegal_transition_is_refused_with_the_mend(api, runs):
    started(api)
    runs.refusal = Refused("conflict", "verb", "run 1 is done: revert takes it back")
    problem = api.problem("POST", "/api/runs/1/pause", {})
    assert (problem.status, problem.detail) == (409, "run 1 is done: revert takes it back")


def test_a_verb_is_about_the_right_thing(api, runs):
    started(api)
    assert api.problem("POST", "/api/runs/1/skip", {"node": "fra/a9"}).hint.endswith("did you mean 'fra/a1'?")
    assert api.problem("POST", "/api/runs/1/skip", {}).field == "node"
    assert api.problem("POST", "/api/runs/1/pause", {"node": "fra/a1"}).field == "node"
    assert api.problem("POST", "/api/runs/1/stop", {}).status == 404
    assert api.problem("POST", "/api/runs/1/pause", {"wrds": "x"}).field == "wrds"
    assert not runs.steered


# ---- watching


def events(result):
    """(event, data) of what a stream said."""
    found = []
    for block in result.text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        if "event" in fields:
            found.append((fields["event"], msgspec.json.decode(fields["data"])))
    return found


def test_a_watch_tells_the_whole_run_then_what_changes_and_ends_with_it(api, runs):
    started(api)
    answers = runs.backend.result
    steps = iter(
        (
            lambda: runs.move_node("1", "fra/a1", NodeState.DONE),
            lambda: runs.move("1", RunState.DONE, words="all are done"),
        )
    )

    def moving(request):
        if type(request).__name__ == "WatchKeys":
            next(steps, lambda: None)()
        return answers(request)

    runs.backend.result = moving
    told = events(api.ask("GET", "/api/runs/1/watch"))
    assert told[0][0] == "status"
    assert ("run", "done") in [(name, data.get("state")) for name, data in told]
    assert (told[-1][0], told[-1][1]["state"], told[-1][1]["words"]) == ("status", "done", "all are done")
    assert told[-1][1]["nodes"]["fra/a1"]["state"] == "done"


def test_a_watch_does_not_tell_again_how_it_came_to_what_it_told_first(api, runs):
    started(api)
    answers = runs.backend.result

    def busy(request):
        """The run goes on between the questions of one status."""
        answer = answers(request)
        if isinstance(request, ReadKeys) and request.key == active_key("1") and "fra/a1" not in moved:
            moved.append("fra/a1")
            runs.move_node("1", "fra/a1", NodeState.STARTED)
            runs.move_node("1", "fra/a1", NodeState.DONE)
            runs.move("1", RunState.PAUSED)
        elif type(request).__name__ == "WatchKeys" and "over" not in moved:
            moved.append("over")
            runs.move("1", RunState.DONE)
        return answer

    moved = []
    runs.backend.result = busy
    told = events(api.ask("GET", "/api/runs/1/watch"))
    assert told[0][1]["nodes"]["fra/a1"]["state"] == "done"
    assert [name for name, _ in told if name == "node"] == []
    assert [data["state"] for name, data in told if name == "run"] == ["done"]


def test_a_watch_of_a_run_that_is_over_ends_at_once(api, runs):
    started(api)
    runs.move("1", RunState.ABORTED)
    ((name, status),) = events(api.ask("GET", "/api/runs/1/watch"))
    assert (name, status["state"]) == ("status", "aborted")


# ---- audit


def test_the_audit_is_read_in_pages_and_verified(api, runs):
    for verb in ("start", "pause", "resume", "abort"):
        runs.audit(verb)
    page = api.get("/api/runs/audit?limit=3")
    assert ([entry["verb"] for entry in page["entries"]], page["more"]) == (["start", "pause", "resume"], True)
    assert [entry["verb"] for entry in api.get("/api/runs/audit?after=3")["entries"]] == ["abort"]
    verified = api.get("/api/runs/audit/verify")
    assert (verified["entries"], verified["broken"], len(verified["hash"])) == (4, None, 64)
    runs.write(audit_key(2), {**page["entries"][1], "actor": "eve"})
    verified = api.get("/api/runs/audit/verify")
    assert verified["broken"] == 2
    del runs.keys[audit_key(2)]
    assert "entry 2 is missing" in api.get("/api/runs/audit/verify")["words"]


# ---- exec


def lines(result):
    return [msgspec.json.decode(line) for line in result.content.splitlines() if line]


def test_a_command_tells_what_each_node_writes_and_names_those_out_of_reach(api, runs):
    runs.output = {"fra/a1": (b"up 3 days\n", b"\xff")}
    runs.looks = {
        "fra/a1": (TaskOutcome(TaskResult.CHANGED, code=0, took=SECOND),),
        "fra/a2": (TaskOutcome(TaskResult.FAILED, code=3, words="it ended with 3"),),
    }
    runs.unreachable = {"fra/a3": "dead"}
    body = {"targets": "dc:fra", "command": ["uptime"], "at_once": 2, "timeout": "7s"}
    told = lines(api.ask("POST", "/api/exec", body))
    assert told[0] == {"event": "start", "nodes": ["fra/a1", "fra/a2", "fra/a3"]}
    assert [(each["node"], each["text"]) for each in told if each["event"] == "output"] == [
        ("fra/a1", "up 3 days\n"),
        ("fra/a1", "/w=="),
    ]
    done = {each["node"]: each for each in told if each["event"] == "done"}
    assert (done["fra/a1"]["ok"], done["fra/a1"]["took"]) == (True, 1.0)
    assert (done["fra/a2"]["ok"], done["fra/a2"]["code"]) == (False, 3)
    assert {"event": "unreachable", "node": "fra/a3", "words": "dead"} in told
    assert told[-1] == {"event": "end", "nodes": 3, "ok": 1, "failed": 1, "unreachable": 1}
    (visit,) = runs.visits
    (task,) = visit.tasks
    assert (visit.at_once, task.resource.run, task.resource.timeout) == (2, ("uptime",), 7 * SECOND)
    assert visit.timeout > task.resource.timeout + 500 * MILLISECOND  # the node is to say itself that its time is up


def test_output_that_came_too_fast_is_missed_aloud(api, runs, monkeypatch):
    monkeypatch.setattr(exec_, "QUEUE_LIMIT", 2)
    runs.output = {"fra/a1": (b"one\n", b"two\n", b"three\n", b"four\n")}
    told = lines(api.ask("POST", "/api/exec", {"targets": "name:a1", "command": ["true"]}))
    assert [each["text"] for each in told if each["event"] == "output"] == ["one\n", "two\n"]
    dropped = {"event": "dropped", "node": "fra/a1", "bytes": len(b"three\nfour\n")}
    assert told.index(dropped) == [each["event"] for each in told].index("done") - 1


def test_a_command_that_nobody_answers_is_given_up_however_much_other_commands_say(api, runs, monkeypatch):
    monkeypatch.setattr(exec_, "MARGIN", 0.1)
    monkeypatch.setattr(exec_, "VISIT_MARGIN", 0)
    runs.backend.result = NEVER

    def another_command() -> None:
        while True:
            piece = TaskOutcome(TaskResult.OUTPUT, output=b"x")
            runs.backend.tell(VisitTold(99, "fra/a1", 0, piece, False))
            gevent.sleep(0.001)

    other = gevent.spawn(another_command)
    try:
        with gevent.Timeout(60):
            told = lines(api.ask("POST", "/api/exec", {"targets": "name:a1", "command": ["true"], "timeout": "100ms"}))
    finally:
        other.kill()
    assert [each["event"] for each in told] == ["start", "unreachable", "end"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"targets": "dc:fra"}, "command"),
        ({"targets": "dc:fra", "command": []}, "command"),
        ({"targets": "dc:fra", "command": [""]}, "command.run"),
        ({"targets": "dc:none", "command": ["true"]}, "targets"),
        ({"targets": "dc:fra", "command": ["true"], "at_once": 0}, "at_once"),
        ({"targets": "dc:fra", "command": ["true"], "timeout": "0s"}, "timeout"),
        ({"targets": "dc:fra", "command": ["true"], "timeout": 5}, "timeout"),
        ({"targets": "dc:fra", "command": ["true"], "confirm": 1}, "confirm"),
    ],
)
def test_a_command_that_cannot_be_meant_is_not_run(api, runs, body, field):
    assert api.problem("POST", "/api/exec", body).field == field
    assert not runs.visits


def test_a_refused_visit_is_told_as_a_problem(api, runs):
    runs.refusal = Refused("unavailable", "", "this agent is leaving")
    told = lines(api.ask("POST", "/api/exec", {"targets": "dc:fra", "command": ["true"]}))
    assert (told[-1]["event"], told[-1]["problem"]["detail"]) == ("problem", "this agent is leaving")


# ---- secrets


def test_a_secret_is_sealed_listed_without_its_value_and_forgotten(api, runs):
    put = api.ask("PUT", "/api/secrets/db/password", {"value": "s3cret", "targets": "dc:fra"}).json
    assert (put["name"], put["version"], put["nodes"]) == ("db/password", 1, ["fra/a1", "fra/a2", "fra/a3"])
    assert api.ask("PUT", "/api/secrets/db/password", {"value": "n3w", "targets": "*"}).json["version"] == 2
    listed = api.get("/api/secrets")["secrets"]
    assert [(each["name"], each["version"], len(each["nodes"])) for each in listed] == [("db/password", 2, 5)]
    assert not [each for each in runs.keys.values() if b"n3w" in each.value or b"s3cret" in each.value]
    assert api.ask("DELETE", "/api/secrets/db/password").json["deleted"] == 1
    assert api.get("/api/secrets") == {"secrets": []}
    assert api.problem("DELETE", "/api/secrets/db/password").status == 404


@pytest.mark.parametrize(
    ("name", "body", "field"),
    [
        ("db/password", {"value": "", "targets": "*"}, "value"),
        ("db/password", {"value": "x" * 20_000, "targets": "*"}, "value"),
        ("db/password", {"value": "x", "targets": "dc:none"}, "targets"),
        ("db/password", {"value": "x", "targets": "*", "encoding": "base64"}, "value"),
        ("db/pass word", {"value": "x", "targets": "*"}, "name"),
    ],
)
def test_a_secret_that_cannot_be_meant_is_refused_without_repeating_it(api, runs, name, body, field):
    problem = api.problem("PUT", f"/api/secrets/{name}", body)
    assert problem.field == field
    assert "xxx" not in str(problem.got)
    assert not runs.keys


def test_a_node_without_a_key_is_named(api, runs):
    runs.backend.node.members["fra/a2"] = msgspec.structs.replace(member("fra/a2"), public_key=b"")
    problem = api.problem("PUT", "/api/secrets/x", {"value": "x", "targets": "dc:fra"})
    assert "that of fra/a2 is not" in problem.detail
    assert node_key("1", "x") not in runs.keys
    assert SAME.before == "d1"
