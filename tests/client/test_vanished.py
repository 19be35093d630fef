"""What clients and nodes make of a machine that says nothing any more, and of aiohttp's own second tries."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys

import pytest

from quorl.client.aio_transport import HttpTransport
from quorl.client.flow import Failure, Send
from quorl.cluster.api.peers import HttpPeers
from quorl.cluster.node.core import PeerLost, PeerUnreachable
from quorl.cluster.node.internal import PREFIX
from quorl.cluster.protocol.wire import Call
from quorl.vanished import VANISHED_S, notice_vanished
from tests.client.vanishing import WAIT_S
from tests.tools import namespace

DELETE = Call("DELETE", f"{PREFIX}snapshot", "", {}, b"")
"""Of a path that nodes, too, call over HTTP."""


def test_d3_whoever_waits_for_a_machine_that_vanishes_learns_it_soon() -> None:
    """A dead machine closes no connection: without being told to look, the kernel would let each of these wait to its end."""
    command = [*namespace(), sys.executable, "-m", "tests.client.vanishing"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3 * WAIT_S)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert set(told) == {"channel", "http", "sync channel", "sync http", "peer channel", "peer http"}
    for name, (why, took_s) in told.items():
        assert why.startswith("lost: "), f"{name}: {why}"
        assert took_s < WAIT_S / 2, f"{name} took {took_s} s to notice what is to be noticed after {VANISHED_S}"


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
