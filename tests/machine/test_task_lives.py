"""Whole lives of tasks by commands, and what is told of them on the way."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from typing_extensions import override

from quorl.cluster.machine.machine import Applied
from quorl.cluster.machine.queries import BeatLog, Heartbeats
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import Entry, Sealed, encode_entry
from tests.machine.rig import Rig, expect


class Life(Rig):
    """A machine whose entries come from a leader by name, in a term of its own choice."""

    def __init__(self) -> None:
        super().__init__()
        self.node, self.term = "n1", 1

    @override
    def apply(self, *sealed: Sealed) -> Applied:
        entry = Entry(self.now_ms, self.wall_ms, sealed, seed=7, node=self.node)
        return self.machine.apply(self.machine.position.index + 1, self.term, encode_entry(entry))

    def later(self, ms: int) -> None:
        """Time passes, with signs of life in between."""
        self.now_ms += ms
        self.wall_ms += ms
        self.apply()

    def submit(self, *tasks: b.NewTask) -> list[str]:
        return [item.id for item in self.do(b.Submit(queue="q", tasks=list(tasks)), b.Submitted).items]

    def register(self, **values: Any) -> int:
        return self.do(w.RegisterWorker(queues=("q",), **values), w.WorkerRegistered).worker_id

    def claim(self, worker_id: int, most: int = 1) -> list[e.ClaimedTask]:
        granted = self.do(e.Claim(worker_id=worker_id, max=most), e.Granted)
        return expect(self.machine.render(granted), e.Claims).tasks

    def told(self, task_id: str) -> k.TaskInfo:
        return self.ask(k.GetTask(id=task_id), k.TaskInfo)

    def kinds(self, task_id: str) -> list[tuple[str, str]]:
        found = self.ask(k.GetTaskEvents(id=task_id), k.TaskEvents).items
        places = [(one.index, one.at) for one in found]
        assert places == sorted(places)
        assert found[-1].status == self.told(task_id).status
        return [(one.kind, one.status) for one in found]

    def why(self, task_id: str) -> list[str]:
        return [one.code for one in self.ask(k.GetTaskWhy(id=task_id), k.TaskWhy).reasons]


@pytest.fixture
def life() -> Life:
    return Life()


def task(**values: Any) -> b.NewTask:
    return b.NewTask(name="add", args=msgspec.Raw(b'["1","ejnf"]'), **values)


def test_b9_a_task_that_always_fails_tells_of_three_attempts(life: Life) -> None:
    (task_id,) = life.submit(task())
    assert life.why(task_id) == ["no_workers"]
    worker_id = life.register(name="w1")
    assert life.why(task_id) == ["ready"]
    for number in (1, 2, 3):
        life.term, life.node = number, f"n{number}"
        (claimed,) = life.claim(worker_id)
        assert (claimed.attempt, bytes(claimed.args)) == (number, b'["1","ejnf"]')
        assert life.why(task_id) == ["running"]
        error = k.TaskError(type="ValueError", message=f"ejnf {number}", traceback=f"Traceback {number}")
        life.do(e.FailTask(id=task_id, lease=claimed.lease.token, error=error), k.TaskStatus)
        if number < 3:
            assert life.why(task_id) == ["backoff"]
            life.later(10_000)
    info = life.told(task_id)
    assert (info.status, info.attempts, info.reason, bytes(info.result)) == ("FAILED", 3, "ERROR", b"null")
    assert [(one.attempt, one.message, one.traceback) for one in info.errors] == [
        (number, f"ejnf {number}", f"Traceback {number}") for number in (1, 2, 3)
    ]
    assert [one.outcome for one in info.history] == ["failed"] * 3
    again = [("due", "QUEUED"), ("claimed", "PROCESSING")]
    assert life.kinds(task_id) == [
        ("submitted", "QUEUED"),
        ("claimed", "PROCESSING"),
        *[("failed", "RETRY"), *again, ("failed", "RETRY"), *again, ("failed", "FAILED")],
    ]
    found = life.ask(k.GetTaskEvents(id=task_id), k.TaskEvents).items
    assert [(one.term, one.node) for one in found if one.kind == "failed"] == [(1, "n1"), (2, "n2"), (3, "n3")]
    assert life.why(task_id) == ["finished"]
    result = life.ask(k.GetResult(id=task_id), k.TaskResult)
    assert result.error == k.TaskError(type="ValueError", message="ejnf 3", traceback="Traceback 3")
    (item,) = life.ask(k.ListTasks(status="FAILED"), k.TaskList).items
    assert (item.id, item.error, item.worker) == (task_id, "ValueError: ejnf 3", "w1")


def test_b8_a_task_that_succeeds_tells_its_result(life: Life) -> None:
    (task_id,) = life.submit(task(id="a", max_attempts=2))
    worker_id = life.register()
    (claimed,) = life.claim(worker_id)
    progress = e.HoldTask(id="a", lease=claimed.lease.token, progress=40, note="n", checkpoint=msgspec.Raw(b"[ 1 ]"))
    life.do(progress, e.TaskHeld)
    life.do(e.ReleaseTask(id="a", lease=claimed.lease.token), k.TaskStatus)
    (claimed,) = life.claim(worker_id)
    assert (claimed.attempt, bytes(claimed.checkpoint)) == (1, b"[ 1 ]")
    life.do(e.CompleteTask(id="a", lease=claimed.lease.token, result=msgspec.Raw(b"[ 9]")), k.TaskStatus)
    info = life.told(task_id)
    assert (info.status, info.attempts, bytes(info.result), info.progress, info.note) == (
        "SUCCESS",
        1,
        b"[ 9]",
        40,
        "n",
    )
    assert [(one.number, one.outcome) for one in info.history] == [(1, "released"), (2, "success")]
    assert [kind for kind, _ in life.kinds("a")] == ["submitted", "claimed", "released", "claimed", "success"]


def test_a_scheduled_task_that_is_cancelled_was_scheduled(life: Life) -> None:
    first, second = life.submit(task(delay_ms=5_000), task(delay_ms=50_000))
    life.do(k.CancelTask(id=first), k.Cancelled)
    assert life.kinds(first) == [("submitted", "SCHEDULED"), ("cancelled", "CANCELLED")]
    life.do(k.RetryTask(id=first), k.TaskStatus)
    assert life.kinds(first)[2:] == [("retried", "QUEUED")]
    due_at = life.told(second).due_at
    life.later(50_000)
    assert life.told(second).status == "QUEUED"
    assert life.kinds(second) == [("submitted", "SCHEDULED"), ("due", "QUEUED")]
    assert life.ask(k.GetTaskEvents(id=second), k.TaskEvents).items[-1].at == due_at


def test_a_lost_worker_and_a_run_that_takes_too_long_are_told(life: Life) -> None:
    (task_id,) = life.submit(task(timeout_ms=20_000, max_lost=2, backoff=q.Backoff(kind="fixed", first_ms=0, jitter=0)))
    first = life.register(name="w1", dead_after_ms=5_000)
    life.claim(first)
    life.later(6_000)
    assert life.ask(w.GetWorker(worker_id=first), w.WorkerInfo).status == "DEAD"
    second = life.register(name="w1", dead_after_ms=30_000)
    life.claim(second)
    life.later(20_000)
    info = life.told(task_id)
    assert [(one.worker_id, one.outcome) for one in info.history] == [(first, "lost"), (second, "timeout")]
    assert [(one.attempt, one.type) for one in info.errors] == [(2, "Timeout")]
    assert life.kinds(task_id)[-2:] == [("claimed", "PROCESSING"), ("timeout", "QUEUED")]
    beats = life.ask(Heartbeats(), BeatLog).beats
    assert {name: beat.status for name, beat in beats.items()} == {"w1": "ALIVE"}


def test_a_queue_and_a_worker_are_told_as_they_are(life: Life) -> None:
    life.do(q.PutQueue(queue="q", partitions=2), q.QueueInfo)
    life.submit(*[task() for _ in range(4)])
    assert life.ask(q.GetQueue(queue="q"), q.QueueInfo).health == "no_workers"
    worker_id = life.register(name="w1", concurrency=2)
    life.claim(worker_id, 2)
    life.later(1_000)
    info = life.ask(q.GetQueue(queue="q"), q.QueueInfo)
    assert (info.counts, info.health, info.workers) == (q.QueueCounts(queued=2, processing=2), "ok", 1)
    assert (info.submitted, info.oldest_ms) == (4, 1_000)
    found = life.ask(w.GetWorker(worker_id=worker_id), w.WorkerInfo)
    assert (found.state, len(found.running), found.leases, found.active) == ("BUSY", 2, 2, True)
    assert life.ask(k.ListTasks(worker_id=worker_id, status="PROCESSING"), k.TaskList).items[0].worker == "w1"
    last = life.ask(k.ListTasks(queue="q"), k.TaskList).items[0]
    assert life.why(last.id) == ["workers_busy", "behind"]
    directives = life.ask(e.GetDirectives(worker_id=worker_id, tokens=(1, 2, 3)), e.Directives)
    assert directives == e.Directives()


def test_what_a_claim_hands_out_is_bounded_with_what_earlier_leases_left(
    life: Life, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.submit(*[task() for _ in range(3)])
    worker_id = life.register()
    for one in life.claim(worker_id, 3):
        checkpoint = msgspec.Raw(b'"' + b"x" * 600 + b'"')
        life.do(e.HoldTask(id=one.id, lease=one.lease.token, checkpoint=checkpoint), e.TaskHeld)
        life.do(e.ReleaseTask(id=one.id, lease=one.lease.token), k.TaskStatus)
    monkeypatch.setattr(limits, "CLAIM_BYTES_MAX", 1_000)
    assert len(life.claim(worker_id, 3)) == 1
    assert len(life.claim(worker_id, 3)) == 1
