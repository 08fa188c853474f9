"""Strict reading of what a person or a program wrote: JSON, TOML and YAML into frozen structs, or an error that names the
field, what stood there and the mend.

An unknown name is answered by the nearest known one.  `decode` and those that parse raise `LocalError` and nothing else,
whatever the bytes are.  The wording of msgspec's errors is read here and nowhere else; what is not recognised is passed on
as it is.  Does not know any format: the struct is the format.
"""

import functools
import re
import tomllib
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path as FilePath
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import inspect

from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.nearest import nearest
from dislocate.core.units import format_duration, parse_duration

T = TypeVar("T")

GOT_LIMIT = 200  # characters of the offending value that an error repeats
LISTED = 16  # known names that an error repeats
_MARK = "\ufeff"  # some editors begin a file in UTF-8 with it; it says nothing, and YAML skips it by itself

_PATH = re.compile(r"(?P<problem>.*?)(?: - at `(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_KIND = re.compile(r"Expected `(\w+)(?: \| null)?`, got `\w+`")
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_LINE = re.compile(r"\(at line (\d+)")


# What people call the kinds of values that msgspec and annotations name.
KINDS = {
    "array": "a list",
    "object": "a table (in JSON: an object)",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}


class Malformed(LocalError):
    """The bytes are no JSON.  Nothing was changed."""


# ---- names


def one_of(name: str, known: Iterable[str]) -> str:
    """The mend for an unknown `name`: the known ones, as far as they are few, and the nearest."""
    names = list(known)
    dots = ", ..." if len(names) > LISTED else ""
    return f"one of {', '.join(names[:LISTED])}{dots}{nearest(name, names)}"


# ---- JSON


def decode(data: bytes, type_: Any) -> Any:
    """`data` as `type_`, a Struct or a tagged union of Structs.  Raises `LocalError`."""
    try:
        return _decoder(type_).decode(data)
    except msgspec.ValidationError as error:
        raise _explain(str(error), _value_of(data), type_) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("body", got=None, expected=f"JSON in UTF-8 ({error})") from None


@functools.cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    """Made once for each type: making one costs ten times what it takes to read a small body."""
    return msgspec.json.Decoder(type_)


def _value_of(data: bytes) -> Any:
    """The untyped value, for the error only."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


# ---- files


def read_toml(path: FilePath, type_: type[T], field: str = "file") -> T:
    """The file at `path` as `type_`; `field` names what asked for it.  Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(field, got=str(path), expected=f"a readable TOML file ({reason})") from error
    return parse_toml(text, type_)


def parse_toml(text: str, type_: type[T]) -> T:
    """`text` as `type_`, a Struct.  Raises `ConfigError`."""
    text = text.removeprefix(_MARK)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _bad_toml(text, error) from None
    except RecursionError:
        raise ConfigError("file", got=text[:GOT_LIMIT], expected="fewer lists within each other") from None
    return typed(table, type_)


def parse_yaml(text: str, type_: type[T]) -> T:
    """`text` as `type_`, a Struct.  Raises `ConfigError`."""
    from dislocate.yaml_text import load_yaml  # rare, and an agent has no use for it

    return typed(load_yaml(text), type_)


def parse_json(text: bytes, type_: type[T]) -> T:
    """`text`, in which durations are words as in a file, as `type_`, a Struct.  Raises `LocalError`."""
    try:
        table = msgspec.json.decode(text.removeprefix(_MARK.encode()))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("body", got=None, expected=f"JSON in UTF-8 ({error})") from None
    return typed(table, type_)


def typed(table: Any, type_: type[T]) -> T:
    """What was read from a file as `type_`, a Struct; its durations are words.  Raises `ConfigError`."""
    table = _turned(inspect.type_info(type_), table, "", parse_duration)
    try:
        return msgspec.convert(table, type_)
    except msgspec.ValidationError as error:
        mistake = _explain(str(error), table, type_)
        raise ConfigError(mistake.field, got=mistake.got, expected=mistake.expected) from None


def in_words(value: msgspec.Struct) -> Any:
    """The reverse of `typed`: tables and lists as in a file, with durations as words."""
    return _turned(
        inspect.type_info(type(value)), msgspec.to_builtins(value), "", lambda number, _: format_duration(number)
    )


def _turned(info: inspect.Type, value: Any, field: str, turn: Callable[[Any, str], Any]) -> Any:
    """`value` with all its durations turned into numbers, or into words.  Raises what `turn` does."""
    match info:
        case inspect.StructType() if isinstance(value, dict):
            types = {one.encode_name: one.type for one in info.fields}
            return {
                key: _turned(types[key], item, _join(field, key), turn) if key in types else item
                for key, item in value.items()
            }
        case inspect.ListType() | inspect.VarTupleType() if isinstance(value, list | tuple):
            return [_turned(info.item_type, item, f"{field}[{at}]", turn) for at, item in enumerate(value)]
        case inspect.DictType() if isinstance(value, dict):
            return {key: _turned(info.value_type, item, _join(field, key), turn) for key, item in value.items()}
        case inspect.Metadata(extra={"unit": "duration"}):
            return turn(value, field)
        case inspect.Metadata():
            return _turned(info.type, value, field, turn)
        case inspect.UnionType():
            member = _member(info, value)
            return value if member is None else _turned(member, value, field, turn)
        case _:
            return value


def _member(info: inspect.UnionType, value: Any) -> inspect.Type | None:
    """Which of them `value` is to be: the struct whose tag it has, the only struct, or a duration."""
    structs = [one for one in info.types if isinstance(one, inspect.StructType)]
    if isinstance(value, dict):
        tagged = [one for one in structs if one.tag_field and value.get(one.tag_field) == one.tag]
        return next(iter(tagged or (structs if len(structs) == 1 else ())), None)
    return next((one for one in info.types if isinstance(one, inspect.Metadata) and value is not None), None)


def _bad_toml(text: str, error: tomllib.TOMLDecodeError) -> ConfigError:
    place = _LINE.search(str(error))
    if place is None:
        return ConfigError("end of the file", got="", expected=f"TOML: {error}")
    number = int(place[1])
    line = text.splitlines()[number - 1] if number <= len(text.splitlines()) else ""
    return ConfigError(f"line {number}", got=line.strip(), expected=f"TOML: {error}")


# ---- what is wrong, in words


def _explain(message: str, value: Any, type_: Any) -> LocalError:
    match = _PATH.fullmatch(message)
    problem, path = (match["problem"], match["path"] or "$") if match else (message, "$")
    steps = _named([name or index for name, index in _STEP.findall(path)][1:], value, type_)
    at = ""
    for step in steps:
        at = f"{at}[{step}]" if step.isdigit() or step == "..." else _join(at, step[:GOT_LIMIT])
    if unknown := _UNKNOWN.fullmatch(problem):
        mend = one_of(unknown[1], sorted(_fields(_type_at(type_, steps, value))))
        return LocalError(_join(at, unknown[1][:GOT_LIMIT]), got=_at(value, [*steps, unknown[1]]), expected=mend)
    if missing := _MISSING.fullmatch(problem):
        member = _type_at(type_, [*steps, missing[1]], value)
        return LocalError(
            _join(at, missing[1]), got=None, expected=_wording(member) or f"{_kind(member)}: it is missing, add it"
        )
    declared = _type_at(type_, steps, value)
    wording = _wording(declared) or _choices(declared, _item(value, steps))
    expected = wording or _other_kind(problem, _item(value, steps))
    return LocalError(at or "body", got=_at(value, steps), expected=expected)


def _named(steps: list[str], value: Any, type_: Any) -> list[str]:
    """`steps` with the keys for which msgspec says '...': the first whose item cannot be read."""
    for at, step in enumerate(steps):
        table, item_type = _item(value, steps[:at]), _type_at(type_, steps[: at + 1], value)
        if step == "..." and isinstance(table, dict) and item_type is not None:
            culprit = next((key for key, item in table.items() if not _is_readable(item, item_type)), step)
            return _named([*steps[:at], culprit, *steps[at + 1 :]], value, type_) if culprit != step else steps
    return steps


def _is_readable(value: Any, type_: Any) -> bool:
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError:
        return False
    return True


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _item(value: Any, steps: list[str]) -> Any:
    """What stands at `steps`; None where it cannot be told."""
    for step in steps:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _at(value: Any, steps: list[str]) -> Any:
    """The same, short enough to repeat."""
    value = _item(value, steps)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return value if len(text) <= GOT_LIMIT else text[:GOT_LIMIT] + "..."


def _type_at(type_: Any, steps: list[str], value: Any) -> Any:
    """The declared type at `steps`; the element's where a step is an index; None where it cannot be told."""
    for at, step in enumerate(steps):
        here = _item(value, steps[:at])
        tags = _tags(type_)
        if step in tags:
            got = here.get(step) if isinstance(here, dict) else None
            close = nearest(got, tags[step]) if isinstance(got, str) else ""
            description = f"one of {', '.join(map(repr, tags[step]))}{close}"
            return Annotated[str, msgspec.Meta(description=description)]
        fields = _fields(type_, here)
        if step in fields:
            type_ = fields[step]
            continue
        bare = get_args(type_)[0] if get_origin(type_) is Annotated else type_
        elements = [argument for argument in get_args(bare) if argument is not Ellipsis]
        type_ = elements[-1] if elements else None
    return _struct_of(type_, _item(value, steps)) or type_


def _tags(type_: Any) -> dict[str, list[str]]:
    """By tag field the tags of a union of structs; empty for what is none."""
    found: dict[str, list[str]] = {}
    for member in get_args(type_) if get_origin(type_) in (Union, UnionType) else ():
        if isinstance(member, type) and issubclass(member, msgspec.Struct) and member.__struct_config__.tag_field:
            config = member.__struct_config__
            found.setdefault(str(config.tag_field), []).append(str(config.tag))
    return found


def _fields(type_: Any, value: Any = None) -> dict[str, Any]:
    """Names and declared types of a struct, its tag included; empty for what is none."""
    struct = _struct_of(type_, value)
    if struct is None:
        return {}
    tag = struct.__struct_config__.tag_field
    fields = {field.encode_name: field.type for field in msgspec.structs.fields(struct)}
    return {tag: str, **fields} if tag else fields


def _struct_of(type_: Any, value: Any) -> Any:
    """The struct in `type_`: itself, the one in an optional, or the one whose tag `value` carries."""
    members = get_args(type_) if get_origin(type_) in (Union, UnionType) else (type_,)
    structs = [member for member in members if isinstance(member, type) and issubclass(member, msgspec.Struct)]
    for struct in structs:
        config = struct.__struct_config__
        if isinstance(value, dict) and config.tag_field and value.get(config.tag_field) == config.tag:
            return struct
    return structs[0] if structs else None


def _kind(type_: Any) -> str:
    """'a list', of what a field is declared as."""
    origin = get_origin(type_) or type_
    if origin in (list, tuple):
        return KINDS["array"]
    return KINDS.get(getattr(origin, "__name__", ""), "a value")


def _other_kind(problem: str, got: Any) -> str:
    """The kind of value that is wanted; one thing where a list is wanted shows how it is written."""
    match = _KIND.fullmatch(problem)
    kind = KINDS.get(match[1]) if match else None
    if match is None or kind is None:
        return problem.removeprefix("Expected ").replace("`", "'")
    is_short = isinstance(got, str | int) and len(str(got)) <= 40
    return f"{kind}, as in {[got]!r}" if match[1] == "array" and is_short else kind


def _choices(type_: Any, got: Any) -> str:
    """The values of an enumeration, and the nearest to what stood there."""
    if not (isinstance(type_, type) and issubclass(type_, Enum)):
        return ""
    return one_of(str(got), [str(each.value) for each in type_])


def _wording(type_: Any) -> str:
    """The description that a field was declared with."""
    if get_origin(type_) is not Annotated:
        return ""
    return next((note.description for note in type_.__metadata__ if getattr(note, "description", None)), "")
