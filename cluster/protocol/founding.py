"""The founding routes as the outside sees them: what each takes, and what it answers, as schemas.

``node/founding.py`` decodes by the same input types; the answers are held against these schemas by the API tests.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.topics import TopicName

_ID = Annotated[
    int | str,
    Meta(
        description="An integer from 1 on, or its text.",
        extra_json_schema={"minimum": 1, "maximum": limits.INTEGER_MAX, "pattern": "^[1-9][0-9]{0,14}$"},
    ),
]


class Input(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one route takes."""


class Nothing(Input, frozen=True):
    """No input."""


class TopicByName(Input, frozen=True):
    """A topic to create."""

    name: TopicName


class ForTopic(Input, frozen=True):
    """A topic to register for."""

    topic: TopicName


class MessageForTopic(Input, frozen=True):
    """A message to append; it may be any JSON value."""

    topic: TopicName
    producer_id: _ID
    message: msgspec.Raw


class ForConsumer(Input, frozen=True):
    """The consumer that reads on."""

    topic: TopicName
    consumer_id: _ID


class ForSize(Input, frozen=True):
    """A topic, and perhaps the consumer for whom unread messages are counted."""

    topic: TopicName
    consumer_id: _ID | None = None


class Way(NamedTuple):
    """One method of one founding path, as it is documented. ``fields`` of its answer stand beside ``status``."""

    name: str
    method: str
    path: str
    row: str
    """The operation of the table that it is."""
    takes: type[Input]
    summary: str
    answer: dict[str, Any]


def _object(fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields, "required": [*fields], "additionalProperties": False}


def _success(**fields: Any) -> dict[str, Any]:
    return _object({"status": {"const": "success"}} | fields)


_WHOLE = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string"}
_BEAT = _object({"last_heartbeat": _TEXT, "status": {"enum": ["ALIVE", "DEAD"]}})
_RESULT = _object({"status": _TEXT, "result": {"type": ["string", "null"]}})
FAILURE = _object({"status": {"const": "failure"}, "message": _TEXT, "code": _TEXT, "hint": _TEXT})
NOT_FOUND = {
    "type": "object",
    "additionalProperties": _object({"status": {"const": "not_found"}, "result": {"type": "null"}}),
}

WAYS: tuple[Way, ...] = (
    Way("founding_topics", "GET", "/topics", "list_topics", Nothing, "List the names of topics, at most 1 000.", _success(topics={"type": "array", "items": _TEXT})),
    Way("founding_create", "POST", "/topics", "create_topic", TopicByName, "Create a topic; a second time is a failure.", _success(message=_TEXT)),
    Way("founding_producer", "POST", "/producer/register", "register_producer", ForTopic, "Register a producer.", _success(producer_id=_WHOLE)),
    Way("founding_consumer", "POST", "/consumer/register", "register_consumer", ForTopic, "Register a consumer.", _success(consumer_id=_WHOLE)),
    Way("founding_produce", "POST", "/producer/produce", "append", MessageForTopic, "Append one message.", _success(partition=_WHOLE, offset=_WHOLE)),
    Way(
        "founding_consume",
        "GET",
        "/consumer/consume",
        "consume",
        ForConsumer,
        "Read the next message, and move the consumer on; that there is none is a failure with status 200.",
        {"oneOf": [_success(message={}), _object({"status": {"const": "failure"}, "message": {"const": "no new message"}})]},
    ),
    Way("founding_size", "GET", "/size", "get_size", ForSize, "Count the messages of a topic, or those that a consumer has not read.", _success(size=_WHOLE, total=_WHOLE)),
    Way("founding_heartbeats", "GET", "/all_heartbeats", "list_workers", Nothing, "When each worker was heard last, by its name.", {"type": "object", "additionalProperties": _BEAT}),
    Way("founding_result", "GET", "/results/{id}", "get_result", Nothing, "The result of one task, by its id.", {"type": "object", "additionalProperties": _RESULT, "minProperties": 1, "maxProperties": 1}),
)  # fmt: skip
"""Every founding route; ``routes.FOUNDING_PATHS`` are their paths."""
