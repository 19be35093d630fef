"""The table of operations as an OpenAPI 3.1 document.

Every schema comes from the types that decode the calls, so the document cannot say anything else than the code does.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec import NODEFAULT

from quorl.cluster.protocol import examples, founding, limits
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Errand, Operation, Query
from quorl.cluster.protocol.openapi_rules import add_rules
from quorl.cluster.protocol.operations import BY_NAME, OPERATIONS
from quorl.cluster.protocol.pages import PAGES, STREAMS, Page
from quorl.cluster.protocol.plans import PLANS, ReadOptions
from quorl.cluster.protocol.problems import CATALOGUE, Kind, ProblemDocument, kind_of

_WITHOUT_BODY = ("GET", "DELETE")
"""Methods whose bodies many clients cannot send; the fields of DELETE are documented as parameters alone."""

_JSON = "application/json"
_REF = "#/components/schemas/{name}"

_FOR_ALL = (
    "malformed_request",
    "invalid_parameter",
    "forbidden_host",
    "forbidden_origin",
    "route_not_found",
    "not_acceptable",
    "request_timeout",
    "payload_too_large",
    "target_too_long",
    "headers_too_large",
    "unsupported_media_type",
    "validation_failed",
    "too_many_requests",
    "internal",
    "shutting_down",
)
_FOR_WRITES = (
    "invalid_json",
    "idempotency_key_reused",
    "command_failed",
    "no_leader",
    "no_quorum",
    "commit_unknown",
    "storage_full",
)
_FOR_ERRANDS = (
    "invalid_json",
    "payload_too_large",
    "unsupported_media_type",
    "too_many_requests",
    "no_leader",
    "no_quorum",
    "not_ready",
)
_FOR_READS = ("no_leader", "no_quorum", "not_ready")

_HEADERS = {
    "Served-By": "The node that answered.",
    "Quorl-Leader": "The leader as that node knows it; empty if it knows none.",
    "Quorl-Term": "The current term.",
    "Quorl-Sequence": "How many entries that node has applied; give it as `min_sequence` to read your own writes anywhere.",
    "Request-Id": "The id of this call in the logs; one that was sent is kept.",
}


_TAGS = {
    "topics": "Messages that stay: producers append, and every consumer has a place of its own.",
    "queues": "Tasks wait in queues, which hand them out by priority and in order of submission.",
    "tasks": "What is known of one task or of many, and what can be done about them.",
    "workers": "Who carries tasks out, for as long as it gives signs of life.",
    "claims": "How a worker without a library asks for tasks.",
    "appends": "Messages for several topics, in one call.",
    "reports": "What several leases have come to, in one call.",
    "cluster": "The nodes, as the answering one knows them.",
    "node": "The node that answers: its health, its release, its documentation.",
    "founding": "The routes of the first queue, beside `/v1`. Wrong input is 400, every failure says `status: failure`.",
    "dead": "What FAILED tasks died of.",
    "overview": "Everything at a glance.",
    "history": "What happened when.",
}


def document(version: str) -> dict[str, Any]:
    """Return the document for a version of quorl."""
    bodies = [PLANS[row.request].body.type for row in OPERATIONS if row.method not in _WITHOUT_BODY]
    bodies += [way.takes for way in founding.WAYS if way.method not in _WITHOUT_BODY]
    types = [*bodies, t.Message, b.NewTask, *(row.reply for row in OPERATIONS), ProblemDocument]
    _, schemas = msgspec.json.schema_components(types, ref_template=_REF)
    add_rules(schemas)
    paths: dict[str, dict[str, Any]] = {}
    for row in OPERATIONS:
        paths.setdefault(row.path, {})[row.method.lower()] = _operation(row)
    for page in (*PAGES, *STREAMS):
        paths.setdefault(page.path, {})["get"] = _page(page)
    for way in founding.WAYS:
        paths.setdefault(way.path, {})[way.method.lower()] = _founding(way)
    responses = _shared(paths)
    used = {operation["tags"][0] for item in paths.values() for operation in item.values()}
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "quorl",
            "version": version,
            "description": "A replicated queue. Any node takes any call; problems are RFC 9457 documents with a stable `code`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "The node that served this document."}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name in used],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "headers": {
                name: {"description": text, "schema": {"type": "string"}, "required": True}
                for name, text in _HEADERS.items()
            }
            | {"Retry-After": {"description": "Seconds to wait before repeating.", "schema": {"type": "integer"}}},
        },
    }


def _shared(paths: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Put refusals that several operations share in one place, which makes the document a third of its size."""
    names: dict[bytes, str] = {}
    shared: dict[str, Any] = {}
    for operation in [operation for item in paths.values() for operation in item.values()]:
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                text = msgspec.json.encode(response)
                if text not in names:
                    before = sum(1 for name in shared if name.startswith(f"Refused{status}"))
                    names[text] = f"Refused{status}" + (f"_{before + 1}" if before else "")
                    shared[names[text]] = response
                operation["responses"][status] = {"$ref": f"#/components/responses/{names[text]}"}
    return shared


