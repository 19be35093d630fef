"""Whatever statement of a command fails, the command leaves no trace: not in the rows, not in memory, not in the news."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import events as e
from quorl.cluster.machine.dump import dump
from quorl.cluster.machine.machine import Applied, Outcome
from quorl.cluster.protocol import batches as b
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import Sealed, SignOfLife
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.problems import CommandFailed
from tests.machine.desk import Desk, new
from tests.machine.rig import Rig, expect, message, seal

VICTIMS: list[Command[Any]] = [
    t.CreateTopic(name="new", partitions=2),
    t.DeleteTopic(topic="p"),
    t.RegisterProducer(topic="p"),
    t.RegisterConsumer(topic="p"),
    t.Append(topic="p", messages=[message(1), *(message(i, key=f"k{i}") for i in range(5))]),
    t.Consume(topic="p", consumer_id=1, max=50),
]
WITNESSES: list[Command[Any]] = [
    t.CreateTopic(name="other"),
    t.RegisterProducer(topic="p"),
    t.RegisterConsumer(topic="p", start="latest"),
    t.Append(topic="p", messages=[message(2), *(message(i, key=f"k{i}") for i in range(5))]),
    t.Consume(topic="p", consumer_id=1, max=3),
    t.Append(topic="new", messages=[message(3)]),
    t.CreateTopic(name="new"),
]
"""What comes after, and would give any trace away."""


def prepared() -> Rig:
    rig = Rig()
    founders: list[Command[Any]] = [t.CreateTopic(name="p", partitions=3), *[t.RegisterConsumer(topic="p")] * 5]
    rig.apply(*(seal(command, f"old{i}") for i, command in enumerate(founders)))
    rig.now_ms += 5
    rig.apply(*(seal(t.Append(topic="p", messages=[message(i)]), f"young{i}") for i in range(7)))
    rig.now_ms += limits.RECEIPT_AGE_MS_MAX - 1  # the old receipts are due, more than one command may clear away
    return rig


def break_statement(rig: Rig, victim: int, at: int) -> list[str]:
    """Make the ``at``-th statement of the ``victim``-th command of the next entry fail; what had run by then."""
    machine, state = rig.machine, rig.machine._state
    seen: list[str] = []
    command, running = -1, False
    real_once, real_entry = machine._apply_once, machine._apply_entry

    def breaking(real: Callable[..., sqlite3.Cursor]) -> Callable[..., sqlite3.Cursor]:
        def execute(statement: str, *values: Any) -> sqlite3.Cursor:
            if running and command == victim and len(seen) <= at:
                seen.append(statement)
                if len(seen) == at + 1:
                    raise ValueError("the same on every node")
            return real(statement, *values)

        return execute

    def once(sealed: Sealed) -> tuple[Outcome, bytes]:
        nonlocal command, running
        command, running = command + 1, True
        try:
            return real_once(sealed)
        finally:
            running = False

    def entry(index: int, term: int, payload: bytes) -> list[Outcome]:
        nonlocal command
        command = -1
        seen.clear()
        return real_entry(index, term, payload)

    state.execute, state.execute_many = breaking(state.execute), breaking(state.execute_many)
    machine._apply_once, machine._apply_entry = once, entry  # type: ignore[method-assign]
    return seen


TASK_VICTIMS: list[Command[Any]] = [
    q.PutQueue(queue="new", partitions=2),
    q.PutQueue(queue="q", partitions=2, max_depth=5),
    q.PatchQueue(queue="q", paused=True),
    q.DeleteQueue(queue="empty"),
    q.DeleteQueue(queue="done"),
    q.PurgeQueue(queue="q", states=("QUEUED", "FAILED")),
    s.Submit(queue="q", tasks=[new(id="x"), new(), new(key="k")]),
    s.Submit(queue="new", tasks=[new(), new()]),
    b.ChangeTasks(action="cancel", ids=("waits", "held", "unheard", "waits too")),
    b.ChangeTasks(action="forget", queue="r"),
    k.CancelTask(id="held"),
    k.CancelTask(id="waits"),
    k.RetryTask(id="failed"),
    k.ForgetTask(id="failed"),
    k.ForgetTask(id="last"),
    c.Claim(worker_id=1, queues=("q", "r"), max=9),
    c.CompleteTask(id="held", lease=2),
    c.FailTask(id="held", lease=2),
    c.ReleaseTask(id="held", lease=2),
    c.HoldTask(id="held", lease=2, note="n"),
    c.Settle(worker_id=1, complete=(c.Done("held", 2, b"1"),), release=(c.Return(task_id="held too", lease=3),)),
    g.ReportBatch(complete=(c.Done("held", 2, b"1"),), fail=(c.Failure(task_id="held too", lease=3),)),
    g.ClaimMany(claims=(g.OneClaim(worker_id=1, queues=("q", "r"), max=3), g.OneClaim(worker_id=3))),
    w.RegisterWorker(name="new", queues=("q", "new")),
    w.RegisterWorker(name="one", queues=("q", "r")),
    w.RemoveWorker(worker_id=1),
    w.RemoveWorker(worker_id=3),
    w.QuietWorker(worker_id=1),
]
TASK_WITNESSES: list[Command[Any]] = [
    w.RegisterWorker(name="witness", queues=("q", "r", "new")),
    q.PutQueue(queue="more"),
    s.Submit(queue="q", tasks=[new(), new(key="k")]),
    s.Submit(queue="new", tasks=[new(id="x")]),
    c.Claim(worker_id=1, queues=("q",)),
    c.CompleteTask(id="held too", lease=3),
    k.CancelTask(id="waits"),
    k.CancelTask(id="held"),
    c.Claim(worker_id=5, max=9),
    q.PatchQueue(queue="q", max_lost=9),
]
"""What comes after, and would give any trace away."""


def busy() -> Rig:
    """Tasks in many states, a worker that died, and one that stands by for it."""
    desk = Desk()
    for name, config in (
        ("q", {"partitions": 2}),
        ("r", {}),
        ("empty", {}),
        ("done", {"keep_finished_ms": 0}),
        ("gone", {}),
    ):
        desk.put(name, **config)
    for name, standby in (("one", False), ("two", True), ("three", False)):
        desk.enrol(name, "q", "r", "done", "gone", standby=standby)
    desk.fail(desk.run(1, queue="r", id="failed"), retry=False)
    desk.patch("gone", keep_finished_ms=0)
    for queue, task_id in (("done", "done"), ("gone", "last")):
        desk.submit(queue, id=task_id)
        desk.cancel(task_id)
    desk.do(q.DeleteQueue(queue="gone"), q.QueueDeleted)
    desk.submit("r", id="held")
    desk.submit("r", id="held too")
    assert [lease.token for lease in desk.claim(1, 2, "r")] == [2, 3]
    desk.do(c.HoldTask(id="held", lease=2, checkpoint=msgspec.Raw(b"1")), c.TaskHeld)
    for task_id in ("waits", "waits too"):
        desk.submit("q", id=task_id)
    desk.now_ms += 15_000
    desk.signs = (SignOfLife(1), SignOfLife(2))
    desk.entry()
    assert [desk.life(worker_id) for worker_id in (1, 2, 3)] == ["ALIVE", "ALIVE", "DEAD"]
    desk.now_ms += 1
    desk.sound()
    return desk


@pytest.mark.parametrize("victim", TASK_VICTIMS, ids=lambda victim: type(victim).__name__)
def test_a_failed_statement_of_a_task_command_undoes_it_without_a_trace(victim: Command[Any]) -> None:
    at = 0
    while undone_without_a_trace(victim, at):
        at += 1
    assert at >= 1


def undone_without_a_trace(victim: Command[Any], at: int) -> bool:
    """Whether the command has a statement ``at`` that can fail; if so, it was undone without a trace."""
    rig, twin = busy(), busy()
    rest = [seal(witness) for witness in TASK_WITNESSES]
    first = seal(s.Submit(queue="r", tasks=[new(), new()]))
    seen = break_statement(rig, 1, at)
    broken = rig.apply(first, seal(victim), *rest)
    if len(seen) <= at:
        return False
    clean = twin.apply(first, seal(t.CreateTopic(name="..")), *rest)
    expect(broken.outcomes[1].value, CommandFailed)
    assert broken.outcomes[2:] == clean.outcomes[2:]
    assert told(broken) == told(clean)
    assert content(rig) == content(twin)
    rig.sound()
    return True


def told(applied: Applied) -> list[Any]:
    return [event for event in applied.events if not isinstance(event, e.CommandSpoiled)]


def content(rig: Rig) -> list[Any]:
    """All rows, but for the digest, which differs because the entries differ."""
    records = [msgspec.msgpack.decode(chunk[4:]) for chunk in list(dump(rig.connection))[:-1]]
    assert records[1].pop(8) == bytes.fromhex(rig.machine.digest)
    return records


@pytest.mark.parametrize("victim", VICTIMS, ids=lambda victim: type(victim).__name__)
def test_a_failed_statement_undoes_its_command_without_a_trace(victim: Command[Any]) -> None:
    at = 0
    while fails_without_a_trace(victim, at):
        at += 1
    assert at >= 1


def fails_without_a_trace(victim: Command[Any], at: int) -> bool:
    """Whether the command has a statement ``at`` that can fail; if so, it was undone without a trace."""
    rig, twin = prepared(), prepared()
    for one in (rig, twin):
        one.apply()  # which takes the samples of the ten seconds before
    first, rest = seal(WITNESSES[4]), [seal(w, f"w{i}") for i, w in enumerate(WITNESSES)]
    seen = break_statement(rig, 1, at)
    broken = rig.apply(first, seal(victim, "key"), *rest)
    if len(seen) <= at:
        return False
    clean = twin.apply(first, seal(t.CreateTopic(name="..")), *rest)
    expect(broken.outcomes[1].value, CommandFailed)
    assert broken.outcomes[2:] == clean.outcomes[2:]
    assert told(broken) == told(clean)
    assert content(rig) == content(twin)
    rig.sound()
    assert not rig.apply(seal(victim, "key")).outcomes[0].replayed
    rig.sound()
    return True


def test_a_commit_that_succeeds_but_says_that_it_failed_is_believed_by_its_rows() -> None:
    rig = prepared()
    state = rig.machine._state
    real = state.execute

    def execute(statement: str, *values: Any) -> sqlite3.Cursor:
        done = real(statement, *values)
        if statement == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return done

    state.execute = execute
    with pytest.raises(sqlite3.OperationalError):
        rig.apply(seal(t.Append(topic="p", messages=[message(1)])))
    state.execute = real
    assert rig.machine.position.sequence == 3
    rig.append("p", message(2))
    rig.sound()


def test_the_digest_tells_apart_what_was_asked_and_what_came_of_it() -> None:
    rigs = [prepared(), prepared(), prepared()]
    rigs[1].connection.execute("UPDATE cursors SET next_offset = 1 WHERE partition = 0")  # a node that has diverged
    rigs[2].wall_ms += 1  # an entry with the same outcome
    for rig in rigs:
        rig.apply(seal(t.Consume(topic="p", consumer_id=1, max=9)))
    assert len({rig.machine.digest for rig in rigs}) == 3


def test_a12_cluster_time_never_runs_backwards() -> None:
    rig = prepared()
    before = rig.machine.now_ms, rig.machine.wall_ms
    rig.now_ms, rig.wall_ms = 1, 1
    rig.apply()
    assert (rig.machine.now_ms, rig.machine.wall_ms) == before
