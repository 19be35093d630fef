"""A listener that has no descriptor left for who comes."""

from __future__ import annotations

import asyncio
import errno
import socket
from asyncio import constants
from typing import Any

import pytest
from typing_extensions import override

from quorl.cluster.consensus.listening import listen
from tests.consensus.network_kit import becomes

FOR_EVER_S = 1e6


async def test_it_is_tried_and_told_once_before_a_second_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[socket.socket] = []
    told: list[Any] = []

    def fails(sock: socket.socket) -> Any:
        tries.append(sock)
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(constants, "ACCEPT_RETRY_DELAY", FOR_EVER_S)
    monkeypatch.setattr(socket.socket, "accept", fails)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: told.append(context["message"]))
    async with await listen(asyncio.Protocol, "127.0.0.1", 0) as server:
        with socket.create_connection(server.sockets[0].getsockname()):
            await becomes(lambda: tries)
            await asyncio.sleep(0)  # all that one look at the port leads to has happened
            assert (len(tries), len(told)) == (1, 1)


async def test_all_who_come_at_once_are_let_in() -> None:
    came: list[asyncio.Transport] = []

    class Host(asyncio.Protocol):
        @override
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            came.append(transport)

    async with await listen(Host, "127.0.0.1", 0) as server:
        callers = [socket.create_connection(server.sockets[0].getsockname()) for _ in range(20)]
        await becomes(lambda: len(came) == len(callers))
        for caller in callers:
            caller.close()
        for transport in came:
            transport.abort()
