"""The door over real sockets: strangers who say nothing leave, and there is an end to how many come in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from quorl.cluster.api.door import Door, connections_max

ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _hello(_request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(text="hello")


@asynccontextmanager
async def listening(most: int, silence_s: float) -> AsyncIterator[tuple[str, int]]:
    runner = web.ServerRunner(Door(_hello, most=most, silence_s=silence_s, access_log=None), shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0]
    await runner.cleanup()


async def test_d13_who_only_connects_is_sent_away_and_who_asked_may_stay() -> None:
    async with listening(10, 0.1) as address:
        quiet, quiet_writer = await asyncio.open_connection(*address)
        known, known_writer = await asyncio.open_connection(*address)
        known_writer.write(ASK)
        assert b"hello" in await known.read(400)
        try:
            assert await quiet.read() == b""
        except ConnectionResetError:
            pass
        known_writer.write(ASK)
        assert b"hello" in await known.read(400)
        quiet_writer.close()
        known_writer.close()


async def test_d13_nobody_is_let_in_beyond_the_bound_until_somebody_leaves() -> None:
    async with listening(1, 10) as address:
        first, first_writer = await asyncio.open_connection(*address)
        first_writer.write(ASK)
        assert b"hello" in await first.read(400)
        try:
            second, second_writer = await asyncio.open_connection(*address)
            second_writer.write(ASK)
            assert await second.read() == b""
            second_writer.close()
        except ConnectionError:
            pass
        first_writer.close()
        await first_writer.wait_closed()
        answer = b""
        while b"hello" not in answer:
            third, third_writer = await asyncio.open_connection(*address)
            try:
                third_writer.write(ASK)
                answer = await third.read(400)
            except ConnectionError:
                continue
            finally:
                third_writer.close()


def test_half_of_the_files_are_left_to_the_node() -> None:
    assert connections_max(65536) == (65536 - 256) // 2
    assert connections_max(128) == 64
