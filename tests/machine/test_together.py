"""Several leases or claims in one command: to each what the command for it alone does, or its refusal."""

from __future__ import annotations

import msgspec
import pytest

from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol.tasks import LeaseLost, TaskError
from tests.machine.desk import Desk, Lease


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.enrol("one", "q")
    desk.enrol("two", "q")
    return desk


def completed(lease: Lease, result: bytes = b"1") -> c.Completion:
    return c.Completion(task_id=lease.id, lease=lease.token, result=msgspec.Raw(result))


def test_c8_reports_of_many_workers_count_one_by_one(desk: Desk) -> None:
    mine, failed, theirs = desk.run(1), desk.run(1, max_attempts=3), desk.run(2)
    stranger = Lease("never", 1)
    command = g.Report(
        complete=(completed(mine, b"[1]"), completed(mine), completed(stranger)),
        fail=(c.Failure(task_id=failed.id, lease=failed.token, error=TaskError(type="E"), delay_ms=5),),
        release=(c.Return(task_id=theirs.id, lease=theirs.token), c.Return(task_id=theirs.id, lease=theirs.token)),
    )
    told = desk.do(command, g.Reported).items
    assert [(one.id, one.status, one.attempts, one.code) for one in told] == [
        (mine.id, "SUCCESS", 1, None),
        (mine.id, None, 0, "lease_lost"),
        ("never", None, 0, "task_not_found"),
        (failed.id, "RETRY", 1, None),
        (theirs.id, "QUEUED", 0, None),
        (theirs.id, None, 0, "lease_lost"),
    ]
    assert [bool(one.detail) for one in told] == [one.status is None for one in told]
    assert desk.sql("SELECT leases, succeeded, failed FROM workers") == [(0, 1, 1), (0, 0, 0)]
    desk.sound()


def test_a_report_of_several_is_refused_in_the_words_of_a_single_one(desk: Desk) -> None:
    lease = desk.run(1)
    single = desk.outcome(c.ReleaseTask(id=lease.id, lease=99)).value
    (told,) = desk.do(g.Report(release=(c.Return(task_id=lease.id, lease=99),)), g.Reported).items
    assert isinstance(single, LeaseLost)
    assert told.detail == single.detail


def test_d7_a_repeat_of_reports_gets_what_they_came_to(desk: Desk) -> None:
    lease = desk.run(1)
    command = g.Report(complete=(completed(lease),))
    first = desk.outcome(command, key="k")
    again = desk.outcome(command, key="k")
    assert first.value == again.value
    assert (first.replayed, again.replayed) == (False, True)
    assert desk.status(lease.id) == "SUCCESS"


def test_nothing_reported_is_nothing_told(desk: Desk) -> None:
    assert desk.do(g.Report(), g.Reported).items == []
