"""YAML as people mean it: text into tables, lists and scalars, or an error that names the line.

Only what JSON has too: `0644`, `22:00`, `yes` and dates are text, a name that is given twice is an error, and so are tags,
merge keys and what unfolds by aliases into more than anyone would write by hand.
"""

import re
from typing import Any

import yaml

from dislocate.core.errors import ConfigError

LONGEST = 1 << 20  # characters of text
UNFOLDED = 100_000  # values with all aliases followed: a hundred times the largest sensible file


def load_yaml(text: str) -> Any:
    """The one document in `text`.  Raises `ConfigError`."""
    if len(text) > LONGEST:
        raise ConfigError("file", got=len(text), expected=f"at most {LONGEST} characters")
    try:
        value = yaml.load(text, _PlainLoader)
        _weigh(value, {}, [])
    except yaml.YAMLError as error:
        raise _bad_yaml(text, error) from None
    except RecursionError:
        raise ConfigError("file", got=text[:80], expected="fewer lists within each other") from None
    return value


class _PlainLoader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (the name that the library looks for)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, None] = {}
        for key, _ in node.value:
            if key.tag != "tag:yaml.org,2002:str":
                raise yaml.MarkedYAMLError(problem="a name must be text: put it in quotes", problem_mark=key.start_mark)
            if key.value in seen:
                problem = f"the name {key.value!r} stands here twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen[key.value] = None
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in (
    ("null", r"(?:~|null|)", ["~", "n", ""]),
    ("bool", r"(?:true|false)", list("tf")),
    ("int", r"-?(?:0|[1-9][0-9]{0,18})", list("-0123456789")),
    ("float", r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?", list("-0123456789")),
):
    _PlainLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"{_pattern}\Z"), _first)


def _weigh(value: Any, known: dict[int, int], above: list[int]) -> int:
    """How many values it is with all aliases followed.  Raises `YAMLError` for too many, and for what contains itself."""
    if not isinstance(value, dict | list):
        return 1
    place = id(value)
    if place in above:
        raise yaml.YAMLError("an alias must not stand within what it repeats")
    if place not in known:
        items = value.values() if isinstance(value, dict) else value
        above.append(place)
        known[place] = 1 + sum(_weigh(item, known, above) for item in items)
        above.pop()
    if known[place] > UNFOLDED:
        raise yaml.YAMLError("aliases that unfold into fewer values")
    return known[place]


def _bad_yaml(text: str, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
    if mark is None:
        return ConfigError("file", got=text[:80], expected=f"YAML: {problem}")
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    return ConfigError(f"line {mark.line + 1}", got=line.strip(), expected=f"YAML: {problem}")
