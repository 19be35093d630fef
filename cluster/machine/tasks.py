"""What is asked of a task from outside: cancel it, try it again, forget it.

Invariants: what a worker runs is never taken from it by these; it is asked to stop. Trying again keeps the history and the
counts, and raises the limits above them.
"""

from __future__ import annotations

from quorl.cluster.machine import events as e
from quorl.cluster.machine import moves
from quorl.cluster.machine.moves import CANCELLED, EXPIRED, FAILED, PROCESSING, QUEUED, RETRY, SUCCESS, Task
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.tasks import STATES, TaskNotFound, WrongState

_ASK = "UPDATE tasks SET cancel = 1 WHERE ordinal = ?"
_AGAIN = (
    "UPDATE tasks SET state = 1, alarm_ms = NULL, since_ms = ?, max_attempts = ?, max_lost = ?, reason = NULL,"
    " finished_index = NULL, finished_term = NULL, finished_ms = NULL WHERE ordinal = ?"
)


def _not_found(task_id: str) -> TaskNotFound:
    return TaskNotFound(detail=f'There is no task "{task_id}".')


def _wrong(task: Task, what: str) -> WrongState:
    return WrongState(detail=f'The task "{task.id}" is {STATES[task.state]}: {what}.')


def cancel(state: State, command: k.CancelTask) -> k.Cancelled | TaskNotFound | WrongState:
    """Cancel a task that waits; ask the worker of one that runs to stop."""
    task = moves.find(state, command.id)
    if task is None:
        return _not_found(command.id)
    if task.state in {SUCCESS, FAILED, EXPIRED}:
        return _wrong(task, "there is nothing to cancel any more")
    if task.state == PROCESSING:
        if not task.cancel:
            assert task.worker_id is not None, "a task that runs is leased"
            state.execute(_ASK, (task.ordinal,))
            moves.mark(state, task, "cancel_requested", PROCESSING)
            state.news.tasks[task.id] = None
            state.events.append(e.WorkerChanged(task.worker_id))
        return k.Cancelled(id=task.id, status="PROCESSING", cancel_requested=True)
    if task.state != CANCELLED:
        moves.finish(state, task, CANCELLED, "CANCELLED")
    return k.Cancelled(id=task.id, status="CANCELLED", cancel_requested=False)


def retry(state: State, command: k.RetryTask) -> k.TaskStatus | TaskNotFound | WrongState:
    """Queue a task again that came to no success."""
    task = moves.find(state, command.id)
    if task is None:
        return _not_found(command.id)
    if task.state not in {FAILED, CANCELLED, EXPIRED}:
        return _wrong(task, "only what is FAILED, CANCELLED or EXPIRED is tried again")
    queue = state.queue_by_id(task.queue_id)
    if queue.deleted:
        return _wrong(task, "its queue was deleted")
    limits = (task.attempts + queue.default_attempts, task.lost + queue.max_lost)
    state.execute(_AGAIN, (state.header.now_ms, *limits, task.ordinal))
    moves.mark(state, task, "retried", QUEUED)
    moves.count(state, queue, task.id, task.state, QUEUED)
    return k.TaskStatus(id=task.id, status="QUEUED", attempts=task.attempts)


def forget(state: State, command: k.ForgetTask) -> k.TaskForgotten | TaskNotFound | WrongState:
    """Forget a finished task."""
    task = moves.find(state, command.id)
    if task is None:
        return _not_found(command.id)
    if task.state <= RETRY:
        return _wrong(task, "only what is finished can be forgotten")
    moves.forget(state, task)
    return k.TaskForgotten(id=task.id)
