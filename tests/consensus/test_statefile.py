"""The state's files on a real disk: what is durable, what is refused, and what a crash leaves behind."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from quorl.cluster.consensus import statefile
from quorl.cluster.consensus.port import Damaged, Snapshot, StateFiles
from quorl.cluster.consensus.statefile import SqliteStateFiles
from quorl.cluster.machine import schema
from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.machine import Machine, Position, StateError
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Entry, Sealed, encode_command, encode_entry


class Node:
    """A state on disk, with a machine that writes it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.states = SqliteStateFiles(directory)
        self.open()

    def open(self) -> None:
        self.connection = self.states.open()
        self.machine = Machine(self.connection)

    def write(self, entries: int = 1, size: int = 10) -> None:
        value = msgspec.Raw(b'"' + b"x" * size + b'"')
        commands = t.CreateTopic(name="t"), t.Append(topic="t", messages=[t.Message(value=value)])
        sealed = tuple(Sealed(None, b"", encode_command(command)) for command in commands)
        for _ in range(entries):
            index = self.machine.position.index + 3
            self.machine.apply(index, 2, encode_entry(Entry(index, index, sealed)))

    def digest(self) -> str:
        return content_digest(self.connection)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    node = Node(tmp_path / "node")
    node.write(5)
    return node


@pytest.fixture
def other(tmp_path: Path) -> Node:
    """A node that is behind and takes over a copy."""
    other = Node(tmp_path / "other")
    other.write(1)
    return other


def send(node: Node, other: Node, piece_bytes: int = 5000) -> Snapshot:
    snapshot = node.states.copy()
    offset = 0
    while piece := node.states.read(snapshot, offset, piece_bytes):
        other.states.receive(offset, piece)
        offset += len(piece)
    return snapshot


def crashed(node: Node, into: Path) -> Node:
    """The same files as a process finds them that starts after this one was killed."""
    shutil.copytree(node.directory, into)
    (into / "state.db-shm").unlink(missing_ok=True)
    return Node(into)


# -- opening ------------------------------------------------------------------------------------------------------
def test_a_new_directory_has_no_state_until_one_was_written(tmp_path: Path) -> None:
    states: StateFiles = SqliteStateFiles(tmp_path / "deep" / "down")
    assert not states.exists()
    connection = states.open()
    assert not states.exists()  # a file, but nothing in it
    connection.close()
    connection = states.open()
    Machine(connection)
    assert states.exists()
    settings = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert settings == ["wal", 1]
    assert connection.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
    assert connection.isolation_level is None
    connection.close()


def test_the_name_of_a_new_state_is_durable_before_anything_depends_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[Path, bool]] = []
    monkeypatch.setattr(statefile, "_sync_directory", lambda path: synced.append((path, (path / "state.db").exists())))
    SqliteStateFiles(tmp_path).open().close()
    SqliteStateFiles(tmp_path).open().close()
    assert synced == [(tmp_path, True)]


def test_a11_what_was_applied_is_there_after_a_kill(node: Node, tmp_path: Path) -> None:
    again = crashed(node, tmp_path / "again")
    assert again.machine.position == Position(5, 15, 2)
    assert again.digest() == node.digest()


def test_a_reader_reads_and_cannot_write(node: Node) -> None:
    reader = node.states.open_reader()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(reader.execute("SELECT sequence FROM machine").fetchone()))
    thread.start()
    thread.join()
    assert found == [(5,)]
    with pytest.raises(sqlite3.OperationalError):
        reader.execute("DELETE FROM machine")


def spoil(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is a letter to my aunt, not a database\n" * 200),
        lambda path: path.write_bytes(bytes(8192)),
        lambda path: path.write_bytes(b"SQLite format 3\0"),
        lambda path: path.write_bytes(path.read_bytes()[:-4096]),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        lambda path: spoil(path, 100, b"\xff" * 3000),
        lambda path: spoil(path, 16, b"\x00\x03"),
    ],
)
def test_a_damaged_file_is_refused_with_advice_and_left_as_it_is(node: Node, damage: Callable[[Path], None]) -> None:
    node.connection.close()
    path = node.directory / "state.db"
    damage(path)
    content = path.read_bytes()
    assert node.states.exists()
    with pytest.raises(Damaged, match="start it again"):
        node.states.open()
    assert path.read_bytes() == content


