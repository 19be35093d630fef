"""Waking: who waits for something to be applied is woken by it, not by a timer, and in the order of asking."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from quorl.cluster.machine.events import Appended, Event, TopicCreated, TopicDeleted


class Watch:
    """The sequences and topics that requests on this node wait for."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ticket = count()
        self._sequences: list[tuple[int, int, asyncio.Future[bool]]] = []
        self._topics: dict[str, dict[asyncio.Future[bool], None]] = {}
        self._changed: dict[asyncio.Future[bool], None] = {}
        self._sequence = 0
        self._latest: dict[str, int] = {}

    def applied(self, sequence: int, events: list[Event]) -> None:
        """Tell what an entry did."""
        self._sequence = sequence
        while self._sequences and self._sequences[0][0] <= sequence:
            _wake(heapq.heappop(self._sequences)[2])
        for event in events:
            match event:
                case Appended(topic=name) | TopicCreated(topic=name) | TopicDeleted(topic=name):
                    self._latest[name] = sequence
                    for future in self._topics.pop(name, ()):
                        _wake(future)

    def replaced(self, sequence: int) -> None:
        """The whole state was replaced: anything may have happened."""
        self.applied(sequence, [])
        self._latest.clear()
        for futures in self._topics.values():
            for future in futures:
                _wake(future)
        self._topics.clear()

    def changed(self) -> None:
        """Leadership or connections changed."""
        changed, self._changed = self._changed, {}
        for future in changed:
            _wake(future)

    async def wait_applied(self, sequence: int, deadline: float) -> bool:
        """Wait until the entry of that sequence was applied here."""
        if self._sequence >= sequence:
            return True
        future = self._future()
        heapq.heappush(self._sequences, (sequence, next(self._ticket), future))
        return await self._until(future, deadline)

    async def wait_topic(self, topic: str, sequence: int, deadline: float) -> bool:
        """Wait until something was appended to the topic, or it came or went, after that sequence."""
        if self._latest.get(topic, 0) > sequence:
            return True
        future = self._future()
        self._topics.setdefault(topic, {})[future] = None
        try:
            return await self._until(future, deadline)
        finally:
            waiting = self._topics.get(topic)
            if waiting is not None:
                waiting.pop(future, None)
                if not waiting:
                    del self._topics[topic]

    async def wait_changed(self, deadline: float) -> bool:
        """Wait until leadership or connections may have changed."""
        future = self._future()
        self._changed[future] = None
        try:
            return await self._until(future, deadline)
        finally:
            self._changed.pop(future, None)

    def _future(self) -> asyncio.Future[bool]:
        return asyncio.get_running_loop().create_future()

    async def _until(self, future: asyncio.Future[bool], deadline: float) -> bool:
        try:
            async with asyncio.timeout(max(0.0, deadline - self._monotonic())):
                return await future
        except TimeoutError:
            return False


def _wake(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(True)
