"""A state whose file was cut short: noticed at the start, left as it is, and told apart from what any kill leaves. D5."""

from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from quorl.cluster.consensus import truncation
from quorl.cluster.consensus.port import Damaged
from quorl.cluster.consensus.statefile import SqliteStateFiles
from tests.consensus.test_statefile import Node

PAGE_BYTES = 4096


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Its file and its write-ahead log both hold what the other has not, and the log begins anew behind an older one."""
    node = Node(tmp_path / "node")
    node.write(100, 3000)
    assert node.states.checkpoint() is not None
    node.write(50, 3000)
    return node


def killed(node: Node, cut_to_bytes: int | None = None) -> Path:
    """The files that a process finds after this one was killed, the state's perhaps shorter since."""
    directory = node.directory.with_name("killed")
    shutil.copytree(node.directory, directory)
    (directory / "state.db-shm").unlink()
    if cut_to_bytes is not None:
        os.truncate(directory / "state.db", cut_to_bytes)
    return directory


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix != ".db-shm"}


def refused(directory: Path, why: str) -> None:
    """Whoever is asked first, it is refused with advice, again and again, and nothing is written."""
    before = files(directory)
    states = SqliteStateFiles(directory)
    for _ in range(2):
        assert states.exists()
        with pytest.raises(Damaged, match=rf"state\.db, byte {why}.*move this node's whole data directory away"):
            states.open()
    assert files(directory) == before


@pytest.mark.parametrize("part", [0, 0.5, 0.9])
def test_d5_a_file_that_was_cut_beside_its_write_ahead_log_is_refused(node: Node, part: float) -> None:
    size_bytes = int(part * (node.directory / "state.db").stat().st_size)
    refused(killed(node, size_bytes), f"{size_bytes}: the file is shorter than it says")


def test_d5_a_file_that_lacks_what_a_look_needs_is_told_to_be_shorter_all_the_same(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which page a look stumbles over depends on what the log happens to hold."""
    directory = killed(node, (node.directory / "state.db").stat().st_size // 2)
    size_bytes = (directory / "state.db").stat().st_size
    monkeypatch.setattr(truncation, "_LOOK", "SELECT sum(length(body)) FROM batches")
    refused(directory, f"{size_bytes}: the file is shorter than it says")
    monkeypatch.setattr(truncation, "_LOOK", "no statement")
    with pytest.raises(sqlite3.OperationalError):
        SqliteStateFiles(directory).open()


def test_d5_a_file_that_was_cut_to_less_than_what_says_how_to_read_it_is_refused(node: Node) -> None:
    refused(killed(node, PAGE_BYTES + 100), "0: not readable as a state")


def test_d5_a_file_that_was_cut_beside_a_log_that_holds_nothing_sound_is_refused(node: Node) -> None:
    directory = killed(node, 40 * PAGE_BYTES)
    log = directory / "state.db-wal"
    log.write_bytes(b"rubbish" * 1000)
    refused(directory, "0: not readable as a state")


@pytest.mark.parametrize("page_bytes", [0, 256])
def test_d5_a_file_whose_pages_have_no_size_is_refused(node: Node, page_bytes: int) -> None:
    directory = killed(node)
    content = bytearray((directory / "state.db").read_bytes())
    content[16:18] = page_bytes.to_bytes(2, "big")
    (directory / "state.db").write_bytes(content)
    refused(directory, "16: not an SQLite database")


@pytest.mark.parametrize("offset", range(32))
def test_d5_whatever_the_head_of_a_file_says_nothing_but_a_refusal_comes_of_it(node: Node, offset: int) -> None:
    content = (node.directory / "state.db").read_bytes()
    for bits in (0x01, 0x80, 0xFF, content[offset]):
        directory = killed(node)
        with (directory / "state.db").open("r+b") as file:
            file.seek(offset)
            file.write(bytes((content[offset] ^ bits,)))
        states = SqliteStateFiles(directory)
        assert states.exists()
        try:
            states.open().close()
        except Damaged:
            pass
        shutil.rmtree(directory)


def test_d5_what_any_kill_leaves_is_no_damage_and_costs_no_look_through_everything(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truncation, "_LOOK", "no statement")
    directory = killed(node)
    (pages,) = node.connection.execute("PRAGMA page_count").fetchone()
    assert (directory / "state.db").stat().st_size < pages * PAGE_BYTES
    again = Node(directory)
    assert again.digest() == node.digest()
    assert again.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_d5_a_file_whose_missing_pages_all_stand_in_the_log_is_whole(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.write(100, 3000)
    assert node.states.checkpoint() is not None  # what the log holds was taken over, and still is there
    again = Node(killed(node, 40 * PAGE_BYTES))
    assert again.digest() == node.digest()


def test_d5_a_new_state_of_which_the_log_has_everything_is_whole(tmp_path: Path) -> None:
    node = Node(tmp_path / "node")
    node.write(100, 3000)
    assert (node.directory / "state.db").stat().st_size == PAGE_BYTES
    assert Node(killed(node)).digest() == node.digest()


def test_d5_pages_that_hold_nothing_are_not_missed(node: Node) -> None:
    node.connection.execute("CREATE TABLE large (x)")
    node.connection.execute("INSERT INTO large VALUES (zeroblob(400000))")
    node.connection.execute("DROP TABLE large")  # what is behind the rest now is free
    assert node.states.checkpoint() is not None
    node.write()  # in a log that begins anew
    size_bytes = (node.directory / "state.db").stat().st_size
    again = Node(killed(node, size_bytes - 10 * PAGE_BYTES))
    assert again.digest() == node.digest()
    again.write(100, 3000)
    assert again.connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_d5_the_page_that_is_never_used_is_not_missed(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = killed(node)
    size_bytes = (directory / "state.db").stat().st_size
    lacking = set(truncation._pages_of(directory / "state.db-wal", PAGE_BYTES)) - {size_bytes // PAGE_BYTES + 1}
    monkeypatch.setattr(truncation, "_pages_of", lambda *_: lacking)
    monkeypatch.setattr(truncation, "_LOOK", "SELECT 'was looked for'")
    assert SqliteStateFiles(directory).exists()
    with pytest.raises(Damaged):
        SqliteStateFiles(directory).open()
    monkeypatch.setattr(truncation, "_LOCK_BYTE", size_bytes)
    assert Node(directory).digest() == node.digest()
