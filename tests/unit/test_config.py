"""Configuration files: what is read from them, and what is said of those that cannot be meant."""

import pytest

from dislocate.config import load_config
from dislocate.core.errors import ConfigError
from dislocate.core.units import MILLISECOND, SECOND
from dislocate.edge.http.access import Role

SMALL = """
[node]
name = "a1"
datacenter = "fra"
[security]
secret_file = "cluster.secret"
"""


@pytest.fixture
def load(tmp_path):
    def load(text: str):
        path = tmp_path / "dislocate.toml"
        path.write_text(text)
        return load_config(path)

    return load


@pytest.fixture
def complaint(load):
    """What is said of a file: the error."""

    def complaint(text: str) -> ConfigError:
        with pytest.raises(ConfigError) as raised:
            load(text)
        return raised.value

    return complaint


def test_the_smallest_file_has_the_documented_defaults(load, tmp_path):
    config = load(SMALL)
    assert config.path == "fra/a1"
    assert (config.ports.http, config.ports.gossip, config.ports.links, config.ports.dns) == (
        49700,
        49701,
        49702,
        49703,
    )
    assert (config.node.bind, config.node.state_dir) == ("0.0.0.0", "/var/lib/dislocate")
    assert config.security.loopback_role is Role.WRITE
    assert config.instances == ()


def test_relative_paths_are_relative_to_the_file(load, tmp_path):
    config = load(SMALL.replace("[node]", '[node]\nstate_dir = "state"'))
    assert config.security.secret_file == str(tmp_path / "cluster.secret")
    assert config.node.state_dir == str(tmp_path / "state")
    assert config.security.tokens_file == ""


def test_a_full_file_is_read_whole(load):
    config = load("""
        [node]
        name = "a1"
        datacenter = "fra"
        tags = ["ssd"]
        state_dir = "/srv/dislocate"
        bind = "127.0.1.1"
        advertise = "10.0.0.1"
        advertise_wan = "203.0.113.5"
        seeds = ["10.0.0.2:49701", "seed.example.com:49701", "[::1]:49701"]
        [store]
        servers = ["fra/a1", "wdc/b1"]
        [security]
        secret_file = "/etc/dislocate/secret"
        loopback = "read"
        [ports]
        http = 8080
        [[service]]
        name = "db.orders"
        port = 5432
        weight = 3
        tags = ["primary"]
        meta = { version = "1.2" }
        check = { tcp = "127.0.0.1:5432", interval = "1500ms" }
        [[service]]
        name = "db.orders"
        id = "db-2"
        port = 5433
        check = { ttl = "10s" }
    """)
    first, second = config.instances
    assert (first.id, first.service, first.port, first.weight) == ("db.orders", "db.orders", 5432, 3)
    assert (first.check.interval, first.check.timeout) == (1500 * MILLISECOND, 2 * SECOND)
    assert (second.id, second.check.ttl) == ("db-2", 10 * SECOND)


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ('[node]\nnmae = "x"', "node.nmae", "did you mean 'name'"),
        ("[securty]", "securty", "did you mean 'security'"),
        (
            '[[service]]\nname = "web"\nport = 1\ncheck = { intervall = "5s" }',
            "service[0].check.intervall",
            "'interval'",
        ),
        ("[node]\nname = 5", "node.name", "this agent's name"),
        ('[node]\nname = "A1"', "node.name", "a-z 0-9"),
        ('[node]\nname = "service"', "node.name", "not 'service'"),
        ('[node]\nbind = "localhost"', "node.bind", "IP address"),
        ('[node]\nadvertise = "0.0.0.0"', "node.advertise", "one address"),
        ('[node]\nseeds = ["10.0.0.2"]', "node.seeds[0]", "host:port"),
        ('[node]\ntags = "ssd"', "node.tags", "list"),
        ("[ports]\ndns = 0", "ports.dns", "1..65535"),
        ("[ports]\ndns = 49700", "ports", "a port of its own"),
        ("[ports]\ndns = 49701", "ports", "a port of its own"),
        ('[store]\nservers = ["a1"]', "store.servers[0]", "datacenter/name"),
        ('[security]\nloopback = "wirte"', "security.loopback", "did you mean 'write'"),
        ('[[service]]\nname = "web"', "service[0].port", "1..65535"),
        ('[[service]]\nname = "Web"\nport = 1', "service[0].name", "lower-case"),
        ('[[service]]\nname = "web"\nport = 1\ncheck = { ttl = 5 }', "service[0].check.ttl", "duration"),
        ('[[service]]\nname = "web"\nport = 1\ncheck = { ttl = "5" }', "service[0].check.ttl", "duration"),
        ('[[service]]\nname = "web"\nport = 1\ncheck = { interval = "5s" }', "service[0].check", "exactly one"),
        (
            '[[service]]\nname = "web"\nport = 1\n[[service]]\nname = "web"\nport = 2',
            "service[1].id",
            "no other instance",
        ),
    ],
)
def test_a_mistake_is_named_with_its_field_and_its_mend(complaint, change, field, expected):
    head, _, body = change.partition("\n")
    text = SMALL
    if head in SMALL:
        key = body.split(" ")[0]
        kept = [line for line in SMALL.splitlines() if not line.startswith(f"{key} =")]
        text = "\n".join(kept).replace(head, f"{head}\n{body}")
    else:
        text += change
    error = complaint(text)
    assert error.field == field
    assert expected in error.expected


def test_what_is_missing_is_named(complaint):
    assert complaint('[security]\nsecret_file = "x"').field == "node"
    assert complaint('[node]\nname = "a1"').field == "node.datacenter"


def test_a_file_without_a_secret_is_told_how_to_make_one(complaint):
    error = complaint('[node]\nname = "a1"\ndatacenter = "fra"')
    assert error.field == "security.secret_file"
    assert "dislocate keys generate >" in error.expected


def test_bad_toml_is_named_with_its_line(complaint):
    error = complaint('[node]\nname = "a1"\ndatacenter = fra\n')
    assert (error.field, error.got) == ("line 3", "datacenter = fra")
    assert complaint('[node]\nname = "a1').expected.startswith("TOML: ")
    assert complaint("[node]\nname = 'a1'\nname = 'a2'\n").field == "line 3"


def test_a_file_that_is_not_there_is_an_error_of_the_command(tmp_path):
    with pytest.raises(ConfigError) as raised:
        load_config(tmp_path / "no.toml")
    assert raised.value.field == "--config"
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_config(tmp_path / "binary.toml")
