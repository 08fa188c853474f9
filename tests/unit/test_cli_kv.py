"""What `dislocate kv`, `servers` and `store` print and how they end, with the real API in front of a small store."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner
from msgspec.structs import replace

from dislocate.cli.main import cli
from dislocate.client.connection import CHANGE_TIMEOUT, QUIET_TIMEOUT, STORE_TIMEOUT, TIMEOUT, restore_timeout
from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.store import AddServer, KeyChange, RemoveServer, TransferLeadership
from dislocate.core.tunables import (
    ASK_WITHIN,
    KEY_BYTES,
    RESTORE_BYTES,
    RESTORE_PACE,
    RESTORE_WINDOW,
    SNAPSHOT_CHUNK,
    VALUE_BYTES,
)
from dislocate.core.units import SECOND
from dislocate.edge.http import keystream
from dislocate.edge.http.access import Role
from dislocate.edge.http.call import ANSWER_WITHIN, STORE_WITHIN
from dislocate.edge.http.servers import BACKUP_WITHIN, CHANGE_WITHIN, restore_within
from dislocate.edge.http.watch import KEEP_ALIVE
from tests.support.fake_backend import store as store_view
from tests.support.tiny_store import served_store


class Shell:
    def __init__(self, url, store, backend):
        self.url, self.store, self.backend = url, store, backend

    def run(self, *words, stdin=None, code=0):
        done = CliRunner().invoke(cli, [*words, "--agent", self.url], prog_name="dislocate", input=stdin)
        assert done.exit_code == code, (done.output, done.exception)
        return done

    def says(self, *words, **options):
        return self.run(*words, **options).output

    def json(self, *words, **options):
        return json.loads(self.run(*words, "--json", **options).stdout)

    def start(self, *words):
        command = [sys.executable, "-m", "dislocate", *words[:2], "--agent", self.url, *words[2:]]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def shell():
    with served_store() as served:
        yield Shell(*served)


# ---- keys


def test_what_is_put_is_got(shell):
    assert shell.says("kv", "put", "app/color", "blue") == "PUT        REVISION\napp/color  1\n"
    assert shell.says("kv", "get", "app/color") == "blue\n"
    assert shell.json("kv", "get", "app/color")["revision"] == 1
    assert shell.json("kv", "put", "app/color", "red") == {"revision": 2}
    assert shell.says("kv", "delete", "app/color") == "DELETED    KEYS  REVISION\napp/color  1     3\n"


def test_values_come_from_a_file_or_standard_input_and_go_out_as_they_are(shell, tmp_path):
    file = tmp_path / "logo.png"
    file.write_bytes(b"\x89PNG\xff")
    shell.run("kv", "put", "app/logo", f"@{file}")
    assert shell.run("kv", "get", "app/logo", "--raw").stdout_bytes == b"\x89PNG\xff"
    shown = shell.run("kv", "get", "app/logo")
    assert shown.stdout == "iVBOR/8=\n"
    assert "--raw gives its bytes" in shown.stderr
    shell.run("kv", "put", "app/flag", "-", stdin="on\n")
    assert shell.run("kv", "get", "app/flag", "--raw").stdout_bytes == b"on\n"
    shell.run("kv", "put", "ü/with space?#%", "x")
    assert list(shell.store.keys) == ["app/logo", "app/flag", "ü/with space?#%"]


def test_cas_puts_only_over_the_revision_it_names(shell):
    shell.run("kv", "put", "k", "1", "--cas", "0")
    assert "has changed: its revision is 1 now" in shell.says("kv", "put", "k", "2", "--cas", "0", code=1)
    assert shell.json("kv", "put", "k", "2", "--cas", "1") == {"revision": 2}
    assert "its revision is 2 now" in shell.says("kv", "delete", "k", "--cas", "1", code=1)
    told = CliRunner().invoke(cli, ["kv", "put", "k", "3", "--cas", "1", "--json", "--agent", shell.url])
    assert (told.exit_code, json.loads(told.stderr)["revision"]) == (1, 2)
    assert "there is no key 'none'" in shell.says("kv", "put", "none", "3", "--cas", "1", code=1)


def test_a_missing_key_is_a_failure_to_get_and_none_to_delete(shell):
    said = shell.says("kv", "get", "app/color", code=1)
    assert said == "there is no key 'app/color'\nwhat there is: dislocate kv list app/\n"
    assert shell.json("kv", "delete", "app/color")["deleted"] == 0


def test_how_old_it_is_that_there_is_no_key_is_said_and_how_old_a_value_as_it_is(shell):
    shell.run("kv", "put", "k", "v")
    shell.store.missing = "wdc/b1"
    local = ("--consistency", "local")
    for raw in ((), ("--raw",)):
        said = shell.says("kv", "get", "app/color", *local, *raw, code=1)
        assert said == (
            "there is no key 'app/color'\nas it was at most 1.5 s ago\nwhat there is: dislocate kv list app/\n"
        )
    told = CliRunner().invoke(cli, ["kv", "get", "none", *local, "--json", "--agent", shell.url])
    assert (told.exit_code, json.loads(told.stderr)["age"]) == (1, 1.5)
    done = shell.run("kv", "get", "k", *local, "--raw")
    assert (done.stdout_bytes, done.stderr) == (b"v", "as it was at most 1.5 s ago\n")


def test_a_list_shows_values_in_short_and_goes_through_all_pages(shell, monkeypatch):
    monkeypatch.setattr("dislocate.cli.kv.PAGE", 2)
    for number in range(5):
        shell.run("kv", "put", f"app/{number}", "two\nlines " + "x" * 100 if number == 0 else str(number))
    shell.run("kv", "put", "b", "x")
    lines = shell.says("kv", "list", "app/").splitlines()
    assert [line.split()[0] for line in lines] == ["KEY", "app/0", "app/1", "app/2", "app/3", "app/4"]
    assert "two\\nlines xxx" in lines[1]
    assert "..." in lines[1]
    assert shell.says("kv", "list", "--keys", "--limit", "3") == "app/0\napp/1\napp/2\n"
    assert len(shell.json("kv", "list")["keys"]) == 6
    assert shell.says("kv", "list", "zz") == "no keys begin so\n"
    assert shell.says("kv", "delete", "app/", "--prefix").splitlines()[1].split() == ["app/", "5", "7"]


def test_a_minority_says_who_is_missing_and_reads_locally_with_the_age(shell):
    shell.run("kv", "put", "k", "1")
    shell.store.missing = "wdc/b1, wdc/b2, lon/c1"
    said = shell.says("kv", "put", "k", "2", code=1)
    assert "missing: wdc/b1, wdc/b2, lon/c1" in said
    assert "--consistency local" in said
    shown = shell.run("kv", "get", "k", "--consistency", "local")
    assert (shown.stdout, shown.stderr) == ("1\n", "as it was at most 1.5 s ago\n")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("put", "k" * (KEY_BYTES + 1), "x"), "key: got"),
        (("put", "/k", "x"), "not beginning with '/'"),
        (("put", "k", "x" * (VALUE_BYTES + 1)), "at most 262144 bytes"),
        (("put", "k", "@/no/such/file"), "VALUE: got '@/no/such/file', expected a readable file"),
        (("put", "k", "x", "--cas", "-1"), "an earlier answer"),
        (("delete", "k", "--prefix", "--cas", "1"), "it compares one key"),
        (("delete", "", "--prefix"), "deleting everything is not offered"),
    ],
)
def test_a_slip_of_the_pen_is_told_with_its_mend(shell, words, said):
    assert said in shell.says("kv", *words, code=1)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--max-age", "5"), "'--max-age': got '5', expected a duration"),
        (("--consistency", "bounded"), "'--max-age': not given, expected a duration such as '5s' with consistency"),
        (("--max-age", "5s", "--consistency", "local"), "'--max-age': got '5s'"),
        (("--consistency", "local", "--max-age", "5s"), "'--max-age': got '5s'"),
        (("--consistency", "foo"), "'--consistency'"),
    ],
)
def test_an_option_that_cannot_be_meant_is_a_mistake_of_usage(shell, words, said):
    for command in (("get", "k"), ("list",)):
        assert said in shell.says("kv", *command, *words, code=2)


# ---- watching


@pytest.fixture
def watching(shell):
    started = []

    def start(*words):
        started.append(shell.start("kv", "watch", *words))
        return started[-1]

    yield start
    for each in started:
        each.kill()
        each.communicate()


def test_a_watch_prints_each_change_on_a_line(shell, watching):
    shell.run("kv", "put", "app/a", "old")
    watch = watching("app/", "--prefix", "--after", "1")
    shell.run("kv", "put", "app/a", "new value")
    shell.run("kv", "put", "b", "of no interest")
    shell.run("kv", "delete", "app/a")
    assert [watch.stdout.readline() for _ in range(2)] == ["2  put     app/a  new value\n", "4  delete  app/a\n"]


def test_a_watch_from_a_revision_that_is_ahead_says_so(shell, watching):
    shell.run("kv", "put", "k", "old")
    watch = watching("k", "--after", "99")
    assert watch.stderr.readline() == "the store is at revision 1; nothing is shown before it has passed 99\n"


def test_a_watch_runs_a_command_with_each_change(shell, watching):
    shell.run("kv", "put", "k", "old")
    watch = watching("k", "--after", "0", "--", "sh", "-c", "cat; echo")
    told = json.loads(watch.stdout.readline())
    assert (told["event"], told["key"], told["value"]) == ("put", "k", "old")


def test_a_watch_says_that_the_store_does_not_answer_and_that_it_does_again(shell, watching, monkeypatch):
    monkeypatch.setattr(keystream, "LOOK_EVERY", 0.05)
    shell.backend.node.store = store_view(problem="1 of 3 servers can be heard")
    watch = watching("k", "--after", "0")
    assert "No change can be seen here" in watch.stderr.readline()
    shell.backend.node.store = store_view()
    assert watch.stderr.readline() == "the store answers again; no change was missed\n"
    shell.run("kv", "put", "k", "new")
    assert watch.stdout.readline() == "1  put     k  new\n"


def test_a_watch_says_what_is_forgotten_and_goes_on(shell, watching):
    shell.store.revision = shell.store.oldest = 20
    shell.store.changes = [KeyChange("k", 21, None)]
    watch = watching("k", "--after", "3", "--json")
    assert [json.loads(watch.stdout.readline())["event"] for _ in range(2)] == ["compacted", "delete"]


# ---- servers


def test_servers_are_listed_with_units(shell):
    one, two = shell.backend.node.store.servers
    shell.backend.node.store = store_view(servers=(replace(one, trouble="silent"), two))
    lines = shell.says("servers", "list").splitlines()
    assert [line.split() for line in lines] == [
        ["SERVER", "ROLE", "LOG", "RTT", "DISK", "WRITE", "DISK", "ID", "TROUBLE"],
        ["fra/a1", "voter", "-", "-", "-", "d15c", "silent"],
        ["wdc/b1", "leader", "44", "0.0", "ms", "0.3", "ms", "d15c", "-"],
    ]
    shell.backend.node.store = store_view(servers=())
    assert "[store] servers" in shell.says("servers", "list")
    shell.backend.node.store = store_view(servers=(), group="", problem="no group yet: waiting to hear from wdc/b1")
    assert shell.says("servers", "list") == "no servers are known here: no group yet: waiting to hear from wdc/b1\n"


@pytest.mark.parametrize(
    ("view", "words"),
    [
        ({"leader": None}, "no leader answers this agent: what it knows of the store is"),
        ({"leader": None, "as_of": 0}, "is from before this agent started; dislocate store status says why"),
        ({"as_of": 0}, "is from before this agent started: ask wdc/b1, which led then"),
    ],
)
def test_a_list_that_may_not_be_what_is_so_says_how_old_it_is(shell, view, words):
    assert shell.run("servers", "list").stderr == ""
    shell.backend.node.store = store_view(**view)
    said = shell.run("servers", "list")
    assert words in said.stderr
    assert words not in said.stdout
    assert shell.run("servers", "list", "--json").stderr == ""


def test_a_server_that_was_wiped_is_listed_with_its_mend(shell):
    one, two = shell.backend.node.store.servers
    shell.backend.node.store = store_view(servers=(replace(one, trouble="wiped"), two))
    mend = "fra/a1 runs on another disk than the one that the group knows: dislocate servers add fra/a1"
    assert mend in shell.run("servers", "list").stderr
    said = shell.run("store", "status")
    assert mend in said.stderr
    assert "2 that vote; fra/a1: wiped\n" in said.stdout


def test_servers_are_changed(shell):
    assert shell.says("servers", "add", "fra/a1") == "ADDED\nfra/a1\n"
    assert shell.says("servers", "remove", "fra/a1") == "REMOVED\nfra/a1\n"
    assert shell.says("servers", "transfer", "fra/a1") == "LEADER\nfra/a1\n"
    assert shell.says("servers", "transfer") == "LEADER\nwdc/b1\n"
    assert shell.backend.asked == [
        AddServer("fra/a1"),
        RemoveServer("fra/a1"),
        TransferLeadership("fra/a1"),
        TransferLeadership(),
    ]


def test_an_unknown_server_is_told_with_the_nearest_name(shell):
    said = shell.says("servers", "add", "fra/a2", code=1)
    assert said.splitlines()[1] == "dislocate members shows all, did you mean 'fra/a1'?"
    for words in ("remove", "transfer"):
        assert "dislocate servers list shows all, did" in shell.says("servers", words, "fra/a2", code=1)
    assert "expected a node as 'datacenter/name'" in shell.says("servers", "remove", "a1", code=1)


def test_servers_need_an_operator():
    with served_store(Role.WRITE) as served:
        assert "needs the role 'operate'" in Shell(*served).says("servers", "remove", "fra/a1", code=1)


# ---- the store


def test_the_status_says_why_nothing_can_be_written_and_exits_1_then(shell):
    lines = dict(line.split("  ", 1) for line in shell.says("store", "status").splitlines())
    assert lines["leader"].strip() == "wdc/b1"
    assert lines["servers"].strip() == "2 that vote"
    assert lines["term"].strip() == "3"
    assert lines["revision"].strip().startswith("41, as known 0.")
    shell.backend.node.store = store_view(role="forming", group="", revision=0, index=0, term=0, as_of=0)
    lines = dict(line.split("  ", 1) for line in shell.says("store", "status").splitlines())
    assert lines["revision"].strip() == "none yet"
    assert "term" not in lines
    shell.backend.node.store = store_view(leader=None, problem="no majority: missing wdc/b1")
    said = shell.run("store", "status", code=1)
    assert "nothing can be written here: no majority: missing wdc/b1" in said.stderr
    assert shell.json("store", "status", code=1)["problem"] == "no majority: missing wdc/b1"
    shell.backend.node.store = store_view(role="failed", epoch=1, problem="its disk failed")
    said = shell.run("store", "status", code=1)
    assert "this server's part in the store has ended: its disk failed" in said.stderr
    assert "recovered once" in said.stdout


def test_where_there_is_no_store_the_status_and_a_refusal_say_what_is_to_be_done(shell):
    shell.backend.node.store = store_view(role="agent", group="", leader=None, servers=())
    said = shell.run("store", "status", code=1)
    assert "nothing can be written here: no servers are known here: [store] servers names them" in said.stderr
    assert shell.json("store", "status", code=1)["group"] == ""
    shell.backend.result = Refused("unavailable", "store", "no group yet: waiting to hear from wdc/b1")
    lines = shell.says("kv", "put", "k", "v", code=1).splitlines()
    assert lines == [
        "store: no group yet: waiting to hear from wdc/b1",
        "dislocate store status says how far the founding is; until then nothing is kept or known",
    ]


def test_a_backup_comes_back(shell, tmp_path):
    file = tmp_path / "store.backup"
    shell.run("kv", "put", "k", "before")
    told = shell.json("store", "backup", str(file))
    assert told == {"file": str(file), "bytes": file.stat().st_size, "revision": 1}
    assert file.stat().st_mode & 0o777 == 0o600
    assert shell.run("store", "backup", "-").stdout_bytes == file.read_bytes()
    shell.run("kv", "put", "k", "after")
    assert "RESTORED" in shell.says("store", "restore", str(file))
    assert shell.says("kv", "get", "k") == "before\n"


def test_a_file_that_is_no_backup_changes_nothing(shell, tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"\xc1")
    shell.run("kv", "put", "k", "1")
    assert "this is no backup" in shell.says("store", "restore", str(file), code=1)
    assert "expected a readable backup" in shell.says("store", "restore", str(tmp_path / "nope"), code=1)
    assert "expected a file to write" in shell.says("store", "backup", "/no/such/directory/x", code=1)
    assert shell.says("kv", "get", "k") == "1\n"


def test_the_client_waits_longer_than_the_agent_does():
    """Else the agent's words, which tell what happened, are never heard."""
    assert TIMEOUT > ANSWER_WITHIN
    assert STORE_TIMEOUT > STORE_WITHIN
    assert CHANGE_WITHIN < restore_within(RESTORE_BYTES) < restore_timeout(RESTORE_BYTES)
    window = RESTORE_WINDOW * (SNAPSHOT_CHUNK - 1024)
    assert window * SECOND > RESTORE_PACE * ASK_WITHIN, "so that the core is the first to give up a restore"
    assert max(CHANGE_WITHIN, BACKUP_WITHIN) < CHANGE_TIMEOUT
    assert QUIET_TIMEOUT > 2 * KEEP_ALIVE
