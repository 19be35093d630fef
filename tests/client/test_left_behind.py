"""What an asyncio client opened in a loop that has ended is ended at once and without a word; a forked process ends only its own copy."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quorl.client import AsyncClient
from quorl.client.aio_transport import AsyncTransport, ChannelTransport, HttpTransport
from quorl.client.flow import Send
from quorl.cluster.protocol.wire import Call
from tests.client.stand_in import StandIn
from tests.client.test_forking import in_child

PATIENCE_S = 10.0


@pytest.fixture(autouse=True)
def transports_are_left_open() -> Iterator[None]:
    """A transport of asyncio complains of not being closed, which it cannot be any more."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


@contextlib.contextmanager
def listening() -> Iterator[tuple[str, socket.socket]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", listener


def serve_one(connection: socket.socket, *, over: str) -> None:
    """Answer the first call on a connection, or open its channel and take the call."""
    connection.settimeout(PATIENCE_S)
    head = connection.recv(65536)
    assert head.endswith(b"\r\n\r\n")
    if over == "http":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    else:
        connection.sendall(b"HTTP/1.1 101 Go on\r\nConnection: Upgrade\r\nUpgrade: quorl-channel/1\r\n\r\n")
        assert connection.recv(65536)


def get(node: str) -> Send:
    return Send(node, Call("GET", "/v1/topics", "", {}, b""), PATIENCE_S)


@contextlib.contextmanager
def after_one_call(over: str) -> Iterator[tuple[AsyncTransport, asyncio.AbstractEventLoop, socket.socket]]:
    """A transport with a connection open, its loop, and the node's end of the connection.

    The call is answered over HTTP, and given up over a channel, once the node has it.
    """
    with listening() as (node, listener):
        transport: AsyncTransport = HttpTransport() if over == "http" else ChannelTransport()
        loop = asyncio.new_event_loop()
        call = loop.create_task(transport.send(get(node)))
        calling = threading.Thread(target=lambda: loop.run_until_complete(asyncio.wait([call])))
        calling.start()
        connection, _ = listener.accept()
        with connection:
            serve_one(connection, over=over)
            if over == "channel":
                loop.call_soon_threadsafe(call.cancel)
            calling.join(PATIENCE_S)
            assert call.cancelled() == (over == "channel")
            yield transport, loop, connection


@pytest.mark.parametrize("over", ["http", "channel"])
@pytest.mark.parametrize("closed", [True, False])
def test_a_node_sees_at_once_that_a_connection_is_left_behind(over: str, closed: bool) -> None:
    """However long somebody may still refer to it."""
    with after_one_call(over) as (transport, loop, connection):
        kept = vars(transport), loop
        opened = [one for one in gc.get_objects() if isinstance(one, asyncio.Transport)]
        assert opened
        if closed:
            loop.close()
        transport.leave_behind()
        while data := connection.recv(65536):  # the call over the channel
            assert over == "channel", data
        assert kept
    if not closed:
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking beside threads is what is tried
@pytest.mark.parametrize("over", ["http", "channel"])
def test_a_forked_process_leaves_the_connection_open_for_its_parent(over: str) -> None:
    with after_one_call(over) as (transport, loop, connection):
        connection.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while connection.recv(65536):
                pass  # that the call over the channel is given up
        connection.settimeout(0.2)

        before = len(list(Path("/proc/self/fd").iterdir()))

        def leave() -> None:
            transport.leave_behind()
            assert len(list(Path("/proc/self/fd").iterdir())) == before - 1, "its copy would keep it open for the node"
            gc.collect()

        assert in_child(leave) == 0
        with pytest.raises(TimeoutError):
            connection.recv(1)  # neither an end nor anything else
        transport.leave_behind()
        connection.settimeout(PATIENCE_S)
        assert connection.recv(65536) == b""
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


@pytest.mark.parametrize("kind", [ChannelTransport, HttpTransport])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking beside threads is what is tried
def test_a_child_goes_on_with_the_client_of_its_parent_whose_loop_goes_on_too(
    cluster: StandIn, kind: Callable[[], AsyncTransport]
) -> None:
    """The child's end of the connections does not take them out of the loop of its parent."""
    client = AsyncClient(cluster.urls[0], timeout_s=60, transport=kind())

    async def append(value: str) -> int:
        return (await client.topic("x").append(value)).offset

    async def fork() -> None:
        await client.topics.create("x")

        def go_on() -> None:
            asyncio.run(append("child"))
            gc.collect()

        assert await append("parent") == 0
        assert in_child(go_on) == 0
        async with asyncio.timeout(30):  # sooner than a call that nobody answers would end
            assert await append("parent") == 2
        await client.close()

    asyncio.run(fork())


@pytest.mark.parametrize("ends", ["closed", "dropped"])
def test_nothing_is_said_of_sessions_that_were_left_behind(
    cluster: StandIn, caplog: pytest.LogCaptureFixture, ends: str
) -> None:
    client = AsyncClient(cluster.servers, timeout_s=5)  # these nodes have no channels
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        asyncio.run(client.topics.create("x"))
        loop = asyncio.new_event_loop()
        loop.run_until_complete(client.topics.list())
        if ends == "closed":
            loop.close()
        asyncio.run(client.topics.list())
        asyncio.run(client.close())
        if ends == "dropped":
            loop.close()
        del loop
        gc.collect()
    told = [str(one.message) for one in warned if "Unclosed" in str(one.message)]
    assert not told
    assert not caplog.records
