"""The axes along which costs are to grow gently: one function each, that yields the figures of its points.

All but one thing stays at the default point: three nodes, one topic, payloads of 200 bytes, a fresh cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.cluster import Cluster
from benchmarks.workloads import Figures
from quorl.client import AsyncClient, crew, load
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w

LOOPS = 64
RESTART_BYTES = 10_000
"""Of each message of the state with which a node starts again."""
LOOKS = 20
SUBMIT_TASKS = 400
PATIENCE_S = 60.0

Points = AsyncIterator[tuple[int, Cluster, Figures]]


class Axis(NamedTuple):
    """What grows, at which points it is measured, and which figures say what it costs."""

    walk: Callable[[Path, Sequence[int], float], Points]
    summary: str
    unit: str
    points: tuple[int, ...]
    figures: tuple[str, ...]
    """Those that are drawn; rates first."""


@contextlib.asynccontextmanager
async def _cluster(place: Path, nodes: int = 3) -> AsyncIterator[tuple[Cluster, AsyncClient]]:
    """A cluster with fresh data and a client at its leader."""
    with Cluster(place, nodes=nodes) as cluster:
        cluster.start()
        async with AsyncClient([cluster.leading().url], timeout_s=PATIENCE_S) as client:
            yield cluster, client


async def _appends(
    client: AsyncClient, topics: Sequence[str], seconds: float, size_bytes: int = load.PAYLOAD_BYTES
) -> Figures:
    """64 appends in flight, to each of the topics in turn; all of them are counted again afterwards."""
    before = [await client.topic(name).size() for name in topics]
    turn, made = itertools.cycle([client.topic(name) for name in topics]), load.payloads(size_bytes)
    warm = await load.in_flight(lambda: next(turn).append(made.value()), LOOPS, min(load.WARM_UP_S, seconds))
    timed = await load.in_flight(lambda: next(turn).append(made.value()), LOOPS, seconds)
    stored = sum([await client.topic(name).size() for name in topics]) - sum(before)
    assert stored == len(warm.took_s) + len(timed.took_s), f"{stored} stored"
    return {**timed.figures(), "appended": stored}


def _append_to(client: AsyncClient, topic: str) -> Callable[[list[t.Message]], Awaitable[object]]:
    return lambda batch: client.call(t.Append(topic=topic, messages=batch))


async def topics(place: Path, points: Sequence[int], seconds: float) -> Points:
    """64 appends in flight to so many topics in turn."""
    async with _cluster(place) as (cluster, client):
        made: list[str] = []
        for point in points:
            for number in range(len(made), point):
                made.append(f"topic-{number}")
                await client.topics.create(made[-1])
            yield point, cluster, {**await _appends(client, made, seconds), "topics": len(await client.topics.list())}


async def messages(place: Path, points: Sequence[int], seconds: float) -> Points:
    """64 appends in flight, and pages of 500, while so many messages are kept already."""
    async with _cluster(place) as (cluster, client):
        await client.topics.create("kept")
        await client.topics.create("fresh")
        for point in points:
            kept = await client.topic("kept").size()
            await load.fill(_append_to(client, "kept"), point - kept)
            kept = await client.topic("kept").size()
            figures = await _appends(client, ["fresh"], seconds)
            pages = await load.in_flight(lambda at=kept // 2: _page(client, at), 1, min(1.0, seconds))  # type: ignore[misc]
            figures |= {"page_p50_ms": pages.figures()["p50_ms"], "page_p99_ms": pages.figures()["p99_ms"]}
            yield point, cluster, figures | {"kept": kept, "node_mb": max(cluster.rss_mb())}


async def _page(client: AsyncClient, offset: int) -> None:
    found = await client.call(t.Browse(topic="kept", start=str(offset), limit=load.BATCH))
    assert found.items


async def finished(place: Path, points: Sequence[int], seconds: float) -> Points:
    """Tasks from submit to settled, 32 per call, and looks at the queue, while so many finished tasks are kept."""
    queue = "finished"
    async with _cluster(place) as (cluster, client):
        await client.call(q.PutQueue(queue=queue, keep_finished_ms=0))
        for point in points:
            kept = (await client.queues.get(queue)).counts.success
            await finish(client, queue, point - kept)
            kept = (await client.queues.get(queue)).counts.success
            figures = await _cycle(client, queue, seconds)
            looks = await load.in_flight(lambda: client.queues.get(queue), 1, min(1.0, seconds))
            yield (
                point,
                cluster,
                figures
                | {
                    "look_p50_ms": looks.figures()["p50_ms"],
                    "kept": kept,
                    "node_mb": max(cluster.rss_mb()),
                },
            )


async def finish(client: AsyncClient, queue: str, count: int) -> None:
    """Submit so many tasks and complete them, without a measurement."""
    if count <= 0:
        return
    worker_id = await crew.register(client, queue, 0)
    left = count
    while left:
        size = min(left, SUBMIT_TASKS)
        await client.call(b.Submit(queue=queue, tasks=[b.NewTask(name="nothing", args=crew.ARGS)] * size))
        claimed = (await client.call(e.Claim(worker_id=worker_id, max=size, wait=crew.CLAIM_WAIT_S))).tasks
        while claimed:
            done = tuple(e.Completion(task_id=task.id, lease=task.lease.token) for task in claimed)
            left -= (await client.call(e.Sync(worker_id=worker_id, complete=done))).accepted
            claimed = (await client.call(e.Claim(worker_id=worker_id, max=size, wait=0))).tasks
    await client.call(w.RemoveWorker(worker_id=worker_id))


async def _cycle(client: AsyncClient, queue: str, seconds: float) -> Figures:
    tally = crew.Tally()
    before = (await client.queues.get(queue)).counts.success

    async def submit() -> str:
        tasks = [b.NewTask(name="nothing", args=crew.ARGS)] * crew.MANY
        return (await client.call(b.Submit(queue=queue, tasks=tasks))).items[0].id

    async with crew.crew(client, queue, tally, crew.work_many, crew.LOOPS):
        figures = await crew.busy(submit, tally, seconds, crew.MANY)
    settled = (await client.queues.get(queue)).counts.success - before
    assert settled == tally.done, f"{settled} settled, {tally.done} counted"
    return figures | {"settled": settled}


async def nodes(place: Path, points: Sequence[int], seconds: float) -> Points:
    """Appends one at a time and 64 in flight, and tasks, in clusters of so many nodes."""
    for point in points:
        async with _cluster(place, point) as (cluster, client):
            await client.topics.create("one")
            await client.topics.create("many")
            alone = await load.warmed(lambda: client.topic("one").append(load.payloads().value()), 1, seconds)
            figures = await _appends(client, ["many"], seconds)
            figures |= {"sync_msgs_s": alone.figures()["msgs_s"], "sync_p50_ms": alone.figures()["p50_ms"]}
            figures |= {"tasks_s": (await _cycle(client, "tasks", seconds))["tasks_s"]} if await _queue(client) else {}
            yield point, cluster, figures | {"members": len((await client.cluster()).members)}


async def _queue(client: AsyncClient) -> bool:
    return (await client.call(q.PutQueue(queue="tasks"))).name == "tasks"


async def payloads(place: Path, points: Sequence[int], seconds: float) -> Points:
    """64 appends in flight of so many bytes each."""
    async with _cluster(place) as (cluster, client):
        for point in points:
            topic = f"payload-{point}"
            await client.topics.create(topic)
            figures = await _appends(client, [topic], seconds, point)
            info = await client.topics.get(topic)
            rate = figures["msgs_s"]
            assert isinstance(rate, int | float)
            yield (
                point,
                cluster,
                figures | {"mb_s": round(rate * point / 1e6, 2), "message_bytes": info.bytes / info.messages},
            )


async def connections(place: Path, points: Sequence[int], seconds: float) -> Points:
    """One append in flight on each of so many clients, every one with a connection of its own."""
    async with _cluster(place) as (cluster, client), contextlib.AsyncExitStack() as stack:
        url = cluster.leading().url
        clients: list[AsyncClient] = []
        await client.topics.create("many")
        for point in points:
            while len(clients) < point:
                clients.append(await stack.enter_async_context(AsyncClient([url], timeout_s=PATIENCE_S)))
            before = await client.topic("many").size()
            turns = iter(clients[:point])
            timed = await _each_its_own([next(turns) for _ in range(point)], seconds)
            stored = await client.topic("many").size() - before
            assert stored == len(timed.took_s), f"{stored} stored"
            yield point, cluster, {**timed.figures(), "appended": stored, "node_mb": max(cluster.rss_mb())}


async def _each_its_own(clients: Sequence[AsyncClient], seconds: float) -> load.Timed:
    """Loops as in ``load.in_flight``, but each on a client of its own; connecting is not timed."""
    await asyncio.gather(*(client.cluster() for client in clients))
    mine = itertools.count()
    homes: dict[asyncio.Task[object] | None, AsyncClient] = {}

    async def call() -> None:
        here = asyncio.current_task()
        if here not in homes:
            homes[here] = clients[next(mine)]
        await homes[here].topic("many").append(load.payloads().value())

    return await load.in_flight(call, len(clients), seconds)


async def restart(place: Path, points: Sequence[int], seconds: float) -> Points:  # noqa: ARG001 - it takes what it takes
    """A follower that was killed is started again with so much state, MB: until it is ready."""
    async with _cluster(place) as (cluster, client):
        await client.topics.create("state")
        for point in points:
            kept = await client.topic("state").size()
            await load.fill(_append_to(client, "state"), point * 10**6 // RESTART_BYTES - kept, RESTART_BYTES)
            node = cluster.following()
            await asyncio.to_thread(cluster.wait_ready, node.name)
            node.kill()
            began = time.perf_counter()
            node.start()
            await asyncio.to_thread(cluster.wait_ready, node.name, timeout_s=600)
            took_s = time.perf_counter() - began
            async with AsyncClient([node.url], timeout_s=PATIENCE_S) as there:
                stored = await there.topic("state").size()
            assert stored == point * 10**6 // RESTART_BYTES, f"{stored} stored"
            size = sum(file.stat().st_size for file in (cluster.directory / node.name).rglob("*") if file.is_file())
            yield (
                point,
                cluster,
                {"ready_s": round(took_s, 2), "disk_mb": round(size / 1e6, 1), "node_mb": max(cluster.rss_mb())},
            )


AXES: dict[str, Axis] = {
    "topics": Axis(topics, "64 appends in flight, to each of so many topics in turn", "topics", (1, 10, 100), ("msgs_s", "p50_ms")),
    "messages": Axis(
        messages, "64 appends in flight, and pages of 500, while so many messages are kept", "messages kept",
        (10**3, 10**4, 10**5, 10**6), ("msgs_s", "p50_ms", "page_p50_ms", "node_mb"),
    ),
    "finished": Axis(
        finished, "tasks, 32 per call, while so many finished ones are kept", "finished tasks kept",
        (10**3, 10**4, 10**5, 10**6), ("tasks_s", "look_p50_ms", "node_mb"),
    ),
    "nodes": Axis(
        nodes, "appends and tasks in clusters of so many nodes", "nodes", (1, 3, 5), ("msgs_s", "sync_msgs_s", "tasks_s")
    ),
    "payloads": Axis(
        payloads, "64 appends in flight of so many bytes", "bytes", (100, 1_000, 10_000, 65_536), ("msgs_s", "mb_s", "p50_ms")
    ),
    "connections": Axis(
        connections, "one append in flight on each of so many connections", "connections",
        (1, 10, 100, 1_000), ("msgs_s", "p50_ms", "node_mb"),
    ),
    "restart": Axis(
        restart, "a killed follower starts again with so much state", "MB of messages", (10, 100, 1_000), ("ready_s", "node_mb")
    ),
}  # fmt: skip
