"""Several leases or claims in one command: to each what the command for it alone does, or its refusal."""

from __future__ import annotations

import msgspec
import pytest

from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol.problems import CommandFailed
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
    mine, failed, theirs, later = desk.run(1), desk.run(1, max_attempts=3), desk.run(2), desk.run(2)
    stranger = Lease("never", 1)
    command = g.Report(
        complete=(completed(mine, b"[1]"), completed(mine), completed(stranger)),
        fail=(c.Failure(task_id=failed.id, lease=failed.token, error=TaskError(type="E"), delay_ms=5),),
        release=(
            c.Return(task_id=theirs.id, lease=theirs.token),
            c.Return(task_id=theirs.id, lease=theirs.token),
            c.Return(task_id=later.id, lease=later.token, delay_ms=5),
        ),
    )
    told = desk.do(command, g.Reported).items
    assert [(one.id, one.status, one.attempts, one.code) for one in told] == [
        (mine.id, "SUCCESS", 1, None),
        (mine.id, None, 0, "lease_lost"),
        ("never", None, 0, "task_not_found"),
        (failed.id, "RETRY", 1, None),
        (theirs.id, "QUEUED", 0, None),
        (theirs.id, None, 0, "lease_lost"),
        (later.id, "RETRY", 0, None),
    ]
    assert [bool(one.detail) for one in told] == [one.status is None for one in told]
    assert desk.sql("SELECT leases, succeeded, failed FROM workers") == [(0, 1, 1), (0, 0, 0)]
    desk.sound()


def test_c8_several_reports_of_one_worker_count_one_by_one_too(desk: Desk) -> None:
    leases = [desk.run(1) for _ in range(4)]
    results = [b"null", b"null", b'{"a":[1]}', b"null"]
    complete = [completed(lease, result) for lease, result in zip(leases, results, strict=True)]
    told = desk.do(g.Report(complete=(*complete, complete[1])), g.Reported).items
    assert [(one.status, one.code) for one in told] == [*[("SUCCESS", None)] * 4, (None, "lease_lost")]
    assert desk.sql("SELECT ordinal - 1, body FROM results") == [(2, b'{"a":[1]}')]
    assert desk.sql("SELECT leases, succeeded, failed FROM workers") == [(0, 4, 0), (0, 0, 0)]
    desk.sound()


def test_c8_one_result_that_is_no_json_spoils_the_whole_report(desk: Desk) -> None:
    leases = [desk.run(1) for _ in range(3)]
    done = tuple(
        [c.Done(lease.id, lease.token, result) for lease, result in zip(leases, [b"1", b"2", b"{"], strict=True)]
    )
    desk.do(g.ReportBatch(complete=done), CommandFailed)
    assert [desk.status(lease.id) for lease in leases] == ["PROCESSING"] * 3
    desk.do(g.ReportBatch(complete=done[:2]), g.Reported)
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


def test_c8_claims_of_many_workers_are_granted_or_refused_one_by_one(desk: Desk) -> None:
    tasks = [desk.submit() for _ in range(3)]
    command = g.ClaimMany(
        claims=(
            g.OneClaim(worker_id=2, max=2, number=5),
            g.OneClaim(worker_id=9),
            g.OneClaim(worker_id=1, queues=("q",)),
            g.OneClaim(worker_id=1),
        )
    )
    granted = desk.do(command, g.GrantedMany).items
    assert [[grant.token for grant in one.grants] for one in granted] == [[1, 2], [], [3], []]
    assert [(one.worker_id, one.code, one.settled) for one in granted] == [
        (2, None, True),
        (9, "worker_not_found", True),
        (1, None, True),
        (1, None, False),
    ]
    told = desk.machine.render(g.GrantedMany(items=granted))
    assert isinstance(told, g.ClaimedMany)
    assert [[task.id for task in one.tasks] for one in told.items] == [tasks[:2], [], tasks[2:], []]
    assert [one.settled for one in told.items] == [True, True, True, False]
    assert told.items[1].detail
    assert desk.sql("SELECT leases FROM workers") == [(1,), (2,)]
    assert desk.sql("SELECT claim FROM tasks") == [(5,), (5,), (0,)]
    desk.sound()


def test_claims_of_a_call_that_are_not_asked_for_are_answered_with_nothing(desk: Desk) -> None:
    task_id = desk.submit()
    granted = desk.do(g.ClaimBatch(claims=(g.Seat(2, (), 1, 0, 3),)), g.GrantedMany)
    told = desk.machine.render(granted)
    assert isinstance(told, g.ClaimedMany)
    assert [[task.id for task in one.tasks] for one in told.items] == [[], [], [], [task_id]]
    assert desk.machine.render(g.GrantedMany(items=[])) == g.ClaimedMany(items=[])
    for at in (-1, limits.CLAIMS_TOGETHER_MAX):
        assert desk.refused(g.ClaimBatch(claims=(g.Seat(2, (), 1, 0, at),))) == "command_failed"


def test_claims_on_a_drained_queue_are_told_so(desk: Desk) -> None:
    desk.put("empty")
    desk.patch("empty", sealed_=True)
    batch = g.ClaimBatch(claims=(g.Seat(1, (), 1, 0), g.Seat(2, ("empty",), 1, 0, 1)))
    assert [one.drained for one in desk.do(batch, g.GrantedMany).items] == [False, True]
    desk.sound()


def test_claims_together_hand_out_no_more_bytes_than_one(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CLAIM_BYTES_MAX", 100)
    for _ in range(3):
        desk.submit(args=msgspec.Raw(b'["%s"]' % (b"x" * 60)))
    claims = tuple(g.OneClaim(worker_id=1) for _ in range(3))
    assert [len(one.grants) for one in desk.do(g.ClaimMany(claims=claims), g.GrantedMany).items] == [1, 0, 0]


def test_d7_claims_that_found_nothing_are_forgotten_while_their_caller_waits(desk: Desk) -> None:
    waiting = g.ClaimBatch(claims=(g.Seat(1, (), 1, 0),), wait=1)
    assert not desk.outcome(waiting, key="k").replayed
    desk.submit()
    found = desk.outcome(waiting, key="k")
    assert isinstance(found.value, g.GrantedMany)
    assert (found.replayed, len(found.value.items[0].grants)) == (False, 1)
    assert desk.outcome(waiting, key="k") == found._replace(replayed=True)
    last = g.ClaimBatch(claims=(g.Seat(1, (), 1, 0),))
    assert not desk.outcome(last, key="last").replayed
    assert desk.outcome(last, key="last").replayed


def test_nothing_reported_is_nothing_told(desk: Desk) -> None:
    assert desk.do(g.Report(), g.Reported).items == []
