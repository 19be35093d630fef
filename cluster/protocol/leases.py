"""Messages of the leases: claiming tasks, reporting on them, and the one call in which a worker does both.

Every lease has a *token*, greater than all before it in the whole cluster; whatever a worker reports counts only under
the token of the task's current lease. A report carries JSON; in the log it stands as bytes.
"""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, Meta, UnsetType
from typing_extensions import override

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Command, Query, Reply
from quorl.cluster.protocol.queues import Milliseconds, QueueName
from quorl.cluster.protocol.tasks import Status, TaskError, TaskId, TaskStatus, Wait, WorkerId

Token = Annotated[int, Meta(ge=1, le=limits.INTEGER_MAX)]
ClaimNumber = Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)]
Queues = Annotated[tuple[QueueName, ...], Meta(max_length=limits.WORKER_QUEUES_MAX)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Note = Annotated[str, Meta(max_length=limits.NOTE_CHARS_MAX)]


# -- claiming -----------------------------------------------------------------------------------------------------
class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to run a task. ``expires_in_ms``: so long the worker may stay silent before it loses all its leases."""

    token: int
    expires_in_ms: int


class ClaimedTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task to run. ``attempt`` is 1 for the first run. ``checkpoint`` is what an earlier attempt left for this one."""

    id: str
    name: str
    args: msgspec.Raw
    kwargs: msgspec.Raw
    attempt: int
    max_attempts: int
    lease: Lease
    queue: str
    partition: int | None
    priority: int
    timeout_ms: int | None
    checkpoint: msgspec.Raw
    meta: dict[str, str]
    traceparent: str | None
    tracestate: str | UnsetType = UNSET
    """Only where there is one."""


class Claims(Reply, frozen=True, omit_defaults=True):
    """The tasks that are the worker's now. ``drained``: all queues asked for are sealed, and nothing is left in them."""

    also: ClassVar[dict[int, str]] = {204: "There is no task."}

    tasks: list[ClaimedTask] = msgspec.field(default_factory=list)
    drained: bool = False

    @override
    def http_status(self, accepted: int) -> int:
        """204, and no body, when there is nothing to say."""
        return accepted if self.tasks or self.drained else 204


class Grant(msgspec.Struct, frozen=True, array_like=True):
    """One lease as the machine decides it: the task's ordinal, the token, and which attempt it is."""

    ordinal: int
    token: int
    attempt: int


class Granted(Reply, frozen=True):
    """What the machine decides for a ``Claim``: only which leases. Its node reads the tasks, once, to answer."""

    worker_id: int
    expires_in_ms: int
    grants: list[Grant]
    drained: bool


class Claim(Command[Claims], frozen=True, tag="claim"):
    """Claim up to ``max`` tasks of ``queues`` (without them: of those that the worker registered for).

    With ``wait`` the answer is held back until there is a task or the seconds are over, or half of the worker's
    ``dead_after_ms``, because nothing is known of a worker that only waits. A worker that holds ``WORKER_LEASES_MAX``
    leases gets nothing. ``number``: the worker's own count of its
    claims, which its heartbeats refer to.
    """

    worker_id: WorkerId
    queues: Queues = ()
    max: Annotated[int, Meta(ge=1, le=limits.CLAIM_TASKS_MAX)] = 1
    wait: Wait = 0
    number: ClaimNumber = 0


# -- settling -----------------------------------------------------------------------------------------------------
_NULL = b"null"


class Complete(Command[TaskStatus], frozen=True, tag="complete"):
    """The form of ``CompleteTask`` in the log; the result is JSON."""

    id: str
    lease: int
    result: bytes


class Hold(Command["TaskHeld"], frozen=True, tag="hold"):
    """The form of ``HoldTask`` in the log; the checkpoint is JSON, or None for none."""

    id: str
    lease: int
    progress: float | None
    note: str
    checkpoint: bytes | None


class CompleteTask(Command[TaskStatus], frozen=True, tag="complete_task"):
    """Report the result of a task, under the token of its lease; without a result it is null."""

    id: TaskId
    lease: Token
    result: msgspec.Raw | UnsetType = UNSET

    @override
    def sealed(self) -> Complete:
        """The same, with the result as bytes."""
        return Complete(id=self.id, lease=self.lease, result=raw_bytes(self.result) or _NULL)


class FailTask(Command[TaskStatus], frozen=True, tag="fail_task"):
    """Report that an attempt failed. ``retry`` false: it is the last. ``delay_ms`` replaces the back-off."""

    id: TaskId
    lease: Token
    error: TaskError = TaskError()
    retry: bool = True
    delay_ms: Milliseconds | None = None


class ReleaseTask(Command[TaskStatus], frozen=True, tag="release_task"):
    """Give a task back unfinished; it counts as no attempt. ``delay_ms``: nobody gets it before so much time is over."""

    id: TaskId
    lease: Token
    delay_ms: Milliseconds = 0


class TaskHeld(Reply, frozen=True):
    """The lease is still held; ``cancel`` asks the worker to stop."""

    id: str
    cancel: bool


class HoldTask(Command[TaskHeld], frozen=True, tag="hold_task"):
    """Give a sign of life for a task's worker, and say how far the task has come.

    ``checkpoint`` is any JSON value; the next attempt gets it, should this one be lost or fail.
    """

    id: TaskId
    lease: Token
    progress: Percent | None = None
    note: Note = ""
    checkpoint: msgspec.Raw | UnsetType = UNSET

    @override
    def sealed(self) -> Hold:
        """The same, with the checkpoint as bytes."""
        checkpoint = raw_bytes(self.checkpoint)
        return Hold(id=self.id, lease=self.lease, progress=self.progress, note=self.note, checkpoint=checkpoint)


def raw_bytes(value: msgspec.Raw | UnsetType) -> bytes | None:
    """Return the JSON of a value that was given, None of one that was not."""
    return None if value is UNSET else bytes(value)


# -- the worker's one call ----------------------------------------------------------------------------------------
class Beat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A heartbeat: the tokens that the worker holds, and the numbers of the claims that it still waits for.

    ``claimed`` is the number of the last claim that it has sent. A lease that was granted to a claim up to that number,
    and that is neither held nor waited for, goes back at once: its answer was lost. Without ``tokens`` nothing goes back.
    What the same call reports on counts as held; a lease whose report has not been answered yet belongs among the tokens.
    Claims without a number are not judged.
    """

    tokens: Annotated[tuple[Token, ...], Meta(max_length=limits.WORKER_LEASES_MAX)] | None = None
    claims: Annotated[tuple[ClaimNumber, ...], Meta(max_length=limits.CLAIM_TASKS_MAX)] = ()
    claimed: ClaimNumber = 0


class Completion(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``CompleteTask`` of several."""

    task_id: TaskId
    lease: Token
    result: msgspec.Raw | UnsetType = UNSET


class Failure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``FailTask`` of several."""

    task_id: TaskId
    lease: Token
    error: TaskError = TaskError()
    retry: bool = True
    delay_ms: Milliseconds | None = None


class Return(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``ReleaseTask`` of several."""

    task_id: TaskId
    lease: Token
    delay_ms: Milliseconds = 0


class Progress(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One ``HoldTask`` of several."""

    task_id: TaskId
    lease: Token
    progress: Percent | None = None
    note: Note = ""
    checkpoint: msgspec.Raw | UnsetType = UNSET


class Wish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The claim in a ``Sync``."""

    queues: Queues = ()
    max: Annotated[int, Meta(ge=1, le=limits.CLAIM_TASKS_MAX)] = 1
    wait: Wait = 0
    number: ClaimNumber = 0


class Done(msgspec.Struct, frozen=True, array_like=True):
    """A ``Completion`` in the log; the result is JSON."""

    task_id: str
    lease: int
    result: bytes


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A ``Progress`` in the log; the checkpoint is JSON, or None for none."""

    task_id: str
    lease: int
    progress: float | None
    note: str
    checkpoint: bytes | None


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """A report that did not count, and the code of the problem: ``lease_lost`` or ``task_not_found``."""

    task_id: str
    code: str


class Directives(Reply, frozen=True, omit_defaults=True):
    """What a worker is asked to do.

    ``cancel`` names tasks that somebody wants stopped, ``lost`` the tokens of leases that are not the worker's any more.
    ``drained``: all its queues are sealed, and nothing is left in them.
    """

    quiet: bool = False
    terminate: bool = False
    cancel: list[str] = msgspec.field(default_factory=list)
    lost: list[int] = msgspec.field(default_factory=list)
    drained: bool = False


class Settled(Reply, frozen=True):
    """What became of the reports of a ``Settle``: ``accepted`` counts those that took effect."""

    accepted: int
    rejected: list[Rejected]
    statuses: list[Status]
    """Of the accepted ones, in the order complete, fail, release, progress."""


class Settle(Command[Settled], frozen=True, tag="settle"):
    """The reports of a ``Sync`` in the log; each takes effect or is rejected for itself."""

    worker_id: int
    complete: tuple[Done, ...] = ()
    fail: tuple[Failure, ...] = ()
    release: tuple[Return, ...] = ()
    progress: tuple[Held, ...] = ()


class Synced(Reply, frozen=True):
    """``accepted`` reports took effect, ``tasks`` are the worker's now, and ``directives`` are to be followed."""

    accepted: int
    rejected: list[Rejected]
    tasks: list[ClaimedTask]
    directives: Directives


class Sync(Command[Synced], frozen=True, tag="sync"):
    """The one call of a worker: heartbeat, reports and claim, answered with tasks and directives.

    Reports take effect at once; only the claim is waited for. In the log it is a ``Settle`` and a ``Claim``.
    """

    worker_id: WorkerId
    beat: Beat | None = None
    complete: Annotated[tuple[Completion, ...], Meta(max_length=limits.SETTLE_TASKS_MAX)] = ()
    fail: Annotated[tuple[Failure, ...], Meta(max_length=limits.SETTLE_TASKS_MAX)] = ()
    release: Annotated[tuple[Return, ...], Meta(max_length=limits.SETTLE_TASKS_MAX)] = ()
    progress: Annotated[tuple[Progress, ...], Meta(max_length=limits.SETTLE_TASKS_MAX)] = ()
    claim: Wish | None = None

    def reports(self) -> Settle | None:
        """Return what is reported, for the log; None if nothing is."""
        if not (self.complete or self.fail or self.release or self.progress):
            return None
        return Settle(
            worker_id=self.worker_id,
            complete=tuple(Done(one.task_id, one.lease, raw_bytes(one.result) or _NULL) for one in self.complete),
            fail=self.fail,
            release=self.release,
            progress=tuple(
                Held(one.task_id, one.lease, one.progress, one.note, raw_bytes(one.checkpoint)) for one in self.progress
            ),
        )

    def wish(self) -> Claim | None:
        """Return the claim, for the log; None if there is none."""
        one = self.claim
        if one is None:
            return None
        return Claim(worker_id=self.worker_id, queues=one.queues, max=one.max, wait=one.wait, number=one.number)


class GetDirectives(Query[Directives], frozen=True, tag="get_directives"):
    """What a worker is to be told; only nodes ask this, of themselves: it is no operation of the table."""

    worker_id: int
    tokens: tuple[int, ...] | None = None
    """Those that it holds, for ``lost``. One that this node has not seen given out yet is taken for its own."""
