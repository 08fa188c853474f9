"""A specification from a file: one meaning in TOML, YAML and JSON, and every mistake with its place."""

import json
import os

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dislocate.core.boundary.spec import (
    Command,
    File,
    Gate,
    OnFailure,
    Process,
    RunSpec,
    Service,
    ServiceAction,
    Strategy,
)
from dislocate.core.errors import ConfigError
from dislocate.core.tunables import SPEC_BYTES
from dislocate.core.units import MINUTE, SECOND
from dislocate.run_files import read_spec
from dislocate.strict import in_words, parse_json

TOML = """
name = "web"
targets = "dc:fra & service:shop.web"

[[resources]]
kind = "file"
path = "/etc/motd"
source = "motd.txt"
timeout = "5s"
notify = ["reload"]

[[resources]]
kind = "command"
id = "reload"
run = ["systemctl", "reload", "web"]
only_notified = true
timeout = "2m"

[strategy]
soak = "30s"
batch = "50%"
on_failure = "pause"

[[freezes]]
days = ["fri"]
begin = "22:00"
end = "06:00"
"""

YAML = """
name: web
targets: "dc:fra & service:shop.web"
resources:
  - kind: file
    path: /etc/motd
    mode: 0644
    source: motd.txt
    timeout: 5s
    notify: [reload]
  - kind: command
    id: reload
    run: [systemctl, reload, web]
    only_notified: true
    timeout: 2m
strategy: {soak: 30s, batch: 50%, on_failure: pause}
freezes:
  - {days: [fri], begin: 22:00, end: 06:00}
"""


@pytest.fixture
def read(tmp_path):
    (tmp_path / "motd.txt").write_text("hello {{ facts.name }}\n")

    def read(text, suffix=".toml"):
        path = tmp_path / f"web{suffix}"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_spec(path)

    return read


@pytest.mark.parametrize("suffix", [".toml", ".yaml", ".json"])
def test_a_mark_at_the_beginning_of_a_file_says_nothing(tmp_path, suffix):
    text = {
        ".toml": 'name = "web"\ntargets = "*"\n[[resources]]\nkind = "file"\npath = "/x"\nsource = "x"\n',
        ".yaml": "name: web\ntargets: '*'\nresources: [{kind: file, path: /x, source: x}]\n",
        ".json": '{"name": "web", "targets": "*", "resources": [{"kind": "file", "path": "/x", "source": "x"}]}',
    }[suffix]
    (tmp_path / f"plain{suffix}").write_text(text)
    (tmp_path / f"marked{suffix}").write_text(text, encoding="utf-8-sig")
    (tmp_path / "x").write_text("hello", encoding="utf-8-sig")
    read = read_spec(tmp_path / f"marked{suffix}")
    assert read == read_spec(tmp_path / f"plain{suffix}")
    assert read.resources[0].content == "\ufeffhello", "what is to be on nodes is as its file is, to the byte"


def test_toml_and_yaml_say_the_same_and_sources_are_read_in(read):
    spec = read(TOML)
    assert spec == read(YAML, ".yaml")
    file, command = spec.resources
    assert (type(file), file.content, file.source) == (File, "hello {{ facts.name }}\n", "")
    assert (type(command), file.timeout, command.timeout) == (Command, 5 * SECOND, 2 * MINUTE)
    assert (spec.strategy.soak, spec.strategy.on_failure) == (30 * SECOND, OnFailure.PAUSE)


def test_json_says_durations_in_words_too(read):
    table = {"name": "x", "targets": "*", "resources": [{"kind": "file", "path": "/x", "timeout": "7s"}]}
    assert read(json.dumps(table), ".json").resources[0].timeout == 7 * SECOND


