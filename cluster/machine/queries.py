"""Answers to every ``Query``, as pure reads on any connection to the state.

Invariants: one answer comes from one moment of the state, also while another connection writes. Every answer is bounded.
A value that only the state or the calendar can judge is refused with a ``ValueError`` of its own kind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple, assert_never

from quorl.cluster.machine import (
    dead_queries,
    guessing,
    history_queries,
    metric_queries,
    overview_queries,
    pages,
    queue_queries,
    reading,
    task_lists,
    task_queries,
    task_why,
    worker_queries,
)
from quorl.cluster.machine.counted import counted
from quorl.cluster.machine.metric_queries import GetMetrics
from quorl.cluster.machine.overview_queries import GetGauges, GetSparks, LookOver
from quorl.cluster.machine.pages import BadCursor
from quorl.cluster.machine.reading import Decode, decode_anew
from quorl.cluster.machine.task_lists import GetBriefs
from quorl.cluster.machine.worker_queries import BeatLog, Heartbeats, LastBeat
from quorl.cluster.protocol import batches as b
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Query, Rejection, Reply
from quorl.cluster.protocol.overview import GetHistory

__all__ = ["BadCursor", "BadStart", "BeatLog", "Heartbeats", "LastBeat", "ListNames", "Names", "Read", "query"]


class Names(Reply, frozen=True):
    """Names of topics in their order, and whether there are more behind them."""

    names: list[str]
    more: bool


class ListNames(Query[Names], frozen=True, tag="list_names"):
    """The names of topics and nothing else. Only nodes ask this, of themselves: it is no operation of the table."""

    after: str
    limit: int


_OfTopic = t.GetTopic | t.ListProducers | t.ListConsumers | t.GetConsumer | t.Browse | t.GetMessage | t.GetSize
_OfTask = k.GetTask | k.GetResult | k.GetTaskEvents | k.GetTaskWhy | k.ListTasks | GetBriefs | b.ListDeadGroups
_OfWorker = w.GetWorker | w.ListWorkers | e.GetDirectives | Heartbeats
_OfAll = GetHistory | LookOver | GetSparks | GetGauges | GetMetrics
Read = ListNames | t.ListTopics | _OfTopic | q.ListQueues | q.GetQueue | _OfTask | _OfWorker | _OfAll
"""Every query that there is."""

_TOPIC = "SELECT topic_id, name, partitions, next_producer_id, next_consumer_id, created_ms FROM topics"
_TOPIC_BY_NAME = f"{_TOPIC} WHERE name = ?"
_TOPICS_AFTER = f"{_TOPIC} WHERE name > ? ORDER BY name LIMIT ?"
_TOPICS_FROM = f"{_TOPIC} WHERE name >= ? ORDER BY name LIMIT ?"
_NAMES_AFTER = "SELECT name FROM topics WHERE name > ? ORDER BY name LIMIT ?"
_PARTITIONS = "SELECT partition, next_offset, size_bytes FROM ends WHERE topic_id = ? ORDER BY partition"
_PRODUCERS_AFTER = (
    "SELECT producer_id, name, created_ms FROM producers WHERE topic_id = ? AND producer_id > ?"
    " ORDER BY producer_id LIMIT ?"
)
_CONSUMERS_AFTER = (
    "SELECT consumer_id, name, created_ms FROM consumers WHERE topic_id = ? AND consumer_id > ?"
    " ORDER BY consumer_id LIMIT ?"
)
_CURSORS = "SELECT partition, next_offset FROM cursors WHERE topic_id = ? AND consumer_id = ? ORDER BY partition"
_READ_BY = (  # CROSS JOIN keeps the order of the loops: one look-up per consumer, not a scan of all cursors
    "SELECT c.consumer_id FROM consumers c CROSS JOIN cursors k ON k.topic_id = c.topic_id"
    " AND k.consumer_id = c.consumer_id AND k.partition = ?2 WHERE c.topic_id = ?1"
    " AND k.start_offset <= ?3 AND ?3 < k.next_offset ORDER BY c.consumer_id"
)

_ITEM_BYTES = 256
_DETAIL_BYTES = 100
"""Estimates of the JSON of a list's item, and of what it says of one partition."""


