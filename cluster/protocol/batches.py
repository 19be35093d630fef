"""Messages about many tasks at once: what they died of, doing something to those that are named, or to all that fit."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Command, Cursor, Query, Reply
from quorl.cluster.protocol.queues import QueueName
from quorl.cluster.protocol.tasks import TaskId, TaskName

BatchAction = Literal["retry", "cancel", "forget"]
Cause = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
"""The fingerprint of a task's name, and of its last error without what differs from case to case."""
RestingStatus = Literal["SCHEDULED", "RETRY", "SUCCESS", "FAILED", "CANCELLED", "EXPIRED"]


class RefusedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task to which that could not be done, and the code of the refusal: ``task_not_found`` or ``wrong_state``."""

    id: str
    code: str


class TasksChanged(Reply, frozen=True):
    """What became of one call: ``matched`` tasks fitted, and to ``done`` of them it was done (with ``dry_run``: would be).

    ``refused`` tells of the first hundred others. ``next`` goes into ``after`` of the call that goes on, and is null when
    all tasks were looked at.
    """

    action: BatchAction
    matched: int
    done: int
    refused: list[RefusedTask]
    next: int | None


class ChangeTasks(Command[TasksChanged], frozen=True, tag="change_tasks"):
    """Retry, cancel or forget many tasks: those with these ``ids``, or those of a ``queue`` that are in a ``status``.

    With ``ids`` nothing else is looked at; without them and without a ``queue`` nothing fits. A call looks at 1 000 tasks at most, in order of submission; ``name`` leaves out those of other names, ``cause`` those whose last error was another. With ``dry_run`` it
    changes nothing and counts. Tasks that are QUEUED are taken out of a queue by purging it.
    """

    action: BatchAction
    ids: Annotated[tuple[TaskId, ...], Meta(max_length=limits.BATCH_TASKS_MAX)] = ()
    queue: QueueName | None = None
    status: RestingStatus = "FAILED"
    name: TaskName | None = None
    after: Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)] = 0
    dry_run: bool = False
    cause: Cause | None = None


class DeadGroup(msgspec.Struct, frozen=True, kw_only=True):
    """FAILED tasks of one queue with one name that died of the same.

    ``error`` is type and message of their last errors, with words in place of numbers, ids and quoted names; without any error
    it is their ``reason``. ``sample_id`` is the task among them that finished last.
    """

    cause: str
    queue: str
    name: str
    reason: str | None
    error: str
    count: int
    first_at: str
    last_at: str
    sample_id: str


class DeadGroups(Reply, frozen=True):
    """What some of the FAILED tasks died of, the largest group first.

    They are those of the ``looked_at`` tasks that this page looked at: groups of several pages with the same queue and
    cause are one group. ``next`` is the cursor of the next page, or null at the end.
    """

    items: list[DeadGroup]
    looked_at: int
    next: str | None


class ListDeadGroups(Query[DeadGroups], frozen=True, tag="list_dead_groups"):
    """Group the FAILED tasks by queue, name and what they died of, those submitted last first.

    A page looks at ``limit`` tasks at most, so that no call costs more however many there are.
    """

    queue: Annotated[str, Meta(max_length=limits.QUEUE_NAME_CHARS_MAX)] | None = None
    name: Annotated[str, Meta(max_length=limits.TASK_NAME_CHARS_MAX)] | None = None
    limit: Annotated[int, Meta(ge=1, le=limits.BATCH_TASKS_MAX)] = limits.BATCH_TASKS_MAX
    cursor: Cursor = ""
