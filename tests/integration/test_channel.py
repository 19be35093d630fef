"""Channels to real nodes: nothing is lost or doubled when one dies, freezes or is closed under calls that are under way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import pytest

from quorl.client import AsyncClient, OutcomeUnknown, Unavailable
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.channel import NAME, PATH
from tests import taskkit as kit
from tests.harness import LocalCluster, cluster_in, converge, stored


def one_message(number: int) -> t.Append:
    return t.Append(topic="written", messages=[t.Message(value=msgspec.Raw(b"%d" % number))])


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_d7_a_node_that_ends_amid_many_calls_loses_and_doubles_none(own_cluster: LocalCluster, how: str) -> None:
    acknowledged: set[int] = set()
    some = {count: asyncio.Event() for count in (300, 900)}

    async def trouble() -> None:
        for event in some.values():
            await event.wait()
            leader = own_cluster[own_cluster.leader()]
            if how == "killed":
                leader.kill()
            else:
                await asyncio.to_thread(leader.stop)
            await asyncio.to_thread(leader.start)
            await asyncio.to_thread(own_cluster.wait_ready)

    async with AsyncClient(own_cluster.urls, timeout_s=20) as client:
        await client.topics.create("written")

        async def write(numbers: range) -> None:
            for number in numbers:
                with contextlib.suppress(OutcomeUnknown, Unavailable):
                    await client.call(one_message(number))
                    acknowledged.add(number)
                for count, event in some.items():
                    if len(acknowledged) >= count:
                        event.set()

        await asyncio.gather(trouble(), *(write(range(start, 2_000, 50)) for start in range(50)))
    converge(own_cluster)
    found = Counter(message.value for message in stored(own_cluster["n1"], "written"))
    assert acknowledged - set(found) == set()
    assert [number for number, times in found.items() if times > 1] == []
    assert len(acknowledged) > 1_000


async def test_a_caller_who_goes_away_from_a_channel_is_granted_nothing(cluster: LocalCluster) -> None:
    for url in cluster.urls:
        queue = kit.fresh("channel-gone")
        async with AsyncClient(url) as client:
            ids = [
                (
                    await client.call(w.RegisterWorker(name=f"{queue}-{n}", queues=(queue,), dead_after_ms=60_000))
                ).worker_id
                for n in range(2)
            ]
            gone, there = (asyncio.ensure_future(client.call(e.Claim(worker_id=one, wait=20))) for one in ids)
            await asyncio.to_thread(kit.wait_running, cluster, 2)
            gone.cancel()
            await asyncio.wait([gone])
            await asyncio.to_thread(kit.wait_running, cluster, 1)
            task_id = (await client.submit(queue, [b.NewTask(name="nothing")]))[0].id
            assert [task.id for task in (await there).tasks] == [task_id]


async def test_a_node_that_freezes_is_left_and_its_calls_happen_once(own_cluster: LocalCluster) -> None:
    async with AsyncClient(own_cluster.urls, timeout_s=20) as client:
        await client.topics.create("written")
        await client.call(one_message(0))
        leader = own_cluster[own_cluster.leader()]
        leader.pause()
        try:
            await asyncio.gather(*(client.call(one_message(number)) for number in range(1, 50)))
        finally:
            leader.resume()
    converge(own_cluster)
    assert sorted(message.value for message in stored(own_cluster["n1"], "written")) == list(range(50))


async def test_thousands_of_calls_on_one_client(cluster: LocalCluster) -> None:
    async with AsyncClient(cluster.urls, timeout_s=60) as client:
        await client.topics.create("thousands")
        await client.call(t.GetTopic(topic="thousands"))
        request = t.Append(topic="thousands", messages=[t.Message(value=msgspec.Raw(b"1"))])
        await asyncio.gather(*(client.call(request) for _ in range(3_000)))
        assert (await client.call(t.GetTopic(topic="thousands"))).messages == 3_000


def upgraded(url: str) -> socket.socket:
    where = urlsplit(url)
    connection = socket.create_connection((where.hostname, where.port), timeout=20)
    head = f"GET {PATH} HTTP/1.1\r\nHost: {where.netloc}\r\nConnection: Upgrade\r\nUpgrade: {NAME}\r\n\r\n"
    connection.sendall(head.encode())
    assert connection.recv(65536).startswith(b"HTTP/1.1 101 ")
    return connection


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """One node alone, without tasks: neither an election nor the passing of time adds an entry."""
    with cluster_in(tmp_path_factory.mktemp("still"), size=1) as cluster:
        yield cluster


async def test_what_is_no_frame_is_told_so_and_changes_nothing(still: LocalCluster) -> None:
    before = converge(still)
    for garbage in (b"\xff" * 100, b"\0\0\0\1\xc1", b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\2\x91\x90"):
        with contextlib.closing(upgraded(still.urls[0])) as connection:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            said = b""
            while data := connection.recv(65536):
                said += data
            assert (b"malformed_request" in said) == (garbage[-2:] != b"\x91\x90")
    assert converge(still) == before


async def test_half_a_frame_and_then_nothing_is_no_call(still: LocalCluster) -> None:
    before = converge(still)
    with contextlib.closing(upgraded(still.urls[0])) as connection:
        connection.sendall(b"\0\0\1\0\x91")
    assert converge(still) == before


async def test_writes_and_waiting_reads_share_one_channel(cluster: LocalCluster) -> None:
    async with AsyncClient(cluster.urls[0]) as client:
        await client.topics.create("shared")
        waiting = asyncio.ensure_future(client.topic("shared").browse(0, wait_s=20))
        await asyncio.gather(*(client.topic("shared").append(number) for number in range(10)))
        assert len(await waiting) >= 1


def test_d13_one_client_goes_on_in_the_next_event_loop(cluster: LocalCluster) -> None:
    """As programs do that call ``asyncio.run`` now and then: the channels of the loop before are of no use to anybody."""
    client = AsyncClient(cluster.urls, timeout_s=5)
    topic = kit.fresh("loops")

    async def append(number: int) -> int:
        return (await client.topic(topic).append(number)).offset

    async def close() -> None:
        assert await client.topic(topic).size() == 4
        await client.close()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of those channels
        asyncio.run(client.topics.create(topic))
        before = sockets()
        assert [asyncio.run(append(number)) for number in range(4)] == [0, 1, 2, 3]
        gc.collect()  # a transport refers to itself
        assert sockets() <= before + 1, "only those of the last loop are left"
        asyncio.run(close())
        gc.collect()


def sockets() -> int:
    """How many this process has."""
    links = list(Path("/proc/self/fd").iterdir())  # whole before it is looked at: its own entry is gone by then
    return sum(link.is_symlink() and str(link.readlink()).startswith("socket:") for link in links)
