"""Files and bodies are read by one reader: its errors name the field as its author wrote it."""

import pytest
from msgspec import Struct

from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.units import SECOND, Duration
from dislocate.strict import GOT_LIMIT, LISTED, decode, in_words, one_of, parse_toml, typed


class Stop(Struct, frozen=True, forbid_unknown_fields=True):
    pause: Duration
    tags: tuple[str, ...] = ()


class Ride(Struct, frozen=True, forbid_unknown_fields=True, tag_field="by", tag="ride"):
    takes: Duration


class Walk(Struct, frozen=True, forbid_unknown_fields=True, tag_field="by", tag="walk"):
    rests: tuple[Duration, ...] = ()


class Trip(Struct, frozen=True, forbid_unknown_fields=True):
    legs: tuple[Ride | Walk, ...]
    back: Stop | None = None
    ends: Duration | None = None


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    stops: dict[str, Stop]
    last: Duration | None = None


def mistake(text):
    with pytest.raises(ConfigError) as caught:
        parse_toml(text, Route)
    return caught.value


def test_durations_are_words_in_a_file_and_nanoseconds_in_a_struct():
    route = parse_toml("last = '1s'\n[stops.fra]\npause = '5s'", Route)
    assert (route.stops["fra"].pause, route.last) == (5 * SECOND, SECOND)


@pytest.mark.parametrize(
    ("text", "field", "mend"),
    [
        ("[stops.fra]\npause = 5", "stops.fra.pause", "a duration"),
        ("[stops.fra]\npause = '5s'\n[stops.wdc]\npause = '5s'\ntag = []", "stops.wdc.tag", "did you mean 'tags'?"),
        ("[stops.fra]\npause = '5s'\ntags = ['a', 1]", "stops.fra.tags[1]", "text"),
        ("[stops.fra]\n", "stops.fra.pause", "a value: it is missing, add it"),
        ("stops = 3", "stops", "a table (in JSON: an object)"),
        ("[stops.fra]\npause = '5s'\ntags = 'ls'", "stops.fra.tags", "a list, as in ['ls']"),
        ("", "stops", "it is missing, add it"),
    ],
)
def test_a_mistake_in_a_file_is_named_with_its_table(text, field, mend):
    error = mistake(text)
    assert error.field == field
    assert mend in error.expected


def test_the_same_mistake_is_named_alike_in_json():
    with pytest.raises(LocalError) as caught:
        decode(b'{"stops": {"fra": {"pause": 1}, "wdc": {"pause": 1, "tag": []}}}', Route)
    assert caught.value.field == "stops.wdc.tag"
    assert caught.value.expected == "one of pause, tags, did you mean 'tags'?"


def test_a_duration_stands_in_the_member_of_a_union_that_its_tag_names():
    text = (
        "ends = '3s'\nlegs = [{by = 'walk', rests = ['1s', '2s']}, {by = 'ride', takes = '5s'}]\nback = {pause = '7s'}"
    )
    trip = parse_toml(text, Trip)
    assert trip == Trip((Walk((SECOND, 2 * SECOND)), Ride(5 * SECOND)), Stop(7 * SECOND), 3 * SECOND)
    assert typed(in_words(trip), Trip) == trip
    assert in_words(trip)["legs"][0] == {"by": "walk", "rests": ["1s", "2s"]}


@pytest.mark.parametrize(
    ("text", "field", "mend"),
    [
        ("[{by = 'wlak'}]", "legs[0].by", "one of 'ride', 'walk', did you mean 'walk'?"),
        ("[{takes = '5s'}]", "legs[0].by", "one of 'ride', 'walk'"),
        ("[{by = 'walk', rest = []}]", "legs[0].rest", "did you mean 'rests'?"),
        ("[{by = 'ride', takes = 5}]", "legs[0].takes", "a duration"),
        ("[{by = 'walk', rests = ['x']}]", "legs[0].rests[0]", "a duration"),
        ("[5]", "legs[0]", "object"),
    ],
)
def test_a_mistake_in_a_member_of_a_union_is_named_with_what_that_member_knows(text, field, mend):
    with pytest.raises(ConfigError) as caught:
        parse_toml(f"legs = {text}", Trip)
    assert caught.value.field == field
    assert mend in caught.value.expected


def test_a_long_name_is_not_repeated_whole():
    with pytest.raises(LocalError) as caught:
        decode(b'{"stops": {"%s": 1}}' % (b"x" * 10_000), Route)
    assert len(caught.value.field) <= GOT_LIMIT + len("stops.")


def test_of_many_names_some_and_the_nearest_are_told():
    words = one_of("name-9", [f"name-{number}" for number in range(10, 100)])
    assert words.count("name-") == LISTED + 1
    assert ", ..." in words
