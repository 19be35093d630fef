"""What users hand in and get back: values and messages, between Python and the wire.

A value is any JSON value: whatever msgspec encodes (text stays text; dataclasses, dates and UUIDs become their JSON
form, bytes base64 text). The protocol's own reply structs are public as they are; only messages are unwrapped here, because
on the wire their value is raw JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import msgspec

from quorl.client.errors import invalid
from quorl.client.validated import to_json
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t

MESSAGE_OVERHEAD_BYTES = 64
"""What the names of a message's fields and its producer id add to a request, at most."""

JSON_HINT = "Send numbers, text, lists, objects, dataclasses, dates, UUIDs or bytes."
"""What to do about a value that has no JSON form."""

_encode = msgspec.json.Encoder(enc_hook=to_json).encode
_decode = msgspec.json.Decoder().decode


class Message(NamedTuple):
    """A message as it is read back."""

    topic: str
    partition: int
    offset: int
    value: Any
    """The decoded JSON value."""
    created_at: str
    """RFC 3339 in UTC with milliseconds; never decreases along a partition."""
    key: str | None
    headers: dict[str, str]
    producer_id: int | None
    raw: bytes
    """The value byte for byte as it was sent."""


class MessageDetails(NamedTuple):
    """One message, and the ids of the consumers that have read it."""

    message: Message
    read_by: list[int]


class Placed(NamedTuple):
    """Where a message was stored."""

    partition: int
    offset: int


MessageLike: TypeAlias = t.Message | Any
"""What ``append_many`` takes: plain values, or messages made with ``message``."""


def message(
    value: Any, *, key: str | None = None, headers: dict[str, str] | None = None, producer: int | None = None
) -> t.Message:
    """Make a message to send; ``key`` decides its partition."""
    if key is not None and not isinstance(key, str):
        raise TypeError(f"the key of a message is text, and {key!r} is none")
    for pair in headers.items() if headers else ():
        if not all(isinstance(part, str) for part in pair):
            raise TypeError(f"the headers of a message are text by text, and {pair!r} is not")
    return t.Message(value=_raw(value), key=key, headers=headers or None, producer_id=producer)


def _raw(value: Any) -> msgspec.Raw:
    if isinstance(value, msgspec.Raw):
        return value
    try:
        return msgspec.Raw(_encode(value))
    except UnicodeEncodeError as error:
        raise invalid(f"the value holds text that is not Unicode: {error.reason}", pointer="/value") from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise invalid(f"the value has no JSON form: {error}", JSON_HINT, "/value") from None


def messages(values: Iterable[MessageLike], producer: int | None = None) -> list[t.Message]:
    """Make messages of plain values; those that are messages already get the producer if they name none."""
    if isinstance(values, (str, bytes, Mapping)):  # whose letters or keys would become the messages
        raise TypeError(f"many messages come as one list, and {values!r:.80} is none: append takes one")
    return [
        _by(producer, value) if isinstance(value, t.Message) else message(value, producer=producer) for value in values
    ]


def _by(producer: int | None, one: t.Message) -> t.Message:
    if producer is None or one.producer_id is not None:
        return one
    return msgspec.structs.replace(one, producer_id=producer)


def size_bytes(batch: Sequence[t.Message]) -> int:
    """Return about how much of a request the messages fill, never less than they do."""
    return sum(_size_bytes(one) for one in batch)


def topic_bytes(topic: str) -> int:
    """Return about how much naming a topic adds to a request, never less than it does."""
    return MESSAGE_OVERHEAD_BYTES + 6 * len(topic)


def _size_bytes(one: t.Message) -> int:
    size = MESSAGE_OVERHEAD_BYTES + len(memoryview(one.value))
    if one.key is not None:
        size += 6 * len(one.key)
    if one.headers:
        size += sum(6 * (len(name) + len(value) + 1) for name, value in one.headers.items())
    return size


def check_size(one: t.Message) -> None:
    """Refuse a value that no node would take."""
    size = len(memoryview(one.value))
    if size > limits.MESSAGE_VALUE_BYTES_MAX:
        hint = "Store large data elsewhere and send its URL."
        raise invalid(
            f"the value has {size} bytes as JSON; {limits.MESSAGE_VALUE_BYTES_MAX} are allowed", hint, "/value"
        )


def read_value(stored: t.StoredMessage | t.MessageInfo) -> Any:
    """Return the decoded value of a message from the wire."""
    return _decode(bytes(stored.value))


def read_message(topic: str, stored: t.StoredMessage | t.MessageInfo) -> Message:
    """Unwrap a message from the wire."""
    raw = bytes(stored.value)
    return Message(
        topic,
        stored.partition,
        stored.offset,
        _decode(raw),
        stored.created_at,
        stored.key,
        stored.headers or {},
        stored.producer_id,
        raw,
    )


def placed(ranges: Sequence[t.Range]) -> Placed:
    """Return the place of the one message in ``ranges``."""
    (only,) = ranges
    return Placed(only.partition, only.first_offset)
