"""Policies of scaling: what may be said, and what a mistake is told."""

import json

import pytest

from dislocate.core.boundary.scaling import (
    BeginScale,
    CommandDriver,
    ProcessDriver,
    ReportScale,
    ScalePolicy,
    WebhookDriver,
)
from dislocate.core.errors import LocalError
from dislocate.core.scale.checking import check_scale_policy, decode_scale_policy
from dislocate.core.scale.records import encode
from dislocate.core.store.validation import check_request
from dislocate.core.units import SECOND
from dislocate.strict import in_words, parse_json, parse_toml

GOOD = ScalePolicy(
    min=2,
    max=20,
    capacity=150.0,
    down_window=90 * SECOND,
    datacenters=("fra", "wdc"),
    driver=ProcessDriver(run=("python", "-m", "shop", "{port}"), targets="tag:web", per_node=4, health="/health"),
)


def test_what_is_written_is_what_is_read():
    assert decode_scale_policy(encode(GOOD), "orders.api") == GOOD
    assert parse_json(json.dumps(in_words(GOOD)).encode(), ScalePolicy) == GOOD


def test_durations_are_words_in_a_file():
    policy = parse_toml('min = 1\ndown_window = "10m"\n[driver]\nkind = "command"\nrun = ["resize"]\n', ScalePolicy)
    assert policy.down_window == 600 * SECOND
    assert policy.driver == CommandDriver(run=("resize",))


@pytest.mark.parametrize(
    ("policy", "field", "expected"),
    [
        (ScalePolicy(min=5, max=3), "min", "at most `max`, which is 3"),
        (ScalePolicy(min=-1), "min", "0..100000"),
        (ScalePolicy(max=0), "max", "1..100000"),
        (ScalePolicy(target_load=0.0), "target_load", "0.05 to 1"),
        (ScalePolicy(target_load=float("nan")), "target_load", "0.05 to 1"),
        (ScalePolicy(capacity=float("inf")), "capacity", "or 0: then it is measured"),
        (ScalePolicy(capacity=-3.0), "capacity", "or 0: then it is measured"),
        (ScalePolicy(up_window=0), "up_window", "1s to 10m"),
        (ScalePolicy(down_window=1), "down_window", "10s to 24h"),
        (ScalePolicy(reversals=-1), "reversals", "0..1000"),
        (ScalePolicy(datacenters=("Fra",)), "datacenters[0]", "a-z"),
        (ScalePolicy(datacenters=("fra", "fra")), "datacenters[1]", "once"),
        (ScalePolicy(driver=CommandDriver(run=())), "driver.run", "a program"),
        (ScalePolicy(driver=CommandDriver(run=("x",), environment={"A-B": ""})), "driver.environment", "a variable"),
        (ScalePolicy(driver=CommandDriver(run=("x",), directory="etc")), "driver.directory", "absolute"),
        (ScalePolicy(driver=WebhookDriver(url="ftp://x/y")), "driver.url", "a URL"),
        (ScalePolicy(driver=WebhookDriver(url="http://a:b@x/y")), "driver.url", "without a password"),
        (
            ScalePolicy(driver=WebhookDriver(url="http://x/", headers={"A": "b\r\nC: d"})),
            "driver.headers.A",
            "one line",
        ),
        (ScalePolicy(driver=ProcessDriver(run=("x",), targets="tga:web")), "driver.targets", "tag"),
        (ScalePolicy(driver=ProcessDriver(run=("x",), per_node=100)), "driver.per_node", "0..64"),
        (ScalePolicy(driver=ProcessDriver(run=("x",), health="health")), "driver.health", "a path"),
        (ScalePolicy(driver=ProcessDriver(run=("x",), per_node=2, ports=(80, 81))), "driver.ports", "at least 3"),
    ],
)
def test_what_cannot_be_meant_is_refused_naming_field_and_mend(policy, field, expected):
    with pytest.raises(LocalError) as caught:
        check_scale_policy(policy, "orders.api")
    assert caught.value.field == field
    assert expected in caught.value.expected


@pytest.mark.parametrize(
    ("text", "field", "expected"),
    [
        ('{"mni": 3}', "mni", "did you mean 'min'?"),
        ('{"driver": {"kind": "comand", "run": ["x"]}}', "driver.kind", "did you mean 'command'?"),
        ('{"driver": {"kind": "command", "rnu": ["x"]}}', "driver.rnu", "did you mean 'run'?"),
        ('{"min": "3"}', "min", "a whole number"),
        ('{"survive": "2dc"}', "survive", "did you mean '1dc'?"),
        ('{"down_window": "5 minutes"}', "down_window", "a duration such as '5s'"),
    ],
)
def test_an_unknown_name_is_answered_by_the_nearest_known_one(text, field, expected):
    with pytest.raises(LocalError) as caught:
        parse_json(text.encode(), ScalePolicy)
    assert caught.value.field == field
    assert expected in caught.value.expected


@pytest.mark.parametrize(
    ("value", "expected"), [(b'{"mni": 3}', "did you mean 'min'?"), (b"\xff", "JSON"), (b'{"min": 9, "max": 3}', "max")]
)
def test_a_value_that_somebody_put_by_hand_is_told_what_is_wrong_with_it(value, expected):
    with pytest.raises(LocalError) as caught:
        decode_scale_policy(value)
    assert expected in caught.value.expected


@pytest.mark.parametrize(
    "request_",
    [
        BeginScale("api", "fra", 0, "fra/a1", 1),
        BeginScale("api", "fra", 1, "wdc/a1", 1),
        BeginScale("Api", "fra", 1, "fra/a1", 1),
        BeginScale("api", "fra", 1, "fra/a1", 1, "nobody"),
        ReportScale("api", "fra", 1, "fra/a1", True, 1, words="x" * 501),
        ReportScale("api", "fra", 1, "fra/a1", True, 1, tries=0),
    ],
)
def test_nodes_may_not_ask_nonsense(request_):
    with pytest.raises(LocalError):
        check_request(request_)
