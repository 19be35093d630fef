"""The OpenAPI document is valid, complete, and says what the code does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openapi_spec_validator import validate

from quorl.cluster.protocol import openapi
from quorl.cluster.protocol.grammar import Operation
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.problems import kind_of

DOCUMENT = openapi.document("1.2.3")


def operation(row: Operation) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][row.path][row.method.lower()]
    return found


def test_the_document_is_valid_openapi() -> None:
    validate(json.loads(json.dumps(DOCUMENT)))
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_there_is_an_operation_for_every_row_and_no_other() -> None:
    found = {
        (path, method): entry["operationId"]
        for path, item in DOCUMENT["paths"].items()
        for method, entry in item.items()
    }
    assert found == {(row.path, row.method.lower()): row.name for row in OPERATIONS}


@pytest.mark.parametrize("row", OPERATIONS, ids=lambda row: row.name)
def test_every_refusal_of_a_row_is_documented(row: Operation) -> None:
    responses = operation(row)["responses"]
    assert str(row.status) in responses
    for rejection in row.rejections:
        kind = kind_of(rejection)
        assert f"`{kind.code}`" in responses[str(kind.status)]["description"]
    assert ("504" in responses) == row.writes
    assert "Retry-After" in responses["503"]["headers"]
    assert "Retry-After" not in responses["422"]["headers"]


def test_parameters_are_where_they_travel() -> None:
    by_id = {row.name: operation(row) for row in OPERATIONS}

    def places(name: str) -> dict[str, str]:
        return {parameter["name"]: parameter["in"] for parameter in by_id[name]["parameters"]}

    assert places("browse") == {"topic": "path"} | dict.fromkeys(
        ["partition", "from", "limit", "wait", "consistency", "min_sequence"], "query"
    )
    assert places("delete_topic") == {"topic": "path", "if_empty": "query", "Idempotency-Key": "header"}
    assert places("get_cluster") == {}
    assert "requestBody" not in by_id["delete_topic"]
    assert by_id["create_topic"]["requestBody"]["required"]
    assert not by_id["consume"]["requestBody"]["required"]
    assert len(by_id["append"]["requestBody"]["content"]["application/json"]["schema"]["anyOf"]) == 2
    defaults = {parameter["name"]: parameter["schema"].get("default") for parameter in by_id["browse"]["parameters"]}
    assert (defaults["from"], defaults["consistency"]) == ("earliest", "local")
