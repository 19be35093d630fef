"""The state's SQLite files in a node's directory: opened, checkpointed, copied for others, replaced by a copy.

``state.db`` with its ``-wal`` and ``-shm`` is the state. ``state-<index>-<term>.copy`` is the newest copy made for
followers. What ends in ``.unfinished`` is being made or received, and means nothing after a restart.

Invariants:

* A crash at any point leaves the old or the new state openable, each with its own write-ahead log or with none. So a state
  is made whole without its log, durably, before another takes its name: a log beside the wrong file would be replayed
  into it.
* A checkpoint counts only when nobody held it back, and then for what was in the state before it began.
* A file that cannot be read as a state is refused and left as it is; nothing is ever created in its place.
* Copies carry their own position. They are checked where they are made and again where they are installed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from quorl.cluster.consensus import truncation
from quorl.cluster.consensus.damage import damaged, is_damage
from quorl.cluster.consensus.disk import UNFINISHED
from quorl.cluster.consensus.port import Damaged, OtherFormat, Snapshot
from quorl.cluster.machine import schema
from quorl.cluster.machine.machine import Machine

STATE_NAME = "state.db"
WAL_BYTES_REUSED = 16 * 1024 * 1024
"""A write-ahead log that holds more than this is written from its start again, over what it holds, as soon as nobody reads."""
WAL_BYTES_MAX = 512 * 1024 * 1024
"""One that has grown beyond this is cut instead: new room in a file costs more than room that is used again, but not that much."""
_COPY_NAME = re.compile(r"state-[0-9]+-[0-9]+\.copy")
_PIECE_BYTES = 1024 * 1024
"""Read at a time for a copy's checksum, in a thread that lets the loop have its turn in between."""
_BUSY_MS = 30_000
"""How long a writer waits for a checkpoint that cuts the log; a slow disk should delay it, not stop the node."""
_PAGE_BYTES = 4096
"""SQLite's own choice, which is left to it."""
_WRITER_CACHE_KIB = 16 * 1024
_READER_CACHE_KIB = 2 * 1024
"""SQLite's caches of the connection that writes and of one that reads: what writing touches over and over stays,
reads go past it."""


