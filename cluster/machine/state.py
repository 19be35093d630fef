"""The connection, and what is remembered of its rows in Python between commands.

Invariants: whoever changes a row changes what is remembered of it in the same function, after the row. ``undo_command``,
``begin_again`` and ``abandon`` (of a whole transaction) bring both back to the same point. Topics are remembered only to save reading
them again; the header is written once per entry, in the entry's transaction, and so is what ``books`` says of queues
and workers, and what the entry leaves in receipts.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from quorl.cluster.machine import schema
from quorl.cluster.machine.books import Books
from quorl.cluster.machine.events import Event, News

_TOPICS_REMEMBERED_MAX = 10_000
_LEASES_REMEMBERED_MAX = 100_000
"""With more in use all of them are forgotten, and read back one by one: slower, and bounded."""
_INSERT_HEADER = f"INSERT INTO machine ({', '.join(schema.HEADER)}) VALUES ({', '.join('?' * len(schema.HEADER))})"
_UPDATE_HEADER = f"UPDATE machine SET {', '.join(f'{column} = ?' for column in schema.HEADER)}"
_SELECT_HEADER = f"SELECT {', '.join(schema.HEADER)} FROM machine"
_SELECT_TOPIC = (
    "SELECT topic_id, name, partitions, next_producer_id, next_consumer_id, next_partition, created_ms,"
    " sampled FROM topics WHERE name = ?"
)
_SELECT_GRAVE = "SELECT min(topic_id) FROM graves"
_SELECT_LEADER = "SELECT max(term) FROM leaders"
_SELECT_ENDS = "SELECT next_offset, size_bytes FROM ends WHERE topic_id = ? ORDER BY partition"


class Header(msgspec.Struct):
    """The one row of ``machine``; the fields stand in the order of its columns."""

    version: int = schema.VERSION
    sequence: int = 0
    raft_index: int = 0
    raft_term: int = 0
    now_ms: int = 0
    wall_ms: int = 0
    cluster_id: str | None = None
    digest: bytes = bytes(32)
    next_topic_id: int = 1
    first_receipt: int = 1
    next_receipt: int = 1
    next_queue_id: int = 1
    next_ordinal: int = 1
    next_token: int = 1
    next_worker_id: int = 1
    loose_count: int = 0
    loose_keys: bytes = b""
    loose_outcomes: bytes = b""
    messages: int = 0


assert Header.__struct_fields__ == schema.HEADER


class Topic(msgspec.Struct):
    """A topic's row, and where each of its partitions ends, in messages and in bytes of them."""

    topic_id: int
    name: str
    partitions: int
    next_producer_id: int
    next_consumer_id: int
    next_partition: int
    created_ms: int
    sampled: int
    ends: list[int] = msgspec.field(default_factory=list)
    end_bytes: list[int] = msgspec.field(default_factory=list)


class Lease(NamedTuple):
    """What completing needs to know of a task that runs, and no more, since it is done so often."""

    ordinal: int
    id: str
    queue_id: int
    attempts: int
    worker_id: int
    claimed_ms: int


