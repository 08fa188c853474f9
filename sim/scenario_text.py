"""A scenario as the text of a file: `parse_scenario` reads the same scenario back."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from dislocate.strict import in_words
from sim.scenario import Scenario

DELETE = "\x7f"  # the one character that JSON has as it is and TOML does not


def scenario_text(scenario: Scenario) -> str:
    """In TOML: what stands alone first, then a table for each of the others."""
    table = _without_defaults(scenario)
    simple = {key: value for key, value in table.items() if not isinstance(value, dict) and not _has_tables(value)}
    lines = [f"{key} = {_value(value)}" for key, value in simple.items()]
    for key, value in table.items():
        if key in simple:
            continue
        tables = [("[[{}]]", key, one) for one in value] if isinstance(value, list) else []
        tables += [("[{}]", f"{key}.{_key(name)}", one) for name, one in value.items()] if not tables else []
        for head, name, one in tables:
            lines += ["", head.format(name), *_entries(one)]
    return "\n".join(lines) + "\n"


def _without_defaults(scenario: Scenario) -> dict[str, Any]:
    table: dict[str, Any] = in_words(scenario)
    pruned = _pruned(scenario, table)
    assert isinstance(pruned, dict)
    return pruned


def _pruned(value: object, words: Any) -> Any:
    """`words` without the fields of structs that are as they are when nobody says anything."""
    if isinstance(value, msgspec.Struct):
        defaults = dict(_defaults(type(value)))
        pairs = zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True)
        kept = {
            encoded: _pruned(getattr(value, field), words[encoded])
            for field, encoded in pairs
            if encoded in words and (field not in defaults or getattr(value, field) != defaults[field])
        }
        return {key: words[key] for key in words if key not in value.__struct_encode_fields__} | kept  # and its tag
    if isinstance(value, Mapping):
        return {key: _pruned(item, words[key]) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_pruned(item, word) for item, word in zip(value, words, strict=True)]
    return words


def _defaults(type_: type[msgspec.Struct]) -> Iterator[tuple[str, object]]:
    for field in msgspec.structs.fields(type_):
        if field.default is not msgspec.NODEFAULT:
            yield field.name, field.default
        elif field.default_factory is not msgspec.NODEFAULT:
            yield field.name, field.default_factory()


def _has_tables(value: object) -> bool:
    return isinstance(value, list) and any(isinstance(one, dict) for one in value)


def _entries(table: Mapping[str, Any]) -> list[str]:
    return [f"{_key(key)} = {_value(value)}" for key, value in table.items()]


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("-", "").replace("_", "").isalnum() else _value(name)


def _value(value: Any) -> str:
    match value:
        case bool() | int() | float():
            return json.dumps(value)
        case list() | tuple():
            return f"[{', '.join(map(_value, value))}]"
        case dict():
            return f"{{ {', '.join(_entries(value))} }}" if value else "{}"
    return json.dumps(str(value), ensure_ascii=False).replace(DELETE, "\\u007f")
