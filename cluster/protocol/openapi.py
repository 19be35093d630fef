"""The table of operations as an OpenAPI 3.1 document.

Every schema comes from the types that decode the calls, so the document cannot say anything else than the code does.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import NODEFAULT

from quorl.cluster.protocol import limits
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Operation, Query
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.plans import PLANS, ReadOptions
from quorl.cluster.protocol.problems import CATALOGUE, ProblemDocument, kind_of

_WITHOUT_BODY = ("GET", "DELETE")
"""Methods whose bodies many clients cannot send; the fields of DELETE are documented as parameters alone."""

_REF = "#/components/schemas/{name}"

_FOR_ALL = ("invalid_parameter", "not_acceptable", "target_too_long", "validation_failed", "internal", "shutting_down")
_FOR_WRITES = (
    "invalid_json",
    "payload_too_large",
    "unsupported_media_type",
    "idempotency_key_reused",
    "too_many_requests",
    "command_failed",
    "no_leader",
    "no_quorum",
    "commit_unknown",
    "storage_full",
    "too_many_hops",
)
_FOR_READS = ("too_many_requests", "no_leader", "no_quorum", "not_ready")

_HEADERS = {
    "Served-By": "The node that answered.",
    "Quorl-Leader": "The leader as that node knows it; empty if it knows none.",
    "Quorl-Term": "The current term.",
    "Quorl-Sequence": "How many entries that node has applied; give it as `min_sequence` to read your own writes anywhere.",
    "Request-Id": "The id of this call in the logs; one that was sent is kept.",
}


def document(version: str) -> dict[str, Any]:
    """Return the document for a version of quorl."""
    bodies = [PLANS[row.request].body.type for row in OPERATIONS if row.method not in _WITHOUT_BODY]
    types = [*bodies, t.Message, b.NewTask, *(row.reply for row in OPERATIONS), ProblemDocument]
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for row in OPERATIONS:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "quorl",
            "version": version,
            "description": "A replicated queue. Any node takes any call; problems are RFC 9457 documents with a stable `code`.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": {
                name: {"description": text, "schema": {"type": "string"}, "required": True}
                for name, text in _HEADERS.items()
            }
            | {"Retry-After": {"description": "Seconds to wait before repeating.", "schema": {"type": "integer"}}},
        },
    }


def _operation(row: Operation) -> dict[str, Any]:
    parameters = _parameters(row)
    if row.writes:
        parameters.append(_idempotency_key())
    operation: dict[str, Any] = {
        "operationId": row.name,
        "summary": row.summary,
        "description": " ".join((row.request.__doc__ or "").split()),
        "tags": [row.path.split("/")[2]],
        "parameters": parameters,
        "responses": _accepted(row) | _refused(row),
    }
    plan = PLANS[row.request]
    if plan.fields and row.method not in _WITHOUT_BODY:
        schema = _ref(plan.body.type)
        if row.request is t.Append:
            schema = {"anyOf": [schema, _ref(t.Message)]}
        if row.request is b.Submit:
            schema = {"anyOf": [schema, _ref(b.NewTask)]}
        required = any(field.default is NODEFAULT for field in plan.fields)
        operation["requestBody"] = {"required": required, "content": {"application/json": {"schema": schema}}}
    return operation


def _parameters(row: Operation) -> list[dict[str, Any]]:
    plan = PLANS[row.request]
    in_query = row.method in _WITHOUT_BODY
    query = [field for field in plan.fields if field.encode_name in plan.query_names and in_query]
    if issubclass(row.request, Query):
        query += [
            msgspec.structs.replace(field, default=row.consistency) if field.name == "consistency" else field
            for field in msgspec.structs.fields(ReadOptions)
        ]
    in_path = {field.encode_name: field for field in msgspec.structs.fields(row.request)}
    return [_parameter(in_path[name], "path") for name in row.placeholders] + [_parameter(f, "query") for f in query]


def _parameter(field: msgspec.structs.FieldInfo, place: str) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([field.type], ref_template=_REF)
    required = place == "path" or field.default is NODEFAULT
    if not required and field.default is not None:
        schema = schema | {"default": field.default}
    return {"name": field.encode_name, "in": place, "required": required, "schema": schema}


def _idempotency_key() -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Makes repeating the call safe: the first outcome is kept and given again.",
        "schema": {"type": "string", "minLength": 1, "maxLength": limits.IDEMPOTENCY_KEY_CHARS_MAX},
    }


def _accepted(row: Operation) -> dict[str, Any]:
    headers: dict[str, Any] = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    if row.writes:
        replay = "`true` if this is the kept answer to an earlier call under the same key."
        headers |= {"Idempotent-Replay": {"description": replay, "schema": {"type": "string"}}}
    content = {"application/json": {"schema": _ref(row.reply)}}
    answers = {str(row.status): {"description": "Accepted.", "headers": headers, "content": content}}
    for status, description in row.reply.also.items():
        answers[str(status)] = {"description": description, "headers": headers}
        if status != 204:
            answers[str(status)] |= {"content": content}
        if status == 202:
            answers[str(status)]["headers"] = headers | {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return answers


def _refused(row: Operation) -> dict[str, Any]:
    codes = [*_FOR_ALL, *(_FOR_WRITES if row.writes else _FOR_READS)]
    kinds = {CATALOGUE[code] for code in codes} | {kind_of(rejection) for rejection in row.rejections}
    answers: dict[str, Any] = {}
    for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code)):
        headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
        answer = answers.setdefault(
            str(kind.status),
            {
                "description": "",
                "headers": headers,
                "content": {"application/problem+json": {"schema": _ref(ProblemDocument)}},
            },
        )
        if kind.retryable:
            headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
        answer["headers"] |= headers
        answer["description"] = f"{answer['description']}\n\n`{kind.code}`: {kind.title}. {kind.hint}".strip()
    return answers


def _ref(kind: Any) -> dict[str, Any]:
    return {"$ref": _REF.format(name=kind.__name__)}
