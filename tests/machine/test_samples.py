"""History that is replicated: what the samples say is what happened, at every node, whatever became of its memory."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quorl.cluster.machine import events as e
from quorl.cluster.machine import samples
from quorl.cluster.machine.check import check
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.dump import dump, load
from quorl.cluster.machine.machine import Machine
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from tests.machine.desk import Desk, new
from tests.machine.rig import START_MS, connect, message, seal

COLUMNS = "submitted, started, succeeded, failed_attempts, lost, failed, appended, waiting, running"


def samples_of(desk: Desk, kind: int, ref: int = 0) -> dict[int, tuple[int, ...]]:
    rows = desk.sql(f"SELECT bucket, {COLUMNS} FROM samples WHERE kind = ? AND ref = ? ORDER BY bucket", kind, ref)
    return {bucket: tuple(row) for bucket, *row in rows}


def ticks(desk: Desk) -> list[tuple[int, int]]:
    return [(bucket, at_ms - START_MS) for bucket, at_ms in desk.sql("SELECT bucket, at_ms FROM ticks ORDER BY bucket")]


def twin_of(desk: Desk) -> Desk:
    """Another node with the same rows, that remembers nothing."""
    twin = Desk(first_way=1)
    twin.connection = connect()
    load(twin.connection, dump(desk.connection))
    twin.machine = Machine(twin.connection)
    twin.now_ms, twin.wall_ms, twin.seed = desk.now_ms, desk.wall_ms, desk.seed
    return twin


def test_what_happened_in_ten_seconds_is_a_sample_once_they_are_over() -> None:
    desk = Desk()
    worker = desk.enrol("w", "q")
    desk.complete(desk.run(worker))
    desk.fail(desk.run(worker), retry=True, delay_ms=60_000)
    desk.fail(desk.run(worker), retry=False)
    desk.run(worker)
    desk.submit("q")
    assert (samples_of(desk, samples.QUEUE, 1), ticks(desk)) == ({}, [])
    desk.after(9_999)
    assert ticks(desk) == []
    desk.after(1)
    expected = (5, 4, 1, 2, 0, 1, 0, 2, 1)
    assert samples_of(desk, samples.QUEUE, 1) == {0: expected}
    assert samples_of(desk, samples.CLUSTER) == {0: expected}
    assert ticks(desk) == [(0, 10_000)]
    desk.sound()


def test_nothing_is_said_of_what_did_not_change() -> None:
    desk = Desk()
    desk.submit("q")
    desk.entry(t.CreateTopic(name="t"))
    desk.append("t", message(1), message(2))
    for _ in range(3):
        desk.after(10_000)
    assert list(samples_of(desk, samples.QUEUE, 1)) == [0]
    assert samples_of(desk, samples.TOPIC, 1) == {0: (0, 0, 0, 0, 0, 0, 2, 0, 0)}
    assert samples_of(desk, samples.CLUSTER) == {
        0: (1, 0, 0, 0, 0, 0, 2, 1, 0),
        1: (0, 0, 0, 0, 0, 0, 0, 1, 0),
        2: (0, 0, 0, 0, 0, 0, 0, 1, 0),
    }
    desk.after(25_000, s.Submit(queue="q", tasks=[new()]))  # nobody said anything in between
    desk.after(10_000)
    assert samples_of(desk, samples.QUEUE, 1)[5][:1] == (1,)
    assert [bucket for bucket, _ in ticks(desk)] == [0, 1, 2, 3, 5]
    desk.sound()


def test_a_lost_run_and_a_cancelled_one_are_told_apart() -> None:
    desk = Desk()
    worker = desk.enrol("w", "q", dead_after_ms=1_000)
    lease = desk.run(worker)
    desk.cancel(lease.id)
    desk.fail(lease)  # it was asked to end
    desk.run(worker)
    desk.after(1_000)
    desk.after(9_000)
    assert samples_of(desk, samples.QUEUE, 1) == {0: (2, 2, 0, 0, 1, 0, 0, 1, 0)}
    desk.sound()


def test_the_last_of_a_queue_and_of_a_topic_counts_although_they_are_deleted() -> None:
    desk = Desk()
    desk.submit("q", id="x")
    desk.cancel("x")
    desk.entry(t.CreateTopic(name="t"))
    desk.append("t", message(1))
    desk.entry(q.DeleteQueue(queue="q"), t.DeleteTopic(topic="t"))
    desk.entry(
        q.PutQueue(queue="unused"), q.DeleteQueue(queue="unused"), t.CreateTopic(name="t"), t.DeleteTopic(topic="t")
    )
    desk.submit("q")
    desk.after(10_000)
    assert samples_of(desk, samples.CLUSTER) == {0: (2, 0, 0, 0, 0, 0, 1, 1, 0)}
    assert samples_of(desk, samples.QUEUE, 1) == {0: (1, 0, 0, 0, 0, 0, 0, 0, 0)}
    desk.sound()


def test_a_queue_that_is_deleted_with_nothing_left_is_no_trouble_later() -> None:
    desk = Desk()
    desk.put("q", keep_finished_ms=0)
    desk.after(10_000)
    desk.submit("q", id="x")
    desk.cancel("x")
    desk.entry(k.ForgetTask(id="x"))
    desk.entry(q.DeleteQueue(queue="q"))
    desk.after(10_000)
    assert samples_of(desk, samples.CLUSTER)[1][0] == 1
    desk.sound()


def test_two_hours_are_kept_and_what_is_older_goes_in_bounded_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "TICKS_KEPT", 3)
    monkeypatch.setattr(limits, "SAMPLES_CLEARED_PER_TICK", 2)
    desk = Desk()
    for _ in range(6):
        desk.submit("q")
        desk.after(10_000)
    assert [bucket for bucket, _ in ticks(desk)] == [3, 4, 5]
    assert list(samples_of(desk, samples.QUEUE, 1)) == [3, 4, 5]
    desk.after(100_000)
    left = desk.sql("SELECT count(*) FROM samples WHERE bucket <= 5")[0][0]
    assert left == 4
    desk.after(10_000)
    assert desk.sql("SELECT count(*) FROM samples WHERE bucket <= 5")[0][0] == 2


def test_of_too_many_queues_and_topics_each_has_its_turn_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SAMPLED_PER_TICK_MAX", 2)
    desk = Desk()
    for number in range(5):
        desk.submit(f"q{number}")
        desk.entry(t.CreateTopic(name=f"t{number}"))
        desk.append(f"t{number}", message(1))
    for number in range(4):
        twin = twin_of(desk)  # it has to look at all of them, and must come to the same
        for one in (desk, twin):
            one.seed = number
            one.after(10_000)
        assert content_digest(twin.connection) == content_digest(desk.connection)
    assert desk.sql("SELECT sum(submitted), sum(appended) FROM samples WHERE kind != 0") == [(5, 5)]
    assert desk.sql("SELECT max(n) FROM (SELECT count(*) AS n FROM samples WHERE kind = 1 GROUP BY bucket)") == [(2,)]
    desk.sound()


def test_a_sample_that_cannot_be_taken_is_taken_ten_seconds_later(monkeypatch: pytest.MonkeyPatch) -> None:
    desk = Desk()
    desk.submit("q")
    state = desk.machine._state
    real = state.execute

    def failing(statement: str, *values: Any) -> sqlite3.Cursor:
        if statement.startswith("INSERT INTO ticks"):
            raise ValueError("the same on every node")
        return real(statement, *values)

    state.execute = failing
    desk.now_ms += 10_000
    spoiled = desk.apply()
    state.execute = real
    assert [type(event) for event in spoiled.events] == [e.CommandSpoiled]
    assert desk.sql("SELECT * FROM samples") == []
    desk.after(10_000)
    assert samples_of(desk, samples.QUEUE, 1) == {1: (1, 0, 0, 0, 0, 0, 0, 1, 0)}
    desk.sound()


def test_how_a_tally_changed_is_told_once_per_entry() -> None:
    desk = Desk()
    worker = desk.enrol("w", "q")
    applied = desk.apply(seal(s.Submit(queue="q", tasks=[new(), new()])), seal(s.Submit(queue="q", tasks=[new()])))
    told = [event for event in applied.events if isinstance(event, e.QueueCounted)]
    assert told == [e.QueueCounted("q", (0,) * 8, (3, 0, 0, 0, 0, 0, 3, 0))]
    (lease,) = desk.claim(worker)
    desk.machine.reload()
    applied = desk.apply(seal(k.CancelTask(id=lease.id)))
    assert not [event for event in applied.events if isinstance(event, e.QueueCounted)]
    desk.complete(lease)
    assert desk.machine._state.queue("q").tally == (3, 1, 1, 0, 0, 0, 2, 0)  # type: ignore[union-attr]


STEPS = st.lists(
    st.tuples(
        st.integers(0, 12_000),
        st.sampled_from(["submit", "run", "fail", "append", "cancel", "delete", "undone", "nothing"]),
        st.sampled_from(["a", "b"]),
        st.booleans(),
    ),
    max_size=25,
)


@settings(max_examples=40)
@given(STEPS)
def test_a_node_that_was_started_anew_at_any_time_has_the_same_samples(steps: list[tuple[int, str, str, bool]]) -> None:
    one, other = Desk(), Desk()
    tasks = messages = 0
    for desk in (one, other):
        desk.enrol("w", "a", "b", dead_after_ms=3_600_000)
    for ms, what, name, anew in steps:
        commands: list[Any] = []
        match what:
            case "submit":
                commands, tasks = [s.Submit(queue=name, tasks=[new(), new()])], tasks + 2
            case "append":
                commands = [t.CreateTopic(name=name), t.Append(topic=name, messages=[message(1)])]
                messages += 1
            case "undone":
                commands = [s.Submit(queue=name, tasks=[new()]), t.CreateTopic(name="..")]
                tasks += 1
            case "delete":
                commands = [q.DeleteQueue(queue=name), t.DeleteTopic(topic=name)]
        if anew:
            other.machine.reload()
        for desk in (one, other):
            desk.after(ms, *commands)
            if what in {"run", "fail", "cancel"}:
                for lease in desk.claim(1, 1, name):
                    match what:
                        case "run":
                            desk.complete(lease)
                        case "fail":
                            desk.fail(lease, retry=False)
                        case _:
                            desk.cancel(lease.id)
    for desk in (one, other):
        desk.after(10_000)
        desk.sound()
    assert content_digest(one.connection) == content_digest(other.connection)
    rows = one.sql("SELECT ifnull(sum(submitted), 0), ifnull(sum(appended), 0) FROM samples WHERE kind = 0")
    assert rows == [(tasks, messages)]


def test_who_led_since_when_is_remembered() -> None:
    desk = Desk()
    desk.after(5)
    desk.term, desk.node = 2, "n2"
    desk.after(7)
    leaders = desk.sql("SELECT term, node, at_ms FROM leaders ORDER BY term")
    assert leaders == [(1, "n1", START_MS + 5), (2, "n2", START_MS + 12)]


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("UPDATE queues SET sampled = '[9,0,0,0,0,0,0,0]'", "a queue was sampled with more"),
        ("UPDATE topics SET sampled = 9", "a topic was sampled with more"),
        ("UPDATE queues SET total_lost = 1", "more has ended"),
        ("DELETE FROM ticks WHERE bucket = 0", "a sample is of a time"),
        ("INSERT INTO ticks VALUES (-720, 0)", "more times are noted"),
        ("DELETE FROM samples WHERE kind = 2", "the samples of queues and topics"),
        ("UPDATE samples SET lost = 1 WHERE kind = 1", "the samples of queues and topics"),
    ],
)
def test_the_checker_finds_what_is_wrong_with_history(statement: str, rule: str) -> None:
    desk = Desk()
    desk.submit("q")
    desk.entry(t.CreateTopic(name="t"))
    desk.append("t", message(1))
    for _ in range(2):
        desk.after(10_000)
    desk.sound()
    desk.connection.execute(statement)
    assert any(sentence.startswith(rule) for sentence in check(desk.connection))
