"""A machine on a database in memory, driven one command at a time."""

from __future__ import annotations

import hashlib
import sqlite3
from typing import Any, TypeVar

import msgspec

from quorl.cluster.machine import receipts
from quorl.cluster.machine.check import check
from quorl.cluster.machine.machine import Applied, Machine, Outcome
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Entry, Sealed, encode_command, encode_entry
from quorl.cluster.protocol.grammar import Command, Query, Rejection, Reply

R = TypeVar("R")
START_MS = 1_700_000_000_000


def connect(path: str = ":memory:") -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=512)
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
    return connection


def seal(command: Command[Any], key: str | None = None) -> Sealed:
    blob = encode_command(command)
    return Sealed(key, hashlib.blake2b(blob, digest_size=16).digest(), blob)


def message(value: object, key: str | None = None, producer_id: int | None = None, **headers: str) -> t.Message:
    return t.Message(
        value=msgspec.Raw(msgspec.json.encode(value)), key=key, headers=headers or None, producer_id=producer_id
    )


class Rig:
    """One replica, with the clocks in the test's hands."""

    _way = 0

    def __init__(self, path: str = ":memory:", first_way: int | None = 0) -> None:
        """``first_way``: how the first entry is applied, see ``apply_raw``; None: none is ever prepared."""
        self.connection = connect(path)
        self.machine = Machine(self.connection, None if first_way is None else lambda: connect(":memory:"))
        self._way = first_way or 0
        self.now_ms = 0
        self.wall_ms = START_MS

    def payload(self, *sealed: Sealed) -> bytes:
        return encode_entry(Entry(self.now_ms, self.wall_ms, sealed))

    def apply(self, *sealed: Sealed) -> Applied:
        return self.apply_raw(self.payload(*sealed))

    def apply_raw(self, payload: bytes) -> Applied:
        return self.applied(1, payload)

    def applied(self, term: int, payload: bytes) -> Applied:
        """Apply the next entry, in one of the ways that lead to the same: unprepared, prepared, with that taken back, left open,
        or with one that was left open.

        What is remembered of alarms must not hide one that its rows have, and of receipts it must be what is read.
        """
        index, way = self.machine.position.index + 1, self._way % 5
        self._way += 1
        if way in {1, 2}:
            self.machine.prepare(index, term, payload)
        if way == 2:
            self.machine.retract()
            self.receipts_as_read()
        applied = self.machine.apply(index, term, payload, leave_open=way == 3)
        state = self.machine._state
        for calm_ms, table, column in (
            (state.calm_tasks_ms, "tasks", "alarm_ms"),
            (state.calm_calendar_ms, "tasks", "calendar_ms"),
            (state.calm_workers_ms, "workers", "alarm_ms"),
        ):
            first = f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL ORDER BY {column} LIMIT 1"
            row = self.connection.execute(first).fetchone()
            assert row is None or calm_ms <= row[0], (table, column, calm_ms, row)
        self.receipts_as_read()
        return applied

    def receipts_as_read(self) -> None:
        """What is remembered of receipts must be what their rows say."""
        remembered = self.machine._state.receipt_rows
        if remembered is not None:
            anew = State(self.connection)
            receipts.known(anew, "", "")
            assert _filled(remembered) == _filled(anew.receipt_rows)

    def outcome(self, command: Command[Any], key: str | None = None, digest: bytes | None = None) -> Outcome:
        sealed = seal(command, key)
        if digest is not None:
            sealed = msgspec.structs.replace(sealed, digest=digest)
        return self.apply(sealed).outcomes[0]

    def do(self, command: Command[Any], kind: type[R]) -> R:
        return expect(self.outcome(command).value, kind)

    def append(self, topic: str, *messages: t.Message) -> t.Appended:
        return self.do(t.Append(topic=topic, messages=list(messages)), t.Appended)

    def consume(self, topic: str, consumer_id: int, most: int = 1) -> t.Consumed:
        spans = self.do(t.Consume(topic=topic, consumer_id=consumer_id, max=most), t.ConsumedSpans)
        return expect(self.machine.render(spans), t.Consumed)

    def ask(self, request: Query[Any], kind: type[R]) -> R:
        return expect(self.machine.query(request), kind)

    def sound(self) -> None:
        wrong = check(self.connection)
        assert not wrong, wrong


def _filled(rows: dict[str, dict[str, int]] | None) -> dict[str, dict[str, int]]:
    return {op: keys for op, keys in (rows or {}).items() if keys}


def expect(value: Reply | Rejection, kind: type[R]) -> R:
    assert isinstance(value, kind), value
    return value


def values(items: list[t.StoredMessage]) -> list[Any]:
    return [msgspec.json.decode(item.value) for item in items]
