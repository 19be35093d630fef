"""Waking: who waits for something to be applied is woken by it, not by a timer, and in the order of asking.

Invariants: at most half of those in the heap, and a few, have given up. No topic is remembered for longer than others
come after it; a topic that is not remembered counts as changed at the floor, so that a waiter looks once too often
rather than waits for what has happened.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from itertools import count

from quorl.cluster.machine.events import Appended, Event, TopicCreated, TopicDeleted

_GIVEN_UP_MIN = 64
"""So many that have given up are not worth looking through the heap for."""
_TOPICS_REMEMBERED_MAX = 10_000


class Watch:
    """The sequences and topics that requests on this node wait for."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._ticket = count()
        self._sequences: list[tuple[int, int, asyncio.Future[bool]]] = []
        self._topics: dict[str, dict[asyncio.Future[bool], None]] = {}
        self._changed: dict[asyncio.Future[bool], None] = {}
        self._sequence = 0
        self._given_up = 0
        self._latest: dict[str, int] = {}
        """The last change of topics, the longest unchanged first."""
        self._floor = 0
        """No topic that is not among the latest has changed after this."""

    def applied(self, sequence: int, events: list[Event]) -> None:
        """Tell what an entry did."""
        self._sequence = sequence
        while self._sequences and self._sequences[0][0] <= sequence:
            future = heapq.heappop(self._sequences)[2]
            self._given_up -= future.done()
            _wake(future)
        for event in events:
            match event:
                case Appended(topic=name) | TopicCreated(topic=name) | TopicDeleted(topic=name):
                    self._remember(name, sequence)
                    for future in self._topics.pop(name, ()):
                        _wake(future)

    def replaced(self, sequence: int) -> None:
        """The whole state was replaced: anything may have happened."""
        self.applied(sequence, [])
        self._latest.clear()
        self._floor = sequence
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
        try:
            return await self._until(future, deadline)
        finally:
            if future.cancelled():
                self._give_up()

    async def wait_topic(self, topic: str, sequence: int, deadline: float) -> bool:
        """Wait until something was appended to the topic, or it came or went, after that sequence."""
        if self._latest.get(topic, self._floor) > sequence:
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

    def _remember(self, topic: str, sequence: int) -> None:
        """Note the last change of a topic; what changed the longest ago makes room for it."""
        self._latest.pop(topic, None)
        self._latest[topic] = sequence
        if len(self._latest) > _TOPICS_REMEMBERED_MAX:
            self._floor = self._latest.pop(next(iter(self._latest)))

    def _give_up(self) -> None:
        """One more waiter in the heap waits no longer; take such out before they are the most."""
        self._given_up += 1
        if self._given_up > max(_GIVEN_UP_MIN, len(self._sequences) // 2):
            self._sequences = [waiting for waiting in self._sequences if not waiting[2].done()]
            heapq.heapify(self._sequences)
            self._given_up = 0

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
