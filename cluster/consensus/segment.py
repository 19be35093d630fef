"""The bytes of one log segment: a header, then records without gaps. Pure: knows no disk.

A segment is named by the index of its first record. All integers are little-endian.

    header    magic "quorllog" (8) | format version u32 | group u32 | base index u64 | crc u32 of what precedes it
    record    marker (4) | crc u32 | length u32 | index u64 | term u64 | durable u64 | command (length bytes)

A record's crc covers its length, index, term, durable, its own byte offset and the command, so that a record that was
moved, or one that is merely quoted inside a command, is none. ``durable`` is the highest index that was known to be
durable when the record was written: an intact record bears witness for all those before it.

A segment may be written over one that the log no longer needed. What is left of that lies behind its end until it is
written over, too, and is told by its indexes: all of them are below the base.
"""

from __future__ import annotations

import re
import struct
from typing import NamedTuple

import msgspec

from quorl.cluster.consensus.damage import damaged, other_format
from quorl.cluster.protocol.crc import crc32

VERSION = 1
"""Of the log's format; a node refuses another one, and changes nothing."""

_MAGIC = b"quorllog"
_MARKER = b"\xf1Rq\x8e"
_HEADER = struct.Struct("<8sIIQI")
_RECORD = struct.Struct("<4sIIQQQ")
_COVERED = struct.Struct("<IQQQQ")
_NAME = re.compile(r"log-(\d{20})\.seg")

HEADER_BYTES = _HEADER.size
RECORD_BYTES = _RECORD.size
"""What a record costs beside its command."""


class Record(msgspec.Struct, frozen=True):
    """One intact record as it lies in its segment."""

    command: bytes
    index: int
    term: int
    durable: int
    end: int
    """The byte after its last one."""


class Scan(NamedTuple):
    """What a segment holds, read from its beginning up to the first byte that is no intact record."""

    records: list[Record]
    end: int
    """The byte after the last intact record; the file's size if nothing is wrong."""
    witness: int
    """The highest ``durable`` in any intact record behind the damage; 0 if there is none."""


def segment_name(base: int) -> str:
    """The file name of the segment whose first record has index ``base``."""
    return f"log-{base:020d}.seg"


def base_of(name: str) -> int | None:
    """The index in a segment's file name, None for any other file."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def encode_header(base: int, group: int) -> bytes:
    """The first bytes of a segment."""
    head = _HEADER.pack(_MAGIC, VERSION, group, base, 0)[:-4]
    return head + crc32(head).to_bytes(4, "little")


def check_header(name: str, raw: bytes, base: int, group: int) -> None:
    """Raise ``Damaged`` unless ``raw`` begins with the header of exactly this segment in a version that we can read."""
    if len(raw) < HEADER_BYTES:
        raise damaged(name, len(raw), f"the file ends inside its header of {HEADER_BYTES} bytes")
    magic, version, found_group, found_base, crc = _HEADER.unpack_from(raw)
    if magic != _MAGIC:
        raise damaged(name, 0, "this is not a log segment: its first eight bytes are wrong")
    if crc != crc32(raw[: HEADER_BYTES - 4]):
        raise damaged(name, 8, "the header's checksum does not fit")
    if version != VERSION:
        raise other_format(name, version, VERSION)
    if found_group != group:
        raise damaged(name, 12, f"the segment belongs to group {found_group}, not to group {group}")
    if found_base != base:
        raise damaged(name, 16, f"the header says that it begins at index {found_base}, and the name says {base}")


def encode_record(command: bytes, index: int, term: int, durable: int, offset: int) -> bytes:
    """The bytes of a record that will lie at ``offset``."""
    length = len(command)
    crc = crc32(command, crc32(_COVERED.pack(length, index, term, durable, offset)))
    return _RECORD.pack(_MARKER, crc, length, index, term, durable) + command


def decode_record(raw: bytes, offset: int, skipped: int = 0) -> Record | None:
    """The record at ``offset``, None if there is no intact one. ``raw`` is the segment without its first ``skipped`` bytes."""
    start = offset - skipped + RECORD_BYTES
    if start > len(raw):
        return None
    marker, crc, length, index, term, durable = _RECORD.unpack_from(raw, offset - skipped)
    end = start + length
    if marker != _MARKER or end > len(raw):
        return None
    command = raw[start:end]
    if crc != crc32(command, crc32(_COVERED.pack(length, index, term, durable, offset))):
        return None
    return Record(command, index, term, durable, end + skipped)


def scan(name: str, raw: bytes, base: int, term: int) -> Scan:
    """Read a segment whose header was checked. ``term`` is that of the entry before it.

    Intact records must be numbered without gaps from ``base``, in terms that never decrease: no crash writes anything
    else, so that raises ``Damaged`` at once.
    """
    records: list[Record] = []
    offset, index = HEADER_BYTES, base
    while (record := decode_record(raw, offset)) is not None and not _is_left_over(record, base):
        if record.index != index:
            raise damaged(name, offset, f"found the intact record {record.index} where {index} belongs")
        if record.term < term:
            raise damaged(name, offset, f"the term falls from {term} to {record.term} at index {index}")
        records.append(record)
        offset, index, term = record.end, index + 1, record.term
    return Scan(records, offset, _witness(raw, offset, base))


def _is_left_over(record: Record, base: int) -> bool:
    """Whether a record belongs to what this file was before: an older segment, which means nothing any more."""
    return record.index < base


def _witness(raw: bytes, damage: int, base: int) -> int:
    """What the intact records behind a damaged one say was durable. Its length cannot be trusted: look everywhere."""
    witness, offset = 0, damage
    while (offset := raw.find(_MARKER, offset + 1)) >= 0:
        record = decode_record(raw, offset)
        if record is not None and not _is_left_over(record, base):
            witness, offset = max(witness, record.durable), record.end - 1
    return witness
