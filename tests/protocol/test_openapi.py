"""The OpenAPI document is valid, complete, and says what the code does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from openapi_spec_validator import validate

from quorl.cluster.node.founding import route_of
from quorl.cluster.protocol import openapi
from quorl.cluster.protocol.founding import WAYS
from quorl.cluster.protocol.grammar import Operation
from quorl.cluster.protocol.operations import BY_NAME, OPERATIONS
from quorl.cluster.protocol.pages import PAGES, STREAMS
from quorl.cluster.protocol.problems import kind_of
from quorl.cluster.protocol.routes import FOUNDING_PATHS
from quorl.cluster.protocol.wire import Call, decode

DOCUMENT = openapi.document("1.2.3")


def operation(row: Operation) -> dict[str, Any]:
    """What the document says of a row, with the answers that it shares with others put in their place."""
    found: dict[str, Any] = DOCUMENT["paths"][row.path][row.method.lower()]
    return found | {"responses": {status: resolved(answer) for status, answer in found["responses"].items()}}


def resolved(answer: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in answer:
        return answer
    found: dict[str, Any] = DOCUMENT["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return found


def test_the_document_is_valid_openapi() -> None:
    validate(json.loads(json.dumps(DOCUMENT)))
    assert DOCUMENT["info"]["version"] == "1.2.3"


def test_there_is_an_operation_for_every_row_way_and_page_and_no_other() -> None:
    found = {
        (path, method): entry["operationId"]
        for path, item in DOCUMENT["paths"].items()
        for method, entry in item.items()
    }
    assert found == (
        {(row.path, row.method.lower()): row.name for row in OPERATIONS}
        | {(way.path, way.method.lower()): way.name for way in WAYS}
        | {(page.path, "get"): page.name for page in (*PAGES, *STREAMS)}
    )
    assert len(set(found.values())) == len(found)
    assert {path for path, _ in found} >= set(FOUNDING_PATHS) == {way.path for way in WAYS}


def test_every_tag_is_described_and_used() -> None:
    used = {entry["tags"][0] for item in DOCUMENT["paths"].values() for entry in item.values()}
    assert {tag["name"] for tag in DOCUMENT["tags"]} == used


def examples() -> Iterator[tuple[str, Call]]:
    """The example of every operation, as the call that it is."""
    for path, item in DOCUMENT["paths"].items():
        for method, entry in item.items():
            given = {p["name"]: p for p in entry["parameters"] if "example" in p}
            filled = path
            for name in [name for name, one in given.items() if one["in"] == "path"]:
                filled = filled.replace("{" + name + "}", str(given[name]["example"]))
            query = urlencode({name: one["example"] for name, one in given.items() if one["in"] == "query"})
            body = entry.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
            encoded = b"" if body is None else json.dumps(body).encode()
            yield entry["operationId"], Call(method.upper(), filled, query, {}, encoded)


@pytest.mark.parametrize(("name", "call"), [*examples()], ids=lambda one: one if isinstance(one, str) else "")
def test_every_example_is_a_good_call(name: str, call: Call) -> None:
    if name in BY_NAME:
        row, *_ = decode(call)
        assert row.name == name
    elif route := route_of(call.path):
        assert route.decode(call).row.name == next(way.row for way in WAYS if way.name == name)
    else:
        assert name in {page.name for page in (*PAGES, *STREAMS)}
    assert "{" not in call.path


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