def _page(page: Page) -> dict[str, Any]:
    """A path that is no operation: read with GET, answered by this node alone."""
    answers: dict[str, Any] = {
        str(status): {
            "description": said.description,
            "content": {kind: {"schema": schema} for kind, schema in said.content.items()},
        }
        for status, said in page.answers.items()
    }
    codes = ["malformed_request", "headers_too_large", "forbidden_host", *page.problems]
    if page in STREAMS:
        codes += ["invalid_parameter", "forbidden_origin", "not_acceptable", "target_too_long"]
        codes += ["too_many_streams", "shutting_down", "not_ready"]
    return {
        "operationId": page.name,
        "summary": page.summary,
        "description": page.description,
        "tags": ["node"],
        "parameters": [_shown(page.name, parameter) for parameter in page.parameters],
        "responses": answers | _refused({CATALOGUE[code] for code in codes}, _PROBLEM),
    }


def _founding(way: founding.Way) -> dict[str, Any]:
    """A route of the first queue: an operation of the table in other words."""
    row = BY_NAME[way.row]
    fields = msgspec.structs.fields(way.takes) if way.method == "GET" else ()
    parameters = [_parameter(field, "query") for field in fields] + _beside(row, "linearizable")
    if "{" in way.path:
        parameters.append(_parameter(msgspec.structs.fields(row.request)[0], "path"))
    refused = _refused(_kinds(row), {_JSON: {"schema": founding.FAILURE}}, {"validation_failed": 400})
    if "{" in way.path:
        refused["404"]["content"] = {_JSON: {"schema": {"anyOf": [founding.FAILURE, founding.NOT_FOUND]}}}
    accepted = {"description": "Accepted.", "headers": _headers(row), "content": {_JSON: {"schema": way.answer}}}
    operation: dict[str, Any] = {
        "operationId": way.name,
        "summary": way.summary,
        "description": f"What `{way.row}` does, in the words of the first queue.",
        "tags": ["founding"],
        "parameters": [_shown(way.name, parameter) for parameter in parameters],
        "responses": {"200": accepted} | refused,
    }
    if way.method != "GET":
        operation["requestBody"] = _body(way.name, _ref(way.takes), required=True)
    return operation


def _operation(row: Operation) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": row.name,
        "summary": row.summary,
        "description": " ".join((row.request.__doc__ or "").split()),
        "tags": [row.path.split("/")[2]],
        "parameters": [_shown(row.name, parameter) for parameter in _parameters(row) + _beside(row)],
        "responses": _accepted(row) | _refused(_kinds(row), _PROBLEM),
    }
    plan = PLANS[row.request]
    if plan.fields and row.method not in _WITHOUT_BODY:
        schema = _ref(plan.body.type)
        if row.request is t.Append:
            schema = {"anyOf": [schema, _ref(t.Message)]}
        if row.request is b.Submit:
            schema = {"anyOf": [schema, _ref(b.NewTask)]}
        required = any(field.default is NODEFAULT for field in plan.fields)
        operation["requestBody"] = _body(row.name, schema, required=required)
    return operation


# -- what is sent --------------------------------------------------------------------------------------------------
def _parameters(row: Operation) -> list[dict[str, Any]]:
    plan = PLANS[row.request]
    in_query = row.method in _WITHOUT_BODY
    query = [field for field in plan.fields if field.encode_name in plan.query_names and in_query]
    in_path = {field.encode_name: field for field in msgspec.structs.fields(row.request)}
    return [_parameter(in_path[name], "path") for name in row.placeholders] + [_parameter(f, "query") for f in query]


