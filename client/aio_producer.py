"""A stream of messages to one topic, in order and in batches, for asyncio.

Invariants: one batch is in flight at a time, so the topic's order (per partition) is the order of ``send``; what waits is
bounded, and ``send`` waits for room; after the first failure nothing more is sent, so that no message is stored behind
a gap.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from quorl.client.errors import Unavailable
from quorl.client.lanes import AppendPart
from quorl.client.model import MessageLike, Placed, check_size, message, messages, placed, size_bytes
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from quorl.shielding import shield

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient

BUFFER_BYTES_MAX = 4 * 1024 * 1024
"""Handed over and not yet stored; who hands over more waits. Several flights, and no more memory than that."""


class AsyncPending:
    """Messages on their way."""

    def __init__(self, part: AppendPart, landed: asyncio.Future[None]) -> None:
        self._part = part
        self._landed = landed

    @property
    def done(self) -> bool:
        """Whether it is known what came of them."""
        return self._part.done

    async def ranges(self) -> list[t.Range]:
        """Wait until the messages are stored and return where; raises what went wrong."""
        await shield(self._landed)
        return self._part.places()

    async def place(self) -> Placed:
        """Wait until the one message is stored and return where."""
        return placed(await self.ranges())

    async def offset(self) -> int:
        """Wait until the one message is stored and return its offset."""
        return (await self.place()).offset


class AsyncProducer:
    """Sends a stream of messages. Leaving ``async with`` sends what waits, and raises what went wrong."""

    def __init__(self, client: AsyncClient, topic: str, *, producer_id: int | None, register_as: str | None) -> None:
        self._client = client
        self._topic = topic
        self.producer_id = producer_id
        self._register_as = register_as
        self._lane = client.lane(topic)
        self._pump: asyncio.Task[None] | None = None
        self._waiting_bytes = 0
        self._flown = asyncio.Event()
        self.error: Exception | None = None
        """The first failure; nothing is sent after it."""

    async def send(
        self, value: object, *, key: str | None = None, headers: dict[str, str] | None = None
    ) -> AsyncPending:
        """Hand over a message; waits only for room. The result can be asked where the message is."""
        return await self._send([message(value, key=key, headers=headers, producer=self.producer_id)])

    async def send_many(self, values: Iterable[MessageLike]) -> AsyncPending:
        """Hand over messages that are to be stored together, all or none."""
        return await self._send(messages(values, self.producer_id))

    async def _send(self, batch: list[t.Message]) -> AsyncPending:
        for one in batch:
            check_size(one)
        size = size_bytes(batch)
        while self.error is None and self._waiting_bytes and self._waiting_bytes + size > BUFFER_BYTES_MAX:
            self._flown.clear()
            await self._flown.wait()
        if self.error is not None:
            raise self.error
        landed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        part = AppendPart(batch, size, None, lambda part: self._landed(part, landed))
        self._waiting_bytes += size
        self._lane.queue.append(part)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._run())
        return AsyncPending(part, landed)

    def _landed(self, part: AppendPart, landed: asyncio.Future[None]) -> None:
        self._waiting_bytes -= part.size_bytes
        if isinstance(part.outcome, Exception) and self.error is None:
            self.error = part.outcome
        if not landed.done():
            landed.set_result(None)
        self._flown.set()

    async def _run(self) -> None:
        try:
            while self._lane.queue and self.error is None:
                await self._client.drive(self._lane.fly())
        except Exception as error:  # nobody else sees what this task runs into
            self.error = self.error or error
        finally:
            self._lane.abandon(Unavailable("not sent, because an earlier message failed"))

    async def flush(self) -> None:
        """Wait until everything handed over is stored; raises the first failure."""
        while self._pump is not None and not self._pump.done():
            await asyncio.wait([self._pump])
        if self.error is not None:
            raise self.error

    async def __aenter__(self) -> Self:
        if self.producer_id is None and self._register_as is not None:
            request = t.RegisterProducer(topic=self._topic, name=self._register_as)
            self.producer_id = (await self._client.call(request)).producer_id
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.flush()


assert BUFFER_BYTES_MAX > limits.REQUEST_BYTES_MAX
