"""What can be asked about workers: what they are, what they run, what they are to be told.

Invariants: a worker is one life of a program, so several rows may share a name; of these the newest counts for whoever
asks by name. What a page of a list costs is bounded as its bytes are, and in the rows that it looks at.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec

from quorl.cluster.machine import ids, pages, queue_queries, task_rows
from quorl.cluster.machine.schema import ALIVE, DEAD
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Query, Reply

STATUSES: tuple[Literal["ALIVE", "DEAD", "LEFT"], ...] = ("ALIVE", "DEAD", "LEFT")
"""In the order of their numbers in the state."""
RUNNING_SHOWN_MAX = 100
"""So many of its leases are shown of one worker."""

_WORKER = (
    "SELECT w.worker_id, w.name, w.status, w.standby, w.quiet, w.terminate, w.heartbeat_ms, w.dead_after_ms, w.beat_ms,"
    " w.beat_wall_ms, w.leases, w.succeeded, w.failed, w.lost, w.registered_ms, p.host, p.pid, p.version, p.queues,"
    " p.concurrency, p.handlers FROM workers w CROSS JOIN profiles p ON p.worker_id = w.worker_id WHERE w.worker_id = ?"
)
_TOLD = (
    "SELECT w.status, w.quiet, w.terminate, p.queues FROM workers w CROSS JOIN profiles p ON p.worker_id = w.worker_id"
    " WHERE w.worker_id = ?"
)
_QUEUES = "SELECT queues FROM profiles WHERE worker_id = ?"
_STANDS_IN = "SELECT 1 FROM worker_queues WHERE worker_id = ? AND active = 1 ORDER BY position LIMIT 1"
_RUNNING = (
    f"SELECT {ids.of('t')}, t.name, q.name, t.token, t.claimed_ms FROM tasks t CROSS JOIN queues q ON q.queue_id = t.queue_id"
    " WHERE t.state = 2 AND t.worker_id = ? ORDER BY t.ordinal LIMIT ?"
)
_BEATS = "SELECT at_ms FROM beats WHERE worker_id = ? ORDER BY at_ms, slot"
_STOPPED = f"SELECT {ids.of('tasks')} FROM tasks WHERE state = 2 AND worker_id = ? AND cancel = 1 ORDER BY ordinal"
_HELD = "SELECT token FROM tasks WHERE state = 2 AND worker_id = ? ORDER BY ordinal"
_AFTER = "SELECT worker_id, status FROM workers WHERE worker_id > ? ORDER BY worker_id LIMIT ?"
_ALIVE_AFTER = "SELECT worker_id, status FROM workers WHERE status = 0 AND worker_id > ? ORDER BY worker_id LIMIT ?"
_ALIVE_BEATS = "SELECT name, beat_wall_ms FROM workers WHERE status = 0 ORDER BY worker_id LIMIT ?"
_NEWEST = "SELECT name, status, beat_wall_ms FROM workers ORDER BY worker_id DESC LIMIT ?"

_ITEM_BYTES = 1_000
_BEAT_BYTES = 80
"""Estimates of the JSON of a worker, without what its row holds as text, and of a heartbeat without the name."""

_decode_queues = msgspec.json.Decoder(list[str]).decode
_decode_handlers = msgspec.json.Decoder(list[w.Handler]).decode


class LastBeat(msgspec.Struct, frozen=True, kw_only=True):
    """The last sign of life of the worker of a name, in calendar time."""

    last_heartbeat: str
    status: Literal["ALIVE", "DEAD"]


class BeatLog(Reply, frozen=True):
    """The last signs of life by the names of workers, in order of the names."""

    beats: dict[str, LastBeat]


class Heartbeats(Query[BeatLog], frozen=True, tag="heartbeats"):
    """Who was last heard when. Only nodes ask this, of themselves: it is no operation of the table."""


class WorkerRow(NamedTuple):
    """One row of ``workers``, with its profile."""

    worker_id: int
    name: str
    status: int
    standby: int
    quiet: int
    terminate: int
    heartbeat_ms: int
    dead_after_ms: int
    beat_ms: int
    beat_wall_ms: int
    leases: int
    succeeded: int
    failed: int
    lost: int
    registered_ms: int
    host: str
    pid: int
    version: str
    queues: str
    concurrency: int
    handlers: str


def _not_found(worker_id: int) -> w.WorkerNotFound:
    return w.WorkerNotFound(detail=f"There is no worker {worker_id}, or it was forgotten after it died or left.")


# -- one worker, and all -------------------------------------------------------------------------------------------
def get_worker(connection: sqlite3.Connection, worker_id: int) -> w.WorkerInfo | w.WorkerNotFound:
    """One worker, with what it runs and its last heartbeats."""
    row = connection.execute(_WORKER, (worker_id,)).fetchone()
    if row is None:
        return _not_found(worker_id)
    running = [
        w.RunningTask(id=task_id, name=name, queue=queue, token=token, started_at=moment.to_text(claimed_ms))
        for task_id, name, queue, token, claimed_ms in connection.execute(_RUNNING, (worker_id, RUNNING_SHOWN_MAX))
    ]
    beats = [moment.to_text(at_ms) for (at_ms,) in connection.execute(_BEATS, (worker_id,))]
    return _info(connection, WorkerRow(*row), task_rows.now(connection).now_ms, running, beats)


def _info(
    connection: sqlite3.Connection, row: WorkerRow, now_ms: int, running: list[w.RunningTask], beats: list[str]
) -> w.WorkerInfo:
    stands_in = row.standby and connection.execute(_STANDS_IN, (row.worker_id,)).fetchone()
    return w.WorkerInfo(
        worker_id=row.worker_id,
        name=row.name,
        status=STATUSES[row.status],
        state="BUSY" if row.leases else "FREE",
        quiet=bool(row.quiet),
        host=row.host,
        pid=row.pid,
        version=row.version,
        queues=_decode_queues(row.queues),
        concurrency=row.concurrency,
        standby=bool(row.standby),
        active=row.status == ALIVE and (not row.standby or bool(stands_in)),
        handlers=_decode_handlers(row.handlers),
        heartbeat_ms=row.heartbeat_ms,
        dead_after_ms=row.dead_after_ms,
        registered_at=moment.to_text(row.registered_ms),
        last_heartbeat=moment.to_text(row.beat_wall_ms),
        silent_ms=now_ms - row.beat_ms,
        leases=row.leases,
        succeeded=row.succeeded,
        failed=row.failed,
        lost=row.lost,
        running=running,
        beats=beats,
    )


def list_workers(connection: sqlite3.Connection, request: w.ListWorkers) -> w.WorkerList:
    """One page of workers in order of their ids."""
    last = pages.decode_id_cursor("worker", request.cursor)
    statement = _ALIVE_AFTER if request.status == "ALIVE" else _AFTER
    rows = connection.execute(statement, (last, limits.LISTED_ROWS_MAX + 1)).fetchall()
    more_rows = len(rows) > limits.LISTED_ROWS_MAX
    now_ms = task_rows.now(connection).now_ms

    def candidates() -> Iterator[tuple[w.WorkerInfo, int]]:
        for worker_id, status in rows[: limits.LISTED_ROWS_MAX]:
            if request.status not in {None, STATUSES[status]} or not _serves(connection, worker_id, request.queue):
                continue
            row = WorkerRow(*connection.execute(_WORKER, (worker_id,)).fetchone())
            size_bytes = _ITEM_BYTES + len(row.queues) + len(row.handlers)
            yield _info(connection, row, now_ms, [], []), size_bytes

    items, more = pages.page(candidates(), request.limit)
    if more:
        last = items[-1].worker_id
    elif more_rows:
        last = rows[limits.LISTED_ROWS_MAX - 1][0]
    return w.WorkerList(items=items, next=pages.encode_cursor("worker", str(last)) if more or more_rows else None)


def _serves(connection: sqlite3.Connection, worker_id: int, queue: str | None) -> bool:
    """Whether a worker registered for a queue; None asks for no queue."""
    return queue is None or queue in _decode_queues(connection.execute(_QUEUES, (worker_id,)).fetchone()[0])


# -- what nodes ask of themselves ----------------------------------------------------------------------------------
def heartbeats(connection: sqlite3.Connection) -> BeatLog:
    """The last heartbeat of every name whose newest life is ALIVE or DEAD; of very many, not of all that died."""
    newest_last = connection.execute(_NEWEST, (limits.LISTED_ROWS_MAX,)).fetchall()[::-1]
    newest = {name: (status, at_ms) for name, status, at_ms in newest_last}
    for name, at_ms in connection.execute(_ALIVE_BEATS, (limits.WORKERS_MAX,)):
        newest[name] = ALIVE, at_ms  # no newer life has its name, or it were not alive
    told: list[tuple[tuple[str, LastBeat], int]] = []
    for name, (status, at_ms) in sorted(newest.items(), key=lambda one: (one[1][0], one[0])):  # who is alive goes first
        if status in {ALIVE, DEAD}:  # for others nobody waits
            beat = LastBeat(last_heartbeat=moment.to_text(at_ms), status="ALIVE" if status == ALIVE else "DEAD")
            told.append(((name, beat), _BEAT_BYTES + 4 * len(name)))
    items, _ = pages.page(told, len(told))
    return BeatLog(beats=dict(sorted(items)))


def get_directives(
    connection: sqlite3.Connection, request: e.GetDirectives
) -> e.Directives | w.WorkerNotFound | w.WorkerNotAlive:
    """What a worker is to be told with its next sign of life. Every ``sync`` asks this: what is not needed is not read."""
    worker = (request.worker_id,)
    row = connection.execute(_TOLD, worker).fetchone()
    if row is None:
        return _not_found(request.worker_id)
    status, quiet, terminate, queues = row
    if status != ALIVE:
        return w.WorkerNotAlive(detail=f"Worker {request.worker_id} is {STATUSES[status]}.")
    return e.Directives(
        quiet=bool(quiet),
        terminate=bool(terminate),
        cancel=[task_id for (task_id,) in connection.execute(_STOPPED, worker)],
        lost=_lost(connection, request) if request.tokens else [],
        drained=all(queue_queries.is_drained(connection, name) for name in _decode_queues(queues)),
    )


def _lost(connection: sqlite3.Connection, request: e.GetDirectives) -> list[int]:
    """Those of the named leases that a worker does not hold any more."""
    held = {token for (token,) in connection.execute(_HELD, (request.worker_id,))}
    known = task_rows.now(connection).next_token
    return [token for token in request.tokens or () if token not in held and token < known]
