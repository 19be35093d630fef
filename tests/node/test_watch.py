"""Waking: everything that happened wakes who waits for it, and nothing is remembered for ever."""

from __future__ import annotations

import asyncio

import pytest

from quorl.cluster.machine.events import Appended, TopicCreated, TopicDeleted
from quorl.cluster.node import watch as w
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


@pytest.mark.parametrize("event", [TopicCreated("t"), Appended("t", 0, 1), TopicDeleted("t")])
async def test_what_happens_to_a_topic_wakes_who_waits_for_it(
    watch: w.Watch, event: TopicCreated | Appended | TopicDeleted
) -> None:
    task = asyncio.ensure_future(watch.wait_topic("t", 0, NEVER))
    other = asyncio.ensure_future(watch.wait_topic("u", 0, NEVER))
    await begun(task, other)
    watch.applied(1, [event])
    assert await task
    await begun(other)
    assert await watch.wait_topic("t", 0, NEVER)  # it has happened already
    assert not await watch.wait_topic("t", 1, 0.0)
    other.cancel()


async def test_topics_are_forgotten_and_nothing_that_happened_is_missed(
    watch: w.Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(w, "_TOPICS_REMEMBERED_MAX", 3)
    watch.applied(1, [TopicCreated("old")])
    for sequence in range(2, 10):
        watch.applied(sequence, [TopicCreated(f"t{sequence}"), Appended("busy", 0, sequence)])
        assert len(watch._latest) <= 3
    assert await watch.wait_topic("old", 0, NEVER)
    assert await watch.wait_topic("busy", 8, NEVER)
    assert not await watch.wait_topic("busy", 9, 0.0)
    assert not await watch.wait_topic("old", 9, 0.0)
    assert not await watch.wait_topic("old", 7, 0.0)


async def test_after_the_state_was_replaced_anything_may_have_happened(watch: w.Watch) -> None:
    watch.applied(5, [Appended("t", 0, 1)])
    task = asyncio.ensure_future(watch.wait_topic("t", 5, NEVER))
    await begun(task)
    watch.replaced(50)
    assert await task
    assert await watch.wait_topic("t", 5, NEVER)
    assert not await watch.wait_topic("t", 50, 0.0)
