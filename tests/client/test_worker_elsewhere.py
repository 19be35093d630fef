"""C8: a task that a worker has no handler for goes to one that has it, and fails where nobody has."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest

from quorl.client import worker_elsewhere
from quorl.client.errors import Unavailable
from quorl.client.worker_elsewhere import LATER_MS_MAX, LATER_MS_MIN, Elsewhere
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import workers as w
from tests.client.scripted import problem
from tests.client.task_cluster import Task, TaskCluster
from tests.client.worker_kit import add, burst, working


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


def colleague(cluster: TaskCluster, *names: str, name: str = "other", queue: str = "default") -> int:
    """Register a worker that takes nothing itself."""
    handlers = tuple(w.Handler(name=one) for one in names)
    made: Any = cluster.register(w.RegisterWorker(name=name, queues=(queue,), handlers=handlers))
    return int(made.worker_id)


def delays_of(task: Task) -> list[int]:
    return [delay for delay in task.delays if delay is not None]


def comes_back(cluster: TaskCluster, task: Task, times: int) -> None:
    cluster.until(lambda: len(task.delays) == times and task.status == "RETRY")


def test_c8_a_task_is_given_back_uncounted_and_for_later_if_another_worker_has_its_handler(
    cluster: TaskCluster,
) -> None:
    colleague(cluster, "divide", name="other\x1b[31m")
    task, own = cluster.add("divide", 1, 2), cluster.add("add", 1, 2)
    with working(cluster, {"add": add}, name="old") as lines:
        for times in range(1, 6):
            comes_back(cluster, task, times)
            cluster.due(task)
        comes_back(cluster, task, 6)
        cluster.until(lambda: own.status == "SUCCESS")
    assert (task.attempts, task.errors) == (0, [])
    assert all(LATER_MS_MIN / 2 <= delay <= LATER_MS_MIN for delay in delays_of(task))
    said = [line.partition("given back: ")[2] for line in lines if "given back" in line]
    assert said[0].startswith("no handler for it here, and worker other")
    assert not any("\x1b" in line for line in said)


def test_c8_the_more_tasks_are_given_back_the_later_they_come_again(cluster: TaskCluster) -> None:
    colleague(cluster, "divide")
    tasks = [cluster.add("divide", number) for number in range(200)]
    with working(cluster, {"add": add}):
        cluster.until(lambda: all(task.status == "RETRY" for task in tasks))
    delays = sorted(delay for task in tasks for delay in delays_of(task))
    assert LATER_MS_MIN / 2 <= delays[0] <= LATER_MS_MIN
    assert 500 <= delays[-1] <= 1_000


def test_c8_only_so_many_are_remembered_and_none_is_put_off_for_longer_than_the_bound(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_elsewhere, "EACH_MS", LATER_MS_MAX)
    monkeypatch.setattr(worker_elsewhere, "LATELY_MAX", 1)
    colleague(cluster, "divide")
    tasks = [cluster.add("divide", number) for number in range(5)]
    with working(cluster, {"add": add}):
        cluster.until(lambda: all(task.status == "RETRY" for task in tasks))
    assert all(LATER_MS_MAX / 2 <= delay <= LATER_MS_MAX for task in tasks for delay in delays_of(task))


@pytest.mark.parametrize("names", [(), [f"n{number}" for number in range(limits.WORKER_HANDLERS_MAX)]])
def test_c8_a_worker_that_does_not_say_all_that_it_can_run_may_have_the_handler(
    cluster: TaskCluster, names: tuple[str, ...]
) -> None:
    colleague(cluster, *names)
    task = cluster.add("divide", 1, 2)
    with working(cluster, {"add": add}):
        comes_back(cluster, task, 1)
    assert task.attempts == 0


def test_c8_where_nobody_alive_has_the_handler_the_task_fails_and_says_who_is_there(cluster: TaskCluster) -> None:
    gone = colleague(cluster, "divide", name="gone")
    colleague(cluster, "sub", "mul", name="near")
    colleague(cluster, "divide", name="far", queue="elsewhere")
    for number in range(11):
        colleague(cluster, *(f"n{each}" for each in range(12)), name=f"crowd {number}")
    task = cluster.add("divide", 1, 2)
    with working(cluster, {"add": add}):
        comes_back(cluster, task, 1)
        cluster.kill(gone)
        cluster.due(task)
        cluster.until(lambda: task.status == "FAILED")
    (error,) = task.errors
    assert (task.attempts, error.type) == (1, "UnknownTask")
    assert error.message.startswith(
        "no handler named 'divide'; this worker knows: add; beside it on queue 'default': near: mul, sub; crowd 0: n0, n1, "
    )
    assert "n6, n7 and 2 more; crowd 1: " in error.message  # in the order of text: n0, n1, n10, n11, n2 …
    assert error.message.endswith("; and 2 more workers")
    assert "far" not in error.message


def test_c8_a_worker_alone_says_that_it_is(cluster: TaskCluster) -> None:
    task = cluster.add("divide")
    burst(cluster, {})
    assert task.errors[0].message == (
        "no handler named 'divide'; this worker knows: none; no other worker is alive on its queue"
    )


def test_c8_nothing_fails_while_the_cluster_does_not_say_who_is_there(cluster: TaskCluster) -> None:
    cluster.mishaps["list_workers"].append(problem("route_not_found"))
    task = cluster.add("divide")
    with working(cluster, {"add": add}) as lines:
        comes_back(cluster, task, 1)
        assert any(line.endswith("and the cluster does not say who has one") for line in lines)
        cluster.due(task)
        cluster.until(lambda: task.status == "FAILED")


def test_c8_tasks_that_come_together_share_a_question(cluster: TaskCluster) -> None:
    tasks = [cluster.add("divide", number) for number in range(8)]
    burst(cluster, {"add": add}, concurrency=8)
    assert {task.status for task in tasks} == {"FAILED"}
    assert len(cluster.named("list_workers")) <= 2


def test_c8_what_is_not_run_here_does_not_time_out_while_the_cluster_is_asked(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silent(self: Elsewhere, queue: str) -> list[w.WorkerInfo]:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):
                await asyncio.Event().wait()
        raise Unavailable("nobody answers")

    monkeypatch.setattr(Elsewhere, "_alive_on", silent)
    task = cluster.add("divide", timeout_ms=30, max_attempts=1)
    with working(cluster, {"add": add}) as lines:
        comes_back(cluster, task, 1)
        assert not any("Timeout" in line for line in lines)
    assert (task.attempts, task.errors) == (0, [])
