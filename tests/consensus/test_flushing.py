"""Flushes beside the loop: what they cover, who waits for them, and that an error of one is never passed over.

The real ones need Linux, and a sandbox that lets processes use its asynchronous I/O.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import platform
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from quorl.cluster.api.metered import MeteredDisk
from quorl.cluster.consensus import flushing
from quorl.cluster.consensus.disk import RealDisk, RealFile
from quorl.cluster.consensus.flushing import Flusher
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.node.meters import FAST_S, Histogram
from quorl.cluster.protocol import limits
from tests.consensus.engines import Group, Member
from tests.simulation.fakedisk import Died, FakeDisk, FakeFile, Fenced

FOR_LONG_S = 3600.0
Ended = list[OSError | None]


# -- the real disk ------------------------------------------------------------------------------------------------
@pytest.fixture
def disk(tmp_path: Path) -> Iterator[RealDisk]:
    made = RealDisk(tmp_path)
    yield made
    made.close()


class Waited:
    """What a flush came to, as a future beside the list."""

    def __init__(self) -> None:
        self.told: Ended = []
        self.came = asyncio.get_running_loop().create_future()

    def __call__(self, error: OSError | None) -> None:
        self.told.append(error)
        self.came.set_result(None)


async def test_d1_a_flush_beside_the_loop_ends_in_a_turn_of_its_own(disk: RealDisk) -> None:
    file = disk.create("a", b"head")
    for _ in range(3):
        file.append(b"more")
        ended = Waited()
        assert file.sync_soon(ended)
        assert ended.told == []
        await ended.came
        assert ended.told == [None]
    file.close()


async def test_d1_one_flush_at_a_time_and_a_sync_waits_for_it(disk: RealDisk) -> None:
    file = disk.create("a", b"head")
    file.append(b"more")
    ended = Waited()
    assert file.sync_soon(ended)
    assert not file.sync_soon(ended), "there is one already"
    file.sync()
    assert ended.told == [None], "told from within"
    await asyncio.sleep(0)
    again = Waited()
    assert file.sync_soon(again)
    await again.came
    assert ended.told == [None], "once"
    file.close()


@pytest.mark.parametrize("waits", [True, False])
async def test_d1_a_flush_that_fails_ends_the_file(
    disk: RealDisk, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    """The kernel tells an error of a file once. A sync that overtook the flush would succeed, and lie."""
    file = disk.create("a", b"head")
    file.append(b"more")
    ended = Waited()
    assert file.sync_soon(ended)
    monkeypatch.setattr(flushing, "_EVENT", Failing())
    if waits:
        with pytest.raises(OSError, match="for good"):
            file.sync()
    await ended.came
    (error,) = ended.told
    assert error is not None
    assert error.errno == errno.EIO
    calls: list[Callable[[], object]] = [file.sync, lambda: file.append(b"!"), lambda: file.sync_soon(ended)]
    for call in calls:
        with pytest.raises(OSError, match="for good"):
            call()
    file.close()


class Failing:
    """Every flush has come to an error."""

    size = 32

    def unpack(self, _: Any) -> tuple[int, ...]:
        return 0, 0, -errno.EIO, 0


async def test_d1_a_flush_under_way_ends_with_the_disk(tmp_path: Path) -> None:
    disk = RealDisk(tmp_path)
    file = disk.create("a", b"head")
    ended = Waited()
    assert file.sync_soon(ended)
    file.close()
    disk.close()
    await asyncio.sleep(0)
    assert ended.told == [], "nobody is there to be told"


async def test_d1_a_file_that_cannot_be_flushed_so_says_so(disk: RealDisk) -> None:
    file = disk.create("a", b"head")
    flusher = Flusher(asyncio.get_running_loop())
    closed = os.open(os.devnull, os.O_RDONLY)
    os.close(closed)
    assert not flusher.begin(closed, Waited())
    assert not flusher.busy
    flusher.wait()
    flusher.close()
    file.close()


async def test_d1_what_the_kernel_tells_twice_or_interrupts_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    flusher = Flusher(asyncio.get_running_loop())
    flusher._told()  # woken for nothing
    careful = Flusher._call
    interrupted: list[int] = []

    def call(self: Flusher, number: int, *arguments: object) -> int:
        if number == self._getevents and not interrupted:
            interrupted.append(number)
            raise InterruptedError
        return careful(self, number, *arguments)

    monkeypatch.setattr(Flusher, "_call", call)
    descriptor = os.open(__file__, os.O_RDONLY)
    ended = Waited()
    assert flusher.begin(descriptor, ended)
    flusher.wait()
    assert (ended.told, interrupted) == ([None], [flusher._getevents])
    flusher._told()  # its descriptor tells of what was waited for
    assert ended.told == [None]
    os.close(descriptor)
    flusher.close()


def unflushed(path: Path, disk: RealDisk) -> RealFile:
    return RealFile(path, os.open(path, os.O_RDWR), lambda: None, disk.free_bytes)


@pytest.mark.parametrize("why", ["system", "machine", "kernel", "no disk"])
async def test_d1_where_there_are_no_such_flushes_sync_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "system":
        monkeypatch.setattr(sys, "platform", "freebsd")
    elif why == "machine":
        monkeypatch.setattr(platform, "machine", lambda: "s390x")
    elif why == "kernel":
        monkeypatch.setattr(ctypes, "CDLL", Refusing)
    (tmp_path / "a").write_bytes(b"head")
    disk = RealDisk(tmp_path)
    file = unflushed(tmp_path / "a", disk) if why == "no disk" else disk.open("a")
    for _ in range(2):
        assert not file.sync_soon(lambda _: None)
    monkeypatch.undo()
    file.append(b"more")
    file.sync()
    file.close()


async def test_d1_flushes_that_lack_a_descriptor_are_left_to_sync_until_there_is_one(
    disk: RealDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel gave before is given back: it has room for so many of these only."""
    file = disk.create("a", b"head")
    careful, called = Flusher._call, list[int]()

    def call(self: Flusher, number: int, *arguments: object) -> int:
        called.append(number)
        return careful(self, number, *arguments)

    def none_left(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as short:
        short.setattr(Flusher, "_call", call)
        short.setattr(os, "eventfd", none_left)
        assert not file.sync_soon(lambda _: None)
        setup, destroy, *_ = flushing._CALLS[platform.machine()]
        assert called == [setup, destroy]
    ended = Waited()
    assert file.sync_soon(ended)
    await ended.came
    assert ended.told == [None]
    file.close()


class Refusing:
    """A kernel that knows no such call."""

    def __init__(self, *_: object, **__: object) -> None:
        self.syscall = self

    def __call__(self, *_: object) -> int:
        ctypes.set_errno(errno.ENOSYS)
        return -1


async def test_e1_flushes_beside_the_loop_are_metered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    took = Histogram(FAST_S)
    real = RealDisk(tmp_path)
    file = MeteredDisk(real, took).create("a", b"head")
    ended = Waited()
    assert file.sync_soon(ended)
    await ended.came
    assert sum(took.counts) == 1
    ended = Waited()
    assert file.sync_soon(ended)
    monkeypatch.setattr(flushing, "_EVENT", Failing())
    await ended.came
    assert sum(took.counts) == 1, "one that failed took no time worth knowing"
    file.close()
    real.close()


# -- the fake disk ------------------------------------------------------------------------------------------------
def slow(disk: FakeDisk) -> FakeFile:
    """A new file on a disk whose flushes end when a test says so."""
    disk.flush_s = lambda: FOR_LONG_S
    return disk.boot().create("a", b"head")


def end_of(file: FakeFile) -> None:
    assert file._flush is not None
    file._flush()


def begun(seed: int) -> tuple[FakeDisk, FakeFile, Ended]:
    """A disk, a file on it whose one write is being flushed, and what is told of that."""
    disk = FakeDisk(Random(seed))
    file = slow(disk)
    file.append(b"+")
    told: Ended = []
    assert file.sync_soon(told.append)
    return disk, file, told


async def test_a_fake_flush_covers_what_was_there_when_it_began() -> None:
    left = set()
    for seed in range(40):
        disk, file, told = begun(seed)
        assert not file.sync_soon(told.append)
        file.append(b"-")
        end_of(file)
        assert told == [None]
        disk.power_cut()
        left.add(disk.files()["a"])
    assert left == {b"head+", b"head+-", b"head+\0"}


async def test_a_fake_flush_that_has_not_ended_covers_nothing() -> None:
    left = set()
    for seed in range(40):
        disk, file, told = begun(seed)
        disk.power_cut()
        end_of(file)
        assert told == [], "its process is dead"
        left.add(disk.files()["a"])
    assert left == {b"head", b"head+", b"head\0"}


async def test_a_fake_sync_waits_for_the_flush_and_a_failed_one_ends_the_file() -> None:
    disk = FakeDisk(Random(1))
    file = slow(disk)
    told: Ended = []
    file.sync_soon(told.append)
    file.sync()
    assert told == [None]
    file.append(b"+")
    file.sync_soon(told.append)
    disk.fail_sync = True
    end_of(file)
    assert isinstance(told[1], OSError)
    with pytest.raises(OSError, match="for good"):
        file.sync()


async def test_a_fake_flush_may_be_where_the_machine_dies() -> None:
    disk = FakeDisk(Random(1))
    file = slow(disk)
    disk.dies_in = 1
    with pytest.raises(Died):
        file.sync_soon(lambda _: None)
    with pytest.raises(Fenced):
        file.sync()


# -- the log ------------------------------------------------------------------------------------------------------
def log_on(disk: FakeDisk) -> LogStore:
    disk.flush_s = lambda: FOR_LONG_S
    log = LogStore(disk.boot())
    log.setCurrentTerm(1, "n1")
    for index in (2, 3):
        log.add(b"a command", index, 1)
    return log


def end_flush(log: LogStore) -> None:
    assert isinstance(log._file, FakeFile)
    end_of(log._file)


async def test_d1_a_flush_makes_durable_what_the_log_held_when_it_began() -> None:
    log, told = log_on(FakeDisk(Random(1))), []
    assert log.unsynced_bytes > 0
    assert log.sync_soon(lambda error: told.append((error, log.durable_index)))
    assert (log.unsynced_bytes, log.durable_index) == (0, 1)
    log.add(b"a later command", 4, 1)
    end_flush(log)
    assert told == [(None, 3)]
    log.sync()
    assert (log.unsynced_bytes, log.durable_index) == (0, 4)


@pytest.mark.parametrize("change", ["cut", "reset"])
async def test_d1_a_flush_says_nothing_of_entries_that_were_replaced_meanwhile(change: str) -> None:
    disk = FakeDisk(Random(1))
    log = log_on(disk)
    file = log._file
    assert isinstance(file, FakeFile)
    flush = None
    assert log.sync_soon(lambda _: None)
    flush = file._flush
    if change == "cut":
        file._flush = None  # the sync that belongs to a cut would wait for it: here it ends late
        log.deleteEntriesFrom(1)
        log.add(b"another", 2, 1)
        log.add(b"another", 3, 1)
    else:
        log.reset_to(2, 0)
        log.add(b"another", 3, 1)
    before = log.durable_index
    assert before < 3
    assert flush is not None
    flush()
    assert log.durable_index == before


async def test_d1_a_log_whose_flush_failed_is_not_durable() -> None:
    disk = FakeDisk(Random(1))
    log, told = log_on(disk), []
    log.sync_soon(lambda error: told.append((type(error), log.durable_index)))
    disk.fail_sync = True
    end_flush(log)
    assert told == [(OSError, 1)]
    with pytest.raises(OSError):
        log.sync()


# -- the leader ---------------------------------------------------------------------------------------------------
@pytest.fixture
async def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    monkeypatch.setattr(limits, "FLUSH_BESIDE_BYTES", 0)
    made = Group()
    made.found("a")
    made["a"].disk.flush_s = lambda: FOR_LONG_S
    return made


def deliver_all(group: Group) -> None:
    """Messages arrive, and no time passes that would make anybody tick."""
    for link in ("ab", "ac", "ba", "ca"):
        group.deliver(link)


async def test_d1_a_leader_decides_nothing_before_its_own_copy_is_durable(group: Group) -> None:
    leader = group["a"]
    proposal = leader.propose(b"one")
    deliver_all(group)
    assert leader.engine.match_index == dict.fromkeys(leader.engine.others, leader.log.last_index)
    assert leader.engine.commit_index < leader.log.last_index
    end_flush(leader.log)
    assert leader.log.durable_index == leader.log.last_index
    group.settle()
    assert proposal.done()
    assert leader.payloads == [b"base", b"one"]


async def test_d1_a_leader_whose_copy_is_durable_first_waits_for_a_follower(group: Group) -> None:
    leader = group["a"]
    proposal = leader.propose(b"one")
    end_flush(leader.log)
    group.tick("a")
    assert not proposal.done()
    deliver_all(group)
    group.settle()
    assert proposal.done()


async def test_d1_a_leader_that_has_to_decide_waits_for_its_flush(group: Group) -> None:
    """A disk that hangs is not hidden: the loop hangs with it, and others lead."""
    leader = group["a"]
    proposal = leader.propose(b"one")
    deliver_all(group)
    group.tick("a")
    assert proposal.done()
    assert leader.log.durable_index == leader.log.last_index


async def test_d1_a_leader_whose_flush_fails_stops(group: Group) -> None:
    leader: Member = group["a"]
    proposal = leader.propose(b"one")
    deliver_all(group)
    leader.disk.fail_sync = True
    end_flush(leader.log)
    assert leader.died is not None
    assert "cannot be made durable" in leader.died
    assert proposal.error is not None
    assert leader.payloads == [b"base"]


async def test_d1_a_disk_that_takes_long_is_flushed_beside_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group()
    group.found("a")
    leader = group["a"]
    began: list[int] = []
    careful = LogStore.sync_soon

    def noted(log: LogStore, ended: Callable[[OSError | None], None]) -> bool:
        began.append(log.last_index)
        return careful(log, ended)

    monkeypatch.setattr(LogStore, "sync_soon", noted)
    group.write(leader, b"quick")
    assert began == []
    group.write(leader, b"long" * limits.FLUSH_BESIDE_BYTES)
    assert len(began) == 1
    group.write(leader, b"quick")
    assert len(began) == 1
    sync = LogStore.sync

    def slowly(log: LogStore) -> None:
        group.clock.now += 0.02
        sync(log)

    with monkeypatch.context() as patch:
        patch.setattr(LogStore, "sync", slowly)
        group.write(leader, b"slow")
    group.write(leader, b"small")
    assert len(began) == 2


async def test_d1_a_member_alone_decides_when_its_flush_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FLUSH_BESIDE_BYTES", 0)
    group = Group("a")
    group.boot()
    group.run(3.0)
    alone = group["a"]
    assert alone.engine.leads
    alone.disk.flush_s = lambda: FOR_LONG_S
    proposal = alone.propose(b"one")
    assert alone.engine.commit_index < alone.log.last_index
    end_flush(alone.log)
    group.settle()
    assert proposal.done()
