"""Messages about many tasks at once: doing something to those that are named, or to all that fit."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Command, Reply
from quorl.cluster.protocol.queues import QueueName
from quorl.cluster.protocol.tasks import TaskId, TaskName

BatchAction = Literal["retry", "cancel", "forget"]
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

    With ``ids`` nothing else is looked at; without them and without a ``queue`` nothing fits. A call looks at 1 000 tasks at most, in order of submission; ``name`` leaves out those of other names. With ``dry_run`` it
    changes nothing and counts. Tasks that are QUEUED are taken out of a queue by purging it.
    """

    action: BatchAction
    ids: Annotated[tuple[TaskId, ...], Meta(max_length=limits.BATCH_TASKS_MAX)] = ()
    queue: QueueName | None = None
    status: RestingStatus = "FAILED"
    name: TaskName | None = None
    after: Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)] = 0
    dry_run: bool = False
