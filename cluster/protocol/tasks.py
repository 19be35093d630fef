"""Messages of the tasks: looking, cancelling, retrying.

A task is a name, arguments and options, in one queue. Its states:

``SCHEDULED`` (its time has not come) → ``QUEUED`` → ``PROCESSING`` (leased to a worker) → ``SUCCESS`` or ``FAILED``.
A failed attempt that is not the last leads to ``RETRY`` (waiting for its back-off) and from there to ``QUEUED``; a lease
that is given back or whose worker is dead leads straight to ``QUEUED``, unless it is given back for later (``RETRY``). ``CANCELLED`` and ``EXPIRED`` are the other ends.
Results are JSON and are kept byte for byte, as arguments are.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta
from typing_extensions import override

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Command, Cursor, Query, Rejection, Reply
from quorl.cluster.protocol.queues import PageSize

TaskId = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=limits.TASK_ID_CHARS_MAX,
        description="1 to 200 characters, not `.` or `..`.",
    ),
]
TaskName = Annotated[str, Meta(min_length=1, max_length=limits.TASK_NAME_CHARS_MAX)]
WorkerId = Annotated[int, Meta(ge=1, le=limits.INTEGER_MAX)]
Wait = Annotated[float, Meta(ge=0, le=limits.WAIT_S_MAX, description="Seconds to wait for something to answer with.")]
Status = Literal["SCHEDULED", "QUEUED", "PROCESSING", "RETRY", "SUCCESS", "FAILED", "CANCELLED", "EXPIRED"]

STATES: tuple[Status, ...] = (
    "SCHEDULED",
    "QUEUED",
    "PROCESSING",
    "RETRY",
    "SUCCESS",
    "FAILED",
    "CANCELLED",
    "EXPIRED",
)
_SEVERAL = "^({0})(,({0}))*$".format("|".join(STATES))
"""One state or several, with commas between them."""
"""In the order of their numbers in the state; numbers are never given to another state."""
FINAL: frozenset[str] = frozenset({"SUCCESS", "FAILED", "CANCELLED", "EXPIRED"})


# -- refusals -----------------------------------------------------------------------------------------------------
class TaskNotFound(Rejection, frozen=True, tag="task_not_found"):
    """No task has that id, or it finished so long ago that it was forgotten."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Task not found"
    hint: ClassVar[str] = "Use the id that submit answered with; finished tasks are forgotten after keep_finished_ms."


class TaskExists(Rejection, frozen=True, tag="task_exists"):
    """A task with that id exists already, and it is another one."""

    title: ClassVar[str] = "Task id is taken"
    hint: ClassVar[str] = "Choose another id. Submitting the very same task again is fine and changes nothing."


class WrongState(Rejection, frozen=True, tag="wrong_state"):
    """The task is in a state in which that cannot be done."""

    title: ClassVar[str] = "Wrong state"
    hint: ClassVar[str] = "GET /v1/tasks/{id} says what state the task is in."


class LeaseLost(Rejection, frozen=True, tag="lease_lost"):
    """The token is not that of the task's current lease, so nothing that its holder reports counts any more."""

    title: ClassVar[str] = "Lease lost"
    hint: ClassVar[str] = "Drop the work: the task was given to another worker, timed out, or is finished."


