"""The documentation says what the code does: links resolve, configurations parse, tables name what there is."""

import json
import re
from pathlib import Path
from typing import get_args

import pytest
from msgspec.structs import FieldInfo, fields

from dislocate.cli.main import COMMANDS
from dislocate.config import (
    Config,
    NodeTable,
    PortsTable,
    SecurityTable,
    ServiceTable,
    StoreTable,
    parse_config,
)
from dislocate.core.balance.policies import check_policy
from dislocate.core.boundary.balance import Policy
from dislocate.core.boundary.runs import Hold, RunState, Verb
from dislocate.core.boundary.scaling import ProcessDriver, ScalePolicy
from dislocate.core.boundary.spec import Freeze, Gate, Resource, ResourceBase, Strategy
from dislocate.core.scale.checking import check_scale_policy
from dislocate.edge.bodies import CheckBody
from dislocate.edge.flow_answers import policy_in_words
from dislocate.edge.http.access import load_tokens
from dislocate.edge.http.app import all_operations
from dislocate.run_files import parse_spec, read_spec
from dislocate.strict import parse_toml
from sim.claims import BUDGET_CLAIMS, EVENT_CLAIMS, VIEW_CLAIMS
from sim.invariants import INVARIANTS
from sim.run import simulate
from sim.scenario import (
    UNDO,
    VERBS,
    Datacenter,
    Expect,
    Fault,
    LinkOverride,
    PlannedScale,
    Scenario,
    Service,
    parse_scenario,
    read_scenario,
)
from sim.traffic.claims import REQUEST_CLAIMS
from sim.workload.plan import Workload

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`]+)`")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)

CONFIG_HEAD = '[node]\nname = "a1"\ndatacenter = "fra"\n[security]\nsecret_file = "secret"\n'
SCENARIO_HEAD = 'title = "t"\nwhy = "w"\nduration = "60s"\n[datacenters.fra]\nnodes = 3\n'


def links(page: Path) -> list[str]:
    prose = _FENCE.sub("", page.read_text())
    return [link for link in _LINK.findall(prose) if "://" not in link]


def anchors(page: Path) -> list[str]:
    """As GitHub makes them of headings."""
    headings = _HEADING.findall(_FENCE.sub("", page.read_text()))
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def fences(language: str) -> list[tuple[str, str, str]]:
    """(page, marks, text) of every fenced block in `language`."""
    found = []
    for page in PAGES:
        for info, text in _FENCE.findall(page.read_text()):
            first, _, marks = info.partition(" ")
            if first == language:
                found.append((page.name, marks, text))
    return found


def rows(page: str, heading: str, table: int = 0) -> list[list[str]]:
    """The cells of the nth table under `heading`, without its head."""
    text = "\n" + (DOCS / page).read_text()
    assert f"\n{heading}\n" in text, f"{page} has no {heading!r}"
    section = text.split(f"\n{heading}\n", 1)[1]
    level = heading.partition(" ")[0]
    section = re.split(rf"^#{{1,{len(level)}}} ", section, maxsplit=1, flags=re.MULTILINE)[0]
    tables = re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE)
    lines = [line for line in tables[table].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def named(page: str, heading: str, table: int = 0) -> list[str]:
    """The first cells, without backticks."""
    return [row[0].strip("`*") for row in rows(page, heading, table)]


def test_there_are_pages():
    assert len(PAGES) >= 16


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_every_relative_link_resolves(page):
    for link in links(page):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}, which has no such heading"


def test_every_page_is_on_the_map():
    linked = {link.partition("#")[0] for link in links(DOCS / "index.md")}
    assert {page.name for page in PAGES} - linked == {"index.md"}


