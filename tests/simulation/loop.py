"""An event loop that never waits: its time is the world's, and the world decides when it runs.

Each simulated process has a loop of its own. One that is paused is not run; one that is killed is dropped, with all its
tasks, exactly where they stood.
"""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections import deque
from collections.abc import Callable
from typing import Any

from typing_extensions import override

_TURNS_MAX = 20_000


class Clock:
    """The world's time in seconds. Looking at it costs a little, so that nothing can loop until time passes."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        self.now += 1e-7
        return self.now


class SimLoop(asyncio.BaseEventLoop):
    """One process's loop on the world's clock. What is declared here is the base class's own, without a public name."""

    _ready: deque[asyncio.Handle]
    _scheduled: list[Any]
    _timer_cancelled_count: int
    _clock_resolution: float
    _run_once: Callable[[], None]

    def __init__(self, clock: Clock, on_error: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._clock = clock
        self._selector = self
        self._dead = False
        self.set_exception_handler(lambda _loop, context: None if self._dead else on_error(context))

    @override
    def time(self) -> float:
        return self._clock.now

    def select(self, _timeout: float | None) -> list[Any]:
        return []

    def _process_events(self, _events: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who could be woken."""

    def due(self) -> float | None:
        """When this loop has something to do next; None if never."""
        if self._ready:
            return self._clock.now
        while self._scheduled and self._scheduled[0]._cancelled:
            heapq.heappop(self._scheduled)._scheduled = False
            self._timer_cancelled_count -= 1
        return self._scheduled[0]._when if self._scheduled else None

    def drop(self) -> None:
        """End where it stands, also in the middle of a turn: nothing of it runs any more."""
        self._dead = True
        for handle in self._ready:
            handle.cancel()

    def run_due(self) -> None:
        """Run everything that is due now."""
        due = self.due()
        if due is None or due > self._clock.now + self._clock_resolution:
            return
        events._set_running_loop(self)
        try:
            turns = 0
            while (
                not self._dead and (due := self.due()) is not None and due <= self._clock.now + self._clock_resolution
            ):
                self._run_once()
                turns += 1
                assert turns < _TURNS_MAX, "a loop never comes to rest"
        finally:
            events._set_running_loop(None)
