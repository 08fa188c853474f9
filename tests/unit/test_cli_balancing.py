"""What pick, flows, policy, drain dc and a watch with templates print and leave behind, in front of the real API."""

import json
import socket
import sys
from threading import Event, Thread

import pytest
from click.testing import CliRunner

from dislocate.cli.following import Following
from dislocate.cli.main import cli
from dislocate.cli.proxy import check_apart
from dislocate.cli.templating import Templates, outputs
from dislocate.client.connection import AgentConnection, NoAgent
from dislocate.core.boundary.balance import Policy, Spill
from dislocate.core.boundary.requests import SetDraining
from dislocate.core.boundary.values import Status
from dislocate.core.errors import LocalError
from dislocate.core.units import HOUR, MILLISECOND
from dislocate.haproxy.agent_check import AgentCheckServer, Answers
from dislocate.proxy.settings import parse_listen
from tests.support.fake_backend import datacenter, instance
from tests.support.tiny_store import served_store
from tests.unit.test_http_balancing import place


class Shell:
    def __init__(self, url, store, backend):
        self.url, self.store, self.backend = url, store, backend
        self.flows = backend.node.flows

    def run(self, *words, code=0):
        done = CliRunner().invoke(cli, [*words, "--agent", self.url], prog_name="dislocate")
        assert done.exit_code == code, (done.output, done.exception)
        return done

    def json(self, *words):
        return json.loads(self.run(*words, "--json").stdout)

    def three(self, **changes):
        self.backend.node.datacenters["lon"] = datacenter("lon", rtt=12 * MILLISECOND)
        self.backend.put(
            *(
                instance(
                    id=f"web-{at}",
                    node=f"{name}/a1",
                    datacenter=name,
                    address=f"10.{at}.0.1",
                    load=None,
                    **changes.get(name, {}),
                )
                for at, name in enumerate(("fra", "lon", "wdc"), 1)
            )
        )


@pytest.fixture
def shell():
    with served_store() as served:
        yield Shell(*served)


# ---- pick and flows


def test_a_pick_is_an_address_on_standard_output_and_its_reasons_beside(shell):
    shell.three()
    done = shell.run("pick", "shop.web")
    assert done.stdout == "10.1.0.1:8080\n"
    assert done.stderr.startswith("fra/a1/web-1, passing, 2.0 s old: ")
    assert shell.run("pick", "shop.web", "--from", "wdc").stdout == "10.3.0.1:8080\n"
    shell.flows.share("shop.web", fra=0.5, lon=0.5)
    shell.backend.put(*shell.backend.node.catalog.service("shop.web").instances)
    assert shell.json("pick", "shop.web", "--key", "a", "--exclude", "fra/a1/web-1")["id"] == "web-2"


def test_an_address_of_ipv6_is_picked_in_brackets(shell):
    shell.backend.put(instance(address="2001:db8::1"))
    assert shell.run("pick", "shop.web").stdout == "[2001:db8::1]:8080\n"


def test_a_pick_of_nobody_fails_and_says_what_to_look_at(shell):
    assert "did you mean 'shop.web'?" in (shell.three(), shell.run("pick", "shop.wbe", code=1).stderr)[1]
    shell.backend.put(instance(status=Status.MAINTENANCE))
    assert "maintenance" in shell.run("pick", "shop.web", code=1).stderr


def test_flows_are_explained_in_words_and_shown_with_their_numbers(shell):
    shell.three(lon={"status": Status.DRAINING})
    shell.flows.told("shop.web", place("fra", 120.0, 100.0), place("wdc", 0.0, 0.0, endpoint_capacity=0.0, epoch=0))
    shell.flows.share("shop.web", fra=0.7, wdc=0.3)
    told = shell.run("flows", "shop.web").stdout
    assert told.splitlines()[0] == "a test says so"
    rows = [line.split() for line in told.splitlines()]
    assert ["fra", "120.0", "100.0", "1", "0", "0.0", "ms", "0"] in [row[:8] for row in rows]
    assert ["wdc", "0.0", "not", "known"] in [row[:4] for row in rows]
    assert ["fra", "(here)", "70%", "30%"] in [row[:4] for row in rows]
    assert [row[3] for row in rows if "10.1.0.1:8080" in row or "10.2.0.1:8080" in row] == ["70.0%", "out"]
    assert shell.json("flows", "shop.web")["home"] == "fra"


