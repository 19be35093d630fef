"""What happens by itself when its moment has come: to tasks by cluster time and by the calendar, and to workers.

Nearly always nothing is due, so the moment before which nothing can be is remembered (``Books.calm_tasks_ms`` and its like):
it was read when something was due last, and whoever sets an alarm before it moves it there.

Invariants: an entry attends to a bounded number, the longest due first, and the next entry goes on. Each is attended to
whole or not at all; what cannot be, because of a defect, is put off, so that nothing else waits for it.
"""

from __future__ import annotations

from collections.abc import Callable

from quorl.cluster.machine import moves, ownership, workers
from quorl.cluster.machine.moves import EXPIRED, PROCESSING, RETRY
from quorl.cluster.machine.schema import DEAD
from quorl.cluster.machine.state import State
from quorl.cluster.protocol import limits

_PUT_OFF_MS = 60_000
"""What raises when its moment has come is tried again then: sooner would fill entries with it."""
_TASKS = (
    "SELECT ordinal FROM tasks INDEXED BY tasks_alarm WHERE alarm_ms IS NOT NULL AND alarm_ms <= ?"
    " ORDER BY alarm_ms, ordinal LIMIT ?"
)
_CALENDAR = (
    "SELECT ordinal FROM tasks INDEXED BY tasks_calendar WHERE calendar_ms IS NOT NULL AND calendar_ms <= ?"
    " ORDER BY calendar_ms, ordinal LIMIT ?"
)
_WORKERS = (
    "SELECT worker_id FROM workers INDEXED BY workers_alarm WHERE alarm_ms <= ? ORDER BY alarm_ms, worker_id LIMIT ?"
)
_NEXT_TASK = "SELECT alarm_ms FROM tasks INDEXED BY tasks_alarm WHERE alarm_ms IS NOT NULL ORDER BY alarm_ms LIMIT 1"
_NEXT_WORKER = "SELECT alarm_ms FROM workers INDEXED BY workers_alarm ORDER BY alarm_ms LIMIT 1"
_NEXT_CALENDAR = (
    "SELECT calendar_ms FROM tasks INDEXED BY tasks_calendar WHERE calendar_ms IS NOT NULL ORDER BY calendar_ms LIMIT 1"
)
_PUT_OFF_TASK = "UPDATE tasks SET alarm_ms = ? WHERE ordinal = ?"
_PUT_OFF_CALENDAR = "UPDATE tasks SET calendar_ms = ? WHERE ordinal = ?"

Guarded = Callable[[Callable[[], object]], object]
"""Does something whole or not at all; returns the error, if every node meets it."""


def next_alarm_ms(state: State) -> int | None:
    """The next moment of cluster time at which something happens by itself."""
    found = [state.execute(statement).fetchone() for statement in (_NEXT_TASK, _NEXT_WORKER)]
    return min([row[0] for row in found if row is not None], default=None)


def next_calendar_ms(state: State) -> int | None:
    """The next moment of calendar time at which a task is due."""
    row = state.execute(_NEXT_CALENDAR).fetchone()
    return None if row is None else row[0]


def attend(state: State, guarded: Guarded) -> None:
    """Attend to what is due at the entry's moment."""
    header, room = state.header, limits.DUE_TASKS_PER_ENTRY
    now_ms, wall_ms = header.now_ms, header.wall_ms
    if state.calm_tasks_ms <= now_ms:
        ordinals = state.execute(_TASKS, (now_ms, room)).fetchall()
        for (ordinal,) in ordinals:
            if isinstance(guarded(lambda: _alarm(state, ordinal)), Exception):  # noqa: B023  # it is called at once
                state.execute(_PUT_OFF_TASK, (now_ms + _PUT_OFF_MS, ordinal))
        room -= len(ordinals)
        state.calm_tasks_ms = _first_ms(state, _NEXT_TASK)
    if state.calm_calendar_ms <= wall_ms:
        for (ordinal,) in state.execute(_CALENDAR, (wall_ms, room)).fetchall():
            if isinstance(guarded(lambda: moves.queue_up(state, moves.get(state, ordinal))), Exception):  # noqa: B023
                state.execute(_PUT_OFF_CALENDAR, (wall_ms + _PUT_OFF_MS, ordinal))
        state.calm_calendar_ms = _first_ms(state, _NEXT_CALENDAR)
    if state.calm_workers_ms <= now_ms:
        _attend_workers(state, guarded)
        state.calm_workers_ms = _first_ms(state, _NEXT_WORKER)


def _first_ms(state: State, statement: str) -> int:
    """The first moment at which a row says that something is due, or one that never comes."""
    row = state.execute(statement).fetchone()
    return limits.INTEGER_MAX if row is None else row[0]


def _alarm(state: State, ordinal: int) -> None:
    """The alarm of a task has come: what that means follows from its state."""
    task = moves.get(state, ordinal)
    if task.state > RETRY:
        moves.forget(state, task)
    elif task.state == PROCESSING:
        moves.end(state, task, "timeout")
    elif task.expiry_ms is not None and task.expiry_ms <= state.header.now_ms:
        moves.finish(state, task, EXPIRED, "EXPIRED")
    else:
        moves.queue_up(state, task)


def _attend_workers(state: State, guarded: Guarded) -> None:
    """Attend to workers whose time is over: together they give back as many leases as tasks are attended to."""
    now_ms, room = state.header.now_ms, limits.DUE_TASKS_PER_ENTRY
    if state.execute(_WORKERS, (now_ms, 1)).fetchone() is None:
        return
    state.write_workers()  # those that have just given a sign of life are not over
    for (worker_id,) in state.execute(_WORKERS, (now_ms, limits.DUE_WORKERS_PER_ENTRY)).fetchall():
        given = guarded(lambda: _over(state, worker_id, room))  # noqa: B023
        if isinstance(given, int):
            room -= given
        else:
            workers.put_off(state, worker_id, now_ms + _PUT_OFF_MS)


def _over(state: State, worker_id: int, most: int) -> int:
    """A worker is dead, has leases left to give back, or is forgotten; returns how many leases went back."""
    worker = state.worker(worker_id)
    assert worker is not None, "a row has just named it"
    held = worker.leases
    if workers.is_alive(worker):
        ownership.settle(state, workers.retire(state, worker, DEAD, most, missed=True))
    elif held:
        workers.give_back(state, worker, most)
    else:
        workers.forget(state, worker)
    return held - worker.leases
