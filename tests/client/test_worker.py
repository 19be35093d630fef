"""The worker's runtime, against a cluster in memory: what it claims, runs, reports, and what it does when things go wrong."""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import threading
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from typing_extensions import override

from quorl.client import NO_CONTEXT, App, Context, Retry, Worker, demo
from quorl.client.worker_lines import CUT, error_of
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits, wire
from quorl.cluster.protocol import workers as w
from tests.client.scripted import LOST, problem
from tests.client.task_cluster import AFTER, BEFORE, TaskCluster
from tests.client.worker_kit import add, burst, statuses, worker, working


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


# -- running -------------------------------------------------------------------------------------------------------
def test_plain_and_async_functions_run_and_one_call_brings_many_results(cluster: TaskCluster) -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return -x

    tasks = [cluster.add("add", n, 1) for n in range(4)] + [cluster.add("later", n) for n in range(4)]
    lines = burst(cluster, {"add": add, "later": later})
    assert statuses(cluster) == ["SUCCESS"] * 8
    assert [msgspec.json.decode(task.result) for task in tasks] == [1, 2, 3, 4, 0, -1, -2, -3]
    syncs = [one for one in cluster.named("sync") if isinstance(one, e.Sync) and one.complete]
    assert len(syncs) < 8
    assert any(line.startswith("▶ add t-1 → w-1") for line in lines)
    assert any(line.startswith("■ t-1") and line.endswith("→ 1") for line in lines)


def test_b9_three_attempts_with_three_tracebacks(cluster: TaskCluster) -> None:
    def fail(text: str) -> int:
        return int(text)

    task = cluster.add("fail", "ejnf")
    lines = burst(cluster, {"fail": fail})
    assert (task.status, task.attempts) == ("FAILED", 3)
    assert [error.type for error in task.errors] == ["ValueError"] * 3
    assert "in fail" in task.errors[0].traceback
    assert "worker_job" not in task.errors[0].traceback, "the worker's own frames say nothing"
    assert [line.rpartition("· ")[2] for line in lines if line.startswith("✗")] == [
        "attempt 1 of 3, again after its back-off",
        "attempt 2 of 3, again after its back-off",
        f"attempt 3 of 3, FAILED: quorl task show {task.id}",
    ]


def test_c8_an_unknown_handler_fails_at_once_and_is_named(cluster: TaskCluster) -> None:
    task = cluster.add("nothing")
    burst(cluster, {"add": add, "sub": add})
    assert (task.status, task.attempts) == ("FAILED", 1)
    assert "'nothing'" in task.errors[0].message
    assert "add, sub" in task.errors[0].message


def test_results_that_are_not_json_or_too_large_fail_at_once(cluster: TaskCluster) -> None:
    odd, large = cluster.add("odd"), cluster.add("large")
    burst(cluster, {"odd": object, "large": lambda: "x" * (limits.RESULT_BYTES_MAX + 1)})
    assert (odd.status, odd.attempts, odd.errors[0].type) == ("FAILED", 1, "ResultNotJson")
    assert (large.status, large.attempts, large.errors[0].type) == ("FAILED", 1, "ResultTooLarge")


def test_values_that_json_has_no_word_for_come_as_annotated(cluster: TaskCluster) -> None:
    seen: list[Any] = []

    def take(when: dt.datetime, *, who: uuid.UUID, raw: bytes = b"") -> dt.datetime:
        seen.extend([when, who, raw])
        return when + dt.timedelta(hours=1)

    app = App()
    task = app.task(name="take")(take)
    when, who = dt.datetime(2026, 1, 2, tzinfo=dt.UTC), uuid.uuid4()
    call = task.call(when, who=who, raw=b"\x00\xff")
    found = cluster.add("take")
    found.new = call.task
    found.body = found.body.__class__(args=call.task.args, kwargs=call.task.kwargs)  # type: ignore[arg-type]
    burst(cluster, {"take": take})
    assert seen == [when, who, b"\x00\xff"]
    assert msgspec.json.decode(found.result) == "2026-01-02T01:00:00Z"


def test_wrong_arguments_fail_as_python_says_it(cluster: TaskCluster) -> None:
    def take(when: dt.datetime) -> None: ...

    few, wrong = cluster.add("take", max_attempts=1), cluster.add("take", "noon", max_attempts=1)
    burst(cluster, {"take": take})
    assert "missing a required argument: 'when'" in few.errors[0].message
    assert "argument 'when': " in wrong.errors[0].message


def test_retry_says_when(cluster: TaskCluster) -> None:
    def again() -> None:
        raise Retry(in_=1.5)

    task = cluster.add("again", max_attempts=2)
    lines = burst(cluster, {"again": again})
    assert (task.status, task.delays) == ("FAILED", [1500, 1500])
    assert any("again in 1.5 s" in line for line in lines)


