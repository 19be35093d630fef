"""The worker's runtime on real nodes: heartbeats beside busy handlers, processes, and results that outlast an outage."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from quorl.client import App, Worker
from tests.client.pool_tasks import app as pool_app
from tests.harness import LocalCluster, cluster_in

FAST = {"tasks": {"worker_heartbeat_s": 0.5, "worker_dead_after_s": 2}}
BUSY_S = 4.0
"""Twice the silence after which a worker is dead."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    with cluster_in(tmp_path_factory.mktemp("cluster"), sections=FAST) as cluster:
        yield cluster


@contextlib.contextmanager
def working(source: Any, cluster: LocalCluster, queue: str, **options: Any) -> Iterator[list[str]]:
    lines: list[str] = []
    worker = Worker(source, [queue], servers=cluster.urls, write=lines.append, **options)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield lines
    finally:
        worker.stop()
        thread.join(30)
    assert not thread.is_alive(), lines


def burn(seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return "burnt"


async def block(seconds: float) -> str:
    return burn(seconds)


@pytest.mark.slow
def test_neither_a_busy_thread_nor_a_blocked_loop_costs_a_lease(cluster: LocalCluster) -> None:
    app = App(cluster.urls, queue="busy")
    with working({"burn": burn, "block": block}, cluster, "busy"):
        handles = [app.submit(name, BUSY_S) for name in ("burn", "block")]
        assert [one.result(timeout=30) for one in handles] == ["burnt"] * 2
        found = [app.client.tasks.get(one.id) for one in handles]
    assert [(one.attempts, one.lost, len(one.history)) for one in found] == [(1, 0, 1)] * 2
    app.close()


@pytest.mark.slow
def test_processes_on_real_nodes(cluster: LocalCluster) -> None:
    app = App(cluster.urls, queue="processes")
    with working(pool_app.tasks, cluster, "processes", pool="process", concurrency=2):
        where = app.submit("where")
        assert where.result(timeout=30)["task"] == where.id
        listen = app.submit("listen")
        while app.client.tasks.get(listen.id).note != "listening":
            threading.Event().wait(0.02)
        listen.cancel()
        found = app.client.tasks.wait(listen.id, timeout_s=30)
    assert found.status == "CANCELLED"
    app.close()


@pytest.mark.slow
async def test_coroutines_submit_and_wait_in_one_program_with_a_worker(cluster: LocalCluster) -> None:
    app = App(cluster.urls, queue="coroutines")

    @app.task(name="square")
    async def square(n: int) -> int:
        await asyncio.sleep(0)
        return n * n

    async with app:
        worker = app.worker(concurrency=16, write=None)
        running = asyncio.create_task(worker.arun())
        handles = await asyncio.gather(*(square.adelay(n) for n in range(100)))
        seen = {one.id: await one.aresult() async for one in app.as_completed(handles, timeout=30)}
        assert [seen[one.id] for one in handles] == [n * n for n in range(100)]
        worker.stop()
        await running


@pytest.mark.slow
def test_results_outlast_an_outage_and_no_lease_is_lost_in_it(tmp_path: Path) -> None:
    with cluster_in(tmp_path, sections=FAST) as cluster:
        app = App(cluster.urls)
        go = threading.Event()
        with working({"wait": lambda: go.wait(30) and "done"}, cluster, "default") as lines:
            handles = [app.submit("wait") for _ in range(4)]
            while sum(line.startswith("▶") for line in lines) < len(handles):
                threading.Event().wait(0.02)
            for name in ("n1", "n2"):
                cluster[name].kill()
            go.set()
            while not any("heartbeats are not heard" in line for line in lines):
                threading.Event().wait(0.02)
            for name in ("n1", "n2"):
                cluster[name].start()
            assert [one.result(timeout=60) for one in handles] == ["done"] * 4
            found = [app.client.tasks.get(one.id) for one in handles]
        assert [(one.attempts, one.lost, len(one.history)) for one in found] == [(1, 0, 1)] * 4
        app.close()
