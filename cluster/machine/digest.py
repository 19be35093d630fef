"""A digest over the rows themselves, to prove that two states are equal however each came about."""

from __future__ import annotations

import hashlib
import sqlite3

import msgspec

from quorl.cluster.machine.schema import TABLES


def content_digest(connection: sqlite3.Connection) -> str:
    """SHA-256 over every row of every table, in the order of their keys: equal if and only if the contents are.

    The caller holds a read transaction if somebody else may write meanwhile.
    """
    chain = hashlib.sha256()
    encode = msgspec.msgpack.Encoder().encode
    for table in TABLES:
        chain.update(encode((table.name, table.columns)))
        rows = connection.execute(
            f"SELECT {', '.join(table.columns)} FROM {table.name} ORDER BY {', '.join(table.key)}"
        )
        for row in rows:
            blob = encode(row)
            chain.update(len(blob).to_bytes(8, "big"))
            chain.update(blob)
    return chain.hexdigest()
