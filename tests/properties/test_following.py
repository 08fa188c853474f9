"""Whatever is lost on the way to an agent that follows, it shows what the store had at one revision, and never goes back."""

from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.boundary.store import Compacted, Delete, KeyChange, Put
from dislocate.core.store.machine import StoreMachine
from dislocate.core.units import SECOND
from tests.support.followed import AGENT, Scene, Server

PREFIXES = ("a/", "b/", "system/")
KEYS = tuple(f"{prefix}{name}" for prefix in PREFIXES for name in "xyz")
VALUES = {"one": b"1", "two": b"2", "large": bytes(40_000)}  # two large ones do not fit in one part

_server = st.sampled_from(("fra/a1", "wdc/a1"))
_operation = st.one_of(
    st.builds(lambda key, value: Put(key, VALUES[value]), st.sampled_from(KEYS), st.sampled_from(tuple(VALUES))),
    st.builds(Delete, st.sampled_from(KEYS)),
    st.builds(Delete, st.sampled_from(PREFIXES), st.just(True)),
)
deeds = st.lists(
    st.one_of(
        st.tuples(st.just("apply"), st.lists(_operation, min_size=1, max_size=3, unique_by=lambda one: one.key)),
        st.tuples(st.just("apply"), st.lists(_operation, min_size=1, max_size=3, unique_by=lambda one: one.key)),
        st.tuples(st.just("catch up"), _server),
        st.tuples(st.just("catch up"), _server),
        st.tuples(st.just("work"), st.integers(1, 12)),
        st.tuples(st.just("work"), st.integers(1, 12)),
        st.tuples(st.just("work"), st.integers(1, 12)),
        st.tuples(st.just("work"), st.integers(1, 12)),
        st.tuples(st.just("tick"), st.none()),
        st.tuples(st.just("lose"), st.integers(0, 5)),
        st.tuples(st.just("repeat"), st.integers(0, 5)),
        st.tuples(st.just("break"), _server),
        st.tuples(st.just("restart"), st.none()),
        st.tuples(st.just("forget changes"), _server),
    ),
    min_size=20,
    max_size=150,
)


class Watched:
    """A scene whose whole history is known."""

    def __init__(self) -> None:
        self.scene = Scene("fra/a1", "wdc/a1").join()
        for key in ("a/x", "b/x"):
            self.scene.agent.want(key, self.scene.now)
        self.log: list[tuple] = []
        self.truth = StoreMachine()
        self.states: dict[int, dict[str, bytes]] = {0: {}}
        self.history: list[KeyChange] = []
        self.seen: dict[str, int] = {}  # revisions shown since the last restart

    def do(self, deed: str, argument) -> None:
        scene = self.scene
        if deed == "apply":
            self.apply(tuple(argument))
        elif deed == "catch up":
            server = scene.servers[argument]
            for operations in self.log[server.store.index :]:
                server.apply(*operations)
        elif deed == "work":
            self.work(argument)
        elif deed == "lose" and scene.to_agent:
            del scene.to_agent[argument % len(scene.to_agent)]
        elif deed == "repeat" and scene.to_agent:
            scene.to_agent.append(scene.to_agent[argument % len(scene.to_agent)])
        elif deed == "tick":
            self.tick()
        elif deed == "break":
            scene.to_agent = [one for one in scene.to_agent if one[0] != argument]
            scene.to_server = [one for one in scene.to_server if one[0] != argument]
            scene.servers[argument].followers.lost(AGENT)
            scene.agent.lost(argument, scene.now)
        elif deed == "restart":
            scene.restart(after=SECOND)
            self.seen.clear()
            scene.join()
        elif deed == "forget changes":
            scene.servers[argument].store.forget_changes(0)
        self.look()

    def work(self, messages: int) -> None:
        """Some messages arrive, in their order."""
        scene = self.scene
        for _ in range(messages):
            scene.collect()
            if scene.to_server:
                scene.hand_to_server()
            elif scene.to_agent:
                scene.hand_to_agent()
            self.look()

    def apply(self, operations) -> None:
        server = Server("truth")
        server.store = self.truth
        applied_before = self.truth.revision
        server.apply(*operations)
        self.log.append(operations)
        keys, _ = self.truth.read("", prefix=True)
        self.states[self.truth.revision] = {kv.key: kv.value for kv in keys}
        changes = self.truth.changes_after("", True, applied_before)
        assert not isinstance(changes, Compacted)
        self.history += changes

    def tick(self) -> None:
        scene = self.scene
        scene.now += SECOND
        scene.unix += SECOND
        scene.agent.tick(scene.now)
        for server in scene.servers.values():
            scene.to_agent += [(server.path, body) for _, body in server.followers.tick(scene.now, server.age)]
        scene.save()

    def look(self) -> None:
        scene = self.scene
        for prefix in PREFIXES:
            read = scene.agent.read(prefix, True, scene.now)
            if read is None:
                continue
            state = {key: value for key, value in self.states[read.revision].items() if key.startswith(prefix)}
            assert {kv.key: kv.value for kv in read.keys} == state
            assert read.revision >= self.seen.get(prefix, 0)
            self.seen[prefix] = read.revision
            for since in (0, read.revision // 2, max(0, read.revision - 1)):
                changes = scene.agent.changes_after(prefix, True, since, scene.now)
                if not isinstance(changes, Compacted):
                    wanted = [one for one in self.history if one.key.startswith(prefix)]
                    assert list(changes) == [one for one in wanted if since < one.revision <= read.revision]


@given(deeds=deeds)
def test_a_prefix_shows_one_revision_whole_and_never_goes_back_and_watchers_miss_nothing(deeds):
    watched = Watched()
    for deed, argument in deeds:
        watched.do(deed, argument)


@given(deeds=deeds)
def test_in_the_end_it_shows_what_the_store_has(deeds):
    watched = Watched()
    for deed, argument in deeds:
        watched.do(deed, argument)
    scene = watched.scene
    for path in scene.servers:
        watched.do("catch up", path)
    for key in ("a/x", "b/x"):
        scene.agent.want(key, scene.now)
    scene.tick(12)
    for prefix in PREFIXES:
        read = scene.agent.read(prefix, True, scene.now)
        assert read is not None
        assert read.revision == watched.truth.revision
        assert scene.now - read.as_of <= SECOND
    watched.look()
