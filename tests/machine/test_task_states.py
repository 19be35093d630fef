"""Every way of a task from one state to another, as a table: what was done, what it came to, what its history says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import events as e
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from tests.machine.desk import Desk, Lease

FIXED = q.Backoff(kind="fixed", first_ms=1_000, jitter=0)


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.put(backoff=FIXED, max_lost=2)
    desk.enrol("a")
    return desk


def fail_all(desk: Desk, lease: Lease, **options: Any) -> Lease:
    """Fail until there are no attempts left."""
    while desk.fail(lease, **options).status == "RETRY":
        desk.after(1_000)
        (lease,) = desk.claim(1)
    return lease


def die(desk: Desk, worker_id: int) -> None:
    """Let so much time pass that a worker is dead, and no other is."""
    ms = desk.sql("SELECT alarm_ms FROM workers WHERE worker_id = ?", worker_id)[0][0] - desk.now_ms
    desk.connection.execute("UPDATE workers SET alarm_ms = alarm_ms + 1000000 WHERE worker_id != ?", (worker_id,))
    desk.machine.reload()
    desk.after(ms)
    assert desk.life(worker_id) == "DEAD"


def lose(desk: Desk, _: Lease) -> None:
    """Kill the worker, and have another one."""
    worker_id = desk.sql("SELECT max(worker_id) FROM workers")[0][0]
    die(desk, worker_id)
    desk.enrol(f"after {worker_id}")


Step = Callable[[Desk, Lease], object]
RUNNING = ["submitted", "claimed"]
TABLE: list[tuple[str, list[Step], str, tuple[int, int], list[str]]] = [
    ("complete", [Desk.complete], "SUCCESS", (1, 0), ["success"]),
    ("fail", [Desk.fail], "RETRY", (1, 0), ["failed"]),
    ("fail, wait", [Desk.fail, lambda d, _: d.after(999)], "RETRY", (1, 0), ["failed"]),
    ("fail, its time", [Desk.fail, lambda d, _: d.after(1_000)], "QUEUED", (1, 0), ["failed", "due"]),
    ("fail, at once", [lambda d, x: d.fail(x, delay_ms=0)], "QUEUED", (1, 0), ["failed"]),
    ("fail, own delay", [lambda d, x: d.fail(x, delay_ms=9), lambda d, _: d.after(9)], "QUEUED", (1, 0), ["failed", "due"]),
    ("fail for good", [lambda d, x: d.fail(x, retry=False)], "FAILED NO_RETRY", (1, 0), ["failed"]),
    ("fail always", [fail_all], "FAILED ERROR", (3, 0), ["failed", *["due", "claimed", "failed"] * 2]),
    ("release", [Desk.release], "QUEUED", (0, 0), ["released"]),
    ("put off", [lambda d, x: d.release(x, delay_ms=9)], "RETRY", (0, 0), ["released"]),
    ("put off, its time", [lambda d, x: d.release(x, delay_ms=9), lambda d, _: d.after(9)], "QUEUED", (0, 0), ["released", "due"]),
    (
        "cancel, put off",
        [lambda d, x: d.cancel(x.id), lambda d, x: d.release(x, delay_ms=9)],
        "CANCELLED CANCELLED",
        (0, 0),
        ["cancel_requested", "cancelled"],
    ),
    ("cancel", [lambda d, x: d.cancel(x.id)], "PROCESSING", (0, 0), ["cancel_requested"]),
    ("cancel twice", [lambda d, x: d.cancel(x.id)] * 2, "PROCESSING", (0, 0), ["cancel_requested"]),
    (
        "cancel, complete",
        [lambda d, x: d.cancel(x.id), Desk.complete],
        "SUCCESS",
        (1, 0),
        ["cancel_requested", "success"],
    ),
    (
        "cancel, fail",
        [lambda d, x: d.cancel(x.id), Desk.fail],
        "CANCELLED CANCELLED",
        (0, 0),
        ["cancel_requested", "cancelled"],
    ),
    (
        "cancel, release",
        [lambda d, x: d.cancel(x.id), Desk.release],
        "CANCELLED CANCELLED",
        (0, 0),
        ["cancel_requested", "cancelled"],
    ),
    ("cancel, lose", [lambda d, x: d.cancel(x.id), lose], "CANCELLED CANCELLED", (0, 1), ["cancel_requested", "lost"]),
    ("lose", [lose], "QUEUED", (0, 1), ["lost"]),
    (
        "lose too often",
        [lose, lambda d, _: d.claim(2), lose],
        "FAILED POISON",
        (0, 2),
        ["lost", "claimed", "lost"],
    ),
    ("cancel what waits", [Desk.release, lambda d, x: d.cancel(x.id)], "CANCELLED CANCELLED", (0, 0), ["released", "cancelled"]),
    ("cancel in RETRY", [Desk.fail, lambda d, x: d.cancel(x.id)], "CANCELLED CANCELLED", (1, 0), ["failed", "cancelled"]),
    (
        "purge",
        [Desk.release, lambda d, _: d.do(q.PurgeQueue(queue="q"), q.Purged)],
        "CANCELLED PURGED",
        (0, 0),
        ["released", "cancelled"],
    ),
    (
        "again",
        [lambda d, x: d.fail(x, retry=False), lambda d, x: d.do(k.RetryTask(id=x.id), k.TaskStatus)],
        "QUEUED",
        (1, 0),
        ["failed", "retried"],
    ),
    ("leave", [lambda d, _: d.do(w.RemoveWorker(worker_id=1), w.WorkerGone)], "QUEUED", (0, 0), ["released"]),
    ("be replaced", [lambda d, _: d.enrol("a")], "QUEUED", (0, 1), ["lost"]),
    (
        "be replaced again and again",
        [lambda d, _: d.enrol("a"), lambda d, _: d.claim(2), lambda d, _: d.enrol("a")],
        "FAILED POISON",
        (0, 2),
        ["lost", "claimed", "lost"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(
    ("steps", "state", "counted", "story"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_what_becomes_of_a_task_that_runs(
    desk: Desk, steps: list[Step], state: str, counted: tuple[int, int], story: list[str]
) -> None:
    lease = desk.run(1)
    for step in steps:
        step(desk, lease)
        desk.sound()
    task = desk.task(lease.id)
    assert (desk.status(lease.id), (task.attempts, task.lost), desk.story(lease.id)) == (
        state,
        counted,
        RUNNING + story,
    )
    assert desk.counts() == {task.status.lower(): 1}
    desk.machine.reload()
    desk.sound()


WAITING: list[tuple[dict[str, Any], int, str, list[str]]] = [
    ({}, 10**6, "QUEUED", []),
    ({"delay_ms": 500}, 499, "SCHEDULED", []),
    ({"delay_ms": 500}, 500, "QUEUED", ["due"]),
    ({"expires_ms": 500}, 499, "QUEUED", []),
    ({"expires_ms": 500}, 500, "EXPIRED EXPIRED", ["expired"]),
    ({"delay_ms": 500, "expires_ms": 400}, 400, "EXPIRED EXPIRED", ["expired"]),
    ({"delay_ms": 400, "expires_ms": 500}, 450, "QUEUED", ["due"]),
    ({"delay_ms": 400, "expires_ms": 500}, 500, "EXPIRED EXPIRED", ["expired"]),  # nobody led in between
]


@pytest.mark.parametrize(("options", "ms", "state", "story"), WAITING)
def test_what_becomes_of_a_task_that_waits(options: dict[str, Any], ms: int, state: str, story: list[str]) -> None:
    desk = Desk()
    task_id = desk.submit(**options)
    desk.sound()
    desk.after(ms)
    desk.sound()
    assert (desk.status(task_id), desk.story(task_id)) == (state, ["submitted", *story])


def test_a_time_out_of_a_run_is_a_failure_and_the_token_is_worth_nothing_after_it(desk: Desk) -> None:
    lease = desk.run(1, timeout_ms=2_000, max_attempts=2)
    desk.after(1_999)
    assert desk.status(lease.id) == "PROCESSING"
    assert e.WorkerChanged(1) not in desk.apply().events
    desk.now_ms += 1
    assert e.WorkerChanged(1) in desk.apply().events
    assert desk.status(lease.id) == "RETRY"
    assert desk.refused(c.CompleteTask(id=lease.id, lease=lease.token)) == "lease_lost"
    desk.after(1_000)
    desk.claim(1)
    desk.after(2_000)
    assert desk.status(lease.id) == "FAILED TIMEOUT"
    task = desk.task(lease.id)
    assert [attempt.outcome for attempt in task.history] == ["timeout", "timeout"]
    assert task.attempts == 2
    desk.sound()


def test_a_task_takes_the_time_out_of_its_queue_and_once_started_expires_no_more(desk: Desk) -> None:
    desk.patch(timeout_ms=5_000)
    lease = desk.run(1, expires_ms=1_000)
    desk.after(4_999)
    assert desk.status(lease.id) == "PROCESSING"
    desk.release(lease)
    desk.after(10**6)
    assert desk.status(lease.id) == "QUEUED"
    desk.sound()


def test_by_the_calendar_a_task_is_due_when_the_calendar_says_so(desk: Desk) -> None:
    tasks = [
        desk.submit(run_at=text, expires_ms=60_000)
        for text in ("2023-11-14T22:13:20.000Z", "2023-11-14T22:13:20.001Z", "2023-11-14T23:13:21+01:00")
    ]
    assert [desk.status(task_id) for task_id in tasks] == ["QUEUED", "SCHEDULED", "SCHEDULED"]
    assert desk.machine.next_calendar_ms == desk.wall_ms + 1
    desk.wall_ms += 1
    desk.entry()
    assert [desk.status(task_id) for task_id in tasks] == ["QUEUED", "QUEUED", "SCHEDULED"]
    assert desk.story(tasks[1]) == ["submitted", "due"]
    desk.now_ms += 60_000
    desk.entry()
    assert [desk.status(task_id) for task_id in tasks] == ["EXPIRED EXPIRED"] * 3
    desk.sound()
    assert not desk.sql("SELECT ordinal FROM tasks WHERE calendar_ms IS NOT NULL")


@pytest.mark.parametrize(
    ("state", "cancel", "retry", "forget"),
    [
        ("SCHEDULED", "CANCELLED", "wrong_state", "wrong_state"),
        ("QUEUED", "CANCELLED", "wrong_state", "wrong_state"),
        ("PROCESSING", "PROCESSING", "wrong_state", "wrong_state"),
        ("RETRY", "CANCELLED", "wrong_state", "wrong_state"),
        ("SUCCESS", "wrong_state", "wrong_state", "gone"),
        ("FAILED", "wrong_state", "QUEUED", "gone"),
        ("CANCELLED", "CANCELLED", "QUEUED", "gone"),
        ("EXPIRED", "wrong_state", "QUEUED", "gone"),
        ("gone", "task_not_found", "task_not_found", "task_not_found"),
    ],
)
def test_what_can_be_asked_of_a_task_in_each_state(state: str, cancel: str, retry: str, forget: str) -> None:
    for command, expected in ((k.CancelTask, cancel), (k.RetryTask, retry), (k.ForgetTask, forget)):
        desk = Desk()
        desk.put(backoff=FIXED)
        desk.enrol("a")
        task_id = brought_to(desk, state)
        value: Any = desk.outcome(command(id=task_id)).value
        if isinstance(value, k.Cancelled):
            assert (value.status, value.cancel_requested) == (expected, state == "PROCESSING")
        elif isinstance(value, k.TaskStatus):
            assert value.status == expected
        elif isinstance(value, k.TaskForgotten):
            assert expected == "gone"
            assert desk.refused(k.CancelTask(id=task_id)) == "task_not_found"
            assert desk.counts() == {}
        else:
            assert str(value.__struct_config__.tag) == expected
        desk.sound()


def brought_to(desk: Desk, state: str) -> str:
    """The id of a task that is in that state."""
    match state:
        case "SCHEDULED":
            return desk.submit(delay_ms=9)
        case "QUEUED":
            return desk.submit()
        case "gone":
            return "never there"
        case "CANCELLED":
            task_id = desk.submit()
            desk.cancel(task_id)
            return task_id
        case "EXPIRED":
            task_id = desk.submit(expires_ms=1)
            desk.after(1)
            return task_id
    lease = desk.run(1)
    if state == "RETRY":
        desk.fail(lease)
    elif state == "FAILED":
        desk.fail(lease, retry=False)
    elif state == "SUCCESS":
        desk.complete(lease)
    return lease.id


def test_b9_a_task_that_is_tried_again_has_as_many_attempts_more_and_keeps_its_history(desk: Desk) -> None:
    lease = desk.run(1, max_attempts=1, max_lost=1)
    desk.fail(lease)
    assert desk.status(lease.id) == "FAILED ERROR"
    desk.do(k.RetryTask(id=lease.id), k.TaskStatus)
    task = desk.task(lease.id)
    assert (task.attempts, task.max_attempts, task.lost, task.max_lost) == (1, 4, 0, 2)
    assert task.finished_at is None
    (lease,) = desk.claim(1)
    lease = fail_all(desk, lease)
    task = desk.task(lease.id)
    assert (task.attempts, task.status, len(task.errors), len(task.history)) == (4, "FAILED", 4, 4)
    assert [error.traceback for error in task.errors] == ["Traceback …"] * 4
    desk.sound()


def test_finished_tasks_are_forgotten_when_their_queue_says_or_never(desk: Desk) -> None:
    desk.patch(keep_finished_ms=5_000)
    done, failed, cancelled = desk.run(1), desk.run(1), desk.submit()
    desk.complete(done)
    desk.fail(failed, retry=False)
    desk.cancel(cancelled)
    desk.patch(keep_finished_ms=0)
    kept = desk.run(1)
    desk.complete(kept, b"null")
    desk.after(4_999)
    assert desk.counts() == {"success": 2, "failed": 1, "cancelled": 1}
    desk.after(1)
    assert desk.counts() == {"success": 1}
    assert [row for table in ("results", "attempts", "marks") for row in desk.sql(f"SELECT ordinal FROM {table}")] == []
    desk.after(10**9)
    assert desk.counts() == {"success": 1}
    desk.sound()


def test_the_history_of_a_task_is_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "HISTORY_KEPT", 3)
    lease = desk.run(1)
    for _ in range(5):
        desk.release(lease)
        desk.cancel(lease.id)
        desk.do(k.RetryTask(id=lease.id), k.TaskStatus)
        (lease,) = desk.claim(1)
    assert desk.sql("SELECT number FROM attempts ORDER BY number") == [(3,), (4,), (5,)]
    assert desk.sql("SELECT number FROM marks ORDER BY number") == [(8,), (9,), (10,)]


def test_a_report_under_another_token_changes_nothing(desk: Desk) -> None:
    lease = desk.run(1)
    wrong = (lease.token + 1, lease.token - 1)
    commands = (c.CompleteTask, c.FailTask, c.ReleaseTask, c.HoldTask)
    for command in commands:
        assert desk.refused(command(id="never", lease=lease.token)) == "task_not_found"
        for token in filter(None, wrong):
            assert desk.refused(command(id=lease.id, lease=token)) == "lease_lost"
    desk.complete(lease)
    for command in commands:
        assert desk.refused(command(id=lease.id, lease=lease.token)) == "lease_lost"
    assert desk.task(lease.id).history[-1].outcome == "success"
    desk.sound()


def test_d8_the_result_of_a_worker_that_was_taken_for_dead_is_refused(desk: Desk) -> None:
    first = desk.run(1)
    die(desk, 1)
    desk.enrol("b")
    (second,) = desk.claim(2)
    assert second.id == first.id
    assert second.token > first.token
    assert desk.refused(c.CompleteTask(id=first.id, lease=first.token)) == "lease_lost"
    desk.complete(second, b'"mine"')
    assert bytes(desk.task(first.id).result) == b'"mine"'
    desk.sound()


def test_progress_and_checkpoints_outlive_the_attempt(desk: Desk) -> None:
    lease = desk.run(1)
    hold = c.HoldTask(id=lease.id, lease=lease.token, progress=40, note="half", checkpoint=msgspec.Raw(b'{"at":2}'))
    assert desk.do(hold, c.TaskHeld).cancel is False
    desk.cancel(lease.id)
    assert desk.do(c.HoldTask(id=lease.id, lease=lease.token, progress=50), c.TaskHeld).cancel is True
    assert desk.do(c.HoldTask(id=lease.id, lease=lease.token), c.TaskHeld).cancel is True
    assert desk.sql("SELECT percent, note, checkpoint FROM progress") == [(50.0, "half", b'{"at":2}')]
    desk.sound()


def test_the_back_offs(desk: Desk) -> None:
    plans = [
        (q.Backoff(kind="fixed", first_ms=10, jitter=0), [10, 10, 10]),
        (q.Backoff(kind="linear", first_ms=10, jitter=0), [10, 20, 30]),
        (q.Backoff(kind="exponential", first_ms=10, max_ms=35, jitter=0), [10, 20, 35]),
        (q.Backoff(kind="list", delays_ms=(7, 5), jitter=0), [7, 5, 5]),
    ]
    for plan, waits in plans:
        lease = desk.run(1, backoff=plan, max_attempts=9)
        for wait in waits:
            assert desk.fail(lease).status == "RETRY"
            ((due_ms,),) = desk.sql("SELECT due_ms - since_ms FROM tasks WHERE state = 3")
            assert due_ms == wait
            desk.after(wait)
            (lease,) = desk.claim(1)
        desk.complete(lease)


def test_jitter_takes_away_up_to_its_share_and_differs_by_task_and_attempt(desk: Desk) -> None:
    desk.patch(backoff=q.Backoff(kind="fixed", first_ms=100_000, jitter=0.5))
    for _ in range(20):
        desk.fail(desk.run(1))
    waits = {wait for (wait,) in desk.sql("SELECT due_ms - since_ms FROM tasks WHERE state = 3")}
    assert len(waits) == 20
    assert all(50_000 < wait <= 100_000 for wait in waits)
    assert max(waits) - min(waits) > 10_000


def test_reports_of_one_settle_count_one_by_one(desk: Desk) -> None:
    done, failed, back, held = (desk.run(1) for _ in range(4))
    command = c.Sync(
        worker_id=1,
        complete=(
            c.Completion(task_id=done.id, lease=done.token),
            c.Completion(task_id=done.id, lease=done.token),
            c.Completion(task_id="never", lease=1),
        ),
        fail=(c.Failure(task_id=failed.id, lease=failed.token, retry=False),),
        release=(c.Return(task_id=back.id, lease=back.token, delay_ms=1), c.Return(task_id=back.id, lease=99)),
        progress=(c.Progress(task_id=held.id, lease=held.token, note="n"),),
    ).reports()
    assert command is not None
    settled = desk.do(command, c.Settled)
    assert (settled.accepted, settled.statuses) == (4, ["SUCCESS", "FAILED", "RETRY", "PROCESSING"])
    assert [(one.task_id, one.code) for one in settled.rejected] == [
        (done.id, "lease_lost"),
        ("never", "task_not_found"),
        (back.id, "lease_lost"),
    ]
    row = desk.sql("SELECT leases, succeeded, failed, lost FROM workers")
    assert row == [(1, 1, 1, 0)]
    assert desk.refused(c.Settle(worker_id=7)) == "worker_not_found"
    desk.do(w.RemoveWorker(worker_id=1), w.WorkerGone)
    assert desk.refused(c.Settle(worker_id=1)) == "worker_not_alive"
    desk.sound()


def test_what_is_no_json_spoils_the_command(desk: Desk) -> None:
    lease = desk.run(1)
    assert desk.refused(c.Complete(id=lease.id, lease=lease.token, result=b"{")) == "command_failed"
    hold = c.Hold(id=lease.id, lease=lease.token, progress=None, note="", checkpoint=b"[1")
    assert desk.refused(hold) == "command_failed"
    assert desk.status(lease.id) == "PROCESSING"
    desk.sound()
