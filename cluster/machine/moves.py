"""A task's way from state to state: every row, count and piece of news that belongs to one step.

Invariants: the counts of a queue and of a worker are those of the rows after each step. Each task that does not wait for
somebody has one alarm, the next moment at which something happens to it by itself. Every lease that ends leaves a row in
``attempts``, but for one that ends as SUCCESS, which the task's own row tells; all other steps leave a mark. A task that is
QUEUED, and a sealed queue that has run empty, are told, so that those who wait for tasks look again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from quorl.cluster.machine import books, ids, waiting
from quorl.cluster.machine import events as e
from quorl.cluster.machine.books import Queue, Worker
from quorl.cluster.machine.state import Lease, State
from quorl.cluster.protocol import limits

SCHEDULED, QUEUED, PROCESSING, RETRY, SUCCESS, FAILED, CANCELLED, EXPIRED = range(8)
"""The numbers of ``tasks.STATES``."""

End = Literal["failed", "timeout", "lost", "released"]

_TASK = (
    f"SELECT ordinal, {ids.of('t')}, queue_id, state, attempts, max_attempts, lost, max_lost, cancel, leases, token, worker_id, due_ms,"
    " expiry_ms FROM tasks t"
)
_BY_ID = ids.ById(_TASK)
_BY_ORDINAL = f"{_TASK} WHERE ordinal = ?"
_LEASE_BY_ID = ids.ById(
    f"SELECT state, token, ordinal, {ids.of('t')}, queue_id, attempts, worker_id, claimed_ms FROM tasks t"
)
_QUEUE_UP = "UPDATE tasks SET state = 1, alarm_ms = expiry_ms, calendar_ms = NULL, due_ms = NULL, since_ms = ? WHERE ordinal = ?"
_FINISH = (
    "UPDATE tasks SET state = ?, alarm_ms = ?, calendar_ms = NULL, due_ms = NULL, expiry_ms = NULL, since_ms = ?, reason = ?,"
    " finished_index = ?, finished_term = ?, finished_ms = ? WHERE ordinal = ?"
)
_END = (
    "UPDATE tasks SET state = ?, alarm_ms = ?, due_ms = ?, since_ms = ?, attempts = ?, lost = ?, cancel = 0, reason = ?,"
    " finished_index = ?, finished_term = ?, finished_ms = ? WHERE ordinal = ?"
)
_ATTEMPT = (
    "INSERT INTO attempts SELECT ordinal, leases, worker_id, worker, token, ?2, ?3, claimed_index, claimed_term, claimed_ms,"
    " ?4, ?5, ?6, ?7 FROM tasks WHERE ordinal = ?1"
)
_OLD_ATTEMPTS = "DELETE FROM attempts WHERE ordinal = ? AND number <= ?"
_LAST_MARK = "SELECT max(number) FROM marks WHERE ordinal = ?"
_MARK = "INSERT INTO marks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
_OLD_MARK = "DELETE FROM marks WHERE ordinal = ? AND number = ?"
_BACKOFF = "SELECT backoff FROM payloads WHERE ordinal = ?"
_FORGET = tuple(
    f"DELETE FROM {table} WHERE ordinal = ?"
    for table in ("tasks", "payloads", "results", "progress", "attempts", "marks")
)
_DELETE_QUEUE = "DELETE FROM queues WHERE queue_id = ?"


class Task(NamedTuple):
    """What a step needs to know of a task."""

    ordinal: int
    id: str
    queue_id: int
    state: int
    attempts: int
    max_attempts: int
    lost: int
    max_lost: int
    cancel: int
    leases: int
    token: int | None
    worker_id: int | None
    due_ms: int | None
    expiry_ms: int | None


def find_lease(state: State, task_id: str) -> tuple[int, int | None, Lease] | None:
    """State, token and lease of the task with that id, running or not."""
    row = _LEASE_BY_ID.find(state.execute, task_id)
    return None if row is None else (row[0], row[1], Lease._make(row[2:]))


def find(state: State, task_id: str) -> Task | None:
    """The task with that id."""
    row = _BY_ID.find(state.execute, task_id)
    return None if row is None else Task._make(row)


def get(state: State, ordinal: int) -> Task:
    """The task with that ordinal, which is there."""
    return Task._make(state.execute(_BY_ORDINAL, (ordinal,)).fetchone())


def mark(state: State, task: Task, kind: str, after: int) -> None:
    """Note a step that neither the task's row nor a lease tells."""
    number = (state.execute(_LAST_MARK, (task.ordinal,)).fetchone()[0] or 0) + 1
    wall_ms = state.header.wall_ms
    entry = (state.index, state.term, wall_ms)
    state.execute(_MARK, (task.ordinal, number, kind, task.state, after, task.leases, *entry))
    if number > limits.HISTORY_KEPT:
        state.execute(_OLD_MARK, (task.ordinal, number - limits.HISTORY_KEPT))


# -- those that wait ----------------------------------------------------------------------------------------------
def queue_up(state: State, task: Task) -> None:
    """Its moment has come."""
    state.execute(_QUEUE_UP, (state.header.now_ms, task.ordinal))
    state.wake(task.expiry_ms)
    mark(state, task, "due", QUEUED)
    count(state, state.queue_by_id(task.queue_id), task.id, task.state, QUEUED)


def finish(state: State, task: Task, after: int, reason: str) -> None:
    """End a task that waits: it is cancelled, or nobody has started it in time."""
    header, queue = state.header, state.queue_by_id(task.queue_id)
    values = (state.index, state.term, header.wall_ms, task.ordinal)
    state.execute(_FINISH, (after, waiting.forgotten_ms(state, queue), header.now_ms, reason, *values))
    mark(state, task, "expired" if after == EXPIRED else "cancelled", after)
    count(state, queue, task.id, task.state, after)


