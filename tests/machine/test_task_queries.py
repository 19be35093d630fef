"""What is told of one task: itself, its result, its whole history; and the tasks of a claim."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import task_queries, task_rows
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import tasks as k
from tests.machine.rig import START_MS, expect
from tests.machine.rows import NOW_MS, Rows


@pytest.fixture
def rows() -> Rows:
    rows = Rows()
    rows.queue()
    rows.worker()
    return rows


def at(ms: int) -> str:
    return moment.to_text(START_MS + ms)


def error(number: int, size: int = 10) -> k.TaskError:
    return k.TaskError(type="ValueError", message=f"number {number}", traceback="T" * size)


def told(rows: Rows, task_id: str = "t1") -> k.TaskInfo:
    return rows.rig.ask(k.GetTask(id=task_id), k.TaskInfo)


def test_a_task_that_waits_is_told_as_it_was_submitted(rows: Rows) -> None:
    body = '{"args":[ 1.50 ],"kwargs":{"b" :2},"key":"k","tags":["x"],"meta":{"m":"1"},"traceparent":"00","tries":4}'
    rows.task(body=body, rank=0, timeout_ms=5, max_attempts=9, max_lost=8)
    info = told(rows)
    assert (info.id, info.name, info.queue, info.status) == ("t1", "add", "q", "QUEUED")
    assert (bytes(info.args), bytes(info.kwargs)) == (b"[ 1.50 ]", b'{"b" :2}')
    assert (info.key, info.tags, info.meta, info.traceparent, info.tries) == ("k", ["x"], {"m": "1"}, "00", 4)
    assert (info.priority, info.timeout_ms, info.max_attempts, info.max_lost) == (9, 5, 9, 8)
    assert (info.created_at, info.started_at, info.finished_at, info.due_at) == (at(0), None, None, None)
    assert (info.partition, info.worker_id, info.worker, info.cancel_requested) == (None, None, None, False)
    assert (info.progress, info.note, bytes(info.result), info.reason) == (None, "", b"null", None)
    assert (info.attempts, info.lost, info.errors, info.history) == (0, 0, [], [])
    rows.task()
    bare = told(rows, "t2")
    assert (bytes(bare.args), bytes(bare.kwargs), bare.tags, bare.meta) == (b"[]", b"{}", [], {})


def test_a_task_that_is_not_there_is_not_found(rows: Rows) -> None:
    for ask in (k.GetTask, k.GetResult, k.GetTaskEvents, k.GetTaskWhy):
        assert 'no task "nope"' in rows.rig.ask(ask(id="nope"), k.TaskNotFound).detail


def test_when_a_task_is_due_is_told_in_calendar_time(rows: Rows) -> None:
    rows.task("SCHEDULED", due_ms=NOW_MS + 5_000)
    rows.task("SCHEDULED", calendar_ms=START_MS + 7_000)
    rows.task("RETRY", due_ms=limits.INTEGER_MAX)
    rows.task("RETRY", due_ms=0)
    assert [told(rows, f"t{n}").due_at for n in (1, 2, 3)] == [at(5_000), at(7_000), "9999-12-31T23:59:59.999Z"]
    assert told(rows, "t4").due_at == at(-NOW_MS)


def test_a_task_that_runs_says_where_and_how_far_it_is(rows: Rows) -> None:
    rows.task("PROCESSING", worker_id=1, partition=3, cancel=1)
    rows.connection.execute("INSERT INTO progress VALUES (1, 12.5, 'half', NULL)")
    info = told(rows)
    assert (info.partition, info.worker_id, info.worker, info.started_at) == (3, 1, "w1", at(1))
    assert (info.cancel_requested, info.progress, info.note) == (True, 12.5, "half")
    running = k.AttemptInfo(
        number=1, worker_id=1, worker="w1", token=11, started_at=at(1), ended_at=None, outcome="running", error=None
    )
    assert (info.history, info.errors) == ([running], [])


def test_b8_a_success_has_its_result_and_every_lease(rows: Rows) -> None:
    rows.task("SUCCESS", worker_id=1, leases=3, attempts=2, lost=1)
    rows.connection.execute("INSERT INTO results VALUES (1, ?)", (b'{"a" :1}',))
    rows.attempt(1, 1, "failed", error(1))
    rows.attempt(1, 2, "lost")
    info = told(rows)
    assert (info.status, info.attempts, info.lost, bytes(info.result)) == ("SUCCESS", 2, 1, b'{"a" :1}')
    assert [(one.number, one.outcome, one.ended_at) for one in info.history] == [
        (1, "failed", at(11)),
        (2, "lost", at(21)),
        (3, "success", at(2)),
    ]
    assert [(one.attempt, one.message) for one in info.errors] == [(1, "number 1")]
    assert (info.worker, info.finished_at) == ("w1", at(2))
    rows.task("SUCCESS", worker_id=1)
    assert bytes(told(rows, "t2").result) == b"null"


def test_b9_a_failure_has_every_attempts_exception_and_traceback(rows: Rows) -> None:
    rows.task("FAILED", worker_id=1, leases=3, attempts=3, reason="ERROR")
    for number in (1, 2, 3):
        rows.attempt(1, number, "failed", error(number))
    info = told(rows)
    assert (info.status, info.reason, info.attempts, bytes(info.result)) == ("FAILED", "ERROR", 3, b"null")
    assert [(one.attempt, one.type, one.message, one.traceback) for one in info.errors] == [
        (number, "ValueError", f"number {number}", "T" * 10) for number in (1, 2, 3)
    ]
    assert [one.error for one in info.history] == [error(number) for number in (1, 2, 3)]
    assert [one.started_at for one in info.history] == [at(10), at(20), at(30)]


def test_a_task_that_waits_again_names_no_worker(rows: Rows) -> None:
    rows.task("RETRY", worker_id=1, attempts=1, due_ms=NOW_MS + 1)
    rows.attempt(1, 1, "failed", error(1))
    info = told(rows)
    assert (info.worker_id, info.worker, len(info.history)) == (None, None, 1)


def test_a_history_that_is_too_large_is_told_from_its_newest_end(rows: Rows) -> None:
    rows.task("FAILED", worker_id=1, leases=400)
    for number in range(1, 401):
        rows.attempt(1, number, "failed", error(number, limits.ERROR_TEXT_CHARS_MAX))
    info = told(rows)
    assert len(msgspec.json.encode(info)) <= limits.PAGE_BYTES_MAX
    numbers = [one.number for one in info.history]
    assert numbers == list(range(numbers[0], 401))
    assert 50 < len(numbers) < 400
    assert [one.attempt for one in info.errors] == numbers


def test_one_lease_is_told_however_large_the_rest_is(rows: Rows) -> None:
    rows.task("FAILED", worker_id=1)
    rows.attempt(1, 1, "failed", error(1))
    row = expect(task_rows.find(rows.connection, "t1"), task_rows.TaskRow)  # type: ignore[arg-type]
    assert len(task_queries._history(rows.connection, row, 0)) == 1


# -- results -------------------------------------------------------------------------------------------------------
def test_a_result_is_what_the_task_came_to(rows: Rows) -> None:
    rows.task("SUCCESS", worker_id=1, attempts=1)
    rows.connection.execute("INSERT INTO results VALUES (1, ?)", (b" 20",))
    rows.task("FAILED", worker_id=1, attempts=3, reason="ERROR")
    for number in (1, 2):
        rows.attempt(2, number, "failed", error(number))
    rows.attempt(2, 3, "lost")
    rows.task("RETRY", worker_id=1, attempts=1)
    rows.attempt(3, 1, "failed", error(1))
    rows.task("FAILED", worker_id=1, reason="POISON")
    rows.attempt(4, 1, "failed", error(1))
    rows.attempt(4, 2, "lost")
    rows.task("FAILED", worker_id=1, attempts=1, reason="TIMEOUT", timeout_ms=70)
    rows.attempt(5, 1, "timeout")

    def result(task_id: str) -> tuple[Any, ...]:
        found = rows.rig.ask(k.GetResult(id=task_id), k.TaskResult)
        return found.status, found.attempts, bytes(found.result), found.reason, found.error

    assert result("t1") == ("SUCCESS", 1, b" 20", None, None)
    assert result("t2") == ("FAILED", 3, b"null", "ERROR", error(2))
    assert result("t3") == ("RETRY", 1, b"null", None, None)
    assert result("t4") == ("FAILED", 0, b"null", "POISON", None)
    timeout = k.TaskError(type="Timeout", message="The attempt took longer than its 70 ms.")
    assert result("t5") == ("FAILED", 1, b"null", "TIMEOUT", timeout)
    assert [(one.attempt, one.type) for one in told(rows, "t5").errors] == [(1, "Timeout")]


# -- transitions ---------------------------------------------------------------------------------------------------
def events(rows: Rows, task_id: str = "t1") -> list[k.TaskEvent]:
    return rows.rig.ask(k.GetTaskEvents(id=task_id), k.TaskEvents).items


def test_e5_every_transition_is_told_in_the_order_of_the_log(rows: Rows) -> None:
    rows.task("SUCCESS", worker_id=1, leases=4, claimed_index=900, claimed_term=2, finished_index=900)
    rows.mark(1, 1, "due", "QUEUED", 0, 100, "SCHEDULED")
    rows.attempt(1, 1, "failed", error(1))
    rows.mark(1, 2, "due", "QUEUED", 1, 200, "RETRY")
    rows.attempt(1, 2, "lost", state=k.STATES.index("QUEUED"))
    rows.mark(1, 3, "cancel_requested", "PROCESSING", 3, 301, "PROCESSING")
    rows.attempt(1, 3, "cancelled", state=k.STATES.index("CANCELLED"))
    rows.mark(1, 4, "retried", "QUEUED", 3, 900, "CANCELLED")
    found = events(rows)
    assert [(one.kind, one.status, one.index, one.attempt) for one in found] == [
        ("submitted", "SCHEDULED", 1, None),
        ("due", "QUEUED", 100, None),
        ("claimed", "PROCESSING", 100, 1),
        ("failed", "RETRY", 101, 1),
        ("due", "QUEUED", 200, None),
        ("claimed", "PROCESSING", 200, 2),
        ("lost", "QUEUED", 201, 2),
        ("claimed", "PROCESSING", 300, 3),
        ("cancel_requested", "PROCESSING", 301, 3),
        ("cancelled", "CANCELLED", 301, 3),
        ("retried", "QUEUED", 900, None),
        ("claimed", "PROCESSING", 900, 4),
        ("success", "SUCCESS", 900, 4),
    ]
    assert found[0] == k.TaskEvent(
        kind="submitted", status="SCHEDULED", at=at(0), index=1, term=1, node="n1", worker_id=None, attempt=None
    )
    assert found[3] == k.TaskEvent(
        kind="failed", status="RETRY", at=at(11), index=101, term=2, node="n2", worker_id=1, attempt=1
    )
    assert (found[-1].at, found[-1].node, found[-1].worker_id) == (at(2), "n2", 1)


def test_what_a_task_was_first_is_told_also_later(rows: Rows) -> None:
    rows.task("SCHEDULED", due_ms=NOW_MS + 1)
    rows.task("QUEUED")
    rows.task("PROCESSING", worker_id=1)
    rows.task("CANCELLED")
    rows.mark(4, 1, "cancelled", "CANCELLED", 0, 5, "QUEUED")
    rows.task("CANCELLED")
    rows.mark(5, 1, "cancelled", "CANCELLED", 0, 5, "SCHEDULED")
    rows.task("CANCELLED", worker_id=1)
    rows.mark(6, 1, "cancelled", "CANCELLED", 1, 905, "SCHEDULED")
    rows.connection.execute("DELETE FROM leaders WHERE term = 1")
    told = [[(one.kind, one.status, one.node) for one in events(rows, f"t{n}")] for n in range(1, 7)]
    assert told == [
        [("submitted", "SCHEDULED", "")],
        [("submitted", "QUEUED", "")],
        [("submitted", "QUEUED", ""), ("claimed", "PROCESSING", "")],
        [("submitted", "QUEUED", ""), ("cancelled", "CANCELLED", "n2")],
        [("submitted", "SCHEDULED", ""), ("cancelled", "CANCELLED", "n2")],
        [("submitted", "QUEUED", ""), ("cancelled", "CANCELLED", "n2")],
    ]


# -- the tasks of a claim ------------------------------------------------------------------------------------------
def test_a_claim_is_rendered_with_its_tasks(rows: Rows) -> None:
    rows.task(
        "PROCESSING", worker_id=1, body='{"args":[ 1 ],"meta":{"m":"1"},"traceparent":"00"}', partition=2, timeout_ms=9
    )
    rows.task("PROCESSING", worker_id=1, leases=2, attempts=1)
    rows.connection.execute("INSERT INTO progress VALUES (2, NULL, '', ?)", (b"[ 7 ]",))
    rows.connection.execute("INSERT INTO progress VALUES (1, 1.0, '', NULL)")
    granted = e.Granted(worker_id=1, expires_in_ms=15_000, grants=[e.Grant(2, 12, 2), e.Grant(1, 11, 1)], drained=False)
    second, first = expect(rows.rig.machine.render(granted), e.Claims).tasks
    assert (first.id, first.name, first.queue, first.partition, first.priority) == ("t1", "add", "q", 2, 5)
    assert (bytes(first.args), bytes(first.kwargs), bytes(first.checkpoint)) == (b"[ 1 ]", b"{}", b"null")
    assert (first.attempt, first.max_attempts, first.timeout_ms) == (1, 3, 9)
    assert (first.meta, first.traceparent, first.lease) == ({"m": "1"}, "00", e.Lease(token=11, expires_in_ms=15_000))
    assert (second.id, second.attempt, second.partition, bytes(second.checkpoint)) == ("t2", 2, None, b"[ 7 ]")


def test_leases_that_have_ended_since_are_left_out(rows: Rows) -> None:
    rows.task("PROCESSING", worker_id=1)
    rows.task("PROCESSING", worker_id=1, token=50)
    rows.task("SUCCESS", worker_id=1)
    rows.task("PROCESSING", worker_id=1)
    grants = [e.Grant(ordinal, 10 + ordinal, 1) for ordinal in (1, 2, 3, 4, 5)]
    granted = e.Granted(worker_id=1, expires_in_ms=1, grants=grants, drained=False)
    assert [one.id for one in expect(rows.rig.machine.render(granted), e.Claims).tasks] == ["t1", "t4"]
    drained = e.Granted(worker_id=1, expires_in_ms=1, grants=[], drained=True)
    assert rows.rig.machine.render(drained) == e.Claims(drained=True)


# -- how they are found --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (task_rows.TASK_BY_ID.given, ("t1",)),
        (task_rows.TASK_BY_ID.made, (1, "t1")),
        (task_rows.TASK_BY_ORDINAL, (1,)),
        (task_rows.BODY, (1,)),
        (task_rows.LAST_ERROR, (1,)),
        (task_queries._RESULT, (1,)),
        (task_queries._PROGRESS, (1,)),
        (task_queries._CLAIMED, (1, 11)),
        (task_queries._ATTEMPTS, (1,)),
        (task_queries._LEASES, (1,)),
        (task_queries._MARKS, (1,)),
        (task_queries._FIRST_MARK, (1,)),
        (task_queries._LEADER, (1,)),
    ],
)
def test_one_task_is_found_without_looking_at_others(rows: Rows, statement: str, values: tuple[Any, ...]) -> None:
    plan = rows.plan_of(statement, *values)
    assert plan
    assert all(step.startswith("SEARCH") for step in plan), plan
