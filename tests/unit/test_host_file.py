"""Files: what a LOOK says, what an APPLY leaves, and what a REVERT brings back; real files of a directory of the test."""

import os
import stat
import sys
from pathlib import Path as FilePath

import pytest

from dislocate.core.boundary.runs import TaskResult
from dislocate.core.boundary.spec import File
from dislocate.host import paths
from dislocate.host.before import RUNS_KEPT
from dislocate.host.drafts import Draft, discard_drafts, draft_path
from dislocate.host.paths import Seen
from dislocate.host.work import Failure
from dislocate.io.keyring import load_node_keys
from tests.support.hosted import Hosted

SECRETS = {"db/password": "correct horse"}


@pytest.fixture
def host(tmp_path):
    hosted = Hosted(tmp_path / "state")
    yield hosted
    hosted.stop()


@pytest.fixture
def motd(tmp_path):
    return tmp_path / "motd"


def names(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.name != "state")


def test_a_file_that_is_not_there_is_made_with_content_mode_and_owner(host, motd):
    outcome = host.apply(File(path=str(motd), content="hello {{ facts.hostname }}\n", mode="0640"))
    assert outcome.result is TaskResult.CHANGED
    assert outcome.before == "absent"
    assert motd.read_text() == "hello web-1\n"
    assert stat.S_IMODE(motd.stat().st_mode) == 0o640
    assert motd.stat().st_uid == os.geteuid()


@pytest.mark.parametrize("old", [None, "before\n", "after\n"])
def test_a_look_predicts_what_apply_makes_and_changes_nothing(host, motd, old):
    if old is not None:
        motd.write_text(old)
    resource = File(path=str(motd), content="after\n", mode="0600")
    looked = host.look(resource)
    assert (motd.read_text() if motd.exists() else None) == old
    applied = host.apply(resource)
    assert looked.result is TaskResult.WOULD_CHANGE
    assert (looked.before, looked.after) == (applied.before, applied.after)
    looked_again = host.look(resource)
    assert looked_again.result is TaskResult.SAME
    assert (looked_again.before, looked_again.after) == (applied.after, applied.after)


def test_what_is_as_it_should_be_is_left_alone(host, motd):
    resource = File(path=str(motd), content="x")
    host.apply(resource)
    written = motd.stat()
    assert host.apply(resource).result is TaskResult.SAME
    assert motd.stat().st_ino == written.st_ino


def test_a_difference_is_unified_and_the_same_on_every_host(host, motd):
    motd.write_text("one\ntwo\n")
    shown = host.look(File(path=str(motd), content="one\nthree\n")).diff
    assert shown == f"--- {motd}\n+++ {motd}\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"


def test_a_large_difference_is_cut_and_says_so(host, motd):
    content = "".join(f"line {number} of many\n" for number in range(8_000))
    shown = host.look(File(path=str(motd), content=content)).diff
    assert len(shown.encode()) <= 32 * 1024
    assert shown.endswith("... the rest is not shown\n")


def test_a_revert_brings_back_content_mode_and_owner(host, motd):
    motd.write_bytes(b"as it \xff was")
    motd.chmod(0o604)
    before = host.look(File(path=str(motd), content="new")).before
    host.apply(File(path=str(motd), content="new"))
    outcome = host.revert(File(path=str(motd), content="new"))
    assert outcome.result is TaskResult.CHANGED
    assert outcome.after == before
    assert motd.read_bytes() == b"as it \xff was"
    assert stat.S_IMODE(motd.stat().st_mode) == 0o604


def test_a_revert_removes_what_was_not_there(host, motd):
    host.apply(File(path=str(motd), content="new"))
    assert host.revert(File(path=str(motd), content="new")).after == "absent"
    assert not motd.exists()
    assert host.revert(File(path=str(motd), content="new")).result is TaskResult.SAME


def test_what_is_applied_again_in_a_run_does_not_become_its_before(host, motd):
    motd.write_text("original")
    host.apply(File(path=str(motd), content="first"))
    motd.write_text("changed by somebody")
    host.apply(File(path=str(motd), content="first"))
    host.revert(File(path=str(motd), content="first"))
    assert motd.read_text() == "original"


