"""Where a worker's tasks run: what is ready, what runs, and what each run comes to. All on the worker's loop.

Invariants: never more than ``concurrency`` handlers run, those whose lease is gone included; every run ends in one verdict,
which is reported if its lease still counts.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import os
import random
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from quorl.client.handlers import Handler
from quorl.client.worker_elsewhere import Elsewhere
from quorl.client.worker_job import Verdict, context_of, error_verdict, run_async, run_plain
from quorl.client.worker_ledger import Holding, Ledger, Voice
from quorl.client.worker_lines import Lines, made_error
from quorl.client.worker_pace import Pace
from quorl.client.worker_pool import NoProcess, Processes, Threads, references_of
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol.tasks import TaskError

NO_THREAD_S = 1.0
"""So long nothing is claimed after the system had no thread or process to give."""
CRASH_S_MAX = 0.2
CRASH_CODE = 1
"""A crash that was asked for (``crash_between``) comes within so many seconds of a task's beginning, and ends the
process so."""

_dice = random.SystemRandom()


class Plan(NamedTuple):
    """How a worker is to work; see ``Worker`` for what each means."""

    name: str
    host: str
    pid: int
    queues: tuple[str, ...]
    concurrency: int
    prefetch: int | None
    pool: Literal["thread", "process"]
    burst: bool
    standby: bool
    crash_at: int | None
    grace_s: float
    heartbeat_ms: int | None
    dead_after_ms: int | None


@dataclass(slots=True)
class _Run:
    task: asyncio.Task[None] | None = None
    """Of the loop, for async handlers."""
    timer: asyncio.TimerHandle | None = None
    """Of its time limit, if it has one; one that is for another worker does not use up its attempt's time here."""

    def is_late(self, moment: float) -> bool:
        """Whether its time was over at a moment of the loop."""
        return self.timer is not None and self.timer.when() <= moment


