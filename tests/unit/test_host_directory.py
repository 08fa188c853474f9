"""Directories: made, given their mode, and taken back while they are empty."""

import stat

import pytest

from dislocate.core.boundary.runs import TaskResult
from dislocate.core.boundary.spec import Directory
from dislocate.host.resources import directory
from tests.support.hosted import Hosted


@pytest.fixture
def host(tmp_path):
    hosted = Hosted(tmp_path / "state")
    yield hosted
    hosted.stop()


def test_a_directory_is_made_as_predicted_and_then_left_alone(host, tmp_path):
    resource = Directory(path=str(tmp_path / "conf.d"), mode="0750")
    looked = host.look(resource)
    assert (looked.result, looked.before) == (TaskResult.WOULD_CHANGE, "absent")
    assert not (tmp_path / "conf.d").exists()
    applied = host.apply(resource)
    assert (applied.before, applied.after) == (looked.before, looked.after)
    assert stat.S_IMODE((tmp_path / "conf.d").stat().st_mode) == 0o750
    assert host.apply(resource).result is TaskResult.SAME


def test_a_revert_brings_back_its_mode(host, tmp_path):
    (tmp_path / "conf.d").mkdir(mode=0o700)
    resource = Directory(path=str(tmp_path / "conf.d"), mode="0755")
    assert host.apply(resource).words == "mode 0700 -> 0755"
    assert host.revert(resource).words == "mode 0755 -> 0700"


def test_a_revert_removes_it_only_while_it_is_empty(host, tmp_path):
    resource = Directory(path=str(tmp_path / "conf.d"))
    host.apply(resource)
    (tmp_path / "conf.d" / "precious").write_text("x")
    assert host.revert(resource).result is TaskResult.LEFT
    (tmp_path / "conf.d" / "precious").unlink()
    assert host.revert(resource).after == "absent"
    assert not (tmp_path / "conf.d").exists()


def test_what_is_no_directory_is_refused_with_the_mend(host, tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    assert "is no directory" in host.apply(Directory(path=str(tmp_path / "file"))).words
    assert "symbolic link" in host.apply(Directory(path=str(tmp_path / "link"))).words
    assert "make it first" in host.apply(Directory(path=str(tmp_path / "a" / "b"))).words
    assert "no directory" in host.apply(Directory(path=str(tmp_path / "file" / "b"))).words


def test_one_that_is_exchanged_for_a_link_in_the_last_moment_is_not_followed(host, tmp_path, monkeypatch):
    target = tmp_path / "target"
    target.mkdir(mode=0o700)
    place = tmp_path / "conf.d"
    place.mkdir(mode=0o700)
    remember = directory._remember

    def exchanged(*arguments) -> None:
        remember(*arguments)
        place.rmdir()
        place.symlink_to(target)

    monkeypatch.setattr(directory, "_remember", exchanged)
    assert host.apply(Directory(path=str(place), mode="0777")).result is TaskResult.FAILED
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