def test_flows_of_a_service_without_instances_are_shown_without_a_table_of_them(shell):
    shell.backend.put(service="empty")
    told = shell.run("flows", "empty").stdout
    assert ("a test says so" in told, "INSTANCE" in told) == (True, False)


# ---- policies


def test_flags_change_what_was_set_and_a_file_replaces_it(shell, tmp_path):
    shell.three()
    shell.run("policy", "set", "shop.web", "--spill", "dead", "--tier", "wdc=1", "--timeout", "2s")
    shell.run("policy", "set", "shop.web", "--tier", "lon=2", "--price", "lon=0.5", "--hedge")
    assert json.loads(shell.store.keys["policy/shop.web"].value) == {
        "spill": "dead",
        "tiers": {"wdc": 1, "lon": 2},
        "prices": {"lon": 0.5},
        "timeout": "2s",
        "hedge": True,
    }
    file = tmp_path / "shop.toml"
    file.write_text('target_load = 0.6\n[eject]\nbase = "5s"\n')
    shell.run("policy", "set", "shop.web", "--file", str(file))
    assert json.loads(shell.store.keys["policy/shop.web"].value) == {"target_load": 0.6, "eject": {"base": "5s"}}
    assert "eject.base 5s" in shell.run("policy", "list").stdout
    shown = shell.run("policy", "show", "shop.web").stdout
    assert ["target_load", "0.6", "set"] in [line.split() for line in shown.splitlines()]
    assert ["timeout", "10s", "default"] in [line.split() for line in shown.splitlines()]


def test_a_policy_that_is_shown_as_json_can_be_set_again(shell, tmp_path):
    shell.run("policy", "set", "shop.web", "--spill", "never")
    file = tmp_path / "shop.json"
    file.write_text(json.dumps(shell.json("policy", "show", "shop.web")["policy"]))
    shell.run("policy", "set", "shop.web", "--file", str(file))
    assert json.loads(shell.store.keys["policy/shop.web"].value) == {"spill": "never"}


def test_a_tier_of_a_data_center_that_nobody_knows_is_refused_unless_forced(shell):
    shell.three()
    said = shell.run("policy", "set", "shop.web", "--tier", "mars=1", code=1).stderr
    assert "tiers.mars: got 'mars', expected a data center that is known: fra, lon, wdc" in said
    assert "prices.lom: got 'lom'" in shell.run("policy", "set", "shop.web", "--price", "lom=2", code=1).stderr
    assert shell.store.keys == {}
    shell.run("policy", "set", "shop.web", "--tier", "mars=1", "--force")
    assert json.loads(shell.store.keys["policy/shop.web"].value) == {"tiers": {"mars": 1}}
    shell.flows.govern("shop.web", Policy(tiers={"mars": 1}))
    shell.run("policy", "set", "shop.web", "--spill", "dead")  # what holds already is no new mistake
    assert json.loads(shell.store.keys["policy/shop.web"].value) == {"spill": "dead", "tiers": {"mars": 1}}


def test_of_a_policy_that_cannot_be_read_the_one_that_is_followed_is_shown(shell):
    shell.flows.govern("shop.web", Policy(spill=Spill.DEAD))
    shell.run("kv", "put", "policy/shop.web", '{"spil": 1}')
    done = shell.run("policy", "show", "shop.web")
    assert "spil" in done.stderr
    assert "follows what it had before" in done.stderr
    assert ["spill", "dead", "set"] in [line.split() for line in done.stdout.splitlines()]