def test_what_somebody_edited_since_is_put_back_and_the_edit_kept(host, motd):
    motd.write_text("original")
    resource = File(path=str(motd), content="of the run")
    made = host.apply(resource).after
    motd.write_text("by hand")
    outcome = host.revert(resource, made=made)
    assert outcome.result is TaskResult.REPLACED
    assert motd.read_text() == "original"
    place = FilePath(outcome.words.rpartition(" ")[2])
    assert (place.read_text(), stat.S_IMODE(place.stat().st_mode)) == ("by hand", 0o600)
    assert "it was changed since the run" in outcome.words


def test_what_is_as_the_run_left_it_is_put_back_without_more_words(host, motd):
    resource = File(path=str(motd), content="of the run")
    made = host.apply(resource).after
    assert host.revert(resource, made=made).result is TaskResult.CHANGED
    assert host.revert(resource, made=made).result is TaskResult.SAME


def test_each_run_has_a_before_of_its_own(host, motd):
    host.apply(File(path=str(motd), content="one"), run="1")
    host.apply(File(path=str(motd), content="two"), run="2")
    host.revert(File(path=str(motd), content="two"), run="2")
    assert motd.read_text() == "one"


def test_a_run_that_is_looked_at_still_keeps_its_before_however_many_come_after(host, motd):
    motd.write_text("original")
    kept = File(path=str(motd), content="kept")
    host.apply(kept, run="kept")
    for run in range(RUNS_KEPT + 2):
        host.look(kept, run="kept")  # as drift does
        host.apply(File(path=str(motd.with_name("other")), content=str(run)), run=str(run))
    host.revert(kept, run="kept")
    assert motd.read_text() == "original"


def test_a_revert_without_a_before_is_lost_and_touches_nothing(host, motd):
    motd.write_text("mine")
    outcome = host.revert(File(path=str(motd), content="new"), run="9")
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "lost")
    assert motd.read_text() == "mine"


def test_a_validation_that_fails_leaves_the_file_and_its_before_as_they_were(host, motd):
    motd.write_text("good")
    resource = File(
        path=str(motd),
        content="bad",
        validate=(sys.executable, "-c", "import sys; sys.exit('no: ' + sys.argv[1])", "{path}"),
    )
    outcome = host.apply(resource)
    assert (outcome.result, outcome.kind, outcome.code) == (TaskResult.FAILED, "validate", 1)
    assert "no: " in outcome.words
    assert motd.read_text() == "good"
    assert names(motd.parent) == ["motd"]
    motd.write_text("mended by hand")
    assert host.apply(File(path=str(motd), content="better")).result is TaskResult.CHANGED
    host.revert(File(path=str(motd), content="better"))
    assert motd.read_text() == "mended by hand"


def test_a_draft_is_for_the_agents_user_only_until_it_is_in_its_place(host, motd):
    program = "import os, sys; sys.exit(f'{os.stat(sys.argv[1]).st_mode & 0o777:o} {open(sys.argv[1]).read()}')"
    validate = (sys.executable, "-c", program, "{path}")
    for mode, seen in (("0644", "600"), ("0755", "700"), ("0440", "600")):
        outcome = host.apply(File(path=str(motd), content="new", mode=mode, validate=validate))
        assert outcome.words.endswith(f"{seen} new")
    for mode in (0o644, 0o755, 0o440):
        resource = File(path=str(motd), content="new", mode=f"{mode:04o}", validate=("test", "-s", "{path}"))
        assert host.apply(resource).result is TaskResult.CHANGED
        assert stat.S_IMODE(motd.stat().st_mode) == mode


def test_a_validation_that_never_ends_is_a_timeout_and_leaves_no_draft(host, motd):
    outcome = host.apply(File(path=str(motd), content="x", validate=("sleep", "1000"), timeout=300_000_000))
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "timeout")
    assert names(motd.parent) == []


def test_a_template_that_fails_leaves_the_file_as_it_was(host, motd):
    motd.write_text("good")
    outcome = host.apply(File(path=str(motd), content="a\n{{ key('config/color') }}"))
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "render")
    assert "line 2" in outcome.words
    assert "'config/color'" in outcome.words
    assert motd.read_text() == "good"


