"""Why a task is not running: what stands in its way, in plain words, and what to do about each.

Invariants: the weightiest reason comes first, and at least one comes. A reason is only given when it is certain: where too
many rows would have to be looked at, nothing is said about them. All moments are those of the state, so a node that is
behind tells what was so then.
"""

from __future__ import annotations

import shlex
import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from quorl.cluster.machine import task_rows
from quorl.cluster.machine.counted import counted
from quorl.cluster.machine.task_rows import FINAL, PROCESSING, QUEUED, SCHEDULED, Now, TaskRow, in_one_line, text
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.routes import nearest_task
from quorl.cluster.protocol.workers import Handler

WORKERS_LOOKED_AT_MAX = 100
"""So many of a queue's workers are looked at; of more, it is not said what all of them are."""
_NAMES_GUESSED_MAX = 200
"""Names among which one is looked for that was meant: each is compared with it letter by letter."""

_WORKERS = (
    "SELECT w.worker_id, w.name, w.quiet, w.leases, p.concurrency, p.handlers FROM worker_queues s"
    " CROSS JOIN workers w ON w.worker_id = s.worker_id CROSS JOIN profiles p ON p.worker_id = s.worker_id"
    " WHERE s.queue = ? AND s.worker_id BETWEEN ? AND ? AND s.active = 1 ORDER BY s.worker_id LIMIT ?"
)
_DEAD = "SELECT count(*) FROM worker_queues WHERE queue = ? AND alive = 0"
_OWNER = "SELECT worker_id FROM owners WHERE queue_id = ? AND partition = ?"
_OWNED = "SELECT partition FROM owners WHERE queue_id = ? AND worker_id = ? ORDER BY partition"
_SILENT = "SELECT beat_ms, dead_after_ms FROM workers WHERE worker_id = ?"
_BEFORE = (
    "SELECT count(*) FROM (SELECT 1 FROM tasks WHERE state = 1 AND queue_id = ? AND partition = ?"
    " AND (rank, ordinal) < (?, ?) ORDER BY rank, ordinal LIMIT ?)"
)

_decode_handlers = msgspec.json.Decoder(list[Handler]).decode


class _Worker(NamedTuple):
    """A worker that might take the task."""

    worker_id: int
    name: str
    quiet: int
    leases: int
    concurrency: int
    handlers: str

    @property
    def names(self) -> list[str]:
        """The names of the tasks that it can run; none if it did not say."""
        return [handler.name for handler in _decode_handlers(self.handlers)]


def get_why(connection: sqlite3.Connection, request: k.GetTaskWhy) -> k.TaskWhy | k.TaskNotFound:
    """Why a task is not running."""
    row = task_rows.find(connection, request.id)
    if isinstance(row, k.TaskNotFound):
        return row
    now = task_rows.now(connection)
    if row.state in FINAL:
        reasons = [_finished(connection, row)]
    elif row.state == PROCESSING:
        reasons = [_running(connection, row, now)]
    else:
        reasons = [*_not_yet(connection, row, now), *_in_the_way(connection, row)]
        if row.state == QUEUED:
            reasons += _in_turn(connection, row, alone=not reasons)
        if row.expiry_ms is not None:
            first = reasons[0]
            detail = f"{first.detail} Unless a worker starts it by {now.at(row.expiry_ms)}, it expires."
            reasons[0] = msgspec.structs.replace(first, detail=detail)
    return k.TaskWhy(id=row.id, status=row.status, reasons=reasons)


# -- it runs, or will not ------------------------------------------------------------------------------------------
_ENDS = {
    "ERROR": "its last attempt failed",
    "TIMEOUT": "its last attempt took too long",
    "POISON": "too many workers died while they ran it",
    "NO_RETRY": "its worker said that trying again would not help",
    "CANCELLED": "it was cancelled",
    "PURGED": "its queue was purged",
    "EXPIRED": "no worker started it in time",
}


def _finished(connection: sqlite3.Connection, row: TaskRow) -> k.Reason:
    detail = f"It is {row.status} since {text(row.finished_ms)}"
    if row.status == "SUCCESS":
        return k.Reason(code="finished", detail=f"{detail}.", hint="GET /v1/tasks/{id}/result has its result.")
    detail += f": {_ENDS.get(row.reason or '', row.reason or 'no reason is known')}."
    error = task_rows.last_error(connection, row) if row.status == "FAILED" else None
    if error is not None:
        detail += f" {in_one_line(error)}"
    return k.Reason(code="finished", detail=detail, hint="POST /v1/tasks/{id}/retry queues it again.")