class BadStart(ValueError):
    """``from`` is nothing that one can start from."""


class _Topic(NamedTuple):
    topic_id: int
    name: str
    partitions: int
    next_producer_id: int
    next_consumer_id: int
    created_ms: int


def query(connection: sqlite3.Connection, request: Query[Any], decode: Decode = decode_anew) -> Reply | Rejection:
    """Answer a read. Raises ``BadCursor`` or ``BadStart``, and ``sqlite3.Error`` of a broken file."""
    assert isinstance(request, Read), f"{type(request).__name__} is no query of the machine"
    with reading.one_moment(connection):
        return _answer(connection, request, decode)


def _answer(connection: sqlite3.Connection, request: Read, decode: Decode) -> Reply | Rejection:
    match request:
        case t.ListTopics():
            return _list_topics(connection, request)
        case ListNames():
            found = [found for (found,) in connection.execute(_NAMES_AFTER, (request.after, request.limit + 1))]
            return Names(names=found[: request.limit], more=len(found) > request.limit)
        case q.ListQueues():
            return queue_queries.list_queues(connection, request)
        case q.GetQueue():
            return queue_queries.get_queue(connection, request.queue)
        case k.GetTask() | k.GetResult() | k.GetTaskEvents() | k.GetTaskWhy() | k.ListTasks() | GetBriefs():
            return _answer_of_task(connection, request)
        case b.ListDeadGroups():
            return _answer_of_task(connection, request)
        case w.GetWorker() | w.ListWorkers() | e.GetDirectives() | Heartbeats():
            return _answer_of_worker(connection, request)
        case GetHistory() | LookOver() | GetSparks() | GetGauges() | GetMetrics():
            return _answer_of_all(connection, request)
        case _:
            return _answer_of_topic(connection, request, decode)


def _answer_of_task(connection: sqlite3.Connection, request: _OfTask) -> Reply | Rejection:
    match request:
        case k.GetTask():
            return task_queries.get_task(connection, request)
        case k.GetResult():
            return task_queries.get_result(connection, request)
        case k.GetTaskEvents():
            return task_queries.get_events(connection, request)
        case k.GetTaskWhy():
            return task_why.get_why(connection, request)
        case k.ListTasks():
            return task_lists.list_tasks(connection, request)
        case GetBriefs():
            return task_lists.briefs(connection, request)
        case b.ListDeadGroups():
            return dead_queries.list_groups(connection, request)
        case _ as unknown:
            assert_never(unknown)


def _answer_of_worker(connection: sqlite3.Connection, request: _OfWorker) -> Reply | Rejection:
    match request:
        case w.GetWorker():
            return worker_queries.get_worker(connection, request.worker_id)
        case w.ListWorkers():
            return worker_queries.list_workers(connection, request)
        case e.GetDirectives():
            return worker_queries.get_directives(connection, request)
        case Heartbeats():
            return worker_queries.heartbeats(connection)
        case _ as unknown:
            assert_never(unknown)


def _answer_of_all(connection: sqlite3.Connection, request: _OfAll) -> Reply | Rejection:
    match request:
        case GetHistory():
            return history_queries.history(connection, request)
        case LookOver():
            return overview_queries.look_over(connection, request)
        case GetSparks():
            return overview_queries.sparks(connection, request)
        case GetGauges():
            return overview_queries.gauges(connection)
        case GetMetrics():
            return metric_queries.get_metrics(connection)
        case _ as unknown:
            assert_never(unknown)


