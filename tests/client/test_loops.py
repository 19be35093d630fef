"""One asyncio client in several event loops: one after the other it serves all of them, at the same time only one."""

from __future__ import annotations

import asyncio
import gc
import threading
import warnings
from collections.abc import Iterator

import pytest

from quorl.client import AsyncClient
from quorl.client.aio_transport import ChannelTransport
from quorl.cluster.protocol import leases as e
from tests.client.stand_in import StandIn


@pytest.fixture(autouse=True)
def connections_are_left_open(cluster: StandIn) -> Iterator[None]:
    """Nobody closes what belonged to a loop that is closed: that is for the garbage collector, while there are servers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        assert cluster.urls
        gc.collect()


async def append(client: AsyncClient, value: int) -> int:
    return (await client.topic("x").append(value)).offset


def test_d13_each_event_loop_after_the_other_is_served(cluster: StandIn) -> None:
    client = AsyncClient(cluster.servers, timeout_s=5)
    asyncio.run(client.topics.create("x"))
    assert [asyncio.run(append(client, number)) for number in range(3)] == [0, 1, 2]
    assert asyncio.run(client.topic("x").size()) == 3
    asyncio.run(client.close())


def test_d13_what_was_under_way_when_its_loop_ended_is_waited_for_by_nobody(cluster: StandIn) -> None:
    client = AsyncClient(cluster.servers, timeout_s=5)
    asyncio.run(client.topics.create("x"))

    async def begin_and_go() -> None:
        begun = [
            asyncio.ensure_future(append(client, 0)),
            asyncio.ensure_future(client.tasks.submit("nothing")),
            asyncio.ensure_future(client.claim(e.Claim(worker_id=1, wait=5.0))),
        ]
        await asyncio.sleep(0)
        assert not any(one.done() for one in begun)

    asyncio.run(begin_and_go())

    async def again() -> None:
        await append(client, 1)
        await client.tasks.submit("nothing")
        await client.close()

    asyncio.run(asyncio.wait_for(again(), 5))


def test_d13_a_loop_that_runs_elsewhere_is_not_disturbed() -> None:
    client = AsyncClient("http://n1", transport=ChannelTransport())
    at_work, over = threading.Event(), threading.Event()

    async def work() -> None:
        client._arrive()
        at_work.set()
        await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(work(),))
    thread.start()
    try:
        assert at_work.wait(10)
        with pytest.raises(RuntimeError, match="each needs a client of its own"):
            asyncio.run(append(client, 0))
    finally:
        over.set()
        thread.join()


def test_d13_the_loop_of_the_process_that_forked_is_not_one_of_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a copy in the child it seems to run, but nobody runs it there."""
    client = AsyncClient("http://n1", transport=ChannelTransport())

    async def arrive() -> None:
        client._arrive()

    async def fork() -> None:
        client._arrive()
        monkeypatch.setattr("os.getpid", lambda: -1)
        await asyncio.to_thread(asyncio.run, arrive())

    asyncio.run(fork())
