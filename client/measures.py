"""What `quorl bench` measures at a cluster that runs: each function makes its own topic or queue and removes it again.

Figures are counted, and the cluster is asked afterwards whether it counts the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from quorl.client import crew, load, steady
from quorl.client.aio import AsyncClient
from quorl.client.errors import QuorlError, Unavailable
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.system import TransferLeadership

Figures = dict[str, object]

PREFIX = "quorl-bench-"
_LOOK_S = 0.05
"""How often it is looked whether another node leads."""
_WAITING: tuple[q.PurgeState, ...] = ("SCHEDULED", "QUEUED", "RETRY")
_FINISHED: tuple[q.PurgeState, ...] = ("SUCCESS", "FAILED", "CANCELLED", "EXPIRED")


@contextlib.asynccontextmanager
async def own_topic(client: AsyncClient) -> AsyncIterator[str]:
    """A topic that nobody else has; it goes with all that is in it."""
    name = PREFIX + secrets.token_hex(4)
    await client.topics.create(name)
    try:
        yield name
    finally:
        await client.topics.delete(name)


@contextlib.asynccontextmanager
async def own_queue(client: AsyncClient) -> AsyncIterator[str]:
    """A queue that nobody else has; it goes with all its tasks."""
    name = PREFIX + secrets.token_hex(4)
    await client.queues.put(name)
    try:
        yield name
    finally:
        await client.queues.purge(name, _WAITING)
        await client.queues.purge(name, _FINISHED)
        await client.queues.delete(name)


async def produce(client: AsyncClient, seconds: float, loops: int, batch: int, size: int) -> Figures:
    """So many loops that append ``batch`` messages of ``size`` bytes per call; ``stored`` is what the topic holds then."""
    made = load.payloads(size)
    async with own_topic(client) as topic:

        async def call() -> None:
            await client.append(topic, made.messages(batch))

        timed = await load.in_flight(call, loops, seconds)
        figures = timed.figures(batch)
        appended = len(timed.took_s) * batch
        return {
            **figures,
            "max_ms": load.percentile_ms(timed.took_s, 1.0),
            "mb_s": round(figures["msgs_s"] * size / 1e6, 2),
            "appended": appended,
            "stored": await client.topic(topic).size(),
        }


async def consume(client: AsyncClient, messages: int, batch: int, size: int) -> Figures:
    """Store so many messages, then consume them, so many per request; ``received`` counts each offset once."""
    async with own_topic(client) as topic:
        await load.fill(lambda some: client.call(t.Append(topic=topic, messages=some)), messages, size)
        consumer = await client.topic(topic).register_consumer()
        took_s: list[float] = []
        offsets: set[int] = set()
        started = time.perf_counter()
        while len(offsets) < messages:
            before = time.perf_counter()
            items = (await client.call(t.Consume(topic=topic, consumer_id=consumer, max=batch))).items
            took_s.append(time.perf_counter() - before)
            if not items:
                break
            offsets.update(item.offset for item in items)
        seconds = time.perf_counter() - started
        return {
            "msgs_s": round(len(offsets) / seconds),
            "p50_ms": load.percentile_ms(took_s, 0.5),
            "p99_ms": load.percentile_ms(took_s, 0.99),
            "stored": await client.topic(topic).size(),
            "received": len(offsets),
        }


async def tasks(client: AsyncClient, seconds: float, loops: int, workers: int, batch: int) -> Figures:
    """So many loops that submit ``batch`` tasks per call, and workers in this process that run nothing and say so."""
    async with own_queue(client) as queue:
        tally = crew.Tally()
        how = crew.work_singly if batch == 1 else crew.work_many
        async with crew.crew(client, queue, tally, how, workers):
            figures = await crew.busy(_submitting(client, queue, batch), tally, seconds, batch, loops)
        counts = (await client.queues.get(queue)).counts
        return {**figures, "completed": tally.done, "succeeded": counts.success}


def _submitting(client: AsyncClient, queue: str, count: int) -> crew.Submit:
    if count == 1:
        return lambda: crew.submit_singly(client, queue, "bench")

    async def submit() -> str:
        some = [b.NewTask(name="bench", args=crew.ARGS) for _ in range(count)]
        return (await client.call(b.Submit(queue=queue, tasks=some))).items[0].id

    return submit


async def latency(client: AsyncClient, seconds: float) -> dict[str, Figures]:
    """One thing at a time on an otherwise idle topic and queue, each for so many seconds."""
    found: dict[str, Figures] = {}
    async with own_topic(client) as name:
        topic = client.topic(name)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "append": lambda: topic.append(load.payloads().value()),
            "read, local": lambda: client.call(t.GetSize(topic=name), consistency="local"),
            "read, linearizable": lambda: client.call(t.GetSize(topic=name), consistency="linearizable"),
        }
        for what, call in calls.items():
            found[what] = _spread((await load.in_flight(call, 1, seconds)).took_s)
    async with own_queue(client) as queue:
        tally = crew.Tally()
        async with crew.crew(client, queue, tally, crew.work_singly, 1):
            found["submit to start"] = _spread(await crew.idle_times(_submitting(client, queue, 1), tally, seconds))
    return found


def _spread(took_s: list[float]) -> Figures:
    shares = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "max_ms": 1.0}
    return {"count": len(took_s)} | {name: load.percentile_ms(took_s, share) for name, share in shares.items()}


# -- failover ------------------------------------------------------------------------------------------------------
async def failover(
    client: AsyncClient, nodes: list[str], seconds: float, *, transfer: bool, told: Callable[[str], None]
) -> Figures:
    """Write every 10 ms until the lead has changed, at most so many seconds; then count what is stored.

    ``transfer`` asks the leader to hand over. Otherwise somebody has to kill it, and ``told`` hears whom.
    Raises ``Unavailable`` when there is no leader in the beginning, and ``TimeoutError`` when it stays the same.
    """
    before = await client.cluster()
    if before.leader is None:
        raise Unavailable("there is no leader whose end could be measured")
    async with own_topic(client) as topic:
        writer = steady.Writer(nodes, topic)
        try:
            await writer.until_steady()
            began = time.perf_counter()
            if transfer:
                await client.call(TransferLeadership())
            told(before.leader)
            leader, term = await _next_leader(client, before.term, seconds)
            await asyncio.sleep(steady.LOOK_BACK_S)
            await writer.until_steady()
            gap_s = writer.longest_gap_s(began - steady.LOOK_BACK_S / 3)
        finally:
            await writer.stop()
        counted = await steady.check(client, topic, writer)
    return {"from": before.leader, "to": leader, "term": term, "gap_s": round(gap_s, 3), **counted}


async def _next_leader(client: AsyncClient, term: int, seconds: float) -> tuple[str, int]:
    async with asyncio.timeout(seconds):
        while True:
            with contextlib.suppress(QuorlError):  # the node that was asked has gone: another one is, next time
                now = await client.cluster()
                if now.leader is not None and now.term > term:
                    return now.leader, now.term
            await asyncio.sleep(_LOOK_S)
