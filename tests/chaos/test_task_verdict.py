"""The checks of tasks can fail: each kind of damage to a history is seen."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quorl.cluster.protocol import tasks as k
from tests.chaos.task_load import Planned
from tests.chaos.task_verdict import check_ends, check_leases, check_witnesses

GOOD, BAD = Planned("a", 3, 0.0, 1), Planned("b", 4, 0.0, 3)
PLANS = {plan.id: plan for plan in (GOOD, BAD)}


def attempt(number: int, token: int, outcome: k.Outcome, **more: Any) -> k.AttemptInfo:
    at = f"2030-01-01T00:00:{token:02}.000Z"
    error = k.TaskError(type="Planned") if outcome == "failed" else None
    fields: dict[str, Any] = {
        "number": number,
        "worker_id": 1,
        "worker": "w1",
        "token": token,
        "started_at": at,
        "ended_at": at,
        "outcome": outcome,
        "error": error,
    }
    return k.AttemptInfo(**fields | more)


def task(plan: Planned, *history: k.AttemptInfo, **more: Any) -> k.TaskInfo:
    errors = [
        k.AttemptError(attempt=one.number, type="Planned", message="", traceback="")
        for one in history
        if one.outcome == "failed"
    ]
    fields: dict[str, Any] = dict.fromkeys(k.TaskInfo.__struct_fields__)
    fields |= {
        "id": plan.id,
        "status": "SUCCESS" if plan.good else "FAILED",
        "reason": None if plan.good else "ERROR",
        "result": msgspec.Raw(b"%d" % plan.result if plan.good else b"null"),
        "attempts": sum(one.outcome in {"failed", "success"} for one in history),
        "errors": errors,
        "history": list(history),
    }
    return k.TaskInfo(**fields | more)


DONE = task(GOOD, attempt(1, 1, "failed"), attempt(2, 2, "lost"), attempt(3, 5, "success"))
FAILED = task(BAD, attempt(1, 3, "failed"), attempt(2, 4, "failed"), attempt(3, 6, "failed"))


def test_a_good_history_passes() -> None:
    check_ends([DONE, FAILED], PLANS, ["c"])
    check_leases([DONE, FAILED])
    check_witnesses([DONE, FAILED], {"w1": NOTES})


@pytest.mark.parametrize(
    ("tasks", "refused", "why"),
    [
        ([DONE], [], "lost"),
        ([DONE, FAILED, task(Planned("c", 1, 0.0, 0))], [], "no client was told"),
        ([DONE, FAILED], ["b"], "refused"),
        ([msgspec.structs.replace(DONE, status="FAILED"), FAILED], [], "had to succeed"),
        ([msgspec.structs.replace(DONE, result=msgspec.Raw(b"8")), FAILED], [], "wrong result"),
        ([msgspec.structs.replace(DONE, attempts=3), FAILED], [], "attempts"),
        ([DONE, task(BAD, *FAILED.history[:2])], [], "after 2 attempts"),
        ([DONE, msgspec.structs.replace(FAILED, reason="POISON")], [], "POISON"),
        ([DONE, msgspec.structs.replace(FAILED, errors=[])], [], "0 errors"),
    ],
)
def test_wrong_ends_are_seen(tasks: list[k.TaskInfo], refused: list[str], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_ends(tasks, PLANS, refused)


@pytest.mark.parametrize(
    ("history", "why"),
    [
        ([attempt(1, 1, "success"), attempt(2, 2, "success")], "2 times"),
        ([attempt(1, 1, "success"), attempt(2, 2, "lost")], "after its completion"),
        ([attempt(1, 1, "lost"), attempt(3, 2, "success")], "a"),
        ([attempt(1, 1, "lost"), attempt(2, 1, "success")], "given twice"),
        ([attempt(1, 2, "lost"), attempt(2, 1, "success")], "smaller token"),
        ([attempt(1, 1, "lost", ended_at=None), attempt(2, 2, "success")], "without an end"),
        ([attempt(1, 1, "lost", ended_at="2031"), attempt(2, 2, "success")], "at the same time"),
    ],
)
def test_wrong_leases_are_seen(history: list[k.AttemptInfo], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_leases([task(GOOD, *history)])


def note(step: str, token: int, task_id: str = "a", **more: Any) -> dict[str, Any]:
    return {"step": step, "task": task_id, "token": token, **more}


def ran(task_id: str, token: int, what: str, answer: str = "accepted") -> list[dict[str, Any]]:
    return [note("started", token, task_id), note("ended", token, task_id, what=what), note(answer, token, task_id)]


NOTES = [
    *ran("a", 1, "FailTask"),
    *ran("a", 2, "CompleteTask", "refused"),
    *ran("a", 5, "CompleteTask"),
    *(step for token in (3, 4, 6) for step in ran("b", token, "FailTask")),
]


@pytest.mark.parametrize(
    ("notes", "why"),
    [
        ({"w1": [*NOTES, note("started", 9)]}, "never was"),
        ({"w1": [*NOTES, note("started", 5)]}, "started twice"),
        ({"w2": NOTES}, "a lease of w1"),
        ({"w1": [*NOTES, note("accepted", 2)]}, "its lease is lost"),
        ({"w1": [*NOTES, note("accepted", 5)]}, "completed twice"),
        ({"w1": [*NOTES, note("refused", 5)]}, "refused, and counted"),
        ({"w1": NOTES[3:]}, "nobody ran it"),
    ],
)
def test_witnesses_that_contradict_are_heard(notes: dict[str, list[dict[str, Any]]], why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_witnesses([DONE, FAILED], notes)