def test_what_is_not_set_is_the_default_and_shown_as_such(shell):
    shown = shell.run("policy", "show", "shop.web").stdout
    assert {line.split()[-1] for line in shown.splitlines()[1:]} == {"default"}
    assert shell.run("policy", "list").stdout == "no policies: the defaults hold everywhere\n"
    assert "the defaults hold" in shell.run("policy", "delete", "shop.web", code=1).stderr
    shell.run("policy", "set", "shop.web", "--spill", "dead")
    assert shell.run("policy", "delete", "shop.web").exit_code == 0


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--spill", "ded"], 1, "did you mean 'dead'?"),
        (["--tier", "wdc"], 2, "expected DC=NUMBER"),
        (["--tier", "wdc=far"], 2, "expected DC=NUMBER"),
        (["--timeout", "5"], 1, "a duration such as '5s'"),
        ([], 2, "nothing to set"),
        (["--file", "/no/such"], 1, "--file"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_with_the_mend(shell, words, code, said):
    done = shell.run("policy", "set", "shop.web", *words, code=code)
    assert said in done.output + done.stderr
    assert shell.store.keys == {}


def test_a_file_that_is_no_policy_says_what_is_wrong_in_it(shell, tmp_path):
    file = tmp_path / "shop.toml"
    file.write_text("spil = 'dead'\n")
    assert "did you mean 'spill'?" in shell.run("policy", "set", "x", "--file", str(file), code=1).stderr
    file.write_text("= 1\n")
    assert "TOML" in shell.run("policy", "set", "x", "--file", str(file), code=1).stderr


# ---- drain


def test_a_data_center_that_would_not_fit_is_not_drained_and_the_numbers_are_said(shell):
    shell.three()
    shell.flows.told("shop.web", place("fra", 150.0, 200.0), place("lon", 60.0, 100.0))
    done = shell.run("drain", "dc", "fra", code=1)
    assert "shop.web: 210 requests a second are offered" in done.stderr
    assert ["shop.web", "210", "req/s", "100", "req/s", "NO"] in [line.split() for line in done.stderr.splitlines()]
    drains = [request for request in shell.backend.asked if isinstance(request, SetDraining)]
    assert drains == []
    done = shell.run("drain", "dc", "fra", "--force", "--for", "2h")
    assert "yes" in done.stdout
    drains = [request for request in shell.backend.asked if isinstance(request, SetDraining)]
    assert drains == [SetDraining("fra", "datacenter", True, 2 * HOUR)]


def test_a_data_center_that_another_operator_drains_too_is_refused_by_what_is_written_down(shell):
    shell.three()
    shell.flows.told("shop.web", *(place(name, 50.0, 100.0) for name in ("fra", "lon", "wdc")))
    assert "yes" in shell.run("drain", "dc", "lon").stdout
    assert "(lon is drained too)" in shell.run("drain", "dc", "fra", code=1).stderr


@pytest.mark.parametrize(
    ("words", "code", "field"),
    [
        (("dc", ""), 2, "the name of a data center"),
        (("node", "fra/"), 2, "DC/NAME"),
        (("dc", "fra", "--for", "0s"), 1, "--for"),
        (("instance", "web-1", "--for", "0s"), 1, "--for"),
    ],
)
def test_a_drain_of_nothing_or_for_no_time_is_told_so_before_anybody_is_asked(shell, words, code, field):
    assert field in shell.run("drain", *words, code=code).stderr
    assert shell.backend.asked == []


def test_a_drain_as_json_has_the_numbers_too(shell):
    shell.three()
    shell.flows.told("shop.web", place("fra", 15.0, 200.0), place("lon", 60.0, 100.0))
    assert shell.json("drain", "dc", "fra")["fits"]["services"][0]["capacity"] == 100.0
    assert "--force" in shell.run("drain", "node", "fra/a1", "--force", code=2).stderr


# ---- templates


@pytest.fixture
def templates(shell, tmp_path):
    def make(text, *command, name="shop.web"):
        (tmp_path / "t.j2").write_text(text)
        found = outputs((tmp_path / "t.j2",), (tmp_path / "out",))
        return Templates(AgentConnection(shell.url), name, found, tuple(command))

    return make


SERVERS = "{% for s in service.servers %}{{ s.address }} {{ s.weight }} {{ s.spare }}\n{% endfor %}"


def test_a_file_in_a_directory_that_is_not_there_is_told_in_words_of_the_command(shell, tmp_path, capsys):
    shell.three()
    (tmp_path / "t.j2").write_text("x")
    out = tmp_path / "nope" / "out"
    kept = Templates(AgentConnection(shell.url), "shop.web", outputs((tmp_path / "t.j2",), (out,)), ())
    kept.refresh(["shop.web"])
    assert not kept.apply()
    assert capsys.readouterr().err == f"--out {out}: there is no directory {tmp_path}/nope; make it first\n"
    out.parent.mkdir()
    assert kept.apply()


def test_a_template_sees_who_is_to_be_used_then_who_is_spare(shell, templates, tmp_path):
    shell.three()
    shell.flows.share("shop.web", wdc=0.8, fra=0.2)
    kept = templates(SERVERS)
    kept.refresh(["shop.web"])
    assert kept.apply()
    assert (tmp_path / "out").read_text() == "10.1.0.1 25 False\n10.3.0.1 100 False\n10.2.0.1 0 True\n"


def test_weights_that_move_a_little_are_no_reason_to_write(shell, templates, tmp_path):
    shell.three()
    kept = templates(SERVERS)

    def written(**shares):
        shell.flows.share("shop.web", **shares)
        kept.refresh(["shop.web"])
        kept.apply()
        return (tmp_path / "out").read_text()

    first = written(fra=0.5, wdc=0.5)
    assert written(fra=0.51, wdc=0.49) == written(fra=0.53, wdc=0.47) == first
    assert written(fra=0.6, wdc=0.4) != first
    assert "10.3.0.1 0 True" in written(fra=1.0)


def test_a_command_is_run_only_when_the_file_became_another_and_again_until_it_succeeds(shell, templates, tmp_path):
    runs, fails = tmp_path / "runs", tmp_path / "fails"
    kept = templates(SERVERS, "sh", "-c", f"echo >> {runs}; test ! -e {fails}")

    def look():
        kept.refresh(["shop.web"])
        return kept.apply(), len(runs.read_text()) if runs.exists() else 0

    shell.three()
    assert look() == (True, 1)
    assert look() == (True, 1)
    fails.touch()
    shell.three(fra={"status": Status.CRITICAL})
    assert look() == (False, 2)
    fails.unlink()
    assert look() == (True, 3)
    assert look() == (True, 3)


def test_a_command_that_never_succeeded_is_run_by_a_watch_that_is_started_anew(shell, templates, tmp_path):
    runs, fails = tmp_path / "runs", tmp_path / "fails"
    command = ("sh", "-c", f"echo >> {runs}; test ! -e {fails}")
    shell.three()
    fails.touch()
    before = templates(SERVERS, *command)
    before.refresh(["shop.web"])
    assert not before.apply()
    fails.unlink()
    anew = templates(SERVERS, *command)
    anew.refresh(["shop.web"])
    assert (anew.apply(), len(runs.read_text())) == (True, 2), "the file is as it should be, and nobody has read it"
    third = templates(SERVERS, *command)
    third.refresh(["shop.web"])
    assert (third.apply(), len(runs.read_text())) == (True, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "runs", "t.j2"]


def test_two_services_at_one_address_are_a_slip():
    check_apart([parse_listen("127.0.0.1:0=a.b"), parse_listen("127.0.0.1:0=c.d")])
    with pytest.raises(LocalError, match=r"an address that is not a\.b's already"):
        check_apart([parse_listen("127.0.0.1:80=a.b"), parse_listen("127.0.0.1:80=c.d")])


def test_a_file_keeps_its_mode_and_no_draft_is_left(shell, templates, tmp_path):
    (tmp_path / "out").touch(mode=0o640)
    (tmp_path / "out").chmod(0o640)
    shell.three()
    kept = templates(SERVERS)
    kept.refresh(["shop.web"])
    kept.apply()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o640
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "t.j2"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{{ service.srvers }}", "did you mean 'servers'?"),
        ("{{ servce }}", "did you mean 'service'?"),
        ("\n{% for %}", "t.j2, line 2"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_a_template_error_is_said_once_and_leaves_the_old_file(shell, templates, tmp_path, capsys, text, said):
    (tmp_path / "out").write_text("old")
    shell.three()
    kept = templates(text)
    kept.refresh(["shop.web"])
    assert (kept.apply(), kept.apply(), (tmp_path / "out").read_text()) == (False, False, "old")
    assert capsys.readouterr().err.count(said) == 1


def test_where_nobody_may_be_used_there_is_nothing_to_render(shell, templates):
    kept = templates(SERVERS)
    kept.refresh(["shop.web"])
    assert kept.missing == "no service matches 'shop.web' yet"
    shell.backend.put(instance(status=Status.MAINTENANCE))
    kept.refresh(["shop.web"])
    assert kept.missing == "nobody may be used of shop.web"
    shell.three()
    kept.refresh(["shop.web"])
    assert kept.missing == ""


def test_each_template_has_its_file(shell, tmp_path):
    done = shell.run("watch", "shop.web", "--template", "a", "--template", "b", "--out", "c", code=2)
    assert "expected one for each" in done.stderr
    assert "expected one for each" in shell.run("watch", "shop.web", "--out", "c", code=2).stderr


def test_a_template_without_a_file_goes_to_standard_output_or_to_the_command(shell, tmp_path):
    shell.three()
    (tmp_path / "t").write_text("{{ service.name }} {{ service.shares.fra }}\n")
    assert shell.run("watch", "shop.web", "--template", str(tmp_path / "t"), "--once").stdout == "shop.web 1.0\n"
    read = f"import sys; open({str(tmp_path / 'got')!r}, 'w').write(sys.stdin.read())"
    command = ["--", sys.executable, "-c", read]
    (tmp_path / "u").write_text("{{ services | join(',') }}")
    done = CliRunner().invoke(
        cli, ["watch", "shop.*", "--template", str(tmp_path / "u"), "--once", "--agent", shell.url, *command]
    )
    assert (done.exit_code, (tmp_path / "got").read_text()) == (0, "shop.web")


# ---- agent-checks


def test_an_agent_check_is_answered_over_tcp_and_the_last_answer_holds_without_an_agent(shell, monkeypatch):
    monkeypatch.setattr("dislocate.haproxy.agent_check.FRESH", 0.0)
    shell.three()
    shell.flows.govern("shop.web", Policy(spill=Spill.LOAD))
    answers = Answers(AgentConnection(shell.url))
    with AgentCheckServer("127.0.0.1", 0, answers) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(line):
            with socket.create_connection(server.server_address, 60) as connection:
                connection.sendall(line)
                return connection.makefile("rb").read()

        assert ask(b"shop.web 10.1.0.1:8080\n") == b"up ready 100%\n"
        assert ask(b"shop.web 10.2.0.1:8080\n") == b"up ready 0%\n"
        assert [ask(line) for line in (b"\n", b"shop.web\n", b"nope 1.2.3.4:5\n", b"shop.web 1.2.3.4:5\n")] == [b""] * 4
        answers._agent = AgentConnection("http://127.0.0.1:1")
        assert ask(b"shop.web 10.1.0.1:8080\n") == b"up ready 100%\n"
        server.shutdown()
        thread.join()


# ---- following


class Away:
    """An agent that does not answer, twice; then it says that shop.web changed, and nothing more unless it is `brief`."""

    where = "unix:/nowhere"

    def __init__(self, *, brief=False):
        self.asked = 0
        self.brief = brief

    def events(self, _path):
        self.asked += 1
        if self.asked < 3:
            raise NoAgent(self.where, "refused")
        yield "changed", {"service": "shop.web"}
        if not (self.brief and self.asked < 9):
            Event().wait()


def test_an_agent_that_never_answered_ends_what_follows_it_and_one_that_did_is_asked_again(monkeypatch):
    monkeypatch.setattr("dislocate.cli.following.RETRY", 0.01)
    with pytest.raises(NoAgent):
        Following(Away(), ("shop.web",)).take(60)
    assert Following(Away(), ("shop.web",), has_answered=True).take(60) == ["shop.web"]


def test_that_an_agent_is_away_is_said_once_and_that_it_is_back(monkeypatch, capsys):
    monkeypatch.setattr("dislocate.cli.following.RETRY", 0.01)
    away = Away(brief=True)
    following = Following(away, ("shop.web",), has_answered=True)
    while away.asked < 9:  # it restarts several times after that, and answers each time: that is no news
        following.take(0.05)
    said = capsys.readouterr().err
    assert said.count("everything is left as it is until an agent answers there") == 1
    assert said.count("no agent at unix:/nowhere (refused): ") == 1
    assert said.count("the agent at unix:/nowhere answers again") == 1
    assert len(said.splitlines()) == 2
