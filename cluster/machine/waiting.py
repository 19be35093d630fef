"""Rows that wait to be written together: of tasks that came, and of tasks that are done.

Many commands of an entry do the same to one task each. What they count and remember changes at once; the rows, which cost
more, are written when another command might read them, or at the end of the entry, and then all with few statements.

Invariants: nothing waits between two entries, nor while a step has a savepoint of its own. Whoever reads rows of tasks while
something may wait, in a command of ``LEAVING``, writes it first. What waits is of this entry, so it is forgotten with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

from quorl.cluster.machine.books import Coming, Queue
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendBatches
from quorl.cluster.protocol.submitting import SubmitBatch

LEAVING = frozenset(
    {SubmitBatch, c.Complete, c.Settle, g.ReportBatch, c.Claim, g.ClaimBatch, t.AppendBatch, AppendBatches, t.Consume}
)
"""Commands before which rows may go on waiting: those that read none of tasks, or see to it themselves."""

_ROWS_MAX = 32
"""How many rows one statement writes at most; a power of two."""


class _Insert(NamedTuple):
    """A statement for many rows, of ``each`` values beside the ``shared`` ones, which are bound once."""

    head: str
    row: str
    shared: int = 0
    each: int = 2


# What is not there comes as 0 or as an empty text: Python's module takes far longer to bind None.
_COME = _Insert(
    "INSERT INTO tasks (given_id, die, queue_id, partition, state, rank, alarm_ms, calendar_ms, due_ms, expiry_ms, since_ms,"
    " name, max_attempts, max_lost, timeout_ms, created_index, created_term, created_ms, attempts, lost, cancel, leases,"
    " ordinal, size_bytes)",
    "nullif(?1, ''), ?2, ?3, ?4, ?5, ?6, nullif(?7, 0), nullif(?8, 0), nullif(?9, 0), nullif(?10, 0), ?11, ?12, ?13, ?14,"
    " nullif(?15, 0), ?16, ?17, ?18, 0, 0, 0, 0, ?, ?",
    shared=18,
)
_HANDED = _Insert(  # those that are leased in the entry in which they come
    "INSERT INTO tasks (given_id, die, queue_id, partition, state, rank, alarm_ms, since_ms, name, max_attempts, max_lost,"
    " timeout_ms, created_index, created_term, created_ms, claimed_index, claimed_term, claimed_ms, attempts, lost, cancel,"
    " leases, ordinal, size_bytes, token, claim, worker_id, worker)",
    "nullif(?1, ''), ?2, ?3, ?4, 2, ?5, nullif(?6, 0), ?7, ?8, ?9, ?10, nullif(?11, 0), ?12, ?13, ?14, ?12, ?13, ?14, 0, 0, 0,"
    " 1, ?, ?, ?, ?, ?, ?",
    shared=14,
    each=6,
)
_BODY = _Insert("INSERT INTO payloads (ordinal, body)", "?, ?")
_PAYLOAD = "INSERT INTO payloads VALUES (?, nullif(?, ''), nullif(?, ''), ?)"
_RESULT = _Insert("INSERT INTO results", "?, ?")
_COMPLETE = (
    "UPDATE tasks SET state = 4, alarm_ms = ?, since_ms = ?, attempts = attempts + 1, cancel = 0, finished_index = ?,"
    " finished_term = ?, finished_ms = ? WHERE ordinal BETWEEN ? AND ?"
)


def write(state: State) -> None:
    """Write all that waits."""
    write_coming(state)
    if state.done:
        _write_done(state)


def write_coming(state: State) -> None:
    """Write the tasks that came, handed out already or not."""
    if not state.coming:
        return
    for said, handed in state.handed:
        _insert(state, _HANDED, _as_handed(said), handed)
    for said, tasks in state.coming:
        _insert(state, _COME, said, tasks)
    _insert(state, _BODY, (), state.bodies)
    if state.payloads:
        state.execute_many(_PAYLOAD, state.payloads)
    state.coming, state.handed, state.bodies, state.payloads = [], [], [], []


def _as_handed(said: Coming) -> tuple[object, ...]:
    alarm_ms = said.since_ms + said.timeout_ms if said.timeout_ms else 0
    return (*said[:4], said.rank, alarm_ms, *said[10:])


def _insert(state: State, what: _Insert, shared: tuple[object, ...], values: list[Any]) -> None:
    """Write rows, of which each has as many of the values as is said there.

    As many as a power of two by one statement, so that there are few of them, and each is prepared once.
    """
    start, rows = 0, _ROWS_MAX
    while start < len(values):
        while what.each * rows > len(values) - start:
            rows //= 2
        end = start + what.each * rows
        state.execute(_statement(what, rows), (*shared, *values[start:end]))
        start = end


@cache
def _statement(what: _Insert, rows: int) -> str:
    pieces = what.row.removesuffix(", ".join(["?"] * what.each))
    firsts = range(what.shared + 1, what.shared + 1 + what.each * rows, what.each)
    own = [", ".join([f"?{place}" for place in range(first, first + what.each)]) for first in firsts]
    return f"{what.head} VALUES " + ", ".join([f"({pieces}{values})" for values in own])


def _write_done(state: State) -> None:
    header = state.header
    for queue_id, ordinals in state.done.items():
        alarm_ms = forgotten_ms(state, state.queue_by_id(queue_id))
        how = (alarm_ms, header.now_ms, state.index, state.term, header.wall_ms)
        for start, end in runs(sorted(ordinals)):
            state.execute(_COMPLETE, (*how, start, end))
    _insert(state, _RESULT, (), state.results)
    state.done, state.results = {}, []


def runs(ordinals: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Those of tasks that follow one another together: the first and the last of each run, for one statement."""
    if not ordinals:
        return
    start = end = ordinals[0]
    for ordinal in ordinals[1:]:
        if ordinal != end + 1:
            yield start, end
            start = ordinal
        end = ordinal
    yield start, end


def forgotten_ms(state: State, queue: Queue) -> int | None:
    """When a task that finishes now is to be forgotten: its alarm."""
    if not queue.keep_finished_ms:
        return None
    alarm_ms = state.header.now_ms + queue.keep_finished_ms
    state.wake(alarm_ms)
    return alarm_ms
