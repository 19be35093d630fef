"""The overview of everything that a node makes once a second while somebody looks: what it saw, in one encoded piece.

Invariants: nothing is computed while nobody asks. Whoever asks within the same period gets the same bytes. The period is a
second, and longer where making it takes longer: no more than ``SHARE`` of the loop's time goes into it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import msgspec

from quorl.cluster.consensus.port import Clock
from quorl.cluster.machine.overview_queries import GetSparks, LookOver, Seen, SeenQueue, SeenTopic, Sparks
from quorl.cluster.machine.queue_queries import health
from quorl.cluster.machine.samples import STEP_MS
from quorl.cluster.node.lately import Durations, Timelines
from quorl.cluster.node.recorder import Recorder
from quorl.cluster.node.visit import Declined
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol.grammar import Query, Rejection, Reply
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.queues import QueueCounts
from quorl.cluster.protocol.system import ClusterInfo, MemberInfo

PERIOD_S = 1.0
"""As often as people can read numbers; the charts have a point for each second."""
SHARE = 0.02
"""Of the loop's time, at most, that goes into it."""
_URGENT = {"no_workers": 0, "paused": 1, "sealed": 2, "ok": 2}

_encode = msgspec.json.Encoder().encode


class NodeView(NamedTuple):
    """What the node itself knows at this moment."""

    cluster: ClusterInfo
    version: str
    read_only: str | None
    """Why no writes are taken, if so."""
    as_of_ms: int
    """When it last knew a leader, by its own calendar."""
    messages: int
    disk_full: bool


class Past(NamedTuple):
    """What the node remembers of what it applied."""

    recorder: Recorder
    durations: Durations
    timelines: Timelines


class Material(Protocol):
    """What an overview is made of."""

    def view(self) -> NodeView:
        """What the node knows now."""

    def ask(self, request: Query[Any]) -> Reply | Rejection:
        """Read the state."""

    def readable(self) -> bool:
        """Whether there is a state to read: not while a snapshot is put in its place."""


