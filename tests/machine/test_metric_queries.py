"""What the metrics are made from: counters of rows, bounded, and the oldest first."""

from __future__ import annotations

import pytest

from quorl.cluster.machine import events as e
from quorl.cluster.machine.metric_queries import GetMetrics, Metrics
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import topics as t
from tests.machine.desk import Desk, seal
from tests.machine.rig import Rig, message


def test_an_empty_state_has_no_series() -> None:
    found = Rig().ask(GetMetrics(), Metrics)
    assert (found.queues, found.topics, found.consumers, found.workers_alive, found.busy) == ([], [], [], 0, 0)
    assert found.left_out == {"queues": 0, "topics": 0, "consumers": 0}


def test_topics_tell_their_messages_and_consumers_their_lag() -> None:
    rig = Rig()
    rig.do(t.CreateTopic(name="invoices", partitions=2), t.TopicCreated)
    rig.do(t.RegisterConsumer(topic="invoices"), t.ConsumerInfo)
    for number in range(5):
        rig.append("invoices", message(number))
    rig.consume("invoices", 1, 2)
    found = rig.ask(GetMetrics(), Metrics)
    assert [(topic.name, topic.messages) for topic in found.topics] == [("invoices", 5)]
    assert found.topics[0].size_bytes > 0
    assert found.consumers == [("invoices", 1, 3)]


@pytest.mark.parametrize("kind", ["queues", "topics", "consumers"])
def test_no_more_are_told_than_the_bound(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "METRIC_SERIES_MAX", 2)
    rig = Rig()
    for name in ("c", "b", "a"):
        rig.do(q.SetQueue(queue=name), q.QueueInfo)
        rig.do(t.CreateTopic(name=name), t.TopicCreated)
        rig.do(t.RegisterConsumer(topic=name), t.ConsumerInfo)
    found = rig.ask(GetMetrics(), Metrics)
    assert [one[0] for one in getattr(found, kind)] == ["c", "b"]  # the oldest, whatever their names
    assert found.left_out[kind] == 1


def test_queues_tell_states_totals_and_who_serves_them() -> None:
    desk = Desk()
    worker = desk.enrol("w")
    for _ in range(3):
        desk.submit()
    desk.now_ms += 2500
    desk.wall_ms += 2500
    (lease,) = desk.claim(worker)
    desk.wall_ms += 40
    desk.complete(lease)
    (queue,) = desk.ask(GetMetrics(), Metrics).queues
    assert (queue.name, queue.workers, queue.oldest_ms, queue.paused, queue.max_depth) == ("q", 1, 2500, False, 0)
    assert (queue.counts["queued"], queue.counts["success"]) == (2, 1)
    assert queue.totals == (3, 1, 1, 0, 0, 0)


def test_starts_ends_and_late_reports_are_told() -> None:
    desk = Desk()
    worker = desk.enrol("w")
    task_id = desk.submit()
    desk.now_ms += 700
    desk.wall_ms += 700
    applied = desk.apply(seal(c.Claim(worker_id=worker, queues=("q",), max=5)))
    assert [event for event in applied.events if isinstance(event, e.TasksStarted)] == [e.TasksStarted((700,))]
    desk.wall_ms += 40
    report = c.CompleteTask(id=task_id, lease=desk.sql("SELECT token FROM tasks")[0][0]).sealed()
    assert e.RunsSucceeded((40,)) in desk.apply(seal(report)).events
    assert e.LeaseLost() in desk.apply(seal(report)).events
