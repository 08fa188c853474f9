"""A specification that cannot be meant is refused with the place, what stood there and the mend."""

import pytest
from msgspec.structs import replace

from dislocate.core.boundary.spec import (
    Command,
    Directory,
    File,
    Freeze,
    Gate,
    Key,
    Package,
    Process,
    RunSpec,
    Service,
    Strategy,
)
from dislocate.core.errors import LocalError
from dislocate.core.runs.resources import resource_id
from dislocate.core.runs.spec import check_spec, ordered
from dislocate.core.tunables import SPEC_BYTES
from dislocate.core.units import HOUR

MOTD = File(path="/etc/motd", content="hello")
GUARDED = Command(run=("make", "install"), creates="/usr/local/bin/x")


def spec(*resources, **fields):
    return RunSpec(**{"name": "web", "targets": "dc:fra", "resources": resources or (MOTD,), **fields})


def mistake(*resources, **fields):
    with pytest.raises(LocalError) as caught:
        check_spec(spec(*resources, **fields))
    return caught.value


def test_a_whole_specification_passes():
    site = File(path="/etc/nginx/site", id="site", notify=("nginx",), validate=("nginx", "-t", "-c", "{path}"))
    unit = Service(unit="nginx", id="nginx", drain="shop.web")
    server = Process(name="web", run=("serve", "{port}"), service="shop.web", ports=(8080, 8081), health="/health")
    check_spec(
        spec(
            unit,
            site,
            server,
            GUARDED,
            Package(name="nginx"),
            Package(name="gunicorn", version="22.0.0", venv="/srv/venv"),
            Key(key="web/version", value="7"),
            Directory(path="/srv/web", owner="www-data:www-data"),
            strategy=Strategy(waves=("fra", "wdc"), floor={"shop.web": 0.5}, max_failed="10%", approvals=1),
            gates=(Gate(service="shop.web", utilization=0.8),),
            freezes=(Freeze(days=("fri",), begin="22:00", end="06:00"),),
        )
    )


def test_resources_are_named_by_what_they_are_about():
    assert [resource_id(each) for each in (MOTD, GUARDED, Key(key="a/b", value=""), File(path="/x", id="mine"))] == [
        "file /etc/motd",
        "command make install",
        "key a/b",
        "mine",
    ]


def test_the_order_is_what_was_written_save_what_requires_and_what_is_notified():
    last = File(path="/last", require=("file /first",))
    first = File(path="/first", notify=("service web",))
    web = Service(unit="web")
    other = File(path="/other")
    assert [resource_id(each) for each in ordered(spec(web, last, first, other))] == [
        "file /first",
        "file /last",
        "file /other",
        "service web",
    ]


def test_a_cycle_is_named_as_a_path():
    one = File(path="/1", require=("file /3",))
    two = File(path="/2", require=("file /1",))
    three = File(path="/3", require=("file /2",))
    error = mistake(File(path="/0", require=("file /1",)), one, two, three)
    assert error.got == "file /1 -> file /2 -> file /3 -> file /1"
    assert "no cycle" in error.expected
    assert mistake(File(path="/1", require=("file /1",))).got == "file /1 -> file /1"
    notifies = File(path="/1", notify=("file /2",), require=("file /2",))
    assert "file /1 -> file /2 -> file /1" in mistake(notifies, File(path="/2")).got


def test_an_unknown_id_is_answered_by_the_nearest():
    error = mistake(MOTD, File(path="/x", require=("file /etc/modt",)))
    assert (error.field, error.got) == ("resources[1].require[0]", "file /etc/modt")
    assert "did you mean 'file /etc/motd'?" in error.expected


