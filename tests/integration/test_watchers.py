"""What it costs a node to be looked at: fifty open pages, each with its stream and the history that it reads every five seconds."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import aiohttp
import pytest

from tests.harness import call, cluster_in
from tests.taskkit import submit

PAGES = 50
HISTORY_EVERY_S, COARSE_EVERY_S = 5.0, 10.0
"""As ``cluster/dashboard/ui/history.js`` reads it, by the second or in steps of ten."""
SETTLE_S = 6.0
MEASURED_S = 15.0
SHARE_MAX = 0.05


def cpu_s(pid: int) -> float:
    """The time that a process has spent on a processor, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def page(session: aiohttp.ClientSession, url: str, number: int) -> None:
    """What one open overview asks for, and how it reads."""

    async def listen() -> None:
        async with session.get(f"{url}/v1/events?channels=overview,tasks,topics") as stream:
            async for _ in stream.content.iter_any():
                pass

    async def history() -> None:
        await asyncio.sleep(HISTORY_EVERY_S * number / PAGES)  # nobody opens fifty pages at once
        while True:
            fine = await (await session.get(f"{url}/v1/history?step=1")).json()
            coarse = await (await session.get(f"{url}/v1/history?step=10")).json()
            await asyncio.sleep(COARSE_EVERY_S if coarse["at_ms"][0] < fine["since_ms"] else HISTORY_EVERY_S)

    await asyncio.gather(listen(), history())


async def share(url: str, pid: int, pages: int) -> float:
    """The share of a core that the node takes while so many pages are open."""
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout()) as session,
        asyncio.TaskGroup() as group,
    ):
        opened = [group.create_task(page(session, url, number)) for number in range(pages)]
        await asyncio.sleep(SETTLE_S)
        before = cpu_s(pid)
        await asyncio.sleep(MEASURED_S)
        spent = cpu_s(pid) - before
        for one in opened:
            one.cancel()
    return spent / MEASURED_S


@pytest.mark.slow
def test_fifty_open_pages_cost_a_node_less_than_a_twentieth_of_a_core(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster:
        node = cluster.nodes["n1"]
        for queue in ("payments", "emails", "imports"):
            submit(node.url, queue, *[{"name": "add", "args": [n]} for n in range(50)])
        assert call(node.url, "POST", "/v1/topics", {"name": "orders"}).status == 201
        assert node.process is not None
        alone = asyncio.run(share(node.url, node.process.pid, 0))
        watched = asyncio.run(share(node.url, node.process.pid, PAGES))
        print(f"{watched:.3f} of a core with {PAGES} pages open, {alone:.3f} with none")
        assert watched - alone < SHARE_MAX, f"{watched:.3f} of a core with {PAGES} pages open, {alone:.3f} with none"
