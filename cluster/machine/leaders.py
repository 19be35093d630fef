"""Which node led in which term, and from when on: what the entries say, kept for the history of tasks and of the cluster.

Invariants: one row for each term in which an entry came that names its leader; the newest ``LEADERS_KEPT`` stay.
"""

from __future__ import annotations

from quorl.cluster.machine.state import State
from quorl.cluster.protocol import limits

_NOTE = "INSERT INTO leaders VALUES (?, ?, ?)"
_FORGET = "DELETE FROM leaders WHERE term <= (SELECT term FROM leaders ORDER BY term DESC LIMIT 1 OFFSET ?)"


def note(state: State, node: str) -> None:
    """Remember who leads in the term of the entry, if that is news."""
    if node and (state.led_term is None or state.term > state.led_term):
        state.execute(_NOTE, (state.term, node, state.header.wall_ms))
        state.execute(_FORGET, (limits.LEADERS_KEPT,))
        state.led_term = state.term
