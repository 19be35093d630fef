"""A process of the pool runs one task after the other: what is meant for one of them never meets the next."""

from __future__ import annotations

import threading
import types
from collections.abc import Iterator

import msgspec
import pytest
from typing_extensions import override

from quorl.client import worker_pool
from quorl.client.context import Context
from quorl.client.worker_job import Verdict
from quorl.client.worker_ledger import Holding, Ledger, Voice
from quorl.client.worker_pool import Child, Gone, NoProcess, Processes, Reference
from quorl.cluster.protocol import leases as e
from tests.client.pool_tasks import interrupt, without_threads
from tests.client.test_worker_parts import holding

PATIENCE_S = 20.0


@pytest.fixture
def child() -> Iterator[Child]:
    names = ("listen", "where", "interrupt")
    made = Child({name: Reference("tests.client.pool_tasks", name) for name in names}, None)
    yield made
    made.kill()


def listening(context: Context | None = None) -> tuple[Holding, threading.Event]:
    """A task that runs until it is told to stop, and what says that it runs."""
    begun = threading.Event()

    class Voice:
        def progress(self, percent: float | None, note: str) -> None:
            begun.set()

        def checkpoint(self, value: bytes) -> None:
            """Nothing is saved."""

    task: e.ClaimedTask = msgspec.structs.replace(holding(1).task, name="listen")
    return Holding(task, context or Context(reporter=Voice())), begun


def running(child: Child, one: Holding) -> tuple[threading.Thread, list[Verdict]]:
    verdicts: list[Verdict] = []
    thread = threading.Thread(target=lambda: verdicts.append(child.run(one)), daemon=True)
    thread.start()
    return thread, verdicts


def test_a_signal_handler_may_say_how_far_a_task_is_while_the_task_does_and_may_raise(child: Child) -> None:
    """In a process of its own a task has the main thread, and may bound its time by an alarm whose handler raises."""
    task = msgspec.structs.replace(holding(1).task, name="interrupt")
    thread, verdicts = running(child, Holding(task, Context()))
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the process waits for itself"
    assert verdicts[0].error is None, verdicts
    assert msgspec.json.decode(msgspec.json.encode(verdicts[0].result)) > 4


def test_an_async_handler_may_be_interrupted_so_as_well() -> None:
    """It runs where signals arrive, too; its worker's heartbeat has the same lock from another thread."""
    ledger, one = Ledger(1, "w", 15, lambda: "key"), holding(1)
    ledger.close_claim(ledger.open_claim(), [one])
    voice = Voice(ledger, lambda: None)
    voice.holding = one
    thread = threading.Thread(target=interrupt, args=(Context(reporter=voice),), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "it waits for itself"
    assert ledger._lock.acquire(timeout=PATIENCE_S), "nobody gives the lock back"
    ledger._lock.release()
    assert ledger.beat().tokens == (1,)


def test_a_kill_that_comes_as_its_run_ends_does_not_hit_the_next_one(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = threading.Event()

    class TimeIsUp(threading.Event):
        @override
        def wait(self, timeout: float | None = None) -> bool:
            return not late.wait(PATIENCE_S)

    monkeypatch.setattr(worker_pool, "threading", types.SimpleNamespace(**{**vars(threading), "Event": TimeIsUp}))
    first, begun = listening()
    thread, verdicts = running(child, first)
    assert begun.wait(PATIENCE_S)
    others = set(threading.enumerate())
    first.stop()
    killers = set(threading.enumerate()) - others
    thread.join(PATIENCE_S)
    second, begun = listening()
    thread, more = running(child, second)
    assert begun.wait(PATIENCE_S)
    late.set()
    for killer in killers:
        killer.join(PATIENCE_S)
    child._process.join(0.1)  # it has died by then, if it was killed
    assert child.alive
    second.stop()
    thread.join(PATIENCE_S)
    assert [one.stopped for one in verdicts + more] == [True, True]
    assert not any(one.error for one in verdicts + more)


def test_a_process_that_was_killed_takes_no_other_task_though_it_has_not_died_yet(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    child.kill()
    monkeypatch.setattr(child._process, "is_alive", lambda: True)
    assert not child.alive


def test_a_stop_that_comes_while_a_task_is_handed_to_its_process_reaches_it(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "KILL_AFTER_S", 2 * PATIENCE_S)

    class StoppedBehindTheLook(Context):
        @property
        @override
        def cancelled(self) -> bool:
            seen = super().cancelled
            if not seen and not stops:
                stops.append(threading.Thread(target=one.stop))
                stops[0].start()
                stops[0].join(0.1)
            return seen

    stops: list[threading.Thread] = []
    one, _ = listening(StoppedBehindTheLook())
    thread, verdicts = running(child, one)
    thread.join(PATIENCE_S)
    assert [verdict.stopped for verdict in verdicts] == [True]
    stops[0].join()


def test_each_thread_gets_another_process_for_one_that_was_killed() -> None:
    processes = Processes({"where": Reference("tests.client.pool_tasks", "where")})
    task = msgspec.structs.replace(holding(1).task, name="where")
    pids = []
    for _ in range(2):
        verdict = processes.run(Holding(task, Context()))
        assert verdict.error is None
        pids.append(msgspec.json.decode(msgspec.json.encode(verdict.result))["pid"])
        for child in processes._children:
            child.kill()
    processes.close()
    assert pids[0] != pids[1]


def test_a_task_whose_process_has_died_before_it_came_runs_in_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was not begun, so it has not failed; that the process is dead may be seen only when it is handed over."""
    processes = Processes({"where": Reference("tests.client.pool_tasks", "where")})
    task = msgspec.structs.replace(holding(1).task, name="where")
    assert processes.run(Holding(task, Context())).error is None
    (child,) = processes._children
    child._process.kill()
    child._process.join(PATIENCE_S)
    monkeypatch.setattr(child._process, "is_alive", lambda: True)
    verdict = processes.run(Holding(task, Context()))
    processes.close()
    assert verdict.error is None
    assert not verdict.stopped


def test_a_process_that_cannot_be_handed_anything_fails_its_task_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_child: Child, _holding: Holding) -> Verdict:
        raise Gone

    monkeypatch.setattr(Child, "run", gone)
    processes = Processes({"where": Reference("tests.client.pool_tasks", "where")})
    verdict = processes.run(Holding(msgspec.structs.replace(holding(1).task, name="where"), Context()))
    processes.close()
    assert verdict.error is not None
    assert verdict.error.type == "ProcessDied"


def test_a_process_is_killed_where_there_is_no_thread_to_tell_it_in(
    child: Child, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, entered = listening()
    thread, verdicts = running(child, one)
    assert entered.wait(10)

    def none(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", none)
    one.stop()
    monkeypatch.undo()
    thread.join(10)
    assert [verdict.stopped for verdict in verdicts] == [True]
    assert not child.alive


def test_a_process_without_the_thread_that_it_needs_says_so_and_has_begun_nothing() -> None:
    """It ends then, which would count as an attempt of the task that was on its way to it."""
    processes = Processes({"where": Reference("tests.client.pool_tasks", "where")}, lambda: without_threads)
    task = msgspec.structs.replace(holding(1).task, name="where")
    with pytest.raises(NoProcess, match="can't start new thread"):
        processes.run(Holding(task, Context()))
    (child,) = processes._children
    assert not child.alive
    processes.close()
