"""What happens by itself: bounded per entry, told in advance, and nothing that cannot be done is in the way of the rest."""

from __future__ import annotations

from typing import Any

import pytest

from quorl.cluster.machine import events as e
from quorl.cluster.machine import moves, workers
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.entry import SignOfLife
from tests.machine.desk import Desk, new, seal

LATER_MS = 10**9
"""Nobody dies before this."""


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_an_idle_state_has_no_alarm(desk: Desk) -> None:
    assert (desk.machine.next_alarm_ms, desk.machine.next_calendar_ms, desk.due()) == (None, None, False)
    desk.submit()
    assert (desk.machine.next_alarm_ms, desk.due()) == (None, False)


def test_the_next_alarm_is_the_first_of_tasks_and_workers(desk: Desk) -> None:
    desk.enrol("a", dead_after_ms=500)
    assert desk.machine.next_alarm_ms == 500
    desk.submit(delay_ms=400)
    assert desk.machine.next_alarm_ms == 400
    desk.submit(delay_ms=300, expires_ms=200)
    assert desk.machine.next_alarm_ms == 200
    lease = desk.run(1, timeout_ms=100)
    assert desk.machine.next_alarm_ms == 100
    desk.complete(lease)
    assert desk.machine.next_alarm_ms == 200
    desk.sound()


def test_an_entry_attends_to_a_bounded_number_and_the_next_goes_on(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DUE_TASKS_PER_ENTRY", 3)
    ids = [desk.submit(delay_ms=ms) for ms in (5, 4, 3, 3, 1)]
    ids += [desk.submit(run_at="2023-11-14T22:13:20.001Z") for _ in range(3)]
    desk.after(10)
    assert [desk.status(one) for one in ids] == ["SCHEDULED"] * 2 + ["QUEUED"] * 3 + ["SCHEDULED"] * 3
    assert desk.due()
    desk.entry()
    assert desk.counts() == {"queued": 6, "scheduled": 2}
    assert desk.due()
    desk.entry()
    assert desk.counts() == {"queued": 8}
    assert not desk.due()
    desk.sound()


def test_by_the_calendar_alone_there_is_work_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "DUE_TASKS_PER_ENTRY", 0)
    desk.submit(run_at="2023-11-14T22:13:20.001Z")
    assert not desk.due()
    desk.after(1)
    assert desk.due()


