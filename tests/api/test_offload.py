"""Work beside the loop: whoever gives up waiting for it does nothing until it has ended."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from quorl.cluster.api.offload import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads()
    yield made
    made.close()


async def test_what_it_came_to_is_given_or_raised(threads: Threads) -> None:
    assert await threads.run(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


@pytest.mark.parametrize("fails", [False, True])
async def test_d5_who_is_cancelled_goes_on_when_the_work_has_ended(threads: Threads, fails: bool) -> None:
    """A node that stops while a snapshot is put in the place of its state must not open that meanwhile."""
    loop, begun, leave = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    done: list[str] = []

    def work() -> None:
        loop.call_soon_threadsafe(begun.set)
        leave.wait()
        done.append("work")
        assert not fails

    async def ask() -> None:
        try:
            await threads.run(work)
        finally:
            done.append("caller")

    asking = asyncio.ensure_future(ask())
    await begun.wait()
    asking.cancel()
    for _ in range(10):
        await asyncio.sleep(0)
    assert done == []
    leave.set()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert done == ["work", "caller"]
