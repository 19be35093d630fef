"""The leader is killed again and again under a steady writer: how long nothing is acknowledged, and what is stored."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable

from benchmarks.cluster import Cluster
from quorl.client import AsyncClient
from quorl.client.steady import LOOK_BACK_S, Writer, check


async def failover(cluster: Cluster, topic: str, seconds: float, kills: int) -> dict[str, object]:
    """Kill the leader so many times; ``seconds`` below 4 shorten the quiet between."""
    quiet_s, rejoin_s = min(2.0, seconds), min(4.0, seconds)
    async with AsyncClient(cluster.urls) as client:
        await client.topics.create(topic)
        writer = Writer(cluster.urls, topic)
        await writer.until_steady()
        started = time.perf_counter()
        await asyncio.sleep(quiet_s)
        steady_s = writer.longest_gap_s(started)
        gaps, rejoins = [], []
        for _ in range(kills):
            gaps.append(await _kill_leader(cluster, writer, quiet_s))
            rejoins.append(await _rejoin(cluster, writer, rejoin_s))
            print(f"gap {gaps[-1]:.3f} s, while rejoining {rejoins[-1]:.3f} s", file=sys.stderr)
        await writer.stop()
        return {**_summary(gaps, rejoins, steady_s), **await check(client, topic, writer)}


async def _kill_leader(cluster: Cluster, writer: Writer, quiet_s: float) -> float:
    node = cluster[await asyncio.to_thread(cluster.leader)]
    before = time.perf_counter()
    node.kill()
    await asyncio.sleep(quiet_s)
    await writer.until_steady()
    return writer.longest_gap_s(before - LOOK_BACK_S / 3)


async def _rejoin(cluster: Cluster, writer: Writer, rejoin_s: float) -> float:
    before = time.perf_counter()
    for node in cluster.nodes.values():
        if not node.alive:
            node.start()  # here and not in a thread: it is to die with its parent, which is the thread that starts it
            await asyncio.to_thread(cluster.wait_ready, node.name)
    await asyncio.sleep(rejoin_s)
    await writer.until_steady()
    return writer.longest_gap_s(before)


def _summary(gaps: list[float], rejoins: list[float], steady_s: float) -> dict[str, object]:
    pick: dict[str, Callable[[list[float]], float]] = {"min_s": min, "max_s": max}
    return {
        "median_s": round(sorted(gaps)[len(gaps) // 2], 3),
        **{name: round(choose(gaps), 3) for name, choose in pick.items()},
        "gaps_s": [round(gap, 3) for gap in gaps],
        "steady_gap_s": round(steady_s, 3),
        "rejoin_gaps_s": [round(gap, 3) for gap in rejoins],
    }
