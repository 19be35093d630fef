"""Requests as HTTP has them: bodies that wait for leave, headers that come twice, first lines that name the host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import cast

import msgspec
import pytest
from aiohttp import web

from quorl.cluster.api.app import Skin
from quorl.cluster.api.health import Health
from quorl.cluster.api.hosts import Hosts
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer, Call, answer_problem

BODY_BYTES_MAX = 100


class Mirror:
    """A node that answers with the call that reached it."""

    async def handle(self, call: Call) -> Answer:
        return Answer(200, {"content-type": "application/json"}, msgspec.json.encode(call._asdict()))

    def refuse(self, call: Call, problem: Problem) -> Answer:
        return answer_problem(problem, instance=call.path, request_id="r", node="n1", leader=None)


Open = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@pytest.fixture
async def connect() -> AsyncIterator[Open]:
    """Opens connections to a skin that really listens."""
    skin = Skin(Mirror(), cast("Health", None), Hosts("127.0.0.1"), "a token", BODY_BYTES_MAX, "1.2.3")
    server = web.Server(skin.handle, access_log=None, auto_decompress=False, lingering_time=0.05)
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    opened: list[asyncio.StreamWriter] = []

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(*runner.addresses[0])
        opened.append(writer)
        return reader, writer

    yield connect
    for writer in opened:
        writer.close()
    await runner.cleanup()


def lines(*given: str) -> bytes:
    return "\r\n".join(given).encode() + b"\r\n\r\n"


async def answered(connect: Open, *given: str) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of the answer to a request without a body."""
    reader, writer = await connect()
    writer.write(lines(*given))
    return await read(reader)


async def read(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    first, *rest = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): text for name, text in (line.split(": ", 1) for line in rest)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return int(first.split()[1]), headers, body


# -- bodies that wait ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("word", ["100-continue", "100-Continue"])
async def test_who_waits_for_leave_to_send_a_body_is_given_it_at_once(connect: Open, word: str) -> None:
    reader, writer = await connect()
    for _ in range(2):  # and so is who asks again on the same connection
        writer.write(lines("POST /v1/topics HTTP/1.1", "Host: localhost", f"Expect: {word}", "Content-Length: 2"))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(b"{}")
        status, _, body = await read(reader)
        assert (status, msgspec.json.decode(body)["method"]) == (200, "POST")


async def test_nobody_else_is_given_leave(connect: Open) -> None:
    for line, expected in (("POST / HTTP/1.0", "100-continue"), ("POST /v1/x HTTP/1.1", "tea")):
        reader, writer = await connect()
        writer.write(lines(line, "Host: localhost", f"Expect: {expected}", "Content-Length: 2") + b"{}")
        assert (await read(reader))[0] in {200, 405}


async def test_a_body_that_would_be_too_large_is_not_asked_for(connect: Open) -> None:
    size = f"Content-Length: {BODY_BYTES_MAX + 1}"
    status, headers, _ = await answered(
        connect, "POST /v1/topics HTTP/1.1", "Host: localhost", "Expect: 100-continue", size
    )
    assert (status, headers["connection"]) == (413, "close")


# -- headers that come twice ---------------------------------------------------------------------------------------
async def test_a_header_that_comes_twice_is_one_list(connect: Open) -> None:
    twice = ("Accept: text/html", "ACCEPT: application/json", "Idempotency-Key: a", "idempotency-key: b")
    _, _, body = await answered(connect, "GET /v1/topics HTTP/1.1", "Host: localhost", "One: 1", *twice)
    headers = msgspec.json.decode(body)["headers"]
    assert (headers["accept"], headers["idempotency-key"]) == ("text/html, application/json", "a, b")
    assert (headers["host"], headers["one"]) == ("localhost", "1")


# -- first lines that name the host --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("http://127.0.0.1:7101/v1/topics?limit=1", "/v1/topics", "limit=1"),
        ("HTTPS://localhost/v1/topics", "/v1/topics", ""),
        ("http://localhost/v1/a%2Fb?x=http://y", "/v1/a%2Fb", "x=http://y"),
    ],
)
async def test_a_first_line_may_name_the_host(connect: Open, target: str, path: str, query: str) -> None:
    _, _, body = await answered(connect, f"GET {target} HTTP/1.1", "Host: evil.example")
    call = msgspec.json.decode(body)
    assert (call["path"], call["query"]) == (path, query)
    assert target.startswith((f"http://{call['headers']['host']}/", f"HTTPS://{call['headers']['host']}/"))


@pytest.mark.parametrize("target", ["http://evil.example/v1/topics", "http://localhost:1@evil.example/v1/topics"])
async def test_a_host_in_the_first_line_is_looked_at_like_any_other(connect: Open, target: str) -> None:
    status, _, body = await answered(connect, f"GET {target} HTTP/1.1", "Host: localhost")
    assert (status, msgspec.json.decode(body)["code"]) == (403, "forbidden_host")


async def test_who_asks_for_the_channel_without_an_upgrade_is_told_which(connect: Open) -> None:
    status, headers, _ = await answered(connect, "GET /v1/channel HTTP/1.1", "Host: localhost")
    assert (status, headers["connection"], headers["upgrade"]) == (426, "upgrade", "quorl-channel/1")


# -- HEAD ----------------------------------------------------------------------------------------------------------
async def test_a_head_is_a_get_whose_body_does_not_travel(connect: Open) -> None:
    _, _, body = await answered(connect, "GET /v1/topics HTTP/1.1", "Host: localhost")
    reader, writer = await connect()
    for _ in range(2):  # what came after the head would be taken for the next answer
        writer.write(lines("HEAD /v1/topics HTTP/1.1", "Host: localhost"))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        assert f"Content-Length: {len(body)}\r\n".encode() in head


async def test_a_head_changes_nothing() -> None:
    """By the founding routes a GET may move a consumer's place; below /v1 none does."""
    assert not [row.name for row in OPERATIONS if row.method == "GET" and row.writes]
    skin = Skin(Mirror(), cast("Health", None), Hosts("127.0.0.1"), "a token", BODY_BYTES_MAX, "1.2.3")
    seen = [await skin._told(Call("HEAD", path, "", {}, b"")) for path in ("/consumer/consume", "/v1/topics")]
    assert [msgspec.json.decode(answer.body)["method"] for answer in seen] == ["HEAD", "GET"]
    assert (await skin.take(Call("HEAD", "/v1/topics", "", {}, b""))).body == b"", "nor over a channel"