def test_a_draft_that_a_death_left_behind_is_replaced(host, motd):
    draft_path(str(motd)).write_text("half")
    host.apply(File(path=str(motd), content="whole"))
    assert motd.read_text() == "whole"
    assert names(motd.parent) == ["motd"]
    draft_path(str(motd)).write_text("half")
    host.revert(File(path=str(motd), content="whole"))
    assert names(motd.parent) == []


def test_a_draft_of_an_agent_that_was_killed_is_discarded_by_the_next_one(host, motd):
    draft = Draft(host.state_dir, str(motd))
    draft.write(Seen(0o644, os.geteuid(), os.getegid(), b"half"))
    assert names(motd.parent) == [draft.path.name]
    discard_drafts(host.state_dir)
    assert names(motd.parent) == []
    assert list((host.state_dir / "drafts").iterdir()) == []


def test_a_draft_that_is_given_up_while_it_is_written_does_not_stay(host, motd):
    draft = Draft(host.state_dir, str(motd))
    draft.discard()  # as whoever is cancelled does at once, while the thread goes on
    draft.write(Seen(0o644, os.geteuid(), os.getegid(), b"half"))
    assert names(motd.parent) == []


@pytest.mark.parametrize("length", [244, 245, 255])
def test_a_name_may_be_as_long_as_the_system_takes(host, motd, length):
    resource = File(path=str(motd.with_name("x" * length)), content="x")
    assert host.apply(resource).result is TaskResult.CHANGED
    assert host.revert(resource).result is TaskResult.CHANGED
    assert names(motd.parent) == []


def test_a_missing_directory_is_named_with_its_mend(host, tmp_path):
    resource = File(path=str(tmp_path / "etc" / "app.conf"), content="x")
    assert host.look(resource).result is TaskResult.WOULD_CHANGE  # another resource may make it first
    outcome = host.apply(resource)
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "apply")
    assert f"there is no directory {tmp_path}/etc; make it first" in outcome.words


def test_a_symbolic_link_is_refused_and_names_its_target(host, motd, tmp_path):
    target = tmp_path / "target"
    target.write_text("untouched")
    motd.symlink_to(target)
    for outcome in (host.look(File(path=str(motd), content="x")), host.apply(File(path=str(motd), content="x"))):
        assert outcome.result is TaskResult.FAILED
        assert f"symbolic link to {target}" in outcome.words
    assert target.read_text() == "untouched"


