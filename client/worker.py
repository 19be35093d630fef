"""``Worker``: runs the tasks of an app, or of a dict of functions.

::

    Worker(app, ["emails", "default"], concurrency=8).run()

The parts: ``worker_ledger`` (what is held and what is to be reported), ``worker_heart`` (the heartbeat's own thread),
``worker_shift`` (the loop that claims, runs and reports), ``worker_pool`` (threads and processes), ``worker_job`` (one
run, up to its verdict), ``worker_lines`` and ``worker_log`` (what it says, to people and to programs).
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from quorl.client.handlers import Handler, handlers_of
from quorl.client.locks import Lock
from quorl.client.tasking import QUEUE_DEFAULT
from quorl.client.worker_floor import Plan
from quorl.client.worker_lines import Lines, to_stderr
from quorl.client.worker_pool import references_of
from quorl.client.worker_shift import Shift
from quorl.cluster.protocol import limits

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient
    from quorl.client.app import App
    from quorl.client.sync import Client

CONCURRENCY_DEFAULT = 8
"""Threads wait for others more than they compute; as many do not harm where they do not."""
GRACE_S = 30.0
"""At a stop: how long what runs may take to end. Kubernetes kills after as long, by default."""

_dice = random.SystemRandom()


class Worker:
    """One worker. ``quorl worker run`` makes one, and is what most programs use.

    ``source``: an ``App``, or a dict of functions by task name.
    ``queues``: by default those that the app's tasks name, or ``default``.
    ``servers``: by default the app's, else ``QUORL_SERVER``.
    ``name``: belongs to one life at a time; who registers under it takes over from its former self. Without one the
    cluster makes one.
    ``concurrency``: how many tasks run at the same time. ``prefetch``: how many more are claimed ahead; None: a few while
    tasks take less than some milliseconds, else none.
    ``pool``: where plain functions run, ``thread`` or ``process``; async ones run on the loop.
    ``burst``: end when nothing waits in the queues. ``standby``: work only in the place of a worker that died.
    ``crash_between``: end without a word at a random point of the first to the second of these tasks, to see what happens
    then; a stand-by never does.
    ``grace_s``: how long tasks may go on after the worker was told to end.
    ``heartbeat_s``: how often it gives a sign of life; None: as ``[tasks]`` of the nodes' config says, 5 s.
    ``dead_after_s``: after how much silence it is DEAD and its tasks go back; None: likewise, 15 s.
    ``write``: takes each line that the worker says; None: silent. ``lines``: says it otherwise, in place of ``write``;
    ``worker_log.LoggedLines`` makes JSON of it.
    ``client``, ``heart_client``: make the connections of the loop and of the heartbeat; for tests.
    """

    def __init__(
        self,
        source: App | Mapping[str, Callable[..., Any]],
        queues: Iterable[str] | None = None,
        *,
        servers: str | Iterable[str] | None = None,
        name: str = "",
        concurrency: int = CONCURRENCY_DEFAULT,
        prefetch: int | None = None,
        pool: Literal["thread", "process"] = "thread",
        burst: bool = False,
        standby: bool = False,
        crash_between: tuple[int, int] | None = None,
        grace_s: float = GRACE_S,
        heartbeat_s: float | None = None,
        dead_after_s: float | None = None,
        write: Callable[[str], None] | None = to_stderr,
        lines: Lines | None = None,
        client: Callable[[], AsyncClient] | None = None,
        heart_client: Callable[[], Client] | None = None,
    ) -> None:
        if not 1 <= concurrency <= limits.WORKER_CONCURRENCY_MAX:
            raise ValueError(f"concurrency is 1 to {limits.WORKER_CONCURRENCY_MAX}, not {concurrency}")
        if pool not in {"thread", "process"}:
            raise ValueError(f"pool is thread or process, not {pool!r}")
        if crash_between is not None and not 1 <= crash_between[0] <= crash_between[1]:
            raise ValueError("crash_between takes two numbers of tasks, the smaller first")
        self.handlers: dict[str, Handler] = handlers_of(source)
        """What it can run, by task name."""
        self.plan = Plan(
            name=name,
            host=socket.gethostname()[: limits.LABEL_CHARS_MAX],
            pid=os.getpid(),
            queues=tuple(dict.fromkeys(queues)) if queues is not None else _queues_of(source),
            concurrency=concurrency,
            prefetch=prefetch,
            pool=pool,
            burst=burst,
            standby=standby,
            crash_at=None if crash_between is None or standby else _dice.randint(*crash_between),
            grace_s=grace_s,
            heartbeat_ms=None if heartbeat_s is None else round(heartbeat_s * 1000),
            dead_after_ms=None if dead_after_s is None else round(dead_after_s * 1000),
        )
        if not self.plan.queues:
            raise ValueError("a worker serves at least one queue")
        if not all(self.plan.queues):
            raise ValueError("a queue's name is not empty")
        if pool == "process":
            references_of(self.handlers)  # what cannot run there is told before anything starts
        given = servers if servers is not None or isinstance(source, Mapping) else source.servers
        self._servers = given if given is None or isinstance(given, str) else tuple(given)
        self._make_client = client or self._client
        self._make_heart_client = heart_client or self._heart_client
        self._lines = Lines(write) if lines is None else lines
        self._shift: Shift | None = None
        self._opening = Lock()  # a signal handler may say stop while its thread has it
        self._stop_asked: bool | None = None

    def _client(self) -> AsyncClient:
        from quorl.client.aio import AsyncClient

        return AsyncClient(self._servers)

    def _heart_client(self) -> Client:
        from quorl.client.sync import Client

        return Client(self._servers)

    def run(self) -> None:
        """Work until the worker is told to end: by ``stop``, SIGTERM or Ctrl-C, or by the cluster.

        The first signal drains: what runs may finish. The second ends it at once; what runs is given back.
        """
        asyncio.run(self._work(signals=threading.current_thread() is threading.main_thread()))

    async def arun(self) -> None:
        """The same in a running event loop; signals are left alone."""
        await self._work(signals=False)

    async def _work(self, *, signals: bool) -> None:
        with self._opening:
            if self._shift is not None:
                raise RuntimeError("the worker is running already")
            self._shift = Shift(self.plan, self.handlers, self._make_client(), self._make_heart_client(), self._lines)
            if self._stop_asked is not None:
                self._shift.stop(now=self._stop_asked)
        try:
            await self._shift.run(signals=signals)
        finally:
            with self._opening:
                self._shift = self._stop_asked = None

    def stop(self, *, now: bool = False) -> None:
        """Tell the worker to end, from any thread: after what runs, or ``now``."""
        with self._opening:
            self._stop_asked = now
            if self._shift is not None:
                self._shift.stop(now=now)


def _queues_of(source: App | Mapping[str, Callable[..., Any]]) -> tuple[str, ...]:
    if isinstance(source, Mapping):
        return (QUEUE_DEFAULT,)
    return tuple(sorted({task.queue for task in source.tasks.values()})) or (source.queue,)
