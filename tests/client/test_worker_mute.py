"""A worker whose lines nobody can be told: whoever read them has gone, or the disk that they go to is full."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable

import pytest

from quorl.client import worker_log
from quorl.client.worker_lines import Lines, to_stderr
from tests.client.task_cluster import TaskCluster
from tests.client.worker_kit import signalled, worker


class _Broken:
    """Standard error into a pipe that nobody reads."""

    def write(self, text: str) -> None:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


def _refuse(line: str) -> None:
    raise ValueError(f"cannot tell: {line}")


SAYING: dict[str, Callable[[], Lines]] = {
    "text": lambda: Lines(to_stderr),
    "json": lambda: worker_log.LoggedLines(worker_log.to_stderr),
    "their own": lambda: Lines(_refuse),
}


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


@pytest.mark.parametrize("how", SAYING)
def test_it_ends_as_any_other(cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """What runs may finish, what has not begun is given back at once, and the cluster is told that the worker has left."""
    monkeypatch.setattr(sys, "stderr", _Broken())
    begun, go = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        assert go.wait(20)

    tasks = [cluster.add("work") for _ in range(3)]
    made, _ = worker(cluster, {"work": work}, concurrency=1, prefetch=2, lines=SAYING[how]())
    thread = threading.Thread(target=made.run)
    thread.start()
    assert begun.wait(20)
    cluster.until(lambda: [task.status for task in tasks] == ["PROCESSING"] * 3)
    made.stop()
    cluster.until(lambda: [task.status for task in tasks] == ["PROCESSING", "QUEUED", "QUEUED"])
    go.set()
    thread.join(20)
    assert not thread.is_alive()
    assert tasks[0].status == "SUCCESS"
    assert cluster.status[1] == "LEFT"


def test_a_failure_of_somebodys_own_writer_is_logged(cluster: TaskCluster, caplog: pytest.LogCaptureFixture) -> None:
    made, _ = worker(cluster, {"work": str}, burst=True, write=_refuse)
    with caplog.at_level(logging.ERROR):
        made.run()
    assert "a line of the worker could not be written: stopped: 0 tasks done, 0 attempts failed" in caplog.messages


@pytest.mark.parametrize("stderr", ["nobody reads it", "closed"])
@pytest.mark.parametrize(
    ("signals", "status"), [(["SIGINT"], "SUCCESS"), (["SIGINT", "SIGTERM"], "QUEUED")], ids=["once", "twice"]
)
def test_ctrl_c_ends_it_where_it_ended_the_reader_of_its_lines_too(
    signals: list[str], status: str, stderr: str
) -> None:
    """As in ``quorl worker run shop:app 2>&1 | tee log``: the terminal interrupts both."""
    through = ["sh", "-c", 'exec "$0" "$@" 2>&-'] if stderr == "closed" else []
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        done = signalled(*signals, through=through, stderr=theirs)
    finally:
        os.close(theirs)
    assert (done.returncode, done.stdout) == (0, f"{status} LEFT\n")
