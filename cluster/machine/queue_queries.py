"""What can be asked about queues.

Invariants: a deleted queue is not there for anybody who asks, although its row stays while finished tasks of its are kept.
Counts are read and never counted. What a page of a list costs is bounded as its bytes are: a queue counts for more the
more rows had to be looked at for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from quorl.cluster.machine import guessing, pages, task_rows
from quorl.cluster.protocol import moment
from quorl.cluster.protocol import queues as q

COLUMNS = (
    "queue_id, name, paused, sealed, partitions, default_attempts, max_lost, backoff, timeout_ms, keep_finished_ms,"
    " max_depth, submitted, scheduled, queued, processing, retry, success, failed, cancelled, expired, created_ms"
)
_BY_NAME = f"SELECT {COLUMNS} FROM queues WHERE deleted = 0 AND name = ?"
_AFTER = f"SELECT {COLUMNS} FROM queues WHERE deleted = 0 AND name > ? ORDER BY name LIMIT ?"
_FROM = f"SELECT {COLUMNS} FROM queues WHERE deleted = 0 AND name >= ? ORDER BY name LIMIT ?"
_FIRST = "SELECT since_ms FROM tasks WHERE state = 1 AND queue_id = ? AND partition = ? ORDER BY rank, ordinal LIMIT 1"
_DRAINED = (
    "SELECT 1 FROM queues WHERE deleted = 0 AND name = ?"
    " AND sealed = 1 AND scheduled = 0 AND queued = 0 AND processing = 0 AND retry = 0"
)
_WORKERS = "SELECT count(*) FROM worker_queues WHERE queue = ? AND alive = 1"

_ITEM_BYTES = 800
_PARTITION_BYTES = 400
_WORKER_BYTES = 20
"""What a queue counts for in a page: itself, and what was looked at for each of its partitions and workers."""

_decode_backoff = msgspec.json.Decoder(q.Backoff).decode


class QueueRow(NamedTuple):
    """One row of ``queues``."""

    queue_id: int
    name: str
    paused: int
    sealed: int
    partitions: int
    default_attempts: int
    max_lost: int
    backoff: str
    timeout_ms: int | None
    keep_finished_ms: int
    max_depth: int
    submitted: int
    scheduled: int
    queued: int
    processing: int
    retry: int
    success: int
    failed: int
    cancelled: int
    expired: int
    created_ms: int


def lookup(connection: sqlite3.Connection, name: str) -> QueueRow | None:
    """The queue of a name, if there is one."""
    row = connection.execute(_BY_NAME, (name,)).fetchone()
    return None if row is None else QueueRow(*row)


def is_drained(connection: sqlite3.Connection, name: str) -> bool:
    """Whether there is a queue of that name that is sealed, and nothing is left in it that waits or runs."""
    return connection.execute(_DRAINED, (name,)).fetchone() is not None


def find(connection: sqlite3.Connection, name: str) -> QueueRow | q.QueueNotFound:
    """The queue of a name, or what to say of there being none."""
    row = lookup(connection, name)
    if row is None:
        return q.QueueNotFound(detail=f'There is no queue "{name}".{guessing.meant(connection, "queues", name)}')
    return row


def get_queue(connection: sqlite3.Connection, name: str) -> q.QueueInfo | q.QueueNotFound:
    """One queue."""
    row = find(connection, name)
    return row if isinstance(row, q.QueueNotFound) else info(connection, row, task_rows.now(connection).now_ms)


def info(connection: sqlite3.Connection, row: QueueRow, now_ms: int) -> q.QueueInfo:
    """A queue as it is at this moment of cluster time."""
    (workers,) = connection.execute(_WORKERS, (row.name,)).fetchone()
    return q.QueueInfo(
        name=row.name,
        health=health(row, workers),
        counts=q.QueueCounts(
            scheduled=row.scheduled,
            queued=row.queued,
            processing=row.processing,
            retry=row.retry,
            success=row.success,
            failed=row.failed,
            cancelled=row.cancelled,
            expired=row.expired,
        ),
        submitted=row.submitted,
        workers=workers,
        oldest_ms=oldest_ms(connection, row, now_ms),
        paused=bool(row.paused),
        sealed=bool(row.sealed),
        partitions=row.partitions,
        default_attempts=row.default_attempts,
        max_lost=row.max_lost,
        backoff=_decode_backoff(row.backoff),
        timeout_ms=row.timeout_ms,
        keep_finished_ms=row.keep_finished_ms,
        max_depth=row.max_depth,
        created_at=moment.to_text(row.created_ms),
    )


def health(row: QueueRow, workers: int) -> Literal["ok", "no_workers", "paused", "sealed"]:
    """A queue's health in a word."""
    if row.paused:
        return "paused"
    if not workers and (row.scheduled or row.queued or row.retry):
        return "no_workers"
    return "sealed" if row.sealed else "ok"


def oldest_ms(connection: sqlite3.Connection, row: QueueRow, now_ms: int) -> int | None:
    """How long the first task has waited; of several partitions, that which has waited longest; None if none waits."""
    if not row.queued:
        return None
    partitions = range(row.partitions) if row.partitions else (-1,)
    firsts = (connection.execute(_FIRST, (row.queue_id, partition)).fetchone() for partition in partitions)
    return max((now_ms - first[0] for first in firsts if first is not None), default=None)


def list_queues(connection: sqlite3.Connection, request: q.ListQueues) -> q.QueueList:
    """One page of queues in order of their names."""
    last = pages.decode_cursor("queue", request.cursor) if request.cursor else ""
    statement, start = (_AFTER, last) if last >= request.prefix and last else (_FROM, request.prefix)
    rows = connection.execute(statement, (start, request.limit + 1)).fetchall()
    now_ms = task_rows.now(connection).now_ms

    def candidates() -> Iterator[tuple[q.QueueInfo, int]]:
        for row in map(QueueRow._make, rows):
            if not row.name.startswith(request.prefix):
                return
            found = info(connection, row, now_ms)
            yield found, _ITEM_BYTES + _PARTITION_BYTES * row.partitions + _WORKER_BYTES * found.workers

    items, more = pages.page(candidates(), request.limit)
    return q.QueueList(items=items, next=pages.encode_cursor("queue", items[-1].name) if more else None)
