"""Reading messages out of record batches.

Invariants: a batch is decoded once per read, whatever the number of messages taken from it. A page holds about
``PAGE_BYTES_MAX`` of bodies at most: they are fetched one by one, and counted whole and unpacked.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from typing import TypeAlias

import msgspec

from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.packing import unpack, unpacked_bytes

_BATCHES = (
    "SELECT base_offset, count, created_ms, body FROM batches WHERE topic_id = ?1 AND partition = ?2 AND base_offset >="
    " (SELECT max(base_offset) FROM batches WHERE topic_id = ?1 AND partition = ?2 AND base_offset <= ?3)"
    " ORDER BY base_offset LIMIT ?4"
)
_BATCH_BEFORE = (
    "SELECT base_offset, count, created_ms FROM batches WHERE topic_id = ? AND partition = ? AND base_offset <= ?"
    " ORDER BY base_offset DESC LIMIT 1"
)
_TOPIC_EXISTS = "SELECT 1 FROM topics WHERE topic_id = ?"


Place: TypeAlias = tuple[int, int, int]
"""What identifies a batch: topic id, partition, base offset."""


class StoredPayload(msgspec.Struct, gc=False):
    """A message as it lies in a body; what is unknown there is left for newer code."""

    value: msgspec.Raw
    key: str | None = None
    headers: dict[str, str] | None = None
    producer_id: int | None = None


Decode: TypeAlias = Callable[[Place, bytes], list[StoredPayload]]
"""Turns the body of a batch into its messages, which are not to be changed."""
_decode_body = msgspec.json.Decoder(list[StoredPayload]).decode


def decode_anew(_place: Place, body: bytes) -> list[StoredPayload]:
    """The messages of a batch, decoded anew."""
    return _decode_body(unpack(body))


@contextlib.contextmanager
def one_moment(connection: sqlite3.Connection) -> Iterator[None]:
    """Everything that is read inside comes from one moment of the state."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.rollback()


def messages(
    connection: sqlite3.Connection,
    topic_id: int,
    partition: int,
    first: int,
    count: int,
    room_bytes: int | None = limits.PAGE_BYTES_MAX,
    *,
    decode: Decode = decode_anew,
) -> list[t.StoredMessage]:
    """At most ``count`` messages from the offset ``first`` on, which exists; at least one, and all without ``room_bytes``."""
    items: list[t.StoredMessage] = []
    size_bytes = 0
    for base, created_ms, body in _bodies(connection, topic_id, partition, first, count):
        body_bytes = unpacked_bytes(body, len(body))
        if items and room_bytes is not None and size_bytes + body_bytes > room_bytes:
            break
        size_bytes += body_bytes
        created_at = moment.to_text(created_ms)
        start = max(0, first - base)
        payloads = decode((topic_id, partition, base), body)[start : start + count - len(items)]
        items += [  # by their places: half of what names would take
            t.StoredMessage(partition, offset, one.value, created_at, one.key, one.headers, one.producer_id)
            for offset, one in enumerate(payloads, base + start)
        ]
        if len(items) == count:
            break
    return items


def _bodies(
    connection: sqlite3.Connection, topic_id: int, partition: int, first: int, count: int
) -> Iterator[tuple[int, int, bytes]]:
    """Base offset, time and body of the batches from the one with the offset ``first`` on, read one at a time."""
    cursor = connection.execute(_BATCHES, (topic_id, partition, first, count))
    try:
        for base, _, created_ms, body in cursor:
            yield base, created_ms, body
    finally:
        cursor.close()


def consumed(
    connection: sqlite3.Connection, decided: t.ConsumedSpans, decode: Decode = decode_anew
) -> t.Consumed | t.TopicNotFound:
    """The messages that a ``Consume`` gave out, now or earlier; they are never changed, but their topic may be gone."""
    items: list[t.StoredMessage] = []
    with one_moment(connection):
        if connection.execute(_TOPIC_EXISTS, (decided.topic_id,)).fetchone() is None:
            return t.TopicNotFound(detail="The topic was deleted after these messages were given out.")
        for span in decided.spans:
            place = decided.topic_id, span.partition, span.first_offset
            items += messages(connection, *place, span.count, None, decode=decode)
    return t.Consumed(items=items, remaining=decided.remaining)


def first_at(connection: sqlite3.Connection, topic_id: int, partition: int, end: int, moment_ms: int) -> int:
    """The offset of the first message created at or after a moment; ``end`` if there is none.

    Creation times never decrease along a partition, so halving finds it without an index.
    """
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        base, count, created_ms = connection.execute(_BATCH_BEFORE, (topic_id, partition, middle)).fetchone()
        if created_ms >= moment_ms:
            high = base
        else:
            low = base + count
    return low
