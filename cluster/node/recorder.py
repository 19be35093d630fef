"""What this node saw happen in each of the last ten minutes' seconds: counts of tasks and messages, in memory.

Fed with the events of applied entries, it keeps the first and the last tally of each queue of the second that runs, and
writes them into rings when it is over; so an entry costs a look-up for each queue and topic that it changed. Seconds are
those of this node's monotonic clock at which entries were applied here. After a start it knows nothing; the coarse history
that is replicated does.

Invariants: of queues and of topics the ``RECORDED_SERIES_MAX`` that changed last have rings; the cluster's own ring misses
nothing.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from operator import sub
from typing import NamedTuple

from quorl.cluster.machine.books import Tally
from quorl.cluster.machine.events import Appended, Event, QueueCounted
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.overview import RATE_S, History, HistoryCounts

RING_S = limits.RECORDED_S
_COUNTS = ("submitted", "started", "succeeded", "failed_attempts", "lost", "failed", "appended")
_FIELDS = (*_COUNTS, "waiting", "running")
assert HistoryCounts.__struct_fields__ == _FIELDS
_COUNTED, _WIDTH = len(_COUNTS), len(_FIELDS)
_UNKNOWN = (*[0] * _COUNTED, None, None)
"""A second of what has not changed since this node started."""


class Rates(NamedTuple):
    """How often things happened lately, per second."""

    submitted: float = 0.0
    started: float = 0.0
    succeeded: float = 0.0
    failed_attempts: float = 0.0
    lost: float = 0.0
    failed: float = 0.0
    appended: float = 0.0


class _Ring:
    """The last ``RING_S`` seconds of one thing."""

    def __init__(self, second: int, gauges: Sequence[int]) -> None:
        self._slots = array("q", (*[0] * _COUNTED, *gauges) * RING_S)
        self._last = second

    def go_on(self, second: int) -> None:
        """Until that second nothing more happened, and as much waits and runs as before."""
        since = max(self._last + 1, second - RING_S + 1)
        if since <= second:
            at = self._last % RING_S * _WIDTH
            quiet = array("q", [0] * _COUNTED) + self._slots[at + _COUNTED : at + _WIDTH]
            for one in range(since, second + 1):
                at = one % RING_S * _WIDTH
                self._slots[at : at + _WIDTH] = quiet
            self._last = second

    def put(self, second: int, counts: Sequence[int], gauges: Sequence[int]) -> None:
        """What happened in that second, which none that is later was told of."""
        self.go_on(second)
        at = second % RING_S * _WIDTH
        self._slots[at : at + _WIDTH] = array("q", (*counts, *gauges))

    def steps(self, first: int, last: int) -> list[array[int]]:
        """What happened in each second from the first to the last."""
        self.go_on(last)
        return [self._slots[one % RING_S * _WIDTH :][:_WIDTH] for one in range(first, last + 1)]


class Recorder:
    """The seconds as this node saw them."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._second = self.started_s = int(monotonic())
        self._cluster = _Ring(self._second, (0, 0))
        self._queues: dict[str, _Ring] = {}
        self._topics: dict[str, _Ring] = {}
        """The longest unchanged first, both."""
        self._tallies: dict[str, tuple[Tally, Tally]] = {}
        """Of this second: the tally of a queue before and after."""
        self._appended: dict[str, int] = {}
        self._gauges = [0, 0]

    def begin(self, waiting: int, running: int) -> None:
        """The whole state is new, and has so many tasks that wait and run."""
        self._flush(int(self._monotonic()))
        self._gauges = [waiting, running]
        self._cluster.put(self._second, [0] * _COUNTED, self._gauges)

    def applied(self, events: Sequence[Event]) -> None:
        """An entry was applied."""
        second = int(self._monotonic())
        if second != self._second:
            self._flush(second)
        for event in events:
            if isinstance(event, QueueCounted):
                known = self._tallies.get(event.queue)
                self._tallies[event.queue] = (event.before if known is None else known[0], event.after)
            elif isinstance(event, Appended):
                self._appended[event.topic] = self._appended.get(event.topic, 0) + event.messages

    def rates(self, *, queue: str | None = None, topic: str | None = None) -> Rates:
        """How often things happened in the last seconds that are over: to a queue, a topic, or all."""
        now = self._upto_now()
        first = max(now - RATE_S, self.started_s)
        ring = self._ring(queue, topic)
        if ring is None or first >= now:
            return Rates()
        sums = [sum(column) for column in zip(*ring.steps(first, now - 1), strict=True)]
        return Rates(*(number / (now - first) for number in sums[:_COUNTED]))

    def counts(self, queue: str | None, topic: str | None) -> tuple[HistoryCounts, int]:
        """What happened in each of the last seconds that are over, and how many milliseconds ago the last one ended."""
        now = self._upto_now()
        first = max(now - RING_S, self.started_s)
        ring = self._ring(queue, topic)
        steps: Sequence[Sequence[int | None]] = (
            [_UNKNOWN] * (now - first) if ring is None else ring.steps(first, now - 1)
        )
        columns = list(zip(*steps, strict=True)) or [()] * _WIDTH
        counts = HistoryCounts(**{name: list(column) for name, column in zip(_FIELDS, columns, strict=True)})
        return counts, int(1000 * (self._monotonic() - now))

    def refine(self, coarse: History, wall_ms: int) -> History:
        """The same in steps of a second, as this node saw it."""
        counts, ago_ms = self.counts(coarse.queue, coarse.topic)
        steps = len(counts.submitted)
        last_ms = wall_ms - ago_ms
        at_ms = [last_ms - 1000 * (steps - 1 - step) for step in range(steps)]
        since_ms = at_ms[0] - 1000 if at_ms else wall_ms
        later = [mark for mark in coarse.leaders if mark.at_ms > since_ms]
        before = [mark for mark in coarse.leaders if mark.at_ms <= since_ms][-1:]
        return History(
            step=1,
            queue=coarse.queue,
            topic=coarse.topic,
            since_ms=since_ms,
            at_ms=at_ms,
            counts=counts,
            leaders=before + later,
        )

    def busy_topics(self) -> tuple[str, ...]:
        """The topics that grew last, the last first; not all of them."""
        self._upto_now()
        return tuple(reversed(self._topics))[: limits.OVERVIEW_TOPICS_MAX]

    def _ring(self, queue: str | None, topic: str | None) -> _Ring | None:
        if queue is not None:
            return self._queues.get(queue)
        return self._cluster if topic is None else self._topics.get(topic)

    def _upto_now(self) -> int:
        now = int(self._monotonic())
        if now != self._second:
            self._flush(now)
        return now

    def _flush(self, now: int) -> None:
        """The second is over: put what happened in it into the rings."""
        second, self._second = self._second, now
        sums = [0] * _COUNTED
        for name, (before, after) in self._tallies.items():
            change = list(map(sub, after, before))
            counts = (*change[:6], 0)
            sums = [one + other for one, other in zip(sums, counts, strict=True)]
            self._gauges = [gauge + more for gauge, more in zip(self._gauges, change[6:], strict=True)]
            _kept(self._queues, name, second, before[6:]).put(second, counts, after[6:])
        for name, messages in self._appended.items():
            sums[-1] += messages
            _kept(self._topics, name, second, (0, 0)).put(second, (0, 0, 0, 0, 0, 0, messages), (0, 0))
        self._cluster.put(second, sums, self._gauges)
        self._tallies.clear()
        self._appended.clear()


def _kept(rings: dict[str, _Ring], name: str, second: int, gauges: Sequence[int]) -> _Ring:
    """The ring of that name, as the one that changed last; the one unchanged for longest makes room for a new one."""
    ring = rings.pop(name, None)
    if ring is None:
        ring = _Ring(second - 1, gauges)
        if len(rings) >= limits.RECORDED_SERIES_MAX:
            rings.pop(next(iter(rings)))
    rings[name] = ring
    return ring
