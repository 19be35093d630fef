"""Scenes of what the simulation replaces: real sockets on loopback, real directories. Each returns broken promises too."""

from __future__ import annotations

import asyncio
import errno
import socket
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from quorl.cluster.consensus.connection import DATA
from quorl.cluster.consensus.disk import RealDisk
from quorl.cluster.consensus.framing import HEADER_BYTES
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.port import Damaged, InUse
from quorl.cluster.consensus.statefile import STATE_NAME, SqliteStateFiles
from quorl.cluster.machine.machine import Machine
from quorl.cluster.protocol import limits
from tests.consensus.network_kit import SECRET, Node, Stranger, addresses, hello, running

ENOUGH_S = 20.0
"""What comes at all comes in far less; only a promise that is broken is waited for so long."""


async def comes(right: Callable[[], object]) -> bool:
    """Let the loop turn until a state is reached; whether it was."""
    deadline = monotonic() + ENOUGH_S
    while not right():
        if monotonic() > deadline:
            return False
        await asyncio.sleep(0)
    return True


def on_loopback(scene: Callable[[], Coroutine[Any, Any, list[str]]]) -> list[str]:
    """Play a scene of sockets; chance is the system's, not a seed's."""
    return asyncio.run(scene())


# -- sockets ---------------------------------------------------------------------------------------------------------
@contextmanager
def no_descriptor_at_first() -> Iterator[list[socket.socket]]:
    """Each listener's first accept fails."""
    accept, refused = socket.socket.accept, []

    def fails_once(sock: socket.socket) -> Any:
        if sock not in refused:
            refused.append(sock)
            raise OSError(errno.EMFILE, "too many open files")
        return accept(sock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "accept", fails_once)
        yield refused


def lack_of_descriptors(_seed: int = 1) -> list[str]:
    """Both listeners once have no descriptor left for who comes."""

    async def scene() -> list[str]:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        at = addresses("n1", "n2")
        one, two = Node("n1", at), Node("n2", at)
        with no_descriptor_at_first() as refused:
            async with running(one, two):
                connected = await comes(lambda: len(refused) == 2 and one.network.connected)
        return [] if connected else ["DEAF: a listener that had no descriptor once accepts nobody any more"]

    return on_loopback(scene)


def silent_strangers(_seed: int = 1) -> list[str]:
    """More strangers connect than there are places, and say nothing."""

    async def scene() -> list[str]:
        node = Node("n1", addresses("n1", "n2"))
        async with running(node):
            strangers: list[Stranger] = []
            try:
                deadline = monotonic() + ENOUGH_S
                while (
                    len(node.network._pending) < limits.PENDING_HANDSHAKES_MAX
                ):  # the first may be sent away meanwhile
                    assert monotonic() < deadline, "the places of strangers were never full"
                    strangers.append(await Stranger.visit(node))
                strangers += [await Stranger.visit(node) for _ in range(20)]
                sent_away = await comes(lambda: not node.network._pending)
            finally:
                for each in strangers:
                    await each.leave()
        return [] if sent_away else ["CROWDED: strangers that say nothing keep their places"]

    return on_loopback(scene)


def endless_stranger(_seed: int = 1) -> list[str]:
    """A stranger announces a large frame, and sends of it as much as it can."""

    async def scene() -> list[str]:
        node = Node("n1", addresses("n1", "n2"))
        sent_bytes, most = 1_000_000, 0

        def over() -> bool:
            nonlocal most
            most = max([most, *(c._reader.kept_bytes for c in node.network._connections)])
            return most >= sent_bytes or not node.network._connections

        async with running(node):
            stranger = await Stranger.visit(node)
            assert await comes(lambda: node.network._pending)
            await stranger.send((1 << 24).to_bytes(4, "little") + bytes(HEADER_BYTES - 4) + bytes(sent_bytes))
            assert await comes(over)
            await stranger.leave()
        return [] if most < sent_bytes else [f"CREDULOUS: {most} bytes of a stranger are kept before its proof"]

    return on_loopback(scene)


def wrong_secret(_seed: int = 1) -> list[str]:
    """Somebody has a member's name and address, and another secret."""

    async def scene() -> list[str]:
        at = addresses("n1", "n2")
        one, two = Node("n1", at), Node("n2", at, secret=b"another secret than that of the cluster")
        async with running(one, two):
            assert await comes(lambda: one.network.connected or (one.network.refusals and two.network.refusals))
            let_in = one.network.connected
        return [f"LET-IN: {sorted(let_in)} without the secret"] if let_in else []

    return on_loopback(scene)


def late_frames(_seed: int = 1) -> list[str]:
    """A member's connection is replaced by that of its next life, and then something arrives on the former one."""

    async def scene() -> list[str]:
        node = Node("n2", addresses("n1", "n2"))
        async with running(node):
            before, after = await Stranger.visit(node), await Stranger.visit(node)
            await before.get_in(hello("n1", incarnation="before"), SECRET, "n2")
            assert await comes(lambda: node.recorder.count("connected", "n1") == 1)
            await after.get_in(hello("n1", incarnation="after"), SECRET, "n2")
            assert await comes(lambda: node.recorder.count("connected", "n1") == 2)
            await before.say(bytes([DATA]) + b"late")
            closed = asyncio.ensure_future(before.hear_the_end())
            assert await comes(lambda: node.recorder.frames or closed.done())
            late = list(node.recorder.frames)
            closed.cancel()
            await asyncio.gather(closed, return_exceptions=True)
            for each in (before, after):
                await each.leave()
        return [f"LATE: {late} of a connection that was replaced"] if late else []

    return on_loopback(scene)


# -- directories -----------------------------------------------------------------------------------------------------
def two_processes(_seed: int = 1) -> list[str]:
    """A second node is started on a data directory that is in use."""
    with tempfile.TemporaryDirectory() as directory:
        first, second = RealDisk(directory), RealDisk(directory)
        log = LogStore(first)
        log.setCurrentTerm(5, "b")
        try:
            other = LogStore(second)
        except InUse:
            return []
        finally:
            log._file.close()
            first.close()
        other._file.close()
        second.close()
        return ["TWO-PROCESSES: both may vote in one name"]


def damaged_copy(_seed: int = 1) -> list[str]:
    """A copy of the state arrives with one bit turned over."""
    with tempfile.TemporaryDirectory() as directory:
        there, here = (SqliteStateFiles(Path(directory) / name) for name in ("there", "here"))
        for files in (there, here):
            connection = files.open()
            Machine(connection)
            connection.close()
        snapshot = there.copy()
        content = bytearray(there.read(snapshot, 0, snapshot.size_bytes))
        content[len(content) // 2] ^= 1
        here.receive(0, bytes(content))
        try:
            here.install(snapshot)
        except Damaged:
            pass
        kept = (Path(directory) / "here" / STATE_NAME).read_bytes() != bytes(content)
        return [] if kept else ["SPOILED: a damaged copy has taken the place of the state"]