def test_a_handler_cannot_end_the_worker(cluster: TaskCluster) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    tasks = [cluster.add("exit", max_attempts=1), cluster.add("leave", max_attempts=1), cluster.add("add", 1, 2)]
    burst(cluster, {"exit": sys.exit, "leave": leave, "add": add})
    assert [task.status for task in tasks] == ["FAILED", "FAILED", "SUCCESS"]
    assert tasks[1].errors[0].type == "SystemExit"


# -- the context ---------------------------------------------------------------------------------------------------
def test_the_context_is_injected_and_what_it_is_told_arrives(cluster: TaskCluster) -> None:
    seen: list[Any] = []

    def work(path: str, ctx: Context = NO_CONTEXT) -> str:
        seen.append((ctx.task_id, ctx.attempt, ctx.token, ctx.checkpoint))
        ctx.progress(50, "half")
        ctx.save({"at": ctx.attempt})
        if ctx.attempt < 3:
            raise RuntimeError(path)
        return path

    task = cluster.add("work", "p")
    burst(cluster, {"work": work})
    assert task.status == "SUCCESS"
    assert [(one[0], one[1], one[3]) for one in seen] == [
        ("t-1", 1, None),
        ("t-1", 2, {"at": 1}),
        ("t-1", 3, {"at": 2}),
    ]
    assert [one[2] for one in seen] == task.runs == sorted(task.runs)
    assert task.progress[:2] == [(50, "half"), (50, "half")], "what was saved arrives before the failure"


def test_progress_travels_while_the_task_runs(cluster: TaskCluster) -> None:
    go = threading.Event()

    def work(ctx: Context) -> None:
        ctx.progress(10, "begun")
        go.wait(10)

    task = cluster.add("work")
    with working(cluster, {"work": work}):
        cluster.until(lambda: task.progress)
        assert task.status == "PROCESSING"
        go.set()
        cluster.until(lambda: task.status == "SUCCESS")


