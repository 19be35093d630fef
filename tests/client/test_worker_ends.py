"""How a worker ends: told to, by the cluster, at once, or by a crash; and where handlers run in processes of their own."""

from __future__ import annotations

import errno
import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from quorl.client import AsyncClient, Context, Worker, worker_floor, worker_pool, worker_shift
from quorl.client.handlers import Handler
from quorl.client.worker_floor import Floor
from quorl.client.worker_ledger import Holding, Ledger
from tests.client.pool_tasks import app
from tests.client.task_cluster import AFTER, Task, TaskCluster
from tests.client.worker_kit import add, burst, program, signalled, statuses, worker, working


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


# -- threads -------------------------------------------------------------------------------------------------------
class FewThreads(threading.Thread):
    """Threads of which the system gives no more for a while; only those of tasks are meant."""

    left = 0

    @override
    def start(self) -> None:
        if self.name.startswith("quorl-task"):
            if FewThreads.left <= 0:
                raise RuntimeError("can't start new thread")
            FewThreads.left -= 1
        super().start()


def test_a_task_that_the_system_gives_no_thread_for_is_given_back_and_the_worker_goes_on(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "Thread", FewThreads)
    monkeypatch.setattr(worker_floor, "NO_THREAD_S", 0.05)
    monkeypatch.setattr(FewThreads, "left", 1)
    go, entered = threading.Event(), threading.Event()

    def work() -> str:
        entered.set()
        go.wait(10)
        return "done"

    with working(cluster, {"work": work}, concurrency=3) as lines:
        first = cluster.add("work")
        assert entered.wait(10)
        late = [cluster.add("work") for _ in range(2)]
        cluster.until(lambda: sum("no thread to run it: can't start new thread" in line for line in lines) >= 4)
        assert [one.attempts for one in late] == [0, 0]
        assert first.status == "PROCESSING"
        FewThreads.left = 9
        go.set()
        cluster.until(lambda: statuses(cluster) == ["SUCCESS"] * 3)


