"""Repairs of storage: what survives a crash at any moment, and what is refused rather than guessed."""

from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from quorl.cluster.consensus import statefile
from quorl.cluster.consensus.disk import RealDisk
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.port import Damaged, InUse, NotApplied
from quorl.cluster.consensus.segment import HEADER_BYTES
from quorl.cluster.consensus.statefile import STATE_NAME, SqliteStateFiles
from quorl.cluster.machine.machine import Machine
from quorl.cluster.protocol import topics as t
from tests.consensus.engines import Group, acknowledged, errors
from tests.consensus.repairs.biting import bites
from tests.machine.rig import Rig, seal
from tests.simulation.fakedisk import Died, FakeDisk

SEEDS = range(12)
"""What a power cut leaves is chance: a defect shows in some of these, a repair holds in all."""


def in_any(scenario: Callable[[Group], bool]) -> bool:
    """Whether a scenario loses something under any seed."""
    return any(scenario(Group(seed=seed)) for seed in SEEDS)


def follower_forgets(group: Group) -> bool:
    """A write is acknowledged by the leader and one follower; the leader dies, the follower loses its power."""
    a = group.found("a")
    group.run(0.3)
    group.kill("c")
    proposals = [a.propose(b"%d" % i) for i in range(5)]
    group.settle()
    told = acknowledged(proposals)
    assert told
    group.kill("a")
    group.kill("b", power=True)
    group.boot("b", "c")
    group.connect("bc")
    group.run(5.0)
    return not any(set(told) <= set(group[name].logged) for name in group.leaders())


@bites("barrier")
async def test_d1_an_acknowledged_entry_survives_its_followers_power_cut(repaired: bool) -> None:
    assert in_any(follower_forgets) is not repaired


def leader_forgets(group: Group) -> bool:
    """The same, but the leader loses its power, and the follower stays down."""
    a = group.found("a")
    group.run(0.3)
    group.kill("c")
    told = acknowledged(group.write(a, *(b"%d" % i for i in range(5))))
    assert told
    group.kill("b")
    group.kill("a", power=True)
    group.boot("a", "c")
    group.connect("ac")
    group.run(5.0)
    return not any(set(told) <= set(group[name].logged) for name in group.leaders())


@bites("leader_barrier")
async def test_d1_an_acknowledged_entry_survives_its_leaders_power_cut(repaired: bool) -> None:
    assert in_any(leader_forgets) is not repaired


