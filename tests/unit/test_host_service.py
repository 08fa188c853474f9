"""Units of systemd: drained, acted upon, taken back; `systemctl` is a script of the test."""

import pytest

from dislocate.core.boundary.requests import Refused, SetDraining
from dislocate.core.boundary.runs import TaskResult
from dislocate.core.boundary.spec import Service, ServiceAction
from dislocate.core.boundary.values import InstanceSpec, Status
from dislocate.core.units import MILLISECOND
from tests.support.hosted import Hosted
from tests.support.tiny_catalog import TinyCatalog

NGINX = Service(unit="nginx.service", only_notified=True)


@pytest.fixture
def called(tmp_path, monkeypatch):
    """What systemctl was called with; it fails for what is in the file `fail`."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "systemctl"
    script.write_text(f'#!/bin/sh\necho "$1 $3" >> {tmp_path}/called\n! grep -qx "$1" {tmp_path}/fail 2>/dev/null\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    (tmp_path / "systemd").mkdir()
    return lambda: (tmp_path / "called").read_text().splitlines() if (tmp_path / "called").exists() else []


@pytest.fixture
def catalog():
    catalog = TinyCatalog()
    for name, service in (("web-1", "shop.web"), ("web-2", "shop.web"), ("db-1", "shop.db")):
        catalog.specs[name] = InstanceSpec(id=name, service=service, port=80)
        catalog.status[name] = Status.PASSING
    return catalog


@pytest.fixture
def host(tmp_path, called, catalog):
    hosted = Hosted(tmp_path / "state", catalog.ask, instances=catalog.instances, systemd=tmp_path / "systemd")
    yield hosted
    hosted.stop()


def test_a_look_says_what_would_be_run_and_runs_nothing(host, called):
    looked = host.look(NGINX)
    assert (looked.result, looked.words) == (
        TaskResult.UNTOLD,
        "when it is notified: systemctl reload -- nginx.service",
    )
    assert called() == []


def test_a_unit_is_reloaded_and_must_be_active_then(host, called):
    assert host.apply(NGINX).result is TaskResult.CHANGED
    assert called() == ["reload nginx.service", "is-active nginx.service"]


def test_without_systemd_it_says_what_it_would_run(tmp_path, called):
    host = Hosted(tmp_path / "state", systemd=tmp_path / "nowhere")
    assert host.look(NGINX).result is TaskResult.UNTOLD
    assert "there is no systemd on this host" in host.look(NGINX).words
    outcome = host.apply(NGINX)
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "apply")
    assert "it would be: systemctl reload -- nginx.service" in outcome.words
    assert called() == []
    host.stop()


def test_its_instances_are_drained_first_and_taken_back_after(host, called, catalog):
    resource = Service(unit="nginx.service", action=ServiceAction.RESTART, drain="shop.web", drain_for=50 * MILLISECOND)
    assert host.apply(resource).words == "nginx.service was restarted"
    drains = [(asked.target, asked.draining) for asked in catalog.asked if isinstance(asked, SetDraining)]
    assert drains == [("web-1", True), ("web-2", True), ("web-1", False), ("web-2", False)]
    assert all(asked.expires > 0 for asked in catalog.asked if asked.draining)  # should this agent die meanwhile
    assert set(catalog.status.values()) == {Status.PASSING}


@pytest.mark.parametrize(("verb", "kind"), [("restart", "apply"), ("is-active", "verify")])
def test_one_that_fails_is_told_and_its_instances_are_taken_back(host, tmp_path, catalog, verb, kind):
    (tmp_path / "fail").write_text(verb + "\n")
    resource = Service(unit="nginx.service", action=ServiceAction.RESTART, drain="shop.web", drain_for=10 * MILLISECOND)
    outcome = host.apply(resource)
    assert (outcome.result, outcome.kind, outcome.code) == (TaskResult.FAILED, kind, 1)
    assert set(catalog.status.values()) == {Status.PASSING}


def test_a_drain_that_is_refused_holds_nothing_up(tmp_path, called, catalog):
    host = Hosted(
        tmp_path / "state",
        ask=lambda request: Refused("unknown", "", "there is none"),
        instances=catalog.instances,
        systemd=tmp_path / "systemd",
    )
    resource = Service(unit="nginx.service", drain="shop.web", drain_for=10**15)
    assert host.apply(resource).result is TaskResult.CHANGED
    host.stop()


def test_a_revert_acts_again_since_what_it_reads_was_put_back(host, called):
    assert host.revert(NGINX).result is TaskResult.CHANGED
    assert called()[0] == "reload nginx.service"
