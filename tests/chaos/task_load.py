"""Processes that run tasks and clients that submit them while everything is killed and frozen, and what they noted.

Every acknowledged submit is remembered with what must come of it. A ``Fleet`` is a number of worker processes with a
file of notes each; killed ones live again under their name.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import msgspec

from quorl.client import AsyncClient, Unavailable
from quorl.cluster.protocol import submitting as b
from tests.chaos.load import TIMEOUT_S, settle
from tests.harness import ROOT, die_with_parent, until

QUEUE = "chaos tasks"
ATTEMPTS = 3
SUBMITTERS = 5
PAUSE_S = 0.6
"""At most, between two submits of a client: so that faults meet tasks that are under way, and not a backlog."""


class Planned(NamedTuple):
    """A task, and what must come of it."""

    id: str
    number: int
    seconds: float
    failures: int

    @property
    def good(self) -> bool:
        """Whether it is to end as a SUCCESS."""
        return self.failures < ATTEMPTS

    @property
    def result(self) -> int:
        """Of a good one."""
        return self.number**2


class Submitters:
    """Clients that submit tasks through every node until they are told to stop, in a thread with a loop of its own."""

    def __init__(self, urls: Sequence[str], dice: random.Random) -> None:
        self.acknowledged: dict[str, Planned] = {}
        self.refused: list[str] = []
        """Ids of tasks of which a client said that they were certainly not submitted."""
        self.repeats = 0
        self._urls = list(urls)
        self._stop = threading.Event()
        self._dice = random.Random(dice.random())
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="submitters")
        self._error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the submitters do not come to an end"
        self.check()

    def check(self) -> None:
        """Raise what ended a submitter, if anything did."""
        if self._error is not None:
            raise self._error

    async def _run(self) -> None:
        numbers = count()
        try:
            async with asyncio.TaskGroup() as group:
                for turn in range(SUBMITTERS):
                    servers = [self._urls[turn]] if turn < len(self._urls) else self._urls
                    group.create_task(self._submit(f"s{turn}", servers, numbers, batch=1 + 9 * (turn % 2)))
        except BaseException as error:
            self._error = error

    async def _submit(self, name: str, servers: list[str], numbers: Iterator[int], batch: int) -> None:
        async with AsyncClient(servers, timeout_s=TIMEOUT_S) as client:
            while not self._stop.is_set():
                planned = [self._plan(f"{name} #{number}", number) for number in islice(numbers, batch)]
                request = b.Submit(queue=QUEUE, tasks=[_new(task) for task in planned])
                try:
                    await settle(client, request, self)
                except Unavailable:
                    self.refused += [task.id for task in planned]
                    continue
                self.acknowledged.update((task.id, task) for task in planned)
                await asyncio.sleep(self._dice.uniform(0, PAUSE_S))

    def _plan(self, task_id: str, number: int) -> Planned:
        failures = self._dice.choices([0, 1, ATTEMPTS], [8, 1, 1])[0]
        return Planned(task_id, number, round(self._dice.uniform(0, 0.04), 3), failures)


def _new(task: Planned) -> b.NewTask:
    args = msgspec.Raw(msgspec.json.encode([task.number, task.seconds, task.failures]))
    return b.NewTask(id=task.id, name="square", args=args)


class WorkerProcess:
    """One worker by name: the command that starts it, and the process that runs it now."""

    def __init__(self, name: str, command: Sequence[str], directory: Path) -> None:
        self.name = name
        self.notes = directory / f"{name}.jsonl"
        self.log = directory / f"{name}.log"
        self.command = [*command, "--name", name]
        self.process: subprocess.Popen[bytes] | None = None
        self.paused = False

    def start(self, **environment: str) -> None:
        """Start a life. From the main thread: its life hangs on the thread that starts it."""
        assert self.process is None or self.process.poll() is not None
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "NOTES": str(self.notes), **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=die_with_parent,  # noqa: PLW1509 - its life hangs on ours
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> float:
        """Kill -9, and return when that was."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait(15)
        self.paused = False
        return time.time()

    def pause(self) -> None:
        self.signal(signal.SIGSTOP)
        self.paused = True

    def resume(self) -> None:
        self.signal(signal.SIGCONT)
        self.paused = False

    def wait(self, timeout_s: float = 60.0) -> int:
        """Wait for the end of the process and return its exit code."""
        assert self.process is not None
        return self.process.wait(timeout_s)

    def read(self) -> list[dict[str, Any]]:
        """What the worker noted in all its lives, in order."""
        if not self.notes.exists():
            return []
        return [json.loads(line) for line in self.notes.read_text(encoding="utf-8").splitlines()]

    def last_words(self) -> str:
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])


class Fleet:
    """Worker processes by name."""

    def __init__(self, directory: Path, urls: Sequence[str], queue: str = QUEUE) -> None:
        directory.mkdir(exist_ok=True)
        self.workers: dict[str, WorkerProcess] = {}
        self._directory = directory
        self._base = [sys.executable, "-m", "tests.chaos.task_worker", "--queue", queue, "--servers", ",".join(urls)]

    def add(self, name: str, *more: str) -> WorkerProcess:
        """Start one that notes its steps with ``tests.chaos.task_worker``."""
        return self.run(name, [*self._base, "--notes", str(self._directory / f"{name}.jsonl"), *more])

    def run(self, name: str, command: Sequence[str], **environment: str) -> WorkerProcess:
        """Start one by any command that takes a ``--name``; it finds the path of its notes in ``NOTES``."""
        worker = self.workers[name] = WorkerProcess(name, command, self._directory)
        worker.start(**environment)
        return worker

    def wait_registered(self) -> None:
        """Wait until every worker has noted something in its present life."""
        for worker in self.workers.values():
            until(lambda worker=worker: bool(worker.read()), f"{worker.name} to register", why=worker.last_words)  # type: ignore[misc]

    def notes(self) -> dict[str, list[dict[str, Any]]]:
        return {name: worker.read() for name, worker in self.workers.items()}

    def kill_all(self) -> None:
        for worker in self.workers.values():
            if worker.process is not None:
                worker.kill()


@contextmanager
def fleet_in(directory: Path, urls: Sequence[str], queue: str = QUEUE) -> Iterator[Fleet]:
    """A fleet that is gone at the end."""
    fleet = Fleet(directory, urls, queue)
    try:
        yield fleet
    finally:
        fleet.kill_all()
