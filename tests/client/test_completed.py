"""Tasks as they finish: for threads and for asyncio, in time and too late."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from typing_extensions import override

from quorl.client import App, NotFinished, TaskNotFound, aio, completed
from quorl.cluster.protocol import tasks as k
from tests.client.task_cluster import TaskCluster
from tests.client.test_app import app_on, finish, on_loop
from tests.node.gateway.jumploop import JumpLoop


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


@pytest.fixture
def app(cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch) -> App:
    """One whose clients of any loop are the cluster's."""
    monkeypatch.setattr(aio, "AsyncClient", lambda **_: cluster.aclient())
    return app_on(cluster)


# -- asyncio -------------------------------------------------------------------------------------------------------
def test_as_completed_yields_what_is_done_and_gives_up_in_time(cluster: TaskCluster) -> None:
    with asyncio.Runner(loop_factory=JumpLoop) as runner:  # or a busy machine could take the time for what is done
        runner.run(yields_what_is_done_and_gives_up(cluster))


async def yields_what_is_done_and_gives_up(cluster: TaskCluster) -> None:
    app = app_on(cluster)
    async with app:
        on_loop(app, cluster)
        slow, fast = [await app.asubmit("f") for _ in range(2)]
        finish(cluster, fast.id, 1)
        done = app.as_completed([slow, fast], timeout=0.05)
        assert (await anext(done)).id == fast.id
        with pytest.raises(NotFinished) as caught:
            await anext(done)
        assert str(caught.value).splitlines() == [
            f"not_finished: task {slow.id} is QUEUED after 0.05 s of waiting for its end",
            f"  It goes on, and can be waited for again. quorl task why {slow.id} says what it waits for",
        ]
        assert (caught.value.task_id, caught.value.status, caught.value.task_ids) == (slow.id, "QUEUED", (slow.id,))
        with pytest.raises(StopAsyncIteration):
            await anext(done)
        assert (await slow.acancel()).status == "CANCELLED"


async def test_who_closes_it_waits_no_longer(cluster: TaskCluster, app: App) -> None:
    handles = [await app.asubmit("f") for _ in range(2)]
    finish(cluster, handles[1].id, 1)
    done = app.as_completed(handles)
    assert [one.id async for one in done if await _closed(done)] == []
    assert not cluster._watchers
    await app.as_completed(handles).aclose()
    await app.aclose()


async def _closed(done: completed.Completed[Any]) -> bool:
    await done.aclose()
    return False


async def test_of_many_that_are_not_finished_the_first_are_named_even_if_nobody_says_how_they_are(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = app_on(cluster)
    async with app:
        on_loop(app, cluster)
        handles = [await app.asubmit("f") for _ in range(5)]

        async def silent(*_: Any, **__: Any) -> k.TaskResult:
            await asyncio.Event().wait()
            raise AssertionError

        monkeypatch.setattr(completed, "LATE_LOOK_S", 0.01)
        monkeypatch.setattr(app.aclient.tasks, "result", silent)
        with pytest.raises(NotFinished) as caught:
            await anext(app.as_completed(handles, timeout=0.05))
        assert caught.value.detail == (
            "5 tasks are not finished (t-1, t-2, t-3, and 2 more) after 0.05 s of waiting for their end"
        )
        assert caught.value.hint == (
            "They go on, and can be waited for again. quorl task why t-1 says what it waits for"
        )
        assert (caught.value.status, caught.value.task_ids) == ("", ("t-1", "t-2", "t-3", "t-4", "t-5"))


# -- threads -------------------------------------------------------------------------------------------------------
def test_a_thread_has_them_as_they_finish_too(cluster: TaskCluster, app: App) -> None:
    first, second, third = [app.submit("f") for _ in range(3)]
    finish(cluster, third.id, 3)
    done = app.as_completed([first, second, third], timeout=60)
    assert next(done) is third
    finish(cluster, first.id, 1)
    assert next(done) is first
    finish(cluster, second.id, 2)
    assert [one.result() for one in done] == [2]
    assert list(done) == []
    assert list(app.as_completed([])) == []


def test_a_thread_is_told_what_is_late_and_what_is_wrong(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completed, "LATE_LOOK_S", 60)
    handles = [app.submit("f") for _ in range(2)]
    with pytest.raises(NotFinished) as caught:
        next(app.as_completed(handles, timeout=0.01))
    assert caught.value.detail == (
        "2 tasks are not finished (t-1 is QUEUED, t-2 is QUEUED) after 0.01 s of waiting for their end"
    )
    assert caught.value.task_ids == ("t-1", "t-2")
    assert [frame.name for frame in caught.traceback] == ["test_a_thread_is_told_what_is_late_and_what_is_wrong"]
    with pytest.raises(TaskNotFound):
        list(app.as_completed([app.handle("nowhere")]))


def test_a_thread_that_has_seen_enough_leaves_nobody_waiting(cluster: TaskCluster, app: App) -> None:
    handles = [app.submit("f") for _ in range(2)]
    finish(cluster, handles[0].id, 1)
    for one in app.as_completed(handles):
        assert one is handles[0]
        break
    for thread in threading.enumerate():
        if thread.name == "quorl-completed":
            thread.join(30)
            assert not thread.is_alive(), "it waits for ever"
    assert not cluster._watchers


def test_where_the_system_gives_no_thread_the_iteration_says_so(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoThread(threading.Thread):
        @override
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    handle = app.submit("f")
    monkeypatch.setattr(threading, "Thread", NoThread)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        next(app.as_completed([handle]))


def test_the_loop_that_a_thread_waits_in_leaves_nothing_with_the_app(cluster: TaskCluster, app: App) -> None:
    handle = app.submit("f")
    finish(cluster, handle.id, 1)
    assert list(app.as_completed([handle])) == [handle]
    assert not app._clients
