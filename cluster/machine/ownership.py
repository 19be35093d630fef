"""Who gets the tasks of a queue: which workers are active, and which of them owns which partition.

Invariants: every worker that is ALIVE, not told to be quiet, and no stand-by is active in each of its queues. Of the
stand-bys, in order of their ids, as many are as workers of the queue died and were not replaced; one at least, if no other
worker serves it. A partition has one owner, an active worker of its queue, or none while there is no such worker; shares
differ by one partition at most, and no more partitions move than that takes. All of it is decided anew when a worker
comes, goes or dies, and never otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable

from quorl.cluster.machine import events as e
from quorl.cluster.machine.books import Queue
from quorl.cluster.machine.state import State

_MISSED = "SELECT count(*) FROM worker_queues INDEXED BY worker_queues_missed WHERE queue = ? AND alive = 0"
_SERVED = "SELECT 1 FROM worker_queues WHERE queue = ? AND alive = 1 AND standby = 0 LIMIT 1"
_STANDING_BY = (
    "SELECT worker_id, active FROM worker_queues INDEXED BY worker_queues_standby WHERE queue = ? AND standby = 1"
    " ORDER BY worker_id"
)
_SET_ACTIVE = "UPDATE worker_queues SET active = ? WHERE queue = ? AND worker_id = ?"
_ACTIVE = "SELECT worker_id FROM worker_queues WHERE queue = ? AND active = 1 ORDER BY worker_id"
_OWNERS = "SELECT worker_id FROM owners WHERE queue_id = ? ORDER BY partition"
_ADD_OWNER = "INSERT INTO owners VALUES (?, ?, ?, ?)"
_SET_OWNER = "UPDATE owners SET worker_id = ?, epoch = epoch + 1 WHERE queue_id = ? AND partition = ?"
_DISSOLVE = "DELETE FROM owners WHERE queue_id = ?"


def found(state: State, queue: Queue) -> None:
    """Deal out the partitions of a new queue."""
    owners = shares([None] * queue.partitions, _active(state, queue.name))
    for partition, owner in enumerate(owners):
        state.execute(_ADD_OWNER, (queue.queue_id, partition, owner, int(owner is not None)))
    queue.owned = _owned(owners)


def _active(state: State, name: str) -> list[int]:
    return [worker_id for (worker_id,) in state.execute(_ACTIVE, (name,)).fetchall()]


def dissolve(state: State, queue: Queue) -> None:
    """Nobody owns anything of a queue that is deleted."""
    state.execute(_DISSOLVE, (queue.queue_id,))
    queue.owned = {}


def settle(state: State, names: Iterable[str]) -> None:
    """Decide anew about queues whose workers are others now."""
    for name in names:
        _activate(state, name)
        queue = state.queue(name)
        if queue is not None and queue.partitions:
            _deal(state, queue)
        state.news.ready[name] = None


def _activate(state: State, name: str) -> None:
    """Decide which stand-bys of a queue are active. No row of another worker is read: there may be very many."""
    standing_by = state.execute(_STANDING_BY, (name,)).fetchall()
    if not standing_by:
        return
    (wanted,) = state.execute(_MISSED, (name,)).fetchone()
    if not wanted and state.execute(_SERVED, (name,)).fetchone() is None:
        wanted = 1
    for place, (worker_id, was) in enumerate(standing_by):
        now = int(place < wanted)
        if now != was:
            state.execute(_SET_ACTIVE, (now, name, worker_id))
            _remember(state, worker_id, name, active=bool(now))


def _remember(state: State, worker_id: int, name: str, *, active: bool) -> None:
    worker = state.remembered_worker(worker_id)
    if worker is not None:
        state.change_worker(worker)
        worker.active = worker.active | {name} if active else worker.active - {name}
    state.events.append(e.WorkerChanged(worker_id))


def _deal(state: State, queue: Queue) -> None:
    active = _active(state, queue.name)
    owners = [worker_id for (worker_id,) in state.execute(_OWNERS, (queue.queue_id,)).fetchall()]
    after = shares(owners, active)
    for partition, (old, new) in enumerate(zip(owners, after, strict=True)):
        if old != new:
            state.execute(_SET_OWNER, (new, queue.queue_id, partition))
    state.change_queue(queue)
    queue.owned = _owned(after)


def shares(owners: list[int | None], active: list[int]) -> list[int | None]:
    """Deal partitions out evenly: each worker keeps what it may, in order, and the rest goes to those who have too few.

    Of workers that own equally many the one with the lower id gets the share that is larger by one.
    """
    if not active:
        return [None] * len(owners)
    held: dict[int, list[int]] = {worker_id: [] for worker_id in active}
    free = []
    for partition, owner in enumerate(owners):
        if owner in held:
            held[owner].append(partition)
        else:
            free.append(partition)
    share, larger = divmod(len(owners), len(active))
    room = {}
    for place, worker_id in enumerate(sorted(active, key=lambda one: (-len(held[one]), one))):
        room[worker_id] = share + (place < larger)
        free += held[worker_id][room[worker_id] :]
        del held[worker_id][room[worker_id] :]
    free.sort(reverse=True)
    after = list(owners)
    for worker_id in active:
        for _ in range(room[worker_id] - len(held[worker_id])):
            after[free.pop()] = worker_id
    return after


def _owned(owners: list[int | None]) -> dict[int, tuple[int, ...]]:
    owned: dict[int, tuple[int, ...]] = {}
    for partition, owner in enumerate(owners):
        if owner is not None:
            owned[owner] = (*owned.get(owner, ()), partition)
    return owned
