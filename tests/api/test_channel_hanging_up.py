"""Who hangs up before his channel is one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Mapping

import pytest
from aiohttp import web

from tests.api.test_channel import HEAD, Place, place_of


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async for one in place_of(3600):
        yield one


async def test_who_hangs_up_before_he_is_answered_is_no_error(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    serve, served = place.skin.channels.serve, asyncio.Event()

    async def hung_up(request: web.BaseRequest, headers: Mapping[str, str]) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        try:
            return await serve(request, headers)
        finally:
            served.set()

    monkeypatch.setattr(place.skin.channels, "serve", hung_up)
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(f"{HEAD}\r\n".encode())
    await served.wait()
    with contextlib.suppress(ConnectionResetError):
        assert await reader.read() == b""
    writer.close()
    assert len(place.skin.channels) == 0
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []
