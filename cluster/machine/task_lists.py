"""Lists of tasks, by any of the filters, in the order of submission.

Invariants: a page looks at no more than ``LISTED_ROWS_MAX`` rows, and its cursor goes on behind the last one looked at, so
that a list with a filter that fits little comes to its end in bounded steps. Rows come in the order of their ordinals: from
the table itself, or, where states are asked for, merged from as many indexes' ranges as hold tasks in them.
"""

from __future__ import annotations

import heapq
import itertools
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from typing import NamedTuple

import msgspec

from quorl.cluster.machine import causes, ids, pages, queue_queries, task_rows
from quorl.cluster.machine.task_rows import FAILED, NULL, PROCESSING, QUEUED, SUCCESS, TaskRow, text
from quorl.cluster.protocol import limits, moment
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.grammar import Query, Reply

STREAMS_MAX = 256
"""Ranges of indexes that are merged for one page; with more of them the whole table is looked through instead."""
QUEUES_MERGED_MAX = 1_000
"""With more queues than this a list over all of them does not look which hold tasks in the states asked for."""
ARGUMENT_BYTES_SHOWN_MAX = 1_024
"""The arguments of a task with a larger body are left out of lists."""
_ITEM_BYTES = 600
"""An estimate of the JSON of a task in a list, without its arguments."""

_COLUMNS = "SELECT ordinal, queue_id, state, name, worker_id FROM tasks WHERE"
_BEHIND = {"newest": "ordinal < ? ORDER BY ordinal DESC", "oldest": "ordinal > ? ORDER BY ordinal"}
_READY = "state = 1 AND queue_id = ? AND partition = ? AND rank = ? AND"
_LEASED = "state = 2 AND worker_id = ? AND"
_RESTING = "state NOT IN (1, 2) AND queue_id = ? AND state = ? AND"
_COUNTS = (
    "SELECT queue_id, partitions, scheduled, queued, processing, retry, success, failed, cancelled, expired FROM queues"
)
_COUNTS_FROM = 2
"""Where the counts of the states begin in such a row."""
_ALL_COUNTS = f"{_COUNTS} ORDER BY queue_id LIMIT ?"
_COUNTS_OF = f"{_COUNTS} WHERE queue_id = ?"
_ORDINAL = ids.ById("SELECT ordinal FROM tasks t")
_BUSY_WORKERS = "SELECT worker_id FROM workers WHERE leases > 0 ORDER BY worker_id LIMIT ?"


class Briefs(Reply, frozen=True):
    """Tasks as lists show them, and the ids of those that are not there."""

    items: list[k.TaskSummary]
    gone: list[str]


class GetBriefs(Query[Briefs], frozen=True, tag="get_briefs"):
    """Some tasks as lists show them. Only nodes ask this, of themselves."""

    ids: tuple[str, ...]


class Found(NamedTuple):
    """What the filters look at."""

    ordinal: int
    queue_id: int
    state: int
    name: str
    worker_id: int | None


class _Range(NamedTuple):
    """A range of an index, which holds tasks in the order of their ordinals."""

    condition: str
    values: tuple[int, ...]


class Filter(NamedTuple):
    """What is asked for; None is anything."""

    queue_id: int | None
    states: frozenset[int] | None
    name: str | None
    worker_id: int | None

    def fits(self, found: Found) -> bool:
        """Whether a task is one of those asked for."""
        if self.queue_id not in {None, found.queue_id} or self.name not in {None, found.name}:
            return False
        if self.states is not None and found.state not in self.states:
            return False
        if self.worker_id is None:
            return True
        return found.worker_id == self.worker_id and (found.state == PROCESSING or found.state in task_rows.FINAL)


def list_tasks(connection: sqlite3.Connection, request: k.ListTasks) -> k.TaskList | q.QueueNotFound:
    """One page of tasks."""
    kind = f"task-{request.order}"
    last = pages.decode_id_cursor(kind, request.cursor)
    if not request.cursor and request.order == "newest":
        last = limits.INTEGER_MAX
    fitting = wanted(connection, request)
    if isinstance(fitting, q.QueueNotFound):
        return fitting
    items: list[k.TaskSummary] = []
    room_bytes = limits.PAGE_BYTES_MAX
    with ExitStack() as opened:
        listed = rows(connection, opened, fitting, request, last)
        for found in itertools.islice(listed, limits.LISTED_ROWS_MAX):
            if fitting.fits(found):
                if len(items) == request.limit or room_bytes <= 0:
                    return k.TaskList(items=items, next=pages.encode_cursor(kind, str(last)))
                item, size_bytes = _summary(connection, found.ordinal)
                items.append(item)
                room_bytes -= size_bytes
            last = found.ordinal
        more = next(listed, None) is not None
    return k.TaskList(items=items, next=pages.encode_cursor(kind, str(last)) if more else None)


