"""Which partition a message with a key belongs to. Part of the contract: it may never change, or per-key order breaks."""

from __future__ import annotations

from quorl.cluster.protocol.crc import crc32


def partition_of(key: str, partitions: int) -> int:
    """Return the partition that a key decides, in a topic with so many partitions."""
    return crc32(key.encode()) % partitions