# -- looking ------------------------------------------------------------------------------------------------------
class TaskError(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed, as its worker says."""

    type: Annotated[str, Meta(max_length=limits.TASK_NAME_CHARS_MAX)] = "Error"
    message: Annotated[str, Meta(max_length=limits.ERROR_TEXT_CHARS_MAX)] = ""
    traceback: Annotated[str, Meta(max_length=limits.ERROR_TEXT_CHARS_MAX)] = ""


Outcome = Literal["running", "success", "failed", "timeout", "lost", "released", "cancelled"]


class AttemptInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One lease of a task: who held it, from when to when, and how it ended. ``number`` counts leases from 1.

    ``lost``: its worker died. ``released``: it was given back. Only ``failed`` and ``timeout`` count as attempts.
    """

    number: int
    worker_id: int
    worker: str
    token: int
    started_at: str
    ended_at: str | None
    outcome: Outcome
    error: TaskError | None


class AttemptError(msgspec.Struct, frozen=True, kw_only=True):
    """The error of one failed attempt; ``attempt`` is its number among all leases."""

    attempt: int
    type: str
    message: str
    traceback: str


class TaskInfo(Reply, frozen=True):
    """A task with its whole history. ``result`` is null until it is a SUCCESS.

    ``attempts`` counts the runs that came to an end of their own: a success or a failure. ``lost`` counts those whose
    worker died. ``reason`` says why a task is FAILED, CANCELLED or EXPIRED: ``ERROR`` (its last attempt failed),
    ``TIMEOUT``, ``POISON`` (it lost too many workers), ``NO_RETRY``, ``CANCELLED``, ``PURGED``, ``EXPIRED``.
    ``history`` has every lease, and ``errors`` the error of each that failed, the oldest first; of a history that is too
    large for one answer the oldest part is left out, as the numbers show. ``due_at``: when a task in SCHEDULED or RETRY
    goes on, if cluster time does not stand still until then.
    """

    id: str
    name: str
    queue: str
    partition: int | None
    status: Status
    priority: int
    args: msgspec.Raw
    kwargs: msgspec.Raw
    attempts: int
    max_attempts: int
    lost: int
    max_lost: int
    tries: int | None
    key: str | None
    tags: list[str]
    meta: dict[str, str]
    traceparent: str | None
    tracestate: str | None
    timeout_ms: int | None
    created_at: str
    due_at: str | None
    started_at: str | None
    finished_at: str | None
    worker_id: int | None
    worker: str | None
    cancel_requested: bool
    progress: float | None
    note: str
    result: msgspec.Raw
    reason: str | None
    errors: list[AttemptError]
    history: list[AttemptInfo]


class GetTask(Query[TaskInfo], frozen=True, tag="get_task"):
    """Describe one task. With ``wait`` the answer is held back until it is finished or the seconds are over."""

    id: TaskId
    wait: Wait = 0


class TaskResult(Reply, frozen=True, omit_defaults=True):
    """What a task came to: its result when it is a SUCCESS, its last error when it FAILED."""

    also: ClassVar[dict[int, str]] = {202: "It is not finished."}

    id: str
    status: Status
    attempts: int
    result: msgspec.Raw
    reason: str | None = None
    error: TaskError | None = None

    @override
    def http_status(self, accepted: int) -> int:
        """202 while the task is not finished."""
        return accepted if self.status in FINAL else 202


class GetResult(Query[TaskResult], frozen=True, tag="get_result"):
    """Read the result of a task: 202 while it is not finished. With ``wait``, held back until then."""

    id: TaskId
    wait: Wait = 0


EventKind = Literal[
    "submitted",
    "due",
    "claimed",
    "success",
    "failed",
    "timeout",
    "lost",
    "released",
    "cancel_requested",
    "cancelled",
    "expired",
    "retried",
]


class TaskEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One transition: when (calendar time), in which log entry, under which leader, and of which worker."""

    kind: EventKind
    status: Status
    at: str
    index: int
    term: int
    node: str
    worker_id: int | None
    attempt: int | None


class TaskEvents(Reply, frozen=True):
    """Every transition of a task, in the order of the log."""

    items: list[TaskEvent]


class GetTaskEvents(Query[TaskEvents], frozen=True, tag="get_task_events"):
    """List the transitions of a task."""

    id: TaskId


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One reason why a task does not run, and what to do about it."""

    code: Literal[
        "finished",
        "running",
        "scheduled",
        "backoff",
        "paused",
        "no_workers",
        "no_owner",
        "unknown_name",
        "workers_busy",
        "behind",
        "ready",
    ]
    detail: str
    hint: str


class TaskWhy(Reply, frozen=True):
    """Why a task is not running now, the weightiest reason first."""

    id: str
    status: Status
    reasons: list[Reason]


class GetTaskWhy(Query[TaskWhy], frozen=True, tag="get_task_why"):
    """Say why a task is not running."""

    id: TaskId


class TaskSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A task in a list. ``error`` is the last error's type and message in one line; long arguments are left out (null).

    ``cause`` is the same for FAILED tasks of one name with the same error, numbers, ids and quoted names aside.
    """

    id: str
    name: str
    queue: str
    partition: int | None
    status: Status
    priority: int
    args: msgspec.Raw
    attempts: int
    max_attempts: int
    lost: int
    worker_id: int | None
    worker: str | None
    created_at: str
    started_at: str | None
    finished_at: str | None
    reason: str | None
    error: str | None
    cause: str | None = None


class TaskList(Reply, frozen=True):
    """One page of tasks; ``next`` is the cursor of the next page, or null at the end. A page may be short, even empty."""

    items: list[TaskSummary]
    next: str | None


class ListTasks(Query[TaskList], frozen=True, tag="list_tasks"):
    """List tasks, the newest first. ``status`` may be several, with commas between them."""

    queue: Annotated[str, Meta(max_length=limits.QUEUE_NAME_CHARS_MAX)] | None = None
    status: Annotated[str, Meta(max_length=200, extra_json_schema={"pattern": _SEVERAL})] | None = None
    name: Annotated[str, Meta(max_length=limits.TASK_NAME_CHARS_MAX)] | None = None
    worker_id: WorkerId | None = None
    order: Literal["newest", "oldest"] = "newest"
    limit: PageSize = limits.PAGE_ITEMS_DEFAULT
    cursor: Cursor = ""


# -- cancelling, retrying, forgetting -----------------------------------------------------------------------------
class TaskStatus(Reply, frozen=True):
    """The state that a task is in now."""

    id: str
    status: Status
    attempts: int


class Cancelled(Reply, frozen=True):
    """``CANCELLED``: it is. ``PROCESSING``: its worker is told with its next sign of life, and decides."""

    also: ClassVar[dict[int, str]] = {202: "A worker runs it, and is told to stop."}

    id: str
    status: Status
    cancel_requested: bool

    @override
    def http_status(self, accepted: int) -> int:
        """202 while a worker still runs it."""
        return 202 if self.status == "PROCESSING" else accepted


class CancelTask(Command[Cancelled], frozen=True, tag="cancel_task"):
    """Cancel a task: at once while it waits, through its worker while it runs."""

    id: TaskId


class RetryTask(Command[TaskStatus], frozen=True, tag="retry_task"):
    """Queue a task again that is FAILED, CANCELLED or EXPIRED, with as many attempts more as its queue's default."""

    id: TaskId


class TaskForgotten(Reply, frozen=True):
    """The task is gone, with its result and history."""

    id: str


class ForgetTask(Command[TaskForgotten], frozen=True, tag="forget_task"):
    """Forget a finished task now."""

    id: TaskId
