"""Workers on a cluster in memory, as the tests start and stop them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from quorl.client import Worker
from tests.client.task_cluster import TaskCluster


def worker(cluster: TaskCluster, handlers: dict[str, Callable[..., Any]], **options: Any) -> tuple[Worker, list[str]]:
    lines: list[str] = []
    options = {"write": lines.append, "heartbeat_s": 0.1, **options}
    made = Worker(handlers, client=cluster.aclient, heart_client=cluster.client, **options)
    return made, lines


def burst(cluster: TaskCluster, handlers: dict[str, Callable[..., Any]], **options: Any) -> list[str]:
    made, lines = worker(cluster, handlers, burst=True, **options)
    made.run()
    return lines


@contextlib.contextmanager
def working(cluster: TaskCluster, handlers: dict[str, Callable[..., Any]], **options: Any) -> Iterator[list[str]]:
    """A worker on a thread of its own, which is told to end afterwards."""
    made, lines = worker(cluster, handlers, **options)
    failed: list[BaseException] = []

    def run() -> None:
        try:
            made.run()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield lines
    finally:
        made.stop()
        thread.join(20)
    assert not thread.is_alive(), lines
    assert not failed, failed


def statuses(cluster: TaskCluster) -> list[str]:
    return [task.status for task in cluster.tasks.values()]


def add(x: Any, y: Any) -> Any:
    return x + y


# -- in a process of its own ---------------------------------------------------------------------------------------
_SIGNALLED = """
import os, signal, sys, threading
from quorl.client import Worker
from tests.client.task_cluster import TaskCluster
cluster = TaskCluster()
task = cluster.add("work")
go = threading.Event()
def work():
    for name in sys.argv[1:]:
        os.kill(os.getpid(), signal.Signals[name])
    if len(sys.argv) == 2:
        threading.Timer(0.2, go.set).start()
    go.wait()
Worker({"work": work}, client=cluster.aclient, heart_client=cluster.client).run()
print(task.status, cluster.status[1])
"""


def program(*command: str, stderr: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    """Run a program that finds what the tests find."""
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    return subprocess.run(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, timeout=60, check=False
    )


def signalled(
    *signals: str, through: Sequence[str] = (), stderr: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    """Run a worker, by its defaults, whose one task sends it these signals: after a single one it ends, after several never.

    Prints what the task and the worker have come to.
    """
    return program(*through, sys.executable, "-c", _SIGNALLED, *signals, stderr=stderr)
