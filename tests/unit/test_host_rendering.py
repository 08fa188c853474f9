"""Templates that could go on for ever, or grow without end: they are ended from outside, and the agent goes on."""

import threading

import pytest

from dislocate.core.boundary.runs import TaskResult
from dislocate.core.boundary.spec import File
from dislocate.host.templates import is_plain
from tests.support.hosted import FACTS, Hosted

FACTS_WITH_TAGS = FACTS | {"tags": ("a", "b")}


@pytest.fixture
def host(tmp_path):
    hosted = Hosted(tmp_path / "state", facts=lambda: FACTS_WITH_TAGS)
    yield hosted
    hosted.stop()


@pytest.fixture
def motd(tmp_path):
    return tmp_path / "motd"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% set r = range(99999)|list %}{% for a in r %}{% for b in r %}{% endfor %}{% endfor %}", "more than 2 s"),
        ('{{ "%900000000d"|format(1)|length }}', "content"),
        ('{{ "%900000000d" % 1 }}', "content"),
        ("{{ 'x'|center(900000000) }}", "content"),
        ("{{ 'x' * 900000000 }}", "content"),
        ("{{ 7 ** (9 ** 9) }}", "more than 2 s"),
        ("{% set ns = namespace(a='x') %}{% for b in range(99) %}{% set ns.a = ns.a ~ ns.a %}{% endfor %}", "content"),
        ("{% for a in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "it becomes larger than 1024 KiB"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "content"),
    ],
)
def test_a_template_that_would_take_all_memory_or_time_is_ended(host, motd, text, said):
    outcome = host.look(File(path=str(motd), content=text))
    assert (outcome.result, outcome.kind) == (TaskResult.FAILED, "render")
    assert said in outcome.words


def test_no_thread_goes_on_with_a_template_that_was_ended(host, motd):
    host.look(File(path=str(motd), content="{{ facts.hostname }}"))
    before = threading.active_count()
    host.look(File(path=str(motd), content="{{ 7 ** (9 ** 9) }}"))
    assert threading.active_count() <= before + 1  # the pool's, which waits


def test_a_template_with_loops_means_what_it_means_anywhere(host, motd):
    content = (
        "{% for tag in facts.tags %}{{ tag }}{{ key('a/b') }}{% endfor %} {{ facts.tags }} "
        "{{ secret('pw') | upper }} ümlaut\n\n"
    )
    resource = File(path=str(motd), content=content)
    told = {"secrets": {"pw": "correct horse"}, "values": {"a/b": "1"}}
    looked = host.look(resource, **told)
    assert "CORRECT" not in looked.diff
    assert host.apply(resource, **told).result is TaskResult.CHANGED
    assert motd.read_text() == "a1b1 ('a', 'b') CORRECT HORSE ümlaut\n\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\n{% for a in facts.tag %}{% endfor %}", "content, line 2: 'dict object' has no attribute 'tag'; did you"),
        ("{{ secret('pw') | upper }}", "the secret 'pw' is not there; put it with"),
        ("{{ key('color') | upper }}", "the key 'color' is not there; set it with"),
        ("{{ secret(facts.hostname ~ 'x') }}", "a name in quotes"),
    ],
)
def test_a_mistake_in_one_is_told_with_its_place(host, motd, text, said):
    assert said in host.look(File(path=str(motd), content=text)).words


def test_a_plain_template_starts_no_process():
    plain = "{# x #}{% if facts.a == 'b' and not key('c') %}{{ facts.d.e }}{% else %}{{ secret('f') }}{% endif %}"
    assert is_plain(plain)
    assert is_plain("{{ facts.rack | default('none') }}{% if facts.x is defined %}{{ facts['x'] }}{% endif %}")
    for text in (
        "{{ 'a' ~ 'b' }}",
        "{{ f() }}",
        "{{ facts.a.format() }}",
        "{% set a = 1 %}",
        "{{ 1 + 1 }}",
        "{{ x|upper }}",
    ):
        assert not is_plain(text)