def test_a_directory_and_a_pipe_are_refused(host, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert "is a directory" in host.apply(File(path=str(tmp_path), content="x")).words
    assert "no regular file" in host.apply(File(path=str(tmp_path / "pipe"), content="x")).words
    assert "no absolute path" in host.apply(File(path="motd", content="x")).words


def test_a_file_too_large_to_be_kept_is_refused(host, motd):
    with motd.open("wb") as file:
        file.truncate(1 << 30)
    assert "move it away first" in host.apply(File(path=str(motd), content="x")).words
    assert motd.stat().st_size == 1 << 30


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/etc/hostname")])
def test_one_that_is_exchanged_while_it_is_looked_at_is_neither_followed_nor_waited_for(motd, monkeypatch, make):
    motd.write_text("x")
    lstat = paths._lstat

    def exchanged(path: str) -> os.stat_result | None:
        found = lstat(path)
        motd.unlink()
        make(motd)
        return found

    monkeypatch.setattr(paths, "_lstat", exchanged)
    with pytest.raises(Failure):
        paths.see_file(str(motd))


def test_an_owner_who_is_not_there_is_named_and_nothing_is_changed(host, motd):
    motd.write_text("good")
    resource = File(path=str(motd), content="x", owner="nobody-of-this-name")
    looked = host.look(resource)
    assert (looked.result, looked.after) == (TaskResult.WOULD_CHANGE, "")  # a package may bring the user
    assert "no user 'nobody-of-this-name'" in looked.words
    assert host.apply(resource).kind == "apply"
    assert "no group" in host.apply(File(path=str(motd), content="x", owner=f"{os.geteuid()}:no-such-group")).words
    assert motd.read_text() == "good"


def test_a_mode_that_is_none_is_refused(host, motd):
    assert "write it in octal" in host.apply(File(path=str(motd), content="x", mode="rw-r--r--")).words


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_a_file_is_given_to_its_owner_and_back(host, motd):
    resource = File(path=str(motd), content="x", owner="1234:4321")
    motd.write_text("x")
    assert host.look(resource).words == "owner 0:0 -> 1234:4321"
    host.apply(resource)
    assert (motd.stat().st_uid, motd.stat().st_gid) == (1234, 4321)
    host.revert(resource)
    assert (motd.stat().st_uid, motd.stat().st_gid) == (0, 0)


# ---- secrets


def test_a_secret_is_in_the_file_and_nowhere_else(host, motd, caplog):
    resource = File(path=str(motd), content="password = {{ secret('db/password') | upper }}\n", mode="0600")
    looked = host.look(resource, secrets=SECRETS)
    applied = host.apply(resource, secrets=SECRETS)
    reverted = host.revert(resource, secrets=SECRETS)
    assert applied.result is TaskResult.CHANGED
    assert "<SECRET DB/PASSWORD #" in looked.diff
    assert "every user of the host" not in looked.words
    for said in (looked, applied, reverted):
        assert "horse" not in f"{said.words} {said.diff}".lower()
    assert "horse" not in caplog.text.lower()


def test_a_secret_of_before_is_hidden_too(host, motd):
    resource = File(
        path=str(motd), content="user = app\npassword = {{ secret('db/password') }}\nport = {{ key('port') }}\n"
    )
    host.apply(resource, secrets={"db/password": "old value"}, values={"port": "1"})
    looked = host.look(resource, secrets=SECRETS, values={"port": "2"})
    assert "it holds a secret that every user of the host may read" in looked.words
    shown = looked.diff
    assert "old value" not in shown
    assert " user = app\n" in shown
    assert "+password = <secret db/password #" in shown
    assert "-<hidden, it may hold a secret #" in shown


def test_neither_a_difference_nor_a_digest_proves_a_guess_to_whoever_reads_the_store(tmp_path):
    """Two hosts of a fleet and one of another: what is shown is alike in a fleet only, and what is stored on a host only."""
    fleets = {"a": b"one", "b": b"one", "c": b"another"}
    hosts = {name: Hosted(tmp_path / name, marks=fleet) for name, fleet in fleets.items()}
    motd, looked = tmp_path / "motd", {}
    resource = File(path=str(motd), content="{{ secret('pin') }}\n", mode="0600")
    for name, host in hosts.items():
        motd.unlink(missing_ok=True)
        host.apply(resource, secrets={"pin": "1234"})
        looked[name] = host.look(resource, secrets={"pin": "5678"})
        host.stop()
    assert looked["a"].diff == looked["b"].diff
    assert not {*looked["a"].diff.split("#")[1:]} & {*looked["c"].diff.split("#")[1:]}
    assert len({one.before for one in looked.values()} | {one.after for one in looked.values()}) == 6


def test_a_line_with_the_same_secret_is_no_difference(host, motd):
    resource = File(path=str(motd), content="a = {{ secret('db/password') }}\nport = {{ key('port') }}\n")
    host.apply(resource, secrets=SECRETS, values={"port": "1"})
    shown = host.look(resource, secrets=SECRETS, values={"port": "2"}).diff
    assert "\n a = <secret db/password #" in shown


def test_a_file_that_held_a_secret_once_keeps_hiding_it_when_its_template_has_none_any_more(host, motd):
    host.apply(File(path=str(motd), content="password = {{ secret('db/password') }}\n"), secrets=SECRETS)
    shown = host.look(File(path=str(motd), content="password = none\n")).diff
    assert "horse" not in shown
    assert "+password = none" in shown


def test_a_validation_that_prints_the_file_tells_no_secret(host, motd):
    resource = File(
        path=str(motd),
        content="password = {{ secret('db/password') }}\n",
        validate=("sh", "-c", 'cat "$0"; exit 1', "{path}"),
    )
    outcome = host.apply(resource, secrets=SECRETS)
    assert outcome.kind == "validate"
    assert "password = <secret db/password #" in outcome.words


def test_a_secret_that_is_not_there_or_sealed_to_another_node_is_named(host, motd, tmp_path):
    resource = File(path=str(motd), content="{{ secret('db/password') }}")
    assert "'db/password' is not there" in host.apply(resource).words
    outcome = host.apply(resource, secrets=SECRETS, public_key=load_node_keys(tmp_path / "other").public)
    assert outcome.kind == "render"
    assert "not sealed to the key of this node" in outcome.words
