"""A process that is short of file descriptors: what the log still does, what is left for later, what is refused whole."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from quorl.cluster.consensus.disk import RealDisk
from quorl.cluster.consensus.logstore import LogStore
from tests.simulation.fakedisk import FakeDisk

SMALL = 200
"""Bytes of a segment in these tests: a few records."""


def filled(log: LogStore) -> LogStore:
    """Give a new log the entries 2 to 19, synced."""
    log.setCurrentTerm(1, "n1")
    for index in range(2, 20):
        log.add(b"command %d" % index, index, 1)
    log.sync()
    return log


def short_of_descriptors(fails: int) -> Callable[..., int]:
    """An ``os.open`` that fails from one call on: all are in use, and what this process gives back others take."""
    real, calls = os.open, 0

    def opening(*arguments: Any, **options: Any) -> int:
        nonlocal calls
        calls += 1
        if calls >= fails:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real(*arguments, **options)

    return opening


@pytest.mark.parametrize("fails", range(1, 9))
def test_a_conflict_without_descriptors_leaves_in_memory_what_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int
) -> None:
    disk = RealDisk(tmp_path)
    log = filled(LogStore(disk, segment_bytes=SMALL))
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", short_of_descriptors(fails))
        with contextlib.suppress(OSError):
            log.deleteEntriesFrom(8)
    log.add(b"goes on", log.last_index + 1, 1)
    log.sync()
    held = log[:]
    disk.close()
    assert LogStore(RealDisk(tmp_path), segment_bytes=SMALL)[:] == held


@pytest.mark.parametrize(("fails", "aside"), [(1, False), (2, False), (3, False), (1, True), (2, True)])
def test_a_file_that_cannot_be_opened_is_not_made_and_can_be_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: int, aside: bool
) -> None:
    disk = RealDisk(tmp_path)
    if aside:
        disk.create("a", b"head and more").close()
        disk.set_aside("a")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", short_of_descriptors(fails))
        with pytest.raises(OSError, match="Too many open files"):
            disk.create("b", b"HEAD")
        assert list(tmp_path.iterdir()) == []
    assert disk.create("b", b"HEAD").size == 4
    assert disk.read("b") == b"HEAD"


@contextlib.contextmanager
def all_in_use() -> Iterator[None]:
    """Every descriptor that this process may have is open."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (max(int(one.name) for one in Path("/dev/fd").iterdir()) + 1, before[1])
        )
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(OSError, match="Too many open files"):
            os.open(os.devnull, os.O_RDONLY)
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_node_without_descriptors_votes_stores_reads_and_trims(tmp_path: Path) -> None:
    """One is kept in reserve, and back in it behind each use."""
    disk = RealDisk(tmp_path)
    log = LogStore(disk, segment_bytes=SMALL, held_bytes=1)
    log.setCurrentTerm(1, "n1")
    with all_in_use():
        for index in range(2, 20):
            log.add(b"command %d" % index, index, 1)
        log.setRaftCommitIndex(12)
        log.onOneSecondTimer()
        log.setCurrentTerm(2, "n2")
        assert log.entry(3)[0] == b"command 3"
        log.trim_to(10)
        log.deleteEntriesFrom(14 - log.first_index)
        log.setCurrentTerm(3, "n3")
        assert (log.first_index > 1, log.last_index) == (True, 13)
    held = log[:]
    disk.close()
    again = LogStore(RealDisk(tmp_path), segment_bytes=SMALL)
    assert (again[:], again.getCurrentTerm(), again.getVotedForNodeId()) == (held, 3, "n3")


def test_a_ballot_for_which_no_descriptor_is_left_at_all_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = RealDisk(tmp_path)
    log = LogStore(disk)
    log.setCurrentTerm(1, "n1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "open", short_of_descriptors(1))
        with pytest.raises(OSError, match="Too many open files"):
            log.setCurrentTerm(2, "n2")
        assert (log.getCurrentTerm(), log.getVotedForNodeId()) == (1, "n1")
    disk.close()
    again = LogStore(RealDisk(tmp_path))
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (1, "n1")


@pytest.mark.parametrize("held", [30, 10_000])
def test_a_trim_for_which_no_file_can_be_opened_is_left_for_later(held: int) -> None:
    """Neither is the sentinel read, nor the ballot written, and so nothing goes."""
    disk = FakeDisk(Random(1))
    log = filled(LogStore(disk.boot(), segment_bytes=SMALL, held_bytes=held))
    log.setRaftCommitIndex(log.last_index)
    before, files = log[:], disk.files()
    disk.short = True
    log.trim_to(8)
    assert (log.first_index, log.ballot.first, disk.files()) == (1, 1, files)
    disk.short = False
    log.add(b"goes on", 20, 1)
    log.sync()
    assert log[:] == [*before, (b"goes on", 20, 1)]
    log.trim_to(8)
    assert log.first_index > 1
    kept = log[:]
    disk.power_cut()
    assert LogStore(disk.boot(), segment_bytes=SMALL)[:] == kept


def test_a_trim_that_the_disk_fails_is_none_that_is_left_for_later() -> None:
    disk = FakeDisk(Random(1))
    log = filled(LogStore(disk.boot(), segment_bytes=SMALL))
    disk.fail_sync = True
    with pytest.raises(OSError, match="Input/output"):
        log.trim_to(8)
