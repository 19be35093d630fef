"""A look for those that are late looks at few others: deadlines of a node's calls, and of those that wait on a channel. D13.

Counted, and not timed: the numbers by which they are told apart say how often they were looked at.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from typing_extensions import override

from quorl import soonest
from quorl.channel import Channel, NotSent, Outcome
from quorl.cluster.node.deadlines import Deadlines
from quorl.cluster.protocol.wire import Call
from tests.node.gateway.jumploop import JumpLoop

COUNT = 600
LOOKS_EACH_MAX = 60
"""As a heap of so many has; looking at all of them for each would be ten times as many."""
looks = 0


class Seconds(float):
    """Seconds that count how often they are looked at, also once they were added to a moment."""

    @override
    def __radd__(self, other: float) -> Seconds:
        return Seconds(other + float(self))

    @override
    def __lt__(self, other: float) -> bool:
        return float(self) < self._other(other)

    @override
    def __le__(self, other: float) -> bool:
        return float(self) <= self._other(other)

    @override
    def __eq__(self, other: object) -> bool:
        return float(self) == self._other(other)

    __hash__ = float.__hash__

    def _other(self, other: Any) -> float:
        global looks
        looks += 1
        return float(other)


def run(work: Coroutine[Any, Any, None]) -> int:
    """Do it, in a time that jumps; how often anything was looked at."""
    global looks
    looks = 0
    loop = JumpLoop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()
    return looks


async def in_time(deadlines: Deadlines, seconds: float) -> None:
    with deadlines.within(seconds):
        await asyncio.sleep(0)


async def late(deadlines: Deadlines, seconds: float) -> None:
    with contextlib.suppress(TimeoutError), deadlines.within(seconds):
        await asyncio.Event().wait()


def test_d13_deadlines_that_are_over_one_after_the_other_are_looked_at_a_few_times_each() -> None:
    async def work() -> None:
        deadlines = Deadlines()
        await asyncio.gather(*[late(deadlines, Seconds(1 + number / 100)) for number in range(COUNT)])
        assert asyncio.get_running_loop().time() < 1000 + 1 + COUNT / 100 + 0.1
        assert not deadlines.held

    assert run(work()) < LOOKS_EACH_MAX * COUNT


def test_d13_calls_on_a_channel_that_are_over_one_after_the_other_are_looked_at_a_few_times_each() -> None:
    async def work() -> None:
        loop, channel = asyncio.get_running_loop(), Channel()
        told: list[tuple[float, Outcome]] = []
        done = asyncio.Event()

        def tell(outcome: Outcome) -> None:
            told.append((round(loop.time() - 1000, 6), outcome))
            if len(told) == COUNT:
                done.set()

        for number in reversed(range(COUNT)):
            channel.begin(Call("GET", "/", "", {}, b""), {}, Seconds(1 + number / 100), tell)
        await done.wait()
        assert [at for at, _ in told] == [round(1 + number / 100, 6) for number in range(COUNT)]
        assert all(type(outcome) is NotSent for _, outcome in told)
        channel.abort()

    assert run(work()) < LOOKS_EACH_MAX * COUNT


def test_d13_those_that_ended_are_not_kept_until_their_moment() -> None:
    async def work() -> None:
        deadlines = Deadlines()
        for _ in range(20):
            others = asyncio.gather(*[in_time(deadlines, 3600) for _ in range(COUNT)])
            await late(deadlines, -1.0)  # those that run now are met by a look
            await others
        assert len(deadlines._soonest) <= COUNT + soonest.ENDED_MAX

    run(work())