class Overviews:
    """Makes overviews, and keeps the last one."""

    def __init__(
        self, material: Material, past: Past, clock: Clock, *, cost: Callable[[], float] = time.thread_time
    ) -> None:
        self._material = material
        self._recorder, self._durations, self._timelines = past
        self._clock = clock
        self._cost = cost
        self._last: tuple[float, o.Overview, bytes] | None = None
        self.period_s = PERIOD_S
        self._sparks: dict[str, o.Spark] = {}
        self._sparks_of: tuple[int, frozenset[str]] = (-1, frozenset())

    def encoded(self) -> bytes:
        """The JSON of the overview of now, or of one made so lately that it is the same.

        While a snapshot is put in place it is the last one; raises ``Declined`` if there is none.
        """
        return self._current()[2]

    def latest(self) -> o.Overview:
        """The overview itself."""
        return self._current()[1]

    def _current(self) -> tuple[float, o.Overview, bytes]:
        now = self._clock.monotonic()
        if not self._material.readable():
            if self._last is None:
                raise Declined(Problem("not_ready", "A snapshot is being put in the place of the state."))
            return self._last
        if self._last is None or now - self._last[0] >= 0.95 * self.period_s:
            began = self._cost()
            overview = self._make()
            self._last = (now, overview, _encode(overview))
            self.period_s = max(PERIOD_S, (self._cost() - began) / SHARE)
        return self._last

    def _make(self) -> o.Overview:
        view, wall_ms = self._material.view(), self._clock.wall_ms()
        seen = self._material.ask(LookOver(wall_ms=wall_ms, topics=self._recorder.busy_topics()))
        assert isinstance(seen, Seen)
        info = view.cluster
        queues = self._queues(seen)
        topics = [self._topic(topic) for topic in seen.topics]
        alerts = [*_of_cluster(view, wall_ms), *_of_queues(queues), *_of_workers(seen, wall_ms)]
        alerts.sort(key=lambda alert: alert.severity)
        return o.Overview(
            made_at_ms=wall_ms,
            as_of_at_ms=view.as_of_ms,
            cluster_ms=seen.now_ms,
            cluster=info.name,
            cluster_id=info.cluster_id,
            node=info.node,
            version=view.version,
            leader=info.leader,
            term=info.term,
            sequence=info.sequence,
            quorum=info.quorum,
            health=info.health,
            read_only=view.read_only,
            members=info.members,
            totals=self._totals(seen, view),
            latency=self._durations.latency(),
            queues=queues,
            queues_more=seen.queue_count - len(queues),
            topics=topics,
            topics_more=seen.topic_count - len(topics),
            workers=[self._worker(worker, wall_ms) for worker in seen.workers],
            workers_more=seen.alive + seen.dead - len(seen.workers),
            alerts=alerts[: limits.OVERVIEW_ALERTS_MAX],
            alerts_more=max(0, len(alerts) - limits.OVERVIEW_ALERTS_MAX),
        )

    def _totals(self, seen: Seen, view: NodeView) -> o.OverviewTotals:
        rates = self._recorder.rates()
        return o.OverviewTotals(
            counts=seen.counts,
            queues=seen.queue_count,
            topics=seen.topic_count,
            messages=view.messages,
            workers_alive=seen.alive,
            workers_dead=seen.dead,
            busy=seen.busy,
            slots=seen.slots,
            submitted_s=_rounded(rates.submitted),
            started_s=_rounded(rates.started),
            succeeded_s=_rounded(rates.succeeded),
            failed_attempts_s=_rounded(rates.failed_attempts),
            failed_s=_rounded(rates.failed),
            appended_s=_rounded(rates.appended),
        )

    # -- queues and topics -----------------------------------------------------------------------------------------
    def _queues(self, seen: Seen) -> list[o.OverviewQueue]:
        """Those that somebody should look at first, then those in which there is most to do."""
        ordered = sorted(seen.queues, key=lambda one: _URGENT[health(one.row, one.served.workers)])
        self._renew_sparks(seen, [one.row.name for one in ordered[: limits.OVERVIEW_SPARKS_MAX]])
        return [self._queue(one) for one in ordered]

    def _queue(self, seen: SeenQueue) -> o.OverviewQueue:
        row, rates = seen.row, self._recorder.rates(queue=seen.row.name)
        waiting = row.scheduled + row.queued + row.retry
        shrinking = rates.succeeded + rates.failed - rates.submitted
        return o.OverviewQueue(
            queue=row.name,
            health=health(row, seen.served.workers),
            full=bool(row.max_depth) and waiting >= row.max_depth,
            paused=bool(row.paused),
            sealed=bool(row.sealed),
            counts=QueueCounts(**{state: getattr(row, state) for state in QueueCounts.__struct_fields__}),
            submitted=row.submitted,
            workers=seen.served.workers,
            busy=row.processing,
            slots=seen.served.slots,
            oldest_ms=seen.oldest_ms,
            submitted_s=_rounded(rates.submitted),
            succeeded_s=_rounded(rates.succeeded),
            failed_attempts_s=_rounded(rates.failed_attempts),
            drain_s=round(waiting / shrinking, 1) if waiting and shrinking > 0 else None,
            spark=self._sparks.get(row.name),
        )

    def _renew_sparks(self, seen: Seen, names: list[str]) -> None:
        """Read the sparks of those queues, unless no ten seconds are over since that was done."""
        wanted = (seen.now_ms // STEP_MS, frozenset(names))
        if wanted != self._sparks_of:
            found = self._material.ask(GetSparks(queues=tuple(names)))
            assert isinstance(found, Sparks)
            self._sparks, self._sparks_of = found.sparks, wanted

    def _worker(self, seen: o.OverviewWorker, wall_ms: int) -> o.OverviewWorker:
        beats = self._timelines.beats(seen.worker_id, seen.beats, wall_ms)
        return seen if beats == seen.beats else msgspec.structs.replace(seen, beats=beats)

    def _topic(self, seen: SeenTopic) -> o.OverviewTopic:
        return o.OverviewTopic(
            topic=seen.name,
            partitions=seen.partitions,
            messages=seen.messages,
            bytes=seen.size_bytes,
            consumers=seen.consumers,
            worst_lag=seen.worst_lag,
            appended_s=_rounded(self._recorder.rates(topic=seen.name).appended),
        )


def _rounded(rate: float) -> float:
    return round(rate, 2)


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


# -- alerts --------------------------------------------------------------------------------------------------------
def _of_cluster(view: NodeView, wall_ms: int) -> Iterator[o.Alert]:
    info = view.cluster
    if view.read_only is not None:
        code: o.AlertCode = "no_quorum" if info.health == "no_quorum" else "no_leader"
        old = f"; what {info.node} shows is {_span(wall_ms - view.as_of_ms)} old" if info.leader is None else ""
        text = f"{view.read_only} Writes are refused{old}."
        yield o.Alert(code=code, severity="critical", text=text, node=info.node)
    away = [member for member in info.members if member.state == "unreachable"]
    good = sum(member.state == "ok" for member in info.members)
    if info.leader is not None and good == info.quorum and len(info.members) > 1:
        names = ", ".join(member.name for member in info.members if member.state != "ok")
        text = f"{names} cannot help: one more failure stops writes."
        yield o.Alert(code="one_failure_left", severity="critical", text=text)
    for member in away:
        yield o.Alert(code="member_unreachable", severity="warning", text=_away(member), node=member.name)
    for member in info.members:
        if member.state == "catching_up":
            behind = "" if member.lag is None else f", {_counted(member.lag, 'entry', 'entries')} behind"
            text = f"{member.name} is catching up{behind}."
            yield o.Alert(code="member_catching_up", severity="warning", text=text, node=member.name)
        elif member.state == "disk_full" and member.name != info.node:
            yield o.Alert(code="disk_full", severity="critical", text=_FULL.format(member.name), node=member.name)
    if view.disk_full:
        yield o.Alert(code="disk_full", severity="critical", text=_FULL.format(info.node), node=info.node)


_FULL = "The disk of {} is too full: it takes nothing new into its log."


def _away(member: MemberInfo) -> str:
    seen = (
        "it was not heard since this node started"
        if member.seen_ms_ago is None
        else (f"it was heard {_span(member.seen_ms_ago)} ago")
    )
    return f"{member.name} cannot be reached; {seen}."


def _span(span_ms: int) -> str:
    """A span of time in whole units, of which there are two at least."""
    seconds = max(0, span_ms) // 1000
    for unit_s, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit_s:
            return f"{seconds // unit_s} {unit}"
    return f"{seconds} s"


def _of_queues(queues: list[o.OverviewQueue]) -> Iterator[o.Alert]:
    for queue in queues:
        counts = queue.counts
        waiting = counts.scheduled + counts.queued + counts.retry
        wait = _counted(waiting, "task waits", "tasks wait")
        if queue.health == "no_workers":
            since = "" if queue.oldest_ms is None else f"; the first has waited for {_span(queue.oldest_ms)}"
            text = f"{queue.queue}: {wait} and no worker serves it{since}."
            yield o.Alert(code="no_workers", severity="critical", text=text, queue=queue.queue)
        if queue.full:
            text = f"{queue.queue} is full: {wait}, and new ones are refused."
            yield o.Alert(code="queue_full", severity="warning", text=text, queue=queue.queue)


def _of_workers(seen: Seen, wall_ms: int) -> Iterator[o.Alert]:
    for worker in seen.workers:
        if worker.status == "DEAD":
            dead = _span(wall_ms - (worker.ended_at_ms or wall_ms))
            lost = _counted(worker.lost, "run", "runs")
            text = f"{worker.name} has been DEAD for {dead}, and nobody came in its place; it lost {lost}."
            yield o.Alert(code="worker_dead", severity="warning", text=text, worker_id=worker.worker_id)
