"""The OpenAPI document: kept, true, and tried with requests that nobody thought of."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from meterbook.http.openapi import make_document
from meterbook.http.routes import DESCRIBED
from tests.databases import Databases
from tests.http.serving import Served, serving

EXAMPLES = 25
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
SCHEMA = schemathesis.openapi.from_dict(json.loads(json.dumps(make_document(DESCRIBED))))


def test_the_document_in_the_repository_is_the_one_that_is_served(root: Path) -> None:
    """`make openapi` writes it again."""
    kept = json.loads((root / "docs" / "reference" / "openapi.json").read_text())
    assert kept == json.loads(json.dumps(make_document(DESCRIBED)))
    assert kept["openapi"].startswith("3.1")


def test_the_document_loads_nothing_and_names_every_scope() -> None:
    """Each operation says who may call it, what it takes and how it fails."""
    for path, operations in make_document(DESCRIBED)["paths"].items():
        for method, operation in operations.items():
            assert operation["x-scope"] in ("record", "read", "admin", "open", "metrics"), path
            assert operation["description"], path
            assert operation["responses"]["422"]["content"].keys() == {"application/problem+json"}
            assert ("requestBody" in operation) == (method in ("post", "put")), path


@schemathesis.serializer("application/x-ndjson")
def lines(_: object, value: object) -> bytes:
    """The document says of lines that they are text."""
    return str(value).encode("utf-8", "replace")


@pytest.fixture(scope="module")
def served(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One server for all that is made up: what one request leaves behind is part of the next one's world."""
    with databases.fresh() as url, serving(url, tmp_path_factory.mktemp("served")) as started:
        yield started


@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_is_asked_is_answered_as_described(served: Served, case: Case[Any]) -> None:
    """Requests made up from the document, sound and unsound, by an admin: no fault of ours, and each answer is as the document says."""
    response = case.call(base_url=served.address, headers=served.headers("admin"), timeout=30)
    case.validate_response(response, checks=CHECKS)
    assert response.status_code != 500
