"""The client library of quorl: any node will do, and no call hangs.

``Client`` is for threads, ``AsyncClient`` for asyncio; both are hands of one mind (``flow``: which node, when again, under
which key, what an answer means) and share its guarantees: a write has its effect once however often it is repeated,
every call has a deadline, and an error says whether anything was applied and which nodes were tried and why. Appends that
run at the same time travel together (``batching``).

Names load when they are first used, so that importing this package loads neither HTTP library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient
    from quorl.client.aio_producer import AsyncPending, AsyncProducer
    from quorl.client.aio_topics import AsyncConsumer, AsyncFollower, AsyncTopic, AsyncTopics
    from quorl.client.compat import MyQueue, QueueError, myQueue
    from quorl.client.errors import (
        AlreadyExists,
        CommandFailed,
        ConsumerNotFound,
        IdempotencyKeyReused,
        Invalid,
        LeaseLost,
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
        Try,
        Unavailable,
        WorkerNotAlive,
        WorkerNotFound,
        WrongState,
    )
    from quorl.client.model import Message, MessageDetails, Placed, message
    from quorl.client.producer import Pending, Producer
    from quorl.client.sync import Client
    from quorl.client.topics import Consumer, Follower, Topic, Topics

_HOMES = {
    "aio": ("AsyncClient",),
    "aio_producer": ("AsyncPending", "AsyncProducer"),
    "aio_topics": ("AsyncConsumer", "AsyncFollower", "AsyncTopic", "AsyncTopics"),
    "compat": ("MyQueue", "QueueError", "myQueue"),
    "errors": (
        "AlreadyExists",
        "CommandFailed",
        "ConsumerNotFound",
        "IdempotencyKeyReused",
        "Invalid",
        "LeaseLost",
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
        "Try",
        "Unavailable",
        "WorkerNotAlive",
        "WorkerNotFound",
        "WrongState",
    ),
    "model": ("Message", "MessageDetails", "Placed", "message"),
    "producer": ("Pending", "Producer"),
    "sync": ("Client",),
    "topics": ("Consumer", "Follower", "Topic", "Topics"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "AsyncConsumer",
    "AsyncFollower",
    "AsyncPending",
    "AsyncProducer",
    "AsyncTopic",
    "AsyncTopics",
    "Client",
    "CommandFailed",
    "Consumer",
    "ConsumerNotFound",
    "Follower",
    "IdempotencyKeyReused",
    "Invalid",
    "LeaseLost",
    "Message",
    "MessageDetails",
    "MessageNotFound",
    "MyQueue",
    "NoResult",
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
    "QuorlError",
    "Rejected",
    "TaskCancelled",
    "TaskExists",
    "TaskExpired",
    "TaskFailed",
    "TaskNotFound",
    "TooManyWorkers",
    "Topic",
    "TopicNotEmpty",
    "TopicNotFound",
    "Topics",
    "Try",
    "Unavailable",
    "WorkerNotAlive",
    "WorkerNotFound",
    "WrongState",
    "message",
    "myQueue",
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
