"""The verdict on tasks: what clients were told, beside what the log did and what every node holds in the end."""

from __future__ import annotations

from typing import Any

from quorl.cluster.machine import ids
from quorl.cluster.protocol import tasks as k
from tests.simulation.task_checks import TaskChecks
from tests.simulation.task_history import Submission

Stored = dict[str, tuple[str, bytes | None]]
"""By id: the state of a task, and its result."""


def stored_tasks(connection: Any) -> Stored:
    """What a node holds."""
    statement = f"SELECT {ids.of('tasks')}, state, body FROM tasks LEFT JOIN results USING (ordinal) ORDER BY ordinal"
    return {
        task_id: (k.STATES[state], (body or b"null") if k.STATES[state] == "SUCCESS" else None)
        for task_id, state, body in connection.execute(statement)
    }


def judge_tasks(checks: TaskChecks, stored: dict[str, Stored]) -> list[str]:
    """Every broken promise."""
    history = checks.history
    problems = history.conflicts[:5]
    for name, copy in stored.items():
        problems += _results(checks, name, copy)[:3]
    for submission in history.submissions:
        problems += _submission(checks, submission)
    known = {serial for submission in history.submissions for serial in submission.serials}
    problems += [f"INVENTED task {serial}" for serial in checks.shadows.created if serial not in known]
    problems += _reports(checks)
    for seen in history.seen:
        possible = checks.states_between(seen.task_id, seen.low, seen.high)
        if seen.status not in possible:
            problems.append(f"SEEN {seen}, and it was {sorted(map(str, possible))}")
    return problems[:20]


def _results(checks: TaskChecks, name: str, copy: Stored) -> list[str]:
    """What somebody was told for a result, and what the log made of every task, is what this node holds."""
    problems = []
    shadows = checks.shadows
    for task_id, result in checks.history.results.items():
        if task_id in shadows.forgotten:
            if shadows.forgotten[task_id].result != result:
                problems.append(f"RESULT of {task_id}: told {result!r}, and it came to {shadows.forgotten[task_id]}")
        elif copy.get(task_id) != ("SUCCESS", result):
            problems.append(f"RESULT of {task_id} at {name}: told {result!r}, and it holds {copy.get(task_id)}")
    expected = {task_id: (shadow.state, shadow.result) for task_id, shadow in shadows.tasks.items()}
    if expected != copy:
        odd = sorted(one for one in expected.keys() | copy.keys() if expected.get(one) != copy.get(one))[:3]
        problems.append(
            f"COPY of {name}: " + "; ".join(f"{one}: {copy.get(one)}, not {expected.get(one)}" for one in odd)
        )
    return problems


def _submission(checks: TaskChecks, done: Submission) -> list[str]:
    created = [checks.shadows.created.get(serial) for serial in done.serials]
    if done.outcome == "ok" and created != done.ids:
        return [f"LOST {done.ids} acknowledged at {done.started - 1000:.2f}: there are {created}"]
    if done.outcome == "no" and any(created):
        return [f"REFUSED-BUT-PRESENT {created}"]
    if any(created) and not all(created):
        return [f"TORN {done.serials}: {created}"]
    return [
        f"RENAMED {task.id} to {one}"
        for task, one in zip(done.tasks, created, strict=True)
        if one and task.id and task.id != one
    ]


def _reports(checks: TaskChecks) -> list[str]:
    """An acknowledged report took effect; a refused one did not, and its lease was over."""
    problems, shadows = [], checks.shadows
    for token, (task_id, how) in checks.history.settled.items():
        if shadows.ends.get(token) != "settled":
            problems.append(f"UNSETTLED {how} of {task_id} under {token} was acknowledged: {shadows.ends.get(token)}")
    for token, task_id in checks.history.refused.items():
        if shadows.ends.get(token) == "settled":
            problems.append(f"REFUSED-ACCEPTED: the report of {task_id} under {token} took effect, and was refused")
    problems += [
        f"REFUSED-LEASE {token} of {task_id}, which lives"
        for token, task_id in checks.history.refused.items()
        if token in shadows.leases and task_id not in shadows.forgotten
    ]
    return problems[:5]


def unfinished(checks: TaskChecks) -> list[str]:
    """The tasks that have not come to an end."""
    return [f"{shadow.id}: {shadow.state}" for shadow in checks.shadows.active.values()]
