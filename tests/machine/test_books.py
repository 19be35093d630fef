"""What is remembered of queues and workers: bounded, and never anything but what the rows say."""

from __future__ import annotations

import pytest

from quorl.cluster.machine import books, queues
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from tests.machine.desk import Desk, new


def test_no_more_is_remembered_than_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "_QUEUES_REMEMBERED_MAX", 2)
    monkeypatch.setattr(books, "_WORKERS_REMEMBERED_MAX", 1)
    desk = Desk()
    for number in range(6):
        desk.submit(f"q{number}")
        desk.enrol(f"w{number}", f"q{number}")
        assert len(desk.claim(1 + number)) == 1
    state = desk.machine._state
    assert len(state._queues) <= 3
    assert len(state._workers) <= 2
    desk.sound()


def test_what_earlier_commands_of_the_entry_counted_outlives_the_undoing_of_a_later_one() -> None:
    desk = Desk()
    desk.submit("old")
    spoiled = s.SubmitBatch(queue="..", tasks=s.Submit(queue="x", tasks=[new()]).sealed().tasks)
    outcomes = desk.entry(
        s.Submit(queue="old", tasks=[new()] * 2), spoiled, s.Submit(queue="new", tasks=[new()]), spoiled,
        s.Submit(queue="old", tasks=[new()]), q.PatchQueue(queue="old", max_lost=3), spoiled,
    )  # fmt: skip
    assert [type(outcome).__name__ for outcome in outcomes] == [
        "Submitted", "CommandFailed", "Submitted", "CommandFailed", "Submitted", "QueueInfo", "CommandFailed",
    ]  # fmt: skip
    assert (desk.counts("old"), desk.counts("new"), desk.queue("old").max_lost) == ({"queued": 4}, {"queued": 1}, 3)
    desk.sound()


def test_a_queue_whose_making_was_undone_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    real = queues._info

    def broken(*_: object) -> q.QueueInfo:
        raise ValueError("a defect")

    monkeypatch.setattr(queues, "_info", broken)
    assert desk.refused(q.PutQueue(queue="q", partitions=3)) == "command_failed"
    monkeypatch.setattr(queues, "_info", real)
    assert desk.put(partitions=2).partitions == 2
    desk.sound()