def _answer_of_topic(connection: sqlite3.Connection, request: _OfTopic, decode: Decode) -> Reply | Rejection:
    name = request.topic
    row = connection.execute(_TOPIC_BY_NAME, (name,)).fetchone()
    if row is None:
        return t.TopicNotFound(detail=f'There is no topic "{name}".{guessing.meant(connection, "topics", name)}')
    topic = _Topic(*row)
    match request:
        case t.GetTopic():
            return _topic_info(connection, topic)
        case t.ListProducers():
            return _list_producers(connection, topic, request)
        case t.ListConsumers():
            return _list_consumers(connection, topic, request)
        case t.GetConsumer():
            return _get_consumer(connection, topic, request.consumer_id)
        case t.Browse():
            return _browse(connection, topic, request, decode)
        case t.GetMessage():
            return _get_message(connection, topic, request, decode)
        case t.GetSize():
            return _get_size(connection, topic, request.consumer_id)
        case _ as unknown:
            assert_never(unknown)


# -- topics, producers, consumers ---------------------------------------------------------------------------------
def _topic_info(connection: sqlite3.Connection, topic: _Topic) -> t.TopicInfo:
    details = [
        t.PartitionInfo(partition=partition, first_offset=0, next_offset=end, messages=end, bytes=size_bytes)
        for partition, end, size_bytes in connection.execute(_PARTITIONS, (topic.topic_id,))
    ]
    return t.TopicInfo(
        name=topic.name,
        partitions=topic.partitions,
        messages=sum(detail.messages for detail in details),
        bytes=sum(detail.bytes for detail in details),
        producers=topic.next_producer_id - 1,
        consumers=topic.next_consumer_id - 1,
        created_at=moment.to_text(topic.created_ms),
        details=details,
    )


def _list_topics(connection: sqlite3.Connection, request: t.ListTopics) -> t.TopicList:
    last = pages.decode_cursor("topic", request.cursor) if request.cursor else ""
    statement, start = (_TOPICS_AFTER, last) if last >= request.prefix and last else (_TOPICS_FROM, request.prefix)
    rows = connection.execute(statement, (start, request.limit + 1)).fetchall()

    def candidates() -> Iterator[tuple[t.TopicInfo, int]]:
        for topic in map(_Topic._make, rows):
            if not topic.name.startswith(request.prefix):
                return
            yield _topic_info(connection, topic), _ITEM_BYTES + _DETAIL_BYTES * topic.partitions

    items, more = pages.page(candidates(), request.limit)
    return t.TopicList(items=items, next=pages.encode_cursor("topic", items[-1].name) if more else None)


def _list_producers(connection: sqlite3.Connection, topic: _Topic, request: t.ListProducers) -> t.ProducerList:
    last = pages.decode_id_cursor("producer", request.cursor)
    rows = connection.execute(_PRODUCERS_AFTER, (topic.topic_id, last, request.limit + 1)).fetchall()
    infos = (
        t.ProducerInfo(topic=topic.name, producer_id=producer_id, name=name, created_at=moment.to_text(created_ms))
        for producer_id, name, created_ms in rows
    )
    items, more = pages.page(((info, _ITEM_BYTES + 4 * len(info.name)) for info in infos), request.limit)
    return t.ProducerList(
        items=items, next=pages.encode_cursor("producer", str(items[-1].producer_id)) if more else None
    )


def _list_consumers(connection: sqlite3.Connection, topic: _Topic, request: t.ListConsumers) -> t.ConsumerList:
    last = pages.decode_id_cursor("consumer", request.cursor)
    rows = connection.execute(_CONSUMERS_AFTER, (topic.topic_id, last, request.limit + 1)).fetchall()
    ends = _ends(connection, topic)
    size_bytes = _ITEM_BYTES + _DETAIL_BYTES * topic.partitions
    infos = ((_consumer_info(connection, topic, ends, *row), size_bytes) for row in rows)
    items, more = pages.page(infos, request.limit)
    return t.ConsumerList(
        items=items, next=pages.encode_cursor("consumer", str(items[-1].consumer_id)) if more else None
    )


def _get_consumer(
    connection: sqlite3.Connection, topic: _Topic, consumer_id: int
) -> t.ConsumerInfo | t.ConsumerNotFound:
    row = connection.execute(_CONSUMERS_AFTER, (topic.topic_id, consumer_id - 1, 1)).fetchone()
    if row is None or row[0] != consumer_id:
        return t.ConsumerNotFound(detail=f'No consumer {consumer_id} is registered for the topic "{topic.name}".')
    return _consumer_info(connection, topic, _ends(connection, topic), *row)


