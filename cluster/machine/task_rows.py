"""Rows of tasks as the queries read them, and the words for what stands in them.

Invariants: a row comes with the name of its queue, which may be deleted while its finished tasks are kept. Cluster time
is told to people as calendar time, by what is left of it at the moment of the answer.
"""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from quorl.cluster.machine import guessing, ids
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.submitting import TaskBody

SCHEDULED, QUEUED, PROCESSING, RETRY, SUCCESS, FAILED = (
    k.STATES.index(status) for status in ("SCHEDULED", "QUEUED", "PROCESSING", "RETRY", "SUCCESS", "FAILED")
)
FINAL = frozenset(number for number, status in enumerate(k.STATES) if status in k.FINAL)
NULL = msgspec.Raw(b"null")

_NOW = "SELECT now_ms, wall_ms, next_token FROM machine ORDER BY version"
_TASK = (
    f"SELECT t.ordinal, {ids.of('t')}, t.queue_id, q.name, q.paused, t.partition, t.state, t.rank, t.calendar_ms, t.due_ms,"
    " t.expiry_ms, t.name, t.size_bytes, t.attempts, t.max_attempts, t.lost, t.max_lost, t.timeout_ms, t.cancel,"
    " t.reason, t.leases, t.token, t.worker_id, t.worker, t.claimed_index, t.claimed_term, t.claimed_ms,"
    " t.created_index, t.created_term, t.created_ms, t.finished_index, t.finished_term, t.finished_ms"
    " FROM tasks t CROSS JOIN queues q ON q.queue_id = t.queue_id"
)
TASK_BY_ID = ids.ById(_TASK)
TASK_BY_ORDINAL = f"{_TASK} WHERE t.ordinal = ?"
BODY = "SELECT body FROM payloads WHERE ordinal = ?"
_LAST_OUTCOME = "SELECT outcome, worker FROM attempts WHERE ordinal = ? ORDER BY number DESC LIMIT 1"
LAST_ERROR = (
    "SELECT outcome, error FROM attempts WHERE ordinal = ? AND (error IS NOT NULL OR outcome = 'timeout')"
    " ORDER BY number DESC LIMIT 1"
)

decode_body = msgspec.json.Decoder(TaskBody).decode
_decode_error = msgspec.json.Decoder(k.TaskError).decode


class Now(NamedTuple):
    """The moment of an answer: cluster time, calendar time, and the next token that will be given out."""

    now_ms: int
    wall_ms: int
    next_token: int

    def at(self, cluster_ms: int) -> str:
        """The calendar time at which cluster time will be this, if a leader is there all the while."""
        return moment.to_text(min(max(0, self.wall_ms + cluster_ms - self.now_ms), moment.LAST_MS))


class TaskRow(NamedTuple):
    """One row of ``tasks``, with the name of its queue and whether that is paused."""

    ordinal: int
    id: str
    queue_id: int
    queue: str
    paused: int
    partition: int
    state: int
    rank: int
    calendar_ms: int | None
    due_ms: int | None
    expiry_ms: int | None
    name: str
    size_bytes: int
    attempts: int
    max_attempts: int
    lost: int
    max_lost: int
    timeout_ms: int | None
    cancel: int
    reason: str | None
    leases: int
    token: int | None
    worker_id: int | None
    worker: str | None
    claimed_index: int | None
    claimed_term: int | None
    claimed_ms: int | None
    created_index: int
    created_term: int
    created_ms: int
    finished_index: int | None
    finished_term: int | None
    finished_ms: int | None

    @property
    def status(self) -> k.Status:
        """The state by its name."""
        return k.STATES[self.state]

    @property
    def priority(self) -> int:
        """The priority, of which the rank is the other end."""
        return limits.PRIORITY_MAX - self.rank

    @property
    def has_worker(self) -> bool:
        """Whether its worker is of interest: it runs, or it was brought to its end."""
        return self.leases > 0 and (self.state == PROCESSING or self.state in FINAL)


def now(connection: sqlite3.Connection) -> Now:
    """The moment of the last entry."""
    return Now(*connection.execute(_NOW).fetchone())


def find(connection: sqlite3.Connection, task_id: str) -> TaskRow | k.TaskNotFound:
    """The task with an id."""
    row = TASK_BY_ID.find(connection.execute, task_id)
    if row is None:
        told = f'There is no task "{task_id}", or it finished so long ago that it was forgotten.'
        return k.TaskNotFound(detail=told + guessing.meant_task(connection, task_id))
    return TaskRow(*row)


def text(calendar_ms: int | None) -> str | None:
    """A moment as text, if there is one."""
    return None if calendar_ms is None else moment.to_text(calendar_ms)


def known_worker(row: TaskRow) -> tuple[int | None, str | None]:
    """The worker that runs a task or brought it to its end, by id and name."""
    return (row.worker_id, row.worker) if row.has_worker else (None, None)


def last_error(connection: sqlite3.Connection, row: TaskRow) -> k.TaskError | None:
    """The error of the last attempt that had one."""
    found = connection.execute(LAST_ERROR, (row.ordinal,)).fetchone()
    return None if found is None else error_of(found[0], found[1], row.timeout_ms)


def given_back_by(connection: sqlite3.Connection, row: TaskRow) -> str | None:
    """The worker that gave the task back, if its last lease ended so."""
    found = connection.execute(_LAST_OUTCOME, (row.ordinal,)).fetchone()
    return found[1] if found is not None and found[0] == "released" else None


def error_of(outcome: str, error: str | None, timeout_ms: int | None) -> k.TaskError | None:
    """The error of an attempt: what its worker said, or that it took too long."""
    if error is not None:
        return _decode_error(error)
    if outcome != "timeout":
        return None
    return k.TaskError(type="Timeout", message=f"The attempt took longer than its {timeout_ms} ms.")


def in_one_line(error: k.TaskError) -> str:
    """An error's type and message in one line."""
    return f"{error.type}: {' '.join(error.message.split())}" if error.message.strip() else error.type
