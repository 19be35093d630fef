"""Entries whose transaction is left open: seen at once, undone by nothing but the end of the process, and then applied again."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from quorl.cluster.machine import receipts
from quorl.cluster.machine.machine import Machine
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Sealed
from quorl.cluster.protocol.problems import CommandFailed
from tests.machine.rig import seal
from tests.machine.test_preparing import TERM, Pair, _appends, _fails, _submit, pair, seen

__all__ = ["pair"]


def leave_open(pair: Pair, *sealed: Sealed) -> tuple[int, int, bytes]:
    """Apply the next entry by both, and leave it open at the first."""
    entry = pair.entry(*sealed)
    assert pair.machine.apply(*entry, leave_open=True) == pair.twin.apply(*entry)
    assert pair.writing()
    pair.same()
    return entry


def test_d5_what_is_open_is_seen_by_whoever_asks_the_machine(pair: Pair) -> None:
    before = pair.index
    leave_open(pair, _appends(3), seal(_submit("one")))
    leave_open(pair, _appends(2), seal(c.Claim(worker_id=1, max=9)), seal(t.Consume(topic="t", consumer_id=1)))
    copy = pair.states.copy()
    assert copy.index == before, "a copy has what was ended"
    pair.machine.close_open()
    assert not pair.writing()
    pair.same()
    assert pair.states.copy().index == pair.index
    pair.machine.close_open()


@pytest.mark.parametrize("count", [1, 3])
def test_d5_an_entry_that_is_not_left_open_ends_those_before(pair: Pair, count: int) -> None:
    for number in range(count):
        leave_open(pair, seal(_submit(f"open {number}")))
    pair.apply(pair.entry(_appends(3)))
    assert not pair.writing()
    pair.do(_appends(4))


@pytest.mark.parametrize("left_open", [False, True])
def test_d5_a_command_that_fails_is_undone_alone_behind_open_entries(
    pair: Pair, left_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_open(pair, _appends(3), seal(_submit("one")))
    leave_open(pair, seal(_submit("two")), seal(c.Claim(worker_id=1, max=2)))
    monkeypatch.setattr("quorl.cluster.machine.topics.register_producer", _fails(ValueError("the same on every node")))
    entry = pair.entry(_appends(3), _appends(2), seal(t.RegisterProducer(topic="t")), seal(_submit("three")))
    statements: list[str] = []
    pair.connection.set_trace_callback(statements.append)
    found, wanted = pair.machine.apply(*entry, leave_open=left_open), pair.twin.apply(*entry)
    pair.connection.set_trace_callback(None)
    assert receipts._ALL not in statements, "there are too many to read them again"
    assert found == wanted
    assert [type(one.value) for one in found.outcomes][2] is CommandFailed
    assert found.outcomes[0].replayed
    pair.same()
    assert pair.writing() is left_open
    pair.machine.close_open()
    pair.same()
    pair.do(_appends(2), seal(c.Claim(worker_id=1, max=9)))


@pytest.mark.parametrize("what", ["an entry", "the end"])
def test_d5_what_fails_here_alone_takes_open_entries_with_it_and_the_log_brings_them_back(
    pair: Pair, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = seen(pair.machine)
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    entries = [leave_open(pair, _appends(3)), leave_open(pair, seal(_submit("two")))]
    with monkeypatch.context() as patch:
        if what == "an entry":
            entries.append(pair.entry(_appends(2)))
            patch.setattr(Machine, "_apply_entry", _fails(error))
            with pytest.raises(sqlite3.OperationalError):
                pair.machine.apply(*entries[-1], leave_open=True)
        else:
            patch.setattr(pair.machine._state, "commit", _fails(error))
            with pytest.raises(sqlite3.OperationalError):
                pair.machine.close_open()
    assert not pair.writing()
    assert seen(pair.machine) == before
    for entry in entries:
        pair.machine.apply(*entry)
    if what == "an entry":
        pair.twin.apply(*entries[-1])
    pair.same()


@contextlib.contextmanager
def unreadable(connection: sqlite3.Connection) -> Iterator[None]:
    """The disk reads nothing of the state, and little of it is in memory."""
    connection.execute("PRAGMA shrink_memory").fetchall()
    path = Path(connection.execute("PRAGMA database_list").fetchone()[2]).resolve()
    files = {str(path), f"{path}-wal"}
    links = {int(link.name): str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    kept = {number: os.dup(number) for number, target in links.items() if target in files}
    folder = os.open(path.parent, os.O_RDONLY)
    for number in kept:
        os.dup2(folder, number)
    os.close(folder)
    try:
        yield
    finally:
        for number, copy in kept.items():
            os.dup2(copy, number)
            os.close(copy)


_NEXT: dict[str, Callable[[Pair], object]] = {
    "a read": Pair.same,
    "the end": lambda pair: pair.machine.close_open(),
    "an entry": lambda pair: pair.apply(pair.entry(_appends(4))),
    "an open entry": lambda pair: leave_open(pair, _appends(4)),
    "an entry that fails": lambda pair: pair.apply(pair.entry(seal(t.RegisterProducer(topic="t")), _appends(3))),
}


@pytest.mark.parametrize("what", _NEXT)
def test_d5_a_read_that_the_disk_fails_takes_nothing_of_what_is_open(
    pair: Pair, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quorl.cluster.machine.topics.register_producer", _fails(ValueError("the same on every node")))
    leave_open(pair, _appends(3))
    leave_open(pair, seal(_submit("two")))
    with unreadable(pair.connection), pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        pair.same()
    assert not pair.writing(), "SQLite undid the transaction"
    _NEXT[what](pair)
    pair.same()
    assert pair.connection.execute("SELECT sequence FROM machine").fetchone() == (pair.index,)
    pair.machine.close_open()
    pair.do(_appends(3), _appends(5))


def test_d5_what_is_open_and_cannot_be_brought_back_is_never_passed_over(pair: Pair) -> None:
    entries = [leave_open(pair, _appends(3)), leave_open(pair, seal(_submit("two")))]
    entries.append(pair.entry(_appends(4)))
    ways = (pair.same, pair.machine.close_open, lambda: pair.machine.apply(*entries[-1], leave_open=True))
    with unreadable(pair.connection):
        for way in ways:
            with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
                way()
    pair.apply(entries[-1])


def test_d5_a_look_that_the_disk_fails_takes_nothing_of_what_is_prepared(pair: Pair) -> None:
    entry = pair.prepare(_appends(3))
    with unreadable(pair.connection), pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
        pair.machine.outlook("none")
    assert not pair.writing()
    assert pair.machine.apply(*entry, leave_open=True) == pair.twin.apply(*entry)
    pair.same()
    assert pair.writing()


def test_d5_what_could_not_be_read_after_rows_were_undone_is_read_before_the_next_entry(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.prepare(seal(t.DeleteTopic(topic="t")))
    pair.index -= 1
    with monkeypatch.context() as patch:
        patch.setattr(pair.machine._state, "look_for_grave", _fails(sqlite3.OperationalError("disk I/O error")))
        pair.machine.retract()
        with pytest.raises(sqlite3.OperationalError):
            pair.machine.apply(pair.index + 1, TERM, b"")
    pair.do(_appends(3))


def test_d5_what_was_open_when_the_process_ended_is_applied_again(pair: Pair, tmp_path: Path) -> None:
    before = pair.index
    entries = [leave_open(pair, _appends(3)), leave_open(pair, seal(_submit("two")))]
    pair.machine.close()
    pair.connection = pair.states.open()
    pair.machine = Machine(pair.connection, pair.states.open_reader)
    assert pair.machine.position.index == before
    for entry in entries:
        pair.machine.apply(*entry, leave_open=True)
    pair.same()


def test_d5_nothing_is_prepared_behind_open_entries(pair: Pair) -> None:
    leave_open(pair, _appends(3))
    with pytest.raises(AssertionError):
        pair.prepare(_appends(2))


def test_d5_a_prepared_entry_may_be_left_open(pair: Pair) -> None:
    entry = pair.prepare(_appends(3))
    assert pair.machine.apply(*entry, leave_open=True) == pair.twin.apply(*entry)
    pair.same()
    leave_open(pair, _appends(3), _appends(1))
    pair.machine.reload()
    assert not pair.writing()
    pair.same()
