"""The log store: the entries, the term and the vote of one member, on a disk that may lose power at any moment.

Invariants, at every instant and after every crash:

* What ``sync`` returned for is never lost and never changed, except by ``deleteEntriesFrom`` on a conflict.
* The memory holds what the disk holds: an operation that raises has changed neither, or both alike. Of all entries it holds
  index and term, but commands only of the sentinel and of the newest: ``held_bytes``. Others are read back, and checked.
* A log that is not what was written is refused with ``Damaged``. The one exception is a torn tail: damage in the last
  segment is cut away if nothing says that the damaged record was durable before the crash - not the ballot's floor,
  and no intact record behind it. A crash before a sync leaves just that, and nobody was promised those records.
  (A record that was synced less than a second before a crash *and* is damaged by the medium itself looks the same;
  no later write has had the time to bear witness for it.)

How each change survives a crash in its middle:

* Roll: the old segment ends with its last record and is synced, then the new one appears with its whole header. So only
  the last may be torn, or have room behind its end: zeros, which ``open`` cuts away.
* ``deleteEntriesFrom``: newest segments go first, then the cut, then a sync. In between the log is longer, but whole.
* ``trim_to``: the ballot's ``first`` is written, then the older segments go, oldest first; ``open`` finishes that.
* ``reset_to`` and birth: the ballot's ``reset`` decides, in one atomic write. Before it the old log stands, after it
  the log is the new sentinel, and ``open`` finishes the replacement of the segments.

Who calls: the library (its journal interface, hence the camel case) and the adapter around it, on one thread.
Positions are places in the list of entries, indexes are those of Raft: position 0 has index ``first_index``.
"""

from __future__ import annotations

import bisect
import errno
from array import array
from collections.abc import Callable
from typing import overload

from quorl.cluster.consensus.ballot import NAME as BALLOT_NAME
from quorl.cluster.consensus.ballot import Ballot
from quorl.cluster.consensus.damage import damaged
from quorl.cluster.consensus.library import NO_OP
from quorl.cluster.consensus.port import NO_DESCRIPTORS, Disk, LogFile
from quorl.cluster.consensus.segment import (
    HEADER_BYTES,
    RECORD_BYTES,
    Record,
    base_of,
    check_header,
    decode_record,
    encode_header,
    encode_record,
    scan,
    segment_name,
)

Entry = tuple[bytes, int, int]
"""Command, index, term: the shape that the library slices and sends."""

SEGMENT_BYTES = 64 * 1024 * 1024
"""Unless told otherwise; a node takes a quarter of its ``log_bytes_max``."""
HELD_BYTES = 16 * 1024 * 1024
"""Commands in memory: what followers that keep up ask for, and whoever applies."""

ROOM_BYTES = 256 * 1024
"""What is made ready behind the log's end at a time, of zeros."""
ROOM_RECORDS_MIN = 8
"""Records of which fewer fit into that go without: to write both zeros and data would cost more than it spares."""

READ_BYTES = 256 * 1024
"""What is read back at a time: a follower that is behind asks for one entry after the other."""

_AWAY = b"on the disk alone"
"""Stands for a command that is not held; told from a command that reads so by its identity."""


class _Segment:
    """Where the records of one file begin."""

    __slots__ = ("base", "name", "offsets", "size")

    def __init__(self, base: int) -> None:
        self.base = base
        self.name = segment_name(base)
        self.offsets = array("Q")
        self.size = HEADER_BYTES


