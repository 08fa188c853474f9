"""Log lines: what an operator reads, and what a program parses."""

import json
import logging

import msgspec
import pytest

from dislocate.cli.logs import JsonLines, PlainLines
from dislocate.core.boundary import events
from dislocate.core.boundary.runs import TaskOutcome, TaskResult
from dislocate.core.boundary.values import Refusal, Status
from dislocate.core.identity import NodeId
from dislocate.core.units import SECOND
from dislocate.edge.eventlog import describe, event_fields, log_events
from tests.support.fake_dns_backend import FakeBackend

A2 = NodeId("fra", "a2", 7)

EXAMPLES = [
    (events.MemberJoined(A2, "10.0.0.2:49701"), "member fra/a2 alive, at 10.0.0.2:49701, boot 7"),
    (events.MemberSuspected(A2, ("fra/a1",)), "member fra/a2 suspect, accused by fra/a1"),
    (events.MemberRefuted(A2), "member fra/a2 alive, it answered a suspicion"),
    (
        events.MemberDied(A2, True, ("fra/a1", "fra/a3", "fra/a4")),
        "member fra/a2 dead, its host refused fra/a1, fra/a3 and fra/a4",
    ),
    (events.MemberDied(A2, False, ("fra/a1", "fra/a3")), "member fra/a2 dead, it was silent to fra/a1 and fra/a3"),
    (events.MemberLeft(A2), "member fra/a2 left"),
    (events.MemberRestarting(A2, 30 * SECOND), "member fra/a2 restarting, back within 30s"),
    (events.MemberForgotten(A2, "asked to"), "member fra/a2 forgotten: asked to"),
    (
        events.CloneDetected(A2, "10.0.0.2:1", "10.0.0.9:1"),
        "member fra/a2 cloned: 10.0.0.2:1 keeps the name, rename or stop 10.0.0.9:1",
    ),
    (events.BrakeChanged("fra", True, "3 of 5 at once"), "brake fra engaged: 3 of 5 at once"),
    (events.DatacenterChanged("wdc", False, 8.31, "silent"), "datacenter wdc unreachable, phi 8.3: silent"),
    (events.ServiceChanged("web", 4), "service web changed, index 4"),
    (
        events.InstanceChanged("fra/a2", "web-1", "web", Status.CRITICAL, Status.PASSING, "HTTP 500"),
        "instance fra/a2/web-1 critical, of web, was passing: HTTP 500",
    ),
    (
        events.InstanceChanged("fra/a2", "web-1", "web", None, None, ""),
        "instance fra/a2/web-1 gone, of web",
    ),
    (events.InputDropped("10.0.0.9:1", "no envelope"), "input from 10.0.0.9:1 dropped: no envelope"),
    (events.RelayChanged(True), "relay yes"),
    (events.SendRefused("10.0.0.9:1", Refusal.REFUSED), "send to 10.0.0.9:1 failed: refused"),
    (events.GroupJoined("9f" * 16, 1), f"store group {'9f' * 16}, epoch 1"),
    (events.LeaderElected(3), "store leader this agent, in term 3"),
    (events.LeaderDeposed(4, "wdc/b1 leads"), "store leader no more this agent, since term 4: wdc/b1 leads"),
    (events.EntriesApplied(44, 3, 255, 41), "store applied 44, revision 41, digest 00000000000000ff"),
    (
        events.ServersChanged(44, ("fra/a1@d15c", "wdc/b1@d15c"), ("lon/c1@d15c",)),
        "servers fra/a1@d15c and wdc/b1@d15c, learning lon/c1@d15c, from log index 44",
    ),
    (events.StoreTroubled("no majority: missing wdc/b1"), "store troubled: no majority: missing wdc/b1"),
    (events.StoreTroubled(""), "store well again"),
    (events.RunMoved("7", 3, "running", "paused", "1 node failed"), "run 7 paused, was running: 1 node failed"),
    (events.RunMoved("7", 1, "", "running", ""), "run 7 running"),
    (events.NodeMoved("7", "fra/a2", "granted", "started", 1, ""), "run 7 fra/a2 started, was granted"),
    (events.TaskBegun("7", 2, "revert"), "run 7 revert begins here, epoch 2"),
    (events.TaskEnded("7", 1, "apply", "failed", "exit code 1"), "run 7 apply ended here, failed: exit code 1"),
    (events.Drifted("7", "file /etc/motd", "it is another", False), "run 7 drifted, file /etc/motd: it is another"),
    (events.Drifted("7", "file /etc/motd", "as it was", True), "run 7 mended, file /etc/motd: as it was"),
    (
        events.VisitTold(3, "fra/a2", 0, TaskOutcome(TaskResult.OUTPUT, output=b"hello"), False),
        "visit fra/a2 wrote 5 bytes, task 1 of request 3",
    ),
    (
        events.VisitTold(3, "fra/a2", 1, TaskOutcome(TaskResult.CHANGED), True),
        "visit fra/a2 changed, task 2 of request 3",
    ),
    (
        events.ScaleDecided("orders.api", "fra", 4, 6, 9, "630 req/s offered"),
        "scale orders.api in fra to 9, was 6: 630 req/s offered",
    ),
    (events.FlowsChanged("orders.api", 4), "flows orders.api changed, epoch 4"),
]


@pytest.mark.parametrize(("event", "line"), EXAMPLES)
def test_an_event_is_one_line_for_people_and_an_object_for_programs(event, line):
    assert describe(event) == line
    assert (
        json.loads(msgspec.json.encode(event_fields(event)))["event"].replace("_", "") == type(event).__name__.lower()
    )


def test_no_event_is_without_its_line():
    assert {type(event) for event, _ in EXAMPLES} == set(events.Event.__args__)


def test_events_are_logged_as_they_happen_and_the_frequent_ones_only_for_debugging(caplog):
    backend = FakeBackend()
    end = log_events(backend)
    with caplog.at_level(logging.INFO, "dislocate.events"):
        backend.tell(events.MemberLeft(A2))
        backend.runs("web", "10.0.0.1")
    assert [record.getMessage() for record in caplog.records] == ["member fra/a2 left"]
    end()
    assert backend.listeners == []


def test_the_agent_that_has_to_be_renamed_says_so_as_an_error(caplog):
    backend = FakeBackend()
    log_events(backend)
    backend.tell(events.CloneDetected(NodeId("fra", "a1", 3), "10.0.0.9:49701", "10.0.0.1:49701"))
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("ERROR", "node.name: fra/a1 is taken by 10.0.0.9:49701: rename this agent or stop the other")
    ]


def record(text: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("dislocate.test", logging.WARNING, "", 0, text, (), None)
    made.__dict__.update(extra)
    return made


def test_a_record_is_one_line_whatever_is_in_it():
    assert PlainLines().format(record("a\nforged line")).endswith("WARNING a\\nforged line")
    assert "\n" not in JsonLines().format(record("a\nb"))


def test_a_json_record_carries_the_fields_of_its_event():
    fields = json.loads(JsonLines().format(record("x", event=events.MemberDied(A2, True, ("fra/a1",)))))
    assert (fields["event"], fields["member"], fields["refused"]) == ("member_died", "fra/a2", True)
    assert (fields["level"], fields["logger"], fields["text"]) == ("warning", "dislocate.test", "x")
