"""Where plain functions run: threads, or processes that were spawned.

Threads are daemons: a handler that never ends must not keep the program from ending. Each process belongs to one thread,
which hands it a task and waits for its verdict; what passes between them is JSON. A process that dies has failed the
attempt, and a new one takes its place; one that does not stop when it is told to is killed after a while. A stop and a kill
are meant for one run: they reach the process while that run lasts, or not at all.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from typing import Any, NamedTuple, TypeAlias

import msgspec

from quorl.client.context import Context
from quorl.client.handlers import Handler, handler
from quorl.client.locks import Lock
from quorl.client.worker_job import Verdict, context_of, run_plain
from quorl.client.worker_ledger import Holding
from quorl.client.worker_lines import made_error
from quorl.cluster.protocol import leases as e

KILL_AFTER_S = 5.0
"""How long a process may go on after it was told to stop."""
TRIES = 3
"""So many processes are handed a task, should they have died before."""

Job: TypeAlias = Callable[[], None]


class Threads:
    """Up to so many threads, made as they are needed."""

    def __init__(self, size: int, name: str = "quorl-task") -> None:
        self._size = size
        self._name = name
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = Lock()
        self._threads = 0
        self._busy = 0

    def run(self, job: Job) -> None:
        """Run a job as soon as a thread is free. Jobs do not raise.

        Raises ``RuntimeError`` if none is free and the system gives no other; the job is not run then.
        """
        with self._lock:
            if self._busy >= self._threads and self._threads < self._size:
                name = f"{self._name}-{self._threads + 1}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
                self._threads += 1
            self._busy += 1
        self._jobs.put(job)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            finally:
                with self._lock:
                    self._busy -= 1

    def close(self) -> None:
        """Let the threads end once they are free."""
        with self._lock:
            for _ in range(self._threads):
                self._jobs.put(None)


# -- processes -----------------------------------------------------------------------------------------------------
class Reference(NamedTuple):
    """Where another process finds a function."""

    module: str
    path: str


class Order(msgspec.Struct, tag="run"):
    """To a process: run this."""

    task: e.ClaimedTask


class Stop(msgspec.Struct, tag="stop"):
    """To a process: tell the handler to end."""


class Said(msgspec.Struct, tag="said"):
    """From a process: how far the task has come."""

    percent: float | None
    note: str


class Saved(msgspec.Struct, tag="saved"):
    """From a process: a checkpoint."""

    value: msgspec.Raw


class Ended(msgspec.Struct, tag="ended"):
    """From a process: what the run came to."""

    verdict: Verdict


class Unable(msgspec.Struct, tag="unable"):
    """From a process: it ends without having looked for a task, as the system does not give it what it needs."""

    why: str


_encode = msgspec.json.Encoder().encode
_read_order = msgspec.json.Decoder(Order | Stop).decode
_read_news = msgspec.json.Decoder(Said | Saved | Ended | Unable).decode


def references_of(handlers: Mapping[str, Handler]) -> dict[str, Reference]:
    """Return where the plain handlers are found; raises ``ValueError`` for one that another process could not find."""
    found = {}
    for name, one in handlers.items():
        if one.is_async:
            continue
        function = one.function
        where = Reference(getattr(function, "__module__", ""), getattr(function, "__qualname__", ""))
        try:
            same = resolve(where) is function
        except (ImportError, AttributeError, ValueError, KeyError):
            same = False
        if not same:
            raise ValueError(f"the handler of {name!r} cannot run in another process: define it at the top of a module")
        found[name] = where
    return found


def resolve(where: Reference) -> Any:
    """Return the function at a place."""
    found: Any = sys.modules.get(where.module) or importlib.import_module(where.module)
    for part in where.path.split("."):
        found = getattr(found, part)
    return getattr(found, "function", found)


class Gone(Exception):
    """A process had died before it was handed a task."""


class NoProcess(Exception):
    """The system has no process to give, or no descriptors for one; nothing was begun."""


class Child:
    """One process, driven by one thread."""

    def __init__(self, references: Mapping[str, Reference], first: Callable[[], None] | None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._sending = Lock()
        self._ending = Lock()
        """While it is held no run ends. Not the other one: who sends may wait for a process that does not read."""
        self._killed = False
        self._process = spawn.Process(target=child_main, args=(theirs, dict(references), first), daemon=True)
        self._process.start()
        theirs.close()

    def run(self, holding: Holding) -> Verdict:
        """Have the process run a task, and return what came of it; raises ``Gone`` or ``NoProcess`` if it was certainly not begun."""
        over = threading.Event()

        def kill() -> None:
            if not over.wait(KILL_AFTER_S):
                with self._ending:
                    if not over.is_set():  # the run may have ended as its time was up, and the next one begun
                        self.kill()

        def tell() -> None:
            with self._sending, contextlib.suppress(OSError):
                if not over.is_set():
                    self._pipe.send_bytes(_encode(Stop()))

        def stop() -> None:
            try:
                for one in (kill, tell):
                    threading.Thread(target=one, daemon=True).start()
            except RuntimeError:  # the system gives no thread to tell it in, so that it is not asked first
                with self._ending:
                    if not over.is_set():
                        self.kill()

        holding.on_stop = stop
        try:
            with self._sending:
                if holding.context.cancelled:  # not before: a stop must not get to the process ahead of its task
                    return Verdict()
                try:
                    self._pipe.send_bytes(_encode(Order(holding.task)))
                except OSError:
                    self.kill()  # whatever is left of it
                    raise Gone from None
            return self._listen(holding)
        except (EOFError, OSError):
            self._process.join(KILL_AFTER_S)
            code = self._process.exitcode
            if holding.context.cancelled:
                return Verdict()
            return Verdict(error=made_error("ProcessDied", f"the process that ran the task ended with code {code}"))
        finally:
            holding.on_stop = None
            with self._sending, self._ending:
                over.set()

    def _listen(self, holding: Holding) -> Verdict:
        reporter = holding.context
        while True:
            match _read_news(self._pipe.recv_bytes()):
                case Said(percent, note):
                    reporter.progress(percent, note)
                case Saved(value):
                    reporter.save(value)
                case Ended(verdict):
                    return verdict
                case Unable(why):
                    self.kill()
                    raise NoProcess(why)

    @property
    def alive(self) -> bool:
        """Whether the process can take another task."""
        return not self._killed and self._process.is_alive()

    def kill(self) -> None:
        """End the process at once."""
        self._killed = True  # it dies a little later
        self._process.kill()


class Processes:
    """One process for each thread that runs tasks, made when it is first needed."""

    def __init__(
        self, references: Mapping[str, Reference], first: Callable[[], Callable[[], None] | None] = lambda: None
    ) -> None:
        """``first``: gives what a process that begins is to do before anything else."""
        self._references = references
        self._first = first
        self._mine = threading.local()
        self._lock = Lock()
        self._children: set[Child] = set()
        self._closed = False

    def run(self, holding: Holding) -> Verdict:
        """Run a task in the process of the calling thread; raises ``NoProcess`` where there is none to be had."""
        for _ in range(TRIES):
            with contextlib.suppress(Gone):
                return self._child().run(holding)
            if self._closed:
                break
        return Verdict(error=made_error("ProcessDied", "no process lived until it was handed the task"))

    def _child(self) -> Child:
        """Return the process of the calling thread, a new one if it has died."""
        child: Child | None = getattr(self._mine, "child", None)
        if child is None or not child.alive:
            with self._lock:
                self._children.discard(child) if child else None
                try:
                    child = Child(self._references, self._first())
                except OSError as error:
                    raise NoProcess(error.strerror or str(error)) from error
                self._children.add(child)
            self._mine.child = child
        return child

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            for child in self._children:
                child.kill()
            self._children.clear()


class _Reporter:
    """What a handler says in a process goes up the pipe."""

    def __init__(self, send: Callable[[Any], None]) -> None:
        self._send = send

    def progress(self, percent: float | None, note: str) -> None:
        self._send(Said(percent, note))

    def checkpoint(self, value: bytes) -> None:
        self._send(Saved(msgspec.Raw(value)))


def child_main(pipe: Connection, references: dict[str, Reference], first: Callable[[], None] | None = None) -> None:
    """What a process does: run what it is told, until the pipe closes."""
    if first is not None:
        first()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # its worker decides when it ends
    orders: queue.SimpleQueue[tuple[e.ClaimedTask, Context]] = queue.SimpleQueue()
    sending = Lock()  # a signal handler of the task may raise while its thread has it

    def send(news: Said | Saved | Ended | Unable) -> None:
        with sending:
            pipe.send_bytes(_encode(news))

    def listen() -> None:
        context = Context()
        try:
            while True:
                order = _read_order(pipe.recv_bytes())
                if isinstance(order, Order):
                    context = context_of(order.task, _Reporter(send))
                    orders.put((order.task, context))
                else:
                    context.stop()
        except (EOFError, OSError):
            os._exit(0)  # the worker is gone, and with it whoever would want a result

    try:
        threading.Thread(target=listen, daemon=True).start()
    except RuntimeError as error:
        send(Unable(str(error)))
        return
    known: dict[str, Handler] = {}
    while True:
        task, context = orders.get()
        if task.name not in known:
            known[task.name] = handler(task.name, resolve(references[task.name]))
        send(Ended(run_plain(known[task.name], task, context)))
