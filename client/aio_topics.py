"""Topics, as a program that uses asyncio sees them. ``topics.py`` is derived from this file by ``scripts/derive_client.py``.

Every method is one call of the table, named and typed for people; what a call guarantees is said in ``flow``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal, Self

from quorl.client.aio_producer import AsyncProducer
from quorl.client.errors import OutcomeUnknown, QuorlError, Rejected, outward
from quorl.client.model import (
    Message,
    MessageDetails,
    MessageLike,
    Placed,
    message,
    messages,
    placed,
    read_message,
)
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Consistency

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient

FOLLOW_WAIT_S = 20.0
"""How long one request of an iterator waits at the node for something new."""
FOLLOW_ROUND_S = 0.5
"""With several partitions, each is waited for in turn, so long together."""


class AsyncTopics:
    """All topics of the cluster."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def create(self, name: str, *, partitions: int = 1, error_if_exists: bool = False) -> t.TopicCreated:
        """Create a topic; raises ``AlreadyExists`` where it has other partitions.

        One that exists just so is fine, unless ``error_if_exists`` asks for a new one.
        """
        return await self._client.call(t.CreateTopic(name=name, partitions=partitions, error_if_exists=error_if_exists))

    async def list(self, *, prefix: str = "", consistency: Consistency | None = None) -> list[t.TopicInfo]:
        """Return all topics whose name begins with ``prefix``, in order of their names."""
        found: list[t.TopicInfo] = []
        cursor = ""
        while True:
            request = t.ListTopics(prefix=prefix, limit=limits.PAGE_ITEMS_MAX, cursor=cursor)
            page = await self._client.call(request, consistency=consistency)
            found += page.items
            if page.next is None:
                return found
            cursor = page.next

    async def get(self, name: str) -> t.TopicInfo:
        """Describe a topic; raises ``TopicNotFound``."""
        return await self._client.call(t.GetTopic(topic=name))

    async def delete(self, name: str, *, if_empty: bool = False) -> t.TopicDeleted:
        """Delete a topic with its messages, producers and consumers; raises ``TopicNotFound``, or ``TopicNotEmpty``."""
        return await self._client.call(t.DeleteTopic(topic=name, if_empty=if_empty))


