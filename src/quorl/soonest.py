"""Which of many moments comes first, where most of what they are for ends before: nothing is done when one ends.

Invariants: each is noted once, when somebody looks for those that are over and not before, so that what ends between two
looks costs nothing. A look costs the logarithm of their number for each that is new, over or ended. No more than twice as
many are held as live, and a few.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Collection, Iterable
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT")

ENDED_MAX = 64
"""So many that have ended may be held, however few live."""


class Soonest(Generic[KeyT]):
    """The moments of what is in ``live``; what is there no longer has ended."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, KeyT]] = []
        self._numbers = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def look(
        self, fresh: Iterable[tuple[float, KeyT]], live: Collection[KeyT], now_s: float
    ) -> tuple[list[KeyT], float]:
        """Note those that are new; return what is over now, the first of them first, and when the next will be."""
        heap = self._heap
        for moment_s, key in fresh:
            heapq.heappush(heap, (moment_s, next(self._numbers), key))
        over: list[KeyT] = []
        while heap and (heap[0][2] not in live or heap[0][0] <= now_s):
            _, _, key = heapq.heappop(heap)
            if key in live:
                over.append(key)
        if len(heap) > 2 * len(live) + ENDED_MAX:
            self._heap = heap = [one for one in heap if one[2] in live]
            heapq.heapify(heap)
        return over, heap[0][0] if heap else math.inf
