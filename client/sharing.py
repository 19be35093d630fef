"""Telling each of several appends that travelled together where its own messages are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.placement import partition_of


class Mismatch(Exception):
    """The ranges are not those of these messages."""


def share(
    parts: Sequence[Sequence[t.Message]], ranges: Sequence[t.Range], partitions: int | UnsetType
) -> list[list[t.Range]]:
    """Return the ranges of each part, or raise ``Mismatch``. Several ranges take the topic's number of partitions.

    Within a partition messages are stored in the order in which they were sent. Those with a key are where the key says,
    those without are together in one partition, which is the one that holds more messages than the keys explain.
    """
    if len(parts) == 1:
        return [list(ranges)]
    if len(ranges) == 1:
        return _in_sequence(parts, ranges[0])
    if partitions is UNSET:
        raise Mismatch
    return _by_key(parts, ranges, partitions)


def _in_sequence(parts: Sequence[Sequence[t.Message]], whole: t.Range) -> list[list[t.Range]]:
    shares = []
    offset = whole.first_offset
    for part in parts:
        shares.append([t.Range(partition=whole.partition, first_offset=offset, last_offset=offset + len(part) - 1)])
        offset += len(part)
    if offset != whole.last_offset + 1:
        raise Mismatch
    return shares


def _by_key(parts: Sequence[Sequence[t.Message]], ranges: Sequence[t.Range], partitions: int) -> list[list[t.Range]]:
    stored = Counter({one.partition: one.last_offset - one.first_offset + 1 for one in ranges})
    keyed = Counter(partition_of(m.key, partitions) for part in parts for m in part if m.key is not None)
    spare = stored - keyed
    total = sum(len(part) for part in parts)
    if keyed - stored or len(spare) > 1 or stored.total() != total:
        raise Mismatch
    keyless = next(iter(spare), None)
    following = {one.partition: one.first_offset for one in ranges}
    shares = []
    for part in parts:
        counts = Counter(keyless if m.key is None else partition_of(m.key, partitions) for m in part)
        mine = []
        for partition, count in sorted((p, n) for p, n in counts.items() if p is not None):
            first = following[partition]
            following[partition] = first + count
            mine.append(t.Range(partition=partition, first_offset=first, last_offset=first + count - 1))
        shares.append(mine)
    return shares
