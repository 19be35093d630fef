"""Channels over real sockets: what is answered, what a bad or a dead other side does, and what is bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import pairwise
from typing import cast

import msgspec
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from quorl.channel import Channel, Lost, NoChannel, NotSent, dial
from quorl.cluster.api.app import Skin
from quorl.cluster.api.channel import _BEGUN_AT_ONCE, Channels
from quorl.cluster.api.health import Health
from quorl.cluster.api.hosts import Hosts
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.channel import (
    NAME,
    PATH,
    Answered,
    Asked,
    Asking,
    Frames,
    frames_of_calls,
    read_answering,
)
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer, Call, answer_problem
from tests.api.test_app import Well

TOKEN = "a token"
HEAD = f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {NAME}\r\n"


class Desk:
    """A node whose answers the test holds in its hands."""

    def __init__(self) -> None:
        self.came: list[Call] = []
        self.gone: list[Call] = []
        self.held = asyncio.Event()
        self.arrived: asyncio.Condition = asyncio.Condition()
        self.body = b"{}"

    async def handle(self, call: Call) -> Answer:
        async with self.arrived:
            self.came.append(call)
            self.arrived.notify_all()
        try:
            if "hold" in call.query:
                await self.held.wait()
            if "fail" in call.query:
                raise ValueError("a defect")
        except asyncio.CancelledError:
            async with self.arrived:
                self.gone.append(call)
                self.arrived.notify_all()
            raise
        return Answer(200, {"content-type": "text/plain"}, self.body or call.body)

    def refuse(self, call: Call, problem: Problem) -> Answer:
        answer = answer_problem(problem, instance=call.path, request_id="r", node="n1", leader=None)
        return answer._replace(headers=answer.headers | {"request-id": "r"})

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self.arrived:
            await self.arrived.wait_for(true)


class Place:
    """A skin that really listens."""

    def __init__(self, desk: Desk, skin: Skin, port: int) -> None:
        self.desk = desk
        self.skin = skin
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    async def raw(self, head: str = HEAD, *, more: str = "") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{head}{more}\r\n".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return reader, writer


async def place_of(look_s: float) -> AsyncIterator[Place]:
    desk = Desk()
    skin = Skin(desk, cast("Health", Well()), Hosts("127.0.0.1"), TOKEN, 300_000, "1.2.3")
    skin.channels = Channels(skin.take, desk.refuse, skin.intake, look_s=look_s)
    runner = web.ServerRunner(web.Server(skin.handle, access_log=None, handler_cancellation=True), shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Place(desk, skin, runner.addresses[0][1])
    skin.channels.close()
    await runner.cleanup()


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async for one in place_of(3600):
        yield one


@pytest.fixture
async def watchful() -> AsyncIterator[Place]:
    async for one in place_of(0.05):
        yield one


@contextlib.contextmanager
def closing(channel: Channel) -> Iterator[Channel]:
    try:
        yield channel
    finally:
        channel.abort()


def ask(
    channel: Channel, target: str, body: bytes = b"", *, timeout_s: float = 20, headers: dict[str, str] | None = None
) -> Awaitable[Answer]:
    path, _, query = target.partition("?")
    return channel.ask(Call("POST", path, query, {}, body), headers or {}, timeout_s)


def sent(calls: list[Asked]) -> bytes:
    return b"".join(frame for _, frame in frames_of_calls(calls))


def framed(frame: object) -> bytes:
    data = msgspec.msgpack.encode(frame)
    return len(data).to_bytes(4, "big") + data


async def answers(reader: asyncio.StreamReader, count: int = 1) -> list[Answered]:
    frames, found = Frames(limits.CHANNEL_ANSWER_BYTES_MAX), list[Answered]()
    async with asyncio.timeout(20):
        while len(found) < count:
            data = await reader.read(65536)
            assert data, f"the connection ended after {found}"
            found += [one for frame in frames.feed(data) for one in read_answering(frame).answers]
    return found


# -- good calls ----------------------------------------------------------------------------------------------------
async def test_calls_are_the_same_as_over_http_and_answers_come_in_any_order(place: Place) -> None:
    with closing(await dial(place.url, {}, 5)) as channel:
        slow = asyncio.ensure_future(ask(channel, "/v1/topics/x%2Fy?hold", b"1", headers={"request-id": "a"}))
        await place.desk.until(lambda: len(place.desk.came) == 1)
        assert (await ask(channel, "/v1/topics")).status == 200
        assert not slow.done()
        place.desk.held.set()
        answer = await slow
    assert answer == Answer(200, {"content-type": "text/plain"}, b"{}")
    call = place.desk.came[0]
    assert (call.method, call.path, call.query, call.body) == ("POST", "/v1/topics/x%2Fy", "hold", b"1")
    assert call.headers["request-id"] == "a"
    assert call.headers["host"] == f"127.0.0.1:{place.port}"


async def test_calls_of_one_moment_leave_in_one_frame_and_so_do_their_answers(place: Place) -> None:
    reader, writer = await place.raw()
    writer.write(sent([Asked(n, "POST", "/v1/x", "", {}, b"") for n in range(1, 31)]))
    size = int.from_bytes(await reader.readexactly(4), "big")
    read = read_answering(await reader.readexactly(size))
    assert [one.number for one in read.answers] == list(range(1, 31))
    writer.close()


async def test_what_many_ask_at_once_is_begun_in_slices_and_in_order(place: Place) -> None:
    """Between them the loop has its turn: an election time-out is shorter than a thousand slow answers."""
    _, writer = await place.raw()
    begun: list[int] = []

    def look() -> None:
        if not begun or begun[-1] != len(place.desk.came):
            begun.append(len(place.desk.came))
        if len(place.desk.came) < 1000:
            asyncio.get_running_loop().call_soon(look)

    asyncio.get_running_loop().call_soon(look)
    writer.write(sent([Asked(n, "POST", "/v1/x", f"hold&{n}", {}, b"") for n in range(1, 1001)]))
    await place.desk.until(lambda: len(place.desk.came) == 1000)
    assert [call.query for call in place.desk.came] == [f"hold&{n}" for n in range(1, 1001)]
    assert max(later - sooner for sooner, later in pairwise(begun)) <= 32
    writer.close()


async def test_a_call_whose_caller_goes_before_it_was_begun_is_never_made(place: Place) -> None:
    _, writer = await place.raw()
    calls = [Asked(n, "POST", "/v1/x", "hold", {}, b"") for n in range(1, 101)]
    writer.write(b"".join(frame for _, frame in frames_of_calls(calls, [100])))
    writer.write(sent([Asked(101, "POST", "/v1/x", "last", {}, b"")]))
    await place.desk.until(lambda: any(call.query == "last" for call in place.desk.came))
    assert len(place.desk.came) == 100
    writer.close()


async def test_a_frame_of_more_calls_than_a_channel_has_room_for_ends_it(place: Place) -> None:
    reader, writer = await place.raw()
    calls = [Asked(n, "", "", "", {}, b"") for n in range(1, limits.CHANNEL_CALLS_MAX + 2)]
    frame = msgspec.msgpack.encode(Asking(calls, []))
    writer.write(len(frame).to_bytes(4, "big") + frame)
    size = int.from_bytes(await reader.readexactly(4), "big")
    (last,) = read_answering(await reader.readexactly(size)).answers
    assert last.number == 0
    assert b"calls in one frame" in last.body
    assert await reader.read() == b""
    writer.close()


async def test_thousands_of_calls_are_under_way_at_the_same_time(place: Place) -> None:
    place.desk.body = b""
    with closing(await dial(place.url, {}, 5)) as one, closing(await dial(place.url, {}, 5)) as other:
        calls = [
            asyncio.ensure_future(ask(channel, "/v1/x?hold", b"%d" % number))
            for channel in (one, other)
            for number in range(limits.CHANNEL_CALLS_MAX)
        ]
        await place.desk.until(lambda: len(place.desk.came) == 2 * limits.CHANNEL_CALLS_MAX)
        assert not one.usable
        refused = await ask(one, "/v1/x")
        assert (refused.status, msgspec.json.decode(refused.body)["code"]) == (429, "too_many_requests")
        place.desk.held.set()
        bodies = [(await call).body for call in calls]
    assert bodies == 2 * [b"%d" % number for number in range(limits.CHANNEL_CALLS_MAX)]


async def test_the_nodes_own_pages_and_its_refusals_are_the_same(place: Place) -> None:
    with closing(await dial(place.url, {}, 5)) as channel:
        live = await channel.ask(Call("GET", "/livez", "", {}, b""), {}, 5)
        assert (live.status, live.body) == (200, b"ok\n")
        large = await ask(channel, "/v1/x", b"x" * 300_001)
        assert msgspec.json.decode(large.body)["code"] == "payload_too_large"
        packed = await ask(channel, "/v1/x", b"x", headers={"content-encoding": "gzip"})
        assert msgspec.json.decode(packed.body)["code"] == "unsupported_media_type"
    assert place.desk.came == []


# -- who calls -----------------------------------------------------------------------------------------------------
async def test_who_calls_is_said_once_and_no_call_says_otherwise(place: Place) -> None:
    with closing(await dial(place.url, {"Authorization": "Bearer a", "Origin": "http://localhost"}, 5)) as channel:
        await ask(
            channel,
            "/v1/x",
            headers={"authorization": "Bearer b", "host": "evil.example", "origin": "http://evil.example"},
        )
    headers = place.desk.came[0].headers
    assert (headers["authorization"], headers["origin"]) == ("Bearer a", "http://localhost")
    assert headers["host"] == f"127.0.0.1:{place.port}"


async def test_routes_of_members_are_for_members(place: Place) -> None:
    with closing(await dial(place.url, {}, 5)) as channel:
        assert (await ask(channel, "/internal/barrier")).status == 403
    with closing(await dial(place.url, {"Quorl-Member": TOKEN}, 5)) as channel:
        assert (await ask(channel, "/internal/barrier")).status == 200
    with closing(await dial(place.url, {"Quorl-Member": "x"}, 5)) as channel:
        assert (await ask(channel, "/internal/barrier", headers={"quorl-member": TOKEN})).status == 403


async def test_a_stranger_s_name_of_the_node_opens_no_channel(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(HEAD.replace("localhost", "evil.example").encode() + b"\r\n")
    assert b"forbidden_host" in await reader.read(65536)
    writer.close()


@pytest.mark.parametrize(
    "head",
    [
        f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: keep-alive\r\nUpgrade: {NAME}\r\n\r\n",
        f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: {NAME}\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_whoever_does_not_ask_for_the_upgrade_is_told_so(place: Place, head: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(head.encode())
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 426 ")
    writer.close()


async def test_a_server_without_channels_is_told_apart_from_one_that_is_not_there(place: Place) -> None:
    async def old(request: web.BaseRequest) -> web.Response:
        return web.Response(status=404)

    runner = web.ServerRunner(web.Server(old))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    with pytest.raises(NoChannel) as refused:
        await dial(f"http://127.0.0.1:{runner.addresses[0][1]}", {}, 5)
    assert refused.value.status == 404
    await runner.cleanup()
    with pytest.raises(OSError, match="Connect call failed"):
        await dial(f"http://127.0.0.1:{runner.addresses[0][1] if runner.addresses else 1}", {}, 5)


# -- who goes ------------------------------------------------------------------------------------------------------
async def test_a_caller_who_goes_away_takes_his_call_with_him_and_no_other(place: Place) -> None:
    with closing(await dial(place.url, {}, 5)) as channel:
        leaving, staying = (asyncio.ensure_future(ask(channel, f"/v1/{n}?hold")) for n in (1, 2))
        await place.desk.until(lambda: len(place.desk.came) == 2)
        leaving.cancel()
        await place.desk.until(lambda: len(place.desk.gone) == 1)
        assert place.desk.gone[0].path == "/v1/1"
        place.desk.held.set()
        assert (await staying).status == 200


async def test_who_has_waited_long_enough_is_told_and_his_call_is_ended(place: Place) -> None:
    with closing(await dial(place.url, {}, 5)) as channel:
        other = asyncio.ensure_future(ask(channel, "/v1/2?hold"))
        late = asyncio.ensure_future(ask(channel, "/v1/1?hold", timeout_s=0.5))
        await place.desk.until(lambda: len(place.desk.came) == 2)
        assert (await ask(channel, "/v1/3")).status == 200  # so the node is there, and the channel is good
        with pytest.raises(Lost, match=r"no answer in 0\.5 s"):
            await late
        await place.desk.until(lambda: len(place.desk.gone) == 1)
        place.desk.held.set()
        assert (await other).status == 200


async def test_a_channel_on_which_nothing_came_in_all_that_time_is_given_up(place: Place) -> None:
    channel = await dial(place.url, {}, 5)
    other = asyncio.ensure_future(ask(channel, "/v1/2?hold"))
    with pytest.raises(Lost, match="no answer"):
        await ask(channel, "/v1/1?hold", timeout_s=0.2)
    assert not channel.closed  # one caller's patience says nothing about the others'
    with pytest.raises(Lost, match="no answer"):
        await ask(channel, "/v1/1?hold", timeout_s=1.2)
    with pytest.raises(Lost, match="nothing came"):
        await other
    with pytest.raises(NotSent):
        await ask(channel, "/v1/3")


async def test_when_the_connection_breaks_every_call_of_it_is_cancelled(place: Place) -> None:
    channel = await dial(place.url, {}, 5)
    calls = [asyncio.ensure_future(ask(channel, f"/v1/{n}?hold")) for n in range(3)]
    await place.desk.until(lambda: len(place.desk.came) == 3)
    channel.abort()
    await place.desk.until(lambda: len(place.desk.gone) == 3)
    assert {type(end) for end in await asyncio.gather(*calls, return_exceptions=True)} == {Lost}


async def test_a_node_that_closes_its_channels_ends_what_waits_on_them(place: Place) -> None:
    channel = await dial(place.url, {}, 5)
    waiting = asyncio.ensure_future(ask(channel, "/v1/1?hold"))
    await place.desk.until(lambda: len(place.desk.came) == 1)
    place.skin.channels.close()
    with pytest.raises(Lost, match="connection lost"):
        await waiting
    assert channel.closed


async def test_answers_that_are_known_leave_before_a_channel_is_closed(place: Place) -> None:
    reader, writer = await place.raw()
    writer.write(sent([Asked(1, "POST", "/v1/x", "", {}, b"")]))
    await place.desk.until(lambda: len(place.desk.came) == 1)
    await asyncio.sleep(0)
    place.skin.channels.close()
    assert [one.number for one in await answers(reader)] == [1]
    writer.close()


async def test_a_defect_ends_one_call_and_not_the_channel(place: Place) -> None:
    with closing(await dial(place.url, {}, 5)) as channel, capture_logs() as told:
        broken = await ask(channel, "/v1/x?fail")
        assert (broken.status, msgspec.json.decode(broken.body)["code"]) == (500, "internal")
        assert (await ask(channel, "/v1/x")).status == 200
    (line,) = told
    assert isinstance(line.pop("exc_info"), ValueError)
    expected = {"event": "call_failed", "log_level": "error", "method": "POST", "path": "/v1/x"}
    assert line == expected | {"request_id": "r"}
    assert broken.headers["request-id"] == "r"


# -- bad input -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sent", "word"),
    [
        (b"\xff\xff\xff\xff", "4294967295 bytes"),
        ((limits.CHANNEL_FRAME_BYTES_MAX + 1).to_bytes(4, "big"), "are allowed"),
        (b"\0\0\0\1\xc1", "cannot be read"),
        (b"\0\0\0\0", "cannot be read"),
        (b"GET / HTTP/1.1\r\n\r\n", "are allowed"),
        (framed({"calls": []}), "cannot be read"),
        (framed([[[1, "GET", "/", "", {}, "text"]]]), "cannot be read"),
        (framed([[[0, "GET", "/", "", {}, b""]]]), "cannot be read"),
        (framed([[[1, "GET", "/", "", {}, b""], [1, "GET", "/", "", {}, b""]]]), "numbers grow"),
        (framed([[[2, "GET", "/", "", {}, b""], [1, "GET", "/", "", {}, b""]]]), "numbers grow"),
        (framed([[[1, "GET", "/", "", {"x": 1}, b""]]]), "cannot be read"),
        (framed([[], [-1]]), "cannot be read"),
        (framed(None), "cannot be read"),
    ],
)
async def test_what_is_no_frame_ends_the_channel_with_a_word_and_hurts_nobody_else(
    place: Place, sent: bytes, word: str
) -> None:
    with closing(await dial(place.url, {}, 5)) as good:
        reader, writer = await place.raw()
        writer.write(sent)
        last = (await answers(reader))[-1]
        assert (last.number, last.status) == (0, 400)
        assert word in msgspec.json.decode(last.body)["detail"]
        assert await reader.read() == b""
        writer.close()
        assert (await ask(good, "/v1/x")).status == 200


@pytest.mark.parametrize("call", [["GET\n", "/"], ["GET", ""], ["GET", "/a b"], ["GET", "//ö"]])
async def test_a_call_that_no_request_could_carry_is_refused_by_itself(place: Place, call: list[str]) -> None:
    reader, writer = await place.raw()
    writer.write(framed([[[1, *call, "", {}, b""], [2, "POST", "/v1/x", "", {}, b""]]]))
    first, second = sorted(await answers(reader, 2), key=lambda one: one.number)
    assert (first.status, msgspec.json.decode(first.body)["code"]) == (400, "malformed_request")
    assert second.status == 200
    writer.close()


async def test_who_has_gone_need_not_have_called(place: Place) -> None:
    reader, writer = await place.raw()
    writer.write(framed([[[7, "POST", "/v1/x", "", {}, b""]], [1, 5, 7, 9]]))
    writer.write(framed([[[8, "POST", "/v1/x", "", {}, b""]], [7]]))
    assert [one.number for one in await answers(reader)] == [8]
    writer.close()


async def test_frames_before_the_upgrade_are_no_requests(place: Place) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    writer.write(sent([Asked(1, "POST", "/v1/x", "", {}, b"")]))
    assert b" 400 " in await reader.read(65536)
    writer.close()
    assert place.desk.came == []


# -- bounds --------------------------------------------------------------------------------------------------------
async def test_half_a_frame_does_not_stand_for_ever(watchful: Place) -> None:
    reader, writer = await watchful.raw()
    writer.write(framed([[[1, "POST", "/v1/x", "", {}, b""]]])[:-1])
    async with asyncio.timeout(20):
        assert await reader.read() == b""
    assert watchful.desk.came == []
    writer.close()


async def test_an_idle_channel_is_ended_and_one_with_a_call_under_way_is_not(watchful: Place) -> None:
    channel, (idle, writer) = await dial(watchful.url, {}, 5), await watchful.raw()
    waiting = asyncio.ensure_future(ask(channel, "/v1/x?hold"))
    async with asyncio.timeout(20):
        assert await idle.read() == b""
    assert not waiting.done()
    watchful.desk.held.set()
    assert (await waiting).status == 200
    channel.abort()
    writer.close()


async def test_who_does_not_take_his_answers_is_read_no_more_and_ended_in_the_end(watchful: Place) -> None:
    watchful.desk.body = b"x" * 200_000
    with socket.create_connection(("127.0.0.1", watchful.port)) as connection:
        connection.sendall(f"{HEAD}\r\n".encode())
        assert await asyncio.to_thread(connection.recv, 65536)
        (channel,) = watchful.skin.channels._open
        connection.sendall(sent([Asked(number, "POST", "/v1/x", "", {}, b"") for number in range(1, 400)]))
        await watchful.desk.until(lambda: len(watchful.desk.came) >= 20)
        assert channel._transport.get_write_buffer_size() < 2 * limits.CHANNEL_UNSENT_BYTES_MAX
        async with asyncio.timeout(20):
            await channel.ended
        assert len(watchful.desk.came) <= 2 * _BEGUN_AT_ONCE, "each is an answer that the node holds for him"


async def test_a_slow_reader_gets_everything_and_is_read_again(place: Place) -> None:
    place.desk.body = b"x" * 200_000
    reader, writer = await place.raw()
    for number in range(1, 101):
        writer.write(sent([Asked(number, "POST", "/v1/x", "", {}, b"y" * 1000)]))
    await place.desk.until(lambda: len(place.desk.came) >= 20)
    assert sorted(one.number for one in await answers(reader, 100)) == list(range(1, 101))
    writer.write(sent([Asked(101, "POST", "/v1/x", "", {}, b"")]))
    assert [one.number for one in await answers(reader)] == [101]
    writer.close()


async def test_more_bodies_than_a_node_holds_are_read_as_it_works_them_off(place: Place) -> None:
    body = b"x" * 290_000
    with closing(await dial(place.url, {}, 5)) as channel:
        calls = [asyncio.ensure_future(ask(channel, "/v1/x?hold", body)) for _ in range(60)]
        await place.desk.until(lambda: len(place.desk.came) >= limits.CHANNEL_BYTES_MAX // len(body))
        place.desk.held.set()
        assert {answer.status for answer in await asyncio.gather(*calls)} == {200}
