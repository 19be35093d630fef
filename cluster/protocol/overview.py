"""Messages that a page, or a terminal, lives on: the overview of everything, history, and what a stream of events carries.

All of it is made from counters that are kept while entries are applied, so that looking costs the same however many tasks
there are. Moments named ``…_at_ms`` are calendar time in milliseconds since 1970, in UTC. A rate is an average over
the last ``RATE_S`` seconds; one is only said by a node that has applied entries for so long.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from quorl.cluster.protocol.grammar import Inspection, Query, Reply
from quorl.cluster.protocol.queues import QueueCounts, QueueName
from quorl.cluster.protocol.system import MemberInfo
from quorl.cluster.protocol.tasks import TaskSummary
from quorl.cluster.protocol.topics import TopicName

RATE_S = 10
"""Rates are averages over so many seconds."""
BEAT_CELL_S = 10
"""One character of ``OverviewWorker.beats`` stands for so many seconds."""
LATENCY_S = 60
"""Percentiles of how long things took are of so many seconds."""
SPARK_CELL_S = 10
"""One number of a spark line stands for so many seconds."""

AlertCode = Literal[
    "no_leader",
    "no_quorum",
    "one_failure_left",
    "member_unreachable",
    "member_catching_up",
    "disk_full",
    "no_workers",
    "queue_full",
    "worker_dead",
]


# -- the overview -------------------------------------------------------------------------------------------------
class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody should look at. ``text`` is a sentence; what it is about is named beside it, or null."""

    code: AlertCode
    severity: Literal["critical", "warning"]
    text: str
    node: str | None = None
    queue: str | None = None
    worker_id: int | None = None


class OverviewTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over the cluster. ``…_s`` are per second.

    ``counts``: tasks of all queues by state. ``workers_dead`` are those that are DEAD and in whose place nobody came.
    ``failed_attempts_s`` are runs that failed or timed out, ``failed_s`` tasks that became FAILED.
    """

    counts: QueueCounts
    queues: int
    topics: int
    messages: int
    workers_alive: int
    workers_dead: int
    busy: int
    slots: int
    submitted_s: float
    started_s: float
    succeeded_s: float
    failed_attempts_s: float
    failed_s: float
    appended_s: float


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long things took lately, in milliseconds: of all that entries applied here told in the last ``LATENCY_S`` seconds.

    ``wait_…``: from when a task became QUEUED to its lease, of the ``started`` leases. ``run_…``: from the lease to the
    report, of the ``succeeded`` runs that were a success. Both are null without any. They are rounded up, by 3 % at most.
    """

    started: int
    wait_p50_ms: int | None
    wait_p99_ms: int | None
    succeeded: int
    run_p50_ms: int | None
    run_p99_ms: int | None


