"""Secrets of a task: wherever a text is cut, nothing of one is left in sight."""

import pytest

from dislocate.host.secrets import Keys, Secrets

KEYS = Keys(marks=b"of the fleet", digests=b"of this host")
TOKEN = "abcdefghijklmnopqrstuvwxyz0123"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\nhkiG9w0BAQEFAASC\n-----END KEY-----\n"


def secrets(**values: str) -> Secrets:
    return Secrets({name: value.encode() for name, value in values.items()}, lambda sealed: sealed, KEYS)


@pytest.mark.parametrize("value", [TOKEN, KEY], ids=["one line", "several lines"])
def test_wherever_a_text_is_cut_nothing_of_a_secret_is_left(value):
    some = secrets(it=value)
    text = f"before\n{value}between\n{value}after\n".encode()
    plain = b"beforebetweenafter"
    for begin in range(len(text)):
        for end in range(begin, len(text)):
            shown = some.hide_part(text[:end], begin)
            left = shown.replace(some.mark("it").encode(), b"").replace(b"\n", b"")
            assert left in plain, (begin, end)


def test_of_secrets_that_overlap_nothing_is_left():
    some = secrets(a="abab", b="bcbc")
    assert some.hide("ababab.") == f"{some.mark('a')}."
    assert some.hide("ababcbc.") == f"{some.mark('a')}."


def test_what_is_hidden_beside_another_is_hidden_too():
    old, new = secrets(it="the old one"), secrets(it="the new one")
    assert new.beside(old).hide("the old one, the new one") == f"{old.mark('it')}, {new.mark('it')}"


def test_a_text_without_secrets_is_left_as_it_is():
    assert secrets().hide_part(b"some words", 5) == b"words"
    assert secrets(it="xyz").hide("an \udcff x") == "an \udcff x"


def test_a_mark_is_the_same_for_the_same_value_and_another_for_whoever_lacks_the_key_of_the_fleet():
    one, same, other = secrets(pin="1234"), secrets(pin="1234"), secrets(pin="1235")
    stranger = Secrets({"pin": b"1234"}, lambda sealed: sealed, Keys(marks=b"a guess", digests=b""))
    assert one.mark("pin") == same.mark("pin")
    assert len({each.mark("pin") for each in (one, other, stranger)}) == 3
