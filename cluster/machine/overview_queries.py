"""A look over everything, for the overview that a node makes once a second while somebody looks.

Only nodes ask this, of themselves. It reads counters, never tasks, but for the first one of each queue and the few that
are shown as running; of queues, topics and workers it reads as many as are shown, and the sums over all queues and workers.
"""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

import msgspec

from quorl.cluster.machine import history_queries, ids, queue_queries, task_rows
from quorl.cluster.machine.queue_queries import QueueRow
from quorl.cluster.machine.schema import ALIVE
from quorl.cluster.machine.worker_queries import STATUSES
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol.grammar import Query, Reply
from quorl.cluster.protocol.queues import QueueCounts

RUNNING_SHOWN_MAX = 5
"""Of the tasks that a worker runs, so many are shown."""
LAGS_MAX = 1_000
"""Cursors of one topic that are looked at to say how far behind its consumers are."""
BEAT_CELLS = 60
"""Of ``BEAT_CELL_S`` each: the last ten minutes."""

_STATES = QueueCounts.__struct_fields__
_QUEUE_SUMS = (
    f"SELECT count(*), {', '.join(f'ifnull(sum({state}), 0)' for state in _STATES)} FROM queues WHERE deleted = 0"
)
_QUEUES = (
    f"SELECT {queue_queries.COLUMNS} FROM queues WHERE deleted = 0"
    " ORDER BY scheduled + queued + retry = 0, processing DESC, submitted DESC, name LIMIT ?"
)
_SERVING = (
    "SELECT q.queue, count(*), ifnull(sum(p.concurrency), 0) FROM worker_queues q CROSS JOIN profiles p"
    " ON p.worker_id = q.worker_id WHERE q.alive = 1 GROUP BY q.queue"
)
_ALIVE_SUMS = (
    "SELECT count(*), ifnull(sum(w.leases), 0), ifnull(sum(p.concurrency), 0) FROM workers w INDEXED BY workers_alive"
    " CROSS JOIN profiles p ON p.worker_id = w.worker_id WHERE w.status = 0"
)
_DEAD = (
    "SELECT DISTINCT worker_id FROM worker_queues INDEXED BY worker_queues_missed WHERE alive = 0"
    " ORDER BY worker_id DESC LIMIT ?"
)
_ALIVE = "SELECT worker_id FROM workers INDEXED BY workers_alive WHERE status = 0 ORDER BY worker_id LIMIT ?"
_WORKER = (
    "SELECT w.name, p.host, p.pid, p.version, w.status, w.quiet, w.standby, p.queues, p.concurrency, w.leases,"
    " w.heartbeat_ms, w.dead_after_ms, w.registered_ms, w.beat_wall_ms, w.ended_ms, w.beat_ms, w.succeeded, w.failed, w.lost,"
    " EXISTS (SELECT 1 FROM worker_queues q WHERE q.worker_id = w.worker_id AND q.active = 1)"
    " FROM workers w CROSS JOIN profiles p ON p.worker_id = w.worker_id WHERE w.worker_id = ?"
)
_RUNNING = (
    f"SELECT {ids.of('t')}, t.name, q.name, t.claimed_ms FROM tasks t INDEXED BY tasks_leased CROSS JOIN queues q"
    " ON q.queue_id = t.queue_id WHERE t.state = 2 AND t.worker_id = ? ORDER BY t.ordinal LIMIT ?"
)
_BEATS = "SELECT (at_ms - ?2) / ?3, count(*) FROM beats WHERE worker_id = ?1 AND at_ms >= ?2 GROUP BY 1 ORDER BY 1"
_TOPIC_COUNT = "SELECT count(*) FROM topics"
_MESSAGES = "SELECT messages FROM machine"
_TOPIC = "SELECT topic_id, name, partitions, next_consumer_id - 1 FROM topics"
_TOPIC_BY_NAME = f"{_TOPIC} WHERE name = ?"
_TOPICS = f"{_TOPIC} ORDER BY name LIMIT ?"
_ENDS = "SELECT ifnull(sum(next_offset), 0), ifnull(sum(size_bytes), 0) FROM ends WHERE topic_id = ?"
_WORST_LAG = (
    "SELECT ifnull(max(lag), 0) FROM (SELECT sum(p.next_offset - k.next_offset) AS lag FROM cursors k CROSS JOIN ends p"
    " ON p.topic_id = k.topic_id AND p.partition = k.partition WHERE k.topic_id = ? GROUP BY k.consumer_id)"
)
_GAUGES = "SELECT ifnull(sum(scheduled + queued + retry), 0), ifnull(sum(processing), 0) FROM queues"

