"""Answers, their age and order, indexes and watches."""

from dislocate.core.boundary.events import InstanceChanged, ServiceChanged
from dislocate.core.boundary.requests import Changed, Deregister, Heartbeat, Register, Watch
from dislocate.core.boundary.values import MemberState, Status
from dislocate.core.catalog.watches import matches, patterns_of
from dislocate.core.units import SECOND
from tests.support.catalog_host import TTL, Host, spec

S = Status


def fleet(*services):
    """fra/a1, which asks, and fra/a2, wdc/b1, which host one instance of each service."""
    a1, a2, b1 = Host("a1"), Host("a2"), Host("b1", "wdc")
    for other in (a2, b1):
        a1.sees(other)
        for service in services or ("shop.web",):
            other.ask(Register(spec(service, service)))
        a1.hear(other.take_said())
    return a1, a2, b1


# ---- answers


def test_a_name_never_known_is_not_an_empty_service():
    a1 = Host()
    assert a1.catalog.service("shop.web") is None
    a1.ask(Register(spec()))
    a1.ask(Deregister("web-1"))
    assert a1.catalog.service("shop.web").instances == ()
    assert a1.catalog.names() == ()


def test_names_are_sorted_and_listed_by_prefix():
    a1, _, _ = fleet("db.orders", "db.users", "dba", "web")
    assert a1.catalog.names() == ("db.orders", "db.users", "dba", "web")
    assert a1.catalog.names("db.") == ("db.orders", "db.users")
    assert a1.catalog.names("zz") == ()


def test_the_best_comes_first_and_the_suspected_after_the_unattended():
    hosts = {name: Host(name, services=(spec(),)) for name in ("a2", "a3", "a4", "a5")}
    a1 = Host("a1", services=(spec(),))
    for host in hosts.values():
        a1.sees(host)
        a1.hear(host.take_said())
    a1.sees(hosts["a2"], MemberState.DEAD)
    a1.sees(hosts["a3"], MemberState.SUSPECT)
    a1.sees(hosts["a4"], MemberState.DEAD, refused=True)
    view = a1.catalog.service("shop.web")
    assert [(one.node, one.status, one.suspected) for one in view.instances] == [
        ("fra/a1", S.PASSING, False),
        ("fra/a5", S.PASSING, False),
        ("fra/a4", S.UNATTENDED, False),
        ("fra/a3", S.PASSING, True),
        ("fra/a2", S.CRITICAL, False),
    ]


