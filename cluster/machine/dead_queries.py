"""FAILED tasks by what they died of, in pages.

Invariants: a page looks at no more than ``LISTED_ROWS_MAX`` rows, and reads the errors of ``BATCH_TASKS_MAX`` tasks at most.
"""

from __future__ import annotations

import itertools
import sqlite3
from contextlib import ExitStack
from typing import NamedTuple

from quorl.cluster.machine import causes, ids, pages, task_lists
from quorl.cluster.protocol import batches as b
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k

_KIND = "dead"
_TASK = f"SELECT {ids.of('tasks')}, name, reason, timeout_ms, finished_ms FROM tasks WHERE ordinal = ?"
_QUEUE = "SELECT name FROM queues WHERE queue_id = ?"


class _Group(NamedTuple):
    """What tasks of one queue have in common, as the first of them said it."""

    cause: str
    queue_id: int
    name: str
    reason: str | None
    error: str
    tasks: list[tuple[int, str]]
    """When each finished, and its id."""


def list_groups(connection: sqlite3.Connection, request: b.ListDeadGroups) -> b.DeadGroups | q.QueueNotFound:
    """One page of what tasks died of."""
    last = pages.decode_id_cursor(_KIND, request.cursor) if request.cursor else limits.INTEGER_MAX
    listed = k.ListTasks(queue=request.queue, status="FAILED", name=request.name)
    fitting = task_lists.wanted(connection, listed)
    if isinstance(fitting, q.QueueNotFound):
        return fitting
    groups: dict[tuple[int, str], _Group] = {}
    looked_at = 0
    with ExitStack() as opened:
        rows = task_lists.rows(connection, opened, fitting, listed, last)
        for found in itertools.islice(rows, limits.LISTED_ROWS_MAX):
            if fitting.fits(found):
                if looked_at == request.limit:
                    return _page(connection, groups, looked_at, last)
                _add(connection, groups, found)
                looked_at += 1
            last = found.ordinal
        more = next(rows, None) is not None
    return _page(connection, groups, looked_at, last if more else None)


def _add(connection: sqlite3.Connection, groups: dict[tuple[int, str], _Group], found: task_lists.Found) -> None:
    task_id, name, reason, timeout_ms, finished_ms = connection.execute(_TASK, (found.ordinal,)).fetchone()
    error = causes.in_short(causes.last_error(connection, found.ordinal, timeout_ms), reason)
    cause = causes.fingerprint(name, error)
    fresh = _Group(cause, found.queue_id, name, reason, causes.normalised(error), [])
    groups.setdefault((found.queue_id, cause), fresh).tasks.append((finished_ms, task_id))


def _page(
    connection: sqlite3.Connection, groups: dict[tuple[int, str], _Group], looked_at: int, last: int | None
) -> b.DeadGroups:
    items = [_told(connection, group) for group in groups.values()]
    items.sort(key=lambda one: (-one.count, one.queue, one.name, one.error))
    following = None if last is None else pages.encode_cursor(_KIND, str(last))
    return b.DeadGroups(items=items, looked_at=looked_at, next=following)


def _told(connection: sqlite3.Connection, group: _Group) -> b.DeadGroup:
    last_ms, sample_id = max(group.tasks)
    return b.DeadGroup(
        cause=group.cause,
        queue=connection.execute(_QUEUE, (group.queue_id,)).fetchone()[0],
        name=group.name,
        reason=group.reason,
        error=group.error,
        count=len(group.tasks),
        first_at=moment.to_text(min(group.tasks)[0]),
        last_at=moment.to_text(last_ms),
        sample_id=sample_id,
    )
