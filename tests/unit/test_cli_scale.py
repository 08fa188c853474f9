"""What `dislocate scale` and the API behind it say and do, in front of a small store."""

import json

import pytest
from click.testing import CliRunner

from dislocate.cli.main import cli
from dislocate.core.boundary.scaling import (
    Carried,
    CarryState,
    CommandDriver,
    ProcessDriver,
    ScaleDecision,
    ScalePolicy,
)
from dislocate.core.boundary.store import Put, Transact
from dislocate.core.boundary.views import ServiceView
from dislocate.core.scale import records
from dislocate.core.store.names import check_key
from dislocate.core.units import SECOND
from dislocate.edge.http.access import Role
from tests.support.fake_backend import instance
from tests.support.tiny_store import served_store

NAME = "orders.api"


class Shell:
    def __init__(self, url, store, backend):
        self.url, self.store, self.backend = url, store, backend

    def run(self, *words, stdin=None, code=0):
        done = CliRunner().invoke(cli, [*words, "--agent", self.url], prog_name="dislocate", input=stdin)
        assert done.exit_code == code, (done.output, done.exception)
        return done.output

    def json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options))

    def put(self, key, record):
        check_key(key)
        value = record if isinstance(record, bytes) else records.encode(record)
        self.store(Transact((), (Put(key, value),)))

    def policy(self):
        kv = self.store.keys.get(records.policy_key(NAME))
        return None if kv is None else records.read(kv.value, ScalePolicy)

    def decide(self, epoch, desired, datacenter="fra", **more):
        one = ScaleDecision(
            service=NAME,
            datacenter=datacenter,
            epoch=epoch,
            desired=desired,
            before=2,
            reason=f"reason {epoch}",
            by="fra/a1",
            at=1_700_000_000 * SECOND + epoch,
            **more,
        )
        self.put(records.decision_key(NAME, datacenter), one)
        self.put(records.past_key(NAME, datacenter, epoch), one)


@pytest.fixture
def shell():
    with served_store() as served:
        yield Shell(*served)


def test_a_policy_is_set_from_a_file_and_changed_by_options(shell, tmp_path):
    file = tmp_path / "orders.toml"
    file.write_text('min = 2\nmax = 9\ndown_window = "10m"\n[driver]\nkind = "process"\nrun = ["serve"]\n')
    shell.run("scale", "set", NAME, "--file", str(file), "--min", "3")
    policy = shell.policy()
    assert (policy.min, policy.max, policy.down_window) == (3, 9, 600 * SECOND)
    assert policy.driver == ProcessDriver(run=("serve",))
    shell.run("scale", "set", NAME, "--max", "40", "--paused")
    assert (shell.policy().max, shell.policy().paused, shell.policy().min) == (40, True, 3)
    shell.run("scale", "set", NAME, "--resumed")
    assert not shell.policy().paused


def test_json_is_taken_from_standard_input(shell):
    text = '{"max": 7, "driver": {"kind": "command", "run": ["x"], "timeout": "5s"}}'
    shell.run("scale", "set", NAME, "--file", "-", stdin=text)
    assert shell.policy().driver == CommandDriver(run=("x",), timeout=5 * SECOND)


def test_a_data_center_that_nobody_knows_is_refused_unless_forced(shell):
    text = '{"max": 7, "datacenters": ["fra", "mars"], "driver": {"kind": "command", "run": ["x"]}}'
    done = CliRunner().invoke(cli, ["scale", "set", NAME, "--file", "-", "--agent", shell.url], input=text)
    assert (done.exit_code, "datacenters[1]: got 'mars', expected a data center that is known: fra" in done.stderr) == (
        1,
        True,
    )
    shell.run("scale", "set", NAME, "--file", "-", "--force", stdin=text)
    assert shell.policy().datacenters == ("fra", "mars")
    shell.run("scale", "set", NAME, "--max", "9")  # what was kept is no new mistake
    assert (shell.policy().max, shell.policy().datacenters) == (9, ("fra", "mars"))