def _running(connection: sqlite3.Connection, row: TaskRow, now: Now) -> k.Reason:
    detail = (
        f'It runs: worker "{row.worker}" ({row.worker_id}) took it at {text(row.claimed_ms)}, as lease {row.leases}.'
    )
    hint = "POST /v1/tasks/{id}/cancel asks its worker to stop it. Without timeout_ms it may run for as long as its worker lives."
    if row.timeout_ms is not None:
        hint = f"It may run for {_spoken(row.timeout_ms)}; POST /v1/tasks/{{id}}/cancel asks its worker to stop it."
    if row.cancel:
        detail += " Its worker is asked to stop it."
        hint = "An async handler is cancelled, a plain one has to look; DELETE /v1/workers/{worker_id} takes all its tasks away."
    beat_ms, dead_after_ms = connection.execute(_SILENT, (row.worker_id,)).fetchone() or (now.now_ms, 0)
    silent_ms = now.now_ms - beat_ms
    if 2 * silent_ms > dead_after_ms:
        detail += f" The worker was last heard {_spoken(silent_ms)} ago; after {_spoken(dead_after_ms)} it goes back."
    return k.Reason(code="running", detail=detail, hint=hint)


def _not_yet(connection: sqlite3.Connection, row: TaskRow, now: Now) -> Iterator[k.Reason]:
    """That its moment has not come."""
    if row.state == QUEUED:
        return
    due_at = text(row.calendar_ms) if row.due_ms is None else now.at(row.due_ms)
    if row.state == SCHEDULED:
        hint = "Nothing: it is queued by itself. To run it now, cancel it and submit it without delay_ms or run_at."
        yield k.Reason(code="scheduled", detail=f"It was submitted for later: it is due at {due_at}.", hint=hint)
        return
    if (worker := task_rows.given_back_by(connection, row)) is not None:
        detail = f'Worker "{worker}" gave it back for later: it is queued again at {due_at}.'
        hint = "Nothing: it is queued by itself. A worker gives back what it has no handler for, if another one has it."
        yield k.Reason(code="backoff", detail=detail, hint=hint)
        return
    error = task_rows.last_error(connection, row)
    detail = f"Attempt {row.attempts} of {row.max_attempts} failed; the next one is due at {due_at}."
    if error is not None:
        detail += f" {in_one_line(error)}"
    hint = "Nothing: it is queued by itself. PATCH /v1/queues/{queue} changes the back-off of later attempts."
    yield k.Reason(code="backoff", detail=detail, hint=hint)


# -- what is in its way --------------------------------------------------------------------------------------------
def _in_the_way(connection: sqlite3.Connection, row: TaskRow) -> list[k.Reason]:
    """What keeps its queue from handing it out, now or once its moment has come."""
    reasons = []
    if row.paused:
        detail = f'The queue "{row.queue}" is paused.'
        hint = 'PATCH /v1/queues/{queue} {"paused": false}, or quorl queue resume.'
        reasons.append(k.Reason(code="paused", detail=detail, hint=hint))
    blocked = _of_the_workers(connection, row)
    return reasons if blocked is None else [*reasons, blocked]