def test_a_task_that_the_system_gives_no_process_for_is_given_back_and_the_worker_goes_on(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has not run, so it has not failed either: its attempts are for what goes wrong with it."""
    refused = 2

    class Few(worker_pool.Child):
        def __init__(self, *how: Any) -> None:
            nonlocal refused
            if refused:
                refused -= 1
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            super().__init__(*how)

    monkeypatch.setattr(worker_pool, "Child", Few)
    monkeypatch.setattr(worker_floor, "NO_THREAD_S", 0.05)
    with working(cluster, app.tasks, pool="process", concurrency=1) as lines:  # type: ignore[arg-type]
        task = cluster.add("where")
        cluster.until(lambda: statuses(cluster) == ["SUCCESS"])
    assert task.attempts == 1
    assert sum("no process to run it: Resource temporarily unavailable" in line for line in lines) == 2


# -- ending --------------------------------------------------------------------------------------------------------
def test_told_to_end_it_lets_tasks_finish_gives_back_the_rest_and_leaves(cluster: TaskCluster) -> None:
    go, entered = threading.Event(), threading.Event()

    def work() -> str:
        entered.set()
        go.wait(10)
        return "done"

    running, ahead = cluster.add("work"), cluster.add("work")
    made, lines = worker(cluster, {"work": work}, concurrency=1, prefetch=1)
    thread = threading.Thread(target=made.run)
    thread.start()
    assert entered.wait(10)
    cluster.until(lambda: ahead.status == "PROCESSING")
    made.stop()
    cluster.until(lambda: ahead.status == "QUEUED")
    assert ahead.attempts == 0
    go.set()
    thread.join(10)
    assert running.status == "SUCCESS"
    assert cluster.status[1] == "LEFT"
    assert lines[-1] == "stopped: 1 task done, 0 attempts failed"


def test_of_a_report_whose_answer_was_lost_it_is_not_said_that_its_task_runs_again(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_shift, "DELIVER_S", 0.2)

    def work() -> str:
        cluster.mishaps["sync"].extend([AFTER] * 1000)
        return "done"

    task = cluster.add("work")
    made, lines = worker(cluster, {"work": work})
    thread = threading.Thread(target=made.run)
    thread.start()
    cluster.until(lambda: task.status == "SUCCESS")
    made.stop()
    thread.join(30)
    assert "! not confirmed: 1 report. A task whose report did not arrive will run again" in lines


def test_ended_at_once_it_gives_everything_back(cluster: TaskCluster) -> None:
    go, entered = threading.Event(), threading.Event()

    def work(ctx: Context) -> None:
        entered.set()
        go.wait(60)

    task = cluster.add("work")
    made, lines = worker(cluster, {"work": work})
    thread = threading.Thread(target=made.run)
    thread.start()
    assert entered.wait(10)
    made.stop()
    made.stop(now=True)
    thread.join(30)
    assert not thread.is_alive(), lines
    go.set()
    assert (task.status, task.attempts) == ("QUEUED", 0)


def test_it_can_be_told_to_end_by_a_handler_that_interrupts_its_beginning(cluster: TaskCluster) -> None:
    task = cluster.add("add", 1, 2)

    def client() -> AsyncClient:
        made.stop()
        return cluster.aclient()

    made = Worker({"add": add}, client=client, heart_client=cluster.client, write=lambda _: None)
    running = threading.Thread(target=made.run, daemon=True)
    running.start()
    running.join(10)
    assert not running.is_alive(), "it waits for itself"
    assert task.status == "QUEUED"


@pytest.mark.parametrize("what", ["terminate", "sealed"])
def test_the_cluster_can_end_a_worker(cluster: TaskCluster, what: str) -> None:
    task = cluster.add("add", 1, 1)
    made, lines = worker(cluster, {"add": add})
    thread = threading.Thread(target=made.run)
    thread.start()
    cluster.until(lambda: task.status == "SUCCESS")
    setattr(cluster, what, True)
    cluster.touch()
    thread.join(10)
    assert not thread.is_alive(), lines


def test_a_quiet_worker_claims_nothing_more(cluster: TaskCluster) -> None:
    with working(cluster, {"add": add}) as lines:
        cluster.until(lambda: cluster.named("sync"))
        cluster.quiet = True
        cluster.until(lambda: "told to be quiet: nothing more is claimed" in lines)
        task = cluster.add("add", 1, 1)
        count = len(cluster.beats)
        cluster.until(lambda: len(cluster.beats) > count + 2)
        assert task.status == "QUEUED"


PROGRAM = """
import sys
from quorl.client import Worker
from tests.client.pool_tasks import app
from tests.client.task_cluster import AFTER, TaskCluster
cluster = TaskCluster()
for n in range(10):
    cluster.add("add", n, 1)
options = eval(sys.argv[1])
worker = Worker({"add": lambda x, y: x + y}, burst=True, concurrency=1, client=cluster.aclient, heart_client=cluster.client, **options)
worker.run()
print("SUCCESS", [task.status for task in cluster.tasks.values()].count("SUCCESS"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("standby", [False, True])
def test_b12_it_crashes_in_the_third_to_fifth_task_and_a_standby_never_does(standby: bool) -> None:
    done = program(sys.executable, "-c", PROGRAM, repr({"crash_between": (3, 5), "standby": standby}))
    begun = done.stderr.count("▶")
    if standby:
        assert (done.returncode, done.stdout, begun) == (0, "SUCCESS 10\n", 10)
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert 3 <= begun <= 5
        assert f"crashing on purpose in task {begun}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signals", "status"), [(["SIGTERM"], "SUCCESS"), (["SIGTERM", "SIGINT"], "QUEUED")], ids=["once", "twice"]
)
def test_the_first_signal_lets_tasks_finish_and_the_second_ends_it_at_once(signals: list[str], status: str) -> None:
    done = signalled(*signals)
    assert (done.returncode, done.stdout) == (0, f"{status} LEFT\n"), done.stderr


# -- processes -----------------------------------------------------------------------------------------------------
def test_plain_functions_run_in_processes_and_say_what_they_would_say_in_threads(cluster: TaskCluster) -> None:
    tasks = {
        name: cluster.add(name, *args, max_attempts=1)
        for name, args in {"where": (), "bad": ("ejnf",), "again": (), "die": (), "on_loop": ()}.items()
    }
    burst(cluster, app.tasks, pool="process", concurrency=2)  # type: ignore[arg-type]
    found = msgspec.json.decode(tasks["where"].result)
    assert found["pid"] != os.getpid() == msgspec.json.decode(tasks["on_loop"].result)
    assert (found["token"], found["task"]) == (tasks["where"].runs[0], tasks["where"].id)
    assert tasks["bad"].errors[0].message == "invalid literal for int() with base 10: 'ejnf'"
    assert "in bad" in tasks["bad"].errors[0].traceback
    assert "worker_job" not in tasks["bad"].errors[0].traceback
    assert tasks["again"].delays == [2000]
    assert tasks["die"].errors[0].message == "the process that ran the task ended with code 7"


@pytest.mark.parametrize("pool", ["thread", "process"])
def test_what_another_attempt_would_not_mend_has_no_other(cluster: TaskCluster, pool: str) -> None:
    tasks = [cluster.add(name, max_attempts=5) for name in ("refuse", "refuse_on_loop")]
    lines = burst(cluster, app.tasks, pool=pool)  # type: ignore[arg-type]
    for task in tasks:
        assert (task.status, len(task.errors)) == ("FAILED", 1), lines
        assert (task.errors[0].type, task.errors[0].message) == ("CardRefused", "no money")
        assert "the bank says 402" in task.errors[0].traceback


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # forking beside threads is what is tried
@pytest.mark.parametrize("pool", ["process", "thread"])
def test_a_copy_that_a_handler_made_ends_with_the_handler_and_reports_nothing(cluster: TaskCluster, pool: str) -> None:
    wanted: dict[tuple[Any, ...], int] = {
        ("fork", None): 0,
        ("fork", 0): 0,
        ("fork", 3): 3,
        ("fork_and_fail",): 1,
        ("fork_on_loop",): 0,
    }
    tasks = {cluster.add(name, *args, max_attempts=1): code for (name, *args), code in wanted.items()}
    tasks[cluster.add("fork", 5, max_attempts=1)] = 5
    burst(cluster, app.tasks, pool=pool, concurrency=1)  # type: ignore[arg-type]
    assert [task.status for task in tasks] == ["SUCCESS"] * len(tasks)
    assert [msgspec.json.decode(task.result) for task in tasks] == list(tasks.values())


def test_a_process_hears_of_a_cancellation_and_one_that_does_not_is_killed(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "KILL_AFTER_S", 0.2)
    tasks = [cluster.add("listen"), cluster.add("deaf")]
    with working(cluster, app.tasks, pool="process", concurrency=2):  # type: ignore[arg-type]
        cluster.until(lambda: statuses(cluster) == ["PROCESSING"] * 2)
        cluster.until(lambda: tasks[0].progress, 20)
        for task in tasks:
            task.cancel = True
        cluster.until(lambda: statuses(cluster) == ["CANCELLED"] * 2, 20)


# -- out of time ---------------------------------------------------------------------------------------------------
def test_what_a_plain_handler_returns_after_its_time_limit_is_no_success(cluster: TaskCluster) -> None:
    def work(ctx: Context) -> str:
        ctx.wait(10)
        return "late"

    task = cluster.add("work", timeout_ms=30, max_attempts=1)
    with working(cluster, {"work": work}, heartbeat_s=30) as lines:
        cluster.until(lambda: task.status == "FAILED")
    assert task.errors[0].type == "Timeout"
    assert not any("late" in line for line in lines)
    assert any("stopped: 0 tasks done, 1 attempt failed" in line for line in lines)


def with_a_late_loop(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch, work: Callable[[], str], timeout_ms: int, *, limit: bool
) -> tuple[Task, list[str]]:
    """Run a plain handler while the worker's loop is held up until that has ended; ``limit``: it meets the time limit first."""
    held, ended = threading.Event(), threading.Event()
    limits: list[Callable[[], None]] = []
    run = Floor._in_a_thread

    def noted(self: Floor, life: Ledger, holding: Holding, one: Handler) -> None:
        limits.append(functools.partial(self._out_of_time, holding))
        run(self, life, holding, one)
        ended.set()

    def held_up() -> str:
        held.wait(10)
        return work()

    async def hold() -> None:
        held.set()
        assert ended.wait(10)
        if limit:  # it comes to it before it has heard of the end
            limits[0]()

    monkeypatch.setattr(Floor, "_in_a_thread", noted)
    task = cluster.add("work", timeout_ms=timeout_ms, max_attempts=1)
    cluster.add("hold")
    return task, burst(cluster, {"work": held_up, "hold": hold}, heartbeat_s=30, concurrency=2)


def test_what_has_ended_in_time_is_a_success_also_if_the_loop_was_late(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, lines = with_a_late_loop(cluster, monkeypatch, lambda: "in time", 60_000, limit=True)
    assert (task.status, bytes(task.result)) == ("SUCCESS", b'"in time"'), lines


async def _blocking() -> str:
    threading.Event().wait(0.1)  # on the worker's loop, which learns of the end of the time and of the run at once
    return "late"


def test_what_has_ended_too_late_is_no_success_though_the_loop_was_late_as_well(cluster: TaskCluster) -> None:
    task = cluster.add("work", timeout_ms=30, max_attempts=1)
    lines = burst(cluster, {"work": _blocking}, heartbeat_s=30)
    assert (task.status, task.errors[0].type) == ("FAILED", "Timeout"), lines
    assert not any("late" in line for line in lines)
    assert any("stopped: 0 tasks done, 1 attempt failed" in line for line in lines)


def test_a_thread_that_was_too_late_is_no_success_though_the_loop_was_late_as_well(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work() -> str:
        threading.Event().wait(0.1)
        return "late"

    task, lines = with_a_late_loop(cluster, monkeypatch, work, 90, limit=False)
    assert (task.status, task.errors[0].type) == ("FAILED", "Timeout"), lines


def test_a_run_is_told_that_its_time_is_over_though_nobody_else_can_be(cluster: TaskCluster) -> None:
    def work(ctx: Context) -> None:
        assert ctx.wait(20), "it is told to stop"

    def broken(line: str) -> None:
        if "Timeout" in line:
            raise BrokenPipeError

    task = cluster.add("work", timeout_ms=30, max_attempts=1)
    with working(cluster, {"work": work}, heartbeat_s=30, write=broken):
        cluster.until(lambda: task.status == "FAILED")
    assert task.errors[0].type == "Timeout"
