"""What the metrics of a cluster are made from: counters of rows, the same at every node that has applied as much.

Only nodes ask this, of themselves. It reads counters and no tasks, but for the first one of each queue. Of queues, topics
and consumers it tells the oldest ``limits.METRIC_SERIES_MAX``, which stay the same while others come and go, and how many
there are besides.
"""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from quorl.cluster.machine import queue_queries, task_rows
from quorl.cluster.machine.schema import ALIVE, DEAD
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Query, Reply
from quorl.cluster.protocol.queues import QueueCounts

_STATES = QueueCounts.__struct_fields__
_TOTALS = ("submitted", "total_started", "total_succeeded", "total_failed_attempts", "total_lost", "total_failed")
_QUEUES = f"SELECT {queue_queries.COLUMNS} FROM queues WHERE deleted = 0 ORDER BY queue_id LIMIT ?"
_QUEUE_TOTALS = f"SELECT {', '.join(_TOTALS)} FROM queues WHERE deleted = 0 ORDER BY queue_id LIMIT ?"
_QUEUE_COUNT = "SELECT count(*) FROM queues WHERE deleted = 0"
_TOPICS = (
    "SELECT t.name, sum(p.next_offset), sum(p.size_bytes) FROM (SELECT topic_id, name FROM topics ORDER BY topic_id LIMIT ?) t"
    " JOIN ends p USING (topic_id) GROUP BY t.topic_id ORDER BY t.topic_id"
)
_TOPIC_COUNT = "SELECT count(*) FROM topics"
_CONSUMERS = (
    "SELECT t.name, c.consumer_id, sum(p.next_offset - k.next_offset)"
    " FROM (SELECT topic_id, consumer_id FROM consumers ORDER BY topic_id, consumer_id LIMIT ?) c"
    " JOIN topics t USING (topic_id) JOIN cursors k USING (topic_id, consumer_id)"
    " JOIN ends p ON p.topic_id = k.topic_id AND p.partition = k.partition"
    " GROUP BY c.topic_id, c.consumer_id ORDER BY c.topic_id, c.consumer_id"
)
_CONSUMER_COUNT = "SELECT count(*) FROM consumers JOIN topics USING (topic_id)"
_ALIVE = "SELECT count(*), ifnull(sum(leases), 0) FROM workers WHERE status = ?"
_DEAD = "SELECT count(*) FROM workers WHERE status = ? AND filled = 0"


class QueueTotals(NamedTuple):
    """What there ever was in a queue: tasks that came; leases granted, and how they ended; tasks that became FAILED."""

    submitted: int
    started: int
    succeeded: int
    failed_attempts: int
    lost: int
    failed: int


class QueueMetrics(NamedTuple):
    """A queue: tasks by state, what there ever was, and who serves it."""

    name: str
    counts: dict[str, int]
    totals: QueueTotals
    oldest_ms: int | None
    workers: int
    paused: bool
    max_depth: int


class TopicMetrics(NamedTuple):
    """A topic, over its partitions."""

    name: str
    messages: int
    size_bytes: int


class ConsumerMetrics(NamedTuple):
    """A consumer, and what it has not read."""

    topic: str
    consumer_id: int
    lag: int


class Metrics(Reply, frozen=True):
    """Counters of the state. ``left_out``: how many more queues, topics and consumers there are."""

    queues: list[QueueMetrics]
    topics: list[TopicMetrics]
    consumers: list[ConsumerMetrics]
    left_out: dict[str, int]
    workers_alive: int
    workers_dead: int
    busy: int


class GetMetrics(Query[Metrics], frozen=True, tag="get_metrics"):
    """Read the counters of the state."""


def get_metrics(connection: sqlite3.Connection) -> Metrics:
    """The counters of this moment."""
    most = (limits.METRIC_SERIES_MAX,)
    rows = connection.execute(_QUEUES, most).fetchall()
    totals = connection.execute(_QUEUE_TOTALS, most).fetchall()
    now_ms = task_rows.now(connection).now_ms
    queues = [_queue(connection, row, total, now_ms) for row, total in zip(rows, totals, strict=True)]
    topics = [TopicMetrics(*row) for row in connection.execute(_TOPICS, most).fetchall()]
    consumers = [ConsumerMetrics(*row) for row in connection.execute(_CONSUMERS, most).fetchall()]
    alive, busy = connection.execute(_ALIVE, (ALIVE,)).fetchone()
    return Metrics(
        queues=queues,
        topics=topics,
        consumers=consumers,
        left_out={
            kind: connection.execute(count).fetchone()[0] - len(told)
            for kind, count, told in (
                ("queues", _QUEUE_COUNT, rows),
                ("topics", _TOPIC_COUNT, topics),
                ("consumers", _CONSUMER_COUNT, consumers),
            )
        },
        workers_alive=alive,
        workers_dead=connection.execute(_DEAD, (DEAD,)).fetchone()[0],
        busy=busy,
    )


def _queue(
    connection: sqlite3.Connection, columns: tuple[Any, ...], totals: tuple[int, ...], now_ms: int
) -> QueueMetrics:
    info = queue_queries.info(connection, queue_queries.QueueRow._make(columns), now_ms)
    counts = {state: getattr(info.counts, state) for state in _STATES}
    return QueueMetrics(
        info.name, counts, QueueTotals._make(totals), info.oldest_ms, info.workers, info.paused, info.max_depth
    )
