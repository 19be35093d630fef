"""Deadlines of tasks under one timer: who is late is told so, and nobody else notices. D7."""

from __future__ import annotations

import asyncio

import pytest

from quorl.cluster.node.deadlines import Deadlines


async def waiting(deadlines: Deadlines, within_s: float) -> None:
    with deadlines.within(within_s):
        await asyncio.Event().wait()


async def test_d7_each_has_its_own_deadline_though_one_timer_watches_all() -> None:
    deadlines = Deadlines()
    order: list[float] = []

    async def late(within_s: float) -> None:
        with pytest.raises(TimeoutError):
            await waiting(deadlines, within_s)
        order.append(within_s)

    long = asyncio.ensure_future(waiting(deadlines, 60.0))
    await asyncio.gather(*[late(within_s) for within_s in (0.03, 0.02, 0.01, 0.0, -1.0)])
    assert sorted(order) == [-1.0, 0.0, 0.01, 0.02, 0.03]
    assert order[-3:] == [0.01, 0.02, 0.03]
    assert not long.done()
    long.cancel()
    with pytest.raises(asyncio.CancelledError):
        await long


async def test_d7_who_is_in_time_is_left_alone() -> None:
    deadlines = Deadlines()
    for _ in range(3):
        with deadlines.within(0.001):
            await asyncio.sleep(0)
    with pytest.raises(TimeoutError):
        await waiting(deadlines, 0.002)  # the timer of those before has come meanwhile
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_d7_a_cancellation_from_elsewhere_is_no_deadline() -> None:
    deadlines = Deadlines()
    scope = deadlines.within(60.0)

    async def work() -> None:
        with scope:
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not scope.expired


async def test_d7_who_is_cancelled_and_late_at_once_is_cancelled() -> None:
    deadlines = Deadlines()
    scope = deadlines.within(60.0)

    async def work() -> None:
        with scope:
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    await asyncio.sleep(0)
    scope.expire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert scope.expired


async def test_d7_an_error_that_comes_of_it_is_not_hidden() -> None:
    deadlines = Deadlines()

    async def work() -> None:
        with deadlines.within(0.0):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise LookupError("its own") from None

    with pytest.raises(LookupError):
        await work()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
