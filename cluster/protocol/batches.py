"""Messages about many tasks at once: doing something to all that fit, and what the FAILED ones died of.

Tasks that failed of the same are a *group*: of one queue and one task name, with the same error once numbers, names in
quotes and ids in its text are left aside.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Command, Query, Reply
from quorl.cluster.protocol.queues import PageSize, QueueName
from quorl.cluster.protocol.tasks import Status, TaskId, TaskName

Group = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$", description="As `GET /v1/dead` names it.")]
BatchAction = Literal["retry", "cancel", "forget"]


class RefusedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that was named and to which that could not be done: ``task_not_found`` or ``wrong_state``."""

    id: str
    code: str


class TaskBatchDone(Reply, frozen=True):
    """What became of one call. ``matched`` tasks fitted, to ``done`` of them it was done (with ``dry_run``: would be).

    ``next`` is the cursor with which the same call goes on, or null when all tasks were looked at. ``refused`` only tells of tasks that were named.
    """

    action: BatchAction
    matched: int
    done: int
    refused: list[RefusedTask]
    next: str | None


class ChangeTasks(Command[TaskBatchDone], frozen=True, tag="change_tasks"):
    """Retry, cancel or forget many tasks: those that are named, or all that fit, a bounded number at once.

    Without ``ids`` a ``queue``, a ``status`` or a ``group`` must be said; all that are said must fit. Tasks to which it
    cannot be done in their state do not fit. ``group`` fits FAILED tasks alone.
    """

    action: BatchAction
    ids: Annotated[tuple[TaskId, ...], Meta(max_length=limits.BATCH_TASKS_MAX)] = ()
    queue: QueueName | None = None
    status: Status | None = None
    name: TaskName | None = None
    group: Group | None = None
    cursor: Annotated[str, Meta(max_length=4096)] = ""
    dry_run: bool = False


class DeadGroup(msgspec.Struct, frozen=True, kw_only=True):
    """FAILED tasks of one queue and one name with the same error. ``sample_id`` is the one that failed last.

    ``error`` is type and message in one line, with what varies left aside, or the ``reason`` where no error was reported.
    """

    group: str
    queue: str
    name: str
    reason: str
    error: str
    count: int
    first_at: str
    last_at: str
    sample_id: str


class DeadGroups(Reply, frozen=True):
    """One page of groups, the largest first; ``next`` is the cursor of the next page, or null at the end."""

    items: list[DeadGroup]
    next: str | None


class ListDead(Query[DeadGroups], frozen=True, tag="list_dead"):
    """List what FAILED tasks died of, the same errors counted together."""

    queue: QueueName | None = None
    name: TaskName | None = None
    limit: PageSize = limits.PAGE_ITEMS_DEFAULT
    cursor: Annotated[str, Meta(max_length=4096)] = ""
