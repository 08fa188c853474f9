"""Keys of the store: set once, by compare-and-set, against a store of the test."""

import pytest

from dislocate.core.boundary.requests import Refused
from dislocate.core.boundary.runs import TaskResult
from dislocate.core.boundary.spec import Key
from dislocate.core.boundary.store import Delete, KeysRead, KeyValue, Put, ReadKeys, Transact, Transacted, Uncertain
from tests.support.hosted import Hosted

COLOR = Key(key="config/color", value="blue")


class OneKeyStore:
    """Holds keys; `before_write` happens in the moment between somebody's reading and writing."""

    def __init__(self) -> None:
        self.keys: dict[str, KeyValue] = {}
        self.revision = 1
        self.writes = 0
        self.before_write: list = []
        self.answer_lost = False

    def put(self, key: str, value: bytes) -> None:
        self.revision += 1
        self.keys[key] = KeyValue(key, value, self.revision, self.revision, 1)

    def ask(self, request):
        match request:
            case ReadKeys(key=key):
                return KeysRead((self.keys[key],) if key in self.keys else (), self.revision)
            case Transact(compares=(compare,), then=(operation,)):
                if self.before_write:
                    self.before_write.pop()()
                there = self.keys.get(compare.key)
                if (there.modified if there else 0) != compare.number:
                    return Transacted(False, self.revision, ())
                self.writes += 1
                match operation:
                    case Put(key=key, value=value):
                        self.put(key, value)
                    case Delete(key=key):
                        del self.keys[key]
                if self.answer_lost:
                    self.answer_lost = False
                    return Uncertain("the leader is gone")
                return Transacted(True, self.revision, ((),))
        raise AssertionError(request)


@pytest.fixture
def store():
    return OneKeyStore()


@pytest.fixture
def host(tmp_path, store):
    hosted = Hosted(tmp_path / "state", ask=lambda request: store.ask(request))
    yield hosted
    hosted.stop()


def test_a_key_is_set_as_predicted_and_then_left_alone(host, store):
    looked = host.look(COLOR)
    assert (looked.result, looked.before) == (TaskResult.WOULD_CHANGE, "absent")
    assert looked.diff == "--- /dev/null\n+++ config/color\n@@ -0,0 +1 @@\n+blue\n\\ no newline at the end\n"
    assert store.keys == {}
    applied = host.apply(COLOR)
    assert (applied.before, applied.after) == (looked.before, looked.after)
    assert store.keys["config/color"].value == b"blue"
    assert host.apply(COLOR).result is TaskResult.SAME
    assert store.writes == 1


def test_somebody_who_is_faster_with_the_same_value_makes_it_the_same(host, store):
    store.before_write.append(lambda: store.put("config/color", b"blue"))
    assert host.apply(COLOR).result is TaskResult.SAME
    assert store.writes == 0


def test_somebody_who_is_faster_with_another_value_is_what_a_revert_returns_to(host, store):
    store.put("config/color", b"red")
    store.before_write.append(lambda: store.put("config/color", b"green"))
    assert host.apply(COLOR).result is TaskResult.CHANGED
    assert host.revert(COLOR).result is TaskResult.CHANGED
    assert store.keys["config/color"].value == b"green"


def test_an_answer_that_is_lost_counts_as_a_change(host, store):
    store.answer_lost = True
    assert host.apply(COLOR).result is TaskResult.CHANGED
    assert store.writes == 1


def test_a_revert_removes_what_was_not_there(host, store):
    host.apply(COLOR)
    assert host.revert(COLOR).after == "absent"
    assert store.keys == {}
    assert host.revert(COLOR).result is TaskResult.SAME


def test_a_revert_leaves_what_was_changed_again(host, store):
    host.apply(COLOR)
    store.put("config/color", b"green")
    outcome = host.revert(COLOR)
    assert outcome.result is TaskResult.LEFT
    assert store.keys["config/color"].value == b"green"


def test_a_store_that_refuses_or_does_not_answer_is_a_failure_in_words(tmp_path):
    def silent(request):
        raise TimeoutError

    host = Hosted(
        tmp_path / "a", ask=lambda request: Refused("unavailable", "", "there is no leader; see servers list")
    )
    assert host.apply(COLOR).words == "the store: there is no leader; see servers list"
    host.stop()
    host = Hosted(tmp_path / "b", ask=silent)
    assert "did not answer in time" in host.apply(COLOR).words
    host.stop()