class AsyncTopic:
    """One topic. Making this handle calls nobody."""

    def __init__(self, client: AsyncClient, name: str) -> None:
        self._client = client
        self.name = name

    # -- writing ------------------------------------------------------------------------------------------------------
    async def append(
        self,
        value: object,
        *,
        key: str | None = None,
        headers: dict[str, str] | None = None,
        producer: int | None = None,
        idempotency_key: str | None = None,
    ) -> Placed:
        """Append one message and return its place. Appends that run at the same time travel together.

        Messages with the same ``key`` are in the same partition, in order. With an ``idempotency_key`` of your own the
        message travels alone, and appending it again under that key changes nothing. Raises ``TopicNotFound``,
        ``ProducerNotFound``, and ``Invalid`` for a value that is too large or has no JSON form.
        """
        one = message(value, key=key, headers=headers, producer=producer)
        return placed(await self._append([one], idempotency_key))

    async def append_many(
        self, values: Iterable[MessageLike], *, producer: int | None = None, idempotency_key: str | None = None
    ) -> list[t.Range]:
        """Append many messages, all or none, and return where they are. For more than a request holds, use ``producer``.

        ``producer`` is that of the messages that name none themselves. Raises as ``append`` does, and ``Invalid`` for more than one request holds.
        """
        return await self._append(messages(values, producer), idempotency_key)

    async def _append(self, batch: list[t.Message], idempotency_key: str | None) -> list[t.Range]:
        if idempotency_key is None:
            return await self._client.append(self.name, batch)
        request = t.Append(topic=self.name, messages=batch)
        return (await self._client.call(request, idempotency_key=idempotency_key)).ranges

    def producer(self, producer_id: int | None = None, *, name: str | None = None) -> AsyncProducer:
        """Return a producer for a stream of messages; with a ``name`` it registers itself first."""
        return AsyncProducer(self._client, self.name, producer_id=producer_id, register_as=name)

    async def register_producer(self, name: str = "") -> int:
        """Register a producer and return its id; ids count from 1 per topic. Raises ``TopicNotFound``."""
        return (await self._client.call(t.RegisterProducer(topic=self.name, name=name))).producer_id

    async def register_consumer(self, name: str = "", *, start: Literal["earliest", "latest"] = "earliest") -> int:
        """Register a consumer and return its id; ids count from 1 per topic.

        Each call makes a new one with a place of its own: the name is for people, and the id is what to go on with.
        Raises ``TopicNotFound``.
        """
        return (await self._client.call(t.RegisterConsumer(topic=self.name, name=name, start=start))).consumer_id

    # -- reading ------------------------------------------------------------------------------------------------------
    async def info(self) -> t.TopicInfo:
        """Describe the topic; raises ``TopicNotFound``."""
        return await self._client.topics.get(self.name)

    async def size(self, consumer_id: int | None = None) -> int:
        """Count the messages, or those that one consumer has not read; raises ``TopicNotFound`` or ``ConsumerNotFound``."""
        return (await self._client.call(t.GetSize(topic=self.name, consumer_id=consumer_id))).size

    async def message(self, partition: int, offset: int) -> MessageDetails:
        """Read one message, with the ids of the consumers that have read it.

        Raises ``TopicNotFound``, ``PartitionNotFound`` or ``MessageNotFound``.
        """
        found = await self._client.call(t.GetMessage(topic=self.name, partition=partition, offset=offset))
        return MessageDetails(read_message(self.name, found), found.read_by)

    async def browse(
        self,
        start: str | int = "earliest",
        *,
        partition: int = 0,
        limit: int = limits.PAGE_ITEMS_DEFAULT,
        wait_s: float = 0,
        consistency: Consistency | None = None,
    ) -> list[Message]:
        """Read messages of one partition without moving any cursor.

        ``start`` is ``earliest``, ``latest``, an offset, or ``ts:`` and an RFC 3339 time. With ``wait_s`` an empty answer is
        held back until there is a message or the seconds are over. Raises ``TopicNotFound`` or ``PartitionNotFound``.
        """
        request = t.Browse(topic=self.name, partition=partition, start=str(start), limit=limit, wait=wait_s)
        page = await self._client.call(request, consistency=consistency)
        return [read_message(self.name, item) for item in page.items]

    async def consume(self, consumer_id: int, *, max: int = 1, wait_s: float = 0) -> list[Message]:  # noqa: A002
        """Return the next messages that a consumer has not seen, and move its cursor past them; empty at the end.

        Raises ``TopicNotFound`` or ``ConsumerNotFound``.
        """
        request = t.Consume(topic=self.name, consumer_id=consumer_id, max=max, wait=wait_s)
        return [read_message(self.name, item) for item in (await self._client.call(request)).items]

    def follow(
        self, start: str | int | Mapping[int, int] = "earliest", *, partition: int | None = None
    ) -> AsyncFollower:
        """Iterate for ever over the messages from ``start`` on, of one partition or of all, without a cursor.

        ``start`` may also be the next offset of each partition that is to be followed.
        """
        return AsyncFollower(self._client, self.name, start, partition)

    def consumer(
        self,
        consumer_id: int | None = None,
        *,
        name: str = "",
        start: Literal["earliest", "latest"] = "earliest",
        max: int = 100,  # noqa: A002
        wait_s: float = FOLLOW_WAIT_S,
        stop_at_end: bool = False,
    ) -> AsyncConsumer:
        """Iterate over the messages that a consumer has not seen; without an id it registers a new one first.

        To go on where it was, give its id (``consumer_id`` of what this returns, once it is registered); a name makes a
        new one each time. Up to ``max`` messages are fetched at once and count as read from then on.
        """
        return AsyncConsumer(self._client, self.name, consumer_id, name, start, max, 0 if stop_at_end else wait_s)


