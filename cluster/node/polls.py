"""Long polls: how many there may be, and how they end early when the node is about to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from quorl.cluster.node.core import Core
from quorl.cluster.node.subjects import Subject
from quorl.cluster.node.visit import Declined
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.problems import Problem

T = TypeVar("T")


class LongPolls:
    """The calls on this node that may wait for something to happen."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._count = 0
        self._waiting: dict[asyncio.Task[Any], None] = {}
        self.draining = False

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Count a call that may wait; refuses with too_many_requests when all places are taken."""
        if self._count >= limits.LONG_POLLS_MAX:
            detail = f"{self._core.name} holds {self._count} waiting calls; repeat without wait, or later."
            raise Declined(Problem("too_many_requests", detail))
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1

    async def wait_news(self, subject: Subject, sequence: int, until: float) -> bool:
        """Wait until something happened to a subject after ``sequence``; False when the time is over or the node stops."""
        if self.draining or self._core.monotonic() >= until:
            return False
        return await self.unless_draining(self._core.wait_news(subject, sequence, until)) or False

    async def unless_draining(self, wait: Coroutine[Any, Any, T]) -> T | None:
        """What somebody waits for; None if it is broken off because the node is about to stop."""
        task = asyncio.ensure_future(wait)
        self._waiting[task] = None
        try:
            await asyncio.wait([task])
            return None if task.cancelled() else task.result()
        finally:
            task.cancel()
            del self._waiting[task]

    def drain(self) -> None:
        """End every wait now, and let no new one begin."""
        self.draining = True
        for task in self._waiting:
            task.cancel()
