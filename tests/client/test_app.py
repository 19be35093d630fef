"""Apps: tasks as functions, their submits and results, against a cluster in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import functools
import inspect
import pickle
import subprocess
import sys
import threading
from typing import Any

import msgspec
import pytest

from quorl.client import (
    NO_CONTEXT,
    App,
    Context,
    Handle,
    Invalid,
    NotFinished,
    TaskCancelled,
    TaskClient,
    TaskExpired,
    TaskFailed,
    TaskNotFound,
    TaskWorker,
)
from quorl.client import tasking as g
from quorl.client.handle import POLLS_MAX, Waiting
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from tests.client.task_cluster import TaskCluster


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


def app_on(cluster: TaskCluster, **options: Any) -> App:
    app = App("http://a", **options)
    app._client = cluster.client()
    return app


def on_loop(app: App, cluster: TaskCluster) -> None:
    """Give the running loop its client."""
    client = cluster.aclient()
    app._clients[asyncio.get_running_loop()] = (client, Waiting(client))


def finish(cluster: TaskCluster, task_id: str, value: Any = None, status: k.Status = "SUCCESS", **options: Any) -> None:
    task = cluster.tasks[task_id]
    task.result, task.status = msgspec.Raw(msgspec.json.encode(value)), status
    for name, what in options.items():
        setattr(task, name, what)
    cluster.touch()


# -- definitions ---------------------------------------------------------------------------------------------------
def test_a_task_is_still_a_function() -> None:
    app = App()

    @app.task
    def add(x: int, y: int = 1) -> int:
        """Add."""
        return x + y

    @app.task(queue="emails", priority=9)
    async def send(to: str) -> str:
        return to

    assert (add(2), add.__doc__, getattr(add, "__name__", "")) == (3, "Add.", "add")
    assert asyncio.run(send("a")) == "a"
    assert add.name == f"{__name__}.test_a_task_is_still_a_function.add"
    assert (add.queue, send.queue) == ("default", "emails")
    assert app.tasks == {add.name: add, send.name: send}
    assert inspect.signature(add) == inspect.signature(add.function)
    assert repr(add) == f"<task {add.name} on default>"


def test_nothing_connects_before_the_first_call() -> None:
    code = """
