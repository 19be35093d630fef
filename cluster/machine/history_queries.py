"""What can be asked about the past: the samples of two hours, and who led.

Invariants: the steps of an answer follow each other without a gap; where no entry came, nothing happened. An answer looks
up one row for each step, however many queues and topics have samples.
"""

from __future__ import annotations

import sqlite3
from typing import Any

from quorl.cluster.machine import guessing, queue_queries, task_rows
from quorl.cluster.machine.samples import CLUSTER, QUEUE, STEP_MS, TOPIC
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol.queues import QueueNotFound
from quorl.cluster.protocol.topics import TopicNotFound

SPARK_STEPS = 30
"""The samples of a spark: five minutes."""

_GAUGES = ("waiting", "running")
_COUNTS = o.HistoryCounts.__struct_fields__
_TICKS = (
    f"SELECT t.bucket, t.at_ms, {', '.join(f's.{column}' for column in _COUNTS)} FROM ticks t"
    " LEFT JOIN samples s ON s.bucket = t.bucket AND s.kind = ? AND s.ref = ? WHERE t.bucket > ? ORDER BY t.bucket"
)
_TOPIC = "SELECT topic_id FROM topics WHERE name = ?"
_LEADERS = (
    "SELECT term, node, at_ms FROM leaders WHERE term >="
    " ifnull((SELECT max(term) FROM leaders WHERE at_ms <= ?), 0) ORDER BY term DESC LIMIT ?"
)


def history(connection: sqlite3.Connection, request: o.GetHistory) -> o.History | QueueNotFound | TopicNotFound:
    """The steps of ten seconds that are over."""
    kind, ref = CLUSTER, 0
    if request.queue is not None:
        queue = queue_queries.find(connection, request.queue)
        if isinstance(queue, QueueNotFound):
            return queue
        kind, ref = QUEUE, queue.queue_id
    elif request.topic is not None:
        row = connection.execute(_TOPIC, (request.topic,)).fetchone()
        if row is None:
            meant = guessing.meant(connection, "topics", request.topic)
            return TopicNotFound(detail=f'There is no topic "{request.topic}".{meant}')
        kind, ref = TOPIC, row[0]
    at_ms, columns = _steps(connection, kind, ref, limits.TICKS_KEPT)
    since_ms = at_ms[0] - STEP_MS if at_ms else task_rows.now(connection).wall_ms
    return o.History(
        step=STEP_MS // 1000,
        queue=request.queue,
        topic=request.topic,
        since_ms=since_ms,
        at_ms=at_ms,
        counts=o.HistoryCounts(**columns),
        leaders=leaders(connection, since_ms),
    )


def leaders(connection: sqlite3.Connection, since_ms: int) -> list[o.LeaderMark]:
    """Who led since then, the first of them perhaps from before."""
    rows = connection.execute(_LEADERS, (since_ms, limits.MARKS_MAX)).fetchall()
    return [o.LeaderMark(at_ms=at_ms, term=term, node=node) for term, node, at_ms in reversed(rows)]


def spark(connection: sqlite3.Connection, queue_id: int) -> o.Spark:
    """The last five minutes of a queue."""
    _, columns = _steps(connection, QUEUE, queue_id, SPARK_STEPS)
    names = o.Spark.__struct_fields__
    return o.Spark(**{name: [0] * (SPARK_STEPS - len(columns[name])) + columns[name] for name in names})


def _steps(connection: sqlite3.Connection, kind: int, ref: int, most: int) -> tuple[list[int], dict[str, list[Any]]]:
    """When each of the last steps ended, and what was counted in them."""
    over = task_rows.now(connection).now_ms // STEP_MS  # the first that is not
    at_ms: list[int] = []
    columns: dict[str, list[Any]] = {name: [] for name in _COUNTS}
    expected = None
    for bucket, tick_ms, *numbers in connection.execute(_TICKS, (kind, ref, over - most - 1)):
        while expected is not None and expected < bucket:  # nobody said anything then
            _append(at_ms, columns, at_ms[-1] + STEP_MS, None)
            expected += 1
        _append(at_ms, columns, tick_ms, None if numbers[0] is None else numbers)
        expected = bucket + 1
    return at_ms, columns


def _append(at_ms: list[int], columns: dict[str, list[Any]], tick_ms: int, numbers: list[int] | None) -> None:
    """One step more; without a sample nothing happened, and as much waits and runs as before."""
    at_ms.append(max(tick_ms, at_ms[-1] + 1) if at_ms else tick_ms)
    for place, (name, column) in enumerate(columns.items()):
        if numbers is not None:
            column.append(numbers[place])
        elif name in _GAUGES:
            column.append(column[-1] if column else None)
        else:
            column.append(0)
