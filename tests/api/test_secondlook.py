"""What a node advises that has met what SQLite calls damage: it says so of a disk, too, that does not give a page back."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from quorl.cluster.api import secondlook, server
from quorl.cluster.api.secondlook import second_look
from quorl.cluster.consensus.damage import REMEDY
from quorl.cluster.consensus.statefile import STATE_NAME, SqliteStateFiles
from quorl.cluster.machine.machine import Machine
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.entry import Entry, encode_entry
from tests.machine.rig import START_MS, seal


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """That of a node which has stopped itself and whose connection is still open, like its write-ahead log."""
    connection = SqliteStateFiles(tmp_path / "n1").open()
    machine = Machine(connection)
    for index in range(1, 50):
        entry = Entry(index, START_MS, (seal(t.CreateTopic(name=f"{index:0200d}")),))
        machine.apply(index, 1, encode_entry(entry))
    shutil.copytree(tmp_path / "n1", tmp_path / "died")
    machine.close()
    return tmp_path / "died"


def refusing(what: str, at: int) -> Callable[[int, int, int], bytes]:
    """A disk that does not give back a file from there on."""
    pread = os.pread

    def read(descriptor: int, size: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name != what:
            return pread(descriptor, size, offset)
        if offset >= at:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return pread(descriptor, min(size, at - offset), offset)

    return read


@pytest.mark.parametrize("name", [STATE_NAME, f"{STATE_NAME}-wal"])
def test_a_disk_that_does_not_give_the_state_back_is_told_from_damage(
    state: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "pread", refusing(name, 4096))
    advice = second_look(state)
    assert advice is not None
    assert f"({name}, byte 4096: input/output error)" in advice


def test_a_state_that_is_whole_when_it_is_read_again_is_worth_another_start(state: Path) -> None:
    before = {path.name: path.read_bytes() for path in state.iterdir() if not path.name.endswith("-shm")}
    advice = second_look(state)
    assert advice is not None
    assert advice.startswith("Read once more, state.db is whole")
    assert {path.name: path.read_bytes() for path in state.iterdir() if path.name in before} == before


def test_a_damaged_state_is_damaged(state: Path) -> None:
    wal = state / f"{STATE_NAME}-wal"
    SqliteStateFiles(state).checkpoint()
    wal.unlink(missing_ok=True)
    content = (state / STATE_NAME).read_bytes()
    (state / STATE_NAME).write_bytes(content[:8192] + bytes([255]) * (len(content) - 8192))
    assert second_look(state) is None


def test_a_look_that_takes_too_long_says_nothing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secondlook, "LOOK_S", 0.0)
    assert second_look(state) is None
    assert not secondlook._is_whole(state / "nothing", 0.0)


def test_what_the_look_has_found_is_advised_and_the_node_stays_down(capsys: pytest.CaptureFixture[str]) -> None:
    codes = [
        server._died("n1", "why", damaged=damaged, advice=advice)
        for damaged, advice in ((True, "look"), (True, None), (False, None))
    ]
    assert codes == [78, 78, 71]
    told = [line for line in capsys.readouterr().err.splitlines() if line != "n1 stopped itself: why"]
    assert [line for line in told if "node_died" not in line] == ["look", REMEDY, "Nothing acknowledged is lost."]
