"""A look over everything, and history as it is asked for: what is said is what the rows say, and bounded."""

from __future__ import annotations

import pytest

from quorl.cluster.machine.history_queries import SPARK_STEPS
from quorl.cluster.machine.overview_queries import Gauges, GetGauges, GetSparks, LookOver, Seen, Served, Sparks
from quorl.cluster.machine.task_lists import Briefs, GetBriefs
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import overview as o
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import topics as t
from tests.machine.desk import Desk, new
from tests.machine.rig import START_MS, message


def look(desk: Desk, *topics: str) -> Seen:
    return desk.ask(LookOver(wall_ms=desk.wall_ms, topics=topics), Seen)


# -- looking over everything -------------------------------------------------------------------------------------
def test_queues_come_with_who_serves_them_and_those_with_work_first() -> None:
    desk = Desk()
    desk.put("idle")
    desk.submit("busy")
    desk.after(500)
    desk.enrol("w1", "busy", "other", concurrency=4)
    desk.enrol("w2", "busy", concurrency=2)
    desk.submit("gone", id="x")
    desk.cancel("x")
    desk.entry(q.DeleteQueue(queue="gone"))
    seen = look(desk)
    assert [one.row.name for one in seen.queues] == ["busy", "idle"]
    assert [one.served for one in seen.queues] == [Served(2, 6), Served(0, 0)]
    assert [one.oldest_ms for one in seen.queues] == [500, None]
    assert (seen.queue_count, seen.counts.queued, seen.counts.cancelled) == (2, 1, 0)
    assert (seen.alive, seen.busy, seen.slots, seen.dead) == (2, 0, 6, 0)


def test_a_worker_that_died_comes_first_and_its_beats_show_when_it_was_heard() -> None:
    desk = Desk()
    one = desk.enrol("w1", "q", heartbeat_ms=1_000, dead_after_ms=10_000, concurrency=2)
    desk.run(one)
    other = desk.enrol("w2", "q", heartbeat_ms=1_000, dead_after_ms=3_600_000)
    for _ in range(12):
        desk.after(1_000)
    seen = look(desk)
    assert [(worker.name, worker.status, worker.state) for worker in seen.workers] == [
        ("w1", "DEAD", "FREE"),
        ("w2", "ALIVE", "FREE"),
    ]
    first = seen.workers[0]
    assert (first.lost, first.silent_ms, first.ended_at_ms, first.active) == (1, 12_000, START_MS + 10_000, False)
    assert (first.beats[-2:], len(first.beats), set(first.beats[:-2])) == ("10", 60, {"0"})
    assert (seen.alive, seen.dead) == (1, 1)
    desk.submit("q", id="runs")
    (lease,) = desk.claim(other)
    worker = look(desk).workers[1]
    assert [(task.id, task.started_at_ms) for task in worker.running] == [(desk.id_of(1), desk.wall_ms)]
    assert lease.id == desk.id_of(1)