_decode_queues = msgspec.json.Decoder(list[str]).decode


class Served(NamedTuple):
    """Workers that are ALIVE and serve a queue, and how much they can run at once."""

    workers: int
    slots: int


class SeenQueue(NamedTuple):
    """A queue as its row has it, who serves it, and how long its first task has waited."""

    row: QueueRow
    served: Served
    oldest_ms: int | None


class SeenTopic(NamedTuple):
    """A topic with its sums over partitions."""

    name: str
    partitions: int
    messages: int
    size_bytes: int
    consumers: int
    worst_lag: int | None


class Seen(Reply, frozen=True):
    """What a look over everything has found."""

    now_ms: int
    counts: QueueCounts
    queue_count: int
    queues: list[SeenQueue]
    topic_count: int
    topics: list[SeenTopic]
    alive: int
    busy: int
    slots: int
    dead: int
    workers: list[o.OverviewWorker]


class LookOver(Query[Seen], frozen=True, tag="look_over"):
    """Look over everything, at the calendar's ``wall_ms``; of topics at those that are named first."""

    wall_ms: int
    topics: tuple[str, ...] = ()


class Sparks(Reply, frozen=True):
    """The last five minutes of queues, by name."""

    sparks: dict[str, o.Spark]


class GetSparks(Query[Sparks], frozen=True, tag="get_sparks"):
    """What happened in some queues lately. Only nodes ask this, of themselves."""

    queues: tuple[str, ...]


class Gauges(Reply, frozen=True):
    """What there is in all: tasks that wait and run, messages."""

    waiting: int
    running: int
    messages: int


class GetGauges(Query[Gauges], frozen=True, tag="get_gauges"):
    """What there is in all; reads all queues and partitions. Only nodes ask this, of themselves, and seldom."""


def gauges(connection: sqlite3.Connection) -> Gauges:
    """What there is in all."""
    waiting, running = connection.execute(_GAUGES).fetchone()
    return Gauges(waiting=waiting, running=running, messages=connection.execute(_MESSAGES).fetchone()[0])


def sparks(connection: sqlite3.Connection, request: GetSparks) -> Sparks:
    """The last five minutes of those of the queues that are there."""
    found = {name: queue_queries.lookup(connection, name) for name in request.queues}
    ids = {name: row.queue_id for name, row in found.items() if row is not None}
    return Sparks(sparks={name: history_queries.spark(connection, queue_id) for name, queue_id in ids.items()})


def look_over(connection: sqlite3.Connection, request: LookOver) -> Seen:
    """Look over everything."""
    now_ms = task_rows.now(connection).now_ms
    queue_count, *counts = connection.execute(_QUEUE_SUMS).fetchone()
    alive, busy, slots = connection.execute(_ALIVE_SUMS).fetchone()
    dead = [worker_id for (worker_id,) in connection.execute(_DEAD, (limits.OVERVIEW_WORKERS_MAX,))]
    living = connection.execute(_ALIVE, (limits.OVERVIEW_WORKERS_MAX - len(dead),)).fetchall()
    shown = [*dead, *(worker_id for (worker_id,) in living)]
    return Seen(
        now_ms=now_ms,
        counts=QueueCounts(**dict(zip(_STATES, counts, strict=True))),
        queue_count=queue_count,
        queues=_queues(connection, now_ms),
        topic_count=connection.execute(_TOPIC_COUNT).fetchone()[0],
        topics=_topics(connection, request.topics),
        alive=alive,
        busy=busy,
        slots=slots,
        dead=len(dead),
        workers=[_worker(connection, worker_id, now_ms, request.wall_ms) for worker_id in shown],
    )


