"""What each command about topics does: check first, then change rows, then what is remembered of them.

Invariants: a refusal has changed nothing. All rows of a topic carry its id, which is never used again, so a topic that
is created anew inherits nothing. Ids count up from 1 and registrations are never taken back, so an id is registered
exactly if it is below the next one.
"""

from __future__ import annotations

from quorl.cluster.machine import appending, graves, samples
from quorl.cluster.machine import events as e
from quorl.cluster.machine.counted import counted
from quorl.cluster.machine.state import State, Topic
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendBatches, AppendedAll, TopicAppended
from quorl.cluster.protocol.packing import HEAD_BYTES, unpacked_bytes

_INSERT_TOPIC = "INSERT INTO topics VALUES (?, ?, ?, 1, 1, 0, ?, 0)"
_INSERT_PARTITION = "INSERT INTO partitions VALUES (?, ?)"
_DELETE_TOPIC = "DELETE FROM topics WHERE topic_id = ?"
_INSERT_PRODUCER = "INSERT INTO producers VALUES (?, ?, ?, ?)"
_NEXT_PRODUCER = "UPDATE topics SET next_producer_id = ? WHERE topic_id = ?"
_INSERT_CONSUMER = "INSERT INTO consumers VALUES (?, ?, ?, ?, 0)"
_NEXT_CONSUMER = "UPDATE topics SET next_consumer_id = ? WHERE topic_id = ?"
_INSERT_CURSOR = "INSERT INTO cursors VALUES (?, ?, ?, ?, ?)"
_CURSORS = "SELECT next_offset FROM cursors WHERE topic_id = ? AND consumer_id = ? ORDER BY partition"
_TURN = "SELECT turn FROM consumers WHERE topic_id = ? AND consumer_id = ?"
_MOVE_CURSOR = "UPDATE cursors SET next_offset = ? WHERE topic_id = ? AND consumer_id = ? AND partition = ?"
_MOVE_TURN = "UPDATE consumers SET turn = ? WHERE topic_id = ? AND consumer_id = ?"
_BATCH_SIZES = (
    f"SELECT base_offset, count, length(body), substr(body, 1, {HEAD_BYTES}) FROM batches WHERE topic_id = ?1 AND partition = ?2 AND base_offset >="
    " (SELECT max(base_offset) FROM batches WHERE topic_id = ?1 AND partition = ?2 AND base_offset <= ?3)"
    " ORDER BY base_offset LIMIT ?4"
)


def topic_not_found(name: str) -> t.TopicNotFound:
    """The refusal that names the topic."""
    return t.TopicNotFound(detail=f'There is no topic "{name}".')


def create_topic(state: State, command: t.CreateTopic) -> t.TopicCreated | t.AlreadyExists:
    """Create a topic, or find it to be there already."""
    name, partitions = command.name, command.partitions
    if name in {".", ".."}:
        raise ValueError("a topic cannot have this name")
    found = state.topic(name)
    if found is not None:
        if found.partitions != partitions:
            detail = f'The topic "{name}" exists with {counted(found.partitions, "partition")}, not {partitions}.'
            return t.AlreadyExists(detail=detail)
        created_at = moment.to_text(found.created_ms)
        if command.error_if_exists:
            return t.AlreadyExists(detail=f'The topic "{name}" exists since {created_at}, with the same configuration.')
        return t.TopicCreated(name=name, partitions=partitions, created_at=created_at, existing=True)
    header = state.header
    state.execute(_INSERT_TOPIC, (header.next_topic_id, name, partitions, header.wall_ms))
    for partition in range(partitions):
        state.execute(_INSERT_PARTITION, (header.next_topic_id, partition))
    header.next_topic_id += 1
    state.events.append(e.TopicCreated(name))
    return t.TopicCreated(name=name, partitions=partitions, created_at=moment.to_text(header.wall_ms))


def delete_topic(state: State, command: t.DeleteTopic) -> t.TopicDeleted | t.TopicNotFound | t.TopicNotEmpty:
    """Delete a topic: its name is free at once, and the rows that carry its id go little by little."""
    topic = state.topic(command.topic)
    if topic is None:
        return topic_not_found(command.topic)
    messages = sum(topic.ends)
    if command.if_empty and messages:
        return t.TopicNotEmpty(detail=f'The topic "{topic.name}" holds {counted(messages, "message")}.')
    samples.close_topic(state, topic)
    state.execute(_DELETE_TOPIC, (topic.topic_id,))
    state.header.messages -= messages
    graves.dig(state, topic.topic_id)
    state.forget(topic.name)
    state.events.append(e.TopicDeleted(topic.name))
    return t.TopicDeleted(name=topic.name, messages=messages)


def register_producer(state: State, command: t.RegisterProducer) -> t.ProducerInfo | t.TopicNotFound:
    """Give out the topic's next producer id."""
    topic = state.topic(command.topic)
    if topic is None:
        return topic_not_found(command.topic)
    producer_id, wall_ms = topic.next_producer_id, state.header.wall_ms
    state.execute(_INSERT_PRODUCER, (topic.topic_id, producer_id, command.name, wall_ms))
    state.execute(_NEXT_PRODUCER, (producer_id + 1, topic.topic_id))
    topic.next_producer_id += 1
    created_at = moment.to_text(wall_ms)
    return t.ProducerInfo(topic=topic.name, producer_id=producer_id, name=command.name, created_at=created_at)


