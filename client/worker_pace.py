"""How eagerly a worker claims, and how long it waits for company: numbers only, no calls.

Prefetching pays for tasks that take less than a round trip and harms all others, for what one worker has claimed no other
one can begin. So it begins with nothing, grows with each claim that comes back full of such short tasks after many that did,
the shorter they are the further, and ends with the first sign of longer ones or of an empty queue: a few hundred tasks are
shared evenly.
"""

from __future__ import annotations

SHORT_S = 0.005
LONG_S = 0.010
"""Tasks that take less than the first are claimed ahead, and more of them; those that take more than the second are
not."""
STREAK = 16
"""So many full claims, one after the other, speak of a backlog."""
PREFETCH_SHARE = 4
"""At most so many times the concurrency,"""
AHEAD_S = 0.004
"""or as many as are run in so long, if that is more:"""
PREFETCH_MAX = 128
"""what hardly takes any time is claimed in large numbers, since it is the call that costs."""
GROWTH = 4
"""It grows by one, and by this part of itself."""
BREATH_S = 0.002
"""After tasks have come: so long their first results are waited for, to travel with the next claim."""
LINGER_S_MAX = 0.010
"""While claims come back full: so long reports wait for the one that is out, to travel with the next."""
_WEIGHT = 0.2
"""Of a new duration in the mean of all: the last five or so decide."""


class Pace:
    """The numbers of one run."""

    def __init__(self, concurrency: int, prefetch: int | None) -> None:
        self._concurrency = concurrency
        self._fixed = prefetch
        self._prefetch = 0
        self._mean_s: float | None = None
        self._streak = 0
        self._sent = 0.0
        self._round_s = 0.0
        self.hold_until = 0.0
        """Until then nothing leaves that can wait."""
        self.awaited = False
        """Whether results of tasks that have just come are waited for."""

    @property
    def prefetch(self) -> int:
        """How many tasks are claimed ahead."""
        return self._prefetch if self._fixed is None else self._fixed

    def room(self, held: int) -> int:
        """How many tasks may be claimed now."""
        return max(0, self._concurrency + self.prefetch - held)

    def ran(self, seconds: float) -> None:
        """Take note of how long a task took."""
        self._mean_s = seconds if self._mean_s is None else self._mean_s + _WEIGHT * (seconds - self._mean_s)
        if self._mean_s > LONG_S:
            self._prefetch = 0

    def claiming(self, now: float) -> None:
        """A claim leaves."""
        self._sent = now
        self.awaited = False
        self.hold_until = now + min(LINGER_S_MAX, 2 * self._round_s) if self._streak else 0.0

    def claimed(self, now: float, asked: int, granted: int) -> None:
        """A claim came back."""
        if granted == asked:
            self._streak += 1
            self._round_s = now - self._sent
            if self._streak > STREAK and self._mean_s is not None and self._mean_s < SHORT_S:
                self._prefetch = min(self._prefetch + 1 + self._prefetch // GROWTH, self._most(self._mean_s))
        else:
            self._streak = 0
            self._prefetch //= 2
        self.awaited = granted > 0
        self.hold_until = now + BREATH_S if granted else 0.0

    def _most(self, mean_s: float) -> int:
        within = min(PREFETCH_MAX, int(self._concurrency * AHEAD_S / max(mean_s, 1e-6)))
        return max(PREFETCH_SHARE * self._concurrency, within)

    def caught_up(self) -> None:
        """Everything that had come has been run: there is nothing more to wait for."""
        if self.awaited:
            self.awaited = False
            self.hold_until = 0.0
