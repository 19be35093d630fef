"""Cluster time: what the leader stamps on entries.

``now_ms`` counts the time in which the cluster could decide: from the last entry's time on, by the leader's monotonic
clock, and only while a majority that counts answers. So it stands still without a leader, and for one whose only company
is members that are being filled; and no wall clock can move it.
``wall_ms`` is for people: the median of the members' calendars, so that one wrong clock moves nothing.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from quorl.cluster.consensus.port import Clock

_STEP_S_MAX = 1.0
"""A longer gap between two looks is a pause of this process, in which it decided nothing."""
_OFFSET_AGE_S_MAX = 10.0
"""A calendar that was last heard of before that does not count."""


class Stamp(NamedTuple):
    """The moment of an entry."""

    now_ms: int
    wall_ms: int


class Timekeeper:
    """The clock of one leadership, and what is known of the other members' calendars."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._base_ms = 0
        self._elapsed_s = 0.0
        self._looked_at = clock.monotonic()
        self._counting = False
        self._offsets: dict[str, tuple[float, int]] = {}
        self._median_ms = 0
        """Of the offsets, as long as none is told anew or grows old."""
        self._median_until = -math.inf

    def take_over(self, now_ms: int) -> None:
        """Begin a leadership at the cluster time of the last entry."""
        self._base_ms = now_ms
        self._elapsed_s = 0.0
        self._looked_at = self._clock.monotonic()
        self._counting = False

    def look(self, *, deciding: bool) -> None:
        """Note that time went by, and whether this member leads with a majority that answers."""
        now = self._clock.monotonic()
        if self._counting and deciding:
            self._elapsed_s += min(now - self._looked_at, _STEP_S_MAX)
        self._counting = deciding
        self._looked_at = now

    def heard(self, peer: str, wall_ms: int) -> None:
        """Note another member's calendar."""
        self._offsets[peer] = (self._clock.monotonic(), wall_ms - self._clock.wall_ms())
        self._median_until = -math.inf

    def wall_ms(self) -> int:
        """The median of the calendars of this member and of those heard of lately."""
        now = self._clock.monotonic()
        if now > self._median_until:
            fresh = [(at, offset) for at, offset in self._offsets.values() if now - at <= _OFFSET_AGE_S_MAX]
            self._median_ms = int(statistics.median_low([0, *[offset for _, offset in fresh]]))
            self._median_until = min([at for at, _ in fresh], default=math.inf) + _OFFSET_AGE_S_MAX
        return self._clock.wall_ms() + self._median_ms

    def stamp(self) -> Stamp:
        """The moment of the entry that is about to be proposed."""
        return Stamp(self._base_ms + int(self._elapsed_s * 1000), self.wall_ms())
