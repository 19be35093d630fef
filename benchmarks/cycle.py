"""Tasks from submit to settled: through the messages alone, many at a time, and through the worker that ships.

All variants measure the same three things. *Busy*: 16 loops submit, workers run tasks that do nothing, until all that was
submitted is settled. *Idle*: one task at a time on an empty queue with workers waiting, from the call of submit to the
start of its handler. *News*: a client waits at a node that does not lead for a task to finish; from the moment when
the worker sends its report to the moment when the client knows, so the commit is part of the figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from examples import ROOT
from quorl.client import AsyncClient, load
from quorl.client.crew import (
    ARGS,
    CLAIM_WAIT_S,
    DRAIN_S,
    IDLE_PAUSE_S,
    IDLE_S,
    LOOPS,
    MANY,
    WARM_UP_CALLS,
    Tally,
    busy,
    crew,
    idle,
    register,
    submit_singly,
    work_many,
    work_singly,
)
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w

if TYPE_CHECKING:
    from benchmarks.workloads import Figures, Scene

DRAIN_LOOK_S = 0.02


async def news(client: AsyncClient, elsewhere: AsyncClient, queue: str, seconds: float) -> Figures:
    """From the sending of a report to the answer of a client that waits for the task at another node."""
    took_s: list[float] = []
    worker_id = await register(client, queue, LOOPS)
    end = time.perf_counter() + min(IDLE_S, seconds)
    while time.perf_counter() < end:
        submitted = await client.call(_one_task(queue))
        task_id = submitted.items[0].id
        (task,) = (await client.call(e.Claim(worker_id=worker_id, wait=CLAIM_WAIT_S))).tasks
        waiting = asyncio.ensure_future(elsewhere.call(k.GetResult(id=task_id, wait=20)))
        await asyncio.sleep(0.02)  # it has asked the leader how far the log is, and waits now
        assert not waiting.done()
        before = time.perf_counter()
        reporting = asyncio.ensure_future(client.call(e.CompleteTask(id=task_id, lease=task.lease.token)))
        assert (await waiting).status == "SUCCESS"
        took_s.append(time.perf_counter() - before)
        await reporting
    await client.call(w.RemoveWorker(worker_id=worker_id))
    return {
        "news_p50_ms": load.percentile_ms(took_s, 0.5),
        "news_p99_ms": load.percentile_ms(took_s, 0.99),
        "news_max_ms": load.percentile_ms(took_s, 1.0),
    }


def _one_task(queue: str) -> b.Submit:
    return b.Submit(queue=queue, tasks=[b.NewTask(name="nothing", args=ARGS)])


# -- the workloads -------------------------------------------------------------------------------------------------
async def task_cycle(scene: Scene) -> Figures:
    """16 loops that submit one task at a time, 16 workers that claim and complete one at a time; each an awaited call."""
    async with _clients(scene) as (client, elsewhere):
        queue, tally = scene.topic, Tally()

        async def submit() -> str:
            return await submit_singly(client, queue)

        async with crew(client, queue, tally, work_singly, LOOPS):
            figures = await busy(submit, tally, scene.seconds) | await idle(submit, tally, scene.seconds)
        return figures | await news(client, elsewhere, queue, scene.seconds)


async def task_cycle_calls(scene: Scene) -> Figures:
    """The same, but every submit, claim and completion is a call of its own."""
    async with _clients(scene) as (client, _):
        queue, tally = scene.topic, Tally()

        async def submit() -> str:
            return (await client.call(_one_task(queue))).items[0].id

        async with crew(client, queue, tally, _work_by_calls, LOOPS):
            return await busy(submit, tally, scene.seconds)


async def _work_by_calls(client: AsyncClient, worker_id: int, work: Tally) -> None:
    while True:
        for task in (await client.call(e.Claim(worker_id=worker_id, wait=CLAIM_WAIT_S))).tasks:
            await client.call(e.CompleteTask(id=task.id, lease=task.lease.token))
            work.settled(1)


async def task_cycle_acks(scene: Scene) -> Figures:
    """The same, but a worker claims on without waiting for the answer to its report: NATS and RabbitMQ are measured so.

    A task counts when that answer has come.
    """
    async with _clients(scene) as (client, _):
        queue, tally = scene.topic, Tally()

        async def submit() -> str:
            return await submit_singly(client, queue)

        async with crew(client, queue, tally, _work_acking, LOOPS):
            return await busy(submit, tally, scene.seconds)


async def _work_acking(client: AsyncClient, worker_id: int, work: Tally) -> None:
    async with asyncio.TaskGroup() as reports:

        async def report(task: e.ClaimedTask) -> None:
            await client.report(e.Completion(task_id=task.id, lease=task.lease.token))
            work.settled(1)

        while True:
            for task in (await client.claim(e.Claim(worker_id=worker_id, wait=CLAIM_WAIT_S))).tasks:
                reports.create_task(report(task))


async def task_cycle_32(scene: Scene) -> Figures:
    """16 loops that submit 32 tasks per request, 16 workers that settle and claim up to 32 in one call."""
    async with _clients(scene) as (client, _):
        queue, tally = scene.topic, Tally()

        async def submit(count: int = 1) -> str:
            tasks = [b.NewTask(name="nothing", args=ARGS) for _ in range(count)]
            return (await client.call(b.Submit(queue=queue, tasks=tasks))).items[0].id

        async with crew(client, queue, tally, work_many, LOOPS):
            figures = await busy(lambda: submit(MANY), tally, scene.seconds, MANY)
            return figures | await idle(submit, tally, scene.seconds)


@contextlib.asynccontextmanager
async def _clients(scene: Scene) -> AsyncIterator[Sequence[AsyncClient]]:
    """A client at the leader's node and one at another, and the queue."""
    leading, following = scene.cluster.leading(), scene.cluster.following()
    async with AsyncClient([leading.url], timeout_s=60) as client, AsyncClient([following.url], timeout_s=60) as other:
        await client.call(q.PutQueue(queue=scene.topic))
        yield client, other


