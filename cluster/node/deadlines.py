"""Deadlines of tasks, under one timer for all: nearly every call ends long before its own, whose timer would be made for nothing.

Invariants: a task that is in time is not disturbed; one that is not is cancelled once, and a cancellation that comes from
elsewhere is not taken for it. It is the same bargain as that of ``asyncio.timeout``.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from types import TracebackType

from quorl.soonest import Soonest


class Deadline:
    """What one task does in here raises ``TimeoutError`` when it takes too long; ``expired`` says that it was this."""

    __slots__ = ("_all", "_cancelling", "_task", "expired", "noted", "until_s")

    def __init__(self, deadlines: Deadlines, until_s: float) -> None:
        self._all = deadlines
        self.until_s = until_s
        self.expired = False
        self.noted = False
        """Whether a look has met it, and with it all that had begun before."""

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "only a task can be cancelled"
        self._task = task
        self._cancelling = task.cancelling()
        self._all.held[self] = None
        if self.until_s < self._all.next_s:
            self._all.look_at(self.until_s)

    def expire(self) -> None:
        """Cancel the task."""
        self.expired = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._all.held.pop(self, None)
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error


class Deadlines:
    """The deadlines of the calls at one node."""

    def __init__(self) -> None:
        self.held: dict[Deadline, None] = {}
        """Those that have begun and not ended, in the order in which they began."""
        self._soonest: Soonest[Deadline] = Soonest()
        self._timer: asyncio.TimerHandle | None = None
        self.next_s = math.inf
        """When it is looked next: never later than the first of them is over."""

    def within(self, seconds: float) -> Deadline:
        """Return a scope that may last for so long from now on."""
        return Deadline(self, asyncio.get_running_loop().time() + seconds)

    def look_at(self, moment_s: float) -> None:
        """Look then for those that are over."""
        if self._timer is not None:
            self._timer.cancel()
        self.next_s = moment_s
        self._timer = asyncio.get_running_loop().call_at(moment_s, self._look)

    def _look(self) -> None:
        now_s = max(asyncio.get_running_loop().time(), self.next_s)  # a timer may come a little early
        self._timer, self.next_s = None, math.inf
        over, first_s = self._soonest.look(self._fresh(), self.held, now_s)
        for one in over:
            del self.held[one]
            one.expire()
        if first_s < math.inf:
            self.look_at(first_s)

    def _fresh(self) -> Iterator[tuple[float, Deadline]]:
        """Those that have begun since it was looked last."""
        for one in reversed(self.held):
            if one.noted:
                return
            one.noted = True
            yield one.until_s, one
