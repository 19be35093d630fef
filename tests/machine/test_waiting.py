"""Rows that wait for the end of the entry: fewer statements, and nobody sees that they were not there."""

from __future__ import annotations

from typing import Any

import pytest

from quorl.cluster.machine import waiting
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.problems import CommandFailed
from tests.machine.desk import Desk, Lease, expect, new


def coming(**options: Any) -> s.SubmitBatch:
    return s.Submit(queue="q", tasks=[new(**options)]).sealed()


def done(lease: Lease, result: bytes = b"1") -> c.Complete:
    return c.Complete(id=lease.id, lease=lease.token, result=result)


@pytest.fixture(params=range(3))
def desk(request: pytest.FixtureRequest) -> Desk:
    desk = Desk(first_way=request.param)
    desk.enrol()
    return desk


def statements(desk: Desk, *commands: Command[Any]) -> list[str]:
    """What the machine executes for an entry, by its first two words."""
    asked: list[str] = []
    desk.connection.set_trace_callback(asked.append)
    desk.entry(*commands)
    desk.connection.set_trace_callback(None)
    return [" ".join(statement.split()[:2]) for statement in asked]


def test_those_that_are_done_in_an_entry_are_one_statement_for_each_run_of_them() -> None:
    desk = Desk(first_way=None)  # so that all leases are remembered
    desk.enrol()
    leases = [desk.run(1) for _ in range(6)]
    commands = [command for lease in (*leases[4:], *leases[:3]) for command in (coming(), done(lease))]
    assert statements(desk, *commands).count("UPDATE tasks") == 2
    assert desk.counts() == {"queued": 5, "processing": 1, "success": 5}
    assert desk.sql("SELECT ordinal FROM results ORDER BY ordinal") == [(1,), (2,), (3,), (5,), (6,)]
    desk.sound()


def test_whoever_reads_what_has_come_or_is_done_finds_it(desk: Desk) -> None:
    lease, other, third = (desk.run(1) for _ in range(3))
    submitted, settled, again, repeated, cancelled, granted, lost, retried, forgotten, _, purged = desk.entry(
        coming(id="a"),
        c.Settle(worker_id=1, complete=(c.Done(lease.id, lease.token, b"2"),)),
        done(lease),
        coming(id="a"),
        k.CancelTask(id="a"),
        c.Claim(worker_id=1, max=9),
        c.Complete(id="a", lease=99, result=b"1"),
        k.RetryTask(id="a"),
        k.ForgetTask(id=lease.id),
        done(other),
        q.PurgeQueue(queue="q", states=("SUCCESS",)),
    )
    assert not expect(submitted, s.Submitted).existing
    assert expect(settled, c.Settled).accepted == 1
    assert [type(value) for value in (again, lost)] == [k.LeaseLost, k.LeaseLost]
    assert expect(repeated, s.Submitted).existing
    assert expect(cancelled, k.Cancelled).status == "CANCELLED"
    assert expect(granted, c.Granted).grants == []
    assert expect(retried, k.TaskStatus).status == "QUEUED"
    expect(forgotten, k.TaskForgotten)
    assert expect(purged, q.Purged).removed == 1
    assert (desk.status("a"), desk.status(third.id)) == ("QUEUED", "PROCESSING")
    assert desk.counts() == {"queued": 1, "processing": 1}
    desk.sound()


def test_a_task_that_comes_is_handed_out_in_the_same_entry_and_one_that_is_done_makes_room(desk: Desk) -> None:
    lease = desk.run(1)
    *_, granted = desk.entry(coming(), done(lease), coming(), c.Claim(worker_id=1, max=9))
    assert [grant.ordinal for grant in expect(granted, c.Granted).grants] == [2, 3]
    assert desk.counts() == {"processing": 2, "success": 1}
    desk.sound()


def test_what_waits_is_undone_with_the_entry_and_done_again_without_the_command_that_fails(desk: Desk) -> None:
    lease, other = desk.run(1), desk.run(1)
    spoiled = t.CreateTopic(name="..")
    values = desk.entry(coming(), done(lease), spoiled, done(other), coming(), done(other))
    assert [type(value) for value in values[1:]] == [
        k.TaskStatus,
        CommandFailed,
        k.TaskStatus,
        s.Submitted,
        k.LeaseLost,
    ]
    assert desk.counts() == {"queued": 2, "success": 2}
    desk.sound()


def test_rows_that_cannot_be_written_fail_those_they_are_of_alone(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    lease, other = desk.run(1), desk.run(1)
    monkeypatch.setattr(waiting, "_RESULT", "INSERT INTO results VALUES (?1, nullif(?2, x'32'))")
    values = desk.entry(coming(), done(lease, b"2"), done(other, b"3"))
    assert [type(value) for value in values] == [s.Submitted, CommandFailed, k.TaskStatus]
    assert desk.counts() == {"queued": 1, "processing": 1, "success": 1}
    desk.sound()
    monkeypatch.undo()
    assert desk.complete(lease).status == "SUCCESS"
    desk.sound()
