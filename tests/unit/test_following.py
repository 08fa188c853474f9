"""Agents that are no servers hold the prefixes that they use, whole and with their age."""

import pytest

from dislocate.core.boundary.store import Compacted, Delete, KeyChange, KeyValue, Put
from dislocate.core.consensus.messages import GroupId
from dislocate.core.store.followers import PARTS_AT_ONCE, cut_changes, cut_keys
from dislocate.core.store.following import ALWAYS, NEARER_FOR, PREFIXES_HELD, UNUSED, followed_prefix
from dislocate.core.store.messages import Follow, FollowedChanges, FollowedState, Unfollow
from dislocate.core.units import MINUTE, SECOND
from tests.support.followed import AGENT, GROUP, Scene


def following(*keys: str, servers=("fra/a1",), **values: str) -> Scene:
    """An agent that follows the directories of `keys` of a store that has `values`."""
    scene = Scene(*servers).join()
    if values:
        scene.put(**values)
    for key in keys:
        assert scene.agent.want(key, scene.now)
    scene.deliver()
    return scene


# ---- what is held


def test_system_is_followed_by_everybody_from_the_start():
    scene = following(system_name="x")
    assert scene.values("system/") == {"system/name": "x"}


def test_a_key_makes_its_directory_followed():
    assert followed_prefix("policy/shop.web") == "policy/"
    assert followed_prefix("a/b/c") == "a/b/"
    assert followed_prefix("alone") == "alone"
    scene = following("policy/shop.web", policy_a="1", policy_b="2", other_c="3")
    assert scene.values("policy/") == {"policy/a": "1", "policy/b": "2"}


def test_what_is_not_followed_is_not_answered():
    scene = following("policy/x", policy_a="1")
    assert scene.agent.read("other/c", False, scene.now) is None
    assert scene.agent.read("", True, scene.now) is None
    assert not scene.agent.want("", scene.now)


def test_nothing_is_answered_before_all_of_it_is_there():
    scene = Scene().join()
    scene.put(policy_a="1")
    scene.agent.want("policy/a", scene.now)
    assert scene.agent.read("policy/a", False, scene.now) is None


def test_changes_arrive_with_the_revision_of_the_store():
    scene = following("policy/x", policy_a="1")
    scene.put(policy_a="2")
    scene.apply(Put("policy/b", b"3"))
    scene.apply(Delete("policy/a"))
    scene.deliver()
    assert scene.values("policy/") == {"policy/b": "3"}
    assert scene.agent.read("policy/b", False, scene.now).revision == scene.servers["fra/a1"].store.revision


def test_changes_elsewhere_move_the_revision_with_the_next_second():
    scene = following("policy/x", policy_a="1")
    scene.put(other_a="1")
    scene.deliver()
    scene.tick()
    assert scene.agent.read("policy/a", False, scene.now).revision == 2


def test_reads_come_in_pages():
    scene = following("p/x", p_a="1", p_b="2", p_c="3")
    page = scene.agent.read("p/", True, scene.now, limit=2)
    assert [kv.key for kv in page.keys] == ["p/a", "p/b"]
    assert page.more
    rest = scene.agent.read("p/", True, scene.now, limit=2, after="p/b")
    assert [kv.key for kv in rest.keys] == ["p/c"]
    assert not rest.more


def test_a_large_prefix_comes_in_parts_at_a_pace():
    scene = Scene().join()
    scene.deliver()
    for at in range(30):
        scene.apply(*(Put(f"big/{at:02}-{n}", bytes(20_000)) for n in range(3)))
    scene.agent.want("big/x", scene.now)
    scene.collect()
    while scene.to_server:
        scene.hand_to_server()
    server = scene.servers["fra/a1"]
    first = server.followers.take(scene.now, 0)
    assert len(first) == PARTS_AT_ONCE
    assert server.followers.has_more
    scene.to_agent += [(server.path, body) for _, body in first]
    scene.deliver()
    assert len(scene.values("big/")) == 90