@bites("fsync_fatal")
async def test_d1_a_failed_sync_is_never_taken_for_done(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.run(0.3)
    a.disk.fail_sync = True
    (proposal,) = group.write(a, b"one")
    assert (a.died is not None) is repaired
    assert bool(acknowledged([proposal])) is not repaired
    if repaired:
        assert errors([proposal]) == ["OutcomeUnknown"]


def small_log(disk: FakeDisk) -> LogStore:
    log = LogStore(disk.boot(), segment_bytes=200)
    log.setCurrentTerm(2, "a")
    for index in range(2, 20):
        log.add(b"command %d" % index, index, 1)
    log.setRaftCommitIndex(19)
    log.onOneSecondTimer()
    return log


def dies_within(change: Callable[[LogStore], None], seed: int, step: int) -> LogStore | None:
    """Die in the given operation of a change and start again; None if the change has no more operations."""
    disk = FakeDisk(random.Random(seed))
    log = small_log(disk)
    disk.dies_in = step
    try:
        change(log)
    except Died:
        disk.power_cut()
        return LogStore(disk.boot(), segment_bytes=200)
    return None


@bites("trim_note")
def test_d2_a_trim_may_be_interrupted_anywhere(repaired: bool) -> None:
    def cut_short() -> None:
        step = 1
        while (log := dies_within(lambda log: log.trim_to(15), step, step)) is not None:
            assert log.first_index <= 15
            assert log[15 - log.first_index :] == [(b"command %d" % i, i, 1) for i in range(15, 20)]
            step += 1
        assert step > 3

    if repaired:
        cut_short()
    else:
        with pytest.raises(Damaged):
            cut_short()


@bites("reset_note")
def test_d2_a_replaced_log_is_the_old_or_the_new_one(repaired: bool) -> None:
    def cut_short() -> None:
        step = 1
        while (log := dies_within(lambda log: log.reset_to(30, 2), step, step)) is not None:
            assert (log.first_index, log.last_index) in {(1, 19), (30, 30)}
            step += 1
        assert step > 3

    if repaired:
        cut_short()
    else:
        with pytest.raises(Damaged):
            cut_short()


@bites("cut_sync")
def test_d2_what_was_cut_off_stays_off(repaired: bool) -> None:
    back = 0
    for seed in SEEDS:
        disk = FakeDisk(random.Random(seed))
        log = LogStore(disk.boot())
        log.setCurrentTerm(1, "a")
        for index in range(2, 6):
            log.add(b"orphan", index, 1)
        log.sync()
        log.deleteEntriesFrom(2)
        disk.power_cut()
        back += LogStore(disk.boot()).last_index > 2
    assert (back == 0) is repaired


@bites("trim_below_checkpoint")
async def test_d3_what_a_state_may_forget_is_still_in_the_log(repaired: bool) -> None:
    group = Group(segment_bytes=400)
    a = group.found("a")
    group.run(0.3)
    index = a.checkpoint()
    group.write(a, *(b"%d" % i for i in range(40)))
    group.run(0.3)
    a.replica.trim(index)
    group.kill("a", power=True)
    assert a.payloads == [b"base"], "the database fell back to its checkpoint"
    if not repaired:
        with pytest.raises(Damaged, match="the log begins only at"):
            group.boot("a")
        return
    group.boot("a")
    group.connect()
    group.run(3.0)
    assert a.payloads == [b"base", *(b"%d" % i for i in range(40))]


async def test_d3_entries_behind_a_checkpoint_survive_a_kill_before_the_trim() -> None:
    group = Group(segment_bytes=400)
    a = group.found("a")
    group.write(a, *(b"%d" % i for i in range(20)))
    group.run(0.3)
    for name in "abc":
        group[name].checkpoint()
    told = acknowledged(group.write(a, *(b"after %d" % i for i in range(20))))
    group.kill(*"abc", power=True)
    group.boot()
    group.connect()
    group.run(3.0)
    (leader,) = group.leaders()
    group.run(0.3)
    assert group[leader].payloads[-20:] == told


async def test_d3_a_snapshot_whose_log_was_not_yet_replaced_is_finished_at_the_start() -> None:
    group = Group(segment_bytes=400)
    a = group.found("a")
    group.run(0.3)
    group.isolate("c")
    group.write(a, *(b"%d" % i for i in range(20)))
    group.kill("c")
    group["c"].state = list(a.state)  # installed, and then killed
    group.boot("c")
    assert (group["c"].log.first_index, group["c"].engine.applied_index) == (a.state[-1].index, a.state[-1].index)
    group.connect()
    assert acknowledged(group.write(a, b"on")) == [b"on"]
    group.run(0.3)
    assert group["c"].payloads == a.payloads


@bites("crc")
def test_d4_no_flipped_bit_changes_an_entry(repaired: bool) -> None:
    disk = FakeDisk(random.Random(1))
    held = small_log(disk)[:]
    changed = 0
    for name, content in disk.files().items():
        if not name.endswith(".seg"):
            continue
        for place in range(0, len(content) * 8, 5):
            damaged = bytearray(content)
            damaged[place // 8] ^= 1 << place % 8
            disk.put(name, bytes(damaged))
            try:
                changed += LogStore(disk.boot(), segment_bytes=200)[:] != held
            except (Damaged, AssertionError):
                pass
        disk.put(name, content)
    assert (changed == 0) is repaired


def test_d4_a_torn_tail_is_cut_and_the_member_starts() -> None:
    disk = FakeDisk(random.Random(1))
    log = small_log(disk)
    held = log[:]
    log.add(b"never synced", 20, 1)
    name = max(name for name in disk.files() if name.endswith(".seg"))
    content = disk.files()[name]
    for size in range(HEADER_BYTES, len(content.rstrip(b"\0"))):
        disk.put(name, content[:size])
        assert LogStore(disk.boot(), segment_bytes=200)[:] == held


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_d5_a_full_disk_refuses_a_write_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group()
    a = group.found("a")
    group.run(0.3)
    before = a.log[:]
    monkeypatch.setattr(a.log._file, "append", no_room)  # but for the ballot there is some left
    with pytest.raises(NotApplied) as refused:
        a.propose(b"too much")
    assert refused.value.code == "storage_full"
    assert (a.log[:], a.died) == (before, None)
    group.settle()
    assert group.leaders() == ["b"], "another may have room"
    assert acknowledged(group.write(group["b"], b"room")) == [b"room"]
    group.run(3.0)
    monkeypatch.undo()
    group.run(0.5)
    assert a.payloads == group["b"].payloads


@bites("append_undone")
async def test_d5_a_follower_acknowledges_nothing_that_did_not_fit(repaired: bool) -> None:
    group = Group()
    a = group.found("a")
    group.run(0.3)
    group.kill("c")
    group["b"].disk.full = True
    proposals = group.write(a, b"one")
    group.reset("ab")
    group.connect("ab")  # it is sent again
    group.run(0.3)
    assert bool(acknowledged(proposals)) is not repaired
    group["b"].disk.full = False
    group.run(0.5)
    assert acknowledged(proposals) == [b"one"]
    group.kill("b")
    if repaired:
        group.boot("b")
    assert (b"one" in (group["b"].logged if repaired else [])) is repaired


@bites("resigns")
async def test_d5_a_leader_that_cannot_store_its_first_entry_resigns(repaired: bool) -> None:
    group = Group()
    group.found("a")
    group.run(1.0)
    group.kill("a")
    group.stand("b")
    group["b"].disk.full = True  # between its ballot and its first entry
    group.settle()
    assert group["b"].engine.leads is not repaired
    group["b"].disk.full = False
    group.run(5.0)
    (name,) = group.leaders()
    leader = group[name]
    assert (leader.log.term_at(leader.engine.applied_index) == leader.engine.term) is repaired, "it may serve"


@bites("one_process")
def test_d6_a_directory_belongs_to_one_process(repaired: bool, tmp_path: Path) -> None:
    first = RealDisk(tmp_path)
    first.lock()
    log = LogStore(first)
    second = RealDisk(tmp_path)
    if repaired:
        with pytest.raises(InUse):
            LogStore(second)
    else:
        other = LogStore(second)
        log.setCurrentTerm(5, "b")
        other.setCurrentTerm(5, "c")  # two votes of one member
        other._file.close()
    log._file.close()
    first.close()


async def test_d7_the_log_rolls_and_shrinks() -> None:
    group = Group(segment_bytes=2_000)
    a = group.found("a")
    for _ in range(10):
        group.write(a, *(b"x" * 100 for _ in range(20)))
        group.run(0.3)
        a.replica.trim(a.checkpoint())
    assert a.log.size_bytes < 8_000
    assert len(a.log) < 60, "the memory holds no more than the disk"


async def test_d8_the_engine_forks_nothing_and_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("consensus is one thread without sockets")

    for owner, name in ((os, "fork"), (socket, "socket"), (threading.Thread, "start"), (os, "pipe")):
        monkeypatch.setattr(owner, name, forbidden)
    group = Group(segment_bytes=400)
    a = group.found("a")
    group.write(a, *(b"%d" % i for i in range(40)))
    group.run(2.0)
    a.replica.trim(a.checkpoint())
    assert (a.engine.conf.useFork, a.engine.conf.fullDumpFile, a.engine.conf.autoTick) == (False, None, False)


def state_at(directory: Path, *topics: str) -> SqliteStateFiles:
    """A directory with a state in it."""
    files = SqliteStateFiles(directory)
    rig = Rig.__new__(Rig)
    rig.connection = files.open()
    rig.machine, rig.now_ms, rig.wall_ms = Machine(rig.connection), 0, 1_700_000_000_000
    for topic in topics:
        rig.apply(seal(t.CreateTopic(name=topic)))
    rig.connection.close()
    return files


@bites("copy_checked")
def test_a9_a_damaged_copy_never_takes_the_place_of_the_state(repaired: bool, tmp_path: Path) -> None:
    sender, receiver = state_at(tmp_path / "a", "one", "two"), state_at(tmp_path / "b", "one")
    snapshot = sender.copy()
    content = bytearray(sender.read(snapshot, 0, snapshot.size_bytes))
    content[len(content) // 2] ^= 1
    receiver.receive(0, bytes(content))
    if repaired:
        with pytest.raises(Damaged, match="not, byte for byte"):
            receiver.install(snapshot)
    else:
        receiver.install(snapshot)
    kept = (tmp_path / "b" / STATE_NAME).read_bytes() != bytes(content)
    assert kept is repaired


def test_a9_a_damaged_state_is_refused_and_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    files = state_at(tmp_path, "one")
    for content in (b"", b"not a database, and long enough to be one" * 100):
        (tmp_path / STATE_NAME).write_bytes(content)
        if content:
            with pytest.raises(Damaged):
                files.open()
            assert files.exists(), "a file that is no state is still no new node"


@bites("copy_checked")
def test_d9_a_copy_is_durable_before_it_takes_the_name(
    repaired: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender, receiver = state_at(tmp_path / "a", "one"), state_at(tmp_path / "b")
    snapshot = sender.copy()
    receiver.receive(0, sender.read(snapshot, 0, snapshot.size_bytes))
    calls: list[str] = []

    def noted(name: str, careful: Callable[..., object]) -> Callable[..., object]:
        return lambda *arguments: (calls.append(name), careful(*arguments))[1]

    monkeypatch.setattr(statefile, "_sync_file", noted("sync", statefile._sync_file))
    monkeypatch.setattr(statefile, "_sync_directory", noted("sync names", statefile._sync_directory))
    monkeypatch.setattr(Path, "rename", noted("rename", Path.rename))
    receiver.install(snapshot)
    shutil.rmtree(tmp_path / "b")
    assert (calls[:1] == ["sync"] and calls[-2:] == ["rename", "sync names"]) is repaired