import quorl, sys
app = quorl.App()
@app.task
def add(x: int) -> int: return x
assert add.name == "main.add", add.name
print([name for name in ("aiohttp", "urllib3") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "[]"


def test_two_functions_of_one_name_are_a_mistake_and_a_reload_is_none() -> None:
    app = App()

    def one() -> None: ...

    def two() -> None: ...

    app.task(name="x")(one)
    app.task(name="x")(one)
    with pytest.raises(ValueError, match="two tasks named 'x'"):
        app.task(name="x")(two)


# -- options -------------------------------------------------------------------------------------------------------
def test_options_in_seconds_become_milliseconds() -> None:
    when = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    task = g.new_task("x", [1], {"a": 2}, {"timeout": 1.5, "delay": 2, "expires": 60, "retries": 4, "key": "k"})
    assert (task.timeout_ms, task.delay_ms, task.expires_ms, task.max_attempts, task.key) == (
        1500,
        2000,
        60_000,
        5,
        "k",
    )
    assert (bytes(task.args), bytes(task.kwargs)) == (b"[1]", b'{"a":2}')  # type: ignore[arg-type]
    assert g.new_task("x", options={"run_at": when}).run_at == "2026-01-02T00:00:00+00:00"
    assert g.new_task("x", options={"delay": None, "timeout": None}).delay_ms == 0
    with pytest.raises(Invalid, match="no zone"):
        g.new_task("x", options={"run_at": when.replace(tzinfo=None)})
    with pytest.raises(Invalid, match="no JSON form"):
        g.new_task("x", [object()])
    with pytest.raises(TypeError, match="timeout is a number of seconds, and '5m' is none"):
        g.new_task("x", options={"timeout": "5m"})


@pytest.mark.parametrize(
    ("args", "kwargs", "told"),
    [
        (5, None, r"come as one list: submit\('x', \[5, …\]\)"),
        ("two", None, r"come as one list: submit\('x', \['two', …\]\)"),
        (b"two", None, "come as one list"),
        ({"a": 1}, None, r"go to kwargs: submit\('x', kwargs=\{'a': 1\}\)"),
        ([1], 2, "kwargs are a dict of named arguments, and not 2"),
    ],
)
def test_arguments_that_are_in_no_list_are_refused_and_not_taken_apart(args: Any, kwargs: Any, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        g.new_task("x", args, kwargs)


def test_back_offs_in_all_spellings() -> None:
    assert g.read_backoff("linear").kind == "linear"
    assert g.read_backoff([100, 200]) == q.Backoff(kind="list", delays_ms=(100, 200), jitter=0)
    assert g.read_backoff([100, 3_600_000]).max_ms == 3_600_000, "an hour stays an hour"
    with pytest.raises(TypeError, match="whole milliseconds, and '1s' is none"):
        g.read_backoff(["1s"])  # type: ignore[list-item]
    own = q.Backoff(first_ms=5)
    assert g.read_backoff(own) is own


def test_sizes_are_never_less_than_what_travels() -> None:
    full = g.new_task(
        "n" * 200,
        ["x" * 1000],
        {"k": "ü" * 100},
        {
            "id": "🙂" * 200,
            "key": "\x00" * 100,
            "tags": ["t" * 200] * 3,
            "meta": {"m": "ü"},
            "priority": 3,
            "delay": 1e6,
            "expires": 1e6,
            "timeout": 1e6,
            "max_attempts": 100,
            "max_lost": 100,
            "backoff": [315_360_000_000] * 100,
            "traceparent": "t" * 55,
        },
    )
    for task in (full, g.new_task("x")):
        assert len(msgspec.json.encode(task)) <= g.task_bytes(task)


# -- submitting ----------------------------------------------------------------------------------------------------
def test_submits_carry_name_arguments_and_options(cluster: TaskCluster) -> None:
    app = app_on(cluster, queue="mine")

    @app.task(name="add", timeout=5, retries=1)
    def add(x: int, y: int, ctx: Context = NO_CONTEXT) -> int:
        return x + y

    handle = add.delay(4, y=5)
    assert isinstance(handle, Handle)
    task = cluster.tasks[handle.id]
    assert (task.queue, task.new.name, task.new.timeout_ms, task.new.max_attempts) == ("mine", "add", 5000, 2)
    assert (bytes(task.body.args), bytes(task.body.kwargs)) == (b"[4]", b'{"y":5}')
    special = cluster.tasks[add.options(queue="slow", delay=60, priority=9, max_attempts=7, id="mine").delay(1, 2).id]
    assert (special.id, special.queue, special.new.delay_ms, special.new.priority) == ("mine", "slow", 60_000, 9)
    assert (special.new.max_attempts, special.new.timeout_ms) == (7, 5000)
    other = app.submit("other.task", 1, 2, kwargs={"z": 3}, queue="x", priority=1)
    assert cluster.tasks[other.id].new.name == "other.task"
    with pytest.raises(TypeError, match=r"^add\(\) missing a required argument: 'y'$"):
        add.delay(4)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"^add\(\) got an unexpected keyword argument 'z'$"):
        app.submit("add", 4, 5, kwargs={"z": 6})


async def test_by_its_name_a_task_of_the_app_has_the_queue_and_the_options_of_its_decorator(
    cluster: TaskCluster,
) -> None:
    app = app_on(cluster)
    on_loop(app, cluster)

    @app.task(name="add", queue="sums", timeout=5, max_attempts=7, backoff="linear", priority=9)
    def add(x: int, y: int) -> int:
        return x + y

    def about(task_id: str) -> tuple[object, ...]:
        task = cluster.tasks[task_id]
        new = task.new
        return task.queue, new.timeout_ms, new.max_attempts, new.backoff, new.priority, bytes(task.body.args)

    as_decorated = about(add.delay(4, 5).id)
    assert about(app.submit("add", 4, 5).id) == as_decorated
    assert about((await app.asubmit("add", 4, 5)).id) == as_decorated
    otherwise = about(app.submit("add", 4, 5, queue="x", retries=1).id)
    assert otherwise[:3] == ("x", 5000, 2)
    assert about(app.client.tasks.submit("add", [4, 5]).id)[:3] == ("default", None, None)  # which knows no app


def test_many_go_in_one_request_for_each_queue_and_answers_keep_their_order(cluster: TaskCluster) -> None:
    app = app_on(cluster)

    @app.task(name="f")
    def f(n: int) -> int:
        return n

    calls = [f.options(queue="ab"[n % 2]).call(n) for n in range(10)]
    handles = app.submit_many(calls)
    assert len(cluster.named("submit")) == 2
    assert [msgspec.json.decode(cluster.tasks[one.id].body.args) for one in handles] == [[n] for n in range(10)]
    assert app.submit_many([]) == []


def test_more_than_a_request_holds_takes_several(cluster: TaskCluster) -> None:
    app = app_on(cluster)
    app.submit_many([app.task(name="f")(print).call("x" * 200_000) for _ in range(5)])
    sizes = [len(one.tasks) for one in cluster.named("submit") if isinstance(one, b.Submit)]
    assert sizes == [2, 2, 1]
    assert limits.SUBMIT_TASKS_MAX * g.TASK_OVERHEAD_BYTES < 4 * limits.REQUEST_BYTES_MAX


async def test_coroutines_submit_together_and_wait_for_results(cluster: TaskCluster) -> None:
    app = app_on(cluster)
    on_loop(app, cluster)

    @app.task(name="f")
    async def f(n: int) -> int:
        return n

    handles = await asyncio.gather(*(f.adelay(n) for n in range(20)))
    assert len(cluster.named("submit")) == 1
    assert await handles[0].astatus() == "QUEUED"
    results = asyncio.gather(*(one.aresult(timeout=10) for one in handles))
    for n, one in enumerate(handles):
        finish(cluster, one.id, n * n)
    assert await results == [n * n for n in range(20)]
    many = await app.asubmit_many([f.call(n) for n in range(3)])
    single = await app.asubmit("f", 7)
    for one in (*many, single):
        finish(cluster, one.id, one.id)
    assert {one.id async for one in app.as_completed([*many, single], timeout=10)} == {o.id for o in (*many, single)}
    await app.aclose()


@pytest.mark.parametrize(("status", "look"), [("PROCESSING", "show"), ("QUEUED", "why")])
async def test_a_result_that_did_not_come_is_told_for_what_how_long_and_what_to_do(
    cluster: TaskCluster, status: k.Status, look: str
) -> None:
    app = app_on(cluster)
    on_loop(app, cluster)
    handle = app.submit("f")
    cluster.tasks[handle.id].status = status
    with pytest.raises(NotFinished) as from_sync:
        handle.result(timeout=0.01)
    with pytest.raises(NotFinished) as from_async:
        await handle.aresult(timeout=0.01)
    for caught in (from_sync, from_async):
        detail, hint = str(caught.value).splitlines()
        assert detail == f"not_finished: task {handle.id} is {status} after 0.01 s of waiting for its end"
        assert hint.startswith(f"  It goes on, and can be waited for again. quorl task {look} {handle.id} says ")


async def test_a_crowd_of_waiters_shares_a_bounded_number_of_polls(cluster: TaskCluster) -> None:
    app = app_on(cluster)
    on_loop(app, cluster)
    handles = [await app.asubmit("f") for _ in range(2 * POLLS_MAX)]
    waiting = asyncio.gather(*(one.aresult() for one in handles))
    while len(cluster.named("get_result")) < POLLS_MAX:
        await asyncio.sleep(0)
    assert len(cluster._watchers) == POLLS_MAX
    for one in reversed(handles):
        finish(cluster, one.id, 1)
    assert await asyncio.wait_for(waiting, 10) == [1] * len(handles)


def test_what_the_app_has_submitted_is_waited_for_without_a_barrier(cluster: TaskCluster) -> None:
    app = app_on(cluster)
    mine, other = app.submit("f"), app.handle("t-2")
    app.submit("f")
    finish(cluster, "t-1", 1)
    finish(cluster, "t-2", 2)
    asked: list[str] = []
    serve = cluster.serve

    def watched(send: Any, *, patient: bool = True) -> Any:
        asked.append(send.call.query)
        return serve(send, patient=patient)

    cluster.serve = watched  # type: ignore[method-assign]
    assert (mine.result(timeout=5), other.result(timeout=5)) == (1, 2)
    assert ["consistency=session" in query for query in asked] == [True, False]


def test_all_clients_of_an_app_know_what_one_of_them_has_written() -> None:
    app = App("http://a")

    async def route() -> Any:
        return app.aclient._route

    assert asyncio.run(route()) is app.client._route


def test_an_app_keeps_nothing_of_event_loops_that_have_ended() -> None:
    app = App("http://a")

    async def seen() -> int:
        assert app.aclient.servers == ("http://a",)
        return len(app._clients)

    assert [asyncio.run(seen()) for _ in range(3)] == [1, 1, 1]


# -- results -------------------------------------------------------------------------------------------------------
@dataclasses.dataclass
class Point:
    x: int
    when: dt.datetime


def test_results_come_as_annotated(cluster: TaskCluster) -> None:
    app = app_on(cluster)

    @app.task(name="point")
    def point() -> Point: ...  # type: ignore[empty-body]

    when = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
    handle = point.delay()
    finish(cluster, handle.id, Point(1, when))
    assert handle.result(timeout=5) == Point(1, when)
    other = point.delay()
    finish(cluster, other.id, "no point")
    plain: Any = other.result(timeout=5)
    assert point.handle(handle.id).result(timeout=5) == Point(1, when)
    assert plain == "no point"


def test_a_result_is_really_waited_for(cluster: TaskCluster) -> None:
    app = app_on(cluster)
    handle = app.submit("f")
    with pytest.raises(NotFinished, match="is QUEUED after 0.02 s") as caught:
        handle.result(timeout=0.02)
    assert isinstance(caught.value, TimeoutError)
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(handle.result(timeout=10)))
    thread.start()
    cluster.until(lambda: len(cluster.named("get_result")) > 1)
    finish(cluster, handle.id, 9)
    thread.join(10)
    assert found == [9]
    assert app.handle(handle.id).status() == "SUCCESS"
    assert repr(handle) == f"Handle({handle.id!r})"


def test_what_else_a_task_can_come_to(cluster: TaskCluster) -> None:
    app = app_on(cluster)
    handle = app.submit("f")
    error = k.TaskError(type="ValueError", message="bad", traceback="Traceback …\nValueError: bad")
    finish(cluster, handle.id, None, "FAILED", errors=[error], attempts=3, reason="ERROR")
    with pytest.raises(TaskFailed) as caught:
        handle.result(timeout=5)
    failed = caught.value
    assert (failed.remote_type, failed.message, failed.attempts, failed.reason) == ("ValueError", "bad", 3, "ERROR")
    assert "Traceback …" in str(failed)
    assert pickle.loads(pickle.dumps(failed)).traceback == failed.traceback
    finish(cluster, handle.id, None, "FAILED", errors=[], reason="POISON")
    with pytest.raises(TaskFailed, match="the workers that ran it died"):
        handle.result(timeout=5)
    finish(cluster, handle.id, None, "CANCELLED")
    with pytest.raises(TaskCancelled):
        handle.result(timeout=5)
    finish(cluster, handle.id, None, "EXPIRED")
    with pytest.raises(TaskExpired):
        handle.result(timeout=5)
    with pytest.raises(TaskNotFound):
        app.handle("never").result(timeout=5)
    again = app.submit("f")
    assert again.cancel().status == "CANCELLED"


def test_an_app_runs_its_tasks(cluster: TaskCluster) -> None:
    with app_on(cluster) as app:

        @app.task(name="double", queue="q2")
        def double(n: int) -> int:
            return 2 * n

        handle = double.delay(4)
        app.worker(burst=True, write=None, client=cluster.aclient, heart_client=cluster.client).run()
        assert handle.result(timeout=5) == 8


# -- the founding interface ----------------------------------------------------------------------------------------
def test_c7_the_founding_client(cluster: TaskCluster) -> None:
    with TaskClient("http://a") as client:
        client._client = cluster.client()
        task_id = client.submit("multiply", 4, 5)
        assert client.get_result(task_id) == {"status": "queued", "result": None}
        assert client.wait_for_result(task_id, 0.01)["status"] == "queued"
        assert client.get_result("x") == client.wait_for_result("x", 1) == {"status": "not_found", "result": None}
        multiply = functools.partial(lambda x, y: x * y)
        options: Any = {"client": cluster.aclient, "heart_client": cluster.client, "burst": True, "write": None}
        TaskWorker("w1", {"multiply": multiply}, **options).start()
        assert cluster.workers[1].name == "w1"
        assert client.wait_for_result(task_id, 5) == {"status": "success", "result": 20}
        wrong = client.submit("divide")
        TaskWorker("w1", {"multiply": multiply}, **options).start()
        told = client.wait_for_result(wrong, 5)
        assert (told["status"], told["result"], told["error"]["type"]) == ("failed", None, "UnknownTask")
        assert "no handler named 'divide'" in told["error"]["message"]
        assert "'divide'" in cluster.tasks[wrong].errors[0].message
