"""Rows that wait for the end of the entry: fewer statements, and nobody sees that they were not there."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

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


def statements(desk: Desk, *commands: Command[Any], words: int = 2) -> list[str]:
    """What the machine executes for an entry, by its first words, whatever it says of conflicts."""
    asked: list[str] = []
    desk.connection.set_trace_callback(asked.append)
    desk.entry(*commands)
    desk.connection.set_trace_callback(None)
    return [" ".join(statement.replace(" OR FAIL", "").split()[:words]) for statement in asked]


def test_those_that_are_done_in_an_entry_are_one_statement_for_each_run_of_them() -> None:
    desk = Desk(first_way=None)  # so that all leases are remembered
    desk.enrol()
    leases = [desk.run(1) for _ in range(6)]
    commands = [command for lease in (*leases[4:], *leases[:3]) for command in (coming(), done(lease))]
    assert statements(desk, *commands).count("UPDATE tasks") == 2
    assert desk.counts() == {"queued": 5, "processing": 1, "success": 5}
    assert desk.sql("SELECT ordinal FROM results ORDER BY ordinal") == [(1,), (2,), (3,), (5,), (6,)]
    desk.sound()


@pytest.mark.parametrize("count", [1, 2, 3, 31, 32, 33, 63, 100])
def test_those_that_come_alike_are_few_statements_whatever_their_number(count: int) -> None:
    desk = Desk(first_way=None)
    desk.enrol()
    args = [msgspec.Raw(b"[%d]" % 10**number) for number in range(count)]
    several = s.Submit(queue="q", tasks=[new(args=arg) for arg in args]).sealed()
    pieces = count // 32 + (count % 32).bit_count()
    assert statements(desk, several, words=3).count("INSERT INTO tasks") == pieces
    rows = desk.sql("SELECT t.ordinal, t.size_bytes, p.body FROM tasks t JOIN payloads p USING (ordinal) ORDER BY 1")
    assert [row[0] for row in rows] == list(range(1, count + 1))
    assert all(size == len(body) for _, size, body in rows)
    assert [bytes(arg) in row[2] for arg, row in zip(args, rows, strict=True)] == [True] * count
    desk.sound()


def test_those_that_come_between_others_keep_what_is_their_own(desk: Desk) -> None:
    options: list[dict[str, Any]] = [{}, {"priority": 9}, {"priority": 9}, {}, {"id": "x"}, {"max_attempts": 7}, {}]
    desk.entry(
        *[coming(**some) for some in options[:3]], s.Submit(queue="q", tasks=[new(**o) for o in options[3:]]).sealed()
    )
    rows = desk.sql("SELECT ordinal, given_id, 9 - rank, max_attempts FROM tasks ORDER BY ordinal")
    usual = desk.sql("SELECT default_attempts FROM queues")[0][0]
    assert rows == [
        (place, some.get("id"), some.get("priority", 5), some.get("max_attempts", usual))
        for place, some in enumerate(options, 1)
    ]
    assert desk.sql("SELECT ordinal FROM payloads WHERE fingerprint IS NOT NULL") == [(5,)]
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


def test_rows_that_cannot_be_written_fail_those_they_are_of_alone(desk: Desk) -> None:
    lease, other = desk.run(1), desk.run(1)
    desk.sql(
        "CREATE TEMP TRIGGER spoil BEFORE INSERT ON results WHEN NEW.body = x'32' BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    values = desk.entry(coming(), done(lease, b"2"), done(other, b"3"))
    assert [type(value) for value in values] == [s.Submitted, CommandFailed, k.TaskStatus]
    assert desk.counts() == {"queued": 1, "processing": 1, "success": 1}
    desk.sql("DROP TRIGGER spoil")
    desk.sound()
    assert desk.complete(lease).status == "SUCCESS"
    desk.sound()


def test_a_statement_of_many_rows_that_fails_at_one_of_them_leaves_none(desk: Desk) -> None:
    desk.sql("INSERT INTO payloads (ordinal, body) VALUES (2, x'')")
    three = s.Submit(queue="q", tasks=[new(), new(), new()]).sealed()
    values = desk.entry(three, coming())
    assert [type(value) for value in values] == [CommandFailed, s.Submitted]
    assert desk.sql("SELECT ordinal FROM tasks") == [(1,)]
    desk.sql("DELETE FROM payloads WHERE ordinal = 2")
    desk.sound()
