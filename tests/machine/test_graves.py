"""Deleting a topic, however large: at once for whoever asks, and little by little for the disk, on all nodes alike."""

from __future__ import annotations

import sqlite3
from typing import Any

import pytest

from quorl.cluster.machine import events as e
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.dump import dump, load
from quorl.cluster.machine.machine import Machine
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.problems import CommandFailed
from tests.machine.rig import Rig, connect, expect, message, seal, values

BATCHES = 20_000
TABLES = ("batches", "producers", "consumers", "cursors", "partitions", "graves")


def rows(rig: Rig, where: str = "topic_id > 0") -> dict[str, int]:
    return {
        table: rig.connection.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0] for table in TABLES
    }


def due(rig: Rig) -> bool:
    return rig.machine.due


def first_batch(rig: Rig) -> tuple[int, int]:
    """The first batch in order of keys that the deleted topic still has."""
    found = rig.connection.execute("SELECT min((partition << 32) + base_offset) FROM batches WHERE topic_id = 2")
    at = found.fetchone()[0]
    return divmod(at, 2**32) if at is not None else (9, 9)


def fill(rig: Rig, topic: str, appends: int, size: int = 1) -> None:
    for start in range(0, appends, 1000):
        rig.apply(
            *(
                seal(t.Append(topic=topic, messages=[message("x" * size)]))
                for _ in range(start, min(appends, start + 1000))
            )
        )


@pytest.fixture
def rig() -> Rig:
    """Topic 1 is another's, topic 2 is to be deleted."""
    rig = Rig()
    for name in ("other", "big"):
        rig.do(t.CreateTopic(name=name, partitions=2), t.TopicCreated)
        rig.do(t.RegisterProducer(topic=name), t.ProducerInfo)
        rig.do(t.RegisterConsumer(topic=name), t.ConsumerInfo)
        fill(rig, name, 10)
    return rig


def twin_of(rig: Rig) -> Rig:
    twin = Rig(first_way=1)
    twin.connection = connect()
    load(twin.connection, dump(rig.connection))
    twin.machine = Machine(twin.connection)
    return twin


def test_a4_deleting_a_large_topic_is_bounded_at_each_step_and_the_same_everywhere(rig: Rig) -> None:
    fill(rig, "big", BATCHES)
    rig.consume("big", 1, 7)
    replicas = [rig, twin_of(rig)]
    others, before = rows(rig, "topic_id = 1"), sum(rows(rig).values()) + 1  # and the grave
    bound = limits.PURGED_ROWS_PER_ENTRY + limits.PURGED_ROWS_PER_COMMAND
    payload = rig.payload(seal(t.DeleteTopic(topic="big")))
    steps, at = 0, (0, 0)
    while True:
        for replica in replicas:
            replica.apply_raw(payload)
        payload = rig.payload()
        left = sum(rows(rig).values())
        assert 0 < before - left <= bound
        assert rows(replicas[1]) == rows(rig)
        assert first_batch(replicas[1]) == first_batch(rig) >= at
        assert steps % 20 or len({content_digest(replica.connection) for replica in replicas}) == 1
        assert rows(rig, "topic_id = 1") == others
        assert [due(replica) for replica in replicas] == [left > sum(others.values())] * 2
        if not due(rig):
            break
        assert rig.ask(t.GetTopic(topic="other"), t.TopicInfo).messages == 10
        before, at = left, first_batch(rig)
        steps += 1
    assert steps >= BATCHES // bound
    assert rows(rig, "topic_id = 2") == dict.fromkeys(TABLES, 0)
    assert content_digest(rig.connection) == content_digest(replicas[1].connection)
    assert rig.machine.digest == replicas[1].machine.digest
    rig.sound()


def test_a4_nothing_of_a_deleted_topic_is_read_while_its_rows_wait(rig: Rig) -> None:
    fill(rig, "big", 1000)
    given = rig.outcome(t.Consume(topic="big", consumer_id=1, max=5), "key")
    assert len(expect(rig.machine.render(given.value), t.Consumed).items) == 5
    assert rig.do(t.DeleteTopic(topic="big"), t.TopicDeleted).messages == 1010
    assert due(rig)
    for question in (
        t.GetTopic(topic="big"),
        t.Browse(topic="big"),
        t.GetMessage(topic="big", partition=0, offset=500),
        t.GetSize(topic="big", consumer_id=1),
        t.ListConsumers(topic="big"),
    ):
        assert isinstance(rig.machine.query(question), t.TopicNotFound)
    assert isinstance(rig.machine.render(given.value), t.TopicNotFound)
    again = rig.outcome(t.Consume(topic="big", consumer_id=1, max=5), "key")
    assert again.replayed
    assert isinstance(rig.machine.render(again.value), t.TopicNotFound)
    rig.sound()


def test_a4_the_name_is_free_at_once_and_the_new_topic_is_not_touched(rig: Rig) -> None:
    fill(rig, "big", 1000)
    recreate = seal(t.DeleteTopic(topic="big")), seal(t.CreateTopic(name="big")), seal(t.RegisterConsumer(topic="big"))
    rig.apply(*recreate)
    assert rig.ask(t.GetTopic(topic="big"), t.TopicInfo).messages == 0
    while due(rig):
        rig.append("big", message("new"))
        rig.sound()
    stored = rig.ask(t.GetSize(topic="big"), t.TopicSize).total
    assert values(rig.consume("big", 1, 100).items) == ["new"] * stored
    assert rows(rig)["graves"] == 0


