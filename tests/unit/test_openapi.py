"""The API's description is what the table of operations says, and changes to it are seen in review."""

import os
from pathlib import Path

import msgspec
import pytest

from dislocate.edge.http.app import all_operations
from tests.support.api_client import ApiClient
from tests.support.fake_backend import FakeBackend

GOLDEN = Path(__file__).parent / "golden" / "openapi.json"


@pytest.fixture
def served():
    return ApiClient(FakeBackend()).ask("GET", "/api/openapi.json").content


def test_the_api_is_the_one_that_was_reviewed(served):
    """After a wanted change: DISLOCATE_GOLDEN=write pytest tests/unit/test_openapi.py, and read the diff."""
    if os.environ.get("DISLOCATE_GOLDEN") == "write":
        GOLDEN.write_bytes(served + b"\n")
    assert served.decode() + "\n" == GOLDEN.read_text()


def test_every_reference_leads_somewhere_and_every_operation_has_a_name_of_its_own(served):
    document = msgspec.json.decode(served)
    names = [operation["operationId"] for path in document["paths"].values() for operation in path.values()]
    assert len(set(names)) == len(all_operations())
    assert all(name.isidentifier() for name in names)
    for reference in references(document):
        section, kind, name = reference.removeprefix("#/").split("/")
        assert name in document[section][kind]


def references(value):
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from references(part)
