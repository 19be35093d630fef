"""Why a task is not running: the right reason, first what weighs most, and what to do."""

from __future__ import annotations

import pytest

from quorl.cluster.machine import task_why
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k
from tests.machine.rig import START_MS
from tests.machine.rows import NOW_MS, Rows


@pytest.fixture
def rows() -> Rows:
    rows = Rows()
    rows.queue()
    return rows


def reasons(rows: Rows, task_id: str = "t1") -> list[k.Reason]:
    why = rows.rig.ask(k.GetTaskWhy(id=task_id), k.TaskWhy)
    assert why.id == task_id
    assert why.reasons
    assert all(one.detail and one.hint for one in why.reasons)
    return why.reasons


def codes(rows: Rows, task_id: str = "t1") -> list[str]:
    return [one.code for one in reasons(rows, task_id)]


def told(rows: Rows, code: str, task_id: str = "t1") -> str:
    """What is said for a code, which must be among the reasons."""
    (detail,) = [one.detail for one in reasons(rows, task_id) if one.code == code]
    return detail


# -- it runs, or will not ------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        ("FAILED", "ERROR", "its last attempt failed. ValueError: bad"),
        ("FAILED", "TIMEOUT", "took too long"),
        ("FAILED", "POISON", "too many workers died"),
        ("FAILED", "NO_RETRY", "would not help"),
        ("CANCELLED", "CANCELLED", "it was cancelled."),
        ("CANCELLED", "PURGED", "its queue was purged."),
        ("EXPIRED", "EXPIRED", "no worker started it in time."),
        ("FAILED", "LATER", "FAILED since 2023-11-14T22:13:20.002Z: LATER."),
        ("FAILED", None, "no reason is known."),
    ],
)
def test_a_finished_task_says_why_it_ended(rows: Rows, status: k.Status, reason: str | None, words: str) -> None:
    rows.task(status, reason=reason)
    if reason == "ERROR":
        rows.attempt(1, 1, "failed", k.TaskError(type="ValueError", message="bad"))
    (one,) = reasons(rows)
    assert one.code == "finished"
    assert words in one.detail
    assert "/retry" in one.hint


def test_a_success_says_where_its_result_is(rows: Rows) -> None:
    rows.task("SUCCESS", worker_id=1)
    (one,) = reasons(rows)
    assert (one.code, one.detail) == ("finished", "It is SUCCESS since 2023-11-14T22:13:20.002Z.")
    assert "/result" in one.hint


def test_a_task_that_runs_says_where(rows: Rows) -> None:
    rows.worker()
    rows.task("PROCESSING", worker_id=1)
    (one,) = reasons(rows)
    assert one.code == "running"
    assert one.detail == 'It runs: worker "w1" (1) took it at 2023-11-14T22:13:20.001Z, as lease 1.'
    assert "timeout_ms" in one.hint
    rows.task("PROCESSING", worker_id=1, timeout_ms=90_000)
    assert reasons(rows, "t2")[0].hint.startswith("It may run for 90.0 s;")
    rows.task("PROCESSING", worker_id=1, cancel=1)
    assert told(rows, "running", "t3").endswith("Its worker is asked to stop it.")
    assert "DELETE /v1/workers" in reasons(rows, "t3")[0].hint


def test_a_worker_that_is_silent_is_mentioned(rows: Rows) -> None:
    rows.worker(beat_ms=NOW_MS - 8_000)
    rows.task("PROCESSING", worker_id=1)
    assert told(rows, "running").endswith("The worker was last heard 8.0 s ago; after 15.0 s it goes back.")
    rows.connection.execute("DELETE FROM workers")
    assert told(rows, "running").endswith("as lease 1.")


# -- its moment has not come ---------------------------------------------------------------------------------------
def test_a_task_for_later_says_when(rows: Rows) -> None:
    rows.worker()
    rows.task("SCHEDULED", due_ms=NOW_MS + 5_000)
    rows.task("SCHEDULED", calendar_ms=START_MS + 6_000)
    assert codes(rows) == ["scheduled"]
    assert told(rows, "scheduled").endswith("due at 2023-11-14T22:13:25.000Z.")
    assert told(rows, "scheduled", "t2").endswith("due at 2023-11-14T22:13:26.000Z.")


