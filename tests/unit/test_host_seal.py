"""Sealed values: only the holder of the node's key reads them."""

import pytest

from dislocate.host.seal import OVERHEAD, open_sealed, seal
from dislocate.io.keyring import load_node_keys


@pytest.fixture
def keys(tmp_path):
    return load_node_keys(tmp_path / "a1")


def test_the_key_of_a_nodes_links_opens_what_was_sealed_to_it(keys):
    for value in (b"", b"correct horse", bytes(range(256)) * 200):
        sealed = seal(value, keys.public)
        assert len(sealed) == len(value) + OVERHEAD
        assert open_sealed(sealed, keys.secret) == value


def test_the_same_value_is_sealed_differently_each_time(keys):
    assert seal(b"x", keys.public) != seal(b"x", keys.public)


def test_nobody_else_opens_it_nor_who_has_only_the_public_key(keys, tmp_path):
    sealed = seal(b"correct horse", keys.public)
    other = load_node_keys(tmp_path / "a2")
    for key in (other.secret, keys.public):
        with pytest.raises(ValueError, match="another key"):
            open_sealed(sealed, key)


def test_every_altered_byte_is_noticed(keys):
    sealed = seal(b"correct horse", keys.public)
    for position in range(len(sealed)):
        altered = sealed[:position] + bytes((sealed[position] ^ 1,)) + sealed[position + 1 :]
        with pytest.raises(ValueError, match="sealed"):
            open_sealed(altered, keys.secret)
    with pytest.raises(ValueError, match="no sealed value"):
        open_sealed(sealed[: OVERHEAD - 1], keys.secret)
    with pytest.raises(ValueError, match="sealed"):
        open_sealed(sealed[:-1], keys.secret)


def test_what_is_no_key_is_refused():
    with pytest.raises(ValueError, match="32"):
        seal(b"x", b"short")
