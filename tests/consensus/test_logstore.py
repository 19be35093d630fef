"""The log store's promises, one by one, on a disk that can die at any moment."""

from __future__ import annotations

import zlib
from random import Random

import pytest

from quorl.cluster.consensus.library import NO_OP
from quorl.cluster.consensus.logstore import LogStore
from quorl.cluster.consensus.port import Damaged
from quorl.cluster.consensus.segment import encode_header, encode_record, segment_name
from tests.simulation.fakedisk import FakeDisk

SMALL = 200
"""Bytes of a segment in these tests: a few records."""
HELD = 30
"""Bytes of commands in memory: two or three."""


def store(disk: FakeDisk) -> LogStore:
    """Open the log as a process that was just started."""
    return LogStore(disk.boot(), segment_bytes=SMALL, held_bytes=HELD)


def filled(disk: FakeDisk, last: int = 12, term: int = 1) -> LogStore:
    """A log with entries 2 to ``last``, synced and committed."""
    log = store(disk)
    log.setCurrentTerm(term, "n1")
    for index in range(2, last + 1):
        log.add(b"command %d" % index, index, term)
    log.setRaftCommitIndex(last)
    log.onOneSecondTimer()
    return log


def written(disk: FakeDisk) -> dict[str, bytes]:
    """The files without the room behind what was written; nothing in these tests ends with a zero."""
    return {name: raw.rstrip(b"\0") for name, raw in disk.files().items()}


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk(Random(1))


def test_a_born_log_has_one_sentinel(disk: FakeDisk) -> None:
    log = store(disk)
    assert log[:] == [(NO_OP, 1, 0)]
    assert (log.first_index, log.last_index, log.durable_index, len(log)) == (1, 1, 1, 1)
    assert log.pristine
    assert log.ballot.pristine
    assert (log.getCurrentTerm(), log.getVotedForNodeId(), log.getRaftCommitIndex()) == (0, None, 1)


def test_entries_survive_a_power_cut_after_sync(disk: FakeDisk) -> None:
    log = filled(disk)
    before = log[:]
    disk.power_cut()
    log = store(disk)
    assert log[:] == before
    assert log.durable_index == 12
    assert not log.pristine


def test_entries_survive_the_death_of_the_process_without_sync(disk: FakeDisk) -> None:
    log = filled(disk)
    log.add(b"unsynced", 13, 1)
    assert log.durable_index == 12
    log = store(disk)
    assert log[-1] == (b"unsynced", 13, 1)
    assert log.durable_index == 13
    disk.power_cut()
    assert store(disk).last_index == 13


def held(log: LogStore) -> list[bytes]:
    """The commands in memory, but for the sentinel's."""
    return [command for command, _, _ in log._entries[log._held_from :]]


def test_only_the_newest_commands_are_held_and_the_others_are_read_back(disk: FakeDisk) -> None:
    everything = [(NO_OP, 1, 0), *[(b"command %d" % index, index, 1) for index in range(2, 13)]]
    for start in (filled, store):  # filled here, and read from the disk
        log = start(disk)
        assert held(log) == [b"command 10", b"command 11", b"command 12"]
        assert log[:] == everything
        assert [log.entry(index) for index in range(1, 13)] == everything
        assert log.entries_from(3, 25) == everything[2:4]
        assert log.entries_from(3, 1) == everything[2:3]
        assert (log[4], log[-5]) == (everything[4], everything[-5])


def test_what_is_held_follows_every_change_of_the_log(disk: FakeDisk) -> None:
    log = filled(disk)
    log.trim_to(8)
    kept = [(b"command %d" % index, index, 1) for index in range(log.first_index, 13)]
    assert log[:] == kept
    log.add(b"x" * 1000, 13, 1)
    assert held(log) == [b"x" * 1000]
    log.deleteEntriesFrom(len(log) - 1)
    assert held(log) == []
    log.add(b"y", 13, 1)
    assert held(log) == [b"y"]
    assert log[:] == [*kept, (b"y", 13, 1)]
    log.trim_to(13)
    assert log._held_bytes == sum(map(len, held(log)))
    log.setCurrentTerm(2, None)
    log.reset_to(40, 2)
    assert (log[:], held(log), log._held_bytes) == ([(NO_OP, 40, 2)], [], 0)