@pytest.mark.parametrize("statement", ["DELETE FROM machine", "UPDATE machine SET version = 99", "DROP TABLE topics"])
def test_a_state_that_this_code_does_not_know_is_refused(node: Node, statement: str) -> None:
    node.connection.execute(statement)
    with pytest.raises(Damaged, match=r"state\.db"):
        node.states.open()


def test_a_missing_file_is_not_made_by_anything_but_open(tmp_path: Path) -> None:
    states = SqliteStateFiles(tmp_path)
    for call in (states.checkpoint, states.copy, states.open_reader):
        with pytest.raises(sqlite3.OperationalError):
            call()
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_is_no_damage_comes_out_as_it_is(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> bool:
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(schema, "is_empty", broken)
    with pytest.raises(sqlite3.OperationalError, match="disk I/O"):
        node.states.open()


# -- checkpoints --------------------------------------------------------------------------------------------------
def test_a_checkpoint_says_what_the_file_alone_contains(node: Node, tmp_path: Path) -> None:
    index = node.states.checkpoint()
    assert index == node.machine.position.index == 15
    node.write()
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(node.directory / "state.db", alone / "state.db")  # a power cut took the log
    assert Node(alone).machine.position.index == index


def test_a_reader_holds_a_checkpoint_back(node: Node) -> None:
    reader = node.states.open_reader()
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM machine").fetchall()
    node.write()
    assert node.states.checkpoint() is None
    reader.execute("COMMIT")
    assert node.states.checkpoint() == 18


def test_the_machine_itself_never_holds_a_checkpoint_back(node: Node) -> None:
    node.machine.reload()
    node.machine.query(t.GetTopic(topic="t"))
    node.write()
    node.machine.query(t.Browse(topic="t", limit=1))
    assert node.states.checkpoint() == 18


def test_the_write_ahead_log_is_cut_when_it_is_large_and_nobody_reads(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = node.directory / "state.db-wal"
    monkeypatch.setattr(statefile, "WAL_BYTES_MAX", 200_000)
    node.write(10, 50_000)
    assert wal.stat().st_size > 200_000
    reader = node.states.open_reader()
    reader.execute("BEGIN")
    reader.execute("SELECT * FROM machine").fetchall()
    assert node.states.checkpoint() == node.machine.position.index  # it reads what is newest, so it holds back nothing
    assert wal.stat().st_size > 200_000
    node.write()
    assert node.states.checkpoint() is None
    reader.close()
    assert node.states.checkpoint() == node.machine.position.index
    assert wal.stat().st_size == 0
    node.write()
    assert node.states.checkpoint() == node.machine.position.index


def test_the_room_of_a_write_ahead_log_is_used_again_when_nobody_reads(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    wal = node.directory / "state.db-wal"
    monkeypatch.setattr(statefile, "WAL_BYTES_REUSED", 200_000)
    node.write(10, 50_000)
    assert node.states.checkpoint() == node.machine.position.index
    size_bytes = wal.stat().st_size
    for _ in range(3):
        node.write(10, 50_000)
        assert node.states.checkpoint() == node.machine.position.index
    assert wal.stat().st_size < 1.5 * size_bytes
    assert Node(node.directory).digest() == node.digest()


def test_checkpoints_beside_a_busy_writer(node: Node) -> None:
    stop = threading.Event()
    seen: list[int | None] = []

    def checkpoints() -> None:
        while not stop.is_set():
            seen.append(node.states.checkpoint())

    thread = threading.Thread(target=checkpoints)
    thread.start()
    try:
        node.write(200, 2000)
    finally:
        stop.set()
        thread.join()
    indexes = [index for index in seen if index is not None]
    assert indexes == sorted(indexes)
    assert node.states.checkpoint() == node.machine.position.index


# -- copies -------------------------------------------------------------------------------------------------------
def test_a_copy_is_a_whole_state_and_says_where_it_stands(node: Node, tmp_path: Path) -> None:
    snapshot = node.states.copy()
    assert (snapshot.index, snapshot.term, snapshot.sequence) == (15, 2, 5)
    copied = tmp_path / "copied"
    copied.mkdir()
    shutil.copy(node.directory / snapshot.name, copied / "state.db")
    assert Node(copied).digest() == node.digest()
    names = sorted(path.name for path in node.directory.iterdir())
    assert names == [snapshot.name, "state.db", "state.db-shm", "state.db-wal"]


def test_a_copy_is_made_of_one_moment_while_the_state_is_written(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    real = statefile._back_up

    def meanwhile(source: sqlite3.Connection, path: Path) -> None:
        node.write(3)
        real(source, path)

    monkeypatch.setattr(statefile, "_back_up", meanwhile)
    assert node.states.copy().sequence == 5
    assert node.machine.position.sequence == 8


def test_only_the_newest_copy_is_kept(node: Node) -> None:
    first = node.states.copy()
    node.write()
    second = node.states.copy()
    assert [path.name for path in node.directory.glob("*.copy")] == [second.name]
    with pytest.raises(FileNotFoundError):
        node.states.read(first, 0, 10)
    assert node.states.read(second, second.size_bytes, 10) == b""
    node.connection.close()
    node.open()
    assert list(node.directory.glob("*.copy")) == []


def test_nothing_but_copies_can_be_read(node: Node) -> None:
    for name in ("state.db", "../node/state.db", "state-1-1.copy/..", ""):
        with pytest.raises(FileNotFoundError):
            node.states.read(Snapshot(name, 1, 1, 1, 1, ""), 0, 10)


def test_a_copy_that_cannot_be_finished_leaves_nothing(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statefile, "_sync_file", fail)
    with pytest.raises(OSError, match="power"):
        node.states.copy()
    assert sorted(path.name for path in node.directory.iterdir()) == ["state.db", "state.db-shm", "state.db-wal"]


# -- installing ---------------------------------------------------------------------------------------------------
def fail(*_: object) -> None:
    raise OSError("power cut")


def test_an_installed_copy_takes_the_place_of_the_state(node: Node, other: Node) -> None:
    snapshot = send(node, other)
    other.connection.close()
    other.states.install(snapshot)
    assert [path.name for path in other.directory.iterdir()] == ["state.db"]
    other.open()
    assert other.machine.position == node.machine.position
    assert other.digest() == node.digest()
    other.write()
    assert other.states.checkpoint() == 18


def test_a_copy_is_installed_where_there_was_no_state(node: Node, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    states = SqliteStateFiles(empty)
    snapshot = node.states.copy()
    states.receive(0, node.states.read(snapshot, 0, snapshot.size_bytes))
    states.install(snapshot)
    assert Machine(states.open()).digest == node.machine.digest


def test_a_copy_replaces_a_state_that_is_damaged(node: Node, other: Node) -> None:
    snapshot = send(node, other)
    other.connection.close()
    (other.directory / "state.db").write_bytes(b"rubbish" * 1000)
    (other.directory / "state.db-wal").write_bytes(b"rubbish" * 1000)
    other.states.install(snapshot)
    other.open()
    assert other.digest() == node.digest()


def test_a_state_that_is_still_open_is_not_replaced(node: Node, other: Node) -> None:
    snapshot = send(node, other)
    before = other.digest()
    with pytest.raises(OSError, match="cannot be closed"):
        other.states.install(snapshot)
    assert other.digest() == before
    other.connection.close()
    other.states.install(snapshot)


def test_pieces_that_do_not_fit_together_are_refused(other: Node) -> None:
    with pytest.raises(Damaged, match="byte 7"):
        other.states.receive(7, b"x")
    other.states.receive(0, b"abc")
    with pytest.raises(Damaged):
        other.states.receive(2, b"c")
    other.states.receive(3, b"d")
    other.states.receive(0, b"anew")
    assert (other.directory / "state.incoming.unfinished").read_bytes() == b"anew"


def test_a_copy_that_is_not_what_it_should_be_is_refused_and_changes_nothing(node: Node, other: Node) -> None:
    before = other.digest()
    with pytest.raises(Damaged, match="No copy"):
        other.states.install(node.states.copy())
    good = send(node, other)
    other.connection.close()
    for bad in (
        good._replace(size_bytes=good.size_bytes - 1),
        good._replace(sha256="0" * 64),
        good._replace(index=good.index + 1),
        good._replace(term=3),
        good._replace(sequence=4),
    ):
        with pytest.raises(Damaged):
            other.states.install(bad)
    other.open()
    assert other.digest() == before


@pytest.mark.parametrize("kind", ["rubbish", "empty", "broken page", "foreign", "cut"])
def test_a_copy_that_arrived_as_sent_but_is_no_sound_state_is_refused(other: Node, node: Node, kind: str) -> None:
    snapshot = send(node, other)
    path = other.directory / "state.incoming.unfinished"
    if kind == "rubbish":
        path.write_bytes(b"rubbish" * 1000)
    elif kind == "broken page":
        spoil(path, 4096 * 3, b"\xff" * 2000)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:-4096])
    else:
        path.unlink()
        connection = sqlite3.connect(path)
        connection.execute("CREATE TABLE theirs (x)" if kind == "foreign" else "PRAGMA user_version = 1")
        connection.close()
    snapshot = snapshot._replace(size_bytes=path.stat().st_size, sha256=statefile._sha256(path))
    before = other.digest()
    other.connection.close()
    with pytest.raises(Damaged):
        other.states.install(snapshot)
    other.open()
    assert other.digest() == before


class Kill(BaseException):
    """The process is gone at this point."""


def install_until(states: SqliteStateFiles, snapshot: Snapshot, monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Install up to the ``at``-th call that changes the disk, and die there; the calls that were made."""
    calls: list[str] = []

    def counted(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if len(calls) == at:
                raise Kill
            calls.append(name)
            return real(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(statefile, "_sync_file", counted("sync file", statefile._sync_file))
        patch.setattr(statefile, "_sync_directory", counted("sync directory", statefile._sync_directory))
        patch.setattr(Path, "rename", counted("rename", Path.rename))
        patch.setattr(Path, "unlink", counted("unlink", Path.unlink))
        with contextlib.suppress(Kill):
            states.install(snapshot)
    return calls


def test_a_crash_while_installing_leaves_the_old_or_the_new_state(
    node: Node, other: Node, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert other.states.checkpoint() is not None
    other.write(2)  # a part is in the file, a part in its log only
    old, new = other.digest(), node.digest()
    snapshot = send(node, other)
    found = []
    calls: list[str] = []
    for at in range(8):
        killed = tmp_path / f"killed{at}"
        shutil.copytree(other.directory, killed)
        calls = install_until(SqliteStateFiles(killed), snapshot, monkeypatch, at)
        again = Node(killed)
        found.append(again.digest())
        assert again.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        again.write()
    # The log of the old state is durably gone before the new one takes its name, and that is durable at the end.
    assert calls == ["sync file", "unlink", "unlink", "sync directory", "rename", "sync directory"]
    assert found == [old] * 5 + [new] * 3


def test_a_killed_node_with_a_write_ahead_log_installs_a_copy(node: Node, other: Node, tmp_path: Path) -> None:
    killed = tmp_path / "killed"
    shutil.copytree(other.directory, killed)
    assert (killed / "state.db-wal").stat().st_size > 0
    states = SqliteStateFiles(killed)
    snapshot = node.states.copy()
    states.receive(0, node.states.read(snapshot, 0, snapshot.size_bytes))
    states.install(snapshot)
    connection = states.open()
    assert content_digest(connection) == node.digest()


def test_the_refusal_of_a_newer_state_says_what_to_do(node: Node) -> None:
    node.connection.execute("UPDATE machine SET version = 99")
    with pytest.raises(StateError, match="newer quorl"):
        Machine(node.connection)
    with pytest.raises(Damaged, match="newer quorl"):
        node.states.open()


def test_an_incoming_copy_that_will_not_be_installed_gives_its_room_back(node: Node, other: Node) -> None:
    snapshot = send(node, other)
    assert list(other.directory.glob("*.unfinished"))
    other.states.forget_incoming()
    other.states.forget_incoming()
    assert not list(other.directory.glob("*.unfinished"))
    other.connection.close()
    with pytest.raises(Damaged):
        other.states.install(snapshot)
    other.open()
    assert other.machine.position.sequence == 1