def test_one_thing_is_said_once():
    assert mistake(MOTD, MOTD).field == "resources[1].id"
    twice = mistake(MOTD, File(path="/etc/motd", id="other"))
    assert (twice.field, twice.got) == ("resources[1].path", "/etc/motd")
    assert "resources[0] is about" in twice.expected
    one, two = File(path="{{ facts.state_dir }}/x", id="one"), File(path="{{facts.state_dir}}/x", id="two")
    assert mistake(one, two).field == "resources[1].path"
    flask = Package(name="flask", version="3.0", venv="/srv/a", id="one")
    assert mistake(flask, replace(flask, version="3.1", id="two")).field == "resources[1].name"
    check_spec(RunSpec(name="web", targets="*", resources=(flask, replace(flask, venv="/srv/b", id="two"))))


def test_what_is_only_notified_comes_last_and_must_be_notified():
    assert "notify = ['service web']" in mistake(Service(unit="web")).expected
    leans = File(path="/y", require=("service web",), notify=("service web",))
    assert mistake(Service(unit="web"), leans).field == "resources[1].require"
    handler = Command(id="h", run=("true",), only_notified=True, notify=("file /etc/motd",))
    assert mistake(MOTD, File(path="/y", notify=("h",)), handler).field == "resources[2].notify"


@pytest.mark.parametrize(
    ("resource", "field", "mend"),
    [
        (File(path="etc/motd"), "path", "an absolute path"),
        (File(path="/etc/../motd"), "path", "without '..'"),
        (File(path="/etc//motd"), "path", "an absolute path"),
        (File(path="/etc/motd/"), "path", "an absolute path"),
        (File(path="/a", mode="rw"), "mode", "'0644'"),
        (File(path="/a", mode="0999"), "mode", "'0644'"),
        (File(path="/a", owner="a:b:c"), "owner", "'user:group'"),
        (File(path="/a", source="a.txt"), "source", "'content'"),
        (File(path="/a", validate=("true",)), "validate", "{path}"),
        (File(path="/a", timeout=0), "timeout", "above 0"),
        (File(path="/a", timeout=25 * HOUR), "timeout", "at most 24h"),
        (File(path="/a", id="two\nlines"), "id", "one line"),
        (Directory(path="x"), "path", "an absolute path"),
        (Command(run=()), "run", "a program"),
        (Command(run=("",), once=True), "run", "a program"),
        (Command(run=("true",)), "", "exactly one of"),
        (Command(run=("true",), once=True, creates="/x"), "", "exactly one of"),
        (Command(run=("true",), creates="x"), "creates", "an absolute path"),
        (Command(run=("true",), once=True, environment={"A B": "x"}), "environment.A B", "a name such as"),
        (Command(run=("true", "\0"), once=True), "run[1]", "without a zero byte"),
        (Service(unit="web; rm"), "unit", "systemd"),
        (Process(name="Web", run=("x",)), "name", "a-z"),
        (Process(name="web", run=("x",), count=0), "count", "1..64"),
        (Process(name="web", run=("x",), ports=(80, 80)), "ports[1]", "each once"),
        (Process(name="web", run=("x",), ports=(80,)), "ports", "at least 2"),
        (Process(name="web", run=("x",), health="health"), "health", "'/health'"),
        (Process(name="web", run=("x",), service="Shop"), "service", "lower-case"),
        (Package(name="a b"), "name", "one package"),
        (Package(name="a", version="1 2"), "version", "one version"),
        (Package(name="a", venv="venv"), "venv", "an absolute path"),
        (Key(key="/a", value=""), "key", "a key of 1 to"),
        (Key(key="system/a", value=""), "key", "not below system/ or records/"),
    ],
)
def test_a_resource_that_cannot_be_meant_is_refused(resource, field, mend):
    error = mistake(resource)
    assert error.field == ("resources[0]" + (f".{field}" if field else ""))
    assert mend in error.expected