def _queues(connection: sqlite3.Connection, now_ms: int) -> list[SeenQueue]:
    served = {name: Served(workers, slots) for name, workers, slots in connection.execute(_SERVING)}
    rows = [QueueRow(*row) for row in connection.execute(_QUEUES, (limits.OVERVIEW_QUEUES_MAX,)).fetchall()]
    return [
        SeenQueue(row, served.get(row.name, Served(0, 0)), queue_queries.oldest_ms(connection, row, now_ms))
        for row in rows
    ]


def _topics(connection: sqlite3.Connection, first: tuple[str, ...]) -> list[SeenTopic]:
    named = [connection.execute(_TOPIC_BY_NAME, (name,)).fetchone() for name in first]
    others = connection.execute(_TOPICS, (limits.OVERVIEW_TOPICS_MAX,)).fetchall()
    rows = dict.fromkeys([row for row in named if row is not None] + others)
    return [_topic(connection, *row) for row in list(rows)[: limits.OVERVIEW_TOPICS_MAX]]


def _topic(connection: sqlite3.Connection, topic_id: int, name: str, partitions: int, consumers: int) -> SeenTopic:
    messages, size_bytes = connection.execute(_ENDS, (topic_id,)).fetchone()
    worst_lag = None
    if consumers * partitions <= LAGS_MAX:
        (worst_lag,) = connection.execute(_WORST_LAG, (topic_id,)).fetchone()
    return SeenTopic(name, partitions, messages, size_bytes, consumers, worst_lag)


def _worker(connection: sqlite3.Connection, worker_id: int, now_ms: int, wall_ms: int) -> o.OverviewWorker:
    row: tuple[Any, ...] = connection.execute(_WORKER, (worker_id,)).fetchone()
    (name, host, pid, version, status, quiet, standby, queues, concurrency, leases, heartbeat_ms, dead_after_ms) = row[
        :12
    ]
    (registered_ms, beat_wall_ms, ended_ms, beat_ms, succeeded, failed, lost, active) = row[12:]
    running = connection.execute(_RUNNING, (worker_id, RUNNING_SHOWN_MAX)).fetchall()
    return o.OverviewWorker(
        worker_id=worker_id,
        name=name,
        host=host,
        pid=pid,
        version=version,
        status=STATUSES[status],
        state="BUSY" if leases else "FREE",
        quiet=bool(quiet),
        standby=bool(standby),
        active=status == ALIVE and bool(active),
        queues=_decode_queues(queues),
        concurrency=concurrency,
        leases=leases,
        heartbeat_ms=heartbeat_ms,
        dead_after_ms=dead_after_ms,
        registered_at_ms=registered_ms,
        heartbeat_at_ms=beat_wall_ms,
        ended_at_ms=ended_ms,
        silent_ms=now_ms - beat_ms,
        succeeded=succeeded,
        failed=failed,
        lost=lost,
        beats=_beats(connection, worker_id, wall_ms),
        running=[o.OverviewTask(id=one, name=what, queue=queue, started_at_ms=at) for one, what, queue, at in running],
    )


def _beats(connection: sqlite3.Connection, worker_id: int, wall_ms: int) -> str:
    """See ``OverviewWorker.beats``; cells begin at whole multiples, so that they do not wander while time goes on."""
    cell_ms = o.BEAT_CELL_S * 1000
    first_ms = (wall_ms // cell_ms - BEAT_CELLS + 1) * cell_ms
    cells = [0] * BEAT_CELLS
    for cell, count in connection.execute(_BEATS, (worker_id, first_ms, cell_ms)):
        cells[min(cell, BEAT_CELLS - 1)] += count
    return "".join(str(min(count, 9)) for count in cells)