def test_what_cannot_be_attended_to_is_put_off_and_in_nobodys_way(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    real = moves.queue_up
    broken = {desk.submit(id="delayed", delay_ms=5), desk.submit(id="planned", run_at="2023-11-14T22:13:20.001Z")}
    good = [desk.submit(delay_ms=6), desk.submit(run_at="2023-11-14T22:13:20.002Z")]

    def queue_up(state: Any, task: moves.Task) -> None:
        real(state, task)
        if task.id in broken:
            raise ValueError("a defect")

    monkeypatch.setattr(moves, "queue_up", queue_up)
    desk.now_ms += 10
    desk.wall_ms += 10
    applied = desk.apply()
    assert [event for event in applied.events if isinstance(event, e.CommandSpoiled)] == [
        e.CommandSpoiled("ValueError: a defect")
    ] * 2
    assert [set(event.task_ids) for event in applied.events if isinstance(event, e.TasksChanged)] == [set(good)]
    assert [desk.status(one) for one in sorted(broken)] == ["SCHEDULED"] * 2
    assert [desk.status(one) for one in good] == ["QUEUED"] * 2
    assert not desk.due()
    monkeypatch.setattr(moves, "queue_up", real)
    desk.after(60_000)
    assert desk.counts() == {"queued": 4}
    desk.sound()


def test_a_worker_that_cannot_be_retired_is_put_off(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    real = workers.retire
    desk.enrol("a")
    desk.enrol("b")

    def retire(state: Any, worker: Any, *rest: Any, **how: Any) -> tuple[str, ...]:
        names = real(state, worker, *rest, **how)
        if worker.name == "a":
            raise ValueError("a defect")
        return names

    monkeypatch.setattr(workers, "retire", retire)
    lease = desk.run(1)
    desk.after(15_000)
    assert [desk.life(1), desk.life(2), desk.status(lease.id)] == ["ALIVE", "DEAD", "PROCESSING"]
    desk.sound()
    assert not desk.due()
    monkeypatch.setattr(workers, "retire", real)
    desk.after(60_000)
    assert [desk.life(1), desk.status(lease.id)] == ["DEAD", "QUEUED"]
    desk.sound()


def test_a_sign_that_cannot_be_heeded_spoils_nothing_else(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    leases = []
    for name in "ab":
        worker_id = desk.enrol(name)
        desk.submit()
        leases += desk.claim(worker_id, number=1)
    real = moves.end

    def end(state: Any, task: moves.Task, *rest: Any, **options: Any) -> int:
        if task.worker_id == 1:
            raise ValueError("a defect")
        return real(state, task, *rest, **options)

    monkeypatch.setattr(moves, "end", end)
    desk.now_ms += 1
    desk.signs = (SignOfLife(1, (), (), 9), SignOfLife(2, (), (), 9))
    desk.entry()
    assert [desk.status(lease.id) for lease in leases] == ["PROCESSING", "QUEUED"]
    desk.sound()


def test_a_purge_is_bounded_and_says_what_is_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PURGED_TASKS_PER_COMMAND", 4)
    desk.put(partitions=2, backoff=q.Backoff(kind="fixed", first_ms=LATER_MS, jitter=0))
    desk.enrol("a", dead_after_ms=3_600_000)
    done, retried = desk.run(1), desk.run(1)
    desk.complete(done)
    desk.fail(retried)
    desk.do(s.Submit(queue="q", tasks=[new()] * 3 + [new(delay_ms=9)]), s.Submitted)
    running = desk.run(1, priority=9)
    dry = desk.do(q.PurgeQueue(queue="q", dry_run=True), q.Purged)
    assert (dry.removed, dry.remaining) == (0, 5)
    first, second, third = (desk.do(q.PurgeQueue(queue="q"), q.Purged) for _ in range(3))
    assert [(one.removed, one.remaining) for one in (first, second, third)] == [(4, 1), (1, 0), (0, 0)]
    assert desk.counts() == {"cancelled": 5, "success": 1, "processing": 1}
    both = desk.do(q.PurgeQueue(queue="q", states=("CANCELLED", "SUCCESS")), q.Purged)
    assert (both.removed, both.remaining) == (4, 2)
    assert desk.refused(k.CancelTask(id=done.id)) == "task_not_found"
    assert desk.status(running.id) == "PROCESSING"
    assert desk.refused(q.PurgeQueue(queue="no")) == "queue_not_found"
    desk.sound()


def test_c10_a_queue_is_deleted_when_nothing_waits_or_runs_and_its_results_stay(desk: Desk) -> None:
    desk.put(partitions=2, keep_finished_ms=5_000)
    desk.enrol("a", dead_after_ms=3_600_000)
    lease = desk.run(1)
    assert desk.refused(q.DeleteQueue(queue="q")) == "queue_not_empty"
    desk.fail(lease, retry=False)
    waiting = desk.submit(delay_ms=9)
    assert desk.refused(q.DeleteQueue(queue="q")) == "queue_not_empty"
    desk.cancel(waiting)
    applied = desk.apply(seal(q.DeleteQueue(queue="q")))
    assert e.QueueReady("q") in applied.events
    for command in (q.DeleteQueue(queue="q"), q.PatchQueue(queue="q")):
        assert desk.refused(command) == "queue_not_found"
    assert desk.task(lease.id).queue == "q"
    assert desk.refused(k.RetryTask(id=lease.id)) == "wrong_state"
    desk.machine.reload()
    again = desk.submit("q")  # another queue, of the same name
    assert desk.task(again).partition is None
    desk.do(k.ForgetTask(id=lease.id), k.TaskForgotten)
    assert desk.sql("SELECT count(*) FROM queues") == [(2,)]
    desk.after(5_000)
    assert desk.sql("SELECT count(*) FROM queues") == [(1,)]
    assert len(desk.claim(1)) == 1
    desk.do(q.PutQueue(queue="empty"), q.QueueInfo)
    desk.do(q.DeleteQueue(queue="empty"), q.QueueDeleted)
    desk.sound()


def test_a_queue_is_configured_whole_or_in_part(desk: Desk) -> None:
    first = desk.put(default_attempts=5, timeout_ms=9, max_depth=7, keep_finished_ms=0, max_lost=3)
    assert (first.default_attempts, first.timeout_ms, first.max_depth, first.max_lost) == (5, 9, 7, 3)
    patched = desk.patch(paused=True, sealed_=True, timeout_ms=None, backoff=q.Backoff(kind="fixed"))
    assert (patched.health, patched.sealed, patched.timeout_ms, patched.max_depth) == ("paused", True, None, 7)
    assert patched.backoff.kind == "fixed"
    whole = desk.put()
    assert (whole.default_attempts, whole.max_depth, whole.backoff, whole.paused) == (3, 0, q.Backoff(), True)
    assert desk.queue() == whole
    assert desk.refused(q.PutQueue(queue="q", partitions=1)) == "queue_differs"
    for command in (
        q.SetQueue(queue="q", max_lost=0),
        q.SetQueue(queue="q", keep_finished_ms=2**63),
        q.SetQueue(queue="q", timeout_ms=0),
        q.SetQueue(queue="q", max_depth=-1),
        q.SetQueue(queue="q", default_attempts=0),
        q.SetQueue(queue="q", defaults=q.Defaults(attempts=101)),
        q.PatchQueue(queue="q", backoff=q.Backoff(kind="list")),
        q.SetQueue(queue="new", partitions=257),
        q.SetQueue(queue="new", partitions=-1),
    ):
        assert desk.refused(command) == "command_failed"
    assert desk.queue() == whole
    desk.sound()


def test_unfinished_reports_do_not_outlive_their_queue(desk: Desk) -> None:
    desk.enrol("a")
    lease = desk.run(1)
    desk.complete(lease)
    desk.do(q.DeleteQueue(queue="q"), q.QueueDeleted)
    assert desk.refused(c.CompleteTask(id=lease.id, lease=lease.token)) == "lease_lost"
    desk.do(k.ForgetTask(id=lease.id), k.TaskForgotten)
    assert desk.sql("SELECT count(*) FROM queues") == [(0,)]
    desk.sound()


def test_an_entry_at_which_nothing_is_due_reads_no_rows_to_know_it(desk: Desk) -> None:
    """And whatever happens to be due is attended to: ``Rig.applied`` compares what is remembered with the rows."""
    desk.machine._open_reader = desk.machine._reader = None  # what is prepared and taken back must be read again
    desk.submit(delay_ms=500)
    desk.entry()
    asked: list[str] = []
    desk.connection.set_trace_callback(asked.append)
    desk.entry()
    desk.connection.set_trace_callback(None)
    assert not [statement for statement in asked if "INDEXED BY" in statement]  # the others are those of the rig
    desk.after(500)
    assert desk.counts() == {"queued": 1}
    desk.machine.reload()
    desk.after(0)
    desk.sound()
