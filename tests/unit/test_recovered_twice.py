"""Two servers that were recovered by force, each without the other: two stores, and nobody takes one for the other."""

import pytest

from dislocate.core.boundary.events import StoreTroubled
from dislocate.core.boundary.requests import Done, Refused
from dislocate.core.boundary.store import AddServer, Consistency, Transacted
from dislocate.core.boundary.values import StoredRecord
from dislocate.core.store.recovery import recover_by_force
from tests.support.tiny_servers import TinyServers, put, read

TWICE = "the store was recovered by force more than once: {} and {} both go on from epoch 0"


def recover(fleet: TinyServers, path: str) -> None:
    """Stopped; and then it is a group by itself."""
    disk = {one.key: one for one in fleet.disk(path)}
    disk |= {one.key: one for one in recover_by_force(path, disk.values()).records}
    fleet.hosts[path].stored[:] = [one for one in disk.values() if one.value is not None]


@pytest.fixture
def two():
    """fra/a1 and fra/a3 were recovered while neither saw the other; fra/a2 is stopped, fra/a4 is no server."""
    fleet = TinyServers(4)
    fleet.found()
    assert isinstance(fleet.ask("fra/a1", put("k", "before")), Transacted)
    fleet.run("2s")
    for path in fleet.servers:
        fleet.kill(path)
    recover(fleet, "fra/a1")
    recover(fleet, "fra/a3")
    fleet.cuts_links = True
    fleet.cut(["fra/a1", "fra/a2", "fra/a4"], ["fra/a3"])
    fleet.begin("fra/a1")
    fleet.begin("fra/a3")
    fleet.run("5s")
    return fleet


def warning(fleet: TinyServers, path: str) -> str:
    return fleet.hosts[path].node.store.warning


def test_neither_gives_out_a_revision_of_the_other(two):
    one, other = (two.ask(path, put("k", path)).revision for path in ("fra/a1", "fra/a3"))
    assert abs(one - other) > 1 << 20


def test_both_name_each_other_and_the_mend_as_soon_as_they_meet(two):
    two.heal()
    two.run("10s")
    for path, other in (("fra/a1", "fra/a3"), ("fra/a3", "fra/a1")):
        assert TWICE.format(path, other) in warning(two, path)
        assert "`dislocate store recover` on it once more" in warning(two, path)
        assert [who for _, who, event in two.events(StoreTroubled) if "more than once" in event.problem].count(
            path
        ) == 1
    assert TWICE.format("fra/a1", "fra/a3") in warning(two, "fra/a4"), "whoever follows one of them is told too"
    views = [two.hosts[path].node.store for path in ("fra/a1", "fra/a3")]
    assert len({view.branch for view in views}) == 2
    assert all(view.role == "leader" for view in views)


def test_no_server_of_the_other_is_added_and_nothing_that_it_acknowledged_is_thrown_away(two):
    assert isinstance(two.ask("fra/a3", put("k", "of a3")), Transacted)
    two.heal()
    two.run("3s")
    refused = two.ask("fra/a1", AddServer("fra/a3"))
    assert isinstance(refused, Refused)
    assert "fra/a3 belongs to another branch of this store" in refused.reason
    two.run("3s")
    assert two.hosts["fra/a3"].node.store.role == "leader"
    assert [kv.value for kv in two.ask("fra/a3", read("k", Consistency.LINEARIZABLE)).keys] == [b"of a3"]


def test_an_agent_that_follows_the_one_listens_to_nothing_of_the_other(two):
    two.ask("fra/a1", put("k", "of a1"))
    two.ask("fra/a3", put("k", "of a3"))
    two.heal()
    two.run("10s")
    assert [kv.value for kv in two.ask("fra/a4", read("k")).keys] == [b"of a1"]


def test_a_third_recovery_of_the_one_to_be_kept_makes_them_one_again(two):
    two.ask("fra/a1", put("k", "of a1"))
    two.heal()
    two.run("5s")
    two.kill("fra/a1")
    recover(two, "fra/a1")
    two.begin("fra/a1")
    two.run("10s")
    assert "recovered by force elsewhere (epoch 2)" in warning(two, "fra/a3")
    assert warning(two, "fra/a1") == warning(two, "fra/a4") == ""
    assert isinstance(two.ask("fra/a1", AddServer("fra/a3")), Done)
    two.run("3s")
    assert two.hosts["fra/a3"].node.store.role == "follower"
    assert [kv.value for kv in two.ask("fra/a3", read("k")).keys] == [b"of a1"]


def test_a_server_that_was_stopped_meanwhile_follows_the_first_one_that_it_hears_of(two):
    two.begin("fra/a2")
    two.run("5s")
    assert "recovered by force elsewhere (epoch 1)" in warning(two, "fra/a2")
    two.heal()
    two.run("10s")
    assert TWICE.format("fra/a1", "fra/a3") in warning(two, "fra/a2")


def test_what_is_told_of_another_branch_ends_when_its_server_is_gone(two):
    two.heal()
    two.run("10s")
    two.kill("fra/a3")
    two.run("30s")
    assert warning(two, "fra/a1") == ""
    two.hosts["fra/a3"].stored[:] = list[StoredRecord]()
    two.begin("fra/a3")
    two.run("10s")
    assert isinstance(two.ask("fra/a1", AddServer("fra/a3")), Done), "a wiped disk belongs to no branch"