@pytest.mark.parametrize(
    ("old", "new", "field", "mend"),
    [
        ('name = "web"', 'nme = "web"', "nme", "did you mean 'name'?"),
        ('"/etc/motd"', "5", "resources[0].path", "text"),
        ('path = "/etc', 'pth = "/etc', "resources[0].pth", "did you mean 'path'?"),
        ('run = ["systemctl"', 'rum = ["systemctl"', "resources[1].rum", "did you mean 'run'?"),
        ('kind = "command"', 'kind = "comand"', "resources[1].kind", "did you mean 'command'?"),
        ('kind = "command"\n', "", "resources[1].kind", "one of 'file'"),
        ('"5s"', "5", "resources[0].timeout", "a duration such as '5s'"),
        ('"2m"', '"2 minutes"', "resources[1].timeout", "a duration such as '5s'"),
        ('soak = "30s"', 'soke = "30s"', "strategy.soke", "did you mean 'soak'?"),
        ('"pause"', '"pauze"', "strategy.on_failure", "did you mean 'pause'?"),
        ('["reload"]', '["relaod"]', "resources[0].notify[0]", "did you mean 'reload'?"),
        ('"motd.txt"', '"none.txt"', "resources[0].source", "a readable file of text (No such file or directory)"),
        ("dc:fra", "dcc:fra", "targets", "did you mean 'dc'?"),
        ("[strategy]", "[strategy", "line 19", "TOML:"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_nearest_name(read, old, new, field, mend):
    assert old in TOML
    with pytest.raises(ConfigError) as caught:
        read(TOML.replace(old, new))
    assert caught.value.field == field
    assert mend in caught.value.expected


@pytest.mark.parametrize(
    ("text", "field", "mend"),
    [
        ("name: web\nname: db\n", "line 2", "the name 'name' stands here twice"),
        ("name: [web\n", "line 2", "YAML:"),
        ("1: web\n", "line 1", "put it in quotes"),
        ("name: !!python/object:os.system x\n", "line 1", "could not determine a constructor"),
        ("name: web\n---\nname: db\n", "line 2", "but found another document"),
        ("&a [*a]\n", "file", "an alias must not stand within"),
        ("a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{to}: &{to} [{','.join(['*' + of] * 9)}]\n" for of, to in zip("abcdefg", "bcdefgh", strict=True)
        ), "file", "aliases that unfold"),
        ("[" * 5000, "file", "fewer lists within each other"),
        ("name: web\n\ttargets: x\n", "line 2", "YAML:"),
        ("", "body", "object"),
        ("- name\n", "body", "object"),
        ("name: \x01\n", "file", "YAML:"),
        ("name: web\nresources: []\ntargets: '*'\n", "resources", "1 to 200"),
        ("name: web\ntargets: '*'\nresources:\n- {kind: file, path: /x, mode: 644}\n", "resources[0].mode", "text"),
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_meant_is_refused(read, text, field, mend):
    with pytest.raises(ConfigError) as caught:
        read(text, ".yaml")
    assert caught.value.field == field
    assert mend in caught.value.expected


def test_what_yaml_takes_for_something_else_elsewhere_is_text(read):
    spec = read("name: 'x'\ntitle: yes\ntargets: '*'\nresources:\n- {kind: key, key: a, value: 2026-01-01}\n", ".yaml")
    assert (spec.title, spec.resources[0].value) == ("yes", "2026-01-01")


def test_files_that_cannot_be_read_are_named(read, tmp_path):
    with pytest.raises(ConfigError, match=r"a name that ends with \.toml, \.yaml"):
        read_spec(tmp_path / "web.txt")
    with pytest.raises(ConfigError, match="No such file"):
        read_spec(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="it is not UTF-8"):
        read(b"\xff\xfe")
    with pytest.raises(ConfigError, match=f"at most {SPEC_BYTES} bytes"):
        read("#" * (SPEC_BYTES + 1))


spans = st.integers(1, 10**15)
specs = st.builds(
    RunSpec,
    name=st.just("web"),
    targets=st.just("*"),
    resources=st.lists(
        st.one_of(
            st.builds(File, path=st.text(), content=st.text(), timeout=spans),
            st.builds(Command, run=st.lists(st.text()).map(tuple), timeout=spans),
            st.builds(Service, unit=st.text(), drain_for=spans, action=st.sampled_from(ServiceAction)),
            st.builds(
                Process, name=st.text(), run=st.just(("x",)), ready_within=spans, environment=st.just({"A": "5s"})
            ),
        )
    ).map(tuple),
    strategy=st.builds(Strategy, soak=spans, batch=st.one_of(st.integers(), st.text()), floor=st.just({"a": 0.5})),
    gates=st.lists(st.builds(Gate, service=st.text(), window=spans)).map(tuple),
)


@given(specs)
def test_what_is_written_in_words_is_read_as_it_was(spec):
    assert parse_json(msgspec.json.encode(in_words(spec)), RunSpec) == spec


def test_a_file_has_its_content_from_one_place(read):
    with pytest.raises(ConfigError, match="either 'content' or 'source'"):
        read(TOML.replace('source = "motd.txt"', 'source = "motd.txt"\ncontent = "x"'))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "motd.txt")
    (tmp_path / "web.toml").write_text(TOML)
    with pytest.raises(ConfigError) as raised:
        read_spec(tmp_path / "web.toml")
    assert raised.value.field == "resources[0].source"
    assert "a regular file" in raised.value.expected
