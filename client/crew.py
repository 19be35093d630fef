"""Tasks from submit to settled, measured: loops that submit, workers that do nothing, and what that took."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec

from quorl.client import load
from quorl.client.aio import AsyncClient
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import workers as w

LOOPS = 16
MANY = 32
"""Loops that submit, and tasks in each call where several go in one: what one busy program does."""
CLAIM_WAIT_S = 5.0
"""Of a worker's claim. It never runs out while there is work."""
WARM_UP_CALLS = 20
"""Until connections are up and everything that is compiled late is."""
IDLE_S = 3.0
IDLE_PAUSE_S = 0.002
"""Of single tasks, one at a time, each when everything is quiet again."""
DRAIN_S = 120.0
"""After that nothing moves any more, and it is an error."""
PATIENT_MS = 60_000
"""A worker is not taken for dead for being busy."""

ARGS = msgspec.Raw(b"[" + load.payload() + b"]")
"""As for the other systems, the payload exists as bytes before the clock starts."""
Submit = Callable[[], Awaitable[str]]


class Tally:
    """Counts what is settled, and remembers when tasks started."""

    def __init__(self) -> None:
        self.done = 0
        self.started_s: dict[str, float] = {}
        self._wanted = 0
        self._enough = asyncio.Event()

    def start(self, task_id: str) -> None:
        """Note the beginning of a run."""
        self.started_s[task_id] = time.perf_counter()

    def settled(self, count: int) -> None:
        """Note reports that were answered."""
        self.done += count
        if self.done >= self._wanted:
            self._enough.set()

    async def reach(self, done: int) -> None:
        """Wait until so many tasks are settled."""
        self._wanted = done
        if self.done < done:
            self._enough.clear()
            async with asyncio.timeout(DRAIN_S):
                await self._enough.wait()


# -- workers through the messages alone ----------------------------------------------------------------------------
async def register(client: AsyncClient, queue: str, number: int) -> int:
    """Register a worker that is not taken for dead while the machine is busy."""
    request = w.RegisterWorker(
        name=f"{queue} w{number}", queues=(queue,), heartbeat_ms=PATIENT_MS // 3, dead_after_ms=PATIENT_MS
    )
    return (await client.call(request)).worker_id


async def submit_singly(client: AsyncClient, queue: str, name: str = "nothing") -> str:
    """Submit one task; returns its id."""
    (made,) = await client.submit(queue, [b.NewTask(name=name, args=ARGS)])
    return made.id


async def work_singly(client: AsyncClient, worker_id: int, work: Tally) -> None:
    """Claim one, complete it, for ever."""
    while True:
        for task in (await client.claim(e.Claim(worker_id=worker_id, wait=CLAIM_WAIT_S))).tasks:
            work.start(task.id)
            await client.report(e.Completion(task_id=task.id, lease=task.lease.token))
            work.settled(1)


async def work_many(client: AsyncClient, worker_id: int, work: Tally) -> None:
    """One call that settles what was claimed and claims up to 32 more, for ever.

    Whatever is done is reported without waiting for more to come: only a call with nothing to report waits.
    """
    done: tuple[e.Completion, ...] = ()
    while True:
        wish = e.Wish(max=MANY, wait=0 if done else CLAIM_WAIT_S)
        reply = await client.call(e.Sync(worker_id=worker_id, complete=done, claim=wish))
        work.settled(reply.accepted)
        for task in reply.tasks:
            work.start(task.id)
        done = tuple(e.Completion(task_id=task.id, lease=task.lease.token) for task in reply.tasks)


@contextlib.asynccontextmanager
async def crew(
    client: AsyncClient, queue: str, work: Tally, how: Callable[[AsyncClient, int, Tally], Awaitable[None]], size: int
) -> AsyncIterator[None]:
    """So many workers in this process."""
    ids = [await register(client, queue, number) for number in range(size)]
    tasks = [asyncio.ensure_future(how(client, worker_id, work)) for worker_id in ids]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for worker_id in ids:
            await client.call(w.RemoveWorker(worker_id=worker_id))
        for end in ends:
            if isinstance(end, Exception):
                raise end


# -- what is measured ----------------------------------------------------------------------------------------------
async def busy(submit: Submit, tally: Tally, seconds: float, each: int = 1, loops: int = LOOPS) -> dict[str, object]:
    """Submit for some seconds from so many loops and tasks in each call, and wait until everything is settled."""
    for _ in range(WARM_UP_CALLS):
        await submit()
    await tally.reach(WARM_UP_CALLS * each)
    before = tally.done
    timed = await load.in_flight(submit, loops, seconds)
    started = time.perf_counter() - timed.seconds
    count = len(timed.took_s) * each
    await tally.reach(before + count)
    took_s = time.perf_counter() - started
    return {
        "tasks_s": round(count / took_s),
        "submit_s": round(count / timed.seconds),
        "submit_p50_ms": load.percentile_ms(timed.took_s, 0.5),
        "submit_p99_ms": load.percentile_ms(timed.took_s, 0.99),
    }


async def idle(submit: Submit, tally: Tally, seconds: float) -> dict[str, object]:
    """One task at a time: from the call of submit to the start of its run."""
    took_s = await idle_times(submit, tally, min(IDLE_S, seconds))
    return {
        "idle_p50_ms": load.percentile_ms(took_s, 0.5),
        "idle_p99_ms": load.percentile_ms(took_s, 0.99),
        "idle_n": len(took_s),
    }


async def idle_times(submit: Submit, tally: Tally, seconds: float) -> list[float]:
    """How long each took, in seconds."""
    took_s: list[float] = []
    await asyncio.sleep(min(0.3, seconds))
    end = time.perf_counter() + seconds
    while (before := time.perf_counter()) < end:
        done = tally.done
        task_id = await submit()
        await tally.reach(done + 1)
        took_s.append(tally.started_s[task_id] - before)
        await asyncio.sleep(IDLE_PAUSE_S)
    return took_s
