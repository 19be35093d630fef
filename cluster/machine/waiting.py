"""Rows that wait to be written together: of tasks that came, and of tasks that are done.

Many commands of an entry do the same to one task each. What they count and remember changes at once; the rows, which cost
more, are written when another command might read them, or at the end of the entry, and then all with few statements.

Invariants: nothing waits between two entries, nor while a step has a savepoint of its own. Whoever reads rows of tasks while
something may wait, in a command of ``LEAVING``, writes it first. What waits is of this entry, so it is forgotten with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from quorl.cluster.machine.books import Queue
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

# What is not there comes as 0 or as an empty text: Python's module takes far longer to bind None.
_COME = (
    "INSERT INTO tasks (ordinal, given_id, die, queue_id, partition, state, rank, alarm_ms, calendar_ms, due_ms, expiry_ms,"
    " since_ms, name, size_bytes, attempts, max_attempts, lost, max_lost, timeout_ms, cancel, leases, created_index,"
    " created_term, created_ms) VALUES (?, nullif(?, ''), ?, ?, ?, ?, ?, nullif(?, 0), nullif(?, 0),"
    " nullif(?, 0), nullif(?, 0), ?, ?, ?, 0, ?, 0, ?, nullif(?, 0), 0, 0, ?, ?, ?)"
)
_PAYLOAD = "INSERT INTO payloads VALUES (?, nullif(?, ''), nullif(?, ''), ?)"
_COMPLETE = (
    "UPDATE tasks SET state = 4, alarm_ms = ?, since_ms = ?, attempts = attempts + 1, cancel = 0, finished_index = ?,"
    " finished_term = ?, finished_ms = ? WHERE ordinal BETWEEN ? AND ?"
)
_RESULT = "INSERT INTO results VALUES (?, ?)"


def write(state: State) -> None:
    """Write all that waits."""
    if state.coming:
        write_coming(state)
    if state.done:
        _write_done(state)


def write_coming(state: State) -> None:
    """Write the tasks that came, before some of them are handed out."""
    state.execute_many(_COME, state.coming)
    state.execute_many(_PAYLOAD, state.payloads)
    state.coming, state.payloads = [], []


def _write_done(state: State) -> None:
    header = state.header
    for queue_id, ordinals in state.done.items():
        alarm_ms = forgotten_ms(state, state.queue_by_id(queue_id))
        how = (alarm_ms, header.now_ms, state.index, state.term, header.wall_ms)
        for start, end in runs(sorted(ordinals)):
            state.execute(_COMPLETE, (*how, start, end))
    if state.results:
        state.execute_many(_RESULT, state.results)
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
