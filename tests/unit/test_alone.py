"""Who found nobody, or hears strangers, is told what to do."""

import msgspec
import pytest

from dislocate.core.units import SECOND
from dislocate.edge.alone import warnings
from tests.support.fake_dns_backend import FakeBackend

MEND = "run `dislocate doctor --config FILE`; the secret may differ"


@pytest.fixture
def backend():
    backend = FakeBackend()
    backend.node.counters = {}
    backend.node.settings = msgspec.structs.replace(backend.node.settings, seeds=("10.0.0.1:49701", "10.0.0.2:49701"))
    return backend


def test_who_has_seeds_and_found_nobody_is_told_what_to_do(backend):
    assert warnings(backend, 10 * SECOND + 3, 0) == [f"no seed has answered for 10s: {MEND}"]


def test_who_found_somebody_or_has_no_seed_but_itself_is_told_nothing(backend):
    backend.knows_member("fra/a2", "10.0.0.2")
    assert not warnings(backend, 10 * SECOND, 0)
    alone = FakeBackend()
    alone.node.settings = msgspec.structs.replace(alone.node.settings, seeds=("10.0.0.1:49701",))
    assert not warnings(alone, 10 * SECOND, 0)


def test_whose_name_is_taken_by_its_seed_is_not_told_that_the_seed_is_silent(backend):
    backend.node.counters["clones"] = 1
    assert not warnings(backend, 10 * SECOND, 0)


def test_who_hears_strangers_is_told_once_for_each_look(backend):
    backend.knows_member("fra/a2", "10.0.0.2")
    (warning,) = warnings(backend, 70 * SECOND, 3)
    assert warning.startswith("3 datagrams were under another secret")
