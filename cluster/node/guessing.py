"""What is put behind the news that a write did not find its queue, its topic or its task: what was perhaps meant.

The log says no more than that there is none of that name; the node that answers asks its own copy as readers do, who are told
of a guess since there are readers.

Invariants: a guess changes no outcome, and none is made where the name exists meanwhile. Of one call so many names are looked
up at most, whatever it holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from quorl.cluster.node.visit import Declined
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendedAll, TopicAppended
from quorl.cluster.protocol.grammar import Query, Rejection, Reply, Request

GUESSED_MAX = 8
"""Of several names that are not there, for so many one is looked for that was meant: each look reads the state."""
_NO_TOPIC = str(t.TopicNotFound.__struct_config__.tag)

Read = Callable[[Query[Any]], Awaitable[Reply | Rejection]]


async def with_guess(read: Read, request: Request[Any], value: Reply | Rejection) -> Reply | Rejection:
    """What a write came to, with what may be meant where a name was not found. ``read`` asks the state."""
    try:
        return await _guessed(read, request, value)
    except (Declined, sqlite3.DatabaseError):
        return value  # a state that cannot be read has no guesses; of several appends some may have been stored


async def _guessed(read: Read, request: Request[Any], value: Reply | Rejection) -> Reply | Rejection:
    match value:
        case q.QueueNotFound():
            found = await read(q.GetQueue(queue=getattr(request, "queue", "")))
            return found if isinstance(found, q.QueueNotFound) else value
        case t.TopicNotFound():
            found = await read(t.GetTopic(topic=getattr(request, "topic", "")))
            return found if isinstance(found, t.TopicNotFound) else value
        case k.TaskNotFound() if isinstance(
            request, k.CancelTask | k.RetryTask | k.ForgetTask
        ):  # workers make no slips
            told = await read(k.GetTask(id=request.id))
            return told if isinstance(told, k.TaskNotFound) else value
        case AppendedAll(items=items) if any(item.code == _NO_TOPIC for item in items):
            return AppendedAll(items=await _each(read, items))
    return value


async def _each(read: Read, items: list[TopicAppended]) -> list[TopicAppended]:
    missing = dict.fromkeys(item.topic for item in items if item.code == _NO_TOPIC)
    details = {}
    for topic in list(missing)[:GUESSED_MAX]:
        found = await read(t.GetTopic(topic=topic))
        if isinstance(found, t.TopicNotFound):
            details[topic] = found.detail
    return [
        msgspec.structs.replace(item, detail=details.get(item.topic, item.detail)) if item.code == _NO_TOPIC else item
        for item in items
    ]
