"""A node's SQLite state in a simulated world: in memory, and rolled back by a power cut.

SQLite has no fake disk under the standard library, so a power cut is modelled by what it may do: the state falls back
to any moment at or after its last checkpoint.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
from typing import Any

from typing_extensions import override

from quorl.cluster.consensus.port import Damaged, Snapshot
from quorl.cluster.machine.machine import Machine


class _Cursor(sqlite3.Cursor):
    """Lets its states know when a transaction begins."""

    connection: _Kept

    @override
    def execute(self, sql: str, *values: Any) -> _Cursor:
        if sql == "BEGIN IMMEDIATE":
            self.connection.committed = self.connection.image
        return super().execute(sql, *values)


class _Kept(sqlite3.Connection):
    """The connection that writes: its content outlives it."""

    states: SimStates
    committed: bytes = b""
    """What there was when the last transaction began."""

    @override
    def cursor(self, *_: Any) -> _Cursor:  # type: ignore[override]  # any other kind would not tell
        return super().cursor(_Cursor)

    @property
    def image(self) -> bytes:
        """What was committed."""
        return self.committed if self.in_transaction else self.serialize()

    @override
    def close(self) -> None:
        if self.states.connection is self:
            self.states.image = self.image
            self.states.connection = None
        super().close()


class _Reader(sqlite3.Connection):
    """Another connection: between its transactions it comes to see what was committed meanwhile."""

    states: SimStates
    seen: bytes = b""

    @override
    def execute(self, *statement: Any) -> sqlite3.Cursor:
        if not self.in_transaction and self.states.connection is not None:
            image = self.states.connection.image
            if image != self.seen:
                self.deserialize(image)
                self.seen = image
        return super().execute(*statement)


class SimStates:
    """Implements ``port.StateFiles`` for one node across its lives."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self.connection: _Kept | None = None
        self.image: bytes | None = None
        self._checkpoint: bytes | None = None
        self._since: list[bytes] = []
        self._copy: bytes = b""
        self._incoming = bytearray()
        self.installs = 0

    # -- what may go wrong -------------------------------------------------------------------------------------------
    def remember(self) -> None:
        """A moment to which a power cut may roll back."""
        if self.connection is not None and len(self._since) < 8:
            self._since.append(self.connection.image)

    def fill(self) -> None:
        """The running process finds no room for another page."""
        assert self.connection is not None
        self.connection.execute("PRAGMA max_page_count = 1").fetchall()  # SQLite keeps to what there is already

    def power_cut(self) -> None:
        current = self.connection.image if self.connection is not None else self.image
        choices: list[bytes | None] = [self._checkpoint, *self._since, current]
        self._drop()
        self.image = self._dice.choice(choices)
        self._checkpoint = self.image
        self._since = []

    def kill(self) -> None:
        """The process is gone; its pages are the kernel's."""
        if self.connection is not None:
            self.image = self.connection.image
            self._drop()

    def _drop(self) -> None:
        """Let the connection go without a word to anybody."""
        if self.connection is not None:
            connection, self.connection = self.connection, None
            connection.close()

    # -- port.StateFiles ---------------------------------------------------------------------------------------------
    def exists(self) -> bool:
        return self.image is not None or self.connection is not None

    def open(self) -> sqlite3.Connection:
        assert self.connection is None, "one connection writes"
        connection = sqlite3.connect(":memory:", isolation_level=None, factory=_Kept, check_same_thread=False)
        connection.states = self
        if self.image:
            connection.deserialize(self.image)
        self.connection = connection
        return connection

    def open_reader(self) -> sqlite3.Connection:
        reader = sqlite3.connect(":memory:", isolation_level=None, factory=_Reader, check_same_thread=False)
        reader.states = self
        return reader

    def checkpoint(self) -> int | None:
        if self.connection is None:
            return None
        self._checkpoint = self.connection.image
        self._since = []
        return _describe(self._checkpoint).index

    def copy(self) -> Snapshot:
        assert self.connection is not None
        self._copy = self.connection.image
        return _describe(self._copy)

    def read(self, snapshot: Snapshot, offset: int, size_bytes: int) -> bytes:
        if snapshot.sha256 != hashlib.sha256(self._copy).hexdigest():
            raise FileNotFoundError(snapshot.name)
        return self._copy[offset : offset + min(size_bytes, 20_000)]

    def receive(self, offset: int, data: bytes) -> None:
        if offset == 0:
            self._incoming = bytearray()
        assert offset == len(self._incoming)
        self._incoming += data

    def forget_incoming(self) -> None:
        self._incoming = bytearray()

    def install(self, snapshot: Snapshot) -> None:
        assert self.connection is None, "no connection may be open"
        if hashlib.sha256(self._incoming).hexdigest() != snapshot.sha256:
            raise Damaged("the copy is not what it should be")
        self.image = bytes(self._incoming)
        self._checkpoint, self._since = self.image, []
        self.installs += 1


def _describe(image: bytes) -> Snapshot:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.deserialize(image)
        position = Machine(connection).position
    digest = hashlib.sha256(image).hexdigest()
    return Snapshot(f"s{position.index}", position.index, position.term, position.sequence, len(image), digest)
