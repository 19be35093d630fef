"""Messages of submitting: a task in any of its spellings, and the one form in which it stands in the log."""

from __future__ import annotations

from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, Meta, UnsetType
from typing_extensions import override

from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol.grammar import Command, Reply
from quorl.cluster.protocol.queues import Attempts, Backoff, Defaults, Milliseconds, QueueName
from quorl.cluster.protocol.tasks import Status, TaskId, TaskName
from quorl.cluster.protocol.tracing import tidied, tidied_state

Arguments = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "array"})]
NamedArguments = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
_NO_ARGUMENTS = msgspec.Raw(b"[]")
_NO_NAMED = msgspec.Raw(b"{}")
Moment = Annotated[
    str,
    Meta(
        max_length=40,
        description="A time with its zone (RFC 3339), such as 2024-02-29T12:00:00Z.",
        extra_json_schema={"format": "date-time"},
    ),
]
Traceparent = Annotated[
    str,
    Meta(description="The span that submits it (W3C Trace Context); one that is not valid counts as none."),
]
Tracestate = Annotated[
    str,
    Meta(
        description="What goes with the traceparent (W3C Trace Context); without a valid one of either it is left out."
    ),
]
Tag = Annotated[str, Meta(max_length=limits.TAG_CHARS_MAX)]


