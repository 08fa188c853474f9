"""Slots: what a HAProxy is told so that its servers are the pool, ordinary ones and backups."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from dislocate.client.pool import State, scaled
from dislocate.haproxy.slots import steps
from tests.support.fake_haproxy import FakeProxy, backup, server, slot


def test_an_empty_backend_takes_the_pool_address_before_state():
    told = steps("web", [slot(1), slot(2)], [server(1), server(2, 0.5)])
    assert told.commands == (
        "set server web/s1 addr 10.0.0.1 port 80",
        "set server web/s1 weight 256",
        "set server web/s1 state ready",
        "set server web/s2 addr 10.0.0.2 port 80",
        "set server web/s2 weight 128",
        "set server web/s2 state ready",
    )


def test_a_server_that_drains_keeps_its_slot_and_one_that_is_gone_leaves_it():
    proxy = FakeProxy([slot(1, "10.0.0.1", 80, 256, "ready"), slot(2, "10.0.0.2", 80, 256, "ready")])
    told = steps("web", list(proxy.slots.values()), [server(2, 0.0, State.DRAIN)])
    assert told.commands == ("set server web/s1 state maint", "set server web/s2 state drain")


def test_who_is_out_takes_no_slot_and_where_slots_are_few_the_busiest_have_them():
    told = steps("web", [slot(1)], [server(1, 0.2), server(2), server(3, 0.0, State.DOWN)])
    assert "addr 10.0.0.2" in told.commands[0]
    assert [each.address for each in told.unplaced] == ["10.0.0.1"]


def test_a_slot_that_was_left_long_ago_is_taken_before_one_just_left():
    told = steps("web", [slot(1, since=2), slot(2, since=900)], [server(1)])
    assert told.commands[0].startswith("set server web/s2 addr")


def test_a_host_name_is_told_and_not_placed():
    named = replace(server(1), address="mx.example.com")
    told = steps("web", [slot(1)], [named])
    assert (told.commands, told.nameless) == ((), (named,))


def test_a_spare_goes_to_a_backup_with_all_its_weight_and_gets_nothing_while_others_are_in():
    proxy = FakeProxy([slot(1), backup(1)])
    told = steps("web", list(proxy.slots.values()), [server(1), server(2, 0.0)])
    assert told.commands[3:] == (
        "set server web/b1 addr 10.0.0.2 port 80",
        "set server web/b1 weight 256",
        "set server web/b1 state ready",
    )
    proxy.obey(told.commands)
    assert proxy.serving == {"10.0.0.1": 256}
    proxy.slots["s1"] = replace(proxy.slots["s1"], state="down")  # by HAProxy's own checks
    assert proxy.serving == {"10.0.0.2": 256}


def test_whose_part_comes_or_goes_is_in_at_its_new_place_before_it_leaves_the_old():
    there = [slot(1, "10.0.0.1", 80, 256, "ready"), slot(2), backup(1, "10.0.0.2", 80, 256, "ready"), backup(2)]
    told = steps("web", there, [server(1, 0.0), server(2)])
    assert told.commands == (
        "set server web/s2 addr 10.0.0.2 port 80",
        "set server web/s2 weight 256",
        "set server web/s2 state ready",
        "set server web/b2 addr 10.0.0.1 port 80",
        "set server web/b2 weight 256",
        "set server web/b2 state ready",
        "set server web/s1 state maint",
        "set server web/b1 state maint",
    )


def test_a_spare_that_drains_stays_where_it_is():
    told = steps("web", [slot(1), backup(1, "10.0.0.1", 80, 256, "ready")], [server(1, 0.0, State.DRAIN)])
    assert told.commands == ("set server web/b1 state drain",)


def test_a_slot_that_an_instance_left_is_no_place_where_it_is():
    there = [slot(1, "10.0.0.1", 80, 256, "maint"), backup(1, "10.0.0.1", 80, 256, "ready")]
    assert steps("web", there, [server(1, 0.0, State.DRAIN)]).commands == ("set server web/b1 state drain",)
    assert steps("web", there, [server(1, 0.0), server(2)]).commands[0] == "set server web/s1 addr 10.0.0.2 port 80"


def test_who_finds_no_slot_of_its_kind_keeps_the_one_it_has_until_another_with_a_part_needs_it():
    full = [slot(1, "10.0.0.1", 80, 256, "ready"), backup(1, "10.0.0.2", 80, 256, "ready")]
    told = steps("web", full, [server(1, 0.0), server(2, 0.0)])
    assert (told.commands, [each.address for each in told.unplaced]) == (("set server web/s1 weight 0",), ["10.0.0.1"])
    told = steps("web", full, [server(1, 0.0), server(2, 0.0), server(3)])
    assert told.commands[:2] == ("set server web/s1 state maint", "set server web/s1 addr 10.0.0.3 port 80")


def test_two_that_change_places_where_there_is_no_other_do_so_with_the_one_that_has_a_part_first():
    full = [slot(1, "10.0.0.1", 80, 256, "ready"), backup(1, "10.0.0.2", 80, 256, "ready")]
    told = steps("web", full, [server(1, 0.0), server(2)])
    proxy = FakeProxy(full)
    proxy.obey(told.commands)
    assert (proxy.serving, proxy.ready) == ({"10.0.0.2": 256}, {"10.0.0.1": 256, "10.0.0.2": 256})
    assert "addr 10.0.0.2" in told.commands[1]


def test_without_backups_a_spare_waits_among_the_others_and_that_is_said():
    told = steps("web", [slot(1), slot(2)], [server(1), server(2, 0.0)])
    assert told.commands[3:] == (
        "set server web/s2 addr 10.0.0.2 port 80",
        "set server web/s2 weight 0",
        "set server web/s2 state ready",
    )
    assert told.are_spares_idle
    assert not steps("web", [slot(1), slot(2)], [server(1)]).are_spares_idle
    assert not steps("web", [slot(1), backup(1)], [server(1), server(2, 0.0)]).are_spares_idle


SERVERS = st.lists(
    st.builds(
        server,
        st.integers(1, 6),
        st.sampled_from([0.0, 0.001, 0.5, 1.0]),
        st.sampled_from(list(State)),
    ),
    max_size=6,
    unique_by=lambda each: each.key,
)


@given(st.lists(SERVERS, min_size=1, max_size=6), st.integers(1, 6))
def test_told_twice_nothing_is_said_and_who_is_ready_is_in_with_its_weight(pools, size):
    proxy = FakeProxy([slot(at) for at in range(size)])
    for wanted in pools:
        told = steps("web", list(proxy.slots.values()), wanted)
        proxy.obey(told.commands)
        assert steps("web", list(proxy.slots.values()), wanted).commands == ()
        missing = {each.address for each in told.unplaced}
        expected = {
            each.address: scaled(each.weight, 256)
            for each in wanted
            if each.state is State.READY and each.address not in missing
        }
        assert proxy.ready == expected


@given(st.lists(SERVERS, min_size=1, max_size=6), st.integers(1, 6), st.integers(1, 6))
def test_with_backups_told_twice_nothing_is_said_and_those_with_a_part_serve(pools, size, backups):
    proxy = FakeProxy([*(slot(at) for at in range(size)), *(backup(at) for at in range(backups))])
    for wanted in pools:
        told = steps("web", list(proxy.slots.values()), wanted)
        proxy.obey(told.commands)
        assert steps("web", list(proxy.slots.values()), wanted).commands == ()
        in_ = [each.address for each in proxy.slots.values() if each.state != "maint"]
        assert len(in_) == len(set(in_))  # nobody twice
        missing = {each.address for each in told.unplaced}
        parts = {each.address: scaled(each.weight, 256) for each in wanted if each.weight and each.state is State.READY}
        placed = {address: weight for address, weight in parts.items() if address not in missing}
        if placed:
            assert proxy.serving == placed
        if not parts:
            spares = {each.address for each in wanted if each.is_spare}
            assert proxy.serving.keys() <= spares
            assert bool(proxy.serving) == bool(spares)


@given(st.lists(SERVERS, min_size=2, max_size=6))
def test_where_slots_suffice_who_is_ready_before_and_after_is_never_nowhere(pools):
    proxy = FakeProxy([*(slot(at) for at in range(6)), *(backup(at) for at in range(6))])
    for wanted in pools:
        stay = proxy.ready.keys() & {each.address for each in wanted if each.state is State.READY}
        told = steps("web", list(proxy.slots.values()), wanted)
        assert told.unplaced == ()
        for command in told.commands:
            proxy.obey([command])
            assert stay <= proxy.ready.keys(), command