def test_what_is_read_back_is_read_in_pieces_and_anew_after_a_cut(disk: FakeDisk) -> None:
    view = disk.boot()
    log = LogStore(view, held_bytes=HELD)
    log.setCurrentTerm(1, "n1")
    for index in range(2, 102):
        log.add(b"command %d" % index, index, 1)
    log.sync()
    reads: list[int] = []
    plain = view.read_at

    def counted(name: str, offset: int, size_bytes: int) -> bytes:
        reads.append(size_bytes)
        return plain(name, offset, size_bytes)

    view.read_at = counted  # type: ignore[method-assign]
    assert [index for _, index, _ in log.entries_from(2, 1 << 20)] == list(range(2, 102))
    assert len(reads) == 1
    log.setCurrentTerm(2, "n1")
    log.deleteEntriesFrom(50)
    for index in range(51, 102):
        log.add(b"COMMAND %d" % index, index, 2)
    assert [entry[0][:7] for entry in log.entries_from(40, 1 << 20)] == [b"command"] * 11 + [b"COMMAND"] * 51
    assert len(reads) == 2


def test_what_cannot_be_read_back_as_it_was_written_is_an_error_of_the_disk(disk: FakeDisk) -> None:
    log = filled(disk)
    name = segment_name(1)
    good = disk.files()[name]
    content = disk.content(name)
    content.cache[-1] ^= 1
    last = len(log._segments[0].offsets)
    with pytest.raises(OSError, match="not there any more as it was written"):
        log.entry(last)
    content.cache[:] = good
    assert log.entry(last)[1] == last


def test_slices_are_those_of_a_list(disk: FakeDisk) -> None:
    log = filled(disk)
    assert log[3] == (b"command 4", 4, 1)
    assert log[-1][1] == 12
    assert [entry[1] for entry in log[2:5]] == [3, 4, 5]
    assert log[100:] == []
    assert log.term_at(12) == 1
    assert log.term_at(13) is None
    assert log.term_at(0) is None
    assert log.entry(4) == (b"command 4", 4, 1)
    assert [entry[1] for entry in log.entries_from(4, 27)] == [4, 5, 6]
    assert [entry[1] for entry in log.entries_from(4, 26)] == [4, 5]
    assert [entry[1] for entry in log.entries_from(4, 0)] == [4]
    assert log.entries_from(13, 100) == []
    for index in (0, 13):
        with pytest.raises(AssertionError, match="not in the log"):
            log.entry(index)


def test_an_entry_out_of_order_is_a_bug(disk: FakeDisk) -> None:
    log = filled(disk)
    for index, term in ((12, 1), (14, 1), (13, 0), (13, 2)):
        with pytest.raises(AssertionError):
            log.add(b"x", index, term)


def test_segments_roll_and_size_counts_them(disk: FakeDisk) -> None:
    log = filled(disk)
    names = [name for name in disk.names() if name.startswith("log-")]
    assert len(names) > 2
    assert log.size_bytes == sum(len(written(disk)[name]) for name in names)
    assert all(len(disk.files()[name]) <= SMALL for name in names)


def test_an_entry_larger_than_a_segment_has_one_of_its_own(disk: FakeDisk) -> None:
    log = filled(disk, last=3)
    log.add(b"x" * 1000, 4, 1)
    log.add(b"y", 5, 1)
    log.sync()
    assert segment_name(4) in disk.names()
    assert segment_name(5) in disk.names()
    assert store(disk)[3][0] == b"x" * 1000


def test_a_full_disk_changes_nothing(disk: FakeDisk) -> None:
    log = filled(disk)
    before, files = log[:], written(disk)
    disk.full = True
    for command in (b"x", b"x" * 300):
        with pytest.raises(OSError, match="No space"):
            log.add(command, 13, 1)
    disk.full = False
    assert (log[:], log.durable_index) == (before, 12)
    assert disk.files() == files, "and there is no room either"
    log.add(b"room again", 13, 1)
    log.sync()
    disk.power_cut()
    assert store(disk)[:] == [*before, (b"room again", 13, 1)]


def test_a_write_that_ran_out_of_space_halfway_is_taken_back(disk: FakeDisk) -> None:
    log = filled(disk)
    disk.full = True
    with pytest.raises(OSError, match="No space"):
        log.add(b"without room, from now on", 13, 1)
    disk.full = False
    disk.free = 10
    with pytest.raises(OSError, match="No space"):
        log.add(b"x", 13, 1)
    disk.free = 1000
    log.add(b"y", 13, 1)
    assert store(disk)[-1] == (b"y", 13, 1)


def test_a_failed_sync_is_final(disk: FakeDisk) -> None:
    log = filled(disk)
    log.add(b"x", 13, 1)
    disk.fail_sync = True
    with pytest.raises(OSError, match="error"):
        log.sync()
    disk.fail_sync = False
    for call in (log.sync, lambda: log.add(b"y", 14, 1), lambda: log.setRaftCommitIndex(13)):
        with pytest.raises(OSError, match="earlier"):
            call()
    assert log.durable_index == 12


