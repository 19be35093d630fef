"""What clients and nodes make of a machine that says nothing any more, and of aiohttp's own second tries."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
import sys

import pytest
from typing_extensions import override

from quorl.channel import dial
from quorl.client.aio_transport import HttpTransport
from quorl.client.cli.common import Exit
from quorl.client.errors import OWN_LINK
from quorl.client.flow import Failure, Send
from quorl.cluster.api.peers import HttpPeers
from quorl.cluster.node.core import PREFIX, PeerLost, PeerUnreachable
from quorl.cluster.node.gateway import DEADLINE_S
from quorl.cluster.protocol.channel import NAME
from quorl.cluster.protocol.wire import Call
from quorl.vanished import OPTIONS, VANISHED_S, notice_vanished
from tests.client.vanishing import WAIT_S
from tests.tools import namespace

DELETE = Call("DELETE", f"{PREFIX}snapshot", "", {}, b"")
"""Of a path that nodes, too, call over HTTP."""


@pytest.mark.parametrize("cable", ["theirs", "ours"])
def test_d3_whoever_waits_for_a_machine_that_vanishes_learns_it_soon(cable: str) -> None:
    """A dead machine closes no connection: without being told to look, the kernel would let each of these wait to its end.

    So would it where its own link is down, though a machine with a second one may reach the others.
    """
    command = [*namespace(), sys.executable, "-m", "tests.client.vanishing", cable]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=1.5 * WAIT_S)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"channel", "http", "sync channel", "sync http", "peer channel", "peer http"}
    for name, (why, took_s) in told.items():
        assert why.startswith("lost: "), f"{name}: {why}"
        assert took_s < WAIT_S / 2, f"{name} took {took_s} s to notice what is to be noticed after {VANISHED_S}"


LINKLESS = """
import asyncio, sys
from quorl import AsyncClient, Client, Unavailable
from quorl.client.cli import main
servers = "10.0.0.1,10.0.0.2"
async def ask():
    async with AsyncClient(servers, timeout_s=30, refused_s=0.1) as client:
        await client.topics.list()
def ask_sync():
    with Client(servers, timeout_s=30, refused_s=0.1) as client:
        client.topics.list()
for way in (ask_sync, lambda: asyncio.run(ask())):
    try:
        way()
    except Unavailable as error:
        print(error.hint)
sys.argv = ["quorl", "-s", servers, "topic", "ls"]
sys.exit(main())
"""


def test_who_has_no_link_himself_is_not_asked_whether_the_cluster_runs() -> None:
    done = subprocess.run(
        [*namespace(), sys.executable, "-c", LINKLESS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout.splitlines() == [f"Nothing was applied. {OWN_LINK}"] * 2, done.stderr
    assert f"try    Nothing was applied. {OWN_LINK}\n" in done.stderr
    assert done.returncode == Exit.UNAVAILABLE


@pytest.mark.parametrize("gone", [False, True])
def test_a_connection_that_cannot_be_told_to_notice_it_is_used_all_the_same(gone: bool) -> None:
    """Some event loops show no sockets, and macOS refuses options of a connection that the other side has closed."""

    class Refusing:
        asked = 0

        def setsockopt(self, *_option: int) -> None:
            self.asked += 1
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    refusing = Refusing()
    notice_vanished(refusing if gone else None)
    assert refusing.asked == gone


def test_one_packet_that_is_lost_is_not_a_machine_that_vanished() -> None:
    """Linux gives an idle connection up at the first look after the bound is over, and looks when it has asked before, too."""
    told = {name: value for level, name, value in OPTIONS if level == socket.IPPROTO_TCP}
    first_s, again_s = told[socket.TCP_KEEPIDLE], told[socket.TCP_KEEPINTVL]
    late_s = 0.2  # its timers may be late by as much
    asked_again_s = first_s + again_s
    assert asked_again_s + 2 * late_s < told[socket.TCP_USER_TIMEOUT] / 1000 < asked_again_s + again_s


class Full(asyncio.Protocol):
    """A node that takes nothing in until it is told to."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.ended = asyncio.get_running_loop().create_future()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.pause_reading()
        transport.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {NAME}\r\n\r\n".encode())

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(exc)


async def test_a_node_that_takes_no_more_is_not_taken_for_one_that_vanished() -> None:
    """It reads on when it has worked off what came; Linux would break the connection off, and all calls on it."""
    loop = asyncio.get_running_loop()
    nodes: list[Full] = []

    def accept() -> Full:
        nodes.append(Full())
        return nodes[-1]

    async with await loop.create_server(accept, "127.0.0.1", 0) as server:
        channel = await dial(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", {}, 10.0)
        assert channel._transport is not None
        connection = channel._transport.get_extra_info("socket")

        def bound_ms() -> int:
            return int(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))

        usual_ms = bound_ms()
        assert 0 < usual_ms < 1000 * DEADLINE_S
        large = Call("POST", "/v1/topics/t/messages", "", {}, bytes(1024 * 1024))
        while not channel._is_congested():
            channel.begin(large, {}, 60.0, lambda _: None)
            await asyncio.sleep(0)
        assert bound_ms() >= 1000 * DEADLINE_S
        assert nodes[0].transport is not None
        nodes[0].transport.resume_reading()
        while channel._is_congested():
            await asyncio.sleep(0)
        assert bound_ms() == usual_ms
        channel.abort()
        await nodes[0].ended


class Once:
    """A server that takes one call, breaks off, and is not there any more."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._server is not None
        await reader.readuntil(b"\r\n\r\n")
        self._server.close()
        writer.transport.abort()


async def test_d7_a_call_that_may_have_arrived_is_not_said_to_have_met_nobody() -> None:
    """aiohttp makes it again by itself, meets nobody, and its error says that alone."""
    once, transport = Once(), HttpTransport()
    await once.start()
    said = await transport.send(Send(f"http://127.0.0.1:{once.port}", DELETE, 10.0))
    assert isinstance(said, Failure)
    assert (said.kind, said.why) == ("lost", "connection refused")
    said = await transport.send(Send(f"http://127.0.0.1:{once.port}", DELETE, 10.0))
    assert isinstance(said, Failure)
    assert said.kind == "refused"
    await transport.close()


async def test_d7_a_node_does_not_take_a_call_that_may_have_arrived_for_one_that_did_not() -> None:
    once = Once()
    await once.start()
    peers = HttpPeers({"n2": f"127.0.0.1:{once.port}"}, "")
    with pytest.raises(PeerLost):
        await peers.call("n2", DELETE, 10.0)
    with pytest.raises(PeerUnreachable):
        await peers.call("n2", DELETE, 10.0)
    await peers.close()
