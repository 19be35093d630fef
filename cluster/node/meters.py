"""What a node counts of its own doings, for whoever scrapes it: numbers that only grow, and how long things took.

Counting costs an addition, or a search among a dozen bounds; nothing is formatted before somebody asks. What the state knows
(tasks, workers, messages) is not counted here a second time.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from quorl.cluster.machine.events import Event, LeaseLost, RunsSucceeded, TasksStarted

FAST_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""Bounds for what a disk or a round trip takes."""
CALL_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Bounds for what a caller sees."""
TASK_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
"""Bounds for how long tasks wait and run."""


UNKNOWN = "other"
"""The name of calls that are for no operation."""


class Histogram:
    """How often something took how long, in seconds. ``counts`` has a number for each bound, and one for what was longer."""

    __slots__ = ("bounds", "counts", "sum_s")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """Begin with nothing; bounds belong to the bucket below them."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum_s = 0.0

    def observe(self, seconds: float, times: int = 1) -> None:
        """Something took so long, so many times."""
        self.counts[bisect_left(self.bounds, seconds)] += times
        self.sum_s += seconds * times

    def cumulated(self) -> list[tuple[str, float]]:
        """Each bound with how often it took no longer, as Prometheus wants buckets."""
        so_far, buckets = 0, []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            so_far += count
            buckets.append((bound, float(so_far)))
        return buckets


class Meters:
    """The counts of one process."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.calls: Counter[tuple[str, int]] = Counter()
        """By operation, or ``UNKNOWN``, and status."""
        self.call_s: dict[str, Histogram] = {}
        """By operation; without calls that asked to wait."""
        self.turned_away: Counter[str] = Counter()
        """Calls that were told to come again, or with less, by the problem's code."""
        self.entries = 0
        self.entries_failed = 0
        """Entries that were proposed, and those of which no outcome came to be known here."""
        self.commands = 0
        self.entry_s = Histogram(FAST_S)
        """From the proposal of an entry to its application at the leader."""
        self.fsync_s = Histogram(FAST_S)
        self.leader_changes = 0
        self.wait_s = Histogram(TASK_S)
        self.run_s = Histogram(TASK_S)
        self.leases_lost = 0
        """Reports that came too late, as applied here."""
        self.checkpoint_s = Histogram(CALL_S)
        self.snapshots = 0
        self.snapshot_bytes = 0
        """Of the snapshot that was installed here last."""
        self.snapshots_failed = 0

    def decided(self, commands: int, seconds: float, *, failed: bool) -> None:
        """An entry that was proposed here is applied, or has failed."""
        self.entries += 1
        if failed:
            self.entries_failed += 1
        else:
            self.commands += commands
            self.entry_s.observe(seconds)

    def applied(self, events: Iterable[Event]) -> None:
        """An entry was applied here."""
        for event in events:
            if isinstance(event, TasksStarted):
                for waited_ms, times in Counter(event.waited_ms).items():
                    self.wait_s.observe(waited_ms / 1000, times)
            elif isinstance(event, RunsSucceeded):
                for ran_ms, times in Counter(event.ran_ms).items():
                    self.run_s.observe(ran_ms / 1000, times)
            elif isinstance(event, LeaseLost):
                self.leases_lost += 1

    def called(self, operation: str, status: int, seconds: float | None) -> None:
        """A call was answered; ``seconds`` is None if it asked to wait."""
        self.calls[operation, status] += 1
        if seconds is not None:
            histogram = self.call_s.get(operation)
            if histogram is None:
                histogram = self.call_s[operation] = Histogram(CALL_S)
            histogram.observe(seconds)