def test_what_runs_somewhere_may_run_in_a_place_of_the_node_and_nothing_else_may_be_one():
    place = "{{ facts.state_dir }}"
    check_spec(
        spec(Command(run=("true",), once=True, directory=place), Process(name="web", run=("x",), directory=place))
    )
    for resource in (File(path=place), Directory(path=place), Command(run=("true",), creates=place)):
        assert mistake(resource).expected.endswith("or one below '{{ facts.state_dir }}'")
    for bad in (f"{place}/", f"{place}x", f"{place}/../x", f"/{place}/..", "x"):
        error = mistake(Command(run=("true",), once=True, directory=bad))
        assert (error.field, error.got) == ("resources[0].directory", bad)
        assert error.expected.endswith("or '{{ facts.state_dir }}' or one below it")


def test_what_a_path_was_is_repeated_as_it_was_written():
    assert mistake(File(path="{{ facts.state_dir }}/")).got == "{{ facts.state_dir }}/"


@pytest.mark.parametrize(
    ("fields", "field", "mend"),
    [
        ({"name": ""}, "name", "such as 'web'"),
        ({"name": "a/b"}, "name", "such as 'web'"),
        ({"name": "17"}, "name", "not only digits, which are the number of a run"),
        ({"targets": "dcc:fra"}, "targets", "did you mean 'dc'?"),
        ({"resources": ()}, "resources", "1 to 200"),
        ({"strategy": Strategy(canary="x%")}, "strategy.canary", "such as '25%'"),
        ({"strategy": Strategy(batch=0)}, "strategy.batch", "at least 1 node"),
        ({"strategy": Strategy(batch="0%")}, "strategy.batch", "at least 1 node"),
        ({"strategy": Strategy(max_failed=-1)}, "strategy.max_failed", "at least 0"),
        ({"strategy": Strategy(waves=("fra", "fra"))}, "strategy.waves[1]", "each data center once"),
        ({"strategy": Strategy(waves=("FRA",))}, "strategy.waves[0]", "a-z"),
        ({"strategy": Strategy(parallel=0)}, "strategy.parallel", "1..100"),
        ({"strategy": Strategy(floor={"shop.web": 1.5})}, "strategy.floor.shop.web", "0.0 to 1.0"),
        ({"strategy": Strategy(floor={"shop.web": float("nan")})}, "strategy.floor.shop.web", "0.0 to 1.0"),
        ({"strategy": Strategy(approvals=-1)}, "strategy.approvals", "0..10"),
        ({"strategy": Strategy(node_within=0)}, "strategy.node_within", "above 0"),
        ({"gates": (Gate(service="shop.web", passing=2.0),)}, "gates[0].passing", "0.0 to 1.0"),
        ({"gates": (Gate(service="shop.web", passing=0.0),)}, "gates[0]", "judges nothing"),
        ({"gates": (Gate(service="shop.web", utilization=float("inf")),)}, "gates[0].utilization", "0.8"),
        ({"gates": (Gate(service="shop.web", errors=1.5),)}, "gates[0].errors", "0.0 to 1.0"),
        ({"gates": (Gate(service="shop.web", p99=-1),)}, "gates[0].p99", "a duration"),
        ({"gates": (Gate(service="shop.web", errors=0.1, control=0.5),)}, "gates[0].control", "1 or more"),
        ({"gates": (Gate(service="shop.web", control=2.0),)}, "gates[0].control", "'errors' or 'p99' beside it"),
        ({"freezes": (Freeze(days=("friday",), begin="22:00", end="23:00"),)}, "freezes[0].days[0]", "mon, tue"),
        ({"freezes": (Freeze(begin="24:00", end="06:00"),)}, "freezes[0].begin", "'22:00'"),
        ({"freezes": (Freeze(begin="06:00", end="06:00"),)}, "freezes[0].end", "another time"),
        ({"confirm": -1}, "confirm", "0..5000"),
    ],
)
def test_how_it_is_rolled_out_is_checked_too(fields, field, mend):
    error = mistake(**fields)
    assert error.field == field
    assert mend in error.expected


def test_what_does_not_fit_in_the_store_is_refused():
    assert "split it" in mistake(File(path="/a", content="x" * SPEC_BYTES)).expected
