"""Room behind the log's end: where it is, how much, and that it never counts as a part of the log."""

from __future__ import annotations

from random import Random

import pytest

from quorl.cluster.consensus.logstore import ROOM_BYTES, ROOM_RECORDS_MIN, LogStore
from quorl.cluster.consensus.segment import RECORD_BYTES
from tests.consensus.test_logstore import SMALL, filled, store, written
from tests.simulation.fakedisk import FakeDisk


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk(Random(1))


def test_only_the_newest_segment_has_room_and_opening_cuts_it_away(disk: FakeDisk) -> None:
    log = filled(disk)
    names = [name for name in disk.names() if name.startswith("log-")]
    with_room = [name for name in names if disk.files()[name] != written(disk)[name]]
    assert with_room == names[-1:]
    assert len(disk.files()[names[-1]]) == SMALL, "never more than fits into a segment"
    held = log[:]
    assert store(disk)[:] == held
    assert disk.files() == written(disk)


def test_what_is_written_into_room_makes_no_file_longer(disk: FakeDisk) -> None:
    log = store(disk)
    log.setCurrentTerm(1, "n1")
    log.add(b"x", 2, 1)
    name, size = max(disk.names()), len(disk.files()[max(disk.names())])
    log.add(b"y", 3, 1)
    assert (max(disk.names()), len(disk.files()[name])) == (name, size)


def test_large_records_make_no_room(disk: FakeDisk) -> None:
    log = LogStore(disk.boot(), segment_bytes=ROOM_BYTES * 4)
    log.setCurrentTerm(1, "n1")
    large = b"x" * (ROOM_BYTES // ROOM_RECORDS_MIN)
    log.add(large, 2, 1)
    assert disk.files() == written(disk)
    log.add(b"small", 3, 1)
    assert len(disk.files()[max(disk.names())]) == log.size_bytes + ROOM_BYTES
    log.add(large, 4, 1)  # there is room already
    assert len(disk.files()[max(disk.names())]) == log.size_bytes + ROOM_BYTES - len(large) - RECORD_BYTES
