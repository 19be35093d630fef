"""What can be asked about one task: itself, its result, its history. And the tasks of a claim, for their worker.

Invariants: the row of a task holds the lease that runs or that ended as SUCCESS, ``attempts`` those that ended otherwise,
``marks`` all transitions that were no lease's; together they tell everything once, in the order of the log. A history
whose errors are too large for one answer is told from its newest end.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

import msgspec
from msgspec import UNSET

from quorl.cluster.machine import ids, task_rows
from quorl.cluster.machine.task_rows import NULL, PROCESSING, SCHEDULED, SUCCESS, TaskRow, text
from quorl.cluster.machine.waiting import runs
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g

_RESULT = "SELECT body FROM results WHERE ordinal = ?"
_PROGRESS = "SELECT percent, note FROM progress WHERE ordinal = ?"
_CLAIMED = (
    "SELECT t.ordinal, t.token, t.given_id, t.created_ms, t.die, t.name, q.name, t.partition, t.rank, t.max_attempts, t.timeout_ms, p.body, g.checkpoint FROM tasks t"
    " CROSS JOIN queues q ON q.queue_id = t.queue_id CROSS JOIN payloads p ON p.ordinal = t.ordinal"
    " LEFT JOIN progress g ON g.ordinal = t.ordinal WHERE t.ordinal BETWEEN ? AND ? AND t.state = 2"
)
_ATTEMPTS = (
    "SELECT number, worker_id, worker, token, claimed_ms, ended_ms, outcome, error FROM attempts WHERE ordinal = ?"
    " ORDER BY number DESC"
)
_LEASES = (
    "SELECT number, worker_id, outcome, state, claimed_index, claimed_term, claimed_ms, ended_index, ended_term, ended_ms"
    " FROM attempts WHERE ordinal = ? ORDER BY number"
)
_MARKS = "SELECT number, kind, state, leases, at_index, at_term, at_ms FROM marks WHERE ordinal = ? ORDER BY number"
_FIRST_MARK = "SELECT before, leases FROM marks WHERE ordinal = ? ORDER BY number LIMIT 1"
_LEADER = "SELECT node FROM leaders WHERE term = ?"

_ATTEMPT_BYTES = 400
"""An estimate of the JSON of an attempt without its error."""


# -- itself, its result --------------------------------------------------------------------------------------------
def get_task(connection: sqlite3.Connection, request: k.GetTask) -> k.TaskInfo | k.TaskNotFound:
    """A task with everything about it."""
    row = task_rows.find(connection, request.id)
    if isinstance(row, k.TaskNotFound):
        return row
    now = task_rows.now(connection)
    stored: bytes = connection.execute(task_rows.BODY, (row.ordinal,)).fetchone()[0]
    body, result = task_rows.decode_body(stored), _result(connection, row)
    room_bytes = limits.PAGE_BYTES_MAX - len(stored) - len(memoryview(result))
    history = _history(connection, row, room_bytes)
    percent, note = connection.execute(_PROGRESS, (row.ordinal,)).fetchone() or (None, "")
    worker_id, worker = task_rows.known_worker(row)
    due_at = text(row.calendar_ms) if row.due_ms is None else now.at(row.due_ms)
    return k.TaskInfo(
        id=row.id,
        name=row.name,
        queue=row.queue,
        partition=None if row.partition < 0 else row.partition,
        status=row.status,
        priority=row.priority,
        args=body.args,
        kwargs=body.kwargs,
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        lost=row.lost,
        max_lost=row.max_lost,
        tries=body.tries,
        key=body.key,
        tags=body.tags or [],
        meta=body.meta or {},
        traceparent=body.traceparent,
        tracestate=body.tracestate,
        timeout_ms=row.timeout_ms,
        created_at=moment.to_text(row.created_ms),
        due_at=due_at,
        started_at=text(row.claimed_ms),
        finished_at=text(row.finished_ms),
        worker_id=worker_id,
        worker=worker,
        cancel_requested=bool(row.cancel),
        progress=percent,
        note=note,
        result=result,
        reason=row.reason,
        errors=[
            k.AttemptError(
                attempt=one.number, type=one.error.type, message=one.error.message, traceback=one.error.traceback
            )
            for one in history
            if one.error is not None
        ],
        history=history,
    )


def _result(connection: sqlite3.Connection, row: TaskRow) -> msgspec.Raw:
    """The result of a SUCCESS; null of any other task, and of one that came to nothing else."""
    found = connection.execute(_RESULT, (row.ordinal,)).fetchone() if row.state == SUCCESS else None
    return NULL if found is None else msgspec.Raw(found[0])


def _history(connection: sqlite3.Connection, row: TaskRow, room_bytes: int) -> list[k.AttemptInfo]:
    """The leases of a task, the oldest first; those that there is no room for are left out from that end."""
    newest_first: list[k.AttemptInfo] = []
    if row.state in {PROCESSING, SUCCESS}:
        newest_first.append(
            k.AttemptInfo(
                number=row.leases,
                worker_id=_there(row.worker_id),
                worker=row.worker or "",
                token=_there(row.token),
                started_at=moment.to_text(_there(row.claimed_ms)),
                ended_at=text(row.finished_ms),
                outcome="running" if row.state == PROCESSING else "success",
                error=None,
            )
        )
    rows = connection.execute(_ATTEMPTS, (row.ordinal,))
    try:
        for number, worker_id, worker, token, claimed_ms, ended_ms, outcome, error in rows:
            size_bytes = _ATTEMPT_BYTES + 2 * len(error or "")  # it stands in ``errors`` as well
            if newest_first and size_bytes > room_bytes:
                break
            room_bytes -= size_bytes
            newest_first.append(
                k.AttemptInfo(
                    number=number,
                    worker_id=worker_id,
                    worker=worker,
                    token=token,
                    started_at=moment.to_text(claimed_ms),
                    ended_at=moment.to_text(ended_ms),
                    outcome=outcome,
                    error=task_rows.error_of(outcome, error, row.timeout_ms),
                )
            )
    finally:
        rows.close()
    return newest_first[::-1]


def _there(value: int | None) -> int:
    """A value that a task with a lease has."""
    assert value is not None, "a task that was leased says by whom and when"
    return value


def get_result(connection: sqlite3.Connection, request: k.GetResult) -> k.TaskResult | k.TaskNotFound:
    """What a task came to."""
    row = task_rows.find(connection, request.id)
    if isinstance(row, k.TaskNotFound):
        return row
    return k.TaskResult(
        id=row.id,
        status=row.status,
        attempts=row.attempts,
        result=_result(connection, row),
        reason=row.reason,
        error=task_rows.last_error(connection, row) if row.status == "FAILED" and row.reason != "POISON" else None,
    )


# -- its transitions -----------------------------------------------------------------------------------------------
_Node: TypeAlias = Callable[[int], str]
"""Says who led in a term."""


class _Told(NamedTuple):
    """One transition, with its place in the log: (entry, leases before or by then, 0 to 3, number)."""

    place: tuple[int, int, int, int]
    event: k.TaskEvent


def get_events(connection: sqlite3.Connection, request: k.GetTaskEvents) -> k.TaskEvents | k.TaskNotFound:
    """Every transition of a task, in the order of the log."""
    row = task_rows.find(connection, request.id)
    if isinstance(row, k.TaskNotFound):
        return row
    nodes: dict[int, str] = {}

    def node(term: int) -> str:
        if term not in nodes:
            (nodes[term],) = connection.execute(_LEADER, (term,)).fetchone() or ("",)
        return nodes[term]

    told = [*_told_by_itself(connection, row, node), *_told_by_attempts(connection, row, node)]
    told += _told_by_marks(connection, row, node)
    return k.TaskEvents(items=[one.event for one in sorted(told, key=lambda one: one.place)])


def _told_by_itself(connection: sqlite3.Connection, row: TaskRow, node: _Node) -> Iterator[_Told]:
    """That it was submitted, and the lease that runs or ended as SUCCESS."""
    created = row.created_index, row.created_term, row.created_ms
    yield _Told((created[0], 0, 0, 0), _event(node, "submitted", _came_as(connection, row), created))
    if row.state in {PROCESSING, SUCCESS}:
        lease = row.worker_id, row.leases
        claimed = _there(row.claimed_index), _there(row.claimed_term), _there(row.claimed_ms)
        yield _Told((claimed[0], row.leases, 0, 0), _event(node, "claimed", "PROCESSING", claimed, *lease))
        if row.state == SUCCESS:
            ended = _there(row.finished_index), _there(row.finished_term), _there(row.finished_ms)
            yield _Told((ended[0], row.leases, 2, 0), _event(node, "success", "SUCCESS", ended, *lease))


def _came_as(connection: sqlite3.Connection, row: TaskRow) -> k.Status:
    """The first state of a task: SCHEDULED if it had to wait for its moment before anything else."""
    if row.state == SCHEDULED:
        return "SCHEDULED"
    first = connection.execute(_FIRST_MARK, (row.ordinal,)).fetchone()
    return "SCHEDULED" if first == (SCHEDULED, 0) else "QUEUED"


def _told_by_attempts(connection: sqlite3.Connection, row: TaskRow, node: _Node) -> Iterator[_Told]:
    """The leases that ended, but not as SUCCESS."""
    for number, worker_id, outcome, state, *when in connection.execute(_LEASES, (row.ordinal,)):
        claimed, ended = tuple(when[:3]), tuple(when[3:])
        yield _Told((claimed[0], number, 0, 0), _event(node, "claimed", "PROCESSING", claimed, worker_id, number))
        yield _Told((ended[0], number, 2, 0), _event(node, outcome, k.STATES[state], ended, worker_id, number))


def _told_by_marks(connection: sqlite3.Connection, row: TaskRow, node: _Node) -> Iterator[_Told]:
    """All other transitions."""
    for number, kind, state, leases, *when in connection.execute(_MARKS, (row.ordinal,)):
        asked = kind == "cancel_requested"
        event = _event(node, kind, k.STATES[state], tuple(when), None, leases if asked else None)
        yield _Told((when[0], leases, 1 if asked else 3, number), event)


def _event(
    node: _Node,
    kind: str,
    status: k.Status,
    when: tuple[int, ...],
    worker_id: int | None = None,
    attempt: int | None = None,
) -> k.TaskEvent:
    index, term, at_ms = when
    return k.TaskEvent(
        kind=cast("k.EventKind", kind),
        status=status,
        at=moment.to_text(at_ms),
        index=index,
        term=term,
        node=node(term),
        worker_id=worker_id,
        attempt=attempt,
    )


# -- the tasks of a claim ------------------------------------------------------------------------------------------
def claims(connection: sqlite3.Connection, granted: e.Granted) -> e.Claims:
    """The tasks of a claim, now or when it is repeated; leases that have ended since are left out."""
    return e.Claims(tasks=_claimed(connection, granted.grants, granted.expires_in_ms), drained=granted.drained)


def claims_of_many(connection: sqlite3.Connection, granted: g.GrantedMany) -> g.ClaimedMany:
    """The same of several claims, in the places that they have in their call, as far as the last that came to something."""
    items = [g.ClaimedBy()] * (max([one.at for one in granted.items], default=-1) + 1)
    for one in granted.items:
        items[one.at] = g.ClaimedBy(
            tasks=_claimed(connection, one.grants, one.expires_in_ms),
            drained=one.drained,
            code=one.code,
            detail=one.detail,
        )
    return g.ClaimedMany(items=items)


def _claimed(connection: sqlite3.Connection, grants: Sequence[e.Grant], expires_in_ms: int) -> list[e.ClaimedTask]:
    held: dict[tuple[int, int], list[Any]] = {}  # by the task, and the lease under which it runs
    for start, end in runs(sorted([grant.ordinal for grant in grants])):
        for ordinal, token, *found in connection.execute(_CLAIMED, (start, end)):
            held[ordinal, token] = found
    tasks = []
    for grant in grants:
        found = held.get((grant.ordinal, grant.token))
        if found is None:
            continue
        given_id, created_ms, die, name, queue, partition, rank, max_attempts, timeout_ms, stored, checkpoint = found
        body = task_rows.decode_body(stored)
        tasks.append(
            e.ClaimedTask(
                id=given_id or f"{ids.head(created_ms, die)}{grant.ordinal:012x}",  # what SQL takes longer to write
                name=name,
                args=body.args,
                kwargs=body.kwargs,
                attempt=grant.attempt,
                max_attempts=max_attempts,
                lease=e.Lease(token=grant.token, expires_in_ms=expires_in_ms),
                queue=queue,
                partition=None if partition < 0 else partition,
                priority=limits.PRIORITY_MAX - rank,
                timeout_ms=timeout_ms,
                checkpoint=NULL if checkpoint is None else msgspec.Raw(checkpoint),
                meta=body.meta or {},
                traceparent=body.traceparent,
                tracestate=UNSET if body.tracestate is None else body.tracestate,
            )
        )
    return tasks
