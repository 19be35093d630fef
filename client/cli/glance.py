"""The overview of the cluster, where a table wants more than its own list says: rates of queues, beats of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from quorl.client.sync import Client
    from quorl.cluster.protocol import overview as o

GLANCE_S = 2.0
"""A table that has waited for so long goes without."""
BEATS_SHOWN = 12
"""Cells of ``OverviewWorker.beats`` in a table: the last two minutes."""
_CELL_MS = 10_000
"""Of a cell."""


def glance(client: Client) -> o.Overview | None:
    """Return the overview, which is only decoration where this is asked; None if there is none, as at an older node."""
    from quorl.client.errors import QuorlError
    from quorl.cluster.protocol import overview as o

    try:
        return client.call(o.GetOverview(), timeout_s=min(GLANCE_S, client.timeout_s))
    except QuorlError:
        return None


def beats_text(worker: o.OverviewWorker, cells: int = BEATS_SHOWN) -> str:
    """Return heartbeats, the oldest first: a stroke for ten seconds in which one came when it should, a dot for others.

    Where heartbeats are further apart than ten seconds, one counts until the next is due; so it does at the end, for the
    last ten seconds are not over.
    """
    lasts = -(-worker.heartbeat_ms // _CELL_MS)
    beats = worker.beats
    first = max(0, len(beats) - cells)
    heard = (beats[max(0, place + 1 - lasts) : place + 1].strip("0") for place in range(first, len(beats)))
    told = "".join("|" if one else "·" for one in heard)
    due = worker.status == "ALIVE" and worker.silent_ms <= worker.heartbeat_ms
    return told[:-1] + "|" if due else told