# -- those that run -----------------------------------------------------------------------------------------------
def complete(state: State, reports: Sequence[tuple[Lease, bytes]]) -> None:
    """Workers have done these, with these results; no task comes twice. Their rows wait."""
    wall_ms, news = state.header.wall_ms, state.news
    queue, worker, ordinals = None, None, []
    for lease, result in reports:
        ordinal, task_id, queue_id, _, worker_id, claimed_ms = lease
        if queue is None or queue.queue_id != queue_id:
            queue = state.queue_by_id(queue_id)
            state.change_queue(queue)
            ordinals = state.done.setdefault(queue_id, [])
        if worker is None or worker.worker_id != worker_id:
            worker = _holder(state, worker_id)
        ordinals.append(ordinal)
        if result != b"null":
            state.results += (ordinal, result)
        worker.leases -= 1
        worker.succeeded += 1
        queue.counts[PROCESSING] -= 1
        queue.counts[SUCCESS] += 1
        queue.totals[books.SUCCEEDED] += 1
        news.tasks[task_id] = None
        news.ran_ms.append(wall_ms - claimed_ms)
        if queue.sealed and queue.drained:
            news.ready[queue.name] = None


def end(
    state: State, task: Task, how: End, *, error: str | None = None, retry: bool = True, delay_ms: int | None = None
) -> int:
    """End a lease in any other way; returns the state that the task is in then.

    The end of a lease whose task is to be cancelled cancels it; then a failure counts as none, for it was asked for.
    ``delay_ms`` is how long it waits then; None: for its back-off if it has failed, else not at all.
    """
    header, queue = state.header, state.queue_by_id(task.queue_id)
    outcome = "cancelled" if task.cancel and how in {"failed", "released"} else how
    attempts = task.attempts + (outcome in {"failed", "timeout"})
    lost = task.lost + (how == "lost")
    after, reason = _after(task, how, attempts, lost, retry)
    due_ms = None
    if after == RETRY and delay_ms is None:
        delay_ms = _delay_ms(state, queue, task, attempts)
    if after in {RETRY, QUEUED}:
        after, due_ms = (RETRY, header.now_ms + delay_ms) if delay_ms else (QUEUED, None)
    state.execute(_ATTEMPT, (task.ordinal, outcome, after, state.index, state.term, header.wall_ms, error))
    if task.leases > limits.HISTORY_KEPT:
        state.execute(_OLD_ATTEMPTS, (task.ordinal, task.leases - limits.HISTORY_KEPT))
    finished = (state.index, state.term, header.wall_ms) if reason else (None, None, None)
    alarm_ms = waiting.forgotten_ms(state, queue) if reason else due_ms
    values = (after, alarm_ms, due_ms, header.now_ms, attempts, lost, reason)
    state.execute(_END, (*values, *finished, task.ordinal))
    state.wake(due_ms)
    assert task.token is not None, "a task that runs is leased"
    state.leases.pop(task.token, None)
    worker = _holder(state, task.worker_id)
    worker.leases -= 1
    worker.failed += outcome in {"failed", "timeout"}
    worker.lost += how == "lost"
    if how != "failed":
        state.events.append(e.WorkerChanged(worker.worker_id))
    count(state, queue, task.id, PROCESSING, after)
    queue.totals[books.FAILED_ATTEMPTS] += outcome in {"failed", "timeout"}
    queue.totals[books.LOST] += how == "lost"
    queue.totals[books.FAILED] += after == FAILED
    return after


def _after(task: Task, how: End, attempts: int, lost: int, retry: bool) -> tuple[int, str | None]:
    """The state after the end of a lease, and the reason if it is a final one."""
    if task.cancel:
        return CANCELLED, "CANCELLED"
    if how == "released":
        return QUEUED, None
    if how == "lost":
        return (QUEUED, None) if lost < task.max_lost else (FAILED, "POISON")
    if retry and attempts < task.max_attempts:
        return RETRY, None
    if how == "timeout":
        return FAILED, "TIMEOUT"
    return FAILED, "ERROR" if retry else "NO_RETRY"


def _delay_ms(state: State, queue: Queue, task: Task, attempts: int) -> int:
    (own,) = state.execute(_BACKOFF, (task.ordinal,)).fetchone()
    return ids.delay_ms(own or queue.backoff, attempts, state.seed, task.ordinal)


def _holder(state: State, worker_id: int | None) -> Worker:
    """The worker that holds a lease, to be changed."""
    assert worker_id is not None, "a task that runs is leased"
    worker = state.worker(worker_id)
    assert worker is not None, "a worker is not forgotten while it holds leases"
    state.change_worker(worker)
    return worker


# -- counts, and the end of everything ----------------------------------------------------------------------------
def count(state: State, queue: Queue, task_id: str, before: int, after: int) -> None:
    """Count a step, and tell of it."""
    state.change_queue(queue)
    queue.counts[before] -= 1
    queue.counts[after] += 1
    state.news.tasks[task_id] = None
    if after == QUEUED or queue.drained:
        state.news.ready[queue.name] = None


def forget(state: State, task: Task) -> None:
    """Forget a finished task, and with the last one of a deleted queue the queue's row."""
    for statement in _FORGET:
        state.execute(statement, (task.ordinal,))
    queue = state.queue_by_id(task.queue_id)
    state.change_queue(queue)
    queue.counts[task.state] -= 1
    state.news.tasks[task.id] = None
    if queue.deleted and not any(queue.counts):
        state.execute(_DELETE_QUEUE, (queue.queue_id,))
        state.forget_queue(queue)
