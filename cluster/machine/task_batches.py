"""Doing something to many tasks in one command: to each what the command for one task does, or nothing if it is refused.

Invariants: a command looks at ``BATCH_TASKS_MAX`` tasks at most, in the order of their ordinals, so a call that goes on
behind the last of them comes to an end. A dry run changes nothing and counts what would be done.
"""

from __future__ import annotations

from quorl.cluster.machine import causes, ids, moves, queues, tasks
from quorl.cluster.machine.moves import CANCELLED, EXPIRED, FAILED, PROCESSING, SUCCESS, Task
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import batches as b
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.grammar import Rejection
from quorl.cluster.protocol.queues import QueueNotFound

REFUSED_SHOWN_MAX = 100
"""Of those that were refused, so many are named; all are counted."""

_OF_QUEUE = (
    f"SELECT {ids.of('tasks')}, ordinal, name FROM tasks INDEXED BY tasks_resting WHERE state NOT IN (1, 2) AND queue_id = ? AND state = ?"
    " AND ordinal > ? ORDER BY ordinal LIMIT ?"
)
_FITS = {
    "retry": frozenset({FAILED, CANCELLED, EXPIRED}),
    "cancel": frozenset(range(PROCESSING + 2)) | {CANCELLED},
    "forget": frozenset({SUCCESS, FAILED, CANCELLED, EXPIRED}),
}
"""The states in which it is done."""


def change(state: State, command: b.ChangeTasks) -> b.TasksChanged | QueueNotFound:
    """Do it to each that fits."""
    chosen, following = list(command.ids[: limits.BATCH_TASKS_MAX]), None
    if not command.ids and command.queue is not None:
        queue = state.queue(command.queue)
        if queue is None:
            return queues.not_found(command.queue)
        values = (queue.queue_id, k.STATES.index(command.status), command.after, limits.BATCH_TASKS_MAX)
        rows = state.execute(_OF_QUEUE, values).fetchall()
        chosen = [task_id for task_id, ordinal, name in rows if _chosen(state, command, ordinal, name)]
        following = rows[-1][1] if len(rows) == limits.BATCH_TASKS_MAX else None
    refused = [b.RefusedTask(id=task_id, code=code) for task_id in chosen if (code := _do(state, command, task_id))]
    return b.TasksChanged(
        action=command.action,
        matched=len(chosen),
        done=len(chosen) - len(refused),
        refused=refused[:REFUSED_SHOWN_MAX],
        next=following,
    )


def _chosen(state: State, command: b.ChangeTasks, ordinal: int, name: str) -> bool:
    """Whether a task of the queue and the status is meant."""
    if command.name not in {None, name}:
        return False
    return command.cause is None or causes.cause(state.connection, ordinal) == command.cause


def _do(state: State, command: b.ChangeTasks, task_id: str) -> str:
    """Do it to one task, or only look; returns the code of the refusal, if there is one."""
    if command.dry_run:
        task = moves.find(state, task_id)
        return "task_not_found" if task is None else "" if _fits(state, command, task) else "wrong_state"
    done: object
    if command.action == "retry":
        done = tasks.retry(state, k.RetryTask(id=task_id))
    elif command.action == "cancel":
        done = tasks.cancel(state, k.CancelTask(id=task_id))
    else:
        done = tasks.forget(state, k.ForgetTask(id=task_id))
    return str(done.__struct_config__.tag) if isinstance(done, Rejection) else ""


def _fits(state: State, command: b.ChangeTasks, task: Task) -> bool:
    deleted = command.action == "retry" and state.queue_by_id(task.queue_id).deleted
    return task.state in _FITS[command.action] and not deleted
