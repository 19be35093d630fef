"""A worker as a process of its own, which writes every step down before it takes the next: ``python -m tests.chaos.task_worker``.

It is written against the messages alone and shares nothing with the worker that ships. Each step of each run is one
line of JSON in its file, handed to the kernel in one write: what was noted before a kill -9 is there after it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from quorl.client import AsyncClient, LeaseLost, OutcomeUnknown, TaskNotFound, Unavailable, WorkerNotAlive
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Request
from quorl.cluster.protocol.tasks import TaskError, TaskStatus

R = TypeVar("R")
CALL_S = 4.0
"""Short, so that outcomes become unknown and calls must be repeated."""
CLAIM_WAIT_S = 1.0


class Notes:
    """The file of one process; a name that lives again adds to it."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, step: str, **what: Any) -> None:
        os.write(self._file, (json.dumps({"step": step, "at_s": time.time(), **what}) + "\n").encode())


class Life:
    """From one registration to the moment when the cluster says that it is over."""

    def __init__(self, client: AsyncClient, worker_id: int, notes: Notes, slots: int) -> None:
        self._client = client
        self._id = worker_id
        self._notes = notes
        self._slots = slots
        self._claimed = 0
        self._waiting: set[int] = set()
        self._held: dict[int, asyncio.Task[None]] = {}
        self._free = asyncio.Event()

    async def run(self, heartbeat_s: float) -> None:
        """Claim and beat until either is told that this life is over."""
        tasks = [asyncio.create_task(self._claim()), asyncio.create_task(self._beat(heartbeat_s))]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in (*pending, *self._held.values()):
            task.cancel()
        await asyncio.gather(*pending, *self._held.values(), return_exceptions=True)
        for task in done:
            with contextlib.suppress(WorkerNotAlive):
                task.result()

    async def _beat(self, heartbeat_s: float) -> None:
        while True:
            beat = e.Beat(tokens=tuple(self._held), claims=tuple(self._waiting), claimed=self._claimed)
            with contextlib.suppress(Unavailable, OutcomeUnknown):
                told = await self._client.call(e.Sync(worker_id=self._id, beat=beat))
                for token in told.directives.lost:
                    self._notes.write("told lost", lease=token)
            await asyncio.sleep(heartbeat_s)

    async def _claim(self) -> None:
        while True:
            while len(self._held) >= self._slots:
                self._free.clear()
                await self._free.wait()
            self._claimed += 1
            number = self._claimed
            self._waiting.add(number)
            try:
                wish = e.Claim(worker_id=self._id, max=self._slots - len(self._held), wait=CLAIM_WAIT_S, number=number)
                got = await self._client.call(wish)
            except (Unavailable, OutcomeUnknown):
                continue  # what was perhaps granted goes back with a beat, since this number is waited for no more
            finally:
                self._waiting.discard(number)
            for task in got.tasks:
                self._notes.write("started", task=task.id, token=task.lease.token, worker_id=self._id)
                self._held[task.lease.token] = asyncio.create_task(self._work(task))

    async def _work(self, task: e.ClaimedTask) -> None:
        token = task.lease.token
        try:
            report = await handle(task)
            self._notes.write("ended", task=task.id, token=token, what=type(report).__name__)
            try:
                status = await settled(self._client, report)
                self._notes.write("accepted", task=task.id, token=token, status=status.status)
            except (LeaseLost, TaskNotFound) as refusal:
                self._notes.write("refused", task=task.id, token=token, code=refusal.code)
        finally:
            self._held.pop(token, None)
            self._free.set()


async def handle(task: e.ClaimedTask) -> e.CompleteTask | e.FailTask:
    """Run a task: ``[number, seconds, failures]``; it fails that often before it gives the number's square."""
    number, seconds, failures = msgspec.json.decode(task.args, type=tuple[int, float, int])
    await asyncio.sleep(seconds)
    if task.attempt <= failures:
        error = TaskError(type="Planned", message=f"attempt {task.attempt} of {task.id}", traceback="as planned")
        return e.FailTask(id=task.id, lease=task.lease.token, error=error)
    return e.CompleteTask(id=task.id, lease=task.lease.token, result=msgspec.Raw(b"%d" % number**2))


async def settled(client: AsyncClient, report: Request[TaskStatus]) -> TaskStatus:
    """Make a report and repeat it, under its key where its outcome is unknown, until there is an answer."""
    unknown: OutcomeUnknown | None = None
    while True:
        try:
            if unknown is None:
                return await client.call(report)
            return cast("TaskStatus", await client.repeat(unknown))
        except OutcomeUnknown as error:
            unknown = error
        except Unavailable:
            continue


async def live(options: argparse.Namespace) -> None:
    """Register, live, and register anew when a life is over."""
    notes = Notes(options.notes)
    request = w.RegisterWorker(
        name=options.name,
        pid=os.getpid(),
        queues=(options.queue,),
        concurrency=options.slots,
        standby=options.standby,
        heartbeat_ms=int(options.heartbeat_s * 1000),
        dead_after_ms=int(options.dead_after_s * 1000),
    )
    async with AsyncClient(options.servers, timeout_s=CALL_S) as client:
        while True:
            try:
                registered = await client.call(request)
            except (Unavailable, OutcomeUnknown):
                continue
            notes.write("registered", worker_id=registered.worker_id)
            await Life(client, registered.worker_id, notes, options.slots).run(options.heartbeat_s)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--notes", type=Path, required=True)
    parser.add_argument("--servers", required=True)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--heartbeat-s", type=float, default=0.5)
    parser.add_argument("--dead-after-s", type=float, default=2.0)
    parser.add_argument("--standby", action="store_true")
    asyncio.run(live(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
