"""Which entries a node prepares, and which leave their transaction of the state open."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from quorl.cluster.consensus.statefile import SqliteStateFiles
from quorl.cluster.machine.machine import Machine
from quorl.cluster.node.applying import OPEN_BYTES_MAX, OPEN_ENTRIES_MAX, OPEN_S, Applying
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Entry, encode_entry
from tests.machine.rig import START_MS, message, seal


class Desk:
    """A machine, and who applies its entries."""

    def __init__(self, directory: Path) -> None:
        self.connection = SqliteStateFiles(directory).open()
        self.machine = Machine(self.connection, SqliteStateFiles(directory).open_reader)
        self.busy = False
        self.failed: list[Exception] = []
        self.applying = Applying(lambda: self.machine, lambda: self.busy, self.failed.append)
        self.index = 0

    def entry(self, value: str = "") -> tuple[int, int, bytes]:
        self.index += 1
        command = t.Append(topic="t", messages=[message(value)]) if value else t.CreateTopic(name=f"t{self.index}")
        return self.index, 1, encode_entry(Entry(self.index, START_MS, (seal(command),)))

    def apply(self, value: str = "") -> bool:
        """Whether that leaves the transaction open."""
        assert self.applying.apply(*self.entry(value)).sequence == self.index
        return self.open()

    def open(self) -> bool:
        return self.connection.in_transaction


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path)
    yield made
    made.machine.close()


async def test_b1_nothing_is_prepared_while_a_checkpoint_wants_a_moment_without_a_writer(desk: Desk) -> None:
    desk.busy = True
    entry = desk.entry()
    desk.applying.prepare(*entry)
    assert not desk.open()
    desk.busy = False
    desk.applying.prepare(*entry)
    assert desk.open()
    desk.applying.retract()
    assert not desk.open()
    assert desk.machine.apply(*entry).sequence == 1


async def test_d5_some_small_entries_share_a_transaction(desk: Desk) -> None:
    assert [desk.apply() for _ in range(2 * OPEN_ENTRIES_MAX)] == 2 * [*[True] * (OPEN_ENTRIES_MAX - 1), False]


async def test_d5_a_large_entry_ends_the_transaction(desk: Desk) -> None:
    assert desk.apply()
    assert not desk.apply("x" * OPEN_BYTES_MAX)
    assert [desk.apply("x" * (OPEN_BYTES_MAX // 2)) for _ in range(2)] == [True, False]


async def test_d5_none_is_left_open_beside_a_checkpoint(desk: Desk) -> None:
    assert desk.apply()
    desk.busy = True
    assert not desk.apply()
    assert not desk.apply()


async def test_d5_what_is_open_is_ended_after_a_while(desk: Desk) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert desk.apply()
    while desk.open():
        await asyncio.sleep(0)
    assert loop.time() - began >= OPEN_S / 2
    desk.applying.end()
    assert desk.apply(), "and the next is left open again"
    assert desk.failed == []


async def test_d5_what_is_open_is_ended_before_the_next_entry_is_prepared(desk: Desk) -> None:
    assert desk.apply()
    entry = desk.entry()
    desk.applying.prepare(*entry)
    desk.applying.retract()
    assert desk.machine.position.index == 1
    desk.machine.reload()
    assert desk.machine.position.index == 1


async def test_d5_an_end_that_fails_is_told_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise sqlite3.OperationalError("disk full")

    assert desk.apply()
    with monkeypatch.context() as patch:
        patch.setattr(desk.machine._state, "commit", fail)
        desk.applying.end()
        desk.applying.end()
    assert [str(error) for error in desk.failed] == ["disk full"]
    assert not desk.open()
    assert desk.machine.position.index == 0, "the node stops, and finds the entry in its log"


async def test_d5_nothing_is_prepared_on_what_is_left_after_an_end_that_failed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise sqlite3.OperationalError("disk full")

    assert desk.apply()
    monkeypatch.setattr(desk.machine._state, "commit", fail)
    desk.applying.prepare(*desk.entry())
    assert [str(error) for error in desk.failed] == ["disk full"]
    assert not desk.open()
