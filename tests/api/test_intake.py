"""What is still arriving is bounded for all connections together, and everything that is whole is taken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

import pytest
from aiohttp import web

from quorl.cluster.api.app import Skin
from quorl.cluster.api.health import Health
from quorl.cluster.api.hosts import Hosts
from quorl.cluster.protocol import limits
from tests.api.test_app import TOKEN, Echo, Well
from tests.api.test_channel import Place, framed, place_of


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async for one in place_of(3600):
        yield one


async def test_the_bodies_of_all_connections_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INTAKE_BYTES_MAX", 1500)
    skin = Skin(Echo(), cast("Health", Well()), Hosts("127.0.0.1"), TOKEN, 1000, "1.2.3")
    runner = web.ServerRunner(web.Server(skin.handle, access_log=None, auto_decompress=False, lingering_time=0.05))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    head = b"POST /v1/topics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    connections = [await asyncio.open_connection(*runner.addresses[0]) for _ in range(2)]
    answers = [asyncio.ensure_future(reader.read(4000)) for reader, _ in connections]
    async with asyncio.timeout(20):
        for _, writer in connections:
            writer.write(head + bytes(999))
        done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        assert [b" 429 " in one.result() for one in done] == [True]
        (waiting,) = [n for n, one in enumerate(answers) if one not in done]
        connections[waiting][1].write(b"x")
        assert b" 200 " in await answers[waiting]
    assert skin.intake.held_bytes == 0
    for _, writer in connections:
        writer.close()
    await runner.cleanup()


async def test_the_halves_of_frames_of_all_channels_together_are_bounded(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "INTAKE_BYTES_MAX", 250_000)
    frame = framed([[[1, "POST", "/v1/x", "", {}, bytes(200_000)]]])
    (first, first_writer), (second, second_writer) = await place.raw(), await place.raw()
    async with asyncio.timeout(20):
        first_writer.write(frame[:-1])
        second_writer.write(frame[:-1])
        done, _ = await asyncio.wait(
            [asyncio.ensure_future(one.read(65536)) for one in (first, second)], return_when=asyncio.FIRST_COMPLETED
        )
        assert b"too many for it" in next(iter(done)).result()
        assert place.skin.intake.held_bytes <= len(frame)
        for writer in (first_writer, second_writer):
            with contextlib.suppress(ConnectionError):
                writer.write(frame[-1:])
        await place.desk.until(lambda: len(place.desk.came) == 1)
    assert place.skin.intake.held_bytes == 0
    for writer in (first_writer, second_writer):
        writer.close()