class Floor:
    """The tasks of one worker."""

    def __init__(
        self,
        plan: Plan,
        handlers: Mapping[str, Handler],
        elsewhere: Elsewhere,
        lines: Lines,
        pace: Pace,
        wake: Callable[[], None],
    ) -> None:
        self._plan = plan
        self._handlers = handlers
        self._elsewhere = elsewhere
        self._lines = lines
        self._pace = pace
        self._wake = wake
        """Tells the worker's loop that something is to be reported or that there is room."""
        self._loop = asyncio.get_running_loop()
        self._threads = Threads(plan.concurrency)
        self._processes = Processes(references_of(handlers), lines.in_child) if plan.pool == "process" else None
        self._ready: collections.deque[tuple[Ledger, Holding]] = collections.deque()
        self._running: dict[Holding, _Run] = {}
        self._ended: collections.deque[tuple[Ledger, Holding, Verdict, float, float]] = collections.deque()
        """The runs that are over, until the loop takes them up: what each came to, how long it took, and when it ended."""
        self._due: list[Callable[[], object]] = []
        """What lets the tasks run that have begun in this turn."""
        self._told = False
        self._begun = 0
        self.open = True
        """Whether tasks are begun; after that they are given back."""
        self.claims_after = 0.0
        """Until then nothing is claimed: there are no threads or processes for it."""
        self.crashing = False
        self.done = self.failed = 0

    # -- looking ------------------------------------------------------------------------------------------------------
    @property
    def running(self) -> int:
        """How many handlers run."""
        return len(self._running)

    @property
    def zombies(self) -> int:
        """How many handlers run whose lease is gone."""
        return sum(1 for holding in self._running if holding.lost)

    # -- taking up ----------------------------------------------------------------------------------------------------
    def holding(self, life: Ledger, task: e.ClaimedTask) -> Holding:
        """Return what stands for a task that was claimed."""
        voice = Voice(life, functools.partial(self.on_loop, self._wake))
        holding = Holding(task, context_of(task, voice))
        voice.holding = holding
        return holding

    def on_loop(self, call: Callable[..., Any], *arguments: Any) -> None:
        """Call something on the worker's loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody to tell
            self._loop.call_soon_threadsafe(call, *arguments)

    def take_up(self, life: Ledger, holdings: Iterable[Holding]) -> None:
        """Run tasks as soon as there is room."""
        if self.open:
            self._ready.extend((life, holding) for holding in holdings)
            self._turn()
        else:
            for holding in holdings:
                self.give_back(life, holding)

    def give_back(self, life: Ledger, holding: Holding) -> None:
        """Release a task that is not run, or not run to its end."""
        task = holding.task
        if life.report(holding, e.Return(task_id=task.id, lease=task.lease.token)):
            self._lines.released(task, "the worker stops")
        self._wake()

    def shut(self) -> None:
        """Begin nothing more, and give back what has not begun."""
        self.open = False
        for life, holding in self._ready:
            self.give_back(life, holding)
        self._ready.clear()

    def _turn(self) -> None:
        """Report what has ended, begin what there is room for, and say both in one go before any of it runs."""
        over = False
        try:
            with self._lines.together():
                while self._ended or (self._ready and len(self._running) < self._plan.concurrency):
                    if self._ended:
                        over = True
                        self._over(*self._ended.popleft())
                    else:
                        self._begin(*self._ready.popleft())
        finally:  # also if nobody can be told: what has begun is held, and must come to an end
            due, self._due = self._due, []
            for start in due:
                start()
            if over:
                if not self._running:
                    self._pace.caught_up()
                self._wake()

    # -- running ------------------------------------------------------------------------------------------------------
    def _begin(self, life: Ledger, holding: Holding) -> None:
        if holding.lost:
            return
        task = holding.task
        self._begun += 1
        holding.started = self._loop.time()
        self._lines.started(task, life.name)
        if self._begun == self._plan.crash_at:
            self._crash_soon()
        run = self._running[holding] = _Run()
        one = self._handlers.get(task.name)
        if task.timeout_ms is not None and one is not None:
            run.timer = self._loop.call_at(holding.started + task.timeout_ms / 1000, self._out_of_time, holding)
        if holding.cancelled:
            self._ended.append((life, holding, Verdict(), 0.0, holding.started))
        elif one is None:
            ask = functools.partial(self._elsewhere.verdict, task, life.worker_id)
            run.task = self._loop.create_task(self._on_the_loop(life, holding, ask))
        elif one.is_async:
            work = functools.partial(run_async, one, task, holding.context)
            run.task = self._loop.create_task(self._on_the_loop(life, holding, work))
        else:
            self._due.append(functools.partial(self._to_a_thread, life, holding, one))

    def _to_a_thread(self, life: Ledger, holding: Holding, one: Handler) -> None:
        """Run a plain function; where the system gives no thread for it, the task is for another worker, or for later."""
        try:
            self._threads.run(functools.partial(self._in_a_thread, life, holding, one))
        except RuntimeError as error:
            now = self._loop.time()
            self.claims_after = now + NO_THREAD_S
            self._ended.append((life, holding, Verdict(why=f"the system gives no thread to run it: {error}"), 0.0, now))
            self._loop.call_soon(self._turn)

    async def _on_the_loop(self, life: Ledger, holding: Holding, work: Callable[[], Awaitable[Verdict]]) -> None:
        try:
            verdict = await work()
        except asyncio.CancelledError as error:
            verdict = Verdict() if holding.context.cancelled else error_verdict(error)
        now = self._loop.time()
        self._ended.append((life, holding, verdict, now - holding.started, now))
        self._turn()

    def _in_a_thread(self, life: Ledger, holding: Holding, one: Handler) -> None:
        began = self._loop.time()
        try:
            if self._processes is not None:
                verdict = self._processes.run(holding)
            else:
                verdict = run_plain(one, holding.task, holding.context)
        except NoProcess as error:  # as with threads
            self.claims_after = self._loop.time() + NO_THREAD_S
            verdict = Verdict(why=f"the system gives no process to run it: {error}")
        except (
            BaseException
        ) as error:  # whatever a process may have sent, the task must come to an end, and the thread not
            verdict = error_verdict(error)
        now = self._loop.time()
        self._ended.append((life, holding, verdict, now - began, now))
        if not self._told:  # one wake for all that end until the loop has woken
            self._told = True
            self.on_loop(self._collect)

    def _collect(self) -> None:
        """Take what threads have brought."""
        self._told = False  # before looking: what comes from now on wakes the loop again
        self._turn()

    def _out_of_time(self, holding: Holding) -> None:
        try:
            self._turn()  # a loop that is late finds here what has ended in time
        finally:  # also if nobody can be told
            if holding in self._running and not holding.lost:
                self.stop(holding)
                self._time_out(holding)

    def _time_out(self, holding: Holding) -> None:
        """Its attempt has failed, for the cluster too, however long the function goes on and whatever it returns."""
        holding.timed_out = True
        self.failed += 1
        task = holding.task
        failure = e.Failure(task_id=task.id, lease=task.lease.token, error=_timeout(task))
        self._lines.failed(task, self._loop.time() - holding.started, failure)

    def _over(self, life: Ledger, holding: Holding, verdict: Verdict, seconds: float, ended: float) -> None:
        """Report what a run has come to. ``seconds``: how long it took, without the way to its thread."""
        run = self._running.pop(holding)
        if run.timer is not None:
            run.timer.cancel()
        if self.crashing:
            self._crash()
        task = holding.task
        if not verdict.why:  # it has not run here, so it says nothing of how long tasks take
            self._pace.ran(seconds)
        if run.is_late(ended) and not holding.timed_out and not holding.lost:  # so was the loop
            self._time_out(holding)
        if holding.timed_out:  # said and counted when its time was over
            life.report(holding, Verdict(error=_timeout(task)).report(task))
            return
        report = verdict.report(task)
        if life.report(holding, report):
            match report:
                case e.Completion():
                    self.done += 1
                    self._lines.succeeded(task, seconds, verdict.result)
                case e.Failure():
                    self.failed += 1
                    self._lines.failed(task, seconds, report)
                case e.Return():
                    self._lines.released(
                        task, verdict.why or ("cancelled" if holding.cancelled else "it was told to stop")
                    )

    # -- stopping -----------------------------------------------------------------------------------------------------
    def lost(self, holding: Holding, why: str) -> None:
        """Stop a task whose lease is gone; ``why`` is told, unless its time was over."""
        self.stop(holding)
        self._wake()
        if holding.timed_out:
            return
        run = self._running.get(holding)
        if run is not None and run.is_late(self._loop.time()):
            self._time_out(holding)
        else:
            self._lines.dropped(holding.task, why)

    def stop(self, holding: Holding) -> None:
        """Tell a handler to end: a plain one sees it, an async one is cancelled."""
        holding.stop()
        run = self._running.get(holding)
        if run is not None and run.task is not None:
            run.task.cancel()

    def stop_all(self) -> None:
        """Tell every handler to end."""
        for holding in list(self._running):
            self.stop(holding)

    def close(self) -> None:
        """Let threads and processes go."""
        self._threads.close()
        if self._processes is not None:
            self._processes.close()

    # -- crashing on purpose ------------------------------------------------------------------------------------------
    def _crash_soon(self) -> None:
        """Crash at a random point of the task that begins: while it runs, or before its report leaves."""
        self.crashing = True
        timer = threading.Timer(_dice.uniform(0, CRASH_S_MAX), self._crash)
        timer.daemon = True
        self._due.append(timer.start)

    def _crash(self) -> None:
        self._lines.crashing(self._begun)
        self._lines.flush()
        os._exit(CRASH_CODE)


def _timeout(task: e.ClaimedTask) -> TaskError:
    return made_error("Timeout", f"not finished after {(task.timeout_ms or 0) / 1000:g} s")
