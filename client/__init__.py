"""The client library of quorl: any node will do, and no call hangs.

``Client`` is for threads, ``AsyncClient`` for asyncio; both are hands of one mind (``flow``: which node, when again, under
which key, what an answer means) and share its guarantees: a write has its effect once however often it is repeated,
every call has a deadline, and an error says whether anything was applied and which nodes were tried and why. Appends that
run at the same time travel together (``batching``).

* The mind, without input or output: ``flow``, ``route`` (which node first), ``batching`` and its ``lanes``, ``claims`` (several in
  one call), ``sharing`` (whose part is whose). ``model`` and ``tasking`` are what users hand in and get back (``validated``: models like pydantic's), ``errors`` what
  can go wrong.
* The hands: ``aio`` (``aio_flights``, ``aio_transport``) and ``sync`` (``sync_transport``); what is called on them: ``aio_topics``,
  ``aio_tasks``, ``aio_producer``, and ``topics``, ``tasks``, ``producer``. ``locks`` and ``forking`` are for signals and forks.
* Tasks as functions: ``app``, ``definitions``, ``handle`` and ``completed``; for who runs them ``handlers``, ``context`` and
  ``tracing``. ``elsewhere`` has the words that other task queues use for the same.
* A worker is ``worker``, and behind it ``worker_shift``, ``worker_ledger``, ``worker_floor``, ``worker_pool``, ``worker_job``,
  ``worker_heart``, ``worker_pace``, ``worker_elsewhere``, ``worker_lines`` and ``worker_log``.
* Beside these: ``compat`` has the founding interfaces, ``demo`` tasks to try, ``measures``, ``load``, ``crew`` and ``steady`` what
  ``quorl bench`` does. ``cli`` is the command line, ``local`` runs clusters on one machine; what both ask of
  one node alone goes by ``direct``.

Names load when they are first used, so that importing this package loads neither HTTP library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient
    from quorl.client.aio_producer import AsyncPending, AsyncProducer
    from quorl.client.aio_tasks import AsyncQueues, AsyncTasks, AsyncWorkers
    from quorl.client.aio_topics import AsyncConsumer, AsyncFollower, AsyncTopic, AsyncTopics
    from quorl.client.app import App
    from quorl.client.compat import MyQueue, QueueError, TaskClient, TaskWorker, myQueue
    from quorl.client.completed import Completed
    from quorl.client.context import NO_CONTEXT, Context, NoRetry, Retry, Stopped
    from quorl.client.definitions import AsyncTask, Call, Task
    from quorl.client.errors import (
        AlreadyExists,
        CommandFailed,
        ConsumerNotFound,
        IdempotencyKeyReused,
        Invalid,
        LeaseLost,
        MemberNotFound,
        MessageNotFound,
        NoResult,
        NotFinished,
        OutcomeUnknown,
        PartitionNotFound,
        ProducerNotFound,
        QueueDiffers,
        QueueFull,
        QueueNotEmpty,
        QueueNotFound,
        QueueSealed,
        QuorlError,
        Rejected,
        TaskCancelled,
        TaskExists,
        TaskExpired,
        TaskFailed,
        TaskNotFound,
        TooManyWorkers,
        TopicNotEmpty,
        TopicNotFound,
        TransferRefused,
        Try,
        Unavailable,
        WorkerNotAlive,
        WorkerNotFound,
        WrongState,
    )
    from quorl.client.handle import Handle
    from quorl.client.model import Message, MessageDetails, Placed, message
    from quorl.client.producer import Pending, Producer
    from quorl.client.sync import Client
    from quorl.client.tasking import TaskOptions, new_task
    from quorl.client.tasks import Queues, Tasks, Workers
    from quorl.client.topics import Consumer, Follower, Topic, Topics
    from quorl.client.worker import Worker

_HOMES = {
    "aio": ("AsyncClient",),
    "aio_producer": (
        "AsyncPending",
        "AsyncProducer",
    ),
    "aio_tasks": (
        "AsyncQueues",
        "AsyncTasks",
        "AsyncWorkers",
    ),
    "aio_topics": (
        "AsyncConsumer",
        "AsyncFollower",
        "AsyncTopic",
        "AsyncTopics",
    ),
    "app": ("App",),
    "compat": (
        "MyQueue",
        "QueueError",
        "TaskClient",
        "TaskWorker",
        "myQueue",
    ),
    "completed": ("Completed",),
    "context": (
        "Context",
        "NO_CONTEXT",
        "NoRetry",
        "Retry",
        "Stopped",
    ),
    "definitions": (
        "AsyncTask",
        "Call",
        "Task",
    ),
    "errors": (
        "AlreadyExists",
        "CommandFailed",
        "ConsumerNotFound",
        "IdempotencyKeyReused",
        "Invalid",
        "LeaseLost",
        "MemberNotFound",
        "MessageNotFound",
        "NoResult",
        "NotFinished",
        "OutcomeUnknown",
        "PartitionNotFound",
        "ProducerNotFound",
        "QueueDiffers",
        "QueueFull",
        "QueueNotEmpty",
        "QueueNotFound",
        "QueueSealed",
        "QuorlError",
        "Rejected",
        "TaskCancelled",
        "TaskExists",
        "TaskExpired",
        "TaskFailed",
        "TaskNotFound",
        "TooManyWorkers",
        "TopicNotEmpty",
        "TopicNotFound",
        "TransferRefused",
        "Try",
        "Unavailable",
        "WorkerNotAlive",
        "WorkerNotFound",
        "WrongState",
    ),
    "handle": ("Handle",),
    "model": (
        "Message",
        "MessageDetails",
        "Placed",
        "message",
    ),
    "producer": (
        "Pending",
        "Producer",
    ),
    "sync": ("Client",),
    "tasking": (
        "TaskOptions",
        "new_task",
    ),
    "tasks": (
        "Queues",
        "Tasks",
        "Workers",
    ),
    "topics": (
        "Consumer",
        "Follower",
        "Topic",
        "Topics",
    ),
    "worker": ("Worker",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "NO_CONTEXT",
    "AlreadyExists",
    "App",
    "AsyncClient",
    "AsyncConsumer",
    "AsyncFollower",
    "AsyncPending",
    "AsyncProducer",
    "AsyncQueues",
    "AsyncTask",
    "AsyncTasks",
    "AsyncTopic",
    "AsyncTopics",
    "AsyncWorkers",
    "Call",
    "Client",
    "CommandFailed",
    "Completed",
    "Consumer",
    "ConsumerNotFound",
    "Context",
    "Follower",
    "Handle",
    "IdempotencyKeyReused",
    "Invalid",
    "LeaseLost",
    "MemberNotFound",
    "Message",
    "MessageDetails",
    "MessageNotFound",
    "MyQueue",
    "NoResult",
    "NoRetry",
    "NotFinished",
    "OutcomeUnknown",
    "PartitionNotFound",
    "Pending",
    "Placed",
    "Producer",
    "ProducerNotFound",
    "QueueDiffers",
    "QueueError",
    "QueueFull",
    "QueueNotEmpty",
    "QueueNotFound",
    "QueueSealed",
    "Queues",
    "QuorlError",
    "Rejected",
    "Retry",
    "Stopped",
    "Task",
    "TaskCancelled",
    "TaskClient",
    "TaskExists",
    "TaskExpired",
    "TaskFailed",
    "TaskNotFound",
    "TaskOptions",
    "TaskWorker",
    "Tasks",
    "TooManyWorkers",
    "Topic",
    "TopicNotEmpty",
    "TopicNotFound",
    "Topics",
    "TransferRefused",
    "Try",
    "Unavailable",
    "Worker",
    "WorkerNotAlive",
    "WorkerNotFound",
    "Workers",
    "WrongState",
    "message",
    "myQueue",
    "new_task",
]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
