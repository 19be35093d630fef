"""The asyncio client's way to a node: channels where there are some, HTTP where there are none, and what is said of failures."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest
from aiohttp import web

from quorl import channel
from quorl.client import aio_transport
from quorl.client.aio_transport import ChannelTransport
from quorl.client.flow import Failure, Send
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.channel import (
    NAME,
    Answered,
    Asked,
    Frames,
    frames_of_answers,
    read_asking,
)
from quorl.cluster.protocol.wire import Answer, Call

SWITCH = f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {NAME}\r\nConnection: Upgrade\r\n\r\n".encode()


class Node:
    """The other end of a channel, played by the test: it hands over calls, and sends what it is given."""

    def __init__(self) -> None:
        self.dialled = 0
        self.calls: asyncio.Queue[Asked] = asyncio.Queue()
        self.gone: asyncio.Queue[int] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []
        self.switch = SWITCH
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        self.writers.append(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.switch)
            frames = Frames(limits.CHANNEL_FRAME_BYTES_MAX)
            while data := await reader.read(65536):
                for frame in frames.feed(data):
                    asking = read_asking(frame)
                    for call in asking.calls:
                        self.calls.put_nowait(call)
                    for number in asking.gone:
                        self.gone.put_nowait(number)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def answer(self, *numbers: int, body: bytes = b"") -> None:
        self.writers[-1].write(frames_of_answers([Answered(number, 200, {}, body) for number in numbers]))


@pytest.fixture
async def node() -> AsyncIterator[Node]:
    one = Node()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield one
    for writer in one.writers:
        writer.transport.abort()
    server.close()
    await server.wait_closed()


@pytest.fixture
async def transport() -> AsyncIterator[ChannelTransport]:
    one = ChannelTransport()
    yield one
    await one.close()


def send(url: str, body: bytes = b"", *, timeout_s: float = 20.0) -> Send:
    return Send(url, Call("POST", "/v1/x", "", {"idempotency-key": "k"}, body), timeout_s)


def sending(transport: ChannelTransport, one: Send) -> asyncio.Task[Answer | Failure]:
    return asyncio.ensure_future(transport.send(one))


# -- answers -------------------------------------------------------------------------------------------------------
async def test_answers_find_their_callers_in_whatever_order_they_come(node: Node, transport: ChannelTransport) -> None:
    calls = [sending(transport, send(node.url, b"%d" % number)) for number in range(5)]
    came = [await node.calls.get() for _ in calls]
    assert [one.headers["quorl-timeout-ms"] for one in came] == 5 * ["20000"]
    for one in reversed(came):
        node.answer(one.number, body=one.body)
    assert await asyncio.gather(*calls) == [Answer(200, {}, b"%d" % number) for number in range(5)]
    assert node.dialled == 1


async def test_an_answer_that_comes_twice_or_to_nobody_is_passed_over(node: Node, transport: ChannelTransport) -> None:
    first = sending(transport, send(node.url))
    number = (await node.calls.get()).number
    node.answer(number, number, 77)
    assert isinstance(await first, Answer)
    second = sending(transport, send(node.url))
    node.answer(number)
    other = (await node.calls.get()).number
    assert other != number
    assert not second.done()
    node.answer(other, body=b"own")
    assert await second == Answer(200, {}, b"own")


async def test_one_who_goes_away_is_said_to_have_gone(node: Node, transport: ChannelTransport) -> None:
    leaving, staying = sending(transport, send(node.url)), sending(transport, send(node.url))
    numbers = [(await node.calls.get()).number for _ in range(2)]
    leaving.cancel()
    assert await node.gone.get() == numbers[0]
    node.answer(*numbers)
    assert isinstance(await staying, Answer)


async def test_more_calls_than_one_channel_takes_open_another(
    node: Node, transport: ChannelTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CHANNEL_CALLS_MAX", 2)
    calls = []
    for _ in range(4):
        calls.append(sending(transport, send(node.url)))
        await node.calls.get()
    assert node.dialled == 2
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)


# -- what is known of a call that failed ---------------------------------------------------------------------------
async def test_a_call_on_a_connection_that_breaks_may_have_arrived(node: Node, transport: ChannelTransport) -> None:
    calls = [sending(transport, send(node.url)) for _ in range(3)]
    for _ in calls:
        await node.calls.get()
    node.writers[0].transport.abort()
    for failure in await asyncio.gather(*calls):
        assert isinstance(failure, Failure)
        assert failure.kind == "lost"
        assert "connection lost" in failure.why
    again = sending(transport, send(node.url))
    node.answer((await node.calls.get()).number)
    assert isinstance(await again, Answer)
    assert node.dialled == 2


@pytest.mark.parametrize(
    "garbage",
    [b"\xff\xff\xff\xff", b"\0\0\0\1\xc1", frames_of_answers([Answered(0, 400, {}, b"the channel ends")])],
)
async def test_an_answer_that_cannot_be_read_leaves_every_call_in_doubt(
    node: Node, transport: ChannelTransport, garbage: bytes
) -> None:
    call = sending(transport, send(node.url))
    await node.calls.get()
    node.writers[0].write(garbage)
    failure = await call
    assert isinstance(failure, Failure)
    assert failure.kind == "lost"


async def test_a_call_without_an_answer_in_time_may_have_arrived(node: Node, transport: ChannelTransport) -> None:
    first = sending(transport, send(node.url))  # to connect takes its time, too
    node.answer((await node.calls.get()).number)
    await first
    failure = await transport.send(send(node.url, timeout_s=0.3))
    assert isinstance(failure, Failure)
    assert failure == Failure("lost", failure.why)
    assert failure.why.startswith("no answer in 0.")


async def test_a_node_that_is_not_there_was_not_reached(transport: ChannelTransport) -> None:
    assert await transport.send(send("http://127.0.0.1:1")) == Failure("refused", "connection refused")


@pytest.mark.parametrize(("connect_s", "call_s"), [(0.2, 5.0), (5.0, 0.2), (0.2, 0.2)])
async def test_whoever_takes_the_connection_and_says_nothing_is_told_from_who_does_not_take_it(
    node: Node, transport: ChannelTransport, monkeypatch: pytest.MonkeyPatch, connect_s: float, call_s: float
) -> None:
    """Whether the dial is given up first, or by the one who waits for it."""
    node.switch = b""
    monkeypatch.setattr(aio_transport, "CONNECT_TIMEOUT_S", connect_s)
    failure = await transport.send(send(node.url, timeout_s=call_s))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.foreign) == ("silent", False)
    assert failure.why.startswith("it took the connection and said nothing for 0.2 s: a node that hangs, or")


async def test_who_does_not_take_the_connection_in_time_was_not_reached(
    transport: ChannelTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody(*_: object, **__: object) -> object:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", nobody)
    failure = await transport.send(send("http://127.0.0.1:1", timeout_s=0.1))
    assert failure == Failure("unreachable", "time-out while connecting")


@pytest.mark.parametrize("said", [b"SSH-2.0-x\r\n", b"-ERR", b"\x15\x03\x01"])
async def test_what_speaks_no_http_is_known_by_its_first_bytes(
    node: Node, transport: ChannelTransport, said: bytes
) -> None:
    node.switch = said
    failure = await transport.send(send(node.url))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.foreign) == ("refused", True)


async def test_whoever_closes_without_a_word_was_not_sent_the_call(transport: ChannelTransport) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        failure = await transport.send(send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    assert isinstance(failure, Failure)
    assert failure.kind == "silent"


async def test_what_speaks_no_http_is_known_without_a_channel_too_and_may_have_passed_the_call_on() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-x\r\n\r\n")
        writer.close()

    http = aio_transport.HttpTransport()
    async with await asyncio.start_server(speak, "127.0.0.1", 0) as server:
        failure = await http.send(send(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
    await http.close()
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.foreign) == ("lost", True)
    assert "does not speak HTTP" in failure.why


async def test_a_call_that_the_node_was_not_even_read_from_was_not_sent(
    node: Node, transport: ChannelTransport
) -> None:
    first = sending(transport, send(node.url))
    await node.calls.get()
    cast("asyncio.Transport", node.writers[0].transport).pause_reading()
    calls = [sending(transport, send(node.url, b"x" * 500_000, timeout_s=1.0)) for _ in range(60)]
    ends = await asyncio.gather(*calls)
    kinds = {end.kind for end in ends if isinstance(end, Failure)}
    assert kinds == {"lost", "unreachable"}  # those at the end were never handed to the connection
    first.cancel()
    await asyncio.wait([first])


async def test_a_client_that_is_closed_while_it_dials_reaches_nobody(node: Node) -> None:
    node.switch = b""
    transport = ChannelTransport()
    call = sending(transport, send(node.url))
    while not node.dialled:
        await asyncio.sleep(0)
    await transport.close()
    assert await call == Failure("unreachable", "the client is closed")


async def test_a_connection_that_breaks_when_nobody_waits_for_it_any_more_is_no_event() -> None:
    told: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    channel.Channel().connection_lost(None)
    gc.collect()
    assert told == []


# -- servers without channels --------------------------------------------------------------------------------------
async def plain_server(handler: Callable[[web.BaseRequest], int]) -> tuple[web.ServerRunner, str]:
    async def handle(request: web.BaseRequest) -> web.Response:
        return web.Response(status=handler(request), body=await request.read())

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@pytest.mark.parametrize(
    ("status", "asked_again"), [(404, False), (426, False), (400, False), (502, True), (200, True)]
)
async def test_where_there_is_no_channel_calls_go_over_http(
    transport: ChannelTransport, status: int, asked_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "ASK_AGAIN_S", 0.0)
    upgrades = []

    def handler(request: web.BaseRequest) -> int:
        if request.path == "/v1/channel":
            upgrades.append(request.headers["upgrade"])
            return status
        return 201

    runner, url = await plain_server(handler)
    for _ in range(3):
        answer = await transport.send(send(url, b"body"))
        assert isinstance(answer, Answer)
        assert (answer.status, answer.body) == (201, b"body")
    assert upgrades == (3 if asked_again else 1) * [NAME]
    await runner.cleanup()


async def test_what_is_too_large_for_a_frame_goes_over_http(
    transport: ChannelTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REQUEST_BYTES_MAX", 1000)
    paths: list[str] = []

    def handler(request: web.BaseRequest) -> int:
        paths.append(request.path)
        return 413

    runner, url = await plain_server(handler)
    assert isinstance(await transport.send(send(url, b"x" * 1001)), Answer)
    assert isinstance(await transport.send(send(url, b"x" * 1000)), Answer)
    assert paths == ["/v1/x", "/v1/channel", "/v1/x"]
    await runner.cleanup()


# -- time ----------------------------------------------------------------------------------------------------------
async def test_d13_each_call_has_its_own_patience_though_one_timer_watches_all(node: Node) -> None:
    line = channel.Line(node.url, {}, 5.0)
    call = send(node.url).call
    short, long, longest = (asyncio.ensure_future(line.ask(call, {}, wait_s)) for wait_s in (0.1, 0.3, 20.0))
    numbers = [(await node.calls.get()).number for _ in range(3)]
    later = asyncio.ensure_future(line.ask(call, {}, 0.05))
    numbers.append((await node.calls.get()).number)
    for waiting, wait_s in ((later, 0.05), (short, 0.1), (long, 0.3)):
        with pytest.raises(channel.Lost, match=f"no answer in {wait_s:.1f} s"):
            await waiting
    assert [await node.gone.get() for _ in range(3)] == [numbers[3], numbers[0], numbers[1]]
    node.answer(numbers[2], body=b"late")
    assert await longest == Answer(200, {}, b"late")
    await line.close()