class AsyncFollower:
    """The messages of a topic for ever. After an error the iteration can go on where it was."""

    def __init__(
        self, client: AsyncClient, topic: str, start: str | int | Mapping[int, int], partition: int | None
    ) -> None:
        self._client = client
        self._topic = topic
        self._start = str(start)
        self._ready: list[Message] = []
        self._next: dict[int, str] = {} if partition is None else {partition: str(start)}
        if isinstance(start, Mapping):
            self._next = {number: str(offset) for number, offset in start.items()}
        self._turn = 0
        self._empty = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._ready:
            try:
                self._ready = (await self.fetch())[::-1]
            except QuorlError as error:
                outward(error)
                raise
        return self._ready.pop()

    async def fetch(self) -> list[Message]:
        """Ask one partition; wait a while for something new once none of them had anything."""
        if not self._next:
            info = await self._client.call(t.GetTopic(topic=self._topic))
            self._next = dict.fromkeys(range(info.partitions), self._start)
        count = len(self._next)
        partition = list(self._next)[self._turn % count]
        wait_s = 0.0 if self._empty < count else FOLLOW_WAIT_S if count == 1 else FOLLOW_ROUND_S / count
        request = t.Browse(
            topic=self._topic,
            partition=partition,
            start=self._next[partition],
            limit=limits.PAGE_ITEMS_MAX,
            wait=wait_s,
        )
        page = await self._client.call(request)
        self._next[partition] = str(page.next)
        self._turn += 1
        self._empty = 0 if page.items else self._empty + 1
        return [read_message(self._topic, item) for item in page.items]


class AsyncConsumer:
    """The messages that one consumer has not seen; ends at the end of the topic if it is not to wait.

    After an error the iteration can go on: a fetch whose outcome is unknown is repeated under its key first, so that no
    message is skipped.
    """

    def __init__(
        self,
        client: AsyncClient,
        topic: str,
        consumer_id: int | None,
        name: str,
        start: Literal["earliest", "latest"],
        max: int,  # noqa: A002
        wait_s: float,
    ) -> None:
        if isinstance(consumer_id, str):
            raise TypeError(
                f"a consumer goes on by its id, a number, and {consumer_id!r} is none: "
                f"register_consumer({consumer_id!r}) makes one and returns its id"
            )
        self._client = client
        self._topic = topic
        self.consumer_id = consumer_id
        """None until it is registered."""
        self._registration = t.RegisterConsumer(topic=topic, name=name, start=start)
        self._max = max
        self._wait_s = wait_s
        self._ready: list[Message] = []
        self._unknown: OutcomeUnknown | None = None

    async def register(self) -> Self:
        """Register now, unless that has been done."""
        if self.consumer_id is None:
            self.consumer_id = (await self._client.call(self._registration)).consumer_id
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._ready:
            try:
                fetched = await self.fetch()
            except QuorlError as error:
                outward(error)
                raise
            if not fetched and not self._wait_s:
                raise StopAsyncIteration
            self._ready = fetched[::-1]
        return self._ready.pop()

    async def fetch(self, max: int | None = None) -> list[Message]:  # noqa: A002
        """Fetch once: the next messages, up to ``max``, which are read from now on; empty if there are none in time."""
        await self.register()
        assert self.consumer_id is not None
        request = t.Consume(topic=self._topic, consumer_id=self.consumer_id, max=max or self._max, wait=self._wait_s)
        try:
            if self._unknown is None:
                reply = await self._client.call(request)
            else:
                again = await self._client.repeat(self._unknown)
                assert isinstance(again, t.Consumed), "a repeat answers what was asked first"
                reply = again
        except OutcomeUnknown as error:
            self._unknown = error
            raise
        except Rejected:
            self._unknown = None
            raise
        self._unknown = None
        return [read_message(self._topic, item) for item in reply.items]
