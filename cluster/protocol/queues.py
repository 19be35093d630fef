"""Messages of the queues: what they are told, what they answer, what they refuse.

A queue hands tasks out to workers: by priority, and in order of submission within one priority. It exists from its first
submit, or from a ``PUT`` that says how it is to be. A queue with *partitions* deals its tasks over them in turn, or by
the task's key, and each partition is served by exactly one worker at a time.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType
from typing_extensions import override

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Command, Cursor, Query, Rejection, Reply

QueueName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=limits.QUEUE_NAME_CHARS_MAX,
        description="1 to 200 characters of any kind, not `.` or `..`.",
    ),
]
PageSize = Annotated[int, Meta(ge=1, le=limits.PAGE_ITEMS_MAX)]
Attempts = Annotated[int, Meta(ge=1, le=limits.ATTEMPTS_MAX)]
Milliseconds = Annotated[int, Meta(ge=0, le=limits.DELAY_MS_MAX)]
Jitter = Annotated[float, Meta(ge=0, le=1)]
Delays = Annotated[tuple[Milliseconds, ...], Meta(max_length=limits.BACKOFF_DELAYS_MAX)]


# -- refusals -----------------------------------------------------------------------------------------------------
class QueueNotFound(Rejection, frozen=True, tag="queue_not_found"):
    """No queue has that name."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Queue not found"
    hint: ClassVar[str] = (
        "A queue exists from its first task or from PUT /v1/queues/{queue}; GET /v1/queues lists them."
    )


class QueueDiffers(Rejection, frozen=True, tag="queue_differs"):
    """The queue exists with another number of partitions, which cannot change."""

    title: ClassVar[str] = "Queue has other partitions"
    hint: ClassVar[str] = "Use the number of partitions that the queue has, or another queue."


class QueueNotEmpty(Rejection, frozen=True, tag="queue_not_empty"):
    """The queue holds tasks that are not finished."""

    title: ClassVar[str] = "Queue is not empty"
    hint: ClassVar[str] = "Let workers finish, or POST /v1/queues/{queue}/purges first."


class QueueSealed(Rejection, frozen=True, tag="queue_sealed"):
    """The queue was sealed: it takes no new tasks."""

    title: ClassVar[str] = "Queue is sealed"
    hint: ClassVar[str] = 'Open it with PATCH /v1/queues/{queue} {"sealed": false}, or use another queue.'


class QueueFull(Rejection, frozen=True, tag="queue_full"):
    """The queue holds as many waiting tasks as its ``max_depth`` allows."""

    status: ClassVar[int] = 429
    title: ClassVar[str] = "Queue is full"
    hint: ClassVar[str] = "Let workers catch up and repeat, or raise max_depth with PATCH /v1/queues/{queue}."
    transient: ClassVar[bool] = True


# -- configuration ------------------------------------------------------------------------------------------------
class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How long a task waits after its n-th failed attempt.

    ``fixed``: ``first_ms``. ``linear``: n times that. ``exponential``: that, doubled n - 1 times. ``list``: the n-th of
    ``delays_ms``, or its last. Never more than ``max_ms``. ``jitter`` takes away up to this share of it, by chance.
    """

    kind: Literal["fixed", "linear", "exponential", "list"] = "exponential"
    first_ms: Milliseconds = 1_000
    max_ms: Milliseconds = 300_000
    jitter: Jitter = 0.2
    delays_ms: Delays = ()


class Defaults(msgspec.Struct, frozen=True, array_like=True):
    """What the leader's configuration says where a request says nothing; stamped into the command, so all nodes agree."""

    attempts: int = 3
    heartbeat_ms: int = 5_000
    dead_after_ms: int = 15_000


class QueueCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many tasks of a queue are in each state. Finished ones count until they are forgotten."""

    scheduled: int = 0
    queued: int = 0
    processing: int = 0
    retry: int = 0
    success: int = 0
    failed: int = 0
    cancelled: int = 0
    expired: int = 0


class QueueInfo(Reply, frozen=True):
    """A queue as it is now.

    ``workers`` counts those alive that serve it, stand-bys included. ``oldest_ms`` is how long, in cluster time, the
    first task that could be handed out has been waiting. ``health``: ``no_workers`` while tasks wait and nobody serves it.
    """

    name: str
    health: Literal["ok", "no_workers", "paused", "sealed"]
    counts: QueueCounts
    submitted: int
    workers: int
    oldest_ms: int | None
    paused: bool
    sealed: bool
    partitions: int
    default_attempts: int
    max_lost: int
    backoff: Backoff
    timeout_ms: int | None
    keep_finished_ms: int
    max_depth: int
    created_at: str


class SetQueue(Command[QueueInfo], frozen=True, tag="set_queue"):
    """The form of ``PutQueue`` in the log."""

    queue: str
    defaults: Defaults = Defaults()
    partitions: int = 0
    default_attempts: int | None = None
    max_lost: int = limits.LOST_DEFAULT
    backoff: Backoff = Backoff()
    timeout_ms: int | None = None
    keep_finished_ms: int = limits.KEEP_FINISHED_MS_DEFAULT
    max_depth: int = 0


class PutQueue(Command[QueueInfo], frozen=True, tag="put_queue"):
    """Create a queue, or replace the configuration of one that exists. The number of partitions stays as it is.

    ``partitions`` 0: none, any worker takes any task. ``max_lost``: after so many lost workers a task is FAILED as
    POISON. ``timeout_ms`` bounds one run. Finished tasks are forgotten after ``keep_finished_ms``; 0: never.
    ``max_depth`` bounds the tasks that wait; 0: no bound.
    """

    queue: QueueName
    partitions: Annotated[int, Meta(ge=0, le=limits.PARTITIONS_MAX)] = 0
    default_attempts: Attempts | None = None
    max_lost: Attempts = limits.LOST_DEFAULT
    backoff: Backoff = Backoff()
    timeout_ms: Annotated[int, Meta(ge=1, le=limits.DELAY_MS_MAX)] | None = None
    keep_finished_ms: Milliseconds = limits.KEEP_FINISHED_MS_DEFAULT
    max_depth: Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)] = 0

    @override
    def sealed(self) -> SetQueue:
        """The same, with room for the leader's defaults."""
        return SetQueue(
            queue=self.queue,
            partitions=self.partitions,
            default_attempts=self.default_attempts,
            max_lost=self.max_lost,
            backoff=self.backoff,
            timeout_ms=self.timeout_ms,
            keep_finished_ms=self.keep_finished_ms,
            max_depth=self.max_depth,
        )


class PatchQueue(Command[QueueInfo], frozen=True, tag="patch_queue"):
    """Change what is given of a queue's configuration, pause it (nothing is handed out) or seal it (nothing is taken in)."""

    queue: QueueName
    paused: bool | UnsetType = UNSET
    sealed_: bool | UnsetType = msgspec.field(name="sealed", default=UNSET)
    default_attempts: Attempts | UnsetType = UNSET
    max_lost: Attempts | UnsetType = UNSET
    backoff: Backoff | UnsetType = UNSET
    timeout_ms: Annotated[int, Meta(ge=1, le=limits.DELAY_MS_MAX)] | UnsetType | None = UNSET
    keep_finished_ms: Milliseconds | UnsetType = UNSET
    max_depth: Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)] | UnsetType = UNSET


class GetQueue(Query[QueueInfo], frozen=True, tag="get_queue"):
    """Describe one queue."""

    queue: QueueName


class QueueList(Reply, frozen=True):
    """One page of queues in order of their names; ``next`` is the cursor of the next page, or null at the end."""

    items: list[QueueInfo]
    next: str | None


class ListQueues(Query[QueueList], frozen=True, tag="list_queues"):
    """List queues in order of their names."""

    prefix: Annotated[str, Meta(max_length=limits.QUEUE_NAME_CHARS_MAX)] = ""
    limit: PageSize = limits.PAGE_ITEMS_DEFAULT
    cursor: Cursor = ""


class QueueDeleted(Reply, frozen=True):
    """The queue is gone."""

    name: str


class DeleteQueue(Command[QueueDeleted], frozen=True, tag="delete_queue"):
    """Delete a queue without tasks that wait or run. Its finished tasks stay readable until they are forgotten."""

    queue: QueueName


class Purged(Reply, frozen=True):
    """``removed`` tasks were taken out by this call, and ``remaining`` of the same states are left: purge again."""

    removed: int
    remaining: int


PurgeState = Literal["SCHEDULED", "QUEUED", "RETRY", "SUCCESS", "FAILED", "CANCELLED", "EXPIRED"]


class PurgeQueue(Command[Purged], frozen=True, tag="purge_queue"):
    """Take tasks out of a queue, a bounded number at once: those that wait become CANCELLED, finished ones are forgotten."""

    queue: QueueName
    states: Annotated[tuple[PurgeState, ...], Meta(min_length=1, max_length=7)] = ("SCHEDULED", "QUEUED", "RETRY")
    dry_run: bool = False