def test_commit_makes_the_own_copy_durable_and_no_more(disk: FakeDisk) -> None:
    log = filled(disk)
    log.add(b"x", 13, 1)
    syncs = disk.syncs
    log.setRaftCommitIndex(12)
    assert disk.syncs == syncs
    log.setRaftCommitIndex(13)
    assert disk.syncs == syncs + 1
    log.setRaftCommitIndex(13)
    log.setRaftCommitIndex(2)
    assert disk.syncs == syncs + 1
    assert log.getRaftCommitIndex() == 1


def test_a_conflict_removes_entries_across_segments(disk: FakeDisk) -> None:
    log = filled(disk, last=4)
    for index in range(5, 20):
        log.add(b"uncommitted %d" % index, index, 1)
    log.sync()
    log.deleteEntriesFrom(5)
    assert log[-1] == (b"uncommitted 5", 5, 1)
    log.setCurrentTerm(2, None)
    log.add(b"other", 6, 2)
    log.sync()
    after = log[:]
    disk.power_cut()
    assert store(disk)[:] == after


def test_a_conflict_is_durable_on_return(disk: FakeDisk) -> None:
    for seed in range(20):
        disk = FakeDisk(Random(seed))
        log = filled(disk, last=4)
        log.add(b"uncommitted", 5, 1)
        log.add(b"uncommitted", 6, 1)
        log.deleteEntriesFrom(5)
        assert log.durable_index == 5
        disk.power_cut()
        assert store(disk).last_index == 5


def test_what_is_committed_is_never_cut(disk: FakeDisk) -> None:
    log = filled(disk)
    for position in (0, 5, 11):
        with pytest.raises(AssertionError, match="committed"):
            log.deleteEntriesFrom(position)
    log.deleteEntriesFrom(12)
    with pytest.raises(AssertionError, match="never emptied"):
        log.clear()
    assert log.last_index == 12


def test_trim_drops_whole_segments_and_keeps_the_index(disk: FakeDisk) -> None:
    log = filled(disk)
    log.trim_to(9)
    assert 1 < log.first_index <= 9
    assert log[0][1] == log.first_index
    assert log[-1] == (b"command 12", 12, 1)
    assert log.term_at(1) is None
    after = log[:]
    assert store(disk)[:] == after


def test_trim_never_takes_the_last_segment(disk: FakeDisk) -> None:
    log = filled(disk)
    log.trim_to(1000)
    assert log.last_index == 12
    assert len([name for name in disk.names() if name.startswith("log-")]) == 1
    assert store(disk).last_index == 12
    log = store(disk)
    log.deleteEntriesTo(0)
    log.add(b"x", 13, 1)
    assert log.last_index == 13


def test_reset_leaves_one_sentinel(disk: FakeDisk) -> None:
    log = filled(disk)
    log.setCurrentTerm(3, None)
    log.reset_to(500, 3)
    assert log[:] == [(NO_OP, 500, 3)]
    assert log.durable_index == 500
    log.add(b"next", 501, 3)
    log.sync()
    disk.power_cut()
    log = store(disk)
    assert log[:] == [(NO_OP, 500, 3), (b"next", 501, 3)]
    assert log.getCurrentTerm() == 3


def test_reset_to_where_a_segment_begins_already(disk: FakeDisk) -> None:
    log = filled(disk, last=2)
    for index in range(3, 15):
        log.add(b"uncommitted %d" % index, index, 1)
    log.sync()
    base = max(int(name[4:24]) for name in disk.names() if name.startswith("log-"))
    log.setCurrentTerm(2, None)
    log.reset_to(base, 2)
    assert store(disk)[:] == [(NO_OP, base, 2)]


def test_reset_to_an_entry_that_we_hold_keeps_what_follows(disk: FakeDisk) -> None:
    log = filled(disk, last=8)
    for index in range(9, 13):
        log.add(b"acknowledged %d" % index, index, 1)
    log.sync()
    log.reset_to(10, 1)
    assert log.first_index <= 10
    assert log[-1] == (b"acknowledged 12", 12, 1)


def test_reset_never_goes_back(disk: FakeDisk) -> None:
    log = filled(disk)
    log.setCurrentTerm(2, None)
    with pytest.raises(AssertionError, match="committed"):
        log.reset_to(11, 2)
    with pytest.raises(AssertionError, match="snapshot of term"):
        log.reset_to(20, 3)


def test_leaving_writes_the_floor(disk: FakeDisk) -> None:
    log = filled(disk)
    log.add(b"x", 13, 1)
    log.setRaftCommitIndex(13)
    log.close()
    assert store(disk).ballot.floor == 13


def test_a_torn_tail_is_cut(disk: FakeDisk) -> None:
    log = filled(disk)
    log.add(b"torn", 13, 1)
    name = max(disk.names())
    raw = written(disk)[name]
    disk.put(name, raw[:-1])
    log = store(disk)
    assert log.last_index == 12
    assert disk.files()[name] == raw[: -36 - 4]
    log.add(b"again", 13, 1)
    log.sync()
    disk.power_cut()
    assert store(disk)[-1] == (b"again", 13, 1)