def test_what_happens_while_a_state_is_sent_comes_after_it():
    scene = Scene().join()
    scene.deliver()
    scene.apply(*(Put(f"big/{n:02}", bytes(40_000)) for n in range(12)))
    scene.apply(*(Put(f"big/{n:02}", bytes(40_000)) for n in range(12, 24)))
    scene.agent.want("big/x", scene.now)
    scene.collect()
    while scene.to_server:
        scene.hand_to_server()
    scene.collect()
    scene.apply(Put("big/00", b"new"), Delete("big/01"))
    scene.deliver()
    values = scene.values("big/")
    assert values["big/00"] == "new"
    assert "big/01" not in values
    assert len(values) == 23


# ---- age


def test_ages_of_the_sender_and_of_the_way_add_up():
    scene = following("p/x", p_a="1")
    now = scene.now + 10 * SECOND
    revision = scene.agent.read("p/a", False, scene.now).revision
    scene.agent.changes("fra/a1", FollowedChanges("p/", revision, revision, (), 3 * SECOND), now, SECOND)
    assert scene.agent.read("p/a", False, now).as_of == now - 4 * SECOND


def test_a_later_message_never_makes_it_look_older():
    scene = following("p/x", p_a="1")
    revision = scene.agent.read("p/a", False, scene.now).revision
    before = scene.agent.read("p/a", False, scene.now).as_of
    scene.agent.changes("fra/a1", FollowedChanges("p/", revision, revision, (), 60 * SECOND), scene.now)
    assert scene.agent.read("p/a", False, scene.now).as_of == before


def test_a_cut_off_server_says_how_old_it_is():
    scene = following("p/x", p_a="1")
    scene.servers["fra/a1"].age = 7 * SECOND
    scene.tick(9)
    assert scene.now - scene.agent.read("p/a", False, scene.now).as_of == 7 * SECOND


# ---- gaps and other servers


def test_a_lost_message_is_a_gap_and_asked_for_anew():
    scene = following("p/x", p_a="1")
    scene.put(p_a="2")
    scene.collect()
    scene.to_agent.clear()
    scene.put(p_b="3")
    scene.deliver()
    assert scene.values("p/") == {"p/a": "2", "p/b": "3"}


def test_a_message_that_comes_twice_changes_nothing():
    scene = following("p/x", p_a="1")
    scene.put(p_a="2")
    scene.collect()
    scene.to_agent *= 2
    scene.deliver()
    assert scene.values("p/") == {"p/a": "2"}


def test_the_next_server_goes_on_from_what_is_held_when_one_is_lost():
    scene = following("p/x", p_a="1", servers=("fra/a1", "wdc/a1"))
    assert scene.agent.server == "fra/a1"
    scene.agent.lost("fra/a1", scene.now)
    messages, _ = scene.agent.take()
    assert ("wdc/a1", Follow(GROUP, "p/", 1)) in messages
    scene.to_server += messages
    scene.put(p_a="2")
    scene.deliver()
    assert scene.values("p/") == {"p/a": "2"}