@pytest.mark.parametrize(("page", "marks", "text"), fences("toml"), ids=lambda value: str(value)[:30])
def test_every_toml_block_is_accepted_by_what_reads_it(page, marks, text, tmp_path):
    match marks.split():
        case ["config"]:
            parse_config(text)
        case ["config", "part"]:
            parse_config(CONFIG_HEAD + text)
        case ["scenario"]:
            parse_scenario(text)
        case ["scenario", "part"]:
            parse_scenario(SCENARIO_HEAD + text)
        case ["run"]:
            parse_spec(text, ".toml", tmp_path)
        case ["policy"]:
            check_policy(parse_toml(text, Policy))
        case ["scale"]:
            check_scale_policy(parse_toml(text, ScalePolicy))
        case ["tokens"]:
            (tmp_path / "tokens.toml").write_text(text)
            assert load_tokens(str(tmp_path / "tokens.toml"))
        case _:
            pytest.fail(
                f"{page}: mark the block 'config', 'scenario', 'run', 'policy', 'scale' or 'tokens', or a 'part' of one"
            )


def test_the_configuration_of_the_readme_is_accepted():
    for info, text in _FENCE.findall((ROOT / "README.md").read_text()):
        if info == "toml" and "[node]" in text:
            parse_config(text)


def default_in_words(field: FieldInfo) -> str:
    """The default of `field` as the tables of the configuration page begin to spell it."""
    if field.required:
        return "required"
    match field.default:
        case None:
            return "none"
        case bool() as value:
            return f"`{str(value).lower()}`"
        case str() as value:
            return f'`"{value}"`'
        case tuple():
            return "`[]`"
        case int() as value:
            return f"`{value}`"
        case _:
            return "`{}`"


@pytest.mark.parametrize(
    ("heading", "struct"),
    [
        ("## `[node]`", NodeTable),
        ("## `[store]`", StoreTable),
        ("## `[security]`", SecurityTable),
        ("## `[ports]`", PortsTable),
        ("## `[[service]]`", ServiceTable),
        ("## `check`", CheckBody),
    ],
)
def test_the_configuration_page_has_every_key_with_its_default(heading, struct):
    told = {row[0].strip("`"): row[-1] for row in rows("configuration.md", heading)}
    wanted = {field.encode_name: default_in_words(field) for field in fields(struct)}
    assert told.keys() == wanted.keys()
    for key, default in wanted.items():
        assert told[key].startswith(default), key


def test_the_configuration_page_has_every_table():
    headings = {heading.strip("`[]") for heading in _HEADING.findall((DOCS / "configuration.md").read_text())}
    assert {field.encode_name for field in fields(Config)} <= headings


@pytest.mark.parametrize(
    ("heading", "table", "struct"),
    [
        ("### Top level", 0, Scenario),
        ("### `[datacenters.NAME]`", 0, Datacenter),
        ("### `[[links]]`: one direction between two data centers", 0, LinkOverride),
        ("### `[[services]]`", 0, Service),
        ("### `[[workloads]]`: clients", 0, Workload),
        ("### `[[scales]]`: policies of scaling", 0, PlannedScale),
        ("### `[[at]]`: verbs", 1, Fault),
        ("### `[[expect]]`: claims", 0, Expect),
    ],
)
def test_the_scenario_page_has_every_field(heading, table, struct):
    told = {row[0].strip("`"): row[-1] for row in rows("write-a-scenario.md", heading, table)}
    assert told.keys() == {field.encode_name for field in fields(struct)}
    assert {key for key, default in told.items() if default == "required"} == {
        field.encode_name for field in fields(struct) if field.required
    }


def test_the_scenario_page_has_every_verb_with_its_fields_and_what_ends_it():
    encoded = {field.name: field.encode_name for field in fields(Fault)}
    told = {row[0].strip("`*"): row for row in rows("write-a-scenario.md", "### `[[at]]`: verbs")}
    assert told.keys() == VERBS.keys()
    for verb, (needed, allowed) in VERBS.items():
        row = told[verb]
        assert set(_CODE.findall(row[1])) == {encoded[name] for name in needed}, verb
        assert set(_CODE.findall(row[2])) == {encoded[name] for name in allowed}, verb
        assert _CODE.findall(row[-1]) == ([UNDO[verb]] if verb in UNDO else []), verb


@pytest.mark.parametrize(
    ("table", "claims"), [(1, VIEW_CLAIMS), (2, EVENT_CLAIMS), (3, BUDGET_CLAIMS), (4, REQUEST_CLAIMS)]
)
def test_the_scenario_page_has_every_claim(table, claims):
    assert named("write-a-scenario.md", "### `[[expect]]`: claims", table) == list(claims)