def test_show_says_how_many_why_and_what_came_of_it(shell):
    both = (instance(NAME, "a"), instance(NAME, "b"))
    shell.backend.node.catalog.services[NAME] = ServiceView(name=NAME, index=1, instances=both)
    shell.put(records.policy_key(NAME), ScalePolicy(driver=CommandDriver(run=("x",))))
    shell.decide(4, 6)
    failed = Carried(epoch=4, node="fra/a1", state=CarryState.FAILED, code=3, words="no room")
    shell.put(records.done_key(NAME, "fra"), failed)
    told = shell.run("scale", "show", NAME)
    assert "reason 4" in told
    assert "failed on fra/a1 (3): no room" in told
    answer = shell.json("scale", "show", NAME)
    (size,) = answer["datacenters"]
    assert (size["desired"], size["running"], size["passing"], size["epoch"]) == (6, 2, 2, 4)
    assert size["carried"][0]["code"] == 3
    assert answer["policy"]["driver"] == {"kind": "command", "run": ["x"]}


def test_show_without_a_name_lists_what_is_scaled(shell):
    assert "nothing is scaled" in shell.run("scale", "show")
    shell.put(records.policy_key(NAME), ScalePolicy(driver=ProcessDriver(run=("x",))))
    shell.decide(1, 6)
    shell.decide(1, 3, "wdc")
    (one,) = shell.json("scale", "show")["services"]
    assert one == {"service": NAME, "driver": "process", "desired": 9, "datacenters": 2, "paused": False}


def test_history_has_the_reasons_oldest_first_and_of_one_data_center(shell):
    shell.put(records.policy_key(NAME), ScalePolicy())
    for epoch in (1, 2, 3):
        shell.decide(epoch, epoch)
    shell.decide(1, 9, "wdc")
    assert [one["epoch"] for one in shell.json("scale", "history", NAME, "--datacenter", "fra")["decisions"]] == [
        1,
        2,
        3,
    ]
    assert "2 -> 3" in shell.run("scale", "history", NAME)
    assert "is not scaled in tok" in shell.run("scale", "history", NAME, "--datacenter", "tok", code=1)


def test_a_policy_that_somebody_broke_by_hand_is_told(shell):
    shell.put(records.policy_key(NAME), b'{"mni": 3}')
    shell.decide(1, 2)
    assert "did you mean 'min'?" in shell.run("scale", "show", NAME)


def test_delete_forgets_the_policy_alone(shell):
    shell.put(records.policy_key(NAME), ScalePolicy())
    shell.decide(1, 2)
    shell.run("scale", "delete", NAME)
    assert shell.policy() is None
    assert "is not scaled" in shell.run("scale", "delete", NAME, code=1)
    assert shell.json("scale", "show", NAME)["policy"] is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mni = 3", "did you mean 'min'?"),
        ("min = 9\nmax = 3", "at most `max`, which is 3"),
        ('[driver]\nkind = "comand"\nrun = ["x"]', "did you mean 'command'?"),
        ('down_window = "soon"', "a duration such as '5s'"),
        ("min = ", "TOML"),
    ],
)
def test_a_mistake_in_a_file_is_refused_before_anything_is_sent(shell, tmp_path, text, words):
    file = tmp_path / "orders.toml"
    file.write_text(text)
    assert words in shell.run("scale", "set", NAME, "--file", str(file), code=1)
    assert shell.policy() is None


def test_a_near_name_is_offered_for_one_that_is_not_scaled(shell):
    shell.put(records.policy_key(NAME), ScalePolicy())
    told = shell.run("scale", "show", "orders.apj", code=1)
    assert "did you mean 'orders.api'?" in told
    assert "dislocate scale show lists" in told


def test_nothing_to_set_is_a_mistake_of_usage(shell):
    assert "--file FILE" in shell.run("scale", "set", NAME, code=2)


def test_environments_may_not_name_secrets(shell):
    policy = {"driver": {"kind": "command", "run": ["x"], "environment": {"T": "{{ secret('a') }}"}}}
    told = shell.run("scale", "set", NAME, "--file", "-", stdin=json.dumps(policy), code=1)
    assert "driver.environment" in told


def test_setting_a_policy_takes_an_operator_also_as_a_key():
    with served_store(Role.WRITE) as (url, store, backend):
        shell = Shell(url, store, backend)
        assert "operate" in shell.run("scale", "set", NAME, "--max", "4", code=1)
        assert "operate" in shell.run("kv", "put", records.policy_key(NAME), "{}", code=1)
        assert shell.policy() is None
