"""What a program notices that reads services.json."""

import os
import stat

import gevent
import msgspec
import pytest

from dislocate.core.boundary.events import DatacenterChanged, RelayChanged
from dislocate.edge import snapshot as snapshot_module
from dislocate.edge.answers import ServiceAnswer
from dislocate.edge.metrics import EdgeCounters
from dislocate.edge.snapshot import SnapshotFile, replace_file
from tests.support.api_client import ApiClient
from tests.support.fake_backend import FakeBackend, instance


class Written:
    """A snapshot file that a test waits for."""

    def __init__(self, directory):
        self.backend = FakeBackend()
        self.counters = EdgeCounters()
        self.path = directory / "services.json"
        self.file = SnapshotFile(self.backend, str(self.path), self.counters)

    def read(self):
        return msgspec.json.decode(self.path.read_bytes(), type=dict[str, ServiceAnswer])

    def wait_for(self, claim):
        with gevent.Timeout(60):
            while not claim():
                gevent.sleep(0.005)

    def written(self):
        return self.counters.total("snapshots_written")


@pytest.fixture
def written(tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot_module, "COALESCE", 0.01)
    written = Written(tmp_path)
    yield written
    written.file.stop()


def test_the_file_says_what_the_api_says(written):
    written.backend.put(instance())
    written.backend.put(service="db.orders")
    written.file.start()
    written.wait_for(written.written)
    api = ApiClient(written.backend)
    content = msgspec.json.decode(written.path.read_bytes())
    assert content == {name: api.get(f"/api/services/{name}") for name in ("db.orders", "shop.web")}
    assert stat.S_IMODE(os.stat(written.path).st_mode) & 0o444
    assert os.listdir(written.path.parent) == ["services.json"]


def test_an_agent_that_knows_nothing_writes_an_empty_object(written):
    written.file.start()
    written.wait_for(written.written)
    assert written.read() == {}


def test_the_file_follows_changes_and_a_burst_is_few_replacements(written):
    written.file.start()
    for weight in range(500):
        written.backend.put(instance(weight=weight))
    written.wait_for(lambda: written.path.exists() and written.read()["shop.web"].index == 500)
    assert written.written() <= 2


def test_nothing_new_replaces_nothing(written):
    written.backend.put(instance())
    written.file.start()
    written.wait_for(written.written)
    before = os.stat(written.path).st_ino
    written.backend.tell(RelayChanged(True))
    written.backend.tell(DatacenterChanged("wdc", True, 0.0, ""))
    assert written.file.write()
    assert os.stat(written.path).st_ino == before


def test_a_data_center_out_of_reach_is_in_the_file(written):
    written.backend.put(instance())
    written.file.start()
    written.wait_for(written.written)
    index = written.read()["shop.web"].index
    view = written.backend.node.catalog.services["shop.web"]
    lost = msgspec.structs.replace(view, instances=(instance(reachable=False),))
    written.backend.node.catalog.services["shop.web"] = lost
    written.backend.tell(DatacenterChanged("fra", False, 9.0, "silence"))
    written.wait_for(lambda: not written.read()["shop.web"].instances[0].reachable)
    assert written.read()["shop.web"].index == index


def test_a_directory_that_cannot_be_written_is_logged_once_counted_and_tried_again(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(snapshot_module, "COALESCE", 0.001)
    monkeypatch.setattr(snapshot_module, "RETRY", 0.001)
    written = Written(tmp_path / "missing")
    written.file.start()
    written.wait_for(lambda: written.counters.total("snapshot_failures") >= 3)
    assert caplog.text.count("cannot be written") == 1
    written.path.parent.mkdir()
    written.wait_for(written.written)
    assert written.read() == {}
    written.file.stop()


def test_a_failed_replacement_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "services.json"
    replace_file(str(path), b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["services.json"]