class State(Books):
    """Rows, header and everything remembered, moving together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Read the header, creating the tables in an empty database. Raises ``StateError``."""
        super().__init__()
        self.connection = connection
        cursor = connection.cursor()
        self.execute = cursor.execute
        """For statements whose result is fetched at once or not at all: one cursor, made once."""
        self.execute_many = cursor.executemany
        if schema.is_empty(connection):
            connection.execute("BEGIN IMMEDIATE")
            schema.create(connection)
            connection.execute(_INSERT_HEADER, msgspec.structs.astuple(Header()))
            connection.execute("COMMIT")
        schema.recognise(connection)
        self.events: list[Event] = []
        self.news = News()
        self.leases: dict[int, Lease] = {}
        """Those that run, by their tokens; not all of them."""
        self.fresh_receipts: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        """Those of this entry, by operation and key: the fingerprint and the encoded outcome."""
        self.receipt_rows: dict[str, dict[str, int]] | None = None
        """The rows of all others, by operation and key; None when they must be read."""
        self._receipt_changes: list[tuple[int | None, Iterable[tuple[str, str]]]] = []
        """What the transaction has done to ``receipt_rows``, in order: operations and keys, added, or cleared away with that row."""
        self.oldest_receipts: tuple[int, int] | None = None
        """How many stand in the first row, and when they were kept; None when that must be looked up."""
        self.grave: int | None = None
        """The id of the oldest topic that was deleted and has left rows behind."""
        self.index = self.term = self.seed = 0
        """Of the entry that is being applied."""
        self._topics: dict[str, Topic] = {}
        self.unsampled_topics: set[str] | None = None
        """Those that may have grown since they were sampled last; None: any."""
        self.reload()

    def reload(self) -> None:
        """Forget everything remembered, and read the header anew."""
        self._forget_all()
        self.receipt_rows = None
        self._receipt_changes = []
        self.header = Header(*self.execute(_SELECT_HEADER).fetchone())
        self.look_for_grave()
        self.led_term: int | None = self.execute(_SELECT_LEADER).fetchone()[0]
        """The last term of which it is known who led."""
        self.committed_header = self._before_command = self._before_transaction = msgspec.structs.replace(self.header)
        self._unread = False
        """Whether something of this could not be read after rows were undone."""

    def _forget_all(self) -> None:
        self._topics.clear()
        self.unsampled_topics = None
        self.leases.clear()
        self.fresh_receipts = {}
        self.oldest_receipts = None
        self.clear_books()

    # -- one entry ----------------------------------------------------------------------------------------------
    def begin(self, index: int, term: int, *, within: bool) -> None:
        """Open the transaction of an entry, or go on ``within`` that of those before."""
        if self._unread:
            self.reload()
        self.events, self.news = [], News()
        self.index, self.term = index, term
        self.bound_books()
        if len(self.leases) > _LEASES_REMEMBERED_MAX:
            self.leases.clear()
        self.committed_header = msgspec.structs.replace(self.header)
        if not within:
            self._before_transaction = self.committed_header
            self.execute("BEGIN IMMEDIATE")
        assert self.connection.in_transaction, "else every statement would be one of its own"

    def write(self) -> None:
        """Write the header and the books: all that is left to do is ``commit`` or ``keep``."""
        self.write_books()
        self.events += self.news.events()
        self.execute(_UPDATE_HEADER, msgspec.structs.astuple(self.header))

    def commit(self) -> None:
        """End the transaction of the entry: from now on it is seen."""
        self.execute("COMMIT")
        self.keep()
        self._receipt_changes = []

    def keep(self) -> None:
        """The entry is seen from now on; its transaction goes on."""
        self.committed_header = self.header

    def begin_again(self) -> None:
        """Bring rows and memory back to what they were before the entry, and open its transaction anew."""
        receipt_rows = self._take_receipts_back()
        self.execute("ROLLBACK")
        self.reload()
        self.receipt_rows = receipt_rows
        self.events, self.news = [], News()
        self.execute("BEGIN IMMEDIATE")

    def abandon(self) -> None:
        """Bring rows and memory back to what they were before the transaction, as far as a broken disk lets us."""
        self.events = []
        self._forget_all()
        before, receipt_rows = self._before_transaction, self._take_receipts_back()
        self.header = msgspec.structs.replace(self.committed_header)
        self._unread = True
        with contextlib.suppress(sqlite3.Error, MemoryError):
            if self.connection.in_transaction:  # a full disk ends the transaction by itself
                self.connection.rollback()
            self.reload()
            if self.header == before:  # else what was done stayed: its end only said that it had failed
                self.receipt_rows = receipt_rows

    def bring_back(self) -> None:
        """The same, whatever has undone the transaction, or raise what the disk says."""
        self.abandon()
        if self._unread:
            self.reload()

    # -- receipts -----------------------------------------------------------------------------------------------
    def note_kept(self, receipts: Iterable[tuple[str, str]]) -> None:
        """The entry is about to add these to ``receipt_rows``: they go if it is undone."""
        self._receipt_changes.append((None, receipts))

    def note_cleared(self, ordinal: int, receipts: list[tuple[str, str]]) -> None:
        """The entry is about to remove that row, in which these stand: they come back if it is undone."""
        self._receipt_changes.append((ordinal, receipts))

    def _take_receipts_back(self) -> dict[str, dict[str, int]] | None:
        """The ``receipt_rows`` from before the transaction, and remember none: there are too many to read them again."""
        rows, self.receipt_rows = self.receipt_rows, None
        if rows is not None:
            for ordinal, receipts in reversed(self._receipt_changes):
                for op, key in receipts:
                    if ordinal is None:
                        rows[op].pop(key, None)
                    else:
                        rows[op][key] = ordinal
        self._receipt_changes = []
        return rows

    # -- one command, by itself ---------------------------------------------------------------------------------
    def open_command(self) -> None:
        """Write what is only remembered, so that the next command can be undone alone."""
        self.write_books()
        self._before_command = msgspec.structs.replace(self.header)
        self._grave_before = self.grave
        self._events_before, self._news_before = len(self.events), self.news.copy()
        self.execute("SAVEPOINT command")

    def keep_command(self) -> None:
        """The command stays."""
        self.execute("RELEASE command")

    def undo_command(self) -> None:
        """Bring rows and memory back to what they were before the command."""
        self.execute("ROLLBACK TO command")
        self.execute("RELEASE command")
        fresh = self.fresh_receipts  # a command that has left one did not fail
        self._forget_all()
        self.fresh_receipts = fresh
        self.header = self._before_command
        self.grave = self._grave_before
        del self.events[self._events_before :]
        self.news = self._news_before

    # -- graves -------------------------------------------------------------------------------------------------
    def look_for_grave(self) -> None:
        """Find the oldest grave, after it was another."""
        (self.grave,) = self.execute(_SELECT_GRAVE).fetchone()

    # -- topics -------------------------------------------------------------------------------------------------
    def topic(self, name: str) -> Topic | None:
        """The topic of that name, remembered or read."""
        found = self._topics.get(name)
        if found is None:
            row = self.execute(_SELECT_TOPIC, (name,)).fetchone()
            if row is None:
                return None
            found = Topic(*row)
            for end, size_bytes in self.execute(_SELECT_ENDS, (found.topic_id,)).fetchall():
                found.ends.append(end)
                found.end_bytes.append(size_bytes)
            if len(self._topics) >= _TOPICS_REMEMBERED_MAX:
                self._topics.clear()
            self._topics[name] = found
        return found

    def forget(self, name: str) -> None:
        """Remember a topic no longer, because its row is gone."""
        self._topics.pop(name, None)
