"""What the network asks of an event loop, whichever it is: d2, d14."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from quorl.cluster.consensus.connection import Connection, pack_data
from quorl.cluster.consensus.dialling import Resolver, connect
from quorl.cluster.consensus.handshake import Handshake, Refused
from tests.consensus.network_kit import Node, addresses, becomes, running, settled


class Book:
    """An owner who writes down what it is told, and gives up a dial in the turn in which it comes up."""

    def __init__(self) -> None:
        self.dial: asyncio.Task[None] | None = None
        self.begun: list[Connection] = []
        self.lost: list[Connection] = []

    def begin(self, connection: Connection) -> Handshake | None:
        self.begun.append(connection)
        if self.dial is not None:
            self.dial.cancel()
        return None

    def settle(self, connection: Connection) -> bool:
        raise AssertionError

    def up(self, connection: Connection) -> None:
        raise AssertionError

    def on_data(self, peer: str, frame: bytes, /) -> None:
        raise AssertionError

    def on_ping(self, peer: str, gossip: bytes, /) -> None:
        raise AssertionError

    def refused(self, connection: Connection, refused: Refused) -> None:
        raise AssertionError

    def gone(self, connection: Connection) -> None:
        self.lost.append(connection)


@contextmanager
def accepting() -> Iterator[tuple[socket.socket, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener, listener.getsockname()[1]


async def test_d2_a_dial_that_is_given_up_as_it_comes_up_is_lost_once() -> None:
    """Else nobody would know that it is gone, and the network would wait for its end when it closes."""
    book = Book()
    with accepting() as (_, port):
        book.dial = asyncio.ensure_future(
            connect(Resolver(), "127.0.0.1", port, 5, lambda: Connection(book, 5, "n2")),
        )
        with pytest.raises(asyncio.CancelledError):
            await book.dial
        await becomes(lambda: book.lost)
        for _ in range(10):
            await asyncio.sleep(0)
    assert len(book.begun) == 1
    assert book.lost == book.begun
    assert not book.lost[0].open


async def test_a_dial_that_never_came_up_is_not_lost() -> None:
    book = Book()
    with accepting() as (_, port):
        pass
    with pytest.raises(Exception, match="connection refused"):
        await connect(Resolver(), "127.0.0.1", port, 5, lambda: Connection(book, 5, "n2"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert book.begun == book.lost == []


async def test_d2_what_is_sent_leaves_at_once_and_not_behind_what_this_turn_still_does() -> None:
    """The followers write while the leader does: with its fsync before the frames, each append would take two of them."""
    at = addresses("n1", "n2")
    one, two = Node("n1", at), Node("n2", at)
    async with running(one, two):
        await settled(one, two)
        (connection,) = one.network._connections
        assert connection._transport is not None
        assert connection.buffered_bytes == 0
        assert one.network.send("n2", b"an entry")
        assert connection.buffered_bytes == 0
        await two.recorder.until(lambda: two.recorder.frames == [("n1", b"an entry")])


async def test_d2_a_frame_is_with_the_system_before_send_returns() -> None:
    class Mute(asyncio.Protocol):
        pass

    with accepting() as (listener, port):
        book = Book()
        transport, _ = await asyncio.get_running_loop().create_connection(Mute, "127.0.0.1", port)
        there, _ = listener.accept()
        with there:
            connection = Connection(book, 5, None)
            connection._transport = transport
            assert connection.send(pack_data(b"an entry"))
            there.settimeout(5)
            assert there.recv(100) == pack_data(b"an entry")  # the loop has not had a turn meanwhile
            transport.abort()
            await asyncio.sleep(0)
