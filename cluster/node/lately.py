"""What this node remembers, beside counts, of the entries that it applied lately: how long things took, and who was heard when.

Fed with the events of applied entries. Invariants: memory is bounded, however much happens: durations are kept as how often
each occurred, with six significant bits, by the second; of a worker there is one number for each cell of its timeline. After a
start it knows nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from quorl.cluster.machine.events import Event, RunsSucceeded, TasksStarted, WorkerHeard
from quorl.cluster.machine.overview_queries import BEAT_CELLS
from quorl.cluster.protocol.overview import BEAT_CELL_S, LATENCY_S, Latency

_BITS = 6
"""As many significant bits of a duration are kept, so that it is rounded up by less than a 32nd."""
_CELL_MS = 1000 * BEAT_CELL_S


def rounded_up(ms: int) -> int:
    """A duration with as many significant bits as are kept; what is negative, as a calendar that was set back makes it, is 0."""
    shift = max(0, ms.bit_length() - _BITS)
    return max(0, -(-ms >> shift) << shift)


class _Second(NamedTuple):
    """How often things took how long in one second of this node's monotonic clock."""

    number: int
    waits: Counter[int]
    runs: Counter[int]


class Durations:
    """How long tasks waited and ran, of those of the last seconds."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        """Begin with nothing."""
        self._monotonic = monotonic
        self._seconds: deque[_Second] = deque()

    def applied(self, events: Iterable[Event]) -> None:
        """An entry was applied."""
        for event in events:
            if isinstance(event, TasksStarted):
                _count(self._now().waits, event.waited_ms)
            elif isinstance(event, RunsSucceeded):
                _count(self._now().runs, event.ran_ms)

    def latency(self) -> Latency:
        """How long things took lately."""
        self._drop(int(self._monotonic()))
        waits: Counter[int] = Counter()
        runs: Counter[int] = Counter()
        for second in self._seconds:
            waits.update(second.waits)
            runs.update(second.runs)
        return Latency(
            started=waits.total(),
            wait_p50_ms=percentile(waits, 50),
            wait_p99_ms=percentile(waits, 99),
            succeeded=runs.total(),
            run_p50_ms=percentile(runs, 50),
            run_p99_ms=percentile(runs, 99),
        )

    def _now(self) -> _Second:
        number = int(self._monotonic())
        if not self._seconds or self._seconds[-1].number != number:
            self._drop(number)
            self._seconds.append(_Second(number, Counter(), Counter()))
        return self._seconds[-1]

    def _drop(self, now: int) -> None:
        while self._seconds and self._seconds[0].number <= now - LATENCY_S:
            self._seconds.popleft()


def _count(counts: Counter[int], durations_ms: Iterable[int]) -> None:
    for ms, times in Counter(durations_ms).items():
        counts[rounded_up(ms)] += times


def percentile(counts: Counter[int], percent: int) -> int | None:
    """The least value that so many of a hundred do not exceed; None if there are none."""
    missing = -(-counts.total() * percent // 100)
    for value in sorted(counts):
        missing -= counts[value]
        if missing <= 0:
            return value
    return None


class _Line:
    """When one worker was heard: a number for each cell, as a ring, up to the cell ``last``."""

    __slots__ = ("counts", "last")

    def __init__(self, cell: int) -> None:
        self.last = cell
        self.counts = bytearray(BEAT_CELLS)

    def go_on(self, cell: int) -> None:
        """Nothing more was heard until that cell."""
        for one in range(max(self.last + 1, cell - BEAT_CELLS + 1), cell + 1):
            self.counts[one % BEAT_CELLS] = 0
        self.last = max(self.last, cell)

    def note(self, cell: int) -> None:
        """Count a heartbeat, unless it is older than the line."""
        self.go_on(cell)
        if cell > self.last - BEAT_CELLS:
            self.counts[cell % BEAT_CELLS] = min(9, self.counts[cell % BEAT_CELLS] + 1)

    def at(self, cell: int) -> int:
        """How many were heard in a cell."""
        return self.counts[cell % BEAT_CELLS] if self.last - BEAT_CELLS < cell <= self.last else 0


class Timelines:
    """When each worker was heard in the last ten minutes; those not heard for so long are forgotten."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._lines: dict[int, _Line] = {}
        """The longest silent first."""

    def applied(self, events: Iterable[Event]) -> None:
        """An entry was applied."""
        for event in events:
            if isinstance(event, WorkerHeard):
                self._note(event.worker_id, event.at_ms // _CELL_MS)

    def beats(self, worker_id: int, replicated: str, wall_ms: int) -> str:
        """See ``OverviewWorker.beats``; of each cell as many as this node heard, or as the state has, if these are more."""
        line = self._lines.get(worker_id)
        if line is None:
            return replicated
        first = wall_ms // _CELL_MS - BEAT_CELLS + 1
        return "".join(str(max(int(known), line.at(first + at))) for at, known in enumerate(replicated))

    def _note(self, worker_id: int, cell: int) -> None:
        line = self._lines.pop(worker_id, None) or _Line(cell)
        line.note(cell)
        self._lines[worker_id] = line
        first = next(iter(self._lines))
        while self._lines[first].last <= cell - BEAT_CELLS:
            del self._lines[first]
            first = next(iter(self._lines))
