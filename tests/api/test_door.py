"""The door over real sockets: strangers who say nothing leave, and there is an end to how many come in."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import http_parser, web, web_protocol

from quorl.cluster.api.door import Door, connections_max

MUCH_BYTES = 16 * 1024 * 1024
"""More than the sockets of both ends hold."""
MUCH = b"GET /much HTTP/1.1\r\nHost: localhost\r\n\r\n"
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def _hello(request: web.BaseRequest) -> web.StreamResponse:
    await request.read()
    if request.path == "/much":
        return web.Response(body=bytes(MUCH_BYTES))
    if request.path == "/fault":
        raise RuntimeError("a fault of ours")
    return web.Response(text="hello")


def _refuse(code: str, detail: str) -> web.StreamResponse:
    return web.Response(status=400, text=f"{code}: {detail}")


@asynccontextmanager
async def listening(most: int, silence_s: float, untaken_s: float = 10) -> AsyncIterator[tuple[str, int]]:
    door = Door(_hello, most=most, refuse=_refuse, silence_s=silence_s, untaken_s=untaken_s, access_log=None)
    runner = web.ServerRunner(door, shutdown_timeout=0.5)
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


async def test_d13_who_asks_and_does_not_take_the_answer_is_sent_away() -> None:
    async with listening(1, 10, untaken_s=0.3) as address:
        loop, sock = asyncio.get_running_loop(), socket.create_connection(address)
        sock.setblocking(False)
        await loop.sock_sendall(sock, MUCH)
        assert await loop.sock_recv(sock, 1) == b"H"  # and nobody reads on
        answer = b""
        while b"hello" not in answer:  # there is room for one alone
            try:
                reader, writer = await asyncio.open_connection(*address)
                writer.write(ASK)
                answer = await reader.read(400)
                writer.close()
            except ConnectionError:
                pass
        sock.close()


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


@pytest.mark.parametrize(
    "sent",
    [
        b"this is not HTTP\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: many\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n",
    ],
    ids=["no-http", "version", "nul", "length", "chunk"],
)
async def test_d13_what_is_not_http_is_told_in_our_words_and_not_logged(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(10, 10) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        answer = await reader.read()  # the connection is closed behind it
        assert answer.partition(b"\r\n")[0] in {b"HTTP/1.0 400 Bad Request", b"HTTP/1.1 400 Bad Request"}
        assert b"malformed_request: " in answer
        writer.close()
    assert not caplog.records


_LONG = b"/" + b"x" * 20_000


@pytest.mark.parametrize("parser", ["HttpRequestParserC", "HttpRequestParserPy"])
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (b"GET " + _LONG + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", b"target_too_long: The first line is"),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + _LONG + b"\r\n\r\n",
            b"headers_too_large: A header is longer than",
        ),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\n" + _LONG[1:] + b": 1\r\n\r\n",
            b"headers_too_large: A header is longer",
        ),
        (b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 1_000 + b"\r\n", b"headers_too_large: Too many headers"),
    ],
    ids=["line", "value", "name", "many"],
)
async def test_what_is_too_long_is_told_to_be_so(
    parser: str, sent: bytes, code: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_protocol, "HttpRequestParser", getattr(http_parser, parser))
    async with listening(10, 10) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(sent)
        assert code in await reader.read()
        writer.close()


async def test_a_fault_of_ours_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(10, 10) as address:
        reader, writer = await asyncio.open_connection(*address)
        writer.write(b"GET /fault HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.read(400)).startswith(b"HTTP/1.1 500 ")
        writer.close()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
