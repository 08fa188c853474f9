"""The API's description, OpenAPI 3.1, made from the same table of operations that answers requests."""

import re
from typing import Any

import msgspec

from dislocate import __version__
from dislocate.core.units import format_duration
from dislocate.edge.http.call import BYTES, Operation, types_of
from dislocate.edge.http.problems import MEDIA_TYPE, Problem

_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")


def describe(operations: tuple[Operation, ...]) -> dict[str, Any]:
    """The whole document, as plain values."""
    types: dict[type, None] = {Problem: None}
    for operation in operations:
        types.update((type_, None) for type_ in (*types_of(operation.answer), operation.body) if type_)
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    _in_words(components)
    references = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = _PARAMETER.sub(r"{\1}", operation.path)
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, references)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Dislocate",
            "version": __version__,
            "description": "Errors are problem details (RFC 9457). Durations go in as text ('5s') and come out as seconds.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _in_words(schema: Any) -> None:
    """Durations are text, their defaults too."""
    if isinstance(schema, dict):
        if schema.get("format") == "words":
            del schema["format"]
            schema["type"] = "string"
            if isinstance(schema.get("default"), int):
                schema["default"] = format_duration(schema["default"])
        schema = list(schema.values())
    for part in schema if isinstance(schema, list) else ():
        _in_words(part)


def _operation(operation: Operation, references: dict[type, Any]) -> dict[str, Any]:
    answers = [references[type_] for type_ in types_of(operation.answer)] or [{"type": "string"}]
    schema = answers[0] if len(answers) == 1 else {"oneOf": answers}
    described = {
        "operationId": operation.respond.__name__,
        "summary": operation.summary,
        "description": f"Needs the role '{operation.role.label}'.",
        "security": [{}, {"token": []}],
        "parameters": _parameters(operation),
        "responses": {
            "200": {"description": "Done", "content": {operation.media: {"schema": schema}}},
            "default": {"description": "A problem", "content": {MEDIA_TYPE: {"schema": references[Problem]}}},
        },
    }
    if operation.body:
        described["requestBody"] = {"content": {"application/json": {"schema": references[operation.body]}}}
    if operation.raw_limit:
        binary = {"type": "string", "format": "binary", "maxLength": operation.raw_limit}
        described["requestBody"] = {"content": {BYTES: {"schema": binary}}}
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    text = {"type": "string"}
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": text} for name in _PARAMETER.findall(operation.path)
    ]
    in_query = [
        {"name": query.name, "in": "query", "description": query.meaning, "schema": text} for query in operation.queries
    ]
    return in_path + in_query