def _beside(row: Operation, consistency: str = "") -> list[dict[str, Any]]:
    """What may be said beside an operation's own fields."""
    if row.writes:
        return [_idempotency_key()]
    fields = msgspec.structs.fields(ReadOptions) if issubclass(row.request, Query) else ()
    usual = {"consistency": consistency or row.consistency}
    return [
        _parameter(msgspec.structs.replace(field, default=usual.get(field.name, field.default)), "query")
        for field in fields
    ]


def _parameter(field: msgspec.structs.FieldInfo, place: str) -> dict[str, Any]:
    (schema,), _ = msgspec.json.schema_components([field.type], ref_template=_REF)
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) == 1:  # a parameter is null by being left out
        (schema,) = kinds
    required = place == "path" or field.default is NODEFAULT
    if not required and field.default is not None:
        schema = schema | {"default": field.default}
    return {"name": field.encode_name, "in": place, "required": required, "schema": schema}


def _shown(operation: str, parameter: dict[str, Any]) -> dict[str, Any]:
    """A parameter with its example, if it needs one."""
    shown = examples.IN_PATH if parameter["in"] == "path" else examples.IN_QUERY.get(operation, {})
    return parameter | {"example": shown[parameter["name"]]} if parameter["name"] in shown else parameter


def _body(operation: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    shown = {"example": examples.BODIES[operation]} if operation in examples.BODIES else {}
    return {"required": required, "content": {_JSON: {"schema": schema} | shown}}


def _idempotency_key() -> dict[str, Any]:
    return {
        "name": "Idempotency-Key",
        "in": "header",
        "required": False,
        "description": "Makes repeating the call safe: the first outcome is kept and given again.",
        "schema": {
            "type": "string",
            "minLength": 1,
            "maxLength": limits.IDEMPOTENCY_KEY_CHARS_MAX,
            "pattern": "^[!-~]+$",
        },
    }


# -- what is answered ----------------------------------------------------------------------------------------------
def _headers(row: Operation) -> dict[str, Any]:
    headers: dict[str, Any] = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
    if row.writes:
        replay = "`true` if this is the kept answer to an earlier call under the same key."
        headers |= {"Idempotent-Replay": {"description": replay, "schema": {"type": "string"}}}
    return headers


def _accepted(row: Operation) -> dict[str, Any]:
    headers = _headers(row)
    content = {_JSON: {"schema": _ref(row.reply)}}
    answers = {str(row.status): {"description": "Accepted.", "headers": headers, "content": content}}
    for status, description in row.reply.also.items():
        answers[str(status)] = {"description": description, "headers": headers}
        if status != 204:
            answers[str(status)] |= {"content": content}
        if status == 202:
            answers[str(status)]["headers"] = headers | {"Retry-After": {"$ref": "#/components/headers/Retry-After"}}
    return answers


def _kinds(row: Operation) -> set[Kind]:
    """Every problem that a call of an operation may meet."""
    codes = [
        *_FOR_ALL,
        *(_FOR_WRITES if row.writes else _FOR_ERRANDS if issubclass(row.request, Errand) else _FOR_READS),
    ]
    return {CATALOGUE[code] for code in codes} | {kind_of(rejection) for rejection in row.rejections}


def _refused(
    kinds: set[Kind], content: dict[str, Any], statuses: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Any]:
    """Refusals by their status; ``statuses`` are those that are told under another one."""
    answers: dict[str, Any] = {}
    for kind in sorted(kinds, key=lambda kind: (kind.status, kind.code)):
        headers = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}
        status = statuses.get(kind.code, kind.status)
        answer = answers.setdefault(str(status), {"description": "", "headers": headers, "content": content})
        if kind.retryable:
            headers["Retry-After"] = {"$ref": "#/components/headers/Retry-After"}
        answer["headers"] |= headers
        answer["description"] = f"{answer['description']}\n\n`{kind.code}`: {kind.title}. {kind.hint}".strip()
    return answers


def _ref(kind: Any) -> dict[str, Any]:
    return {"$ref": _REF.format(name=kind.__name__)}


_PROBLEM = {"application/problem+json": {"schema": _ref(ProblemDocument)}}
