"""What it costs a node to be looked at: fifty open pages, each with its stream and the history that it reads every five seconds."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import aiohttp
import pytest

from tests.harness import call, cluster_in
from tests.taskkit import submit

PAGES = 50
HISTORY_EVERY, COARSE_EVERY = 5, 10
"""After so many overviews, of which one comes a second, ``cluster/dashboard/ui/history.js`` reads it again."""
SETTLE, MEASURED = 6, 15
"""Overviews until all is open, and while the node is measured."""
SHARE_MAX = 0.05


def cpu_s(pid: int) -> float:
    """The time that a process has spent on a processor, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Page:
    """What one open overview asks for, and how it reads."""

    def __init__(self, session: aiohttp.ClientSession, url: str, number: int) -> None:
        self._session, self._url = session, url
        self._next = number % HISTORY_EVERY
        self.overviews = 0
        self.came = asyncio.Event()
        """Set with each overview."""

    async def live(self) -> None:
        """Listen, and read the history as often as the page does."""
        async with self._session.get(f"{self._url}/v1/events?channels=overview,tasks,topics") as stream:
            async for line in stream.content:
                if line == b"event: overview\n":
                    self.overviews += 1
                    self.came.set()
                    if self.overviews > self._next:
                        await self._history()

    async def _history(self) -> None:
        fine = await (await self._session.get(f"{self._url}/v1/history?step=1")).json()
        coarse = await (await self._session.get(f"{self._url}/v1/history?step=10")).json()
        older = bool(coarse["at_ms"]) and coarse["at_ms"][0] < fine["since_ms"]
        self._next = self.overviews + (COARSE_EVERY if older else HISTORY_EVERY)

    async def seen(self, overviews: int) -> None:
        """Wait until so many overviews have come."""
        while self.overviews < overviews:
            self.came.clear()
            await self.came.wait()


async def share(url: str, pid: int) -> float:
    """The share of a core that the node takes while the pages are open."""
    async with (
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(), read_bufsize=2**20
        ) as session,
        asyncio.TaskGroup() as group,
    ):
        pages = [Page(session, url, number) for number in range(PAGES)]
        opened = [group.create_task(page.live()) for page in pages]
        for page in pages:
            await page.seen(SETTLE)
        before, began = cpu_s(pid), time.monotonic()
        for page in pages:
            await page.seen(SETTLE + MEASURED)
        found = (cpu_s(pid) - before) / (time.monotonic() - began)
        for one in opened:
            one.cancel()
    return found


@pytest.mark.slow
def test_fifty_open_pages_cost_a_node_less_than_a_twentieth_of_a_core(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster:
        node = cluster.nodes["n1"]
        for queue in ("payments", "emails", "imports"):
            submit(node.url, queue, *[{"name": "add", "args": [n]} for n in range(50)])
        assert call(node.url, "POST", "/v1/topics", {"name": "orders"}).status == 201
        assert node.process is not None
        found = asyncio.run(share(node.url, node.process.pid))
        assert found < SHARE_MAX, f"{found:.3f} of a core with {PAGES} pages open"
        print(f"{found:.3f} of a core with {PAGES} pages open")