def test_what_was_saved_arrives_before_the_failure_although_its_call_is_lost(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when a claim is due at that moment, which may be parked: reports do not wait for it."""
    saved, lost = threading.Event(), threading.Event()
    seen: list[Any] = []
    losses = 3
    serve = cluster.serve

    def losing(send: Any, *, patient: bool = True) -> Any:
        nonlocal losses
        request = wire.decode(send.call)[1]
        if isinstance(request, e.Sync) and request.progress and losses:
            losses -= 1
            lost.set()
            return LOST, 0
        return serve(send, patient=patient)

    def saves(ctx: Context) -> None:
        seen.append(ctx.checkpoint)
        if ctx.attempt == 1:
            ctx.save(7)
            saved.set()
            lost.wait(10)
            raise RuntimeError

    def quick() -> None:
        saved.wait(10)

    monkeypatch.setattr(cluster, "serve", losing)
    tasks = [cluster.add("saves"), cluster.add("quick")]
    burst(cluster, {"saves": saves, "quick": quick}, concurrency=2)
    assert [task.status for task in tasks] == ["SUCCESS", "SUCCESS"]
    assert seen == [None, 7]


@pytest.mark.parametrize("position", ["first", "last", "keyword"])
def test_a_context_may_stand_anywhere(cluster: TaskCluster, position: str) -> None:
    def first(ctx: Context, x: int, y: int = 2) -> list[Any]:
        return [ctx.name, x, y]

    def last(x: int, y: int = 2, ctx: Context = NO_CONTEXT) -> list[Any]:
        return [ctx.name, x, y]

    def keyword(x: int, *, context: Context, y: int = 2) -> list[Any]:
        return [context.name, x, y]

    handlers: dict[str, Callable[..., Any]] = {"first": first, "last": last, "keyword": keyword}
    task = cluster.add("f", 1)
    burst(cluster, {"f": handlers[position]})
    assert msgspec.json.decode(task.result) == ["f", 1, 2]


# -- leases --------------------------------------------------------------------------------------------------------
def test_a_parked_claim_delays_no_report(cluster: TaskCluster) -> None:
    with working(cluster, {"add": add}):
        cluster.until(lambda: cluster.named("sync"))
        for _ in range(3):
            task = cluster.add("add", 1, 2)
            cluster.until(lambda task=task: task.status == "SUCCESS", 5)  # type: ignore[misc]


def test_heartbeats_name_what_is_held_and_do_not_stop_for_a_blocked_loop(cluster: TaskCluster) -> None:
    go = threading.Event()

    async def block() -> None:
        go.wait(10)  # on the loop: nothing else of the worker runs there now

    task = cluster.add("block")
    with working(cluster, {"block": block}):
        cluster.until(lambda: task.status == "PROCESSING")
        count = len(cluster.beats)
        cluster.until(lambda: len(cluster.beats) >= count + 3)
        beat = cluster.beats[-1]
        assert beat.tokens == (task.token,)
        assert beat.claimed >= 1
        assert not set(beat.claims) & {task.claim}
        go.set()
        cluster.until(lambda: task.status == "SUCCESS")


def test_a_worker_that_was_taken_for_dead_drops_everything_and_registers_anew(cluster: TaskCluster) -> None:
    entered, seen = threading.Event(), []

    async def work(ctx: Context) -> str:
        entered.set()
        seen.append(ctx)
        if len(seen) == 1:
            await asyncio.Event().wait()
        return "second"

    task = cluster.add("work")
    with working(cluster, {"work": work}) as lines:
        assert entered.wait(10)
        cluster.kill(1)
        cluster.until(lambda: task.status == "SUCCESS")
    assert seen[0].cancelled
    assert cluster.workers[2].name == cluster.workers[1].name
    assert any("registered as w-1 (worker 2)" in line for line in lines)
    assert any("dropped: the worker was taken for dead" in line for line in lines)


@pytest.mark.parametrize(
    ("removed", "why"), [(True, "worker 'w' was removed"), (False, "worker 2 runs under its name, 'w'")]
)
def test_a_worker_that_was_removed_or_whose_name_was_taken_over_ends(
    cluster: TaskCluster, removed: bool, why: str
) -> None:
    made, _ = worker(cluster, {"add": add}, name="w")
    done: list[BaseException] = []

    def run() -> None:
        try:
            made.run()
        except BaseException as error:
            done.append(error)
        cluster.touch()

    threading.Thread(target=run).start()
    cluster.until(lambda: cluster.status)
    if not removed:
        cluster.register(w.RegisterWorker(name="w"))
    cluster.kill(1, "LEFT" if removed else "DEAD")
    cluster.until(lambda: done)
    assert str(done[0]) == why


def test_a_lost_lease_stops_its_handler_and_its_result_is_dropped(cluster: TaskCluster) -> None:
    seen: list[Context] = []

    def work(ctx: Context) -> str:
        seen.append(ctx)
        ctx.wait(10)
        return "late"

    task = cluster.add("work")
    with working(cluster, {"work": work}) as lines:
        cluster.until(lambda: seen)
        token = task.token
        task.token, task.status = 0, "EXPIRED"
        cluster.lost = [token]
        cluster.until(lambda: seen[0].cancelled)
    assert any("dropped: its lease is gone" in line for line in lines)
    assert not [one for one in cluster.named("sync") if isinstance(one, e.Sync) and one.complete]


def test_a_plain_handler_that_outlasts_its_time_limit_has_failed_when_it_is_over(cluster: TaskCluster) -> None:
    over, go = threading.Event(), threading.Event()

    def work(ctx: Context) -> None:
        assert ctx.wait(10)
        over.set()
        go.wait(10)  # it goes on all the same

    task = cluster.add("work", timeout_ms=30)
    with working(cluster, {"work": work}) as lines:
        assert over.wait(10)
        assert sum("Timeout: not finished after 0.03 s" in line for line in lines) == 1
        token = task.token
        task.token, task.status = 0, "FAILED"
        cluster.lost = [token]
        go.set()
    assert not [line for line in lines if "dropped" in line or "■" in line]
    assert any("stopped: 0 tasks done, 1 attempt failed" in line for line in lines)


def test_d8_a_late_report_is_refused_and_dropped(cluster: TaskCluster) -> None:
    go, entered = threading.Event(), threading.Event()

    def work() -> None:
        entered.set()
        go.wait(10)

    task = cluster.add("work")
    with working(cluster, {"work": work}, heartbeat_s=30) as lines:
        assert entered.wait(10)
        task.token, task.status = 0, "FAILED"
        go.set()
        cluster.until(lambda: any(isinstance(one, e.Sync) and one.complete for one in cluster.named("sync")))
    assert any("so its report does not count" in line for line in lines)


def test_cancelling_ends_an_async_handler_and_is_seen_by_a_plain_one(cluster: TaskCluster) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    def plain(ctx: Context) -> None:
        while not ctx.wait(10):
            pass
        ctx.check()

    tasks = [cluster.add("forever"), cluster.add("plain")]
    with working(cluster, {"forever": forever, "plain": plain}):
        cluster.until(lambda: statuses(cluster) == ["PROCESSING"] * 2)
        for task in tasks:
            task.cancel = True
        cluster.until(lambda: statuses(cluster) == ["CANCELLED"] * 2)


def test_a_run_that_takes_too_long_is_stopped(cluster: TaskCluster) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    task = cluster.add("forever", timeout_ms=30, max_attempts=1)
    burst(cluster, {"forever": forever})
    assert (task.status, task.errors[0].type) == ("FAILED", "Timeout")


# -- when calls go wrong -------------------------------------------------------------------------------------------
def test_d7_reports_are_repeated_under_their_key_until_they_are_answered(cluster: TaskCluster) -> None:
    go = threading.Event()

    def work() -> str:
        go.wait(10)
        return "done"

    task = cluster.add("work")
    with working(cluster, {"work": work}, heartbeat_s=30) as lines:
        cluster.until(lambda: task.status == "PROCESSING")
        cluster.down = True
        go.set()
        assert threading.Event().wait(0.05) is False
        cluster.down = False
        cluster.mishaps["sync"].extend([AFTER, BEFORE])
        cluster.until(lambda: task.status == "SUCCESS")
    assert len({key for _, one, key in cluster.calls if isinstance(one, e.Sync) and one.complete}) == 1
    assert not any("dropped" in line for line in lines)


def test_a_worker_starts_before_its_cluster(cluster: TaskCluster) -> None:
    cluster.down = True
    task = cluster.add("add", 1, 1)
    lines: list[str] = []
    told = threading.Event()

    def write(line: str) -> None:
        lines.append(line)
        if "trying on" in line:
            told.set()

    with working(cluster, {"add": add}, write=write):
        assert told.wait(10)
        cluster.down = False
        cluster.until(lambda: task.status == "SUCCESS")
    assert "the cluster answers again" in lines


def test_a_report_that_no_node_takes_fails_its_own_task_only(cluster: TaskCluster) -> None:
    tasks = [cluster.add("add", n, 1) for n in range(2)]
    made, _ = worker(cluster, {"add": add}, burst=True, heartbeat_s=30)
    refusal = problem("payload_too_large", "far too much")
    cluster.mishaps["sync"].append(problem("no_leader"))
    original = cluster.serve

    def serve(send: Any, *, patient: bool = True) -> Any:
        body = msgspec.json.decode(send.call.body or b"{}")
        if any(one["task_id"] == "t-1" for one in body.get("complete", ())):
            return refusal, 0
        return original(send, patient=patient)

    cluster.serve = serve  # type: ignore[method-assign]
    made.run()
    assert [task.status for task in tasks] == ["FAILED", "SUCCESS"]
    assert tasks[0].errors[0].type == "ReportRefused"


# -- small things --------------------------------------------------------------------------------------------------
def test_what_it_registers_as(cluster: TaskCluster) -> None:
    def documented(x: int, ctx: Context = NO_CONTEXT) -> int:
        """Say what it does."""
        return x

    burst(cluster, {"d": documented}, queues=["b", "a"], name="me", concurrency=3, dead_after_s=4)
    (asked,) = cluster.named("register_worker")
    assert isinstance(asked, w.RegisterWorker)
    assert (asked.name, asked.queues, asked.concurrency, asked.dead_after_ms) == ("me", ("b", "a"), 3, 4000)
    assert asked.handlers == (w.Handler(name="d", signature="(x: int) -> int", doc="Say what it does."),)


def test_b9_the_demos_tasks_have_tracebacks_like_any_other() -> None:
    with pytest.raises(ValueError, match="ejnf") as caught:
        demo.add("1", "ejnf")
    assert error_of(caught.value).traceback.startswith("Traceback")
    assert "in number" in error_of(caught.value).traceback


def test_long_tracebacks_are_cut_in_the_middle() -> None:
    def deep(n: int) -> None:
        if n:
            deep(n - 1)
        raise ValueError("x" * 20_000 + "the end")

    with pytest.raises(ValueError, match="the end") as caught:
        deep(30)
    error = error_of(caught.value)
    assert max(len(error.message), len(error.traceback)) <= limits.ERROR_TEXT_CHARS_MAX
    assert CUT in error.traceback
    assert error.traceback.startswith("Traceback")
    assert error.traceback.rstrip().endswith("the end")


@pytest.mark.parametrize("broken", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_errors_that_cannot_be_told_are_told(broken: type[BaseException]) -> None:
    class Mute(Exception):
        @override
        def __str__(self) -> str:
            raise broken

    assert f"cannot be made: {broken.__name__}" in error_of(Mute()).message
    assert error_of(ValueError("\ud800")).message == "\\ud800"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"concurrency": 0}, "concurrency"),
        ({"pool": "fiber"}, "pool"),
        ({"crash_between": (5, 3)}, "crash_between"),
        ({"queues": []}, "at least one queue"),
        ({"pool": "process"}, "define it at the top of a module"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Worker({"x": lambda: None}, **options)