def _of_the_workers(connection: sqlite3.Connection, row: TaskRow) -> k.Reason | None:
    """Why none of the workers that serve the queue takes it."""
    start = f"Start one: quorl worker run MODULE:APP -q {shlex.quote(row.queue)}"
    workers = _serving(connection, row.queue)
    if not workers:
        (dead,) = connection.execute(_DEAD, (row.queue,)).fetchone()
        died = f" {counted(dead, 'worker')} that did died lately." if dead else ""
        return k.Reason(code="no_workers", detail=f'No worker serves the queue "{row.queue}".{died}', hint=start)
    if row.partition >= 0:
        (owner,) = connection.execute(_OWNER, (row.queue_id, row.partition)).fetchone()
        workers = [] if owner is None else _serving(connection, row.queue, owner)
        if not workers:
            detail = f"Partition {row.partition}, in which it is, has no owner."
            return k.Reason(code="no_owner", detail=detail, hint=start)
    if len(workers) > WORKERS_LOOKED_AT_MAX:
        return None
    able = [one for one in workers if not one.quiet]
    if not able:
        detail = f"{_those(workers, row.partition)} told to claim nothing more."
        return k.Reason(code="no_workers", detail=detail, hint=f"A quiet worker stays quiet. {start}")
    known = [one.names for one in able]
    if all(known) and not any(row.name in names for names in known):
        names = sorted({name for some in known for name in some})[:_NAMES_GUESSED_MAX]
        detail = f'{_those(able, row.partition, "knows")} no task "{row.name}"{nearest_task(row.name, names) or "."}'
        hint = "Whoever takes it will fail it: run workers with that handler, or submit it under its right name."
        return k.Reason(code="unknown_name", detail=detail, hint=hint)
    slots = sum(one.concurrency for one in able)
    if sum(one.leases for one in able) >= slots:
        detail = f"{_those(able, row.partition, 'has')} all {counted(slots, 'slot')} taken."
        hint = "Wait, start more workers, or give them a higher --concurrency."
        return k.Reason(code="workers_busy", detail=detail, hint=hint)
    return None


def _serving(connection: sqlite3.Connection, queue: str, owner: int | None = None) -> list[_Worker]:
    """The first of the active workers of a queue, one more than are looked at; or that one of them."""
    least, most = (1, limits.INTEGER_MAX) if owner is None else (owner, owner)
    rows = connection.execute(_WORKERS, (queue, least, most, WORKERS_LOOKED_AT_MAX + 1))
    return [_Worker(*row) for row in rows]


def _in_turn(connection: sqlite3.Connection, row: TaskRow, *, alone: bool) -> Iterator[k.Reason]:
    """How many go before it; if nothing at all is in its way, that it is the next."""
    partitions, before, most = _beside(connection, row), 0, limits.LISTED_ROWS_MAX
    for partition in partitions:
        place = row.queue_id, partition, row.rank, row.ordinal
        (more,) = connection.execute(_BEFORE, (*place, most + 1 - before)).fetchone()
        before += more
    if before:
        many = f"More than {most}" if before > most else str(before)
        within = "" if row.partition < 0 else f" in {counted(len(partitions), 'partition')} of the same owner"
        goes = "goes" if before == 1 else "go"
        detail = f"{many} of the tasks that wait{within} {goes} before it, by priority or because they came sooner."
        hint = "Wait, start more workers, or submit what is urgent with a higher priority."
        yield k.Reason(code="behind", detail=detail, hint=hint)
    elif alone:
        detail = "Nothing is in its way: the next claim of its queue gets it."
        hint = "If this stays so, its workers claim nothing: GET /v1/workers says when each was last heard."
        yield k.Reason(code="ready", detail=detail, hint=hint)


def _beside(connection: sqlite3.Connection, row: TaskRow) -> list[int]:
    """The partitions whose tasks go to the same worker in one order, that of the task included."""
    if row.partition < 0:
        return [row.partition]
    owner = connection.execute(_OWNER, (row.queue_id, row.partition)).fetchone()
    return [partition for (partition,) in connection.execute(_OWNED, (row.queue_id, *owner))] or [row.partition]


# -- in words ------------------------------------------------------------------------------------------------------
def _those(workers: list[_Worker], partition: int, verb: str = "was") -> str:
    """The workers that could take a task, as the subject of a sentence."""
    if len(workers) == 1:
        role = "the owner of its partition" if partition >= 0 else "the only one that serves its queue"
        return f'Worker "{workers[0].name}" ({workers[0].worker_id}), {role}, {verb}'
    several = {"was": "were", "knows": "know", "has": "have"}[verb]
    return f"The {len(workers)} workers that serve its queue {several}"


def _spoken(span_ms: int) -> str:
    """A span of time in the unit that suits it."""
    for unit_ms, unit in ((86_400_000, "days"), (3_600_000, "h"), (60_000, "min")):
        if span_ms >= 2 * unit_ms:
            return f"{span_ms // unit_ms} {unit}"
    return f"{span_ms // 1000}.{span_ms % 1000 // 100} s"
