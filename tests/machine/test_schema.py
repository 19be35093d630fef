"""Files, dumps and the checker: what is not ours, newer, cut or contradictory is refused or found."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import msgspec
import pytest

from quorl.cluster.machine import dump as dumping
from quorl.cluster.machine import ids, schema
from quorl.cluster.machine.check import check
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.dump import dump, load
from quorl.cluster.machine.machine import Machine, StateError
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import SignOfLife
from tests.machine.desk import Desk
from tests.machine.rig import Rig, connect, message, seal


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.apply(seal(t.CreateTopic(name="ß\x00", partitions=2), "key"), seal(t.RegisterProducer(topic="ß\x00", name="p")))
    rig.do(t.RegisterConsumer(topic="ß\x00"), t.ConsumerInfo)
    for i in range(5):
        rig.append("ß\x00", message(i), message("k", key="k"))
    rig.consume("ß\x00", 1, 3)
    rig.sound()
    return rig


def test_a11_a_state_goes_on_where_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    rig = Rig(path)
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    rig.append("t", message(1))
    position, digest = rig.machine.position, rig.machine.digest
    rig.connection.close()
    again = Rig(path)
    assert (again.machine.position, again.machine.digest) == (position, digest)
    assert again.append("t", message(2)).first_offset == 1
    again.sound()


def test_every_table_is_named_with_all_its_columns(rig: Rig) -> None:
    tables = [name for (name,) in rig.connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    assert sorted(tables) == sorted(table.name for table in schema.TABLES)


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("PRAGMA application_id = 7", "application id"),
        ("UPDATE machine SET version = 2", "start a newer quorl"),
        ("DELETE FROM machine", "has 0"),
        ("UPDATE machine SET sequence = raft_index + 1", "contradicts itself"),
        ("UPDATE machine SET raft_term = -1", "contradicts itself"),
        ("ALTER TABLE topics ADD COLUMN more", "topics"),
        ("DROP TABLE receipts", "receipts"),
    ],
)
def test_a_file_that_is_not_ours_is_refused(rig: Rig, statement: str, says: str) -> None:
    rig.connection.execute(statement).fetchall()
    with pytest.raises(StateError, match=says):
        Machine(rig.connection)


def test_a_database_of_somebody_else_is_refused_and_left_alone() -> None:
    connection = connect()
    connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(StateError):
        Machine(connection)
    with pytest.raises(StateError):
        load(connection, [])
    assert connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (1,)


def test_a_connection_that_opens_transactions_by_itself_is_refused() -> None:
    with pytest.raises(AssertionError):
        Machine(sqlite3.connect(":memory:"))


def test_a_dump_loads_to_the_same_content_however_it_is_cut(rig: Rig) -> None:
    stream = b"".join(dump(rig.connection))
    assert stream == b"".join(dump(rig.connection))
    for size in (1, 7, 1000, len(stream)):
        connection = connect()
        load(connection, (stream[i : i + size] for i in range(0, len(stream), size)))
        assert content_digest(connection) == content_digest(rig.connection)
        assert b"".join(dump(connection)) == stream
        assert Machine(connection).position == rig.machine.position
        assert check(connection) == []


def record(*values: object) -> bytes:
    blob = msgspec.msgpack.encode(values)
    return len(blob).to_bytes(4, "big") + blob


def test_a_damaged_dump_is_refused_and_nothing_of_it_stays(rig: Rig) -> None:
    chunks = list(dump(rig.connection))
    head = chunks[0]
    damaged = [
        [],
        chunks[:-1],
        [*chunks[:-1], chunks[-1][:-1]],
        [*chunks, record("end", 1, b"")],
        chunks[:3] + chunks[4:],
        [record("quorl-state", 99)],
        [head, record(99, 1)],
        [head, record(1, 1)],
        [head, record(2**64 - 1, 1)],
        [head, record()],
        [head, record(1, 2**64 - 1, "x", 1, 1, 1, 0, 0)],
        [head, record(1, None, None, None, None, None, None, None)],
        [head, b"\xff\xff\xff\xff"],
        [head, b"\x00\x00\x00\x01\xc1"],
        [head, record("x", 1)],
    ]
    for stream in damaged:
        connection = connect()
        with pytest.raises(StateError):
            load(connection, stream)
        assert schema.is_empty(connection)


def test_a_dump_of_an_empty_database_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.connection.execute("DELETE FROM machine")
    with pytest.raises(StateError, match="one row"):
        load(connect(), dump(rig.connection))
    assert dumping._RECORD_BYTES_MAX > 16 * 1024 * 1024


@pytest.fixture
def desk() -> Desk:
    """Tasks in every state, and workers of every kind."""
    desk = Desk()
    desk.put(partitions=3)
    for name, standby in (("a", False), ("b", False), ("s", True), ("t", True), ("z", False)):
        desk.enrol(name, "q", "r", standby=standby)
    desk.do(w.RemoveWorker(worker_id=5), w.WorkerGone)
    leases = [desk.run(1, queue="r") for _ in range(4)]
    desk.complete(leases[0])
    desk.fail(leases[1])
    desk.fail(leases[2], retry=False)
    desk.submit("r", delay_ms=10**6, expires_ms=10**5)
    desk.submit("r")
    desk.cancel(desk.submit("r"))
    desk.now_ms += 15_000
    desk.signs = tuple(SignOfLife(worker_id) for worker_id in (1, 3, 4))
    desk.entry()
    desk.sound()
    return desk


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("UPDATE queues SET queued = queued + 1", "a queue's counts"),
        ("UPDATE queues SET submitted = 1 WHERE name = 'r'", "a queue's counts"),
        ("UPDATE queues SET deleted = 1 WHERE name = 'r'", "a task has no queue"),
        ("UPDATE tasks SET partition = 0", "a task's partition"),
        (
            f"UPDATE tasks SET given_id = (SELECT {ids.of('tasks')} FROM tasks WHERE ordinal = 1) WHERE ordinal = 2",
            "two tasks have one id",
        ),
        ("UPDATE machine SET next_token = 1", "an id is not below"),
        ("UPDATE tasks SET token = 1", "two leases"),
        ("UPDATE tasks SET alarm_ms = 5 WHERE state = 0", "a task's alarm"),
        ("UPDATE tasks SET calendar_ms = 5", "a task's alarm"),
        ("UPDATE tasks SET due_ms = 5 WHERE state = 1", "a task's alarm"),
        ("UPDATE tasks SET expiry_ms = 5 WHERE state > 0", "a task's alarm"),
        ("UPDATE tasks SET alarm_ms = 5 WHERE state = 2", "a task's alarm"),
        ("UPDATE tasks SET reason = NULL", "a task's end"),
        ("UPDATE tasks SET cancel = 1", "a task's end"),
        ("UPDATE tasks SET max_attempts = attempts", "a task that waits"),
        ("UPDATE tasks SET size_bytes = 99", "a task has not the body"),
        ("DELETE FROM payloads", "a task has not the body"),
        ("DELETE FROM tasks", "a row belongs to no task"),
        ("UPDATE results SET ordinal = 2", "a result is that of no SUCCESS"),
        ("DELETE FROM attempts", "a task's leases"),
        ("UPDATE workers SET leases = 3", "a worker's leases"),
        ("UPDATE tasks SET worker_id = 99 WHERE state = 2", "a lease is nobody's"),
        ("UPDATE workers SET name = 'a'", "two workers"),
        ("DELETE FROM profiles", "a worker has no profile"),
        ("DELETE FROM beats", "a worker has no profile"),
        ("DELETE FROM workers", "a row belongs to no worker"),
        ("UPDATE workers SET quiet = 1", "a worker counts for a queue"),
        ("UPDATE worker_queues SET alive = 1", "a worker counts for a queue"),
        ("DELETE FROM worker_queues", "a worker that should count"),
        ("UPDATE worker_queues SET active = 0 WHERE standby", "not as many stand-bys"),
        ("UPDATE owners SET worker_id = NULL", "a queue has not an owner"),
        ("UPDATE owners SET worker_id = 2", "a queue has not an owner"),
        ("DELETE FROM owners WHERE partition = 2", "a queue has not an owner"),
        ("UPDATE owners SET worker_id = 1", "partitions are not evenly shared"),
    ],
)
def test_the_checker_finds_what_is_wrong_with_tasks_and_workers(desk: Desk, statement: str, rule: str) -> None:
    desk.connection.execute(statement)
    assert any(sentence.startswith(rule) for sentence in check(desk.connection))


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("DELETE FROM partitions WHERE partition = 0", "a topic has not the partitions"),
        ("UPDATE topics SET next_producer_id = 5", "a topic's next id"),
        ("DELETE FROM consumers", "a topic's next id"),
        ("UPDATE topics SET next_partition = 2", "a topic's turn"),
        ("UPDATE machine SET next_topic_id = 1", "a topic id"),
        ("DELETE FROM batches WHERE base_offset = 0 AND partition = 0", "offsets are not dense"),
        ("UPDATE batches SET created_ms = 0 WHERE base_offset > 0", "creation times decrease"),
        ("UPDATE batches SET end_bytes = end_bytes + 1", "a partition has not the bytes"),
        ("UPDATE machine SET messages = messages + 1", "not as many messages are counted"),
        ("UPDATE cursors SET next_offset = 99", "a cursor is outside"),
        ("UPDATE consumers SET turn = 2", "a consumer has not one cursor"),
        ("DELETE FROM cursors WHERE partition = 1", "a consumer has not one cursor"),
        ("DELETE FROM topics", "a row belongs to no topic"),
        ("INSERT INTO graves VALUES (1)", "a topic has a grave"),
        ("INSERT INTO graves VALUES (2)", "a topic id"),
        ("UPDATE machine SET next_receipt = 9", "receipts are not dense"),
        ("UPDATE machine SET loose_keys = x''", "receipts are not dense"),
        ("UPDATE machine SET loose_outcomes = x''", "receipts are not dense"),
        ("UPDATE batches SET body = '[]' WHERE base_offset = 0", "a body has not as many messages"),
    ],
)
def test_the_checker_finds_what_is_wrong(rig: Rig, statement: str, rule: str) -> None:
    rig.connection.execute(statement)
    assert any(sentence.startswith(rule) for sentence in check(rig.connection))
