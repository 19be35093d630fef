"""What types cannot say and ``wire`` checks all the same, in the words of JSON Schema.

A caller who generates requests from the document then makes none that is refused for its form.
"""

from __future__ import annotations

from typing import Any

from quorl.cluster.protocol import limits

_TEXT = {"type": "string"}
_LABELS = {
    "type": "object",
    "maxProperties": limits.MESSAGE_HEADERS_MAX,
    "propertyNames": {"maxLength": limits.MESSAGE_HEADER_CHARS_MAX},
    "additionalProperties": {"type": "string", "maxLength": limits.MESSAGE_HEADER_CHARS_MAX},
}


def _given(name: str, kind: dict[str, Any]) -> dict[str, Any]:
    """That a field is there, and not null."""
    return {"required": [name], "properties": {name: kind}}


def _at_most_one(*names: str, kind: dict[str, Any]) -> list[dict[str, Any]]:
    """That no two spellings of one field stand together."""
    pairs = [(one, other) for number, one in enumerate(names) for other in names[number + 1 :]]
    return [{"not": {"allOf": [_given(one, kind), _given(other, kind)]}} for one, other in pairs]


_TASK = [
    {"oneOf": [_given(name, _TEXT) for name in ("name", "task", "task_type")]},
    *_at_most_one("id", "task_id", "task-id", kind=_TEXT),
    *_at_most_one("args", "task_args", kind={}),
    *({"properties": {name: {"not": {"enum": [".", ".."]}}}} for name in ("id", "task_id", "task-id")),
    {"not": {"allOf": [_given("run_at", _TEXT), _given("delay_ms", {"minimum": 1})]}},
]
_BACKOFF = [
    {
        "if": _given("kind", {"const": "list"}),
        "then": _given("delays_ms", {"minItems": 1}),
        "else": {"properties": {"delays_ms": {"maxItems": 0}}},
    }
]
_NO_DOTS = {"not": {"enum": [".", ".."]}}
"""Names that stand in paths: URLs drop those."""
_QUEUES = {
    "uniqueItems": True,
    "items": {"type": "string", "minLength": 1, "maxLength": limits.QUEUE_NAME_CHARS_MAX} | _NO_DOTS,
}
_FIELDS: dict[str, dict[str, dict[str, Any]]] = {
    "Message": {"headers": {"anyOf": [_LABELS, {"type": "null"}]}},
    "NewTask": {"meta": {"anyOf": [_LABELS, {"type": "null"}]}},
    "CreateTopicBody": {"name": _NO_DOTS},
    "TopicByName": {"name": _NO_DOTS},
    "RegisterWorkerBody": {"queues": _QUEUES},
    "ClaimBody": {"queues": _QUEUES},
    "OneClaim": {"queues": _QUEUES},
    "Wish": {"queues": _QUEUES},
}


def add_rules(schemas: dict[str, Any]) -> None:
    """Put the rules into the shapes that they are about."""
    schemas["NewTask"]["allOf"] = _TASK
    schemas["Backoff"]["allOf"] = _BACKOFF
    for name, fields in _FIELDS.items():
        for field, rule in fields.items():
            schemas[name]["properties"][field] |= rule
