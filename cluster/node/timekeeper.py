"""Cluster time: what the leader stamps on entries.

``now_ms`` counts the time in which the cluster could decide: from the last entry's time on, by the leader's monotonic
clock, and only while a majority that counts answers. So it stands still without a leader, and for one whose only company
is members that are being filled; and no wall clock can move it.
``wall_ms`` is for people: the median of the members' calendars, so that one wrong clock moves nothing. What is kept of the
others' calendars is held against the monotonic clock: against this member's own calendar they would all jump with it when
somebody sets it, until each of them is heard again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from quorl.cluster.consensus.port import Clock

_STEP_S_MAX = 1.0
"""A longer gap between two looks is a pause of this process, in which it decided nothing."""
_CALENDAR_AGE_S_MAX = 10.0
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
        self._calendars: dict[str, tuple[float, float]] = {}
        """By member: when it was heard, and what its calendar showed when the monotonic clock began."""
        self._bounds_ms = -math.inf, math.inf
        """Between which of these the median with this member's own lies, as long as none is told anew or grows old."""
        self._bounds_until = -math.inf

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
        now = self._clock.monotonic()
        self._calendars[peer] = (now, wall_ms - now * 1000)
        self._bounds_until = -math.inf

    def wall_ms(self) -> int:
        """The median of the calendars of this member and of those heard of lately; of an even number the lower one."""
        now = self._clock.monotonic()
        if now > self._bounds_until:
            fresh = [(at, began_ms) for at, began_ms in self._calendars.values() if now - at <= _CALENDAR_AGE_S_MAX]
            others = sorted(began_ms for _, began_ms in fresh)
            middle = len(others) // 2
            self._bounds_ms = others[middle - 1] if middle else -math.inf, others[middle] if others else math.inf
            self._bounds_until = min([at for at, _ in fresh], default=math.inf) + _CALENDAR_AGE_S_MAX
        own_ms = self._clock.wall_ms()
        low_ms, high_ms = (began_ms + now * 1000 for began_ms in self._bounds_ms)
        return own_ms if low_ms <= own_ms <= high_ms else int(low_ms if own_ms < low_ms else high_ms)

    def stamp(self) -> Stamp:
        """The moment of the entry that is about to be proposed."""
        return Stamp(self._base_ms + int(self._elapsed_s * 1000), self.wall_ms())