def test_many_topics_are_cleared_away_in_order_of_their_ids(rig: Rig) -> None:
    for number in range(300):
        rig.apply(seal(t.CreateTopic(name=f"t{number}")), seal(t.Append(topic=f"t{number}", messages=[message(1)])))
    for number in reversed(range(300)):
        rig.do(t.DeleteTopic(topic=f"t{number}"), t.TopicDeleted)
    assert not due(rig)  # each was so small that its own entry cleared it away
    rig.do(t.CreateTopic(name="late", partitions=limits.PARTITIONS_MAX), t.TopicCreated)
    fill(rig, "late", 400)
    rig.apply(seal(t.DeleteTopic(topic="late")), seal(t.DeleteTopic(topic="big")))
    assert rig.connection.execute("SELECT topic_id FROM graves").fetchall() == [(303,)]
    while due(rig):
        rig.sound()
        rig.machine.reload()
        rig.apply()
    assert rows(rig) == rows(rig, "topic_id = 1")


def test_an_entry_clears_away_about_as_many_bytes_as_it_may(rig: Rig) -> None:
    fill(rig, "big", 12, size=200_000)
    stored = "SELECT ifnull(sum(length(body)), 0) FROM batches WHERE topic_id = 2"
    before = rig.connection.execute(stored).fetchone()[0]
    command = t.DeleteTopic(topic="big")
    entries = 0
    while due(rig) or not entries:
        rig.apply(*([] if entries else [seal(command)]))
        left = rig.connection.execute(stored).fetchone()[0]
        assert before - left < limits.PURGED_BYTES_PER_ENTRY + 201_000
        before = left
        entries += 1
    assert entries in {6, 7}


def test_clearing_keeps_up_with_writing(rig: Rig) -> None:
    """Topics that are made, filled and deleted without a pause leave nothing behind that grows."""
    appended = seal(t.Append(topic="churn", messages=[message("x" * 300)]))
    most = 0
    for _ in range(10):
        rig.apply(seal(t.CreateTopic(name="churn")), *[appended] * 1000)
        rig.apply(*[appended] * 1000, seal(t.DeleteTopic(topic="churn")))
        most = max(most, rows(rig)["batches"])
    assert most < 2 * 2000 + 20


@pytest.mark.parametrize("failing", ["SELECT partition, base_offset", "DELETE FROM batches", "DELETE FROM producers"])
def test_clearing_that_fails_everywhere_stops_nothing(rig: Rig, failing: str) -> None:
    fill(rig, "big", 150)
    state = rig.machine._state
    real = state.execute

    def execute(statement: str, *bound: Any) -> sqlite3.Cursor:
        if statement.startswith(failing):
            raise ValueError("the same on every node")
        return real(statement, *bound)

    state.execute = execute
    before = rows(rig)
    applied = rig.apply(seal(t.DeleteTopic(topic="big")), seal(t.Append(topic="other", messages=[message(1)])))
    assert [type(outcome.value) for outcome in applied.outcomes] == [t.TopicDeleted, t.Appended]
    assert [type(event) for event in applied.events] == [e.TopicDeleted, e.Appended, e.CommandSpoiled]
    assert rows(rig) == {**before, "batches": before["batches"] + 1, "graves": 1}
    assert not due(rig)  # a leader need not write entries for nothing
    state.execute = real
    rig.apply()
    assert not due(rig)
    assert rows(rig) == {**rows(rig, "topic_id = 1"), "graves": 0}
    rig.sound()


def test_a_delete_that_is_undone_leaves_no_grave(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "quorl.cluster.machine.graves._DIG", "INSERT INTO graves (topic_id) VALUES (?), (NULL), (NULL), (0), (0)"
    )
    rig.do(t.DeleteTopic(topic="big"), CommandFailed)
    monkeypatch.undo()
    assert not due(rig)
    assert rig.append("big", message(1)).partition == 0
    rig.sound()


def test_a_disk_that_fails_while_clearing_undoes_the_entry(rig: Rig) -> None:
    fill(rig, "big", 1000)
    rig.machine.close_open()
    before = content_digest(rig.connection)
    payload = rig.payload(seal(t.DeleteTopic(topic="big")))
    state = rig.machine._state
    real = state.execute

    def execute(statement: str, *bound: Any) -> sqlite3.Cursor:
        if statement.startswith("DELETE FROM batches"):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error
        return real(statement, *bound)

    state.execute = execute
    with pytest.raises(sqlite3.OperationalError):
        rig.apply_raw(payload)
    state.execute = real
    assert content_digest(rig.connection) == before
    assert not due(rig)
    rig.apply_raw(payload)
    assert due(rig)
    rig.sound()


def test_clearing_goes_on_after_a_restart(rig: Rig) -> None:
    fill(rig, "big", 1000)
    rig.do(t.DeleteTopic(topic="big"), t.TopicDeleted)
    again = twin_of(rig)
    assert due(again)
    while due(again):
        again.apply()
        rig.apply()
    assert content_digest(again.connection) == content_digest(rig.connection)
