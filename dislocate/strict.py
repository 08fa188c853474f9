"""Strict reading of what a person or a program wrote: JSON and TOML into frozen structs, or an error that names the field,
what stood there and the mend.

An unknown name is answered by the nearest known one.  `decode` and `parse_toml` raise `LocalError` and nothing else,
whatever the bytes are.  The wording of msgspec's errors is read here and nowhere else; what is not recognised is passed on
as it is.  Does not know any format: the struct is the format.
"""

import functools
import re
import tomllib
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path as FilePath
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import inspect

from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.units import parse_duration

T = TypeVar("T")

GOT_LIMIT = 200  # characters of the offending value that an error repeats
LISTED = 16  # known names that an error repeats

_PATH = re.compile(r"(?P<problem>.*?)(?: - at `(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]")
_LINE = re.compile(r"\(at line (\d+)")


class Malformed(LocalError):
    """The bytes are no JSON.  Nothing was changed."""


# ---- names


def nearest(name: str, known: Iterable[str]) -> str:
    """\", did you mean 'x'?\" where some known name is close, else nothing."""
    close = get_close_matches(name[:100], list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


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


# ---- TOML


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
    try:
        table = _in_nanoseconds(inspect.type_info(type_), tomllib.loads(text), "")
    except tomllib.TOMLDecodeError as error:
        raise _bad_toml(text, error) from None
    try:
        return msgspec.convert(table, type_)
    except msgspec.ValidationError as error:
        mistake = _explain(str(error), table, type_)
        raise ConfigError(mistake.field, got=mistake.got, expected=mistake.expected) from None


def _in_nanoseconds(info: inspect.Type, value: Any, field: str) -> Any:
    """`value` with all its durations as numbers.  Raises `LocalError`."""
    match info:
        case inspect.StructType() if isinstance(value, dict):
            types = {one.encode_name: one.type for one in info.fields}
            return {
                key: _in_nanoseconds(types[key], item, _join(field, key)) if key in types else item
                for key, item in value.items()
            }
        case inspect.ListType() | inspect.VarTupleType() if isinstance(value, list):
            return [_in_nanoseconds(info.item_type, item, f"{field}[{at}]") for at, item in enumerate(value)]
        case inspect.DictType() if isinstance(value, dict):
            return {key: _in_nanoseconds(info.value_type, item, _join(field, key)) for key, item in value.items()}
        case inspect.Metadata(extra={"unit": "duration"}):
            return parse_duration(value, field)
        case inspect.UnionType():
            durations = [one for one in info.types if isinstance(one, inspect.Metadata)]
            return _in_nanoseconds(durations[0], value, field) if durations else value
        case _:
            return value


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
        return LocalError(_join(at, missing[1]), got=None, expected=_wording(member) or "this field is required")
    wording = _wording(_type_at(type_, steps, value))
    expected = wording or problem.removeprefix("Expected ").replace("`", "'")
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
    if get_origin(type_) in (Union, UnionType):
        configs = [struct.__struct_config__ for struct in get_args(type_)]
        if steps == [configs[0].tag_field]:
            tags = ", ".join(repr(config.tag) for config in configs)
            return Annotated[str, msgspec.Meta(description=f"one of {tags}")]
    type_ = _struct_of(type_, value)
    for step in steps:
        fields = _fields(type_)
        if step in fields:
            type_ = fields[step]
            continue
        bare = get_args(type_)[0] if get_origin(type_) is Annotated else type_
        elements = [argument for argument in get_args(bare) if argument is not Ellipsis]
        type_ = elements[-1] if elements else None
    return type_


def _fields(type_: Any) -> dict[str, Any]:
    """Names and declared types of a struct, its tag included; empty for what is none."""
    struct = _struct_of(type_, None)
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


def _wording(type_: Any) -> str:
    """The description that a field was declared with."""
    if get_origin(type_) is not Annotated:
        return ""
    return next((note.description for note in type_.__metadata__ if getattr(note, "description", None)), "")
