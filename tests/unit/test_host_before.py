"""Before-images: the first of a run stays, others cannot read them, and the oldest go."""

import os
import stat

from dislocate.host.before import RUNS_KEPT, FileImage, Images, Nothing


def image(text: str) -> FileImage:
    return FileImage(0o644, 0, 0, text.encode())


def test_the_first_image_of_a_run_stays(tmp_path):
    images = Images(tmp_path)
    assert images.keep("7", "file /a", image("first"))
    assert not images.keep("7", "file /a", image("second"))
    assert images.find("7", "file /a") == image("first")
    assert images.find("7", "file /b") is None
    assert images.find("8", "file /a") is None


def test_that_there_was_nothing_is_an_image_too(tmp_path):
    Images(tmp_path).keep("7", "file /a", Nothing())
    assert Images(tmp_path).find("7", "file /a") == Nothing()


def test_outside_of_a_run_nothing_is_kept(tmp_path):
    assert not Images(tmp_path).keep("", "file /a", image("x"))
    assert list(tmp_path.iterdir()) == []


def test_others_on_the_host_cannot_read_them(tmp_path):
    Images(tmp_path).keep("7", "file /a", image("secret"))
    for directory, _, files in os.walk(tmp_path / "before"):
        assert stat.S_IMODE(os.stat(directory).st_mode) == 0o700
        for name in files:
            assert stat.S_IMODE(os.stat(os.path.join(directory, name)).st_mode) == 0o600


def test_only_those_of_the_last_runs_are_kept(tmp_path):
    images = Images(tmp_path)
    for run in range(RUNS_KEPT + 5):
        images.keep(str(run), "file /a", image(str(run)))
        os.utime(tmp_path / "before" / str(run), (run, run))
    kept = [run for run in range(RUNS_KEPT + 5) if images.find(str(run), "file /a")]
    assert kept == list(range(5, RUNS_KEPT + 5))


def test_those_that_are_wanted_still_are_kept_however_many_there_are(tmp_path):
    images = Images(tmp_path)
    for run in range(RUNS_KEPT + 5):
        images.keep(str(run), "file /a", image(str(run)))
        os.utime(tmp_path / "before" / str(run), (run, run))
        images.want("0")
    assert images.find("0", "file /a") == image("0")
    assert images.find("1", "file /a") is None


def test_the_name_of_a_run_cannot_leave_its_directory(tmp_path):
    images = Images(tmp_path / "state")
    for run in ("../../x", "..", ".", "a/b"):
        images.keep(run, "file /a", image(run))
        assert images.find(run, "file /a") == image(run)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert len(list((tmp_path / "state" / "before").iterdir())) == 4


def test_a_file_that_held_a_secret_is_remembered(tmp_path):
    images = Images(tmp_path)
    assert not images.is_secretive("/etc/app.conf")
    images.mark_secretive("/etc/app.conf")
    assert Images(tmp_path).is_secretive("/etc/app.conf")