def _ends(connection: sqlite3.Connection, topic: _Topic) -> list[int]:
    return [end for _, end, _ in connection.execute(_PARTITIONS, (topic.topic_id,))]


def _consumer_info(
    connection: sqlite3.Connection, topic: _Topic, ends: list[int], consumer_id: int, name: str, created_ms: int
) -> t.ConsumerInfo:
    cursors = [
        t.CursorInfo(partition=partition, next_offset=next_offset, lag=ends[partition] - next_offset)
        for partition, next_offset in connection.execute(_CURSORS, (topic.topic_id, consumer_id))
    ]
    return t.ConsumerInfo(
        topic=topic.name,
        consumer_id=consumer_id,
        name=name,
        created_at=moment.to_text(created_ms),
        lag=sum(cursor.lag for cursor in cursors),
        cursors=cursors,
    )


# -- messages -----------------------------------------------------------------------------------------------------
def _partition_not_found(topic: _Topic, partition: int) -> t.PartitionNotFound:
    return t.PartitionNotFound(
        detail=f'The topic "{topic.name}" has {counted(topic.partitions, "partition")}, and none is number {partition}.'
    )


def _browse(
    connection: sqlite3.Connection, topic: _Topic, request: t.Browse, decode: Decode
) -> t.MessagePage | t.PartitionNotFound:
    if request.partition >= topic.partitions:
        return _partition_not_found(topic, request.partition)
    end = _ends(connection, topic)[request.partition]
    start = min(_start(connection, topic, request, end), end)
    if start == end:
        return t.MessagePage(items=[], next=end)
    items = reading.messages(connection, topic.topic_id, request.partition, start, request.limit, decode=decode)
    return t.MessagePage(items=items, next=items[-1].offset + 1)


def _start(connection: sqlite3.Connection, topic: _Topic, request: t.Browse, end: int) -> int:
    """The offset that ``from`` means."""
    text = request.start
    if text == "earliest":
        return 0
    if text == "latest":
        return end
    if text.isascii() and text.isdigit() and int(text) <= limits.INTEGER_MAX:
        return int(text)
    if not text.startswith("ts:"):
        raise BadStart(f'"from" is earliest, latest, an offset, or ts: and an RFC 3339 time, not "{text}".')
    try:
        moment_ms = moment.from_text(text[3:])
    except ValueError as error:
        raise BadStart(f'"from" has no usable time after ts: ("{text[3:]}"): {error}.') from error
    return reading.first_at(connection, topic.topic_id, request.partition, end, moment_ms)


def _get_message(
    connection: sqlite3.Connection, topic: _Topic, request: t.GetMessage, decode: Decode
) -> t.MessageInfo | t.PartitionNotFound | t.MessageNotFound:
    partition, offset = request.partition, request.offset
    if partition >= topic.partitions:
        return _partition_not_found(topic, partition)
    end = _ends(connection, topic)[partition]
    if offset >= end:
        detail = f'Partition {partition} of the topic "{topic.name}" ends before offset {end}.'
        return t.MessageNotFound(detail=detail)
    found = reading.messages(connection, topic.topic_id, partition, offset, 1, decode=decode)[0]
    return t.MessageInfo(
        partition=partition,
        offset=offset,
        value=found.value,
        created_at=found.created_at,
        read_by=[reader for (reader,) in connection.execute(_READ_BY, (topic.topic_id, partition, offset))],
        key=found.key,
        headers=found.headers,
        producer_id=found.producer_id,
    )


def _get_size(
    connection: sqlite3.Connection, topic: _Topic, consumer_id: int | None
) -> t.TopicSize | t.ConsumerNotFound:
    total = sum(_ends(connection, topic))
    if consumer_id is None:
        return t.TopicSize(size=total, total=total)
    info = _get_consumer(connection, topic, consumer_id)
    if isinstance(info, t.ConsumerNotFound):
        return info
    return t.TopicSize(size=info.lag, total=total, consumer_id=consumer_id)
