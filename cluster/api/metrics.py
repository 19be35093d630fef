"""``/metrics``: what the node counts and what the state holds, as Prometheus reads it. Nothing is done before somebody scrapes.

What comes from the replicated state (tasks, topics, consumers, workers) is the same at every node that has applied as much,
so it is to be aggregated with ``max``; what a node counts of its own doings is to be summed. The names are described in
docs/operating.md.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import override

from quorl.cluster.api.metered import LoopLag
from quorl.cluster.consensus.port import Role
from quorl.cluster.machine.metric_queries import GetMetrics, Metrics, QueueMetrics
from quorl.cluster.node.meters import Histogram
from quorl.cluster.node.node import Node
from quorl.cluster.protocol.system import ClusterInfo, GetCluster
from quorl.cluster.protocol.wire import Answer, Call

_SAME_S = 1.0
"""Who asks again sooner gets the same text: making it reads counters of every queue and topic."""


class Exposition:
    """Answers ``/metrics``."""

    def __init__(self, node: Node, version: str, free_bytes: Callable[[], int], lag: LoopLag) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Node(node, version, free_bytes, lag))
        self._registry.register(_State(node))
        ProcessCollector(registry=self._registry)
        self._made: dict[str, tuple[float, bytes]] = {}
        """By content type: when, and what."""

    def answer(self, call: Call) -> Answer:
        """All metrics, in the text format of Prometheus or, if that is asked for, of OpenMetrics."""
        encode, content_type = choose_encoder(call.headers.get("accept", ""))
        at_s, text = self._made.get(content_type, (0.0, b""))
        if not text or time.monotonic() - at_s >= _SAME_S:  # who asks more often learns nothing new, at no cost
            text = encode(self._registry)
            self._made[content_type] = (time.monotonic(), text)
        return Answer(200, {"content-type": content_type, "cache-control": "no-store"}, text)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(name, text, value)


def _histogram(name: str, text: str, histogram: Histogram) -> Metric:
    return HistogramMetricFamily(name, text, buckets=histogram.cumulated(), sum_value=histogram.sum_s)


class _Node(Collector):
    """What this node does and sees."""

    def __init__(self, node: Node, version: str, free_bytes: Callable[[], int], lag: LoopLag) -> None:
        self._node = node
        self._version = version
        self._free_bytes = free_bytes
        self._lag = lag

    @override
    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        info = self._node.inspect(GetCluster())
        assert isinstance(info, ClusterInfo)
        about = {"version": self._version, "node": info.node, "cluster": info.name, "python": platform.python_version()}
        yield InfoMetricFamily("quorl_build", "The release, and who runs it.", value=about)
        yield from self._raft(info)
        yield from self._members(info)
        yield from self._disk()
        yield from self._calls()
        yield _gauge(
            "quorl_event_loop_lag_seconds", "The worst delay of the loop since the last scrape.", self._lag.take()
        )

    def _raft(self, info: ClusterInfo) -> Iterator[Metric]:
        node, meters = self._node, self._node.meters
        status = node.replica.status()
        yield _gauge("quorl_raft_has_leader", "1 if this node knows a leader that serves.", info.leader is not None)
        leads = status.role is Role.LEADER
        yield _gauge("quorl_raft_is_leader", "1 if this node leads.", leads)
        yield _gauge("quorl_raft_term", "The term that this node is in.", status.term)
        yield _counter("quorl_raft_leader_changes", "Leaders that this node saw come.", meters.leader_changes)
        yield _gauge("quorl_raft_commit_index", "The last entry that is known to be committed.", status.commit_index)
        yield _gauge("quorl_raft_applied_index", "The last entry that is applied here.", status.applied_index)
        yield _gauge("quorl_raft_first_index", "The oldest entry that the log still holds.", status.first_index)
        yield _gauge("quorl_raft_last_index", "The newest entry in the log, committed or not.", status.last_index)
        yield _counter("quorl_raft_proposals", "Entries that this node proposed as the leader.", meters.entries)
        yield _counter("quorl_raft_proposals_failed", "Those that it did not see committed.", meters.entries_failed)
        yield _counter("quorl_raft_commands", "Commands in the entries that were committed.", meters.commands)
        pending = node.commands_pending
        yield _gauge("quorl_raft_commands_pending", "Commands that wait at this node for the next entry.", pending)
        text = "From the proposal of an entry to its application at the leader."
        yield _histogram("quorl_raft_commit_duration_seconds", text, meters.entry_s)

    def _members(self, info: ClusterInfo) -> Iterator[Metric]:
        lags = GaugeMetricFamily(
            "quorl_raft_follower_lag_entries", "Entries that a member has not applied.", labels=["member"]
        )
        states = GaugeMetricFamily("quorl_member_up", "1 if this node reaches the member.", labels=["member"])
        for member in info.members:
            states.add_metric([member.name], member.state != "unreachable")
            if member.lag is not None:
                lags.add_metric([member.name], member.lag)
        yield states
        yield lags
        counting = sum(member.state == "ok" for member in info.members)
        left = max(0, counting - info.quorum)
        yield _gauge("quorl_member_failures_left", "Members that may fail before writes stop.", left)

    def _disk(self) -> Iterator[Metric]:
        meters = self._node.meters
        yield _histogram("quorl_fsync_duration_seconds", "One flush of the log to the disk.", meters.fsync_s)
        yield _histogram("quorl_checkpoint_duration_seconds", "One checkpoint of the state.", meters.checkpoint_s)
        yield _counter("quorl_snapshots_installed", "Snapshots that this node was caught up with.", meters.snapshots)
        yield _counter(
            "quorl_snapshots_failed", "Snapshots that could not be pulled or installed.", meters.snapshots_failed
        )
        yield _gauge("quorl_snapshot_bytes", "The size of the last one that was installed.", meters.snapshot_bytes)
        yield _gauge("quorl_log_bytes", "The size of the log on the disk.", self._node.replica.log_bytes)
        yield _gauge("quorl_disk_free_bytes", "What is left on the disk of the data directory.", self._free_bytes())

    def _calls(self) -> Iterator[Metric]:
        meters, gateway = self._node.meters, self._node.gateway
        calls = CounterMetricFamily("quorl_http_requests", "Calls that were answered.", labels=["operation", "code"])
        for (operation, status), count in sorted(meters.calls.items()):
            calls.add_metric([operation, str(status)], count)
        yield calls
        text = "How long an answer took, of calls that did not ask to wait."
        took = HistogramMetricFamily("quorl_http_request_duration_seconds", text, labels=["operation"])
        for operation, histogram in sorted(meters.call_s.items()):
            took.add_metric([operation], buckets=histogram.cumulated(), sum_value=histogram.sum_s)
        yield took
        yield _gauge("quorl_http_requests_running", "Calls that are being answered.", gateway.running)
        yield _counter("quorl_http_forwarded", "Calls to the leader on behalf of callers here.", gateway.leading.asked)
        text = "Calls that were told to come again later, or with less, by the problem's code."
        turned = CounterMetricFamily("quorl_backpressure", text, labels=["reason"])
        for reason, count in sorted(meters.turned_away.items()):
            turned.add_metric([reason], count)
        yield turned


class _State(Collector):
    """What the replicated state holds, as applied here; nothing while a snapshot is put in its place."""

    def __init__(self, node: Node) -> None:
        self._node = node

    @override
    def collect(self) -> Iterator[Metric]:
        """See ``Collector``."""
        node, meters = self._node, self._node.meters
        readable = node.readable
        yield _gauge("quorl_state_readable", "0 while a snapshot is put in the place of the state.", readable)
        if not readable:
            return
        state = node.looking.ask(GetMetrics())
        assert isinstance(state, Metrics)
        yield _gauge("quorl_sequence", "Entries that the state has applied.", node.sequence())
        yield from _topics(state)
        yield from _queues(state.queues)
        text = "How long tasks were QUEUED before they were started."
        yield _histogram("quorl_task_wait_seconds", text, meters.wait_s)
        yield _histogram("quorl_task_run_seconds", "How long runs took that were a SUCCESS.", meters.run_s)
        yield _counter("quorl_task_fenced", "Reports that came too late, and changed nothing.", meters.leases_lost)
        workers = GaugeMetricFamily("quorl_workers", "Workers; DEAD: those that nobody came for.", labels=["status"])
        workers.add_metric(["ALIVE"], state.workers_alive)
        workers.add_metric(["DEAD"], state.workers_dead)
        yield workers
        yield _gauge("quorl_leases", "Tasks that workers hold.", state.busy)
        text = "Queues, topics and consumers that have no metrics of their own here, because there are too many."
        left_out = GaugeMetricFamily("quorl_metrics_left_out", text, labels=["kind"])
        for kind, count in state.left_out.items():
            left_out.add_metric([kind], count)
        yield left_out


def _topics(state: Metrics) -> Iterator[Metric]:
    messages = GaugeMetricFamily("quorl_topic_messages", "Messages that a topic holds.", labels=["topic"])
    size = GaugeMetricFamily("quorl_topic_bytes", "The size of these messages.", labels=["topic"])
    published = CounterMetricFamily("quorl_topic_published", "Messages that ever came.", labels=["topic"])
    for topic in state.topics:
        messages.add_metric([topic.name], topic.messages)
        size.add_metric([topic.name], topic.size_bytes)
        published.add_metric([topic.name], topic.messages)  # nothing is removed but with its topic
    lag = GaugeMetricFamily("quorl_consumer_lag_messages", "Messages not read yet.", labels=["topic", "consumer"])
    for consumer in state.consumers:
        lag.add_metric([consumer.topic, str(consumer.consumer_id)], consumer.lag)
    yield from (messages, size, published, lag)


def _queues(queues: list[QueueMetrics]) -> Iterator[Metric]:
    def per_queue(name: str, text: str, value: Callable[[QueueMetrics], float | None]) -> Metric:
        family = GaugeMetricFamily(name, text, labels=["queue"])
        for queue in queues:
            if (found := value(queue)) is not None:
                family.add_metric([queue.name], found)
        return family

    tasks = GaugeMetricFamily(
        "quorl_tasks", "Tasks by state; finished ones until forgotten.", labels=["queue", "state"]
    )
    submitted = CounterMetricFamily("quorl_tasks_submitted", "Tasks that ever came.", labels=["queue"])
    failed = CounterMetricFamily("quorl_tasks_failed", "Tasks that became FAILED.", labels=["queue"])
    runs = CounterMetricFamily("quorl_task_runs", "Runs that ended, and how.", labels=["queue", "outcome"])
    started = CounterMetricFamily("quorl_task_runs_started", "Leases that were granted.", labels=["queue"])
    for queue in queues:
        for status, count in queue.counts.items():
            tasks.add_metric([queue.name, status.upper()], count)
        submitted.add_metric([queue.name], queue.totals.submitted)
        failed.add_metric([queue.name], queue.totals.failed)
        started.add_metric([queue.name], queue.totals.started)
        runs.add_metric([queue.name, "success"], queue.totals.succeeded)
        runs.add_metric([queue.name, "failed"], queue.totals.failed_attempts)
        runs.add_metric([queue.name, "lost"], queue.totals.lost)
    yield from (tasks, submitted, failed, started, runs)
    text = "How long the first task that could be started has waited, in cluster time."
    yield per_queue("quorl_task_oldest_age_seconds", text, lambda queue: (queue.oldest_ms or 0) / 1000)
    yield per_queue("quorl_queue_workers", "Workers ALIVE that serve it.", lambda queue: queue.workers)
    yield per_queue("quorl_queue_paused", "1 if it is paused.", lambda queue: queue.paused)
    yield per_queue("quorl_queue_depth_limit", "Its max_depth, if it has one.", lambda queue: queue.max_depth or None)
