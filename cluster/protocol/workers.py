"""Messages of the workers: registering, staying alive, leaving.

A worker is one life of a program: it registers and gets an id that no other life ever has, so that a restarted worker is
told from its former self. While its heartbeats come, all its leases stay; when none came for ``dead_after_ms`` of cluster
time it is DEAD and its leases go back at once.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta
from typing_extensions import override

from quorl.cluster.protocol import limits
from quorl.cluster.protocol.grammar import Command, Cursor, Query, Rejection, Reply
from quorl.cluster.protocol.queues import Defaults, PageSize, QueueName
from quorl.cluster.protocol.tasks import TaskName, WorkerId
from quorl.cluster.protocol.topics import Label

HeartbeatMs = Annotated[int, Meta(ge=limits.HEARTBEAT_MS_MIN, le=limits.HEARTBEAT_MS_MAX)]


# -- refusals -----------------------------------------------------------------------------------------------------
class WorkerNotFound(Rejection, frozen=True, tag="worker_not_found"):
    """No worker has that id."""

    status: ClassVar[int] = 404
    title: ClassVar[str] = "Worker not found"
    hint: ClassVar[str] = "Register with POST /v1/workers and use the worker_id that it gives."


class WorkerNotAlive(Rejection, frozen=True, tag="worker_not_alive"):
    """The worker is DEAD, or has LEFT. DEAD is also whose name another process has registered under."""

    title: ClassVar[str] = "Worker is not alive"
    hint: ClassVar[str] = "Its leases have been given back. Drop the work and register anew with POST /v1/workers."


class TooManyWorkers(Rejection, frozen=True, tag="too_many_workers"):
    """As many workers are alive as the cluster takes."""

    status: ClassVar[int] = 429
    title: ClassVar[str] = "Too many workers"
    hint: ClassVar[str] = "Run fewer workers with a higher concurrency each."
    transient: ClassVar[bool] = True


# -- registering --------------------------------------------------------------------------------------------------
class Handler(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A task name that a worker can run, with its signature and what it does, for people who submit."""

    name: TaskName
    signature: Annotated[str, Meta(max_length=2_000)] = ""
    doc: Annotated[str, Meta(max_length=2_000)] = ""


Handlers = Annotated[tuple[Handler, ...], Meta(max_length=limits.WORKER_HANDLERS_MAX)]


class WorkerRegistered(Reply, frozen=True):
    """The worker is ALIVE. It must give a sign of life every ``heartbeat_ms``, and is DEAD after ``dead_after_ms``."""

    worker_id: int
    name: str
    heartbeat_ms: int
    dead_after_ms: int


class EnrolWorker(Command[WorkerRegistered], frozen=True, tag="enrol_worker"):
    """The form of ``RegisterWorker`` in the log."""

    name: str
    host: str
    pid: int
    version: str
    queues: tuple[str, ...]
    concurrency: int
    handlers: tuple[Handler, ...]
    standby: bool
    heartbeat_ms: int | None
    dead_after_ms: int | None
    defaults: Defaults = Defaults()


class RegisterWorker(Command[WorkerRegistered], frozen=True, tag="register_worker"):
    """Register a worker: one life of one program.

    Another worker that is ALIVE under the same ``name`` is taken for the former self of this one: it is DEAD, and its
    leases go back at once, as lost. Without a name it gets one. ``standby``: it gets work only in the place of a worker that died, or when no
    other one serves its queues.
    """

    name: Label = ""
    host: Label = ""
    pid: Annotated[int, Meta(ge=0, le=limits.INTEGER_MAX)] = 0
    version: Label = ""
    queues: Annotated[tuple[QueueName, ...], Meta(min_length=1, max_length=limits.WORKER_QUEUES_MAX)] = ("default",)
    concurrency: Annotated[int, Meta(ge=1, le=limits.WORKER_CONCURRENCY_MAX)] = 1
    handlers: Handlers = ()
    standby: bool = False
    heartbeat_ms: HeartbeatMs | None = None
    dead_after_ms: HeartbeatMs | None = None

    @override
    def sealed(self) -> EnrolWorker:
        """The same, with room for the leader's defaults."""
        return EnrolWorker(
            name=self.name,
            host=self.host,
            pid=self.pid,
            version=self.version,
            queues=self.queues,
            concurrency=self.concurrency,
            handlers=self.handlers,
            standby=self.standby,
            heartbeat_ms=self.heartbeat_ms,
            dead_after_ms=self.dead_after_ms,
        )


class WorkerGone(Reply, frozen=True):
    """The worker has LEFT; ``released`` leases of its went back to their queues."""

    worker_id: int
    released: int


class RemoveWorker(Command[WorkerGone], frozen=True, tag="remove_worker"):
    """Let a worker leave: its leases go back, without counting. One that is DEAD is forgotten, once it has given back all."""

    worker_id: WorkerId


class WorkerTold(Reply, frozen=True):
    """The worker learns it with its next sign of life."""

    worker_id: int
    directive: Literal["quiet", "terminate"]


class QuietWorker(Command[WorkerTold], frozen=True, tag="quiet_worker"):
    """Tell a worker to claim nothing more, and to finish what it has."""

    worker_id: WorkerId


class TerminateWorker(Command[WorkerTold], frozen=True, tag="terminate_worker"):
    """Tell a worker to finish what it has, and to end."""

    worker_id: WorkerId


# -- looking ------------------------------------------------------------------------------------------------------
class RunningTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that a worker holds a lease of."""

    id: str
    name: str
    queue: str
    token: int
    started_at: str


class WorkerInfo(Reply, frozen=True):
    """A worker as the replicated state knows it.

    ``state`` is BUSY while it holds leases. ``last_heartbeat`` is calendar time, ``silent_ms`` cluster time since then.
    ``active``: it is ALIVE, and no stand-by or one that stands in for another. ``beats`` are its last
    heartbeats, the oldest first; ``running`` lists at most 100 leases. Both are only there when one worker is asked for.
    """

    worker_id: int
    name: str
    status: Literal["ALIVE", "DEAD", "LEFT"]
    state: Literal["FREE", "BUSY"]
    quiet: bool
    host: str
    pid: int
    version: str
    queues: list[str]
    concurrency: int
    standby: bool
    active: bool
    handlers: list[Handler]
    heartbeat_ms: int
    dead_after_ms: int
    registered_at: str
    last_heartbeat: str
    silent_ms: int
    leases: int
    succeeded: int
    failed: int
    lost: int
    running: list[RunningTask]
    beats: list[str]


class GetWorker(Query[WorkerInfo], frozen=True, tag="get_worker"):
    """Describe one worker, with what it runs and its last heartbeats."""

    worker_id: WorkerId


class WorkerList(Reply, frozen=True):
    """One page of workers in order of their ids; ``next`` is the cursor of the next page, or null at the end."""

    items: list[WorkerInfo]
    next: str | None


class ListWorkers(Query[WorkerList], frozen=True, tag="list_workers"):
    """List the workers that are alive, and those that died or left lately."""

    status: Literal["ALIVE", "DEAD", "LEFT"] | None = None
    queue: QueueName | None = None
    limit: PageSize = limits.PAGE_ITEMS_DEFAULT
    cursor: Cursor = ""