def test_each_answer_says_how_old_it_is_and_whether_its_datacenter_is_reachable():
    a1, a2, _ = fleet()
    a1.ask(Register(spec()))
    a1.run(40 * SECOND)
    now = a1.out.now
    current, cut = {"fra": now - SECOND, "wdc": now - 9 * SECOND}, {"wdc"}
    a1.catalog.as_of = current.__getitem__
    a1.catalog.is_reachable = lambda datacenter: datacenter not in cut

    def ages():
        instances = a1.catalog.service("shop.web").instances
        return {one.node: ((now - one.as_of) // SECOND, one.reachable) for one in instances}

    assert ages() == {"fra/a1": (0, True), "fra/a2": (1, True), "wdc/b1": (9, False)}
    a1.sees(a2, MemberState.DEAD)
    assert ages()["fra/a2"] == (40, True)


def test_an_answer_is_reused_but_never_looks_fresher_than_it_is():
    a1, _, _ = fleet()
    first = a1.catalog.service("shop.web")
    a1.run(SECOND // 20)
    assert a1.catalog.service("shop.web") is first
    a1.run(SECOND)
    later = a1.catalog.service("shop.web")
    assert (later.index, later.instances[0].as_of) == (first.index, a1.out.now)


def test_a_cut_changes_the_answers_of_services_there_and_of_no_other():
    a1, a2, _ = fleet("shop.web")
    a2.ask(Register(spec("db", "db")))
    a1.hear(a2.take_said())
    cut = []
    a1.catalog.is_reachable = lambda datacenter: datacenter not in cut
    before = {name: a1.catalog.service(name).index for name in a1.catalog.names()}
    cut.append("wdc")
    a1.catalog.wan_changed("wdc")
    a1.settle()
    assert a1.catalog.service("db").index == before["db"]
    assert a1.catalog.service("shop.web").index > before["shop.web"]
    assert [one.reachable for one in a1.catalog.service("shop.web").instances] == [True, False]


def test_changes_are_told_with_status_and_cause():
    a1 = Host(services=(spec(check=TTL),))
    a1.events.clear()
    a1.ask(Heartbeat("web-1", S.WARNING, "slow\nvery"))
    index = a1.catalog.service("shop.web").index
    assert a1.events == [
        InstanceChanged("fra/a1", "web-1", "shop.web", S.WARNING, S.STARTING, "slow"),
        ServiceChanged("shop.web", index),
    ]
    assert a1.catalog.history.of("fra/a1/web-1")[-1].what == "starting -> warning"
    assert a1.catalog.history.of("shop.web")[-1].why == "slow"


# ---- indexes and watches


def test_churn_in_one_service_never_wakes_the_watcher_of_another():
    a1, a2, _ = fleet("a", "b")
    index = a1.catalog.service("a").index
    assert a1.ask(Watch(("a",), index)) is None
    for port in range(1, 50):
        a2.ask(Register(spec("b", "b", port=port)))
        a1.hear(a2.take_said())
    assert Changed(("a",), index) not in a1.replies.values()
    assert a1.catalog.service("a").index == index
    waiting = a1._request_id
    a2.ask(Register(spec("a", "a", port=9)))
    a1.hear(a2.take_said())
    assert a1.replies[waiting] == Changed(("a",), a1.catalog.service("a").index)


def test_a_watch_that_missed_something_is_answered_at_once():
    a1, _, _ = fleet("db.orders", "db.users", "web")
    answer = a1.ask(Watch(("db.*",), 0))
    assert answer == Changed(("db.orders", "db.users"), a1.catalog.service("db.users").index)
    orders, users = (a1.catalog.service(name).index for name in ("db.orders", "db.users"))
    assert a1.ask(Watch(("db.*", "nothing"), min(orders, users))).services == ("db.users",)
    assert a1.ask(Watch(("*",), a1.catalog.service("web").index)) is None


def test_a_watch_of_nothing_waits_for_the_first_instance():
    a1 = Host()
    assert a1.ask(Watch(("shop.*",), 0)) is None
    a1.ask(Register(spec()))
    assert a1.replies[1].services == ("shop.web",)


def test_a_cancelled_watch_is_never_answered():
    a1 = Host()
    a1.ask(Watch(("shop.*", "shop.web", "*"), 0))
    a1.catalog.request_cancelled(1)
    a1.ask(Register(spec()))
    assert 1 not in a1.replies


def test_an_index_of_another_agent_is_answered_rather_than_waited_for():
    a1, _, _ = fleet()
    assert a1.ask(Watch(("shop.web",), 1 << 60)).services == ("shop.web",)


def test_indexes_grow_over_a_restart():
    a1 = Host()
    a1.ask(Register(spec()))
    index = a1.catalog.service("shop.web").index
    again = a1.restarted()
    assert again.catalog.service("shop.web").index > index
    assert again.ask(Watch(("shop.web",), index)).services == ("shop.web",)


def test_patterns_that_mean_nothing_are_refused():
    a1 = Host()
    for patterns in ((), ("db*",), ("",), ("x",) * 65):
        assert a1.ask(Watch(patterns, 0)).kind == "invalid"


def test_a_pattern_covers_what_stands_in_the_list_of_patterns():
    assert patterns_of("a.b.c") == ["a.b.c", "a.b.*", "a.*", "*"]
    assert all(matches(pattern, "a.b.c") for pattern in patterns_of("a.b.c"))
    assert not matches("a.*", "a")
    assert not matches("a.*", "ab.c")