def test_a_task_that_backs_off_says_what_failed(rows: Rows) -> None:
    rows.worker()
    rows.task("RETRY", worker_id=1, attempts=1, due_ms=NOW_MS + 1_000)
    assert codes(rows) == ["backoff"]
    assert told(rows, "backoff") == "Attempt 1 of 3 failed; the next one is due at 2023-11-14T22:13:21.000Z."
    rows.attempt(1, 1, "failed", k.TaskError(type="ValueError", message="bad"))
    assert told(rows, "backoff").endswith("Z. ValueError: bad")


def test_c8_a_task_that_a_worker_gave_back_for_later_says_who_did(rows: Rows) -> None:
    rows.worker()
    rows.task("RETRY", worker_id=1, due_ms=NOW_MS + 1_000)
    rows.attempt(1, 1, "released")
    assert codes(rows) == ["backoff"]
    assert (
        told(rows, "backoff") == 'Worker "w1" gave it back for later: it is queued again at 2023-11-14T22:13:21.000Z.'
    )


def test_what_will_keep_it_then_is_said_as_well(rows: Rows) -> None:
    rows.connection.execute("UPDATE queues SET paused = 1")
    rows.task("SCHEDULED", due_ms=NOW_MS + 5_000)
    assert codes(rows) == ["scheduled", "paused", "no_workers"]


def test_a_task_that_may_expire_says_when(rows: Rows) -> None:
    rows.task(expiry_ms=NOW_MS + 1_000)
    first, *_ = reasons(rows)
    assert first.code == "no_workers"
    assert first.detail.endswith("Unless a worker starts it by 2023-11-14T22:13:21.000Z, it expires.")


# -- what is in its way --------------------------------------------------------------------------------------------
def test_nobody_serves_its_queue(rows: Rows) -> None:
    rows.task()
    rows.worker("other")
    (one,) = reasons(rows)
    assert (one.code, one.detail) == ("no_workers", 'No worker serves the queue "q".')
    assert one.hint == "Start one: quorl worker run MODULE:APP -q q"
    rows.worker(status=1)
    assert told(rows, "no_workers") == 'No worker serves the queue "q". 1 worker that did died lately.'
    rows.worker(status=1)
    assert told(rows, "no_workers").endswith("2 workers that did died lately.")


def test_the_command_to_start_one_can_be_copied_whatever_the_queue_is_called() -> None:
    rows = Rows()
    rows.queue(name="a b; rm *")
    rows.task()
    (one,) = reasons(rows)
    assert one.hint == "Start one: quorl worker run MODULE:APP -q 'a b; rm *'"


def test_all_who_serve_it_are_quiet(rows: Rows) -> None:
    rows.task()
    rows.worker(quiet=1)
    assert (
        told(rows, "no_workers")
        == 'Worker "w1" (1), the only one that serves its queue, was told to claim nothing more.'
    )
    rows.worker(quiet=1)
    assert told(rows, "no_workers") == "The 2 workers that serve its queue were told to claim nothing more."
    rows.worker()
    assert codes(rows) == ["ready"]


def test_its_partition_has_no_owner(rows: Rows) -> None:
    queue_id = rows.queue("p", partitions=2)
    rows.task(queue_id=queue_id, partition=1)
    assert codes(rows) == ["no_workers"]
    worker_id = rows.worker("p")
    rows.own(queue_id, 0, worker_id)
    assert told(rows, "no_owner") == "Partition 1, in which it is, has no owner."
    rows.own(queue_id, 1, worker_id)
    assert codes(rows) == ["ready"]
    rows.connection.execute("UPDATE workers SET quiet = 1")
    rows.worker("p")
    assert told(rows, "no_workers").startswith('Worker "w1" (1), the owner of its partition, was told')
    rows.connection.execute("UPDATE worker_queues SET active = 0 WHERE worker_id = 1")
    assert codes(rows) == ["no_owner"]


