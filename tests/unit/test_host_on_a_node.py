"""A host and a real node: what a process resource asks of the catalog is taken, and its checks are run."""

import os
import socket
import sys

from dislocate.core.boundary.effects import CancelTask, RunTask
from dislocate.core.boundary.runs import Task, TaskResult, TaskVerb
from dislocate.core.boundary.settings import Recovered, Settings
from dislocate.core.boundary.spec import Process
from dislocate.core.boundary.values import Status
from dislocate.core.identity import NodeId, join_address
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.host.checks import run_check
from dislocate.host.instances import end_processes
from dislocate.io.disk import Disk
from dislocate.io.driver import Driver
from dislocate.io.keyring import Keyring
from dislocate.io.outlets import Outlets
from dislocate.io.udp import DatagramSocket
from tests.support.hosted import PATIENCE, Hosted, until


class NoLinks:
    def open(self, *args): ...
    def close(self, *args): ...
    def send(self, *args): ...
    def become(self, *args): ...
    def stop(self): ...


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def web(version: str) -> Process:
    return Process(
        name="web",
        run=(sys.executable, "-m", "dislocate.fleet.service", "{address}", "{port}", version),
        service="shop.web",
        health="/health",
        ready_within=int(PATIENCE * SECOND),
        timeout=int(2 * PATIENCE * SECOND),
        drain_for=100 * MILLISECOND,
        environment={"PYTHONPATH": os.pathsep.join(sys.path)},
    )


def test_the_catalog_of_a_real_node_sees_versions_come_and_go(tmp_path):
    gossip = join_address("127.0.0.1", free_port())
    settings = Settings(node=NodeId("fra", "a1", 1), nonce=1, gossip=gossip, links="127.0.0.1:1")
    driver = Driver(settings=settings, seed="1", recovered=Recovered())

    def seen() -> list[tuple[Status, str]]:
        view = driver.node.catalog.service("shop.web")
        return [(one.status, one.meta["version"]) for one in view.instances] if view else []

    host = Hosted(
        tmp_path / "state",
        ask=lambda request: driver.request(request, PATIENCE),
        instances=lambda service: getattr(driver.node.catalog.service(service), "instances", ()),
    )
    outlets = Outlets(
        datagrams=DatagramSocket(bind=gossip, keyring=Keyring((bytes(32),)), deliver=driver.deliver),
        links=NoLinks(),
        disk=Disk(tmp_path / "disk"),
        run_check=run_check,
        deliver=driver.deliver,
        tasks=host.tasks,
    )
    driver.start(outlets)
    try:
        outlets.verbs[RunTask](RunTask("run/first", Task(TaskVerb.APPLY, web("v1"), "1")))
        outlets.verbs[CancelTask](CancelTask("run/none"))
        assert until(lambda: host.last("run/first")).result is TaskResult.CHANGED
        ((status, first),) = seen()
        assert status is Status.PASSING
        assert host.apply(web("v2"), run="2").result is TaskResult.CHANGED
        ((status, second),) = until(lambda: seen() if len(seen()) == 1 else None)
        assert (status, second != first) == (Status.PASSING, True)
        assert host.revert(web("v1"), run="1").result is TaskResult.CHANGED
        assert seen() == []
    finally:
        driver.stop("the test is over")
        end_processes(tmp_path / "state")
