"""History that is replicated: what happened in each ten seconds of cluster time, for two hours.

When an entry is the first of a new ten seconds, a sample is taken of everything that has changed in those that are over: the
difference to the last sample of the same queue or topic, which its row remembers. So nothing is written between two
samples, and what is written follows from the rows alone: a node that was started anew only has to look at more of them.

Invariants: the samples of a queue or topic and what has come since then add up to its tally. Of more than
``SAMPLED_PER_TICK_MAX`` queues or topics the rest is sampled ten seconds later, others first; nothing is left out. The
last ``TICKS_KEPT`` ten seconds stay; what is older goes a bounded number of rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import sub
from typing import TypeVar

import msgspec

from quorl.cluster.machine.books import NOTHING, Queue, Tally
from quorl.cluster.machine.state import State, Topic
from quorl.cluster.protocol import limits

T = TypeVar("T")

STEP_MS = 10_000
"""Cluster time of one sample. Half as long would write twice as much, all the time, at every node."""
CLUSTER, QUEUE, TOPIC = 0, 1, 2
"""Of what a sample is: its ``kind``."""

_ADD = (
    "INSERT INTO samples VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12) ON CONFLICT DO UPDATE SET"
    " submitted = submitted + ?4, started = started + ?5, succeeded = succeeded + ?6,"
    " failed_attempts = failed_attempts + ?7, lost = lost + ?8, failed = failed + ?9, appended = appended + ?10,"
    " waiting = ?11, running = ?12"
)
_TICK = "INSERT INTO ticks VALUES (?, ?)"
_GAUGES = "SELECT ifnull(sum(scheduled + queued + retry), 0), ifnull(sum(processing), 0) FROM queues"
_ALL_QUEUES = "SELECT queue_id FROM queues WHERE deleted = 0 ORDER BY queue_id"
_GROWN_TOPICS = (
    "SELECT t.name FROM topics t JOIN ends p USING (topic_id) GROUP BY t.topic_id"
    " HAVING sum(p.next_offset) != t.sampled ORDER BY t.topic_id"
)
_SAMPLED_QUEUE = "UPDATE queues SET sampled = ? WHERE queue_id = ?"
_SAMPLED_TOPIC = "UPDATE topics SET sampled = ? WHERE topic_id = ?"
_OLD_TICKS = "DELETE FROM ticks WHERE bucket <= ?"
_OLD = (
    "DELETE FROM samples WHERE (bucket, kind, ref) IN"
    " (SELECT bucket, kind, ref FROM samples WHERE bucket <= ? ORDER BY bucket, kind, ref LIMIT ?)"
)

_decode = msgspec.json.Decoder(tuple[int, ...]).decode


def encode(tally: Tally) -> str:
    """A tally as the row of its queue has it."""
    return msgspec.json.encode(tally).decode()


def tick(state: State, before_ms: int, before_wall_ms: int) -> None:
    """Take the samples of the ten seconds in which the last entry came, at those moments."""
    bucket = before_ms // STEP_MS
    at_ms = before_wall_ms + (bucket + 1) * STEP_MS - before_ms
    total = [0] * len(NOTHING)
    queues, later_queues = _share(_changed_queues(state), bucket)
    topics, later_topics = _share(_grown_topics(state), bucket)
    for queue in queues:
        _add(total, _sample_queue(state, bucket, queue))
    appended = sum([_sample_topic(state, bucket, topic) for topic in topics])
    gauges = state.execute(_GAUGES).fetchone()
    state.execute(_ADD, (bucket, CLUSTER, 0, *total[:6], appended, *gauges))
    state.execute(_TICK, (bucket, at_ms))
    state.execute(_OLD_TICKS, (bucket - limits.TICKS_KEPT,))
    state.execute(_OLD, (bucket - limits.TICKS_KEPT, limits.SAMPLES_CLEARED_PER_TICK))
    state.unsampled_queues = {queue.queue_id for queue in later_queues}
    state.unsampled_topics = {topic.name for topic in later_topics}


def close_queue(state: State, queue: Queue) -> None:
    """Sample a queue for the last time, before it is deleted."""
    bucket = state.header.now_ms // STEP_MS
    change = _sample_queue(state, bucket, queue)
    _into_cluster(state, bucket, change[:6], 0)


def close_topic(state: State, topic: Topic) -> None:
    """Sample a topic for the last time, before it is deleted."""
    bucket = state.header.now_ms // STEP_MS
    _into_cluster(state, bucket, NOTHING[:6], _sample_topic(state, bucket, topic))


def _into_cluster(state: State, bucket: int, change: Sequence[int], appended: int) -> None:
    """Count what a sample of ten seconds that are not over tells; the tick that ends them says what waits and runs."""
    if any(change) or appended:
        state.execute(_ADD, (bucket, CLUSTER, 0, *change, appended, 0, 0))


def _changed_queues(state: State) -> list[Queue]:
    """Exactly those that are to be sampled, in order of their ids, however many were worth a look."""
    if state.unsampled_queues is None:
        worth = [queue_id for (queue_id,) in state.execute(_ALL_QUEUES).fetchall()]
    else:
        worth = sorted(state.unsampled_queues)
    found = [queue for queue in map(state.find_queue, worth) if queue is not None]
    return [queue for queue in found if encode(queue.tally) != queue.sampled]


def _grown_topics(state: State) -> list[Topic]:
    """Exactly those that are to be sampled, in order of their ids, however many were worth a look."""
    if state.unsampled_topics is None:
        worth = [name for (name,) in state.execute(_GROWN_TOPICS).fetchall()]
    else:
        worth = sorted(state.unsampled_topics)
    found = [topic for topic in map(state.topic, worth) if topic is not None and sum(topic.ends) != topic.sampled]
    return sorted(found, key=lambda topic: topic.topic_id)


def _sample_queue(state: State, bucket: int, queue: Queue) -> Sequence[int]:
    """Take the sample of a queue, if it has changed; returns what it adds to its tally."""
    tally = queue.tally
    change = list(map(sub, tally, _decode(queue.sampled)))
    if any(change):
        state.change_queue(queue)
        queue.sampled = encode(tally)
        state.execute(_SAMPLED_QUEUE, (queue.sampled, queue.queue_id))
        state.execute(_ADD, (bucket, QUEUE, queue.queue_id, *change[:6], 0, *tally[6:]))
    return change


def _sample_topic(state: State, bucket: int, topic: Topic) -> int:
    """Take the sample of a topic, if it has grown; returns by how much."""
    messages = sum(topic.ends)
    grown = messages - topic.sampled
    if grown:
        topic.sampled = messages
        state.execute(_SAMPLED_TOPIC, (messages, topic.topic_id))
        state.execute(_ADD, (bucket, TOPIC, topic.topic_id, 0, 0, 0, 0, 0, 0, grown, 0, 0))
    return grown


def _share(things: list[T], bucket: int) -> tuple[list[T], list[T]]:
    """Those whose turn it is, and the rest; who is in the rest now is among the first at the next tick, or soon."""
    most = limits.SAMPLED_PER_TICK_MAX
    if len(things) <= most:
        return things, []
    first = bucket * most % len(things)
    turned = things[first:] + things[:first]
    return turned[:most], turned[most:]


def _add(total: list[int], change: Sequence[int]) -> None:
    for place, number in enumerate(change):
        total[place] += number
