"""An entry that is prepared: unseen until it is applied, and gone without a trace if another one is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quorl.cluster.consensus.statefile import SqliteStateFiles
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.machine import Machine
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as s
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.entry import Entry, Sealed, encode_entry
from quorl.cluster.protocol.grammar import Query
from tests.machine.rig import START_MS, message, seal

TERM = 7


class Pair:
    """A machine that prepares, beside one that only ever applies."""

    def __init__(self, directory: Path) -> None:
        self.states = SqliteStateFiles(directory / "one")
        self.connection = self.states.open()
        self.machine = Machine(self.connection, self.states.open_reader)
        self.twin = Machine(SqliteStateFiles(directory / "twin").open())
        self.index = self.now_ms = 0

    def writing(self) -> bool:
        return self.connection.in_transaction

    def entry(self, *sealed: Sealed) -> tuple[int, int, bytes]:
        """The next one."""
        self.index += 1
        self.now_ms += 10
        return self.index, TERM, encode_entry(Entry(self.now_ms, START_MS + self.now_ms, sealed))

    def prepare(self, *sealed: Sealed) -> tuple[int, int, bytes]:
        entry = self.entry(*sealed)
        self.machine.prepare(*entry)
        return entry

    def apply(self, entry: tuple[int, int, bytes]) -> list[Any]:
        """By both; they must agree in all that can be seen."""
        found, wanted = self.machine.apply(*entry), self.twin.apply(*entry)
        assert found == wanted
        self.same()
        return [outcome.value for outcome in found.outcomes]

    def do(self, *sealed: Sealed) -> list[Any]:
        return self.apply(self.prepare(*sealed))

    def same(self) -> None:
        """Whether all that is seen of the one, not of what it only prepared, is what is seen of the other."""
        assert seen(self.machine) == seen(self.twin)


def seen(machine: Machine) -> list[Any]:
    queries: list[Query[Any]] = [
        t.ListTopics(),
        t.Browse(topic="t", partition=0, start="earliest"),
        q.ListQueues(),
        w.ListWorkers(),
    ]
    return [
        machine.position,
        machine.now_ms,
        machine.wall_ms,
        machine.cluster_id,
        machine.digest,
        content_digest(machine._readable_from),
        *(machine.query(query) for query in queries),
    ]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    made.do(seal(t.CreateTopic(name="t")), seal(q.PutQueue(queue="q")), seal(t.RegisterConsumer(topic="t")))
    made.do(seal(w.RegisterWorker(name="w", queues=("q",), heartbeat_ms=1000, dead_after_ms=5000)))
    made.do(seal(t.Append(topic="t", messages=[message(1)])), seal(_submit("first")))
    yield made
    made.machine.close()
    made.twin.close()


def _submit(name: str) -> s.Submit:
    return s.Submit(queue="q", tasks=[s.NewTask(name=name)])


def _appends(count: int) -> Sealed:
    return seal(t.Append(topic="t", messages=[message(number) for number in range(count)]), f"key {count}")


def test_b1_what_is_prepared_is_seen_once_it_is_applied_and_not_before(pair: Pair) -> None:
    entry = pair.prepare(_appends(3), seal(c.Claim(worker_id=1, max=1)), seal(t.Consume(topic="t", consumer_id=1)))
    assert pair.writing()
    pair.same()
    assert not pair.machine.outlook("q").claimable, "the leader may look ahead"
    appended, granted, consumed = pair.apply(entry)
    assert not pair.writing()
    assert appended.last_offset == 3
    _renders_alike(pair, granted, consumed)


def test_b1_what_was_decided_is_read_beside_an_entry_that_is_prepared(pair: Pair) -> None:
    granted, consumed = pair.do(seal(c.Claim(worker_id=1, max=1)), seal(t.Consume(topic="t", consumer_id=1)))
    (task,) = pair.machine.query(k.ListTasks()).items  # type: ignore[union-attr]
    pair.prepare(seal(t.DeleteTopic(topic="t")), seal(c.CompleteTask(id=task.id, lease=granted.grants[0].token)))
    _renders_alike(pair, granted, consumed)


def _renders_alike(pair: Pair, granted: c.Granted, consumed: t.ConsumedSpans) -> None:
    many = g.GrantedMany(items=[g.Share(worker_id=1, expires_in_ms=5000, grants=tuple(granted.grants))])
    for value in (granted, consumed, many, t.TopicNotFound()):
        assert pair.machine.render(value) == pair.twin.render(value)
    assert granted.grants
    assert consumed.spans


@pytest.mark.parametrize("way", ["retracted", "other entry", "other term", "reloaded"])
def test_b1_what_is_not_committed_leaves_no_trace(pair: Pair, way: str) -> None:
    index, term, payload = pair.prepare(_appends(3), seal(_submit("never")), seal(c.Claim(worker_id=1, max=5)))
    if way == "retracted":
        pair.machine.retract()
        assert not pair.writing()
        pair.machine.retract()
        pair.same()
    if way == "reloaded":
        pair.machine.reload()
        pair.same()
    if way == "other term":
        term += 1
    else:
        payload = encode_entry(Entry(pair.now_ms, START_MS, (_appends(2),)))
    pair.apply((index, term, payload))
    pair.do(_appends(3), seal(c.Claim(worker_id=1, max=5)))


def test_b1_one_entry_is_prepared_at_a_time(pair: Pair) -> None:
    entry = pair.prepare(_appends(3))
    pair.machine.prepare(entry[0] + 1, TERM, entry[2])
    pair.apply(entry)


def test_b1_a_command_that_fails_is_undone_alone_in_a_prepared_entry_too(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ValueError("the same on every node")

    monkeypatch.setattr("quorl.cluster.machine.topics.register_producer", broken)
    appended, failed = pair.do(_appends(3), seal(t.RegisterProducer(topic="t")))
    assert (appended.last_offset, type(failed).__name__) == (3, "CommandFailed")


def _fails(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", [OSError("this disk"), sqlite3.OperationalError("disk I/O error"), AssertionError()])
def test_b1_what_goes_wrong_in_preparing_is_met_again_in_applying(
    pair: Pair, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setattr(Machine, "_apply_entry", _fails(error))
        entry = pair.prepare(_appends(3))
        assert not pair.writing()
        pair.same()
        with pytest.raises(type(error)):
            pair.machine.apply(*entry)
    pair.apply(entry)


def test_b1_who_interrupts_the_process_is_heard(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "_apply_entry", _fails(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        pair.prepare(_appends(3))
    assert not pair.writing()


def test_b1_an_end_of_the_transaction_that_fails_undoes_the_entry(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = pair.prepare(_appends(3))
    with monkeypatch.context() as patch:
        patch.setattr(pair.machine._state, "commit", _fails(sqlite3.OperationalError("disk full")))
        with pytest.raises(sqlite3.OperationalError):
            pair.machine.apply(*entry)
    pair.same()
    pair.apply(entry)


@pytest.mark.parametrize("opened", ["none", "refused"])
def test_b1_without_another_connection_nothing_is_prepared(tmp_path: Path, opened: str) -> None:
    states = SqliteStateFiles(tmp_path)
    refused = _fails(sqlite3.OperationalError("unable to open database file"))
    machine = Machine(states.open(), refused if opened == "refused" else None)
    payload = encode_entry(Entry(1, START_MS, (seal(t.CreateTopic(name="t")),)))
    machine.prepare(1, 1, payload)
    assert not machine._state.connection.in_transaction
    assert machine.apply(1, 1, payload).sequence == 1
    machine.close()


def test_b1_what_was_only_prepared_when_the_process_ended_never_was(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    pair.do(seal(t.CreateTopic(name="t")))
    before = seen(pair.machine)
    entry = pair.prepare(_appends(3))
    pair.machine.close()
    pair.machine.prepare(*entry)  # a call that was on its way
    again = Machine(pair.states.open(), pair.states.open_reader)
    assert seen(again) == before
    again.close()
    pair.twin.close()


def test_b1_a_checkpoint_beside_a_prepared_entry_holds_what_was_committed(pair: Pair) -> None:
    pair.prepare(_appends(3))
    assert pair.states.checkpoint() == pair.index - 1
    copy = pair.states.copy()
    assert (copy.index, copy.term) == (pair.index - 1, TERM)