def register_consumer(state: State, command: t.RegisterConsumer) -> t.ConsumerInfo | t.TopicNotFound:
    """Give out the topic's next consumer id, with a cursor per partition at its beginning or its end."""
    topic = state.topic(command.topic)
    if topic is None:
        return topic_not_found(command.topic)
    consumer_id, wall_ms = topic.next_consumer_id, state.header.wall_ms
    state.execute(_INSERT_CONSUMER, (topic.topic_id, consumer_id, command.name, wall_ms))
    cursors = []
    for partition, end in enumerate(topic.ends):
        start = end if command.start == "latest" else 0
        state.execute(_INSERT_CURSOR, (topic.topic_id, consumer_id, partition, start, start))
        cursors.append(t.CursorInfo(partition=partition, next_offset=start, lag=end - start))
    state.execute(_NEXT_CONSUMER, (consumer_id + 1, topic.topic_id))
    topic.next_consumer_id += 1
    return t.ConsumerInfo(
        topic=topic.name,
        consumer_id=consumer_id,
        name=command.name,
        created_at=moment.to_text(wall_ms),
        lag=sum(cursor.lag for cursor in cursors),
        cursors=cursors,
    )


def append(state: State, command: t.AppendBatch) -> t.Appended | t.TopicNotFound | t.ProducerNotFound:
    """Store the messages of one append, all of them, as one row per partition that they go to."""
    topic = state.topic(command.topic)
    if topic is None:
        return topic_not_found(command.topic)
    for producer_id in command.producers:
        if not 1 <= producer_id < topic.next_producer_id:
            detail = f'No producer {producer_id} is registered for the topic "{topic.name}".'
            return t.ProducerNotFound(detail=detail)
    ranges = appending.store(state, topic, command)
    if len(ranges) > 1:
        return t.Appended(ranges=ranges, partitions=topic.partitions)
    only = ranges[0]
    return t.Appended(
        ranges=ranges, partition=only.partition, first_offset=only.first_offset, last_offset=only.last_offset
    )


def append_all(state: State, command: AppendBatches) -> AppendedAll:
    """Store each of several appends, or refuse it, one by one."""
    items = []
    for batch in command.appends:
        said = append(state, batch)
        if isinstance(said, t.Appended):
            items.append(TopicAppended(topic=batch.topic, ranges=said.ranges, partitions=said.partitions))
        else:
            code = str(said.__struct_config__.tag)
            items.append(TopicAppended(topic=batch.topic, code=code, detail=said.detail))
    return AppendedAll(items=items)


def consume(state: State, command: t.Consume) -> t.ConsumedSpans | t.TopicNotFound | t.ConsumerNotFound:
    """Move a consumer's cursors past the next messages, partition by partition in turn.

    The turn begins after the partition that was served last, so that a busy partition cannot keep others waiting.
    """
    topic = state.topic(command.topic)
    if topic is None:
        return topic_not_found(command.topic)
    topic_id, consumer_id = topic.topic_id, command.consumer_id
    row = state.execute(_TURN, (topic_id, consumer_id)).fetchone()
    if row is None:
        detail = f'No consumer {consumer_id} is registered for the topic "{topic.name}".'
        return t.ConsumerNotFound(detail=detail)
    nexts = [offset for (offset,) in state.execute(_CURSORS, (topic_id, consumer_id)).fetchall()]
    remaining = sum(topic.ends) - sum(nexts)
    turn = row[0]
    spans = _take(state, topic, nexts, turn, command.max) if remaining else []
    for span in spans:
        state.execute(_MOVE_CURSOR, (span.first_offset + span.count, topic_id, consumer_id, span.partition))
        remaining -= span.count
    if spans and topic.partitions > 1:
        state.execute(_MOVE_TURN, ((spans[-1].partition + 1) % topic.partitions, topic_id, consumer_id))
    return t.ConsumedSpans(topic_id=topic_id, spans=spans, remaining=remaining)


def _take(state: State, topic: Topic, nexts: list[int], turn: int, wanted: int) -> list[t.Span]:
    """Choose what to hand out: at most ``wanted`` messages, and whole batches of at most a page of bytes."""
    spans: list[t.Span] = []
    room_bytes = limits.PAGE_BYTES_MAX
    for step in range(topic.partitions):
        partition = (turn + step) % topic.partitions
        first = nexts[partition]
        count = min(wanted, topic.ends[partition] - first)
        if count and (wanted > 1 or spans):  # a single message is given out whatever its size
            count, room_bytes = _fit(state, topic.topic_id, partition, first, count, room_bytes, not spans)
        if count:
            spans.append(t.Span(partition, first, count))
            wanted -= count
        if wanted == 0 or room_bytes <= 0:
            break
    return spans


def _fit(
    state: State, topic_id: int, partition: int, first: int, count: int, room_bytes: int, must: bool
) -> tuple[int, int]:
    """How many of ``count`` messages from ``first`` on fit into the room, and the room left; at least one if ``must``.

    Bodies are counted whole and unpacked, also where only a part of one is handed out, so that none has to be read to decide.
    """
    taken = 0
    for base, batch_count, stored_bytes, head in state.execute(
        _BATCH_SIZES, (topic_id, partition, first, count)
    ).fetchall():
        size_bytes = unpacked_bytes(head, stored_bytes)
        if size_bytes > room_bytes and not (must and taken == 0):
            return taken, 0
        room_bytes -= size_bytes
        taken = min(count, base + batch_count - first)
    return taken, room_bytes
