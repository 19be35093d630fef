"""The real disk and the fake one keep the same promises."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from quorl.cluster.consensus.disk import LOCK_NAME, SET_ASIDE_MAX, UNFINISHED, RealDisk
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.port import Damaged, Disk
from quorl.cluster.protocol import limits
from tests.simulation.fakedisk import FakeDisk

HOLDER = """
import sys
from quorl.cluster.consensus.disk import RealDisk
RealDisk(sys.argv[1]).lock()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(params=["real", "fake"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    if request.param == "fake":
        yield FakeDisk(Random(1)).boot()
        return
    real = RealDisk(tmp_path)
    real.lock()
    (tmp_path / LOCK_NAME).unlink()  # so that both begin without a name; the lock holds on the open file
    yield real
    real.close()


# -- both ---------------------------------------------------------------------------------------------------------
def test_files_grow_and_are_cut(disk: Disk) -> None:
    file = disk.create("a", b"head")
    file.append(b"more")
    assert file.size == 8
    file.sync()
    file.truncate(6)
    file.append(b"!")
    file.sync()
    file.close()
    assert disk.read("a") == b"headmo!"
    again = disk.open("a")
    assert again.size == 7
    again.append(b"?")
    again.close()
    assert disk.read("a") == b"headmo!?"


def test_room_is_written_over_and_goes_with_a_cut(disk: Disk) -> None:
    file = disk.create("a", b"head")
    file.append(b"more", 6)
    assert (file.size, disk.read("a")) == (8, b"headmore" + bytes(6))
    file.append(b"123456", 100)
    assert (file.size, disk.read("a")) == (14, b"headmore123456"), "it fitted"
    file.append(b"!")
    assert disk.read("a") == b"headmore123456!"
    file.append(b"?", 3)
    file.truncate(file.size)
    assert disk.read("a") == b"headmore123456!?"
    file.append(b"x", 3)
    file.sync()
    file.close()
    assert disk.open("a").size == 20, "who opens it finds the room as a part of it"


def test_names_are_sorted_and_can_go(disk: Disk) -> None:
    for name in ("b", "c", "a"):
        disk.write_atomically(name, name.encode())
    disk.write_atomically("b", b"again")
    disk.remove("c")
    disk.remove("never there")
    assert disk.names() == ["a", "b"]
    assert disk.read("b") == b"again"
    for missing in ("c", "d"):
        with pytest.raises(FileNotFoundError):
            disk.read(missing)
    with pytest.raises(AssertionError, match="exists"):
        disk.create("a", b"")
    assert disk.free_bytes() > 0


def test_what_is_set_aside_serves_the_next_file_as_room(disk: Disk) -> None:
    disk.create("a", b"head").close()
    old = disk.open("a")
    old.append(b"0123456789")
    old.sync()
    old.close()
    disk.set_aside("a")
    assert disk.names() == []
    with pytest.raises(FileNotFoundError):
        disk.read("a")
    file = disk.create("b", b"HEAD")
    assert (file.size, disk.read("b")) == (4, b"HEAD0123456789")
    file.append(b"+++", 100)
    assert disk.read("b") == b"HEAD+++3456789", "it fitted"
    file.truncate(file.size)
    file.sync()
    assert disk.read("b") == b"HEAD+++"
    assert disk.create("c", b"new").size == 3
    assert disk.read("c") == b"new", "there was one, and it is taken"


def test_only_so_much_is_set_aside(disk: Disk) -> None:
    for number in range(SET_ASIDE_MAX + 1):
        disk.create(f"old{number}", b"head and more").close()
    for number in range(SET_ASIDE_MAX + 1):
        disk.set_aside(f"old{number}")
    assert disk.names() == []
    for number in range(SET_ASIDE_MAX + 1):
        disk.create(f"new{number}", b"HEAD").close()
    assert [disk.read(name) for name in disk.names()] == [b"HEAD and more"] * SET_ASIDE_MAX + [b"HEAD"]


def test_a_log_lives_on_either(disk: Disk) -> None:
    log = LogStore(disk, segment_bytes=200)
    log.setCurrentTerm(1, "n1")
    for index in range(2, 30):
        log.add(b"command %d" % index, index, 1)
    log.setRaftCommitIndex(20)
    log.deleteEntriesFrom(25)
    log.trim_to(10)
    before = log[:]
    log.close()
    again = LogStore(disk, segment_bytes=200)
    assert again[:] == before
    assert again.ballot.floor == 20


# -- the real one -------------------------------------------------------------------------------------------------
def test_one_process_per_directory(tmp_path: Path) -> None:
    first = RealDisk(tmp_path)
    first.lock()
    first.lock()
    with pytest.raises(Damaged, match=rf"in use by process {os.getpid()}\."):
        RealDisk(tmp_path).lock()
    first.close()
    second = RealDisk(tmp_path)
    second.lock()
    second.close()


def test_a_file_system_without_locks_is_not_taken_for_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(OSError, match="No locks available"):
        RealDisk(tmp_path).lock()
    monkeypatch.undo()
    disk = RealDisk(tmp_path)
    disk.lock()  # nothing of the try before is held
    disk.close()


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        disk = RealDisk(tmp_path)
        with pytest.raises(Damaged, match=f"process {holder.pid}"):
            disk.lock()
        holder.kill()
        holder.wait()
        disk.lock()
        disk.close()


def test_what_a_crash_left_unfinished_is_no_file(tmp_path: Path) -> None:
    (tmp_path / ("ballot" + UNFINISHED)).write_bytes(b"half")
    disk = RealDisk(tmp_path)
    assert disk.names() == []
    disk.lock()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    disk.close()


def test_what_was_set_aside_goes_with_its_process(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    disk.lock()
    disk.create("a", b"head").close()
    disk.set_aside("a")
    disk.set_aside("a")  # an operator may have removed it
    assert [path.name for path in tmp_path.iterdir() if path.name != LOCK_NAME] == ["a" + UNFINISHED]
    disk.close()
    disk.lock()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    disk.close()


def test_nothing_is_set_aside_where_room_is_scarce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk(tmp_path)
    disk.create("a", b"head").close()
    monkeypatch.setattr(limits, "DISK_SPARE_BYTES", disk.free_bytes())
    disk.set_aside("a")
    assert list(tmp_path.iterdir()) == []


def test_what_was_set_aside_is_no_file_before_its_new_head_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk(tmp_path)
    disk.create("a", b"head").close()
    disk.set_aside("a")
    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(OSError, match="Input/output"):
        disk.create("b", b"HEAD")
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk(tmp_path)
    pwrite, write = os.pwrite, os.write
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, bytes(data)[:3], offset))
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[:3]))
    file = disk.create("a", b"a long head")
    file.append(b"a long tail")
    file.close()
    assert disk.read("a") == b"a long heada long tail"


