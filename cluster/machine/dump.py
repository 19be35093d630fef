"""A whole state as a stream of bytes that depends on its content alone, and back.

The stream: records, each four bytes of length and a msgpack array. The first says what the stream is, then come the
rows, each behind the number of its table, and the last says how many rows there were, with a SHA-256 of all before it.
So a stream that was cut or changed is refused, and nothing of it stays.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from quorl.cluster.machine import schema
from quorl.cluster.machine.schema import TABLES, StateError

_MAGIC = "quorl-state"
_RECORD_BYTES_MAX = 64 * 1024 * 1024
"""No row is nearly as large: what says so is damaged."""
_DAMAGE = (
    msgspec.DecodeError,
    ValueError,
    TypeError,
    OverflowError,
    IndexError,
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
)
"""What a changed record leads to, one way or another."""
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


def dump(connection: sqlite3.Connection) -> Iterator[bytes]:
    """The state in chunks. The caller holds a read transaction if somebody else may write meanwhile."""
    seen = hashlib.sha256()
    rows = 0

    def record(*values: Any) -> bytes:
        blob = _encode(values)
        chunk = len(blob).to_bytes(4, "big") + blob
        seen.update(chunk)
        return chunk

    yield record(_MAGIC, schema.VERSION)
    for number, table in enumerate(TABLES):
        columns, key = ", ".join(table.columns), ", ".join(table.key)
        for row in connection.execute(f"SELECT {columns} FROM {table.name} ORDER BY {key}"):
            rows += 1
            yield record(number, *row)
    yield record("end", rows, seen.digest())


def load(connection: sqlite3.Connection, chunks: Iterable[bytes]) -> None:
    """Fill an empty database from a dump, however it was cut into chunks. Raises ``StateError`` and leaves it empty."""
    if not schema.is_empty(connection):
        raise StateError("A dump is loaded into an empty database only.")
    connection.execute("BEGIN IMMEDIATE")
    try:
        schema.create(connection)
        _fill(connection, chunks)
        schema.recognise(connection)
        connection.execute("COMMIT")
    except _DAMAGE as error:
        connection.rollback()
        raise StateError(f"The dump is damaged: {error}.") from error
    except BaseException:
        connection.rollback()
        raise


def _fill(connection: sqlite3.Connection, chunks: Iterable[bytes]) -> None:
    inserts = [
        f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({', '.join('?' * len(table.columns))})"
        for table in TABLES
    ]
    records = _records(chunks)
    if next(records, ([], b""))[0] != [_MAGIC, schema.VERSION]:
        raise StateError("This is no dump of a state that this code knows.")
    rows = 0
    ended = False
    for (number, *row), seen in records:
        if ended:
            raise ValueError("something follows its end")
        if number == "end":
            if row != [rows, seen]:
                raise ValueError("its end does not fit what came before")
            ended = True
        else:
            connection.execute(inserts[number], row)
            rows += 1
    if not ended:
        raise ValueError("it ends too early")


def _records(chunks: Iterable[bytes]) -> Iterator[tuple[list[Any], bytes]]:
    """The records, each with the digest of all before it."""
    seen = hashlib.sha256()
    buffer = bytearray()
    for chunk in chunks:
        buffer += chunk
        while len(buffer) >= 4:
            size = int.from_bytes(buffer[:4], "big")
            if size > _RECORD_BYTES_MAX:
                raise ValueError("it has a record of an impossible size")
            if len(buffer) < 4 + size:
                break
            before = seen.digest()
            seen.update(buffer[: 4 + size])
            values = _decode(buffer[4 : 4 + size])
            del buffer[: 4 + size]
            if not values:
                raise ValueError("it has an empty record")
            yield values, before
    if buffer:
        raise ValueError("it ends in the middle of a record")
