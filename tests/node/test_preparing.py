"""Who prepares entries, and who had better not."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from quorl.cluster.consensus.statefile import SqliteStateFiles
from quorl.cluster.machine.machine import Machine
from quorl.cluster.node.preparing import Preparing
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Entry, encode_entry
from tests.machine.rig import START_MS, seal


def test_b1_nothing_is_prepared_while_a_checkpoint_wants_a_moment_without_a_writer(tmp_path: Path) -> None:
    states = SqliteStateFiles(tmp_path)
    connection = states.open()
    machine = Machine(connection, states.open_reader)
    busy = True
    ahead = Preparing(lambda: machine, lambda: busy)
    payload = encode_entry(Entry(1, START_MS, (seal(t.CreateTopic(name="t")),)))
    ahead.prepare(1, 1, payload)
    assert not _writing(connection)
    busy = False
    ahead.prepare(1, 1, payload)
    assert _writing(connection)
    ahead.retract()
    assert not _writing(connection)
    assert machine.apply(1, 1, payload).sequence == 1
    machine.close()


def _writing(connection: sqlite3.Connection) -> bool:
    return connection.in_transaction
