"""Handing tasks out: which of a queue go to a worker that asks.

Invariants: a claim looks at no row that it does not hand out, but for the first of each partition that the worker owns, and
for tasks whose time is over, which it ends. Tasks go by rank and then in the order of submission. Tokens grow with every
lease over the whole cluster. A worker that is told to be quiet, a stand-by where it is not needed, and a worker that
holds as many leases as its heartbeats can name, get nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from quorl.cluster.machine import arriving, ids, moves, waiting, workers
from quorl.cluster.machine.arriving import Came, Ready
from quorl.cluster.machine.books import STARTED, Queue, Worker
from quorl.cluster.machine.moves import PROCESSING, QUEUED
from quorl.cluster.machine.state import Lease, State
from quorl.cluster.protocol import leases as c
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.workers import WorkerNotAlive, WorkerNotFound

_SIZE = (  # what is handed out is the body, and what an earlier lease has left
    "CASE leases WHEN 0 THEN size_bytes ELSE size_bytes + ifnull((SELECT length(checkpoint) FROM progress"
    " WHERE progress.ordinal = tasks.ordinal), 0) END"
)
_COLUMNS = f"rank, ordinal, given_id, attempts, {_SIZE}, timeout_ms, expiry_ms, since_ms, created_ms, die"
_READY = f"SELECT {_COLUMNS} FROM tasks INDEXED BY tasks_ready WHERE state = 1 AND queue_id = ? AND partition = ?"
_FIRST = f"{_READY} ORDER BY rank, ordinal LIMIT ?"
_NEXT = f"{_READY} AND (rank, ordinal) > (?, ?) ORDER BY rank, ordinal LIMIT ?"
_LEASE = (
    "UPDATE OR FAIL tasks SET state = 2, alarm_ms = ?1 + timeout_ms, expiry_ms = NULL, since_ms = ?1, leases = leases + 1,"
    " claim = ?2, worker_id = ?3, worker = ?4, claimed_index = ?5, claimed_term = ?6, claimed_ms = ?7,"
    " token = ordinal - ?8 + ?10 WHERE ordinal BETWEEN ?8 AND ?9"
)
"""Of tasks that follow one another, as do their tokens."""
_AHEAD_MAX = 128
"""So many rows are read at once for several claims, which may be given none of them."""


def claim(state: State, command: c.Claim) -> c.Granted | WorkerNotFound | WorkerNotAlive:
    """Lease tasks to a worker, queue by queue in the order in which it names them."""
    return claim_within(state, command, Shared())


class Shared:
    """What the claims of one command have in common: the room that is left, and the rows of queues that were read ahead."""

    def __init__(self, wanted: int = 0) -> None:
        """``wanted``: how many tasks all of them want; what one of them wants by itself need not be said."""
        self.room_bytes = limits.CLAIM_BYTES_MAX
        self.wanted = min(wanted, _AHEAD_MAX)
        self.ready: dict[int, Iterator[Ready]] = {}
        """Of queues without partitions, by their ids: whoever takes a row takes it from all."""


def claim_within(state: State, command: c.Claim, shared: Shared) -> c.Granted | WorkerNotFound | WorkerNotAlive:
    """The same, of tasks that fit into the room that is left, the first of an untouched answer whatever its size."""
    worker = workers.alive(state, command.worker_id)
    if not isinstance(worker, Worker):
        return worker
    workers.beat(state, worker)
    names = command.queues or worker.queues
    grants: list[c.Grant] = []
    most = min(command.max, limits.WORKER_LEASES_MAX - worker.leases)
    for name in names:
        queue = state.queue(name)
        if queue is not None and len(grants) < most and shared.room_bytes > 0 and (partitions := _open(queue, worker)):
            wanted = most - len(grants)
            came = arriving.all_queued(state, queue)
            ready = arriving.ready(came) if came else _ready(state, queue.queue_id, partitions, wanted, shared)
            chosen = _choose(state, ready, wanted, shared)
            if chosen:
                grants += _lease(state, queue, worker, command.number, chosen, came)
    drained = not grants and all(_drained(state, name) for name in names)
    return c.Granted(
        worker_id=worker.worker_id, expires_in_ms=worker.dead_after_ms, grants=grants, drained=drained and bool(names)
    )


def claimable(state: State, command: c.Claim) -> bool:
    """Whether a claim would be answered with anything but nothing; changes nothing."""
    worker = workers.alive(state, command.worker_id)
    if not isinstance(worker, Worker):
        return True
    names = command.queues or worker.queues
    for name in names:
        queue = state.queue(name)
        if queue is not None:
            for partition in _open(queue, worker):
                if state.execute(_FIRST, (queue.queue_id, partition, 1)).fetchone() is not None:
                    return True
    return bool(names) and all(_drained(state, name) for name in names)


def _drained(state: State, name: str) -> bool:
    queue = state.queue(name)
    return queue is not None and queue.drained


def _open(queue: Queue, worker: Worker) -> tuple[int, ...]:
    """The partitions from which a worker may have tasks now."""
    if queue.paused or worker.quiet or not queue.counts[QUEUED] or worker.leases >= limits.WORKER_LEASES_MAX:
        return ()
    if queue.partitions:
        return queue.owned.get(worker.worker_id, ())
    return (-1,) if not worker.standby or queue.name in worker.active else ()


def _choose(state: State, ready: Iterable[Ready], wanted: int, shared: Shared) -> list[Ready]:
    """Choose at most ``wanted`` tasks that fit into the room, the first of all whatever its size.

    Tasks that should have been started by now are ended on the way, no more than an entry attends to by itself.
    """
    room_bytes, some = shared.room_bytes, shared.room_bytes < limits.CLAIM_BYTES_MAX
    now_ms = state.header.now_ms
    chosen: list[Ready] = []
    late: list[int] = []
    for row in ready:
        size_bytes, expiry_ms = row[4], row[6]
        if expiry_ms is not None and expiry_ms <= now_ms:
            late.append(row[1])
        elif size_bytes > room_bytes and (some or chosen):
            room_bytes = 0
        else:
            room_bytes -= size_bytes
            chosen.append(row)
        if len(chosen) == wanted or len(late) == limits.DUE_TASKS_PER_ENTRY or room_bytes <= 0:
            break
    for ordinal in late:
        moves.finish(state, moves.get(state, ordinal), moves.EXPIRED, "EXPIRED")
    shared.room_bytes = room_bytes
    return chosen


def _ready(state: State, queue_id: int, partitions: tuple[int, ...], wanted: int, shared: Shared) -> Iterable[Ready]:
    """What may be handed out, in order, about as much of it as is wanted at first."""
    waiting.write_coming(state)
    if partitions == (-1,):
        if queue_id not in shared.ready:
            shared.ready[queue_id] = _of_partition(state, queue_id, -1, max(wanted, shared.wanted))
        return shared.ready[queue_id]
    ahead = 1 + (wanted - 1) // len(partitions)
    return heapq.merge(*[_of_partition(state, queue_id, partition, ahead) for partition in partitions])


def _of_partition(state: State, queue_id: int, partition: int, ahead: int) -> Iterator[Ready]:
    rows = state.execute(_FIRST, (queue_id, partition, ahead)).fetchall()
    while rows:
        yield from rows
        rows = state.execute(_NEXT, (queue_id, partition, *rows[-1][:2], ahead)).fetchall()


def _lease(state: State, queue: Queue, worker: Worker, number: int, chosen: list[Ready], came: Came) -> list[c.Grant]:
    """Lease tasks to a worker; ``came``: those from which they were chosen if their rows are not written yet."""
    header, news, leases = state.header, state.news, state.leases
    now_ms, wall_ms, token = header.now_ms, header.wall_ms, header.next_token
    queue_id, worker_id = queue.queue_id, worker.worker_id
    grants = []
    for _, ordinal, given_id, attempts, _, timeout_ms, _, since_ms, created_ms, die in chosen:
        task_id = given_id or f"{ids.head(created_ms, die)}{ordinal:012x}"
        if timeout_ms is not None:
            state.wake(now_ms + timeout_ms)
        grants.append(c.Grant(ordinal, token, attempts + 1))
        leases[token] = Lease(ordinal, task_id, queue_id, attempts, worker_id, wall_ms)
        news.tasks[task_id] = None
        news.waited_ms.append(now_ms - since_ms)
        token += 1
    if came:
        arriving.hand_out(state, came, len(grants), number, worker)
    else:
        how = (now_ms, number, worker_id, worker.name, state.index, state.term, wall_ms)
        first = header.next_token
        for start, end in waiting.runs([grant.ordinal for grant in grants]):
            state.execute(_LEASE, (*how, start, end, first))
            first += end - start + 1
    header.next_token = token
    state.change_queue(queue)
    queue.counts[QUEUED] -= len(grants)
    queue.counts[PROCESSING] += len(grants)
    queue.totals[STARTED] += len(grants)
    state.change_worker(worker)
    worker.leases += len(grants)
    return grants
