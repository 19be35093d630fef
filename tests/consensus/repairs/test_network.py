"""Repairs of the network and of reads, and the pin of the library: who is heard, and what cannot happen at all."""

from __future__ import annotations

import asyncio
import errno
import importlib.metadata
import random
import socket
import zlib
from asyncio import constants
from typing import Any

import pytest
from pysyncobj import pickle

from quorl.cluster.consensus import library
from quorl.cluster.consensus.connection import DATA
from quorl.cluster.consensus.framing import HEADER_BYTES
from quorl.cluster.protocol import limits
from tests.consensus.engines import Group, HandClock, acknowledged
from tests.consensus.network_kit import SECRET, Node, Stranger, addresses, becomes, hello, running
from tests.consensus.repairs.biting import bites
from tests.node.fakecore import Cluster

MESSAGES = "/v1/topics/t/messages"


# -- the library -----------------------------------------------------------------------------------------------------
def test_the_librarys_source_is_the_one_that_the_repairs_were_written_against() -> None:
    assert library.changed_sources() == []


def test_a_changed_source_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(library.SOURCES_SHA256, "syncobj", "0" * 64)
    assert library.changed_sources() == ["syncobj"]


def test_another_version_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "0.3.18")
    with pytest.raises(RuntimeError, match=r"only 0\.3\.17 is known to be mended"):
        library.use(HandClock(), random.Random(1))


# -- what is read from peers -----------------------------------------------------------------------------------------
async def test_s1_nothing_that_comes_from_outside_is_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = pickle.dumps({"type": "append_entries", "term": 99, "commit_index": 9})

    def forbidden(*_: object) -> None:
        raise AssertionError("something was unpickled")

    monkeypatch.setattr(pickle, "loads", forbidden)
    monkeypatch.setattr(pickle, "load", forbidden)
    group = Group(segment_bytes=400)
    a = group.found("a")
    for frame in (evil, zlib.compress(evil), b"", b"\xc1", b"\x81\xa4type", b"\x91\xa1z", b"[]" * 1000):
        a.replica.on_frame("b", frame)
    assert acknowledged(group.write(a, evil)) == [evil], "a payload is bytes, whatever it looks like"
    group.run(0.5)
    group.kill(*"abc")
    group.boot()
    group.connect()
    group.run(3.0)
    assert group["b"].payloads == [b"base", evil]


@bites("accept_retried")
async def test_s2_a_listener_survives_a_lack_of_descriptors(repaired: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if repaired:
        monkeypatch.setattr(constants, "ACCEPT_RETRY_DELAY", 0.02)
    accept = socket.socket.accept
    refused: list[socket.socket] = []

    def fails_once(sock: socket.socket) -> Any:
        if sock not in refused:
            refused.append(sock)
            raise OSError(errno.EMFILE, "too many open files")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", fails_once)
    asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
    places = addresses("a", "b")
    a, b = Node("a", places), Node("b", places)
    async with running(a, b):
        await becomes(lambda: len(refused) >= 2)
        if repaired:
            await a.until_connected("b")
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(a.until_connected("b"), 0.3)


@bites("handshake_deadline")
async def test_s3_strangers_that_say_nothing_are_sent_away(repaired: bool) -> None:
    places = addresses("a", "b")
    a, b = Node("a", places), Node("b", places)
    async with running(a):
        strangers = [await Stranger.visit(a) for _ in range(limits.PENDING_HANDSHAKES_MAX + 20)]
        await becomes(lambda: len(a.network._pending) == limits.PENDING_HANDSHAKES_MAX)
        if repaired:
            await becomes(lambda: not a.network._pending)
            async with running(b):
                await a.until_connected("b")
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(becomes(lambda: not a.network._pending), 0.8)
        for stranger in strangers:
            await stranger.leave()


@bites("early_frames")
async def test_s4_a_stranger_makes_a_node_remember_next_to_nothing(repaired: bool) -> None:
    places = addresses("a", "b")
    a = Node("a", places)

    def kept() -> int:
        return max((c._reader.kept_bytes for c in a.network._connections), default=0)

    async with running(a):
        stranger = await Stranger.visit(a)
        await becomes(lambda: a.network._pending)
        await stranger.send((1 << 24).to_bytes(4, "little") + bytes(HEADER_BYTES - 4) + bytes(1_000_000))
        if repaired:
            await becomes(lambda: not a.network._connections or kept() == 0)
        else:
            await becomes(lambda: kept() >= 1_000_000)
        await stranger.leave()


@bites("proof")
async def test_s6_who_cannot_prove_the_secret_is_not_heard(repaired: bool) -> None:
    places = addresses("a", "b")
    a, b = Node("a", places), Node("b", places, secret=b"another secret than that of the cluster")
    async with running(a, b):
        if repaired:
            await becomes(lambda: a.network.refusals and b.network.refusals)
            assert not a.network.connected
        else:
            await a.until_connected("b")


@bites("fence")
async def test_c10_a_connection_that_was_replaced_is_not_heard(repaired: bool) -> None:
    two = Node("n2", addresses("n1", "n2"))
    async with running(two):
        before, after = await Stranger.visit(two), await Stranger.visit(two)
        await before.get_in(hello("n1", incarnation="before"), SECRET, "n2")
        await two.recorder.until(lambda: two.recorder.count("connected", "n1") == 1)
        await after.get_in(hello("n1", incarnation="after"), SECRET, "n2")
        await two.recorder.until(lambda: two.recorder.count("connected", "n1") == 2)
        await before.say(bytes([DATA]) + b"late")
        if repaired:
            await before.hear_the_end()
            assert two.recorder.frames == []
        else:
            await two.recorder.until(lambda: two.recorder.frames == [("n1", b"late")])
        for stranger in (before, after):
            await stranger.leave()


# -- reads and relayed answers ---------------------------------------------------------------------------------------
async def behind() -> Cluster:
    """A follower that has not applied the newest message, which was acknowledged."""
    cluster = Cluster(deadline_s=0.3)
    assert (await cluster.call("n1", "POST", "/v1/topics", {"name": "t", "partitions": 1}))[0] == 201
    cluster.core("n2").held = True
    assert (await cluster.call("n1", "POST", MESSAGES, {"value": 1}))[0] == 201
    return cluster


@bites("read_barrier")
async def test_c9_a_linearizable_read_shows_what_was_acknowledged_before_it(repaired: bool) -> None:
    cluster = await behind()
    status, body, _ = await cluster.call("n2", "GET", MESSAGES + "?consistency=linearizable")
    assert (status, body.get("items")) == ((503, None) if repaired else (200, []))


@bites("relay_wait")
async def test_c9_an_answer_is_relayed_after_this_node_has_applied_it(repaired: bool) -> None:
    cluster = await behind()
    write = asyncio.ensure_future(cluster.call("n2", "POST", MESSAGES, {"value": 2}))
    for _ in range(50):
        await asyncio.sleep(0)
    assert write.done() is not repaired
    cluster.core("n2").catch_up()
    cluster.group.wake()
    assert (await write)[0] == 201
