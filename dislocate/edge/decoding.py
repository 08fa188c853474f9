"""From untrusted JSON to a typed body, or to an error that names the field, what stood there and the mend.

`decode` raises `LocalError` (`Malformed` when it is no JSON at all) and nothing else, whatever the bytes are.  The
wording of msgspec's errors is read here and nowhere else; what is not recognised is passed on as it is.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec

from dislocate.core.errors import LocalError

T = TypeVar("T")

_PATH = re.compile(r"(?P<problem>.*?)(?: - at `(?P<path>[^`]*)`)?", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(.*)`", re.DOTALL)
_STEP = re.compile(r"([^.\[\]]+)|\[(\d+|\.\.\.)\]")
GOT_LIMIT = 200  # characters of the offending value that an error repeats


class Malformed(LocalError):
    """The bytes are no JSON.  Nothing was changed."""


def decode(data: bytes, type_: Any) -> Any:
    """`data` as `type_`, a Struct or a tagged union of Structs.  Raises `LocalError`."""
    try:
        return msgspec.json.decode(data, type=type_)
    except msgspec.ValidationError as error:
        raise _explain(str(error), data, type_) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed("body", got=None, expected=f"JSON in UTF-8 ({error})") from None


def nearest(name: str, known: Iterable[str]) -> str:
    """\", did you mean 'x'?\" where some known name is close, else nothing."""
    close = get_close_matches(name[:100], list(known), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _explain(message: str, data: bytes, type_: Any) -> LocalError:
    match = _PATH.fullmatch(message)
    problem, path = (match["problem"], match["path"] or "$") if match else (message, "$")
    value = _value_of(data)
    steps = [name or index for name, index in _STEP.findall(path)][1:]
    at = path.removeprefix("$").removeprefix(".")
    if unknown := _UNKNOWN.fullmatch(problem):
        names = sorted(_fields(_type_at(type_, steps, value)))
        mend = f"one of {', '.join(names)}{nearest(unknown[1], names)}"
        return LocalError(_join(at, unknown[1][:GOT_LIMIT]), got=_at(value, [*steps, unknown[1]]), expected=mend)
    if missing := _MISSING.fullmatch(problem):
        member = _type_at(type_, [*steps, missing[1]], value)
        return LocalError(_join(at, missing[1]), got=None, expected=_wording(member) or "this field is required")
    expected = _wording(_type_at(type_, steps, value)) or problem.replace("`", "'").removeprefix("Expected ")
    return LocalError(at or "body", got=_at(value, steps), expected=expected)


def _join(at: str, name: str) -> str:
    return f"{at}.{name}" if at else name


def _value_of(data: bytes) -> Any:
    """The untyped value, for the error only."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _at(value: Any, steps: list[str]) -> Any:
    """What stands at `steps`, short enough to repeat; None where it cannot be told."""
    for step in steps:
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
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
