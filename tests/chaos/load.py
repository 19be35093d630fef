"""Clients that never stop while nodes are killed, and the history of what they were told.

Writers know one node each or all of them; every value is unique; what may have been applied is repeated under its key
until it is known. A consumer moves its replicated cursor all the while, and a reader asks linearizable questions
that only a stale answer could get wrong. Everything is written down, one JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Sequence
from itertools import count, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, Self, TypeVar, cast

from quorl.client import AsyncClient, OutcomeUnknown, QuorlError, Unavailable, message
from quorl.client.local.processes import until
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Request

R = TypeVar("R")

TOPIC = "chaos"
PARTITIONS = 2
TIMEOUT_S = 4.0
"""For one call: short, so that outcomes become unknown and must be repeated."""
DRAIN_S = 60.0
PADDING = {"padding": "x" * 300}
"""So that the log grows and is trimmed."""


class Acknowledged(NamedTuple):
    """A message that the cluster said is stored, and where."""

    value: str
    partition: int
    offset: int
    at_s: float


class Counting(Protocol):
    """Whoever counts how often a call was repeated."""

    repeats: int


class Load:
    """Runs in a thread with a loop of its own, so that tests may block."""

    def __init__(self, urls: Sequence[str], history: Path) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.refused: list[str] = []
        """Values of which a client said that they were certainly not stored."""
        self.consumed: list[tuple[int, int]] = []
        self.stale: list[str] = []
        self.repeats = 0
        self._urls = list(urls)
        self._stop = threading.Event()
        self._written = False
        self._path = history
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="load")
        self._error: BaseException | None = None

    # -- for the test ---------------------------------------------------------------------------------------------
    def __enter__(self) -> Self:
        self._thread.start()
        self.more(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Let everything under way end with an outcome that is known."""
        self._stop.set()
        self._thread.join(2 * DRAIN_S)
        assert not self._thread.is_alive(), "the clients do not come to an end"
        if self._error is not None:
            raise self._error

    def more(self, messages: int) -> None:
        """Wait until so many more messages are acknowledged."""
        enough = len(self.acknowledged) + messages

        def there() -> bool:
            if self._error is not None:
                raise self._error
            return len(self.acknowledged) >= enough

        until(there, f"{messages} more acknowledged messages")

    @property
    def longest_gap_s(self) -> float:
        """The longest time in which nothing was acknowledged."""
        return max((b.at_s - a.at_s for a, b in pairwise(self.acknowledged)), default=0.0)

    # -- clients --------------------------------------------------------------------------------------------------
    async def _run(self) -> None:
        self._history = self._path.open("a", encoding="utf-8")
        try:
            async with AsyncClient(self._urls, timeout_s=60) as client:
                await client.topics.create(TOPIC, partitions=PARTITIONS)
                consumer_id = await client.topic(TOPIC).register_consumer()
            rotated = [*self._urls[1:], *self._urls[:1]]
            async with asyncio.TaskGroup() as readers:
                readers.create_task(self._consume(consumer_id, rotated))
                readers.create_task(self._read())
                async with asyncio.TaskGroup() as writers:
                    for number, servers in enumerate([*([url] for url in self._urls), self._urls, rotated]):
                        writers.create_task(self._write(f"w{number}", servers, batch=1 + 4 * (number % 2)))
                self._written = True
        except BaseException as error:
            self._error = error
        finally:
            self._history.close()

    async def _write(self, name: str, servers: list[str], batch: int) -> None:
        async with AsyncClient(servers, timeout_s=TIMEOUT_S) as client:
            numbers = count()
            while not self._stop.is_set():
                values = [f"{name} #{next(numbers)}" for _ in range(batch)]
                await self._append(client, name, values)

    async def _append(self, client: AsyncClient, name: str, values: list[str]) -> None:
        started_s = time.monotonic()
        key = name if len(values) > 1 else None
        request = t.Append(topic=TOPIC, messages=[message(value, key=key, headers=PADDING) for value in values])
        try:
            reply = await settle(client, request, self)
        except Unavailable as error:
            self.refused += values
            self._note("refused", values, started_s, why=error.detail)
            return
        now_s = time.monotonic()
        (landed,) = reply.ranges
        offsets = range(landed.first_offset, landed.last_offset + 1)
        self.acknowledged += [
            Acknowledged(value, landed.partition, offset, now_s) for value, offset in zip(values, offsets, strict=True)
        ]
        self._note("stored", values, started_s, partition=landed.partition, first_offset=landed.first_offset)

    async def _consume(self, consumer_id: int, servers: list[str]) -> None:
        """Read everything once; after the writers have ended, up to the end."""
        request = t.Consume(topic=TOPIC, consumer_id=consumer_id, max=50)
        async with AsyncClient(servers, timeout_s=TIMEOUT_S) as client:
            while True:
                last = self._written
                try:
                    reply = await settle(client, request, self)
                except Unavailable:
                    continue
                self.consumed += [(item.partition, item.offset) for item in reply.items]
                if last and not reply.items:
                    return
                if not reply.items:
                    await asyncio.sleep(0.02)

    async def _read(self) -> None:
        """A linearizable size never lies below what was acknowledged before the question."""
        async with AsyncClient(self._urls, timeout_s=TIMEOUT_S) as client:
            while not self._stop.is_set():
                known = len(self.acknowledged)
                try:
                    size = await client.topic(TOPIC).size()
                except QuorlError:
                    continue
                if size < known:
                    self.stale.append(f"{size} messages, after {known} were acknowledged")
                await asyncio.sleep(0.02)

    def _note(self, outcome: str, values: list[str], started_s: float, **more: Any) -> None:
        line = {"outcome": outcome, "values": values, "start_s": started_s, "end_s": time.monotonic(), **more}
        self._history.write(json.dumps(line) + "\n")


async def settle(client: AsyncClient, request: Request[R], load: Counting) -> R:
    """Make a call and repeat it under its key until its outcome is known; ``Unavailable`` means it had no effect."""
    deadline_s = time.monotonic() + 3 * DRAIN_S
    try:
        return await client.call(request)
    except OutcomeUnknown as error:
        unknown = error
    while time.monotonic() < deadline_s:
        load.repeats += 1
        try:
            return cast("R", await client.repeat(unknown))
        except OutcomeUnknown as error:
            unknown = error
    raise AssertionError(f"never settled: {unknown}")
