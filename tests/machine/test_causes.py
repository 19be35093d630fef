"""What FAILED tasks died of: grouped in bounded pages, and done to as a group."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from quorl.cluster.machine import causes
from quorl.cluster.protocol import batches as b
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from tests.machine.desk import Desk


def fail(desk: Desk, worker: int, task_id: str, message: str, **options: Any) -> None:
    lease = desk.run(worker, id=task_id, **options)
    error = k.TaskError(type="ValueError", message=message, traceback="Traceback …")
    desk.do(c.FailTask(id=lease.id, lease=lease.token, error=error, retry=False), k.TaskStatus)
    desk.after(1_000)


def groups(desk: Desk, **what: Any) -> b.DeadGroups:
    return desk.ask(b.ListDeadGroups(**what), b.DeadGroups)


def some_dead() -> Desk:
    desk = Desk()
    worker = desk.enrol("w", "q", "r", dead_after_ms=3_600_000)
    for number in range(3):
        fail(desk, worker, f"q{number}", f"order {number}: cannot charge -{number}.5 EUR", queue="q")
    fail(desk, worker, "other", "order 7: cannot charge -1 EUR", queue="q", name="refund")
    fail(desk, worker, "r0", "order 9: cannot charge -9 EUR", queue="r")
    return desk


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("no user 17", "no user 4.25"),
        ("no file 'a b.csv'", 'no file "c"'),
        ("gone: 0xDEADbeef", "gone: 0x1"),
        ("at 6f1e4a0bc9", "at 77aa01ff33"),
        ("id 123e4567-e89b-12d3-a456-426614174000", "id 00000000-0000-0000-0000-000000000000"),
    ],
)
def test_what_differs_from_case_to_case_makes_no_other_cause(one: str, other: str) -> None:
    assert causes.fingerprint("t", one) == causes.fingerprint("t", other)
    assert causes.fingerprint("t", one) != causes.fingerprint("u", one)
    assert causes.fingerprint("t", one) != causes.fingerprint("t", "x" + one)


@given(some.text(max_size=300))
def test_any_error_has_a_cause(error: str) -> None:
    assert len(causes.fingerprint("t", error)) == 16
    assert causes.normalised("٣ files") == "٣ files", "digits of other scripts differ between versions of Python"


def test_the_dead_are_grouped_by_queue_name_and_error() -> None:
    desk = some_dead()
    found = groups(desk)
    assert (found.looked_at, found.next) == (5, None)
    assert [(one.queue, one.name, one.count) for one in found.items] == [
        ("q", "add", 3),
        ("q", "refund", 1),
        ("r", "add", 1),
    ]
    first, refund, elsewhere = found.items
    assert (first.error, first.reason, first.sample_id) == (
        "ValueError: order N: cannot charge -N EUR",
        "NO_RETRY",
        "q2",
    )
    assert first.first_at < first.last_at
    assert first.cause == elsewhere.cause != refund.cause
    summaries = desk.ask(k.ListTasks(status="FAILED"), k.TaskList).items
    assert {one.id: one.cause for one in summaries}["q1"] == first.cause
    assert [one.count for one in groups(desk, queue="r").items] == [1]
    assert [one.name for one in groups(desk, name="refund").items] == ["refund"]
    assert isinstance(desk.machine.query(b.ListDeadGroups(queue="no")), q.QueueNotFound)


def test_pages_look_at_so_many_tasks_and_rows_and_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = some_dead()
    for rows_max, pages in ((limits.LISTED_ROWS_MAX, [2, 2, 1]), (1, [1, 1, 1, 1, 1])):
        monkeypatch.setattr(limits, "LISTED_ROWS_MAX", rows_max)
        found = [groups(desk, limit=2)]
        while found[-1].next is not None:
            found.append(groups(desk, limit=2, cursor=found[-1].next))
        assert [page.looked_at for page in found] == pages
        assert sum(one.count for page in found for one in page.items) == 5


def test_a_time_out_and_a_death_without_a_word_are_causes_too() -> None:
    desk = Desk()
    worker = desk.enrol("w", "q", dead_after_ms=5_000)
    desk.run(worker, id="slow", timeout_ms=100, max_attempts=1)
    desk.after(200)
    desk.run(worker, id="lost", max_lost=1)
    desk.after(6_000)
    assert {one.error for one in groups(desk).items} == {
        "Timeout: The attempt took longer than its N ms.",
        desk.task("lost").reason,
    }
    (summary,) = (one for one in desk.ask(k.ListTasks(status="FAILED"), k.TaskList).items if one.id == "lost")
    assert (summary.error, summary.cause) == (None, causes.fingerprint("add", "POISON"))
    assert causes.in_short(None, None) == "not known"


def test_a_group_is_done_to_as_a_whole() -> None:
    desk = some_dead()
    cause = groups(desk).items[0].cause
    dry = desk.do(b.ChangeTasks(action="retry", queue="q", cause=cause, dry_run=True), b.TasksChanged)
    assert (dry.matched, dry.done, dry.next) == (3, 3, None)
    assert desk.do(b.ChangeTasks(action="forget", queue="q", cause=cause, name="refund"), b.TasksChanged).matched == 0
    assert desk.do(b.ChangeTasks(action="retry", queue="q", cause=cause), b.TasksChanged).done == 3
    assert desk.counts() == {"queued": 3, "failed": 1}
    assert [one.queue for one in groups(desk).items] == ["q", "r"]
    desk.sound()