def wanted(connection: sqlite3.Connection, request: k.ListTasks) -> Filter | q.QueueNotFound:
    """What a list is asked to show."""
    queue_id = None
    if request.queue is not None:
        queue = queue_queries.find(connection, request.queue)
        if isinstance(queue, q.QueueNotFound):
            return queue
        queue_id = queue.queue_id
    states = None
    if request.status is not None:
        states = frozenset(number for number, word in enumerate(k.STATES) if word in request.status.split(","))
    return Filter(queue_id, states, request.name, request.worker_id)


def briefs(connection: sqlite3.Connection, request: GetBriefs) -> Briefs:
    """Some tasks as they are now, in the order of the question."""
    items, gone = [], []
    for task_id in request.ids:
        row = _ORDINAL.find(connection.execute, task_id)
        if row is None:
            gone.append(task_id)
        else:
            items.append(_summary(connection, row[0])[0])
    return Briefs(items=items, gone=gone)


# -- where the rows come from --------------------------------------------------------------------------------------
def rows(
    connection: sqlite3.Connection, opened: ExitStack, fitting: Filter, request: k.ListTasks, last: int
) -> Iterator[Found]:
    """Tasks behind ``last`` in the order asked for, all those that fit among them."""
    ranges = _ranges(connection, fitting)
    if ranges is None or len(ranges) > STREAMS_MAX:
        ranges = [_Range("", ())]
    streams = []
    for condition, values in ranges:
        cursor = connection.execute(f"{_COLUMNS} {condition} {_BEHIND[request.order]}", (*values, last))
        streams.append(map(Found._make, opened.enter_context(closing(cursor))))
    if len(streams) == 1:
        return streams[0]
    return heapq.merge(*streams, key=lambda found: found.ordinal, reverse=request.order == "newest")


def _ranges(connection: sqlite3.Connection, wanted: Filter) -> list[_Range] | None:
    """The ranges that hold every task that fits; None if the table itself is as good."""
    if wanted.queue_id is None and wanted.states is None:
        return None
    if wanted.states == frozenset({PROCESSING}) and wanted.worker_id is not None:
        return [_Range(_LEASED, (wanted.worker_id,))]
    if wanted.queue_id is None:
        queues = connection.execute(_ALL_COUNTS, (QUEUES_MERGED_MAX + 1,)).fetchall()
        if len(queues) > QUEUES_MERGED_MAX:
            return None
    else:
        queues = connection.execute(_COUNTS_OF, (wanted.queue_id,)).fetchall()
    states = range(len(k.STATES)) if wanted.states is None else sorted(wanted.states)
    ranges = list(_ranges_of_queues(queues, states))
    if PROCESSING in states and any(row[_COUNTS_FROM + PROCESSING] for row in queues):
        busy = connection.execute(_BUSY_WORKERS, (STREAMS_MAX + 1,))
        ranges += [_Range(_LEASED, worker) for worker in busy]
    return ranges


def _ranges_of_queues(queues: Iterable[tuple[int, ...]], states: Iterable[int]) -> Iterator[_Range]:
    """The ranges that hold tasks of some queues which are not leased."""
    for queue_id, partitions, *counts in queues:  # as _COUNTS_FROM says
        for state in states:
            if not counts[state]:
                continue
            if state == QUEUED:
                numbers = range(partitions) if partitions else (-1,)
                for place in itertools.product(numbers, range(limits.PRIORITY_MAX + 1)):
                    yield _Range(_READY, (queue_id, *place))
            elif state != PROCESSING:
                yield _Range(_RESTING, (queue_id, state))


# -- how they are shown --------------------------------------------------------------------------------------------
def _summary(connection: sqlite3.Connection, ordinal: int) -> tuple[k.TaskSummary, int]:
    """A task as lists show it, and how many bytes were read for it, about."""
    row = TaskRow(*connection.execute(task_rows.TASK_BY_ORDINAL, (ordinal,)).fetchone())
    size_bytes, args = _ITEM_BYTES, NULL
    if row.size_bytes <= ARGUMENT_BYTES_SHOWN_MAX:
        size_bytes += row.size_bytes
        args = _args(connection, ordinal)
    error = None
    if row.state != SUCCESS and row.leases:
        found = task_rows.last_error(connection, row)
        if found is not None:
            size_bytes += len(found.message) + len(found.traceback)
            error = causes.in_short(found, row.reason)
    worker_id, worker = task_rows.known_worker(row)
    summary = k.TaskSummary(
        id=row.id,
        name=row.name,
        queue=row.queue,
        partition=None if row.partition < 0 else row.partition,
        status=row.status,
        priority=row.priority,
        args=args,
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        lost=row.lost,
        worker_id=worker_id,
        worker=worker,
        created_at=moment.to_text(row.created_ms),
        started_at=text(row.claimed_ms),
        finished_at=text(row.finished_ms),
        reason=row.reason,
        error=error,
        cause=causes.fingerprint(row.name, error or causes.in_short(None, row.reason)) if row.state == FAILED else None,
    )
    return summary, size_bytes


def _args(connection: sqlite3.Connection, ordinal: int) -> msgspec.Raw:
    return task_rows.decode_body(connection.execute(task_rows.BODY, (ordinal,)).fetchone()[0]).args
