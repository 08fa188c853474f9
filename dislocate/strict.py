"""Strict reading of what a person wrote: TOML tables into frozen structs, or a `ConfigError` that names field and mend.

An unknown key names the nearest known one.  A field annotated `Duration` takes words ('5s') and holds nanoseconds.
Does not know any format: the struct is the format.
"""

import tomllib
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

from dislocate.core.errors import ConfigError
from dislocate.core.units import parse_duration

T = TypeVar("T", bound=Struct)

Duration: TypeAlias = Annotated[int, Meta(extra={"unit": "duration"})]  # nanoseconds; in a file '5s'


def read_toml(path: Path, kind: type[T]) -> T:
    """The file at `path` as `kind`.  Raises `ConfigError` for what cannot be read or meant."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), got=str(error), expected="a readable TOML file") from error
    return parse_toml(text, kind)


def parse_toml(text: str, kind: type[T]) -> T:
    """`text` as `kind`.  Raises `ConfigError`."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("file", got=str(error), expected="TOML") from error
    return read_table(table, kind)


def read_table(table: object, kind: type[T], field: str = "") -> T:
    """An untyped table as `kind`; errors begin with `field`.  Raises `ConfigError`."""
    info = inspect.type_info(kind)
    value = _read(info, table, field)
    if not isinstance(value, kind):
        raise ConfigError(field or "file", got=table, expected="a table")
    return value


def nearest(name: str, known: list[str]) -> str:
    """The mend for an unknown `name`: the nearest known one, or all of them."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"{close[0]!r}" if close else "one of " + ", ".join(sorted(known))


def _read(info: inspect.Type, value: object, field: str) -> Any:
    match info:
        case inspect.StructType() if isinstance(value, dict):
            return _read_struct(info, value, field)
        case inspect.ListType() | inspect.VarTupleType() if isinstance(value, list):
            return [_read(info.item_type, item, f"{field}[{at}]") for at, item in enumerate(value)]
        case inspect.DictType() if isinstance(value, dict):
            return {key: _read(info.value_type, item, f"{field}.{key}") for key, item in value.items()}
        case inspect.Metadata(extra={"unit": "duration"}):
            return parse_duration(value, field)
        case inspect.UnionType():
            durations = [one for one in info.types if isinstance(one, inspect.Metadata)]
            return _read(durations[0], value, field) if durations else value
        case _:
            return value


def _read_struct(info: inspect.StructType, table: dict[str, object], field: str) -> Any:
    known = {one.encode_name: one for one in info.fields}
    prefix = f"{field}." if field else ""
    for key in table:
        if key not in known:
            raise ConfigError(prefix + key, got=key, expected=nearest(key, list(known)))
    prepared = {key: _read(known[key].type, item, prefix + key) for key, item in table.items()}
    for one in info.fields:
        if one.required and one.encode_name not in prepared:
            raise ConfigError(prefix + one.encode_name, got="nothing", expected="a value: it is required")
    try:
        return msgspec.convert(prepared, info.cls)
    except msgspec.ValidationError as error:
        words, _, path = str(error).partition(" - at `$")
        where = (prefix + path.rstrip("`").lstrip(".")).rstrip(".")
        name = path.rstrip("`").lstrip(".").partition("[")[0]
        raise ConfigError(where or "file", got=prepared.get(name), expected=words.removeprefix("Expected ")) from error