def test_a_silent_server_is_left_and_a_nearer_one_come_back_to():
    scene = following("p/x", p_a="1", servers=("fra/a1", "wdc/a1"))
    scene.tick(7, "fra/a1")
    assert scene.agent.server == "wdc/a1"
    scene.tick(2 * NEARER_FOR // SECOND + 5)
    assert scene.agent.server == "fra/a1"
    scene.put(p_a="2")
    scene.deliver()
    assert scene.values("p/") == {"p/a": "2"}


def test_a_server_that_is_left_is_told_to_stop():
    scene = following("p/x", p_a="1", servers=("fra/a1", "wdc/a1"))
    scene.tick(7, "fra/a1")
    assert len(scene.servers["fra/a1"].followers) == 0


def test_a_server_behind_what_is_held_waits_until_it_has_it():
    scene = following("p/x", p_a="1", servers=("fra/a1", "wdc/a1"))
    for value in "234":
        scene.servers["fra/a1"].put(p_a=value)
    scene.deliver()
    scene.agent.lost("fra/a1", scene.now)
    scene.tick(2)
    assert scene.values("p/") == {"p/a": "4"}
    for value in "2345":
        scene.servers["wdc/a1"].put(p_a=value)
    scene.deliver()
    assert scene.values("p/") == {"p/a": "5"}


def test_who_is_too_far_behind_gets_everything_and_its_watchers_are_told():
    scene = following("p/x", p_a="1")
    server = scene.servers["fra/a1"]
    server.followers.lost(AGENT)
    scene.put(p_a="2")
    scene.put(p_b="3")
    server.store.forget_changes(0)
    scene.agent.lost("fra/a1", scene.now)
    scene.tick()
    assert scene.values("p/") == {"p/a": "2", "p/b": "3"}
    assert scene.agent.changes_after("p/", True, 1, scene.now) == Compacted(3)


def test_a_higher_epoch_makes_everything_asked_for_anew_and_answers_meanwhile():
    scene = following("p/x", p_a="1")
    higher = GroupId(GROUP.uuid, 1)
    scene.agent.joined(higher, scene.now)
    messages, _ = scene.agent.take()
    assert ("fra/a1", Follow(higher, "p/", 0)) in messages
    assert scene.values("p/") == {"p/a": "1"}


# ---- watching here


def test_local_watchers_hear_of_changes_and_of_what_is_forgotten():
    scene = following("p/x", p_a="1")
    scene.changed.clear()
    scene.put(p_a="2")
    scene.put(p_b="3")
    scene.deliver()
    assert scene.changed == ["p/", "p/"] or scene.changed == ["p/"]
    changes = scene.agent.changes_after("p/a", False, 1, scene.now)
    assert [(change.key, change.now.value) for change in changes] == [("p/a", b"2")]
    assert scene.agent.changes_after("p/", True, 0, scene.now) == Compacted(1)
    assert scene.agent.changes_after("q/", True, 0, scene.now) is None


# ---- room


def test_a_prefix_that_nobody_reads_is_let_go_and_system_and_policy_never():
    scene = following("p/x", p_a="1", system_a="2")
    scene.tick(UNUSED // SECOND + 1)
    assert scene.agent.prefixes == ALWAYS
    assert scene.values("p/") is None
    assert [key for key in scene.disk if key.startswith(("follow/p/p/", "follow/k/0002/"))] == []
    assert len(scene.servers["fra/a1"].followers) == 1


def test_reading_keeps_a_prefix():
    scene = following("p/x", p_a="1")
    for _ in range(3):
        scene.tick(UNUSED // SECOND - 60)
        assert scene.values("p/") == {"p/a": "1"}


def test_beyond_64_prefixes_nothing_more_is_followed():
    scene = following()
    assert all(scene.agent.want(f"p{n}/x", scene.now) for n in range(PREFIXES_HELD - len(ALWAYS)))
    assert not scene.agent.want("one/more", scene.now)


def test_a_prefix_that_does_not_fit_is_let_go_and_not_tried_again_for_a_while(monkeypatch):
    monkeypatch.setattr("dislocate.core.store.following.BYTES_HELD", 100_000)
    scene = Scene().join()
    scene.apply(*(Put(f"big/{n}", bytes(40_000)) for n in range(4)))
    scene.put(p_a="1")
    scene.agent.want("p/a", scene.now)
    scene.agent.want("big/0", scene.now)
    scene.deliver()
    assert scene.agent.prefixes == (*ALWAYS, "p/")
    assert not scene.agent.want("big/0", scene.now)
    assert scene.agent.want("big/0", scene.now + 10 * MINUTE)


def test_a_follower_that_asks_for_too_much_is_refused():
    scene = following()
    followers = scene.servers["fra/a1"].followers
    assert all(followers.follow("x/y", Follow(GROUP, f"p{n}/", 0)) for n in range(PREFIXES_HELD))
    assert not followers.follow("x/y", Follow(GROUP, "more/", 0))


def test_a_lost_follower_is_forgotten():
    scene = following("p/x", p_a="1")
    followers = scene.servers["fra/a1"].followers
    followers.lost(AGENT)
    scene.put(p_a="2")
    assert followers.take(scene.now, 0) == ()
    assert followers.tick(scene.now, 0) == ()
    followers.unfollow(AGENT, Unfollow("p/"))


# ---- the disk


def test_a_restarted_agent_answers_at_once_with_the_age_of_what_it_says():
    scene = following("p/x", p_a="1", system_b="2")
    scene.tick(3)
    as_of = scene.agent.read("p/a", False, scene.now).as_of
    scene.put(p_a="2")
    scene.deliver()
    scene.tick()
    scene.restart(after=30 * SECOND)
    assert scene.values("p/") == {"p/a": "2"}
    assert 30 * SECOND <= scene.now - scene.agent.read("p/a", False, scene.now).as_of <= 32 * SECOND
    assert as_of > 0


def test_a_restarted_agent_asks_for_what_changed_meanwhile():
    scene = following("p/x", p_a="1")
    scene.tick()
    scene.restart(after=SECOND)
    scene.put(p_a="2")
    scene.join()
    messages, _ = scene.agent.take()
    assert ("fra/a1", Follow(GROUP, "p/", 1)) in messages
    scene.to_server += messages
    scene.deliver()
    assert scene.values("p/") == {"p/a": "2"}


def test_the_disk_is_written_for_changes_and_seldom_otherwise():
    scene = following("p/x", p_a="1")
    scene.tick()
    assert scene.agent.records(scene.now, scene.unix) == ()
    scene.put(p_a="2")
    scene.deliver()
    keys = [record.key for record in scene.agent.records(scene.now, scene.unix)]
    assert keys == ["follow/k/0002/p/a", "follow/p/p/"]
    scene.tick(59)
    assert scene.agent.records(scene.now, scene.unix) == ()


def test_deleted_keys_are_deleted_on_disk_also_when_everything_came_anew():
    scene = following("p/x", p_a="1", p_b="2")
    scene.tick()
    server = scene.servers["fra/a1"]
    server.followers.lost(AGENT)
    scene.apply(Delete("p/a"))
    server.store.forget_changes(0)
    scene.agent.lost("fra/a1", scene.now)
    scene.tick()
    assert [key for key in scene.disk if key.startswith("follow/k/0002/")] == ["follow/k/0002/p/b"]


@pytest.mark.parametrize("damaged", ["follow/p/p/", "follow/k/0002/p/a"])
def test_what_cannot_be_read_is_let_go(damaged):
    scene = following("p/x", p_a="1", system_b="2")
    scene.tick()
    scene.disk[damaged] = b"\xc1"
    scene.restart(after=SECOND)
    scene.save()
    assert damaged not in scene.disk
    assert scene.values("system/") == {"system/b": "2"}


# ---- cutting


def test_parts_are_small_and_whole():
    keys = [KeyValue(f"k{n:03}", bytes(9_000), 1, 1, 1) for n in range(20)] + [KeyValue("z", bytes(200_000), 1, 1, 1)]
    parts = list(cut_keys(keys))
    assert [kv for part in parts for kv in part] == keys
    assert all(sum(len(kv.value) for kv in part) <= 48 * 1024 or len(part) == 1 for part in parts)
    assert list(cut_keys(())) == [()]


def test_no_revision_is_cut_in_two():
    changes = tuple(
        KeyChange(f"k{n}", revision, KeyValue(f"k{n}", bytes(30_000), 1, revision, 1))
        for revision in (5, 6, 7)
        for n in range(3)
    )
    parts = list(cut_changes("k", 4, 9, changes, 0))
    assert [(part.since, part.revision) for part in parts] == [(4, 5), (5, 6), (6, 9)]
    assert tuple(change for part in parts for change in part.changes) == changes


def test_a_state_that_began_elsewhere_is_asked_for_anew():
    scene = following("p/x", p_a="1")
    scene.now += 2 * SECOND
    scene.agent.state("fra/a1", FollowedState("p/", 9, (), False, True, 0), scene.now)
    messages, _ = scene.agent.take()
    assert messages == (("fra/a1", Follow(GROUP, "p/", 1)),)
