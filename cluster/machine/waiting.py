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

from quorl.cluster.machine.books import RARE, Coming, Queue
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


# OR FAIL: SQLite keeps no copies of pages to undo a statement of many rows by itself; what fails here undoes the whole step.
_INSERT = "INSERT OR FAIL INTO"
_ALWAYS = (
    "die, queue_id, partition, state, rank, since_ms, name, max_attempts, max_lost, created_index, created_term, created_ms,"
    " attempts, lost, cancel, leases"
)
_COME = _Insert(
    f"{_INSERT} tasks ({_ALWAYS}, ordinal, size_bytes)",
    "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, 0, 0, 0, ?, ?",
    shared=12,
)
_HANDED = _Insert(  # those that are leased in the entry in which they come
    f"{_INSERT} tasks ({_ALWAYS}, claimed_index, claimed_term, claimed_ms, ordinal, size_bytes, token, claim, worker_id, worker)",
    "?1, ?2, ?3, 2, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, 0, 0, 0, 1, ?10, ?11, ?12, ?, ?, ?, ?, ?, ?",
    shared=12,
    each=6,
)
# The same of tasks with something that most are without. What one of them is without comes as 0 or as an empty text: Python's
# module takes far longer to bind None.
_COME_RARE = _Insert(
    f"{_INSERT} tasks (given_id, alarm_ms, calendar_ms, due_ms, expiry_ms, timeout_ms, {_ALWAYS}, ordinal, size_bytes)",
    "nullif(?1, ''), nullif(?2, 0), nullif(?3, 0), nullif(?4, 0), nullif(?5, 0), nullif(?6, 0), ?7, ?8, ?9, ?10, ?11, ?12, ?13,"
    " ?14, ?15, ?16, ?17, ?18, 0, 0, 0, 0, ?, ?",
    shared=18,
)
_HANDED_RARE = _Insert(
    f"{_INSERT} tasks (given_id, alarm_ms, timeout_ms, {_ALWAYS}, claimed_index, claimed_term, claimed_ms, ordinal,"
    " size_bytes, token, claim, worker_id, worker)",
    "nullif(?1, ''), ?12 + nullif(?6, 0), nullif(?6, 0), ?7, ?8, ?9, 2, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, 0, 0, 0, 1,"
    " ?16, ?17, ?18, ?, ?, ?, ?, ?, ?",
    shared=18,
    each=6,
)
_BODY = _Insert(f"{_INSERT} payloads (ordinal, body)", "?, ?")
_PAYLOAD = "INSERT INTO payloads VALUES (?, nullif(?, ''), nullif(?, ''), ?)"
_RESULT = _Insert(f"{_INSERT} results", "?, ?")
_COMPLETE = (
    "UPDATE OR FAIL tasks SET state = 4, alarm_ms = ?, since_ms = ?, attempts = attempts + 1, cancel = 0, finished_index = ?,"
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
        _insert_alike(state, _HANDED, _HANDED_RARE, said, handed)
    for said, tasks in state.coming:
        _insert_alike(state, _COME, _COME_RARE, said, tasks)
    _insert(state, _BODY, (), state.bodies)
    if state.payloads:
        state.execute_many(_PAYLOAD, state.payloads)
    state.coming, state.handed, state.bodies, state.payloads = [], [], [], []


def _insert_alike(state: State, plain: _Insert, rare: _Insert, said: Coming, values: list[Any]) -> None:
    if any(said[:RARE]):
        _insert(state, rare, said, values)
    else:
        _insert(state, plain, said[RARE:], values)


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
