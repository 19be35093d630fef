"""What a leader looks at before it proposes: what a queue has to give, and what is known of who asks.

Nothing is changed here, and nothing that is seen is an outcome: it decides only what is proposed and when. All of it
comes from memory or from the first rows of an index, because it is asked for every claim.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from quorl.cluster.machine.moves import QUEUED
from quorl.cluster.machine.state import State
from quorl.cluster.machine.worker_queries import STATUSES
from quorl.cluster.protocol import limits

_DUE = (
    "SELECT q.name, t.expiry_ms FROM tasks t INDEXED BY tasks_alarm CROSS JOIN queues q ON q.queue_id = t.queue_id"
    " WHERE t.alarm_ms IS NOT NULL AND t.alarm_ms <= ? AND t.state IN (0, 3) ORDER BY t.alarm_ms, t.ordinal LIMIT ?"
)
_DUE_BY_CALENDAR = (
    "SELECT q.name, NULL FROM tasks t INDEXED BY tasks_calendar CROSS JOIN queues q ON q.queue_id = t.queue_id"
    " WHERE t.calendar_ms IS NOT NULL AND t.calendar_ms <= ? ORDER BY t.calendar_ms, t.ordinal LIMIT ?"
)
_WAITS = "SELECT 1 FROM queues WHERE queued > 0 LIMIT 1"


class Outlook(NamedTuple):
    """What a queue has to give: so many tasks that can be claimed at most, or nothing any more for ever."""

    claimable: int
    drained: bool


class WorkerState(NamedTuple):
    """What is known of a worker, as far as its claims depend on it."""

    status: Literal["ALIVE", "DEAD", "LEFT"]
    dead_after_ms: int
    queues: tuple[str, ...]
    leases: int

    @property
    def alive(self) -> bool:
        """Whether its claims are heard."""
        return self.status == "ALIVE"


def worker(state: State, worker_id: int) -> WorkerState | None:
    """Describe a worker; None if there is none."""
    found = state.worker(worker_id)
    if found is None:
        return None
    return WorkerState(STATUSES[found.status], found.dead_after_ms, found.queues, found.leases)


def outlook(state: State, queue: str) -> Outlook:
    """What a queue has to give."""
    found = state.queue(queue)
    if found is None or found.paused:
        return Outlook(0, drained=found is not None and found.drained)
    return Outlook(found.counts[QUEUED], found.drained)


def waits(state: State) -> bool:
    """Whether any task is QUEUED. It reads counters of queues and no tasks."""
    return state.execute(_WAITS).fetchone() is not None


def serves(state: State, worker_id: int, queue: str) -> bool:
    """Whether a task that comes to a queue now may go to that worker."""
    asking, found = state.worker(worker_id), state.queue(queue)
    if asking is None or asking.quiet or (found is not None and found.paused):
        return False
    if found is not None and found.partitions:
        return worker_id in found.owned
    return not asking.standby or queue in asking.active


def coming(state: State, now_ms: int, wall_ms: int) -> dict[str, int]:
    """How many tasks of which queues an entry of that moment would make claimable by itself; about, not exactly."""
    found: dict[str, int] = {}
    most = limits.DUE_TASKS_PER_ENTRY
    for statement, moment_ms in ((_DUE, now_ms), (_DUE_BY_CALENDAR, wall_ms)):
        for name, expiry_ms in state.execute(statement, (moment_ms, most)).fetchall():
            if expiry_ms is None or expiry_ms > now_ms:
                found[name] = found.get(name, 0) + 1
    return found
