"""Idempotency keys: the first outcome, again and again, and no more memory than was promised."""

from __future__ import annotations

import sqlite3
from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import receipts
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Command
from quorl.cluster.protocol.problems import CommandFailed, IdempotencyKeyReused
from tests.machine.rig import Rig, expect, message, seal, values


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    rig.do(t.RegisterConsumer(topic="t"), t.ConsumerInfo)
    return rig


@pytest.fixture
def each_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever an entry leaves is a row at once."""
    monkeypatch.setattr(limits, "RECEIPTS_LOOSE_BYTES", 0)


def kept(rig: Rig) -> list[str]:
    rows = rig.connection.execute("SELECT keys FROM receipts ORDER BY ordinal")
    return [key for (keys,) in rows for _, key in msgspec.msgpack.decode(keys)] + loose(rig)


def loose(rig: Rig) -> list[str]:
    """The keys of the receipts that have no row yet."""
    count, keys = rig.connection.execute("SELECT loose_count, loose_keys FROM machine").fetchone()
    return [key for _, key in msgspec.msgpack.decode(b"\xdd" + count.to_bytes(4, "big") + keys)]


def test_a_repeat_gets_the_first_outcome_and_does_nothing(rig: Rig) -> None:
    append = t.Append(topic="t", messages=[message(1)])
    first, second = rig.outcome(append, "k"), rig.outcome(append, "k")
    assert (first.replayed, second.replayed) == (False, True)
    assert first.value == second.value
    assert rig.ask(t.GetSize(topic="t"), t.TopicSize).total == 1
    again = rig.apply(seal(append, "j"), seal(append, "j"))
    assert [o.replayed for o in again.outcomes] == [False, True]
    rig.sound()


@pytest.mark.parametrize(
    "command",
    [
        t.CreateTopic(name="u"),
        t.CreateTopic(name="t", partitions=2),
        t.DeleteTopic(topic="t"),
        t.DeleteTopic(topic="no"),
        t.RegisterProducer(topic="t"),
        t.RegisterConsumer(topic="t"),
        t.Consume(topic="t", consumer_id=9),
        t.Append(topic="t", messages=[message(1, producer_id=1)]),
    ],
)
def test_every_kind_of_outcome_can_be_repeated(rig: Rig, command: Command[Any]) -> None:
    first, second = rig.outcome(command, "k"), rig.outcome(command, "k")
    assert first.value == second.value
    assert second.replayed
    rig.sound()


def test_the_same_key_with_another_body_is_refused(rig: Rig) -> None:
    rig.outcome(t.Append(topic="t", messages=[message(1)]), "k")
    second = rig.outcome(t.Append(topic="t", messages=[message(2)]), "k")
    assert not second.replayed
    assert expect(second.value, IdempotencyKeyReused).detail == 'The key "k" came before with another append request.'
    other = rig.outcome(t.RegisterProducer(topic="t"), "k")  # keys belong to an operation
    expect(other.value, t.ProducerInfo)


def test_a_repeated_consume_reads_the_same_messages_and_skips_none(rig: Rig) -> None:
    patient, last = (t.Consume(topic="t", consumer_id=1, max=2, wait=wait) for wait in (1, 0))
    nothing = rig.outcome(patient, "k", b"same")
    assert expect(nothing.value, t.ConsumedSpans).spans == []
    rig.append("t", *(message(i) for i in range(5)))
    for consume in (patient, last, patient):  # the empty answer to one who waits left no receipt; the full one did
        consumed = expect(rig.machine.render(rig.outcome(consume, "k", b"same").value), t.Consumed)
        assert (values(consumed.items), consumed.remaining) == ([0, 1], 3)
    assert values(rig.consume("t", 1, 9).items) == [2, 3, 4]


def test_d7_who_was_told_that_there_is_nothing_loses_nothing_to_a_late_copy(rig: Rig) -> None:
    patient, last = (t.Consume(topic="t", consumer_id=1, max=2, wait=wait) for wait in (1, 0))
    assert expect(rig.outcome(last, "k", b"same").value, t.ConsumedSpans).spans == []
    rig.append("t", message(0))
    for late in (last, patient):
        assert expect(rig.outcome(late, "k", b"same").value, t.ConsumedSpans).spans == []
    assert values(rig.consume("t", 1, 9).items) == [0]


def test_what_failed_or_may_pass_leaves_no_receipt(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    expect(rig.outcome(t.CreateTopic(name=".."), "k").value, CommandFailed)
    monkeypatch.setattr(t.TopicNotFound, "transient", True)
    missing = rig.outcome(t.RegisterProducer(topic="no"), "k")
    assert (kept(rig), missing.replayed) == ([], False)


def test_a_reused_key_is_told_in_the_words_of_the_caller(rig: Rig) -> None:
    tasks = [s.NewTask(name="add")]
    rig.outcome(s.Submit(queue="q", tasks=tasks), "k")
    again = rig.outcome(s.Submit(queue="q", tasks=tasks * 2), "k")
    assert expect(again.value, IdempotencyKeyReused).detail == 'The key "k" came before with another submit request.'


@pytest.mark.usefixtures("each_a_row")
def test_receipts_are_bounded_in_number(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECEIPTS_MAX", 3)
    for i in range(7):
        rig.outcome(t.RegisterProducer(topic="t"), f"k{i}")
    assert kept(rig) == ["k4", "k5", "k6"]
    rig.sound()
    monkeypatch.setattr(limits, "RECEIPTS_MAX", 1)
    rig.apply(seal(t.Consume(topic="t", consumer_id=1)))
    assert kept(rig) == ["k4", "k5", "k6"]  # nothing was kept, so nothing had to go
    rig.outcome(t.RegisterProducer(topic="t"), "k0")
    assert kept(rig) == ["k0"]
    rig.machine.reload()
    rig.outcome(t.RegisterProducer(topic="t"), "k1")
    assert kept(rig) == ["k1"]


@pytest.mark.usefixtures("each_a_row")
def test_a_repeat_of_the_oldest_of_all_receipts_is_a_repeat(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECEIPTS_MAX", 3)
    first, *_ = [rig.outcome(t.RegisterProducer(topic="t"), key).value for key in "abc"]
    again = rig.outcome(t.RegisterProducer(topic="t"), "a")
    assert (again.value, again.replayed) == (first, True)
    assert kept(rig) == ["a", "b", "c"]
    rig.sound()


@pytest.mark.usefixtures("each_a_row")
def test_receipts_are_bounded_in_age_by_cluster_time_and_cleared_a_few_at_a_time(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECEIPT_AGE_MS_MAX", 1000)
    for i in range(6):
        rig.outcome(t.RegisterProducer(topic="t"), f"old{i}")
    rig.wall_ms += 10**9  # the calendar decides nothing
    rig.now_ms += 999
    rig.outcome(t.RegisterProducer(topic="t"), "young")
    assert len(kept(rig)) == 7
    rig.now_ms += 1
    rig.outcome(t.RegisterProducer(topic="t"))
    assert len(kept(rig)) == 7  # honoured until another needs clearing away
    rig.outcome(t.RegisterProducer(topic="t"), "new0")
    assert kept(rig) == ["old4", "old5", "young", "new0"]
    rig.outcome(t.RegisterProducer(topic="t"), "new1")
    assert kept(rig) == ["young", "new0", "new1"]
    rig.sound()


@pytest.mark.usefixtures("each_a_row")
def test_what_one_entry_left_goes_together_and_no_more_rows_than_are_worth_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECEIPTS_MAX", 8)
    first = rig.apply(*(seal(t.RegisterProducer(topic="t"), f"a{i}") for i in range(6))).outcomes
    rig.outcome(t.RegisterProducer(topic="t"), "b")
    rig.apply(*(seal(t.RegisterProducer(topic="t"), f"c{i}") for i in range(2)))
    assert len(kept(rig)) == 9  # without those of the first entry they would be fewer than were promised
    assert rig.outcome(t.RegisterProducer(topic="t"), "a0") == (first[0].value, True)
    rig.apply(*(seal(t.RegisterProducer(topic="t"), f"d{i}") for i in range(6)))
    assert kept(rig) == ["c0", "c1", *(f"d{i}" for i in range(6))]
    rig.sound()
    monkeypatch.setattr(limits, "RECEIPTS_MAX", 1)
    monkeypatch.setattr(limits, "RECEIPT_EVICTIONS_PER_COMMAND", 1)
    rig.outcome(t.RegisterProducer(topic="t"), "e")
    assert kept(rig) == [*(f"d{i}" for i in range(6)), "e"]
    rig.sound()


def test_what_an_entry_leaves_is_found_after_a_restart_and_within_the_entry(rig: Rig) -> None:
    append = t.Append(topic="t", messages=[message(1)])
    spoiled = seal(t.CreateTopic(name=".."), "k")
    first = rig.apply(seal(append, "j"), spoiled, seal(append, "j"), seal(t.RegisterProducer(topic="t"), "j")).outcomes
    assert [outcome.replayed for outcome in first] == [False, False, True, False]
    rig.machine.reload()
    again = rig.apply(spoiled, seal(append, "j"), seal(t.RegisterProducer(topic="t"), "j")).outcomes
    assert [outcome.replayed for outcome in again] == [False, True, True]
    assert again[1].value == first[0].value
    rig.sound()


def test_what_entries_leave_is_a_row_once_it_is_worth_one(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECEIPTS_LOOSE_BYTES", 300)
    commands = [(t.Append(topic="t", messages=[message(number)]), f"k{number}") for number in range(11)]
    first = []
    for command, key in commands:
        rig.now_ms += 1
        first.append(rig.outcome(command, key).value)
        assert [rig.outcome(*other) for other in commands[: len(first)]] == [(value, True) for value in first]
        rig.sound()
    rows = rig.connection.execute("SELECT ordinal, count, kept_ms FROM receipts ORDER BY ordinal").fetchall()
    assert rows == [(1, 3, 3), (4, 3, 6), (7, 3, 9)]
    assert loose(rig) == ["k9", "k10"]
    rig.machine.reload()
    assert [rig.outcome(*other) for other in commands] == [(value, True) for value in first]
    assert kept(rig) == [key for _, key in commands]


def test_loose_receipts_are_undone_with_their_entry_and_come_before_what_is_too_much(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECEIPTS_MAX", 1)
    rig.outcome(t.RegisterProducer(topic="t"), "a")
    spoiled = seal(t.CreateTopic(name=".."), "k")
    rig.apply(seal(t.RegisterProducer(topic="t"), "b"), spoiled, seal(t.RegisterProducer(topic="t"), "c"))
    assert loose(rig) == ["a", "b", "c"]  # with their row they would be one too few
    rig.sound()
    monkeypatch.setattr(limits, "RECEIPTS_LOOSE_BYTES", 0)
    rig.outcome(t.RegisterProducer(topic="t"), "d")
    assert kept(rig) == ["a", "b", "c", "d"]
    rig.outcome(t.RegisterProducer(topic="t"), "e")
    assert kept(rig) == ["e"]
    rig.sound()


def test_in_the_age_of_a_row_its_last_receipt_counts(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECEIPT_AGE_MS_MAX", 1000)
    rig.outcome(t.RegisterProducer(topic="t"), "old")
    rig.now_ms += 600
    monkeypatch.setattr(limits, "RECEIPTS_LOOSE_BYTES", 0)
    rig.outcome(t.RegisterProducer(topic="t"), "young")
    rig.now_ms += 600
    rig.outcome(t.RegisterProducer(topic="t"), "new")
    assert kept(rig) == ["old", "young", "new"]
    rig.now_ms += 400
    rig.outcome(t.RegisterProducer(topic="t"), "newer")
    assert kept(rig) == ["new", "newer"]
    rig.sound()


@pytest.mark.usefixtures("each_a_row")
def test_b1_an_entry_that_is_undone_costs_no_reading_of_all_receipts(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    monkeypatch.setattr(limits, "RECEIPTS_MAX", 3)
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    rig.outcome(t.RegisterProducer(topic="t"), "first")
    statements: list[str] = []
    rig.connection.set_trace_callback(statements.append)
    for number in range(9):
        rig.machine.prepare(*_next(rig, f"never {number}"))
        assert rig.machine.remembers("register_producer", f"never {number}")
        rig.machine.retract()
        assert not rig.machine.remembers("register_producer", f"never {number}")
        assert not rig.machine.apply(*_next(rig, f"k{number}")).outcomes[0].replayed
    rig.connection.set_trace_callback(None)
    assert kept(rig) == ["k6", "k7", "k8"]
    assert receipts._CLEAR.replace("?", "1") in statements
    assert receipts._ALL not in statements
    rig.receipts_as_read()
    rig.sound()


@pytest.mark.usefixtures("each_a_row")
def test_receipts_that_could_not_be_written_are_not_remembered(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECEIPTS_MAX", 1)
    for key in "ab":
        rig.outcome(t.RegisterProducer(topic="t"), key)
    with monkeypatch.context() as patch:
        patch.setattr(receipts, "_KEEP", "INSERT INTO nowhere VALUES (?, ?, ?, ?, ?)")
        with pytest.raises(sqlite3.OperationalError, match="nowhere"):
            rig.outcome(t.RegisterProducer(topic="t"), "c")
    assert not rig.machine.remembers("register_producer", "c")
    rig.receipts_as_read()
    assert not rig.outcome(t.RegisterProducer(topic="t"), "c").replayed
    assert kept(rig) == ["c"]
    rig.sound()


def _next(rig: Rig, key: str) -> tuple[int, int, bytes]:
    """The entry after what was applied."""
    return rig.machine.position.index + 1, 1, rig.payload(seal(t.RegisterProducer(topic="t"), key))