def test_a_hole_before_an_intact_record_that_was_not_synced_either_is_cut(disk: FakeDisk) -> None:
    log = filled(disk, last=2)
    log.add(b"first", 3, 1)
    log.add(b"second", 4, 1)
    name = max(disk.names())
    raw = bytearray(disk.files()[name])
    at = raw.index(b"first") - 36
    raw[at : at + 41] = bytes(41)
    disk.put(name, bytes(raw))
    assert store(disk).last_index == 2


def test_damage_below_a_later_witness_is_refused(disk: FakeDisk) -> None:
    log = filled(disk, last=2)
    log.add(b"first", 3, 1)
    log.sync()
    log.add(b"second", 4, 1)
    name = max(disk.names())
    raw = bytearray(disk.files()[name])
    at = raw.index(b"first")
    raw[at] ^= 1
    disk.put(name, bytes(raw))
    with pytest.raises(Damaged, match=rf"byte {at - 36}: record 3 is damaged.*up to index 3 was durable.*put back"):
        store(disk)
    assert disk.files()[name] == bytes(raw)


def test_damage_below_the_floor_is_refused(disk: FakeDisk) -> None:
    filled(disk)
    name = max(disk.names())
    disk.put(name, written(disk)[name][:-1])
    with pytest.raises(Damaged, match="record 12 is damaged, but everything up to index 12 was durable"):
        store(disk)


def test_damage_in_an_older_segment_is_refused(disk: FakeDisk) -> None:
    filled(disk)
    name = segment_name(1)
    disk.put(name, disk.files()[name][:-1])
    with pytest.raises(Damaged, match="segments follow"):
        store(disk)


def test_missing_segments_are_refused(disk: FakeDisk) -> None:
    filled(disk)
    whole = disk.files()
    for name in [name for name in whole if name.startswith("log-")]:
        disk.put(name, None)
        with pytest.raises(Damaged):
            store(disk)
        disk.put(name, whole[name])
    assert store(disk).last_index == 12


def test_a_missing_ballot_is_refused(disk: FakeDisk) -> None:
    filled(disk)
    disk.put("ballot", None)
    with pytest.raises(Damaged, match="ballot: missing"):
        store(disk)


def test_an_older_ballot_is_refused(disk: FakeDisk) -> None:
    log = filled(disk)
    old = disk.files()["ballot"]
    log.setCurrentTerm(2, None)
    log.add(b"x", 13, 2)
    log.sync()
    disk.put("ballot", old)
    with pytest.raises(Damaged, match="older copy"):
        store(disk)


def test_a_segment_of_another_kind_is_refused(disk: FakeDisk) -> None:
    filled(disk)
    whole = disk.files()
    first, second = segment_name(1), sorted(name for name in whole if name.startswith("log-"))[1]
    for name, raw, meaning in (
        (first, b"", "ends inside its header"),
        (first, b"SQLite format 3\0" * 4, "not a log segment"),
        (first, whole[second], "begins at index"),
        (first, whole[first][:8] + b"\x02" + whole[first][9:], "checksum"),
    ):
        disk.put(name, raw)
        with pytest.raises(Damaged, match=meaning):
            store(disk)
    disk.put(first, whole[first])
    with pytest.raises(Damaged, match="group"):
        LogStore(disk.boot(), segment_bytes=SMALL, group=1)
    assert disk.files() == whole


def rewritten(disk: FakeDisk, name: str, records: list[bytes], *, header: bytes | None = None) -> None:
    """Put a segment there whose checksums are right, although its content is not."""
    raw = encode_header(1, 0) if header is None else header
    for number, record in enumerate(records):
        raw += encode_record(record, number + 1, 3 - number, 0, len(raw))
    disk.put(name, raw)


def test_what_no_crash_can_write_is_refused_even_with_right_checksums(disk: FakeDisk) -> None:
    log = store(disk)
    log.setCurrentTerm(9, None)
    rewritten(disk, segment_name(1), [b"a", b"b"])
    with pytest.raises(Damaged, match="the term falls from 3 to 2 at index 2"):
        store(disk)
    header = encode_header(1, 0)[:-4].replace(b"\x01\0\0\0", b"\x02\0\0\0", 1)
    rewritten(disk, segment_name(1), [b"a"], header=header + zlib.crc32(header).to_bytes(4, "little"))
    with pytest.raises(Damaged, match="written in format 2, and this quorl reads format 1"):
        store(disk)
    disk.put(segment_name(1), encode_header(1, 0) + encode_record(b"a", 2, 0, 0, 28))
    with pytest.raises(Damaged, match="found the intact record 2 where 1 belongs"):
        store(disk)
