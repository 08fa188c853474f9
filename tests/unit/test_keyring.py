"""Keyring: only what a holder of the secret sealed gets in, and only once."""

import base64
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dislocate.core.errors import ConfigError
from dislocate.core.tunables import DATAGRAM_BUDGET
from dislocate.io import keyring
from dislocate.io.keyring import (
    DATAGRAM_LIMIT,
    OVERHEAD,
    REPLAY_WINDOW,
    Keyring,
    Rejection,
    generate_secret,
    key_id,
    load_node_keys,
    read_secrets,
)

SECRET = bytes(range(32))
OTHER = bytes(range(1, 33))


def test_what_one_seals_the_other_opens_once():
    ours, theirs = Keyring((SECRET,)), Keyring((SECRET,))
    sealed = theirs.seal(b"ping")
    assert ours.open(sealed) == b"ping"
    assert ours.open(sealed) is None
    assert ours.rejected[Rejection.REPLAYED] == 1


def test_the_largest_datagram_fits_the_smallest_mtu():
    sealed = Keyring((SECRET,)).seal(bytes(DATAGRAM_BUDGET))
    assert len(sealed) == DATAGRAM_BUDGET + OVERHEAD <= DATAGRAM_LIMIT
    assert Keyring((SECRET,)).open(sealed) == bytes(DATAGRAM_BUDGET)


def test_each_reason_to_drop_is_counted_apart():
    ours, theirs = Keyring((SECRET,)), Keyring((SECRET,))
    sealed = theirs.seal(b"x")
    altered = sealed[:-1] + bytes((sealed[-1] ^ 1,))
    for junk in (
        sealed[: OVERHEAD - 1],
        bytes(DATAGRAM_LIMIT + 1),
        b"\x09" + sealed[1:],
        bytes((1, key_id(SECRET) ^ 1)) + sealed[2:],
        altered,
        ours.seal(b"mine"),
    ):
        assert ours.open(junk) is None
    assert ours.rejected == dict.fromkeys(Rejection, 1) | {Rejection.REPLAYED: 0}


def test_datagrams_may_overtake_each_other_within_the_window():
    ours, theirs = Keyring((SECRET,)), Keyring((SECRET,))
    sealed = [theirs.seal(bytes((i % 256,))) for i in range(REPLAY_WINDOW + 1)]
    late, too_late = sealed[1], sealed[0]
    assert ours.open(sealed[-1]) is not None
    assert ours.open(late) is not None
    assert ours.open(too_late) is None
    assert all(ours.open(datagram) is not None for datagram in sealed[2:-1])
    assert not any(ours.open(datagram) for datagram in sealed)


def test_a_far_jump_of_the_counter_forgets_the_old_window_and_nothing_else():
    window = keyring.ReplayWindow()
    window.mark(5)
    window.mark(1 << 63)
    assert not window.is_fresh(5)
    assert not window.is_fresh(1 << 63)
    assert window.is_fresh((1 << 63) - 1)


def test_a_rotated_secret_is_opened_while_both_are_listed():
    old, new = Keyring((SECRET,)), Keyring((OTHER, SECRET))
    assert new.open(old.seal(b"from the old")) == b"from the old"
    assert old.open(new.seal(b"from the new")) is None
    assert old.rejected[Rejection.UNKNOWN_KEY] == 1
    assert Keyring((SECRET, OTHER)).open(new.seal(b"again")) == b"again"


def test_two_processes_never_share_a_salt():
    assert Keyring((SECRET,)).seal(b"")[:18] != Keyring((SECRET,)).seal(b"")[:18]


def test_forged_salts_push_no_sender_out(monkeypatch):
    monkeypatch.setattr(keyring, "SALT_LIMIT", 2)
    ours, theirs = Keyring((SECRET,)), Keyring((SECRET,))
    sealed = theirs.seal(b"x")
    ours.open(sealed)
    for _ in range(10):
        ours.open(sealed[:2] + os.urandom(len(sealed) - 2))
    assert ours.rejected[Rejection.NOT_AUTHENTIC] == 10
    assert ours.open(sealed) is None
    assert ours.rejected[Rejection.REPLAYED] == 1


def test_senders_are_remembered_up_to_a_bound(monkeypatch):
    monkeypatch.setattr(keyring, "SALT_LIMIT", 3)
    ours = Keyring((SECRET,))
    for _ in range(10):
        assert ours.open(Keyring((SECRET,)).seal(b"x")) == b"x"
    assert len(ours._senders) == 3


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=DATAGRAM_LIMIT + 20))
def test_random_bytes_are_never_opened_and_never_raise(junk):
    ours = Keyring((SECRET,))
    assert ours.open(junk) is None
    assert ours.open(bytes((1, key_id(SECRET))) + junk) is None
    assert sum(ours.rejected.values()) == 2


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=DATAGRAM_BUDGET), st.data())
def test_one_changed_bit_anywhere_is_not_authentic(plain, data):
    sealed = bytearray(Keyring((SECRET,)).seal(plain))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    assert Keyring((SECRET,)).open(bytes(sealed)) is None


# ---- files


def write_secrets(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_generated_secret_is_read_back(tmp_path):
    first, second = generate_secret(), generate_secret()
    path = write_secrets(tmp_path / "secret", f"# rotated in May\n{first}\n\n{second}\n")
    assert read_secrets(path) == (base64.b64decode(first), base64.b64decode(second))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "holds no secret"),
        ("hunter2!", "line 1: got 'text that is not base64'"),
        (base64.b64encode(b"short").decode(), "5 bytes"),
        ("sécret", "cannot be read"),
    ],
)
def test_an_unusable_secret_file_names_the_mend_and_shows_no_secret(tmp_path, text, words):
    path = write_secrets(tmp_path / "secret", text)
    with pytest.raises(ConfigError) as caught:
        read_secrets(path)
    assert words in str(caught.value)
    assert "dislocate keys generate" in str(caught.value)
    assert not text or text not in str(caught.value)


def test_a_missing_secret_file_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match="does not exist"):
        read_secrets(tmp_path / "none")


def test_a_secret_that_others_may_read_is_warned_of(tmp_path, caplog):
    read_secrets(write_secrets(tmp_path / "secret", generate_secret(), 0o644))
    assert "chmod 600" in caplog.text


def test_secrets_with_one_key_id_are_refused():
    twins: dict[int, bytes] = {}
    for number in range(300):
        secret = number.to_bytes(32, "big")
        other = twins.setdefault(key_id(secret), secret)
        if other != secret:
            break
    with pytest.raises(ConfigError, match="generate the newest"):
        Keyring((secret, other))


def test_the_node_key_is_made_once_and_private(tmp_path):
    made = load_node_keys(tmp_path / "state")
    path = tmp_path / "state" / "node.key"
    assert len(made.public) == len(made.secret) == 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_node_keys(tmp_path / "state") == made
    assert made.secret.hex() not in repr(made)


def test_a_damaged_node_key_is_reported_and_kept(tmp_path):
    (tmp_path / "node.key").write_text("junk")
    with pytest.raises(ConfigError, match="move it away"):
        load_node_keys(tmp_path)
    assert (tmp_path / "node.key").read_text() == "junk"