class NewTask(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A task as it is submitted.

    ``task_id`` or ``task-id`` may stand for ``id``, ``task_type`` or ``task`` for ``name``, ``task_args`` for ``args``.
    ``task_tries`` is kept as information and counts for nothing. Without an id one is made. Among tasks that wait, those
    of higher ``priority`` go first. ``key``: in a queue with partitions, tasks with the same key share one.
    ``delay_ms`` counts in cluster time, ``run_at`` is a moment of the calendar (RFC 3339, with its zone); at most one of
    them. ``expires_ms``: if it has not been started by then it never is, and becomes EXPIRED. ``timeout_ms`` bounds one
    attempt.
    """

    id: TaskId | None = None
    name: TaskName | None = None
    args: Arguments | UnsetType = UNSET
    kwargs: NamedArguments | UnsetType = UNSET
    priority: Annotated[int, Meta(ge=0, le=limits.PRIORITY_MAX)] = limits.PRIORITY_DEFAULT
    key: Annotated[str, Meta(max_length=limits.MESSAGE_KEY_CHARS_MAX)] | None = None
    delay_ms: Milliseconds = 0
    run_at: Moment | None = None
    expires_ms: Annotated[int, Meta(ge=1, le=limits.DELAY_MS_MAX)] | None = None
    timeout_ms: Annotated[int, Meta(ge=1, le=limits.DELAY_MS_MAX)] | None = None
    max_attempts: Attempts | None = None
    max_lost: Attempts | None = None
    backoff: Backoff | None = None
    tags: Annotated[list[Tag], Meta(max_length=limits.TAGS_MAX)] | None = None
    meta: dict[str, str] | None = None
    traceparent: Traceparent | None = None
    tracestate: Tracestate | None = None
    task_id: TaskId | None = None
    hyphened_id: TaskId | None = msgspec.field(name="task-id", default=None)
    task: TaskName | None = None
    task_type: TaskName | None = None
    task_args: Arguments | UnsetType = UNSET
    task_tries: Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)] | None = None


class TaskBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What of a task only its worker and its readers look into; stored as JSON, as it came."""

    args: msgspec.Raw = _NO_ARGUMENTS
    kwargs: msgspec.Raw = _NO_NAMED
    key: str | None = None
    tags: list[str] | None = None
    meta: dict[str, str] | None = None
    traceparent: str | None = None
    tries: int | None = None
    tracestate: str | None = None


class QueuedTask(msgspec.Struct, frozen=True, array_like=True):
    """A task as it stands in the log. ``body`` is the JSON of a ``TaskBody``; ``run_at_ms`` is calendar time."""

    id: str | None
    name: str
    body: bytes
    priority: int
    key: str | None
    delay_ms: int
    run_at_ms: int | None
    expires_ms: int | None
    timeout_ms: int | None
    max_attempts: int | None
    max_lost: int | None
    backoff: Backoff | None


class SubmittedTask(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A task that is in its queue; ``existing`` says that the very same task was there before."""

    id: str
    status: Status
    existing: bool = False


class Submitted(Reply, frozen=True, omit_defaults=True):
    """The tasks in the order in which they were given; with one task its fields stand at the top level too."""

    also: ClassVar[dict[int, str]] = {200: "All of them exist already, just like that."}

    items: list[SubmittedTask]
    id: str | None = None
    status: Status | None = None
    existing: bool = False

    @override
    def http_status(self, accepted: int) -> int:
        """200 when everything was there before."""
        return 200 if all(item.existing for item in self.items) else accepted


def submitted(items: list[SubmittedTask]) -> Submitted:
    """Return the answer about these tasks."""
    if len(items) > 1:
        return Submitted(items=items)
    return Submitted(items=items, id=items[0].id, status=items[0].status, existing=items[0].existing)


class SubmitBatch(Command[Submitted], frozen=True, tag="submit_batch"):
    """The form of a submit in the log."""

    queue: str
    tasks: list[QueuedTask]
    defaults: Defaults = Defaults()


class Submit(Command[Submitted], frozen=True, tag="submit"):
    """Submit tasks to a queue: all of them or none, in one log entry. The queue is created if it does not exist."""

    queue: QueueName
    tasks: Annotated[list[NewTask], Meta(min_length=1, max_length=limits.SUBMIT_TASKS_MAX)]

    @override
    def sealed(self) -> SubmitBatch:
        """Encode the tasks once, for all nodes and for ever."""
        return SubmitBatch(queue=self.queue, tasks=[queued(task) for task in self.tasks])

    def traced(self, traceparent: str, tracestate: str | None) -> Submit:
        """Return the submit with the headers' ``traceparent`` and ``tracestate`` for each task without a ``traceparent``."""
        if (given := tidied(traceparent)) is None:
            return self
        tasks = [
            task
            if tidied(task.traceparent)
            else msgspec.structs.replace(task, traceparent=given, tracestate=tracestate)
            for task in self.tasks
        ]
        return msgspec.structs.replace(self, tasks=tasks)

    def untraced(self) -> Submit:
        """Return the submit as it would be outside any trace: a repeat may belong to another one and is the same."""
        if all(task.traceparent is None for task in self.tasks):
            return self
        tasks = [msgspec.structs.replace(task, traceparent=None, tracestate=None) for task in self.tasks]
        return msgspec.structs.replace(self, tasks=tasks)


_encode_body = msgspec.json.Encoder().encode
_SPELLINGS = (("id", "task_id", "task-id"), ("name", "task", "task_type"), ("args", "task_args"))
_FIELDS = {"task-id": "hyphened_id"}
_NO_OTHERS = (None, None, None, None, UNSET)
"""What the other spellings are where there is at most one of each field."""


def fault_of(task: NewTask) -> tuple[str, str] | None:
    """Return the field that breaks a rule which types cannot say, and how; None if the task is valid."""
    others = (task.task_id, task.hyphened_id, task.task, task.task_type, task.task_args)
    if others != _NO_OTHERS and (doubled := _fault_of_spellings(task)):
        return doubled
    if not (task.name or task.task or task.task_type):
        return "name", 'a task needs a name, for example "name": "demo.add"'
    if (task.id or task.task_id or task.hyphened_id) in {".", ".."}:
        return "id", "a task id cannot be `.` or `..`: URLs drop those"
    if task.args is not UNSET and memoryview(task.args)[:1].tobytes() != b"[":
        return "args", "`args` must be a list"
    if task.task_args is not UNSET and memoryview(task.task_args)[:1].tobytes() != b"[":
        return "task_args", "`task_args` must be a list"
    if task.kwargs is not UNSET and memoryview(task.kwargs)[:1].tobytes() != b"{":
        return "kwargs", "`kwargs` must be an object"
    if task.run_at is not None and (fault := _fault_of_moment(task)):
        return "run_at", fault
    if task.backoff is not None and (fault := fault_of_backoff(task.backoff)):
        return "backoff", fault
    return None


def _fault_of_spellings(task: NewTask) -> tuple[str, str] | None:
    for spellings in _SPELLINGS:
        given = [name for name in spellings if getattr(task, _FIELDS.get(name, name)) not in (None, UNSET)]
        if len(given) > 1:
            return given[1], f"`{given[0]}` and `{given[1]}` are two spellings of one field: give one of them"
    return None


def _fault_of_moment(task: NewTask) -> str | None:
    if task.delay_ms:
        return "give delay_ms or run_at, not both"
    try:
        _calendar_ms(task.run_at or "")
    except ValueError as error:
        return f"`run_at` must be a time with its zone, such as 2024-02-29T12:00:00Z: {error}"
    return None


def _calendar_ms(run_at: str) -> int:
    """A moment as calendar time; a zone may lead past the calendar's ends."""
    return min(max(0, moment.from_text(run_at)), moment.LAST_MS)


def fault_of_backoff(backoff: Backoff) -> str | None:
    """Return what is wrong with a back-off, if anything is."""
    if (backoff.kind == "list") == (not backoff.delays_ms):
        return 'delays_ms belongs to the kind "list", which needs at least one'
    return None


def queued(task: NewTask) -> QueuedTask:
    """Return a valid task in the form in which it stands in the log, whatever spelling it came in."""
    name = task.name or task.task or task.task_type
    assert name is not None, "checked when it was read"
    args = task.args if task.task_args is UNSET else task.task_args
    body = TaskBody(
        args=_NO_ARGUMENTS if args is UNSET else args,
        kwargs=_NO_NAMED if task.kwargs is UNSET else task.kwargs,
        key=task.key,
        tags=task.tags,
        meta=task.meta,
        traceparent=tidied(task.traceparent),
        tracestate=tidied_state(task.traceparent, task.tracestate),
        tries=task.task_tries,
    )
    return QueuedTask(
        id=task.id or task.task_id or task.hyphened_id,
        name=name,
        body=_encode_body(body),
        priority=task.priority,
        key=task.key,
        delay_ms=task.delay_ms,
        run_at_ms=None if task.run_at is None else _calendar_ms(task.run_at),
        expires_ms=task.expires_ms,
        timeout_ms=task.timeout_ms,
        max_attempts=task.max_attempts,
        max_lost=task.max_lost,
        backoff=task.backoff,
    )
