"""Waking: everything that happened wakes who waits for it, and nothing is remembered for ever."""

from __future__ import annotations

import asyncio

import pytest

from quorl.cluster.machine.events import (
    Appended,
    CommandSpoiled,
    Event,
    QueueReady,
    TasksChanged,
    TopicCreated,
    TopicDeleted,
    WorkerChanged,
)
from quorl.cluster.node import watch as w
from quorl.cluster.node.subjects import Subject
from quorl.cluster.protocol import limits

NEVER = 1e9


@pytest.fixture
async def watch() -> w.Watch:
    return w.Watch(asyncio.get_running_loop().time)


async def begun(*tasks: asyncio.Task[bool]) -> None:
    """Let tasks get to where they wait."""
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_who_waits_for_a_sequence_is_woken_by_it_and_not_before(watch: w.Watch) -> None:
    tasks = [asyncio.ensure_future(watch.wait_applied(sequence, NEVER)) for sequence in (2, 1, 2)]
    await begun(*tasks)
    watch.applied(1, [])
    assert await tasks[1]
    await begun(tasks[0], tasks[2])
    watch.applied(2, [])
    assert [await task for task in tasks] == [True, True, True]
    assert await watch.wait_applied(2, NEVER)


def waited(watch: w.Watch) -> bool:
    return watch.waited


async def test_it_is_known_whether_anybody_waits(watch: w.Watch) -> None:
    assert not waited(watch)
    task = asyncio.ensure_future(watch.wait_applied(1, NEVER))
    await begun(task)
    assert waited(watch)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not waited(watch)
    news = asyncio.ensure_future(watch.wait_news(Subject("topic", "t"), 0, NEVER))
    await begun(news)
    assert waited(watch)
    watch.applied(1, [Appended("t", 0, 1, 1)])
    assert await news
    assert not waited(watch)


async def test_who_has_given_up_leaves_the_heap(watch: w.Watch) -> None:
    patient = [asyncio.ensure_future(watch.wait_applied(number, NEVER)) for number in range(1, 11)]
    await begun(*patient)
    for _ in range(20):
        hopeless = [watch.wait_applied(limits.INTEGER_MAX, 0.0) for _ in range(100)]
        assert not any(await asyncio.gather(*hopeless))
        assert len(watch._sequences) <= 2 * w._GIVEN_UP_MIN + len(patient)
    left = [asyncio.ensure_future(watch.wait_applied(limits.INTEGER_MAX, NEVER)) for _ in range(500)]
    await begun(*left)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    assert len(watch._sequences) <= 2 * w._GIVEN_UP_MIN + len(patient)
    watch.applied(10, [])
    assert all(await asyncio.gather(*patient))


async def test_what_has_given_up_and_is_passed_by_is_not_counted_twice(watch: w.Watch) -> None:
    for sequence in range(1, 200):
        assert not await watch.wait_applied(sequence, 0.0)
        watch.applied(sequence, [])
    assert (watch._sequences, watch._given_up) == ([], 0)


TOPIC, OTHER = Subject("topic", "t"), Subject("topic", "u")


@pytest.mark.parametrize(
    ("event", "subject", "other"),
    [
        (TopicCreated("t"), TOPIC, OTHER),
        (Appended("t", 0, 1, 1), TOPIC, OTHER),
        (TopicDeleted("t"), TOPIC, OTHER),
        (TasksChanged(("t",)), Subject("task", "t"), TOPIC),
        (QueueReady("t"), Subject("queue", "t"), Subject("task", "t")),
        (WorkerChanged(1), Subject("worker", 1), Subject("worker", 2)),
    ],
)
async def test_what_happens_to_a_subject_wakes_who_waits_for_it(
    watch: w.Watch, event: Event, subject: Subject, other: Subject
) -> None:
    task = asyncio.ensure_future(watch.wait_news(subject, 0, NEVER))
    bystander = asyncio.ensure_future(watch.wait_news(other, 0, NEVER))
    await begun(task, bystander)
    watch.applied(1, [CommandSpoiled("nobody waits for this"), event])
    assert await task
    await begun(bystander)
    assert await watch.wait_news(subject, 0, NEVER)  # it has happened already
    assert not await watch.wait_news(subject, 1, 0.0)
    bystander.cancel()


async def test_subjects_are_forgotten_and_nothing_that_happened_is_missed(
    watch: w.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(w, "_SUBJECTS_REMEMBERED_MAX", 6)
    old, busy = Subject("topic", "old"), Subject("topic", "busy")
    watch.applied(1, [TopicCreated("old")])
    for sequence in range(2, 10):
        watch.applied(sequence, [TopicCreated(f"t{sequence}"), Appended("busy", 0, sequence, 1)])
        assert all(len(memory) <= 6 for memory in watch._memories.values())
    assert await watch.wait_news(old, 0, NEVER)
    assert await watch.wait_news(busy, 8, NEVER)
    assert not await watch.wait_news(busy, 9, 0.0)
    assert not await watch.wait_news(old, 9, 0.0)
    assert not await watch.wait_news(old, 7, 0.0)
    assert await watch.wait_news(Subject("topic", "t9"), 8, NEVER)


async def test_tasks_by_the_thousand_make_no_topic_forgotten(watch: w.Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(w, "_SUBJECTS_REMEMBERED_MAX", 3)
    for sequence in range(1, 10):
        watch.applied(sequence, [TasksChanged((f"k{sequence}",))])
    assert not await watch.wait_news(TOPIC, 0, 0.0)
    assert await watch.wait_news(Subject("task", "k1"), 1, 0.0)


async def test_after_the_state_was_replaced_anything_may_have_happened(watch: w.Watch) -> None:
    watch.applied(5, [Appended("t", 0, 1, 1)])
    task = asyncio.ensure_future(watch.wait_news(TOPIC, 5, NEVER))
    await begun(task)
    watch.replaced(50)
    assert await task
    assert await watch.wait_news(TOPIC, 5, NEVER)
    assert not await watch.wait_news(TOPIC, 50, 0.0)