def test_every_invariant_is_listed():
    assert named("contribute.md", "### The invariants") == [invariant.name for invariant in INVARIANTS]


def test_the_http_page_has_every_route_with_its_role():
    told = [tuple(cell.strip("`") for cell in row[:3]) for row in rows("http-api.md", "# HTTP API")]
    wanted = [(each.method, each.path.replace(":path", ""), each.role.label) for each in all_operations()]
    assert sorted(told) == sorted(wanted)


@pytest.mark.parametrize(("table", "struct"), [(0, Strategy), (1, Gate), (2, Freeze)])
def test_the_page_of_runs_has_every_field_of_how_carefully(table, struct):
    told = [name for row in rows("runs.md", "## How carefully", table) for name in _CODE.findall(row[0])]
    assert told == [field.encode_name for field in fields(struct)]


def test_the_page_of_runs_has_every_kind_of_resource_with_its_fields():
    shared = [field.encode_name for field in fields(ResourceBase)]
    assert named("runs.md", "## Resources", 0) == shared
    told = {row[0].strip("`"): _CODE.findall(row[1]) for row in rows("runs.md", "## Resources", 1)}
    for kind in get_args(Resource):
        own = {field.encode_name for field in fields(kind)} - set(shared)
        assert own <= set(told[kind.__struct_config__.tag]), kind
    assert len(told) == len(get_args(Resource))


def test_the_page_of_runs_has_every_verb_and_state():
    assert [row[0].split()[1] for row in rows("runs.md", "## Steer it", 0)] == [verb.value for verb in Verb]
    told = [name for row in rows("runs.md", "## Steer it", 1) for name in _CODE.findall(row[0])]
    paused = {f"paused ({hold.value})" for hold in Hold}
    assert {*told} == {state.value for state in RunState} - {"paused"} | paused


def test_the_page_of_policies_has_every_field_with_its_default():
    told = {
        row[0].strip("`"): row[1].strip("`")
        for heading in ("## Which data center", "## Which instance", "## Each call")
        for row in rows("policies.md", heading)
    }
    defaults = {}
    for field, value in policy_in_words(Policy()).items():
        nested = field in ("eject", "retries")
        defaults |= {f"{field}.{name}": one for name, one in value.items()} if nested else {field: value}
    assert told == {field: json.dumps(value) for field, value in defaults.items()}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.[ty]*ml")), ids=lambda path: path.name)
def test_every_example_of_a_run_is_accepted(path):
    assert read_spec(path).resources


@pytest.mark.parametrize("name", ["server.py", "client.py"])
def test_the_readme_shows_the_example_that_the_tests_run(name):
    shown = [text for info, text in _FENCE.findall((ROOT / "README.md").read_text()) if info == "python"]
    assert (ROOT / "examples" / "orders" / name).read_text() in shown


def test_the_page_of_scaling_has_every_field():
    told = [name for row in rows("scale.md", "## The policy") for name in _CODE.findall(row[0])]
    assert told == [field.encode_name for field in fields(ScalePolicy)]
    told = [name for row in rows("scale.md", "## Drivers") for name in _CODE.findall(row[0])]
    assert sorted(told) == sorted(field.encode_name for field in fields(ProcessDriver))


def test_every_command_in_the_documentation_exists():
    used = {
        (page.name, command)
        for page in PAGES
        for _, text in _FENCE.findall(page.read_text())
        for command in re.findall(r"^(?:\$ )?dislocate ([a-z]+)", text, re.MULTILINE)
    }
    assert len(used) > 10
    assert {command for _, command in used} <= COMMANDS.keys()


def test_the_readme_shows_what_a_run_prints_today():
    shown = (ROOT / "README.md").read_text().partition("scenarios/wan-partition.toml --seed 7\n")[2].partition("```")[0]
    report = simulate(read_scenario(ROOT / "scenarios/wan-partition.toml"), 7)
    told = report.as_text("")

    def lines(text):
        return [line.rstrip() for line in text.strip().splitlines() if not line.startswith("speed")]

    assert lines(shown) == lines(told)