class LogStore:
    """The durable log of one member; opens what the disk holds or gives birth to a new one."""

    def __init__(
        self, disk: Disk, *, segment_bytes: int = SEGMENT_BYTES, held_bytes: int = HELD_BYTES, group: int = 0
    ) -> None:
        """Read everything back. Raises ``Damaged`` if that is not certainly what was written."""
        self._disk = disk
        self._segment_bytes = segment_bytes
        self._group = group
        self._entries: list[Entry] = []
        self._held_bytes_max = held_bytes
        self._held_bytes = 0
        """Of the commands from ``_held_from`` on. That is a position, never the sentinel's."""
        self._held_from = 1
        self._piece = "", 0, b""
        """What was read back last: of which segment, from which byte on, and what."""
        self._segments: list[_Segment] = []
        disk.lock()
        self.ballot = self._load_ballot()
        self._floor = self.ballot.floor
        self._file: LogFile
        if self.ballot.reset is not None:
            self._replace(*self.ballot.reset)
        else:
            self._load()
            self._file = disk.open(self._segments[-1].name)
            self._cut_torn_tail()
        # A killed process leaves records in the kernel's memory only: what we are about to rely upon must be durable.
        self._file.sync()
        self._durable = self.last_index
        self._unsynced_bytes = 0
        self.lacked_room = False
        """Whether the disk had too little room for what was to be appended last."""
        self._changes = 0
        """How often something else than appending has changed the log."""

    # -- what it holds --------------------------------------------------------------------------------------------
    @property
    def first_index(self) -> int:
        """The index of the oldest entry, the sentinel."""
        return self._entries[0][1]

    @property
    def last_index(self) -> int:
        """The index of the newest entry."""
        return self._entries[-1][1]

    @property
    def durable_index(self) -> int:
        """Everything up to here survives a power cut."""
        return self._durable

    @property
    def unsynced_bytes(self) -> int:
        """How much was appended since the last sync."""
        return self._unsynced_bytes

    @property
    def size_bytes(self) -> int:
        """What the log takes on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def pristine(self) -> bool:
        """Whether this log is as empty as at birth: no term seen, nothing but the first sentinel."""
        return self.ballot.pristine and len(self._entries) == 1

    def term_at(self, index: int) -> int | None:
        """The term of an entry, None outside the log."""
        position = index - self._entries[0][1]
        return self._entries[position][2] if 0 <= position < len(self._entries) else None

    def entry(self, index: int) -> Entry:
        """The entry of an index that is in the log."""
        position = index - self._entries[0][1]
        assert 0 <= position < len(self._entries), f"entry {index} is not in the log"
        return self._whole(position)

    def entries_from(self, index: int, size_bytes: int) -> list[Entry]:
        """The entries from ``index`` on, as many as fit into ``size_bytes`` of commands, at least one if there is one."""
        start = index - self._entries[0][1]
        assert start >= 0, f"entry {index} is not in the log any more"
        found: list[Entry] = []
        for position in range(start, len(self._entries)):
            entry = self._whole(position)
            size_bytes -= len(entry[0])
            if size_bytes < 0 and found:
                break
            found.append(entry)
        return found

    def __len__(self) -> int:
        """How many entries there are; never 0."""
        return len(self._entries)

    @overload
    def __getitem__(self, position: int) -> Entry: ...
    @overload
    def __getitem__(self, position: slice) -> list[Entry]: ...
    def __getitem__(self, position: int | slice) -> Entry | list[Entry]:
        """Entries by position, as of a list."""
        if isinstance(position, slice):
            return [self._whole(one) for one in range(*position.indices(len(self._entries)))]
        return self._whole(position)

    # -- what is held in memory ------------------------------------------------------------------------------------
    def _whole(self, position: int) -> Entry:
        entry = self._entries[position]
        return entry if entry[0] is not _AWAY else self._read_back(entry[1], entry[2])

    def _read_back(self, index: int, term: int) -> Entry:
        segment = self._segments[bisect.bisect_right(self._segments, index, key=lambda one: one.base) - 1]
        place = index - segment.base
        offset = segment.offsets[place]
        end = segment.offsets[place + 1] if place + 1 < len(segment.offsets) else segment.size
        name, start, raw = self._piece
        if name != segment.name or offset < start or end > start + len(raw):
            start, raw = offset, self._disk.read_at(segment.name, offset, max(READ_BYTES, end - offset))
            self._piece = segment.name, start, raw
        record = decode_record(raw, offset, start)
        if record is None or (record.index, record.term) != (index, term):
            self._piece = "", 0, b""
            raise OSError(errno.EIO, f"entry {index} is not there any more as it was written", segment.name)
        return record.command, index, term

    def _hold(self, entry: Entry) -> None:
        """One entry more; the oldest commands make room for its own."""
        self._entries.append(entry)
        if len(self._entries) > 1:
            self._held_bytes += len(entry[0])
        while self._held_bytes > self._held_bytes_max and self._held_from < len(self._entries) - 1:
            command, index, term = self._entries[self._held_from]
            self._entries[self._held_from] = (_AWAY, index, term)
            self._held_bytes -= len(command)
            self._held_from += 1

    def _forget_from(self, position: int) -> None:
        """The entries from a position on are gone, and others will lie where they lay."""
        self._piece = "", 0, b""
        self._held_bytes -= sum([len(entry[0]) for entry in self._entries[max(position, self._held_from) :]])
        del self._entries[position:]
        self._held_from = min(self._held_from, max(1, len(self._entries)))

    def _begin_with(self, sentinel: Entry) -> None:
        """What lies before that entry is gone, and it is the sentinel now."""
        position = sentinel[1] - self.first_index
        self._held_bytes -= sum([len(entry[0]) for entry in self._entries[self._held_from : position + 1]])
        self._entries[: position + 1] = [sentinel]
        self._held_from = max(1, self._held_from - position)

    # -- writing --------------------------------------------------------------------------------------------------
    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry; it is durable after the next ``sync``. On ``OSError`` nothing changed."""
        last = self._entries[-1]
        assert idx == last[1] + 1, f"entry {idx} after {last[1]}"
        assert last[2] <= term <= self.ballot.term, f"entry of term {term} after {last[2]} in term {self.ballot.term}"
        segment = self._segments[-1]
        try:
            if segment.offsets and segment.size + RECORD_BYTES + len(command) > self._segment_bytes:
                segment = self._roll(idx)
            record = encode_record(command, idx, term, self._durable, segment.size)
            self._file.append(record, self._room_behind(segment.size + len(record), len(record)))
        except OSError as error:
            self.lacked_room = error.errno == errno.ENOSPC
            raise
        self.lacked_room = False
        segment.offsets.append(segment.size)
        segment.size += len(record)
        self._unsynced_bytes += len(record)
        self._hold((command, idx, term))

    def sync(self) -> None:
        """Make every entry durable. An error is final: the process must stop."""
        last = self._entries[-1][1]
        if self._durable != last:
            self._file.sync()
            self._durable = last
        self._unsynced_bytes = 0

    def sync_soon(self, ended: Callable[[OSError | None], None]) -> bool:
        """Begin to make durable what the log holds now; see ``LogFile``. ``durable_index`` is right when ``ended`` is called."""
        last, changes = self._entries[-1][1], self._changes
        self._unsynced_bytes = 0

        def note(error: OSError | None) -> None:
            if error is None and changes == self._changes:
                self._durable = max(self._durable, last)
            ended(error)

        return self._file.sync_soon(note)

    def deleteEntriesFrom(self, position: int) -> None:
        """Cut the log before ``position``, because the leader has something else there; durable on return."""
        index = self.first_index + position
        if index > self.last_index:
            return
        assert index > self._floor, f"cut at {index} would forget the committed {self._floor}"
        self._changes += 1
        self._durable = min(self._durable, index - 1)
        while self._segments[-1].base >= index:
            self._drop_newest_segment()
        segment = self._segments[-1]
        kept = index - segment.base
        if kept < len(segment.offsets):
            self._file.truncate(segment.offsets[kept])
            segment.size = segment.offsets[kept]
            del segment.offsets[kept:]
            self._forget_from(position)
        self._file.sync()
        self._durable = self.last_index

    def trim_to(self, index: int) -> None:
        """Forget whole segments that lie below ``index``; its caller has their effects durable elsewhere.

        The oldest entry that stays is the sentinel. The newest segment always stays, and so does every entry from
        ``index`` on. Without a file descriptor to be had nothing goes this time.
        """
        bases = [segment.base for segment in self._segments if segment.base <= min(index, self.last_index)]
        if len(bases) < 2:
            return
        first = bases[-1]
        self._floor = max(self._floor, first)
        self.sync()
        try:
            sentinel = self.entry(first)
            self.ballot.set_first(first, self._floor)
        except OSError as error:
            if error.errno not in NO_DESCRIPTORS:
                raise
            return  # no file could be opened, and so nothing has changed: a later trim does it
        self._begin_with(sentinel)
        while self._segments[0].base < first:
            self._disk.set_aside(self._segments[0].name)  # should it come back: the ballot says where the log begins
            del self._segments[0]

    def reset_to(self, index: int, term: int) -> None:
        """Begin again behind an installed snapshot whose last entry is (index, term); ``term`` has been seen before.

        The log becomes one sentinel entry - unless it holds that very entry. Then it agrees with the snapshot, and
        what follows may already have been acknowledged to a leader: it stays, and only the past is trimmed.
        After an ``OSError`` from here the store must be opened anew; that finishes the work.
        """
        assert term <= self.ballot.term, f"snapshot of term {term} in term {self.ballot.term}"
        if self.term_at(index) == term:
            self.trim_to(index)
            return
        self._changes += 1
        self.ballot.begin_reset(index, term)
        self._floor = index
        self._file.close()
        self._replace(index, term)
        self._durable = index

    # -- the rest of the library's journal interface --------------------------------------------------------------
    def deleteEntriesTo(self, position: int) -> None:
        """Forget what lies before ``position``, as far as whole segments allow."""
        self.trim_to(self.first_index + position)

    def clear(self) -> None:
        """Refused: an emptied log has forgotten what it acknowledged. ``reset_to`` is the way."""
        raise AssertionError("a log is never emptied; reset_to replaces it by a snapshot's last entry")

    def setRaftCommitIndex(self, idx: int) -> None:
        """Our own copy of what is committed is durable before it is applied."""
        idx = min(idx, self.last_index)
        if idx > self._durable:
            self.sync()
        self._floor = max(self._floor, idx)

    def getRaftCommitIndex(self) -> int:
        """Always 1: the commit index is volatile, and a new leader tells it."""
        return 1

    def setCurrentTerm(self, term: int, vote: str | None) -> None:
        """Enter a term or vote in it; durable on return."""
        self.ballot.set_term(term, vote, self._floor)

    def getCurrentTerm(self) -> int:
        """The highest term seen."""
        return self.ballot.term

    def getVotedForNodeId(self) -> str | None:
        """Whom we voted for in it."""
        return self.ballot.vote

    def onOneSecondTimer(self) -> None:
        """Bear witness for what is committed, so that its loss would be noticed."""
        self.ballot.raise_floor(self._floor)

    def close(self) -> None:
        """Make durable what is there, and let go of the file."""
        self.sync()
        self.ballot.raise_floor(self._floor)
        self._file.close()

    # -- segments -------------------------------------------------------------------------------------------------
    def _room_behind(self, end: int, record_bytes: int) -> int:
        """How much room a record makes behind itself if it has to make the file longer anyway."""
        if record_bytes * ROOM_RECORDS_MIN > ROOM_BYTES:
            return 0
        return max(0, min(ROOM_BYTES, self._segment_bytes - end))

    def _roll(self, base: int) -> _Segment:
        # Not self.sync(): an append that failed and was taken back is not durably gone, although no entry is missing.
        self._file.truncate(self._segments[-1].size)
        self._file.sync()
        self._durable = self.last_index
        segment = _Segment(base)
        file = self._disk.create(segment.name, encode_header(base, self._group))
        self._file.close()
        self._file = file
        self._segments.append(segment)
        return segment

    def _drop_newest_segment(self) -> None:
        segment, before = self._segments[-1], self._segments[-2]
        file = self._disk.open(before.name)  # first: what is removed must not be what the log goes on with
        self._disk.remove(segment.name)
        self._file.close()
        self._file = file
        self._forget_from(segment.base - self.first_index)
        del self._segments[-1]

    def _replace(self, index: int, term: int) -> None:
        """Finish what the ballot's ``reset`` began."""
        for name in self._segment_names():
            self._disk.remove(name)
        segment = _Segment(index)
        head = encode_header(index, self._group)
        head += encode_record(NO_OP, index, term, index - 1, len(head))
        self._file = self._disk.create(segment.name, head)
        self.ballot.end_reset()
        segment.offsets.append(HEADER_BYTES)
        segment.size = len(head)
        self._segments = [segment]
        self._entries, self._held_bytes, self._held_from = [(NO_OP, index, term)], 0, 1
        self._piece = "", 0, b""

    def _segment_names(self) -> list[str]:
        return [name for name in self._disk.names() if base_of(name) is not None]

    # -- opening --------------------------------------------------------------------------------------------------
    def _load_ballot(self) -> Ballot:
        ballot = Ballot.load(self._disk)
        if ballot is not None:
            return ballot
        if names := self._segment_names():
            raise damaged(BALLOT_NAME, None, f"missing although there is a log ({names[0]}); a vote may be forgotten")
        return Ballot.birth(self._disk)

    def _load(self) -> None:
        first = self.ballot.first
        names = self._segment_names()
        if segment_name(first) not in names:
            raise damaged(segment_name(first), None, "missing, and the log begins with it")
        for name in names:
            if name < segment_name(first):
                self._disk.remove(name)
        names = [name for name in names if name >= segment_name(first)]
        for name in names:
            self._load_segment(name, last=name == names[-1])
        if self._entries[-1][2] > self.ballot.term:
            meaning = f"an older copy: it knows term {self.ballot.term}, and the log ends in {self._entries[-1][2]}"
            raise damaged(BALLOT_NAME, None, meaning)

    def _load_segment(self, name: str, *, last: bool) -> None:
        segment = _Segment(base_of(name) or 0)
        raw = self._disk.read(name)
        check_header(name, raw, segment.base, self._group)
        before = self._segments[-1] if self._segments else None
        expected = before.base + len(before.offsets) if before else self.ballot.first
        if segment.base != expected:
            raise damaged(name, None, f"the log has a gap: {expected} should follow, and this begins at {segment.base}")
        found = scan(name, raw, segment.base, self._entries[-1][2] if self._entries else 0)
        index = segment.base + len(found.records)
        if found.end < len(raw) and not last:
            raise damaged(name, found.end, f"record {index} is damaged, and segments follow that were written later")
        promised = max(found.witness, self._floor)
        if last and index <= promised:
            what = f"record {index} is damaged" if raw[found.end :].strip(b"\0") else "the log ends here"
            raise damaged(name, found.end, f"{what}, but everything up to index {promised} was durable")
        self._take(segment, found.records)

    def _take(self, segment: _Segment, records: list[Record]) -> None:
        for record in records:
            segment.offsets.append(segment.size)
            segment.size = record.end
            self._hold((record.command, record.index, record.term))
        self._segments.append(segment)

    def _cut_torn_tail(self) -> None:
        size = self._segments[-1].size
        if self._file.size > size:
            self._file.truncate(size)