class Spark(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks in each ``SPARK_CELL_S`` seconds of five minutes of cluster time, the oldest first.

    They end with the last such seconds that were over when the newest entry came.
    """

    submitted: list[int]
    succeeded: list[int]
    failed_attempts: list[int]


class OverviewQueue(msgspec.Struct, frozen=True, kw_only=True):
    """A queue at a glance; what ``GetQueue`` says as well has its name there.

    ``busy`` of ``slots``: tasks that run, and as many as the workers that are ALIVE and serve the queue could run at once.
    ``drain_s``: seconds until it is empty at the rates of now; null while it does not shrink. ``spark`` is null of
    queues beyond the first ``limits.OVERVIEW_SPARKS_MAX``.
    """

    queue: str
    health: Literal["ok", "no_workers", "paused", "sealed"]
    full: bool
    paused: bool
    sealed: bool
    counts: QueueCounts
    submitted: int
    workers: int
    busy: int
    slots: int
    oldest_ms: int | None
    submitted_s: float
    succeeded_s: float
    failed_attempts_s: float
    drain_s: float | None
    spark: Spark | None


class OverviewTopic(msgspec.Struct, frozen=True, kw_only=True):
    """A topic at a glance. ``worst_lag``: unread messages of the consumer that has most; null if there are too many."""

    topic: str
    partitions: int
    messages: int
    bytes: int
    consumers: int
    worst_lag: int | None
    appended_s: float


class OverviewTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task that runs."""

    id: str
    name: str
    queue: str
    started_at_ms: int


class OverviewWorker(msgspec.Struct, frozen=True, kw_only=True):
    """A worker at a glance; what ``GetWorker`` says as well has its name there.

    ``beats``: sixty characters for the last ten minutes, the oldest first, each the number of heartbeats noted in
    ``BEAT_CELL_S`` seconds (9: so many or more); none is noted that follows closer on another than half of
    ``heartbeat_ms``. A node knows all that were noted since it started, and of those before only the last 120. ``running`` lists at most five tasks, ``leases`` counts all.
    """

    worker_id: int
    name: str
    host: str
    pid: int
    version: str
    status: Literal["ALIVE", "DEAD", "LEFT"]
    state: Literal["FREE", "BUSY"]
    quiet: bool
    standby: bool
    active: bool
    queues: list[str]
    concurrency: int
    leases: int
    heartbeat_ms: int
    dead_after_ms: int
    registered_at_ms: int
    heartbeat_at_ms: int
    ended_at_ms: int | None
    silent_ms: int
    succeeded: int
    failed: int
    lost: int
    beats: str
    running: list[OverviewTask]


class Overview(Reply, frozen=True):
    """Everything at a glance, as the answering node sees it; made once a second at most, and also without a leader.

    ``made_at_ms`` is the node's own calendar, ``as_of_at_ms`` when it last knew a leader: the same while it knows one. ``cluster_ms``
    is cluster time. ``read_only`` is null while writes are taken, else the sentence that says why not. What there is most to say of stands
    first in each list, and ``…_more`` counts what is left out.
    """

    made_at_ms: int
    as_of_at_ms: int
    cluster_ms: int
    cluster: str
    cluster_id: str | None
    node: str
    version: str
    leader: str | None
    term: int
    sequence: int
    quorum: int
    health: Literal["ok", "degraded", "no_quorum"]
    read_only: str | None
    members: list[MemberInfo]
    totals: OverviewTotals
    latency: Latency
    queues: list[OverviewQueue]
    queues_more: int
    topics: list[OverviewTopic]
    topics_more: int
    workers: list[OverviewWorker]
    workers_more: int
    alerts: list[Alert]
    alerts_more: int


class GetOverview(Inspection[Overview], frozen=True, tag="get_overview"):
    """Describe everything at a glance: members, totals, queues, topics, workers, and what somebody should look at."""


# -- history ------------------------------------------------------------------------------------------------------
class HistoryCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in each step, the oldest first.

    ``waiting`` and ``running`` are how many tasks there were at its end, or null of a queue before it changed for the first
    time in these steps. ``failed_attempts`` are runs that failed or timed out, ``lost`` those whose worker died, ``failed`` tasks that became FAILED.
    """

    submitted: list[int]
    started: list[int]
    succeeded: list[int]
    failed_attempts: list[int]
    lost: list[int]
    failed: list[int]
    appended: list[int]
    waiting: list[int | None]
    running: list[int | None]


class LeaderMark(msgspec.Struct, frozen=True, kw_only=True):
    """From then on this node led, in that term."""

    at_ms: int
    term: int
    node: str


class History(Reply, frozen=True):
    """What happened in the last two hours (``step`` 10), or in the last ten minutes as this node saw it (``step`` 1).

    Step n ended at ``at_ms[n]``; none is there from before ``since_ms``, and none that is not over. ``step`` 10 is replicated:
    the same at every node, also after a restart. Its steps are over once an entry of a later one comes, so while nobody says
    anything it stands still. ``step`` 1 begins when the node started. ``leaders``: who led since when,
    from the one that led at ``since_ms`` on.
    """

    step: int
    queue: str | None
    topic: str | None
    since_ms: int
    at_ms: list[int]
    counts: HistoryCounts
    leaders: list[LeaderMark]


class GetHistory(Query[History], frozen=True, tag="get_history"):
    """Tell what happened when: of the whole cluster, of one queue, or of one topic."""

    step: Literal[1, 10] = 10
    queue: QueueName | None = None
    topic: TopicName | None = None


# -- the stream ---------------------------------------------------------------------------------------------------
Channel = Literal["overview", "tasks", "topics"]


class TasksFrame(msgspec.Struct, frozen=True, kw_only=True):
    """Tasks that changed since the last such frame, each as it is now.

    ``gone`` were forgotten; ``more`` says how many others changed that are not told of, about.
    """

    items: list[TaskSummary]
    gone: list[str]
    more: int


class TopicsFrame(msgspec.Struct, frozen=True, kw_only=True):
    """Where partitions end now that have grown since the last such frame; ``more`` counts topics that are left out."""

    ends: dict[str, dict[int, int]]
    more: int


class ResetFrame(msgspec.Struct, frozen=True, kw_only=True):
    """Something was missed: everything on these channels must be fetched anew."""

    channels: list[Channel]
    why: str


class ByeFrame(msgspec.Struct, frozen=True, kw_only=True):
    """The node stops; ``nodes`` are the HTTP addresses of the others, those that are connected first."""

    node: str
    nodes: list[str]