class SqliteStateFiles:
    """``port.StateFiles`` on a real directory, which belongs to this process."""

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        """Use the directory; it is made when a state is created in it."""
        self._directory = Path(directory)
        self._state = self._directory / STATE_NAME
        self._copying = self._directory / f"state.copying{UNFINISHED}"
        self._incoming = self._directory / f"state.incoming{UNFINISHED}"

    # -- connections --------------------------------------------------------------------------------------------
    def exists(self) -> bool:
        """Whether there is a state at all, sound or not; a file in which nothing was ever written is none."""
        if not self._state.exists():
            return False
        if self._wrong() is not None:
            return True  # something is there, and it is for ``open`` to refuse it; here nothing may change it
        with contextlib.closing(self._connect(self._state)) as connection:
            try:
                return not schema.is_empty(connection)
            except sqlite3.DatabaseError:
                return True  # something is there, and it is for ``open`` to refuse it

    def open(self) -> sqlite3.Connection:
        """The one connection that writes. Raises ``Damaged`` if there is a file that is no state."""
        self._directory.mkdir(parents=True, exist_ok=True)
        born = not self._state.exists()
        if not born and (wrong := self._wrong()) is not None:
            raise damaged(STATE_NAME, *wrong)
        self._remove_copies(keep=None)
        connection = self._connect(self._state, may_create=born)
        try:
            if born:
                _sync_directory(self._directory)
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            connection.execute("PRAGMA synchronous = NORMAL")  # with OFF a checkpoint would sync nothing
            connection.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
            connection.execute(f"PRAGMA cache_size = -{_WRITER_CACHE_KIB}")
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA schema_version").fetchall()
            if not schema.is_empty(connection):
                schema.recognise(connection)
        except BaseException as error:
            connection.close()
            if is_damage(error):
                raise damaged(STATE_NAME, None, f"not readable as a state ({error})") from error
            if isinstance(error, schema.OtherVersion):
                raise OtherFormat(f"{self._state}: {error}") from error
            if isinstance(error, schema.StateError):
                raise Damaged(f"{self._state}: {error}") from error
            raise
        return connection

    def open_reader(self) -> sqlite3.Connection:
        """Another connection, read only, usable from any one thread at a time."""
        connection = self._connect(self._state)
        connection.execute("PRAGMA query_only = ON")
        connection.execute(f"PRAGMA cache_size = -{_READER_CACHE_KIB}")
        return connection

    # -- durability ---------------------------------------------------------------------------------------------
    def checkpoint(self) -> int | None:
        """Make the database file itself durable; the Raft index that it then surely contains, None if readers held it."""
        with contextlib.closing(self._connect(self._state)) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            index = _position(connection)[0]
            held, frames = _checkpoint(connection, "PASSIVE")
            too_large = self._wal_bytes() > WAL_BYTES_MAX
            if too_large or frames * _PAGE_BYTES > WAL_BYTES_REUSED:
                # The first pass did the work beside the writer, the second what came meanwhile, so that the one which
                # keeps the writer waiting has next to nothing left. It gives up at once if anybody reads or writes.
                _checkpoint(connection, "PASSIVE")
                connection.execute("PRAGMA busy_timeout = 0").fetchall()
                held = _checkpoint(connection, "TRUNCATE" if too_large else "RESTART")[0] and held
        return None if held else index

    # -- copies for others --------------------------------------------------------------------------------------
    def copy(self) -> Snapshot:
        """Make a consistent, checked, durable copy while the state goes on being written."""
        try:
            with contextlib.closing(self._connect(self._state)) as source:
                source.execute("BEGIN")
                _position(source)  # a transaction begins to hold its moment with the first read
                _back_up(source, self._copying)
            index, term, sequence = _examine(self._copying)
            size_bytes, sha256 = self._copying.stat().st_size, _sha256(self._copying)
            _sync_file(self._copying)
            name = f"state-{index}-{term}.copy"
            self._copying.rename(self._directory / name)
        except BaseException:
            self._copying.unlink(missing_ok=True)
            raise
        _sync_directory(self._directory)
        self._remove_copies(keep=name)
        return Snapshot(name, index, term, sequence, size_bytes, sha256)

    def read(self, snapshot: Snapshot, offset: int, size_bytes: int) -> bytes:
        """A piece of a copy; empty at its end. ``FileNotFoundError`` once a newer one has replaced it."""
        if not _COPY_NAME.fullmatch(snapshot.name):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), snapshot.name)
        with (self._directory / snapshot.name).open("rb") as file:
            file.seek(offset)
            return file.read(size_bytes)

    # -- a copy from elsewhere ----------------------------------------------------------------------------------
    def receive(self, offset: int, data: bytes) -> None:
        """Write a piece of an incoming copy; offset 0 begins anew."""
        with self._incoming.open("wb" if offset == 0 else "ab") as file:
            if file.tell() != offset:
                raise Damaged(f"A piece of a copy begins at byte {offset}, and {file.tell()} bytes are here.")
            file.write(data)

    def forget_incoming(self) -> None:
        """Give back the room of an incoming copy that will not be installed."""
        self._incoming.unlink(missing_ok=True)

    def install(self, snapshot: Snapshot) -> None:
        """Check the received copy and put it durably in the state's place; no connection may be open.

        After ``Damaged`` the state is untouched; after ``OSError`` it is the old or the new one, whole.
        """
        if not self._incoming.exists():
            raise Damaged("No copy was received.")
        if self._incoming.stat().st_size != snapshot.size_bytes or _sha256(self._incoming) != snapshot.sha256:
            raise Damaged("The copy that was received is not, byte for byte, the one that was sent.")
        found = _examine(self._incoming)
        if found != (snapshot.index, snapshot.term, snapshot.sequence):
            raise Damaged(f"The copy that was received stands at {found}, not where it was said to stand.")
        _sync_file(self._incoming)
        self._detach_wal()
        self._incoming.rename(self._state)
        _sync_directory(self._directory)

    def _detach_wal(self) -> None:
        """Make the old state whole without its write-ahead log, and remove that."""
        if self._state.exists():
            try:
                with contextlib.closing(self._connect(self._state)) as connection:
                    connection.execute("PRAGMA busy_timeout = 0").fetchall()
                    connection.execute("PRAGMA synchronous = FULL")
                    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise OSError(errno.EBUSY, f"the old state cannot be closed ({error})", STATE_NAME) from error
                # It was unreadable before, with its log or without: there is nothing to preserve.
        for suffix in ("-wal", "-shm"):
            Path(f"{self._state}{suffix}").unlink(missing_ok=True)
        _sync_directory(self._directory)

    # -- helpers ------------------------------------------------------------------------------------------------
    def _connect(self, path: Path, *, may_create: bool = False) -> sqlite3.Connection:
        return sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'rwc' if may_create else 'rw'}",
            uri=True,
            isolation_level=None,
            cached_statements=512,
            check_same_thread=False,
            timeout=_BUSY_MS / 1000,
        )

    def _wal_bytes(self) -> int:
        try:
            return Path(f"{self._state}-wal").stat().st_size
        except FileNotFoundError:
            return 0

    def _wrong(self) -> tuple[int, str] | None:
        """See ``truncation``: what SQLite would take for an empty database, or for a shorter one than it was."""
        try:
            return truncation.what_is_wrong(self._state, Path(f"{self._state}-wal"))
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            return 0, f"not readable as a state ({error})"

    def _remove_copies(self, keep: str | None) -> None:
        for path in sorted(self._directory.glob("state-*.copy")):
            if path.name != keep:
                path.unlink(missing_ok=True)


