"""``MyQueue``, ``TaskClient``, ``TaskWorker``: the founding interfaces of a logging queue and of a task queue.

Plain numbers and texts, blocking calls, safe to share between threads. Everything else (failing over, repeating, deadlines)
is the client's; errors are the client's too, except that creating a topic twice says so as ``QueueError``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from quorl.client.errors import (
    AlreadyExists,
    ConsumerNotFound,
    OutcomeUnknown,
    ProducerNotFound,
    QuorlError,
    TaskNotFound,
    TopicNotFound,
    outward,
)
from quorl.client.model import read_value
from quorl.client.sync import Client
from quorl.client.tasking import QUEUE_DEFAULT, decode
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t


class QueueError(Exception):
    """What was asked makes no sense as things stand: a topic exists already, or a topic or an id does not."""


class MyQueue:
    """The founding interface of the topics: plain numbers and texts.

    ``servers``: one address, several separated by commas, or a list of them; by default ``QUORL_SERVER``, else the three
    nodes of ``configs/`` on this machine.
    ``timeout_s``: bounds every call.
    """

    def __init__(self, servers: str | Iterable[str] | None = None, *, timeout_s: float = 10.0) -> None:
        self._client = Client(servers, timeout_s=timeout_s)
        self._unknown: dict[tuple[str, int], OutcomeUnknown] = {}

    def create_topic(self, name: str) -> bool:
        """Create a topic; raises ``QueueError`` if it exists."""
        try:
            self._client.topics.create(name, error_if_exists=True)
        except AlreadyExists as error:
            raise QueueError(f"topic exists: {name}") from error
        return True

    def list_topics(self) -> list[str]:
        """Return the names of all topics, in order."""
        return [topic.name for topic in self._client.topics.list(consistency="linearizable")]

    def register_producer(self, topic: str) -> int:
        """Register a producer for a topic; ids are 1, 2, 3 and so on for each topic."""
        try:
            return self._client.topic(topic).register_producer()
        except TopicNotFound as error:
            raise QueueError(f"no such topic: {topic}") from error

    def register_consumer(self, topic: str) -> int:
        """Register a consumer for a topic; it will see all messages, older ones too."""
        try:
            return self._client.topic(topic).register_consumer()
        except TopicNotFound as error:
            raise QueueError(f"no such topic: {topic}") from error

    def enqueue(self, topic: str, producer_id: int, message: Any) -> bool:
        """Append a message; True means that it is stored on a majority of the nodes."""
        try:
            self._client.topic(topic).append(message, producer=producer_id)
        except (TopicNotFound, ProducerNotFound) as error:
            raise QueueError(error.detail) from error
        return True

    def dequeue(self, topic: str, consumer_id: int) -> Any:
        """Return the next message that this consumer has not seen, or None if there is no new one.

        When it is not known whether the last dequeue moved on (``OutcomeUnknown``), the next one gets its message first.
        """
        try:
            reply = self._consume(topic, consumer_id)
        except (TopicNotFound, ConsumerNotFound) as error:
            raise QueueError(error.detail) from error
        return read_value(reply.items[0]) if reply.items else None

    def _consume(self, topic: str, consumer_id: int) -> t.Consumed:
        unknown = self._unknown.get((topic, consumer_id))
        try:
            if unknown is None:
                return self._client.call(t.Consume(topic=topic, consumer_id=consumer_id))
            reply = self._client.repeat(unknown)
        except OutcomeUnknown as error:
            self._unknown[topic, consumer_id] = error
            raise
        self._unknown.pop((topic, consumer_id), None)
        assert isinstance(reply, t.Consumed), "a repeat answers what was asked first"
        return reply

    def size(self, topic: str, consumer_id: int | None = None) -> int:
        """Count the messages that this consumer has not read, or all of them without one."""
        try:
            return self._client.topic(topic).size(consumer_id)
        except (TopicNotFound, ConsumerNotFound) as error:
            raise QueueError(error.detail) from error

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    get_size = size
    createTopic = create_topic  # noqa: N815 - the names as others have spelt them
    listTopics = list_topics  # noqa: N815
    registerProducer = register_producer  # noqa: N815
    registerConsumer = register_consumer  # noqa: N815
    getSize = size  # noqa: N815


myQueue = MyQueue  # noqa: N816 - the founding spelling


class TaskClient:
    """Submits tasks and asks for their results, in the words of the founding task queue: status words in lower case.

    ``servers``: as those of ``MyQueue``.
    ``queue``: where the tasks go.
    ``timeout_s``: bounds every call.
    """

    def __init__(
        self, servers: str | Iterable[str] | None = None, *, queue: str = QUEUE_DEFAULT, timeout_s: float = 10.0
    ) -> None:
        self._client = Client(servers, timeout_s=timeout_s)
        self._queue = queue

    def submit(self, name: str, /, *args: Any, **kwargs: Any) -> str:
        """Submit a task by its name and return its id; it is stored on a majority of the nodes then."""
        try:
            return self._client.tasks.submit(name, args, kwargs, queue=self._queue).id
        except QuorlError as error:
            outward(error)
            raise

    def get_result(self, task_id: str) -> dict[str, Any]:
        """Return ``{"status": …, "result": …}`` as it is now; the status of an unknown id is ``not_found``.

        The result is null until the status is ``success``. A task that ended otherwise has a ``reason`` too, and one that
        failed its last ``error``, with ``type``, ``message`` and ``traceback``, where there is one.
        """
        try:
            return self._told(self._client.tasks.result(task_id))
        except TaskNotFound:
            return {"status": "not_found", "result": None}

    def wait_for_result(self, task_id: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait until the task is finished, or so many seconds, and return the same; an unknown id is not waited for."""
        try:
            return self._told(self._client.tasks.wait(task_id, timeout_s=timeout))
        except TaskNotFound:
            return {"status": "not_found", "result": None}

    @staticmethod
    def _told(found: k.TaskResult) -> dict[str, Any]:
        told = {"status": found.status.lower(), "result": decode(bytes(found.result))}
        more = {"reason": found.reason, "error": None if found.error is None else msgspec.to_builtins(found.error)}
        return told | {word: value for word, value in more.items() if value is not None}

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class TaskWorker:
    """A worker from a dict of handlers: ``TaskWorker("w1", {"add": add}).start()`` works until it is stopped.

    A task that names another handler goes to another worker that has it; where nobody alive has, it ends FAILED, with a
    message that names it.

    ``worker_id``: its name.
    ``handlers``: functions by task name.
    ``servers``: as those of ``MyQueue``.
    ``options``: those of ``Worker``; it serves the queue ``default`` unless ``queues`` says otherwise.
    """

    def __init__(
        self,
        worker_id: str,
        handlers: Mapping[str, Callable[..., Any]],
        servers: str | Iterable[str] | None = None,
        **options: Any,
    ) -> None:
        from quorl.client.worker import Worker

        self._worker = Worker(dict(handlers), servers=servers, name=str(worker_id), **options)

    def start(self) -> None:
        """Work until ``stop``, SIGTERM or Ctrl-C."""
        self._worker.run()

    def stop(self) -> None:
        """End after what runs; from any thread."""
        self._worker.stop()
