"""The workloads: one function each, that runs once on a fresh topic and returns its figures.

What each one does is described for readers in ``README.md``.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

from benchmarks.cluster import Cluster
from benchmarks.cycle import task_cycle, task_cycle_32, task_cycle_acks, task_cycle_app, task_cycle_calls
from benchmarks.failover import failover
from quorl.client import AsyncClient, AsyncTopic, load
from quorl.client.aio_transport import AsyncTransport, HttpTransport
from quorl.client.local.processes import LocalNode
from quorl.cluster.protocol import topics as t

STORED = 100_000
REMEMBERED = 1_000_000
SETTLED_S = 10.0
"""So long after the last message memory is looked at again, as with the other systems."""

Figures = dict[str, object]


class Scene(NamedTuple):
    """Where one run takes place."""

    cluster: Cluster
    topic: str
    seconds: float
    runs: int
    """For a workload that runs once: how often it does what it counts."""
    messages: int = REMEMBERED
    """How many ``memory`` stores, and at most ``read``."""


class Workload(NamedTuple):
    """A workload, and how often it runs unless somebody says otherwise."""

    run: Callable[[Scene], Awaitable[Figures]]
    summary: str
    runs: int = 3
    once: bool = False


@contextlib.asynccontextmanager
async def _client_of(
    node: LocalNode, topic: str, transport: AsyncTransport | None = None
) -> AsyncIterator[AsyncClient]:
    async with AsyncClient([node.url], transport=transport) as client:
        await client.topics.create(topic)
        yield client


# -- appending -----------------------------------------------------------------------------------------------------
async def append_sync(scene: Scene) -> Figures:
    """One message at a time."""
    return await _append_each(scene, scene.cluster.leading(), loops=1)


async def append_64(scene: Scene) -> Figures:
    """64 loops on one client, whose appends travel together."""
    return await _append_each(scene, scene.cluster.leading(), loops=64)


async def append_64_follower(scene: Scene) -> Figures:
    """The same at a node that must forward."""
    return await _append_each(scene, scene.cluster.following(), loops=64)


async def _append_each(scene: Scene, node: LocalNode, loops: int) -> Figures:
    async with _client_of(node, scene.topic) as client:
        topic = client.topic(scene.topic)
        made = load.payloads()
        timed = await load.warmed(lambda: topic.append(made.value()), loops, scene.seconds)
        return {**timed.figures()}


async def append_64_calls(scene: Scene) -> Figures:
    """64 loops, one call for each message, all over one channel."""
    return await _append_by_calls(scene)


async def append_64_http(scene: Scene) -> Figures:
    """64 loops, one HTTP request for each message."""
    return await _append_by_calls(scene, HttpTransport())


async def _append_by_calls(scene: Scene, transport: AsyncTransport | None = None) -> Figures:
    async with _client_of(scene.cluster.leading(), scene.topic, transport) as client:
        made = load.payloads()

        async def call() -> None:
            await client.call(t.Append(topic=scene.topic, messages=made.messages(1)))

        timed = await load.warmed(call, 64, scene.seconds)
        return {**timed.figures()}


async def append_batch(scene: Scene) -> Figures:
    """500 messages per call, four calls in flight; the latencies are those of a call."""
    async with _client_of(scene.cluster.leading(), scene.topic) as client:
        made = load.payloads()

        async def call() -> None:
            await client.call(t.Append(topic=scene.topic, messages=made.messages()))

        timed = await load.warmed(call, load.BATCHES_IN_FLIGHT, scene.seconds)
        return {**timed.figures(load.BATCH)}


# -- reading -------------------------------------------------------------------------------------------------------
async def read(scene: Scene) -> Figures:
    """Read what is stored, 500 at a time, three ways."""
    stored = max(load.BATCH, min(STORED, scene.messages) // load.BATCH * load.BATCH)
    async with _client_of(scene.cluster.leading(), scene.topic) as client:
        await load.fill(lambda batch: client.call(t.Append(topic=scene.topic, messages=batch)), stored)
        await asyncio.sleep(min(1.0, scene.seconds))
        browsed = await _read_through(stored, lambda offset: _browse(client, scene.topic, offset))
        topic = client.topic(scene.topic)
        decoded = await _read_through(stored, lambda offset: _browse_decoded(topic, offset))
        consumer = await topic.register_consumer()
        consumed = await _read_through(stored, lambda _: _consume(client, scene.topic, consumer))
    figures = browsed.figures(load.BATCH)
    return {
        **figures,
        "decoded_msgs_s": decoded.figures(load.BATCH)["msgs_s"],
        "consume_msgs_s": consumed.figures(load.BATCH)["msgs_s"],
        "consume_p50_ms": consumed.figures()["p50_ms"],
        "consume_p99_ms": consumed.figures()["p99_ms"],
        "stored": stored,
    }


async def _read_through(stored: int, page: Callable[[int], Awaitable[int]]) -> load.Timed:
    """Read page after page from the beginning to the end."""
    took_s: list[float] = []
    offset = 0
    started = before = time.perf_counter()
    while offset < stored:
        count = await page(offset)
        assert count == load.BATCH, f"{count} messages at {offset}"
        offset += count
        before, after = time.perf_counter(), before
        took_s.append(before - after)
    return load.Timed(time.perf_counter() - started, took_s)


async def _browse(client: AsyncClient, topic: str, offset: int) -> int:
    return len((await client.call(t.Browse(topic=topic, start=str(offset), limit=load.BATCH))).items)


async def _browse_decoded(topic: AsyncTopic, offset: int) -> int:
    return len(await topic.browse(offset, limit=load.BATCH))


async def _consume(client: AsyncClient, topic: str, consumer: int) -> int:
    return len((await client.call(t.Consume(topic=topic, consumer_id=consumer, max=load.BATCH))).items)


# -- memory --------------------------------------------------------------------------------------------------------
async def memory(scene: Scene) -> Figures:
    """The resident memory of every node, MiB, before and after a million messages, 500 per call."""
    async with _client_of(scene.cluster.leading(), scene.topic) as client:
        before = scene.cluster.rss_mb()
        filled = await load.fill(lambda batch: client.call(t.Append(topic=scene.topic, messages=batch)), scene.messages)
        at_end = scene.cluster.rss_mb()
        await asyncio.sleep(min(SETTLED_S, 2 * scene.seconds))
        after = scene.cluster.rss_mb()
        stored = await client.topic(scene.topic).size()
    return {
        "node_mb": max(*at_end, *after),
        "rss_mb_before": before,
        "rss_mb_at_end": at_end,
        "rss_mb_after": after,
        "fill_msgs_s": round(scene.messages / filled.seconds),
        "stored": stored,
    }


async def _failover(scene: Scene) -> Figures:
    return await failover(scene.cluster, scene.topic, scene.seconds, scene.runs)


WORKLOADS: dict[str, Workload] = {
    "append-sync": Workload(append_sync, "one message at a time, each acknowledged before the next"),
    "append-64": Workload(append_64, "64 loops on one client, whose appends travel together"),
    "append-64-calls": Workload(append_64_calls, "64 loops, one call for each message"),
    "append-64-http": Workload(append_64_http, "64 loops, one HTTP request for each message"),
    "append-64-follower": Workload(append_64_follower, "append-64 at a node that does not lead"),
    "append-batch": Workload(append_batch, "500 messages per call, four calls in flight"),
    "read": Workload(read, "100 000 stored messages, 500 at a time: browsed, browsed and decoded, consumed"),
    "task-cycle": Workload(task_cycle, "16 loops submit, 16 workers claim and complete, one task at a time"),
    "task-cycle-calls": Workload(task_cycle_calls, "the same, a call for each of these"),
    "task-cycle-acks": Workload(task_cycle_acks, "the same, and a worker does not wait for the answer to its report"),
    "task-cycle-32": Workload(task_cycle_32, "the same, 32 tasks per call"),
    "task-cycle-app": Workload(task_cycle_app, "the same through an App and `quorl worker run`, four threads"),
    "failover": Workload(
        _failover, "a write every 10 ms while the leader is killed; a run is one kill", runs=5, once=True
    ),
    "memory": Workload(memory, "resident memory of each node before and after 1 000 000 messages", runs=1, once=True),
}
