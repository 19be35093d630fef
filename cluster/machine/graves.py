"""Clearing away what deleted topics have left behind, a little with every entry.

Deleting a topic removes its own row, after which nothing leads to its data any more, and digs a grave: the id is noted,
so that the rows that carry it can go later. However large a topic was, no entry takes long because of it.

Invariants: an id stands in ``topics`` or in ``graves``, never in both, and every other row that carries an id finds it in
one of them. What an entry clears away follows from the rows and the entry alone, in the order of keys, so all nodes hold
the same at each step. Entries that write much also clear away much, so that topics that are made and deleted all the
time do not pile up.
"""

from __future__ import annotations

from quorl.cluster.machine.state import State

_BATCHES = (
    "SELECT partition, base_offset, length(body) FROM batches WHERE topic_id = ?"
    " ORDER BY partition, base_offset LIMIT ?"
)
_CLEAR_BATCHES = "DELETE FROM batches WHERE topic_id = ? AND (partition, base_offset) <= (?, ?)"
_CLEAR_OTHERS = tuple(
    f"DELETE FROM {table} WHERE ({key}) IN (SELECT {key} FROM {table} WHERE topic_id = ? ORDER BY {key} LIMIT ?)"
    for table, key in (
        ("producers", "topic_id, producer_id"),
        ("consumers", "topic_id, consumer_id"),
        ("cursors", "topic_id, consumer_id, partition"),
        ("partitions", "topic_id, partition"),
    )
)
_DIG = "INSERT INTO graves (topic_id) VALUES (?)"
_CLOSE = "DELETE FROM graves WHERE topic_id = ?"


def dig(state: State, topic_id: int) -> None:
    """Note that the rows with this id may go."""
    state.execute(_DIG, (topic_id,))
    state.grave = topic_id if state.grave is None else min(state.grave, topic_id)


def clear(state: State, rows: int, size_bytes: int) -> None:
    """Clear away at most so many rows of the oldest topics that were deleted.

    Once the bytes are used up no batch is cleared any more, so one batch may exceed them. Looking into a table costs as
    much as a row, so that many small topics are no more work than a large one.
    """
    while state.grave is not None:
        rows, size_bytes = _clear_batches(state, state.grave, rows, size_bytes)
        for statement in _CLEAR_OTHERS:
            if rows > 0:
                rows -= 1 + state.execute(statement, (state.grave, rows)).rowcount
        if rows <= 0:
            return  # something may be left
        state.execute(_CLOSE, (state.grave,))
        state.look_for_grave()


def _clear_batches(state: State, topic_id: int, rows: int, size_bytes: int) -> tuple[int, int]:
    """Clear away the first batches of a topic; the room that is left, which is none if batches are."""
    found = state.execute(_BATCHES, (topic_id, rows)).fetchall()
    cleared = 0
    for _, _, body_bytes in found:
        if size_bytes <= 0:
            break
        size_bytes -= body_bytes
        cleared += 1
    if cleared:
        state.execute(_CLEAR_BATCHES, (topic_id, *found[cleared - 1][:2]))
    return (rows - 1 - cleared if cleared == len(found) else 0), size_bytes