def test_nobody_knows_its_name(rows: Rows) -> None:
    rows.task(name="ad")
    rows.worker(handlers=("add", "divide"))
    (one,) = reasons(rows)
    assert one.code == "unknown_name"
    assert one.detail.endswith('knows no task "ad" - did you mean `add`?')
    assert "Whoever takes it will fail it" in one.hint
    rows.task(name="nothing.like.it")
    assert told(rows, "unknown_name", "t2").endswith('knows no task "nothing.like.it".')
    rows.worker(handlers=("divide",))
    assert told(rows, "unknown_name").startswith("The 2 workers that serve its queue know no task")
    rows.worker(handlers=("ad",))
    assert codes(rows) == ["ready"]


def test_workers_that_did_not_say_what_they_know_are_not_judged(rows: Rows) -> None:
    rows.task(name="ad")
    rows.worker(handlers=("add",))
    rows.worker()
    assert codes(rows) == ["ready"]


def test_all_workers_are_busy(rows: Rows) -> None:
    rows.worker(concurrency=1, leases=1)
    rows.task()
    assert told(rows, "workers_busy") == 'Worker "w1" (1), the only one that serves its queue, has all 1 slot taken.'
    rows.worker(concurrency=2, leases=3)
    assert told(rows, "workers_busy") == "The 2 workers that serve its queue have all 3 slots taken."
    rows.worker(quiet=1)
    assert codes(rows) == ["workers_busy"]
    rows.worker()
    assert codes(rows) == ["ready"]


def test_others_go_before_it(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    rows.worker()
    rows.task(rank=9)
    rows.task()
    rows.task()
    assert codes(rows, "t2") == ["ready"]
    assert told(rows, "behind", "t3").startswith("1 of the tasks that wait goes before it")
    assert told(rows, "behind").startswith("2 of the tasks that wait go before it")
    monkeypatch.setattr(limits, "LISTED_ROWS_MAX", 1)
    assert told(rows, "behind").startswith("More than 1 of the tasks that wait go before it")
    rows.connection.execute("UPDATE queues SET paused = 1")
    assert codes(rows, "t3") == ["paused", "behind"]
    assert codes(rows, "t2") == ["paused"]


def test_what_the_same_owner_has_in_all_its_partitions_goes_before_it(rows: Rows) -> None:
    queue_id = rows.queue("p", partitions=3)
    for partition in (0, 1, 2, 1):
        rows.task(queue_id=queue_id, partition=partition)
    assert codes(rows) == ["no_workers"]
    assert codes(rows, "t4") == ["no_workers", "behind"]
    for partition in (0, 1, 2):
        rows.own(queue_id, partition, rows.worker("p"))
    assert codes(rows, "t2") == ["ready"]
    assert told(rows, "behind", "t4").startswith(
        "1 of the tasks that wait in 1 partition of the same owner goes before"
    )
    rows.own(queue_id, 0, 2)
    assert told(rows, "behind", "t2").startswith(
        "1 of the tasks that wait in 2 partitions of the same owner goes before"
    )
    assert told(rows, "behind", "t4").startswith("2 of the tasks")
    assert codes(rows, "t3") == ["ready"]


def test_of_very_many_workers_nothing_is_said_that_is_not_certain(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(task_why, "WORKERS_LOOKED_AT_MAX", 2)
    rows.task()
    for _ in range(3):
        rows.worker(quiet=1)
    assert codes(rows) == ["ready"]


@pytest.mark.parametrize(
    ("span_ms", "words"),
    [
        (0, "0.0 s"),
        (999, "0.9 s"),
        (119_999, "119.9 s"),
        (120_000, "2 min"),
        (7_200_000, "2 h"),
        (172_800_000, "2 days"),
    ],
)
def test_spans_are_told_in_the_unit_that_suits_them(span_ms: int, words: str) -> None:
    assert task_why._spoken(span_ms) == words


@pytest.mark.parametrize("statement", ["_WORKERS", "_DEAD", "_OWNER", "_OWNED", "_SILENT", "_BEFORE"])
def test_reasons_are_found_without_looking_at_all_rows(rows: Rows, statement: str) -> None:
    sql = getattr(task_why, statement)
    plan = [step for step in rows.plan_of(sql, *[1] * sql.count("?")) if not step.startswith(("CO-ROUTINE", "SCAN ("))]
    assert plan
    assert all(step.startswith("SEARCH") for step in plan), plan
