"""Many tasks at once: to each what the command for one does, in bounded steps, and a dry run that changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from quorl.cluster.machine.digest import content_digest
from quorl.cluster.protocol import batches as b
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from tests.machine.desk import Desk


def change(desk: Desk, **what: Any) -> b.TasksChanged:
    return desk.do(b.ChangeTasks(**what), b.TasksChanged)


def of_all_kinds() -> Desk:
    """Five tasks: failed, waiting, running, done, cancelled."""
    desk = Desk()
    worker = desk.enrol("w", "q")
    desk.fail(desk.run(worker, id="failed"), retry=False)
    desk.complete(desk.run(worker, id="done"))
    desk.run(worker, id="runs")
    desk.submit("q", id="waits")
    desk.submit("q", id="cancelled")
    desk.cancel("cancelled")
    return desk


ALL = ("failed", "done", "runs", "waits", "cancelled", "unheard")


@pytest.mark.parametrize(
    ("action", "refused"),
    [
        ("retry", {"done": "wrong_state", "runs": "wrong_state", "waits": "wrong_state", "unheard": "task_not_found"}),
        ("cancel", {"failed": "wrong_state", "done": "wrong_state", "unheard": "task_not_found"}),
        ("forget", {"runs": "wrong_state", "waits": "wrong_state", "unheard": "task_not_found"}),
    ],
)
def test_it_is_done_to_those_that_are_named_and_a_dry_run_knows_to_which(
    action: b.BatchAction, refused: dict[str, str]
) -> None:
    desk = of_all_kinds()
    before = content_digest(desk.connection)
    dry = change(desk, action=action, ids=ALL, dry_run=True)
    assert before != content_digest(desk.connection), "the position has moved"
    assert desk.counts() == of_all_kinds().counts()
    done = change(desk, action=action, ids=ALL)
    assert dry == done
    assert {one.id: one.code for one in done.refused} == refused
    assert (done.matched, done.done, done.next) == (6, 6 - len(refused), None)
    desk.sound()


def test_all_of_a_queue_that_are_in_a_state_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BATCH_TASKS_MAX", 2)
    desk = Desk()
    worker = desk.enrol("w", "q")
    for number in range(5):
        desk.fail(desk.run(worker, id=f"t{number}", name="odd" if number % 2 else "even"), retry=False)
    dry, after = [], 0
    while True:
        step = change(desk, action="retry", queue="q", after=after, dry_run=True)
        dry.append(step.done)
        if step.next is None:
            break
        after = step.next
    assert dry == [2, 2, 1]
    first = change(desk, action="retry", queue="q", name="odd")
    assert (first.matched, first.done) == (1, 1)
    assert first.next is not None
    second = change(desk, action="retry", queue="q", name="odd", after=first.next)
    assert (second.done, desk.status("t1"), desk.status("t3")) == (1, "QUEUED", "QUEUED")
    assert change(desk, action="forget", queue="q").done == 2
    assert desk.counts() == {"queued": 2, "failed": 1}
    desk.sound()


def test_what_is_tried_again_needs_its_queue_and_nothing_named_is_nothing_done() -> None:
    desk = Desk()
    desk.submit("q", id="x")
    desk.cancel("x")
    desk.do(q.DeleteQueue(queue="q"), q.QueueDeleted)
    for dry_run in (True, False):
        (refused,) = change(desk, action="retry", ids=("x",), dry_run=dry_run).refused
        assert refused.code == "wrong_state"
    assert change(desk, action="retry").matched == 0
    assert desk.refused(b.ChangeTasks(action="retry", queue="no")) == "queue_not_found"


def test_a_repeat_under_its_key_changes_nothing_more() -> None:
    desk = of_all_kinds()
    command = b.ChangeTasks(action="retry", ids=("failed",))
    first = desk.outcome(command, "key").value
    desk.do(k.CancelTask(id="failed"), k.Cancelled)
    again = desk.outcome(command, "key")
    assert (again.value, again.replayed) == (first, True)
    assert desk.status("failed") == "CANCELLED CANCELLED"