def failing_pwrite(error: int | None) -> Callable[[int, bytes, int], int]:
    """A pwrite that manages three bytes and then fails, or says that it wrote nothing."""
    real = os.pwrite
    calls: list[int] = []

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        calls.append(offset)
        if len(calls) == 1:
            return real(fd, bytes(data)[:3], offset)
        if error is None:
            return 0
        raise OSError(error, os.strerror(error))

    return pwrite


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, None])
def test_a_write_that_fails_halfway_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    disk = RealDisk(tmp_path)
    file = disk.create("a", b"head")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing_pwrite(error))
        with pytest.raises(OSError):
            file.append(b"much too long")
    assert (file.size, disk.read("a")) == (4, b"head")
    file.append(b"!")
    file.sync()
    file.close()
    assert disk.read("a") == b"head!"


def test_room_that_cannot_be_made_brings_nothing_of_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    real = os.pwrite

    def pwrite(fd: int, data: bytes, offset: int) -> int:
        written.append(bytes(data))
        if len(written) == 1:
            return real(fd, bytes(data)[:-1], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk = RealDisk(tmp_path)
    file = disk.create("a", b"head")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(OSError):
            file.append(b"more", 2)
    assert written == [bytes(6), bytes(1)], "data that is whole on the disk may come back, whatever was answered"
    assert (file.size, disk.read("a")) == (4, b"head")


def test_the_last_of_the_disk_is_kept_from_the_log_and_its_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk(tmp_path)
    file = disk.create("a", b"head")
    monkeypatch.setattr(limits, "DISK_SPARE_BYTES", disk.free_bytes() - 100_000)
    with pytest.raises(OSError, match="No space"):
        file.append(b"x", 200_000)
    file.append(b"x", 10)
    monkeypatch.setattr(limits, "DISK_SPARE_BYTES", 1 << 60)
    file.append(b"y")  # into room that is there
    with pytest.raises(OSError, match="No space"):
        file.append(b"too much for it")
    assert disk.read("a") == b"headxy" + bytes(9)


def test_the_last_of_the_disk_is_kept_from_what_was_set_aside_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk(tmp_path)
    old = disk.create("a", b"head")
    old.append(bytes(10_000))
    old.close()
    disk.set_aside("a")
    file = disk.create("b", b"HEAD")
    with monkeypatch.context() as patch:
        patch.setattr(limits, "DISK_SPARE_BYTES", 1 << 60)
        with pytest.raises(OSError, match="No space"):
            file.append(b"x", 100)
        assert file.size == 4
    file.append(b"x", 100)
    monkeypatch.setattr(limits, "DISK_SPARE_BYTES", 1 << 60)
    file.append(b"y" * 100, 100)  # the state has its room for that much
    with pytest.raises(OSError, match="No space"):
        file.append(b"z", 100)
    assert disk.read("b")[:106] == b"HEADx" + b"y" * 100 + b"\0"


def test_what_was_set_aside_is_given_back_to_whoever_wants_the_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk(tmp_path)
    for name in ("a", "b", "c"):
        disk.create(name, b"head").close()
    file = disk.open("c")
    monkeypatch.setattr(limits, "DISK_SPARE_BYTES", 0)
    disk.set_aside("a")
    disk.set_aside("b")
    monkeypatch.setattr(disk, "_free", lambda: 100 - len([path for path in tmp_path.iterdir() if path.name != "c"]))
    assert disk.free_bytes() == disk.free_bytes(98) == 98
    file.append(b"more", 99)
    assert [path.name for path in tmp_path.iterdir() if path.name != "c"] == ["a" + UNFINISHED]
    assert disk.free_bytes(1000) == 100
    assert disk.create("d", b"HEAD").size == 4
    assert disk.read("d") == b"HEAD"


def fail(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_write_that_cannot_be_taken_back_ends_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RealDisk(tmp_path).create("a", b"head")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", failing_pwrite(errno.ENOSPC))
        patch.setattr(os, "ftruncate", fail)
        with pytest.raises(OSError):
            file.append(b"much too long")
    with pytest.raises(OSError, match="for good"):
        file.append(b"!")
    file.close()
    file.close()


def test_a_failed_fsync_is_final_for_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk(tmp_path)
    file = disk.create("a", b"head")
    file.append(b"lost")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", fail)
        with pytest.raises(OSError):
            file.sync()
        with pytest.raises(OSError):
            disk.write_atomically("b", b"new")
    for call in (file.sync, lambda: file.append(b"!"), lambda: file.truncate(0)):
        with pytest.raises(OSError, match="for good"):
            call()
    file.close()
    with pytest.raises(OSError, match="for good"):
        disk.write_atomically("b", b"")
    with pytest.raises(OSError, match="for good"):
        disk.remove("b")
    with pytest.raises(OSError, match="for good"):
        disk.open("b")
    disk.write_atomically("c", b"another file")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a", "c"]


def test_a_failed_fsync_of_the_directory_is_final_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = RealDisk(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError):
            disk.write_atomically("a", b"")
    for name in ("a", "b"):
        with pytest.raises(OSError, match="for good"):
            disk.write_atomically(name, b"")


def test_a_replacement_is_durable_before_it_is_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for owner, name in ((os, "fdatasync"), (os, "fsync"), (Path, "rename")):
        real = getattr(owner, name)
        monkeypatch.setattr(owner, name, lambda *a, real=real, name=name: (calls.append(name), real(*a))[1])
    disk = RealDisk(tmp_path)
    disk.write_atomically("a", b"x")
    assert calls == ["fdatasync", "rename", "fsync"]
    disk.remove("a")
    assert calls[3:] == ["fsync"]