def _position(connection: sqlite3.Connection) -> tuple[int, int, int]:
    """Raft index, Raft term and sequence of a state."""
    index, term, sequence = connection.execute("SELECT raft_index, raft_term, sequence FROM machine").fetchone()
    return int(index), int(term), int(sequence)


def _checkpoint(connection: sqlite3.Connection, mode: str) -> tuple[bool, int]:
    """Run a checkpoint; whether anybody held it back, and the pages that the write-ahead log holds."""
    busy, frames, done = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    return bool(busy) or frames != done, frames


def _back_up(source: sqlite3.Connection, path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as target:
        target.execute("PRAGMA journal_mode = OFF").fetchall()
        target.execute("PRAGMA synchronous = OFF")  # it is synced as a whole, once it has been checked
        source.backup(target, pages=-1)


def _examine(path: Path) -> tuple[int, int, int]:
    """Check a copy by all means there are; where it stands. Raises ``Damaged``."""
    # Immutable: SQLite must not look for a log beside the copy, nor make one.
    target = f"{path.absolute().as_uri()}?immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(target, uri=True, isolation_level=None)) as connection:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise Damaged(f"The copy of the state is damaged: {verdict}.")
            if schema.is_empty(connection):
                raise Damaged("The copy of the state is empty.")
            position = Machine(connection).position
    except sqlite3.DatabaseError as error:
        if not is_damage(error):
            raise OSError(errno.EIO, f"the copy of the state cannot be read ({error})", path.name) from error
        raise Damaged(f"The copy of the state is not readable: {error}") from error
    except schema.StateError as error:
        raise Damaged(f"The copy of the state is not readable: {error}") from error
    return position.index, position.term, position.sequence


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            yield piece


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for piece in _pieces(path):
        digest.update(piece)
    return digest.hexdigest()


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
