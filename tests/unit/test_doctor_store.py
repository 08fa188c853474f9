"""What the doctor says of the store beside a running agent."""

import pytest

from dislocate.doctor.store import examine_store
from dislocate.findings import Level

LISTED = ("fra/a1", "wdc/b1", "lon/c1")


def server(path, linked=True, trouble=""):
    return {"path": path, "linked": linked, "trouble": trouble}


def store(role="follower", group="a1b2c3d4e5", leader="fra/a1", problem="", servers=None, warning=""):
    servers = [server(path) for path in LISTED] if servers is None else servers
    return {"role": role, "group": group, "leader": leader, "problem": problem, "warning": warning, "servers": servers}


def members(**states):
    found = {
        "fra/a1": "alive",
        "wdc/b1": "alive",
        "lon/c1": "alive",
        **{k.replace("_", "/"): v for k, v in states.items()},
    }
    listed = [(*path.split("/"), state) for path, state in found.items() if state]
    return {"members": [{"datacenter": dc, "name": name, "state": state} for dc, name, state in listed]}


def said(path="wdc/b1", listed=LISTED, known=None, **of_store):
    return list(examine_store(path, listed, store(**of_store), known or members()))


def test_without_a_list_and_a_group_there_is_nothing_to_say():
    assert said(listed=(), group="", servers=[]) == []


def test_a_server_with_all_its_links_is_well():
    found = said()
    assert {one.level for one in found} == {Level.OK}
    assert "a follower of group a1b2c3d4, led by fra/a1" in found[0].found
    assert found[1].found == "to all 2 other servers"


@pytest.mark.parametrize(
    ("words", "mend", "level", "case"),
    [
        ("lon/c1 is named and no member", "start the agent lon/c1", Level.WARN, {"known": members(lon_c1="")}),
        ("lon/c1 is dead", "servers remove lon/c1", Level.WARN, {"known": members(lon_c1="dead")}),
        ("waiting for lon/c1", "same list in every", Level.WARN, {"group": "", "problem": "waiting for lon/c1"}),
        ("the disk failed", "serves nothing", Level.FAIL, {"role": "failed", "problem": "the disk failed"}),
        ("two stores were founded", "as it says", Level.FAIL, {"warning": "x: two stores were founded.  Decide"}),
        (
            "recovered by force more than once",
            "as it says",
            Level.FAIL,
            {"warning": "the store was recovered by force more than once: a and b"},
        ),
        ("disk of fra/a2 is full", "as it says", Level.WARN, {"warning": "the disk of fra/a2 is full"}),
        ("2 of 5", "store status", Level.WARN, {"problem": "2 of 5 servers can be heard"}),
        (
            "no direct link to lon/c1",
            "open the links port",
            Level.WARN,
            {"servers": [server("fra/a1"), server("wdc/b1"), server("lon/c1", False)]},
        ),
        (
            "lon/c1: disk went back",
            "at lon/c1 say",
            Level.WARN,
            {"servers": [server("fra/a1"), server("wdc/b1"), server("lon/c1", trouble="disk went back")]},
        ),
        (
            "lon/c1: wiped",
            "servers add lon/c1",
            Level.WARN,
            {"servers": [server("fra/a1"), server("wdc/b1"), server("lon/c1", trouble="wiped")]},
        ),
        (
            "no link to any of fra/a1",
            "open the links port",
            Level.WARN,
            {"path": "syd/d1", "role": "agent", "servers": [server("fra/a1", False)], "listed": ("fra/a1",)},
        ),
        (
            "the servers of the group are fra/a1, wdc/b1",
            "serves the founding only",
            Level.WARN,
            {"servers": [server("fra/a1"), server("wdc/b1")]},
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_mend(words, mend, level, case):
    wrong = [one for one in said(**case) if one.level is not Level.OK]
    assert [one.level for one in wrong] == [level]
    assert words in wrong[0].found
    assert mend in wrong[0].mend


def test_a_name_that_is_nearly_one_is_asked_about():
    known = members(lon_c1="", lon_c01="alive")
    wrong = [one for one in said(known=known) if one.level is not Level.OK]
    assert "did you mean 'lon/c01'?" in wrong[0].found


def test_an_agent_that_is_no_server_is_well_with_one_link():
    found = said(
        path="syd/d1", role="agent", servers=[server("fra/a1"), server("wdc/b1", False), server("lon/c1", False)]
    )
    assert [one.level for one in found] == [Level.OK]
    assert "this agent is a client of group" in found[0].found
