"""The tables, in one place, and the recognition of a file that holds them.

Invariants: ``TABLES`` names every table with all its columns and its key, so that digest and dump can miss nothing. The
file carries an application id, so that no other SQLite file is ever mistaken for a state. Times of rows (``created_ms``)
are calendar time, but those of receipts are cluster time, because they decide something.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

VERSION = 1
"""The behaviour that this code has; a file with a greater one was written by newer code."""
APPLICATION_ID = 0x51524C53
"""``QRLS`` in the header of the file."""


class StateError(Exception):
    """The database is no state of ours, is newer than this code, or contradicts itself."""


class OtherVersion(StateError):
    """The state is sound, and another version of quorl wrote it."""


class Table(NamedTuple):
    """A table: all its columns in order, and those that identify a row."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]


HEADER = (
    "version",
    "sequence",
    "raft_index",
    "raft_term",
    "now_ms",
    "wall_ms",
    "cluster_id",
    "digest",
    "next_topic_id",
    "first_receipt",
    "next_receipt",
)
"""The columns of the one row of ``machine``."""

TABLES = (
    Table("machine", HEADER, ("version",)),
    Table(
        "topics",
        ("topic_id", "name", "partitions", "next_producer_id", "next_consumer_id", "next_partition", "created_ms"),
        ("topic_id",),
    ),
    Table("partitions", ("topic_id", "partition", "next_offset", "size_bytes"), ("topic_id", "partition")),
    Table(
        "batches",
        ("topic_id", "partition", "base_offset", "count", "created_ms", "size_bytes", "body"),
        ("topic_id", "partition", "base_offset"),
    ),
    Table("producers", ("topic_id", "producer_id", "name", "created_ms"), ("topic_id", "producer_id")),
    Table("consumers", ("topic_id", "consumer_id", "name", "created_ms", "turn"), ("topic_id", "consumer_id")),
    Table(
        "cursors",
        ("topic_id", "consumer_id", "partition", "start_offset", "next_offset"),
        ("topic_id", "consumer_id", "partition"),
    ),
    Table("graves", ("topic_id",), ("topic_id",)),
    Table("receipts", ("ordinal", "op", "key", "fingerprint", "kept_ms", "outcome"), ("ordinal",)),
)

_DDL = (
    """CREATE TABLE machine (
        version INTEGER NOT NULL, sequence INTEGER NOT NULL, raft_index INTEGER NOT NULL, raft_term INTEGER NOT NULL,
        now_ms INTEGER NOT NULL, wall_ms INTEGER NOT NULL, cluster_id TEXT, digest BLOB NOT NULL,
        next_topic_id INTEGER NOT NULL, first_receipt INTEGER NOT NULL, next_receipt INTEGER NOT NULL)""",
    """CREATE TABLE topics (
        topic_id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, partitions INTEGER NOT NULL,
        next_producer_id INTEGER NOT NULL, next_consumer_id INTEGER NOT NULL, next_partition INTEGER NOT NULL,
        created_ms INTEGER NOT NULL)""",
    """CREATE TABLE partitions (
        topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
        size_bytes INTEGER NOT NULL, PRIMARY KEY (topic_id, partition)) WITHOUT ROWID""",
    # With a rowid: bodies are large, and a tree with large rows in its inner pages grows deep. New rows go to the end
    # of the file whatever their topic; only the narrow index is spread.
    """CREATE TABLE batches (
        topic_id INTEGER NOT NULL, partition INTEGER NOT NULL, base_offset INTEGER NOT NULL, count INTEGER NOT NULL,
        created_ms INTEGER NOT NULL, size_bytes INTEGER NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (topic_id, partition, base_offset))""",
    """CREATE TABLE producers (
        topic_id INTEGER NOT NULL, producer_id INTEGER NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,
        PRIMARY KEY (topic_id, producer_id)) WITHOUT ROWID""",
    """CREATE TABLE consumers (
        topic_id INTEGER NOT NULL, consumer_id INTEGER NOT NULL, name TEXT NOT NULL, created_ms INTEGER NOT NULL,
        turn INTEGER NOT NULL, PRIMARY KEY (topic_id, consumer_id)) WITHOUT ROWID""",
    """CREATE TABLE cursors (
        topic_id INTEGER NOT NULL, consumer_id INTEGER NOT NULL, partition INTEGER NOT NULL,
        start_offset INTEGER NOT NULL, next_offset INTEGER NOT NULL,
        PRIMARY KEY (topic_id, consumer_id, partition)) WITHOUT ROWID""",
    "CREATE TABLE graves (topic_id INTEGER PRIMARY KEY)",
    """CREATE TABLE receipts (
        ordinal INTEGER PRIMARY KEY, op TEXT NOT NULL, key TEXT NOT NULL, fingerprint BLOB NOT NULL,
        kept_ms INTEGER NOT NULL, outcome BLOB NOT NULL, UNIQUE (key, op))""",
)


def create(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database, without the row of ``machine``; the caller holds the transaction."""
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    for statement in _DDL:
        connection.execute(statement)


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether nothing was ever created in this database."""
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    return int(tables) == 0 and int(application_id) == 0


def recognise(connection: sqlite3.Connection) -> None:
    """Raise ``StateError`` unless the database is a state that this code may go on writing."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    if application_id != APPLICATION_ID:
        raise StateError("The database is not a state of quorl: its application id is another. Check the path.")
    for table in TABLES:
        columns = tuple(name for _, name, *_ in connection.execute(f"PRAGMA table_info({table.name})"))
        if columns != table.columns:
            raise OtherVersion(f"The table {table.name} has not the columns that version {VERSION} of the state has.")
    rows = connection.execute(
        "SELECT version, sequence, raft_index, raft_term FROM machine ORDER BY version"
    ).fetchall()
    if len(rows) != 1:
        raise StateError(f"The state must have one row in the table machine and has {len(rows)}.")
    version, sequence, raft_index, raft_term = rows[0]
    if version > VERSION:
        raise OtherVersion(f"The state has version {version} and this code knows {VERSION}: start a newer quorl.")
    if not 0 <= sequence <= raft_index or raft_term < 0:
        raise StateError(f"The state's position contradicts itself: {sequence} entries at Raft index {raft_index}.")
