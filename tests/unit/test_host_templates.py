"""Templates: what they are filled with, what they name, and how a mistake in one reads."""

import subprocess
import sys

import pytest

from dislocate.core.boundary.spec import Command, File, Key, Process, RunSpec
from dislocate.core.errors import LocalError
from dislocate.host import jinja
from dislocate.host.render_error import RenderError
from dislocate.host.templates import References, references, render

FACTS = {"hostname": "web-1", "datacenter": "fra", "processors": 4}


def rendered(text: str, **values: str) -> str:
    return render(text, "content", facts=FACTS, values=values, secret=lambda name: f"<{name}>")


def mistake(text: str, **values: str) -> str:
    with pytest.raises(RenderError) as raised:
        rendered(text, **values)
    return str(raised.value)


def spec(*resources) -> RunSpec:
    return RunSpec(name="web", targets="*", resources=resources)


def test_facts_keys_and_secrets_are_filled_in_and_the_rest_is_left_byte_by_byte():
    text = "{{ facts.hostname }} {{ key('a/b') }} {{ secret('pw') }}\n\t<&> ümlaut\n\n"
    assert rendered(text, **{"a/b": "1"}) == "web-1 1 <pw>\n\t<&> ümlaut\n\n"
    assert rendered("{% for n in range(facts.processors) %}{{ n }}{% endfor %}") == "0123"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "a\n{{ facts.hostnam }}",
            "content, line 2: 'dict object' has no attribute 'hostnam'; did you mean 'hostname'?",
        ),
        ("{{ hostname }}", "content, line 1: 'hostname' is undefined; did you mean 'facts.hostname'?"),
        ("{{ kye('a') }}", "content, line 1: 'kye' is undefined; did you mean 'key'?"),
        ("\n\n{{ facts.a.b }}", "content, line 3"),
        ("{{ key('color') }}", "the key 'color' is not there; set it with `dislocate kv put color VALUE`"),
        ("{% if %}", "content, line 1: Expected an expression"),
        ("{{ 1 / 0 }}", "content, line 1: division by zero"),
        ("{{ 1 + 'a' }}", "content, line 1: unsupported operand"),
        ("{% include 'x' %}", "content, line 1"),
        ("{{ ''.__class__.__mro__ }}", "content, line 1: access to attribute '__class__'"),
        ("{{ facts.hostname | nofilter }}", "No filter named 'nofilter'"),
    ],
)
def test_a_mistake_is_told_with_its_place(text, said):
    assert said in mistake(text)


def test_a_fact_that_may_be_missing_has_a_default():
    assert rendered("{{ facts.rack | default('none') }}") == "none"


@pytest.mark.parametrize(
    "text",
    [
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
        "{{ " + "-" * 20_000 + "1 }}",
        "{% if 1 %}" * 3_000 + "{% endif %}" * 3_000,
        "{{ " + "9" * 5_000 + " }}",
    ],
    ids=["brackets", "signs", "conditions", "digits"],
)
def test_a_template_that_is_nested_too_deep_is_told_as_a_mistake_of_its_author(text):
    assert mistake(text).startswith("content: ")
    with pytest.raises(LocalError) as raised:
        references(spec(File(path="/a", content=text)))
    assert raised.value.field == "resources[0].content"


def test_more_conditions_in_each_other_than_python_takes_are_told():
    assert mistake("{% if 1 %}" * 150 + "{% endif %}" * 150) == "content: it is nested too deep, or too large"


def test_what_templates_name_is_known_without_rendering():
    found = references(
        spec(
            File(
                path="/a", content="{% if facts.x %}{{ key('b') }}{% else %}{{ key('a') }}{{ secret('pw') }}{% endif %}"
            ),
            Process(name="web", run=("x",), environment={"A": "{{ secret('token') }}", "B": "{{ key('b') }}"}),
            Command(run=("echo", "{{ key('not a template') }}"), once=True, environment={"C": "{{ key('c') }}"}),
            Key(key="k", value="{{ key('not a template either') }}"),
        )
    )
    assert found == References(keys=("a", "b", "c"), secrets=("pw", "token"))


@pytest.mark.parametrize(
    ("text", "field", "got"),
    [
        ("x\n{{ key('a' + facts.x) }}", "resources[1].content, line 2", "key(...) with a name that is computed"),
        ("{{ secret(facts.hostname) }}", "resources[1].content, line 1", "secret(...) with a name that is computed"),
        ("{{ key() }}", "resources[1].content, line 1", "key(...) with a name that is computed"),
        ("{{ key(name='a') }}", "resources[1].content, line 1", "key(...) with a name that is computed"),
        ("{{ key(*['a']) }}", "resources[1].content, line 1", "key(...) with a name that is computed"),
        ("{% set f = secret %}{{ f('a') }}", "resources[1].content, line 1", "'secret' used as a variable"),
        ("{% for key in [1] %}{{ key }}{% endfor %}", "resources[1].content, line 1", "'key' used as a variable"),
        ("a\n{{ 'x'", "resources[1].content, line 2", "unexpected end of template"),
    ],
)
def test_a_name_that_is_no_literal_is_refused_with_place_and_mend(text, field, got):
    with pytest.raises(LocalError) as raised:
        references(spec(File(path="/a"), File(path="/b", content=text)))
    assert (raised.value.field, raised.value.expected != "") == (field, True)
    assert got in raised.value.got


@pytest.mark.parametrize(
    "text", ["", "plain\n", "{ }} %} #}\n\n", "no end of line", "a\r\nb\rc\n", "{ {x} }", "50 % {of} #it"]
)
def test_a_text_with_nothing_to_fill_in_is_what_jinja_makes_of_it(text):
    assert rendered(text) == "".join(jinja.fill(text, "content", {}, str))


def test_an_agent_that_fills_nothing_in_never_loads_jinja():
    code = "import sys, dislocate.agent\nfrom dislocate.host.templates import fill, is_plain\n"
    code += "print(is_plain('Hello'), fill('Hello', 'content', {}, str), 'jinja2' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "True Hello False\n"