async def task_cycle_app(scene: Scene) -> Figures:
    """16 coroutines that submit through an ``App``, and one ``quorl worker run`` with four threads in another process."""
    from benchmarks.cycle_app import app, nothing

    app.servers = scene.cluster.leading().url
    payload = msgspec.json.decode(load.payload())
    prepared = nothing.options(queue=scene.topic)
    client = app.aclient
    began, used_s = time.perf_counter(), _ended_children_s()
    async with _shipped_worker(scene):
        for _ in range(WARM_UP_CALLS):
            await (await prepared.adelay(payload)).aresult(DRAIN_S)
        before = (await client.queues.get(scene.topic)).counts.success
        timed = await load.in_flight(lambda: prepared.adelay(payload), LOOPS, scene.seconds)
        started, count = time.perf_counter() - timed.seconds, len(timed.took_s)
        async with asyncio.timeout(DRAIN_S):
            while (await client.queues.get(scene.topic)).counts.success < before + count:
                await asyncio.sleep(DRAIN_LOOK_S)
        took_s = time.perf_counter() - started
        start_s: list[float] = []
        result_s: list[float] = []
        await asyncio.sleep(min(0.5, scene.seconds))
        end = time.perf_counter() + min(IDLE_S, scene.seconds)
        while time.perf_counter() < end:
            called_s = time.time()
            began_s = await (await prepared.adelay(payload)).aresult(DRAIN_S)
            start_s.append(began_s - called_s)
            result_s.append(time.time() - called_s)
            await asyncio.sleep(IDLE_PAUSE_S)
    await app.aclose()
    return {
        "worker_cores": round((_ended_children_s() - used_s) / (time.perf_counter() - began), 2),
        "tasks_s": round(count / took_s),
        "submit_s": round(count / timed.seconds),
        "submit_p50_ms": load.percentile_ms(timed.took_s, 0.5),
        "submit_p99_ms": load.percentile_ms(timed.took_s, 0.99),
        "idle_p50_ms": load.percentile_ms(start_s, 0.5),
        "idle_p99_ms": load.percentile_ms(start_s, 0.99),
        "idle_n": len(start_s),
        "result_p50_ms": load.percentile_ms(result_s, 0.5),
        "result_p99_ms": load.percentile_ms(result_s, 0.99),
    }


def _ended_children_s() -> float:
    """The processor time of processes that were started here and have ended: of the worker, once it has."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@contextlib.asynccontextmanager
async def _shipped_worker(scene: Scene) -> AsyncIterator[None]:
    command = [sys.executable, "-m", "quorl.client.cli", "worker", "run", "benchmarks.cycle_app:app", "-q", scene.topic]
    command += ["--concurrency", "4", "--name", scene.topic, "--server", scene.cluster.leading().url]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
    with (scene.cluster.directory / "worker.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=environment, cwd=ROOT)
    try:
        yield
    finally:
        process.terminate()
        await process.wait()
