"""A specification of a config run from a file: TOML, YAML or JSON by its suffix, with the files that it names read in.

Invariant: what is returned passed `check_spec` and stands for itself, whatever becomes of the files.  Every mistake is a
`ConfigError` that names the place, what stood there and the mend.
"""

from pathlib import Path

from msgspec.structs import replace

from dislocate.core.boundary.spec import File, Resource, RunSpec
from dislocate.core.errors import ConfigError, LocalError
from dislocate.core.runs.spec import check_spec
from dislocate.core.tunables import SPEC_BYTES
from dislocate.strict import parse_json, parse_toml, parse_yaml

SUFFIXES = (".toml", ".yaml", ".yml", ".json")


def read_spec(path: Path) -> RunSpec:
    """The specification in the file at `path`.  Raises `ConfigError`."""
    if path.suffix not in SUFFIXES:
        raise ConfigError("file", got=str(path), expected=f"a name that ends with {', '.join(SUFFIXES)}")
    return parse_spec(_read(path, "file"), path.suffix, path.parent)


def parse_spec(text: str, suffix: str, directory: Path) -> RunSpec:
    """The same of text; sources are looked for from `directory`.  Raises `ConfigError`."""
    try:
        if suffix == ".toml":
            spec = parse_toml(text, RunSpec)
        elif suffix == ".json":
            spec = parse_json(text.encode(), RunSpec)
        else:
            spec = parse_yaml(text, RunSpec)
        spec = with_sources(spec, directory)
        check_spec(spec)
    except ConfigError:
        raise
    except LocalError as error:
        raise ConfigError(error.field, got=error.got, expected=error.expected) from None
    return spec


def with_sources(spec: RunSpec, directory: Path) -> RunSpec:
    """The same with the contents of the files that it names.  Raises `ConfigError`."""
    resources = tuple(_inlined(resource, directory, f"resources[{at}]") for at, resource in enumerate(spec.resources))
    return replace(spec, resources=resources)


def _inlined(resource: Resource, directory: Path, field: str) -> Resource:
    if not isinstance(resource, File) or not resource.source:
        return resource
    if resource.content:
        raise ConfigError(f"{field}.source", got=resource.source, expected="either 'content' or 'source', not both")
    return replace(resource, content=_read(directory / resource.source, f"{field}.source"), source="")


def _read(path: Path, field: str) -> str:
    """Of a regular file only: a pipe that nobody writes to would be waited for without end."""
    if path.exists() and not path.is_file():
        raise ConfigError(field, got=str(path), expected="a regular file, not a directory, device or pipe")
    try:
        with path.open("rb") as file:
            data = file.read(SPEC_BYTES + 1)
        text = data.decode()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(field, got=str(path), expected=f"a readable file of text ({reason})") from None
    if len(data) > SPEC_BYTES:
        raise ConfigError(field, got=str(path), expected=f"a file of at most {SPEC_BYTES} bytes")
    return text
