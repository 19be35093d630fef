"""Storing the messages of one append as record batches.

Invariants: one row per append and partition; offsets dense; the order of an append is kept within each partition. The
body of a row is a JSON array with as many messages as the row counts, packed or not, so that no reader ever meets a surprise:
that is checked here, once, although it was checked before it was proposed. For a body that is stored as it came it is enough
that its checksum says that it is the one that was checked there. Nothing is packed here: that differs from node to node.
"""

from __future__ import annotations

import msgspec

from quorl.cluster.machine import events as e
from quorl.cluster.machine.state import State, Topic
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.packing import unpack
from quorl.cluster.protocol.placement import partition_of

_INSERT_BATCH = (
    "INSERT INTO batches (topic_id, partition, base_offset, count, created_ms, end_bytes, body)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
_NEXT_PARTITION = "UPDATE topics SET next_partition = ? WHERE topic_id = ?"

_decode_messages = msgspec.json.Decoder(list[t.Message]).decode
_encode_messages = msgspec.json.Encoder().encode


def store(state: State, topic: Topic, command: t.AppendBatch) -> list[t.Range]:
    """Store the messages and say where they went, in order of the partitions."""
    if command.checksum is not None:
        if t.checksum_of(command.count, command.size_bytes, command.body) != command.checksum:
            raise ValueError("the body of an append is not the one that its checksum was made of")
        if topic.partitions == 1 and command.count > 0:
            return [_store_batch(state, topic, 0, command.count, command.size_bytes, command.body)]
    messages = _decode_messages(unpack(command.body))
    if len(messages) != command.count or not messages:
        raise ValueError("the body of an append has not as many messages as the append says")
    if t.size_bytes(messages) != command.size_bytes:
        raise ValueError("the body of an append has not as many bytes of values and keys as the append says")
    if topic.partitions == 1:
        return [_store_batch(state, topic, 0, command.count, command.size_bytes, command.body)]
    shares = _split(messages, topic)
    if any(message.key is None for message in messages):
        following = (topic.next_partition + 1) % topic.partitions
        state.execute(_NEXT_PARTITION, (following, topic.topic_id))
        topic.next_partition = following
    if len(shares) == 1:
        (partition,) = shares
        return [_store_batch(state, topic, partition, command.count, command.size_bytes, command.body)]
    return [
        _store_batch(state, topic, partition, len(share), t.size_bytes(share), _encode_messages(share))
        for partition, share in sorted(shares.items())
    ]


def _split(messages: list[t.Message], topic: Topic) -> dict[int, list[t.Message]]:
    """Deal messages out: by key where there is one, the others together to the next partition in turn."""
    shares: dict[int, list[t.Message]] = {}
    for message in messages:
        if message.key is None:
            partition = topic.next_partition
        else:
            partition = partition_of(message.key, topic.partitions)
        shares.setdefault(partition, []).append(message)
    return shares


def _store_batch(state: State, topic: Topic, partition: int, count: int, size_bytes: int, body: bytes) -> t.Range:
    base = topic.ends[partition]
    end = base + count
    header, end_bytes = state.header, topic.end_bytes[partition] + size_bytes
    state.execute(_INSERT_BATCH, (topic.topic_id, partition, base, count, header.wall_ms, end_bytes, body))
    topic.ends[partition], topic.end_bytes[partition] = end, end_bytes
    header.messages += count
    if state.unsampled_topics is not None:
        state.unsampled_topics.add(topic.name)
    state.events.append(e.Appended(topic.name, partition, end, count))
    return t.Range(partition=partition, first_offset=base, last_offset=end - 1)
