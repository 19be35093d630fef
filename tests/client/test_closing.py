"""Closing an asyncio client: nobody who waits is left waiting."""

from __future__ import annotations

import asyncio

from quorl.client import AsyncClient, OutcomeUnknown, Unavailable
from tests.client.stand_in import StandIn


async def test_closing_tells_those_who_wait(cluster: StandIn) -> None:
    client = AsyncClient(cluster.urls[0])
    await client.topics.create("x")
    cluster.mishaps[0].append("hang")
    cluster.arrived.clear()
    flying = asyncio.create_task(client.topic("x").append(1))
    await asyncio.to_thread(cluster.arrived.wait, 5)
    waiting = asyncio.create_task(client.topic("x").append(2))
    await asyncio.sleep(0)
    await client.close()
    outcomes = await asyncio.gather(flying, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, Unavailable]


async def test_closing_tells_those_whose_flight_has_not_begun(cluster: StandIn) -> None:
    """The task that should fly them is cancelled before its first step."""
    client = AsyncClient(cluster.urls[0])
    await client.topics.create("x")
    waiting = asyncio.create_task(client.topic("x").append(1))
    await asyncio.sleep(0)
    await client.close()
    async with asyncio.timeout(5):
        (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(outcome, Unavailable)