def test_topics_that_are_named_come_first_and_how_far_behind_the_worst_is(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    for name in ("a", "b", "c"):
        desk.entry(t.CreateTopic(name=name, partitions=2))
    desk.append("c", message(1), message(2, key="k"), message(3, key="k"))
    desk.entry(t.RegisterConsumer(topic="c"), t.RegisterConsumer(topic="c", start="latest"))
    monkeypatch.setattr(limits, "OVERVIEW_TOPICS_MAX", 2)
    seen = look(desk, "c", "unheard")
    assert [(topic.name, topic.messages, topic.consumers, topic.worst_lag) for topic in seen.topics] == [
        ("c", 3, 2, 3),
        ("a", 0, 0, 0),
    ]
    assert seen.topic_count == 3
    for _ in range(500):
        desk.entry(t.RegisterConsumer(topic="c"))
    assert look(desk, "c").topics[0].worst_lag is None
    assert desk.ask(GetGauges(), Gauges).messages == 3
    desk.entry(t.DeleteTopic(topic="c"))
    assert desk.ask(GetGauges(), Gauges).messages == 0


def test_what_waits_and_runs_in_all() -> None:
    desk = Desk()
    worker = desk.enrol("w", "q")
    desk.run(worker)
    desk.submit("q")
    desk.submit("r", delay_ms=5)
    found = desk.ask(GetGauges(), Gauges)
    assert (found.waiting, found.running) == (2, 1)


def test_some_tasks_as_lists_show_them_and_which_are_gone() -> None:
    desk = Desk()
    desk.submit("q", id="a")
    desk.submit("q", id="b")
    found = desk.ask(GetBriefs(ids=("b", "z", "a")), Briefs)
    assert ([task.id for task in found.items], found.gone) == (["b", "a"], ["z"])


def test_no_look_over_everything_looks_through_all_tasks() -> None:
    desk = Desk()
    desk.submit("q")
    seen: list[str] = []
    desk.connection.set_trace_callback(seen.append)
    look(desk)
    desk.ask(GetSparks(queues=("q",)), Sparks)
    desk.connection.set_trace_callback(None)
    plans = [row[3] for text in seen if text.startswith("SELECT") for row in desk.sql(f"EXPLAIN QUERY PLAN {text}")]
    assert plans
    assert not [plan for plan in plans if plan.startswith(("SCAN tasks", "SCAN t "))]


# -- history -----------------------------------------------------------------------------------------------------
def history(desk: Desk, **which: str) -> o.History:
    return desk.ask(o.GetHistory(**which), o.History)  # type: ignore[arg-type]


def test_history_is_told_step_by_step_without_gaps() -> None:
    desk = Desk()
    desk.after(5_000, s.Submit(queue="q", tasks=[new(), new()]))
    desk.after(10_000, t.CreateTopic(name="t"), t.Append(topic="t", messages=[message(1)]))
    desk.after(40_000, s.Submit(queue="q", tasks=[new()]))
    desk.after(10_000)
    found = history(desk)
    assert [at_ms - START_MS for at_ms in found.at_ms] == [10_000, 20_000, 30_000, 40_000, 50_000, 60_000]
    assert (found.since_ms, found.step) == (START_MS, 10)
    assert found.counts.submitted == [2, 0, 0, 0, 0, 1]
    assert found.counts.appended == [0, 1, 0, 0, 0, 0]
    assert found.counts.waiting == [2, 2, 2, 2, 2, 3]
    assert history(desk, queue="q").counts.submitted == [2, 0, 0, 0, 0, 1]
    assert history(desk, topic="t").counts.appended == [0, 1, 0, 0, 0, 0]


def test_how_much_waited_before_a_queue_changed_is_not_known() -> None:
    desk = Desk()
    desk.after(5_000, q.PutQueue(queue="q"))
    desk.after(10_000, s.Submit(queue="q", tasks=[new()]))
    desk.after(10_000)
    assert history(desk, queue="q").counts.waiting == [None, 1]
    assert history(desk).counts.waiting == [0, 1]


def test_a_calendar_that_was_set_back_leaves_no_step_before_another() -> None:
    desk = Desk()
    desk.after(9_000)
    for _ in range(3):  # the next leader's calendar is behind
        desk.now_ms += 10_000
        desk.entry()
    at_ms = history(desk).at_ms
    assert at_ms == sorted(set(at_ms))
    assert len(at_ms) == 3


def test_a_young_cluster_has_no_history_and_what_is_unheard_of_is_refused() -> None:
    desk = Desk()
    desk.after(1)
    found = history(desk)
    assert (found.at_ms, found.since_ms, found.counts.submitted) == ([], START_MS + 1, [])
    desk.put("emails")
    desk.entry(t.CreateTopic(name="orders"))
    refused = desk.machine.query(o.GetHistory(queue="emials"))
    assert isinstance(refused, q.QueueNotFound)
    refused = desk.machine.query(o.GetHistory(topic="ordesr"))
    assert isinstance(refused, t.TopicNotFound)
    assert 'Did you mean "orders"?' in refused.detail


def test_leaders_are_marks_from_the_one_before_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TICKS_KEPT", 2)
    desk = Desk()
    for term in range(1, 6):
        desk.term, desk.node = term, f"n{term}"
        desk.after(10_000)
    found = history(desk)
    assert [(mark.term, mark.node) for mark in found.leaders] == [(3, "n3"), (4, "n4"), (5, "n5")]
    assert found.leaders[0].at_ms <= found.since_ms < found.leaders[1].at_ms


def test_a_spark_has_thirty_numbers_from_the_first_minute_on() -> None:
    desk = Desk()
    desk.submit("q")
    desk.after(10_000)
    found = desk.ask(GetSparks(queues=("q", "unheard")), Sparks).sparks
    assert list(found) == ["q"]
    assert found["q"].submitted == [0] * (SPARK_STEPS - 1) + [1]
