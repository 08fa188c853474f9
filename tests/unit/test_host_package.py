"""Packages: of Debian, with apt-get and dpkg-query played by scripts, and of Python, in an environment of the test."""

import os
import sys

import pytest

from dislocate.core.boundary.runs import TaskResult
from dislocate.core.boundary.spec import Package
from tests.support.hosted import Hosted

JQ = Package(name="jq")


@pytest.fixture
def host(tmp_path):
    hosted = Hosted(tmp_path / "state")
    yield hosted
    hosted.stop()


class Debian:
    """A database in a file, 'NAME VERSION' a line, and the two programs over it."""

    def __init__(self, directory) -> None:
        self.database = directory / "database"
        self.database.write_text("")
        self.called = directory / "called"
        self.called.write_text("")
        self._write(
            directory / "dpkg-query",
            f"""
for name in open({str(self.database)!r}).read().splitlines():
    if name.split()[0] == sys.argv[-1]:
        print("ii \\t" + name.split()[1])
        sys.exit(0)
sys.exit("dpkg-query: no packages found matching " + sys.argv[-1])
""",
        )
        self._write(
            directory / "apt-get",
            f"""
open({str(self.called)!r}, "a").write(sys.argv[1] + " " + sys.argv[-1] + "\\n")
name, _, version = sys.argv[-1].partition("=")
if version == "9.9":
    sys.exit("E: Version '9.9' for 'jq' was not found")
lines = [line for line in open({str(self.database)!r}) if line.split()[0] != name]
if sys.argv[1] == "install":
    lines.append(name + " " + (version or "1.7") + "\\n")
open({str(self.database)!r}, "w").writelines(lines)
""",
        )

        self._write(
            directory / "apt-cache",
            """
if sys.argv[-1] == "jq":
    print("jq:\\n  Installed: (none)\\n  Candidate: 1.7\\n  Version table:")
    print("     1.7 500\\n        500 http://deb.debian.org/debian bookworm/main amd64 Packages\\n *** 1.6 100")
""",
        )

    def _write(self, path, program: str) -> None:
        path.write_text(f"#!{sys.executable}\nimport sys\n{program}")
        path.chmod(0o755)


@pytest.fixture
def debian(tmp_path, monkeypatch):
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return Debian(tmp_path / "bin")


def test_a_package_is_installed_and_then_left_alone(host, debian):
    looked = host.look(JQ)
    assert (looked.result, looked.before, looked.after) == (TaskResult.WOULD_CHANGE, "absent", "installed")
    assert debian.called.read_text() == ""
    applied = host.apply(JQ)
    assert (applied.before, applied.after, applied.words) == ("absent", "installed", "absent -> 1.7")
    assert host.apply(JQ).result is TaskResult.SAME
    assert debian.called.read_text() == "install jq\n"


def test_a_version_is_what_is_looked_at_where_one_is_named(host, debian):
    debian.database.write_text("jq 1.5\n")
    assert host.look(JQ).result is TaskResult.SAME
    wanted = Package(name="jq", version="1.6")
    looked, applied = host.look(wanted), host.apply(wanted)
    assert (looked.before, looked.after) == (applied.before, applied.after)
    assert applied.words == "1.5 -> 1.6"
    assert host.revert(wanted).words == "1.6 -> 1.5"


@pytest.mark.parametrize(
    ("package", "says"),
    [
        (
            Package(name="nosuch"),
            "absent -> the newest, but apt knows no package nosuch on this host; is the name right",
        ),
        (
            Package(name="jq", version="9.9"),
            "absent -> 9.9, but apt knows no version 9.9 of jq on this host but 1.7, 1.6;",
        ),
    ],
)
def test_what_apt_does_not_know_is_said_beforehand(host, debian, package, says):
    looked = host.look(package)
    assert looked.result is TaskResult.WOULD_CHANGE
    assert looked.words.startswith(says)


def test_what_apt_knows_is_said_without_more(host, debian):
    assert host.look(JQ).words == "absent -> the newest"
    assert host.look(Package(name="jq", version="1.6")).words == "absent -> 1.6"


def test_a_revert_removes_what_was_not_there(host, debian):
    host.apply(JQ)
    outcome = host.revert(JQ)
    assert (outcome.result, outcome.after) == (TaskResult.CHANGED, "absent")
    assert host.revert(JQ).result is TaskResult.SAME


def test_what_apt_says_is_told(host, debian):
    outcome = host.apply(Package(name="jq", version="9.9"))
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "apply")
    assert "Version '9.9' for 'jq' was not found" in outcome.words


def test_without_root_it_says_what_it_would_run(host, debian, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only root may run apt-get install" in host.look(JQ).words
    assert "only root may run apt-get install" in host.apply(JQ).words
    assert debian.called.read_text() == ""


def test_a_host_without_debian_packages_says_what_it_would_run(host, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    looked = host.look(JQ)
    assert looked.result is TaskResult.UNTOLD
    assert "it would run: apt-get install" in looked.words
    assert "it would be: apt-get install" in host.apply(JQ).words


@pytest.mark.parametrize(
    "package",
    [
        Package(name="-o=Dir::Etc=/tmp"),
        Package(name="jq; rm"),
        Package(name="jq", version="-1"),
        Package(name="--index-url", venv="/srv/venv"),
        Package(name="jq", venv="srv/venv"),
    ],
)
def test_a_name_that_could_be_an_option_is_refused(host, debian, package):
    for outcome in (host.look(package), host.apply(package)):
        assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "apply")
    assert debian.called.read_text() == ""


# ---- Python


@pytest.fixture
def venv(tmp_path):
    """An environment whose `pip` writes the metadata that a real one does."""
    site = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    site.mkdir(parents=True)
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir()
    python.write_text(
        f"""#!{sys.executable}
import pathlib, shutil, sys
name, _, version = sys.argv[-1].partition("==")
for old in pathlib.Path({str(site)!r}).glob("*.dist-info"):
    shutil.rmtree(old)
if sys.argv[3] == "install":
    new = pathlib.Path({str(site)!r}, name + "-" + (version or "2.0") + ".dist-info")
    new.mkdir()
    (new / "METADATA").write_text("Metadata-Version: 2.1\\nName: " + name + "\\nVersion: " + (version or "2.0") + "\\n")
"""
    )
    python.chmod(0o755)
    return str(tmp_path / "venv")


def test_pip_installs_into_the_environment_and_back(host, venv):
    first = Package(name="My_App", version="1.0", venv=venv)
    assert host.look(first).before == "absent"
    assert host.apply(first).words == "absent -> 1.0"
    assert host.look(Package(name="my-app[extra]", venv=venv)).result is TaskResult.SAME
    second = Package(name="My_App", version="1.1", venv=venv)
    assert host.apply(second, run="2").words == "1.0 -> 1.1"
    assert host.revert(second, run="2").words == "1.1 -> 1.0"
    assert host.revert(first, run="1").after == "absent"


def test_an_environment_that_is_not_there_is_named_with_its_mend(host, tmp_path):
    resource = Package(name="app", venv=str(tmp_path / "none"))
    looked = host.look(resource)
    assert looked.result is TaskResult.WOULD_CHANGE
    assert looked.words.startswith("absent -> the newest, but there is no environment")
    assert "python3 -m venv" in host.apply(resource).words
