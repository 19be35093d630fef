"""Queues and workers as they are remembered while entries are applied, and how they get back into their rows.

Invariants: what changes with every task (counts, turns, heartbeats) is changed here at once and written once per entry,
at its end, so that a hundred tasks of one queue cost one statement. Whoever changes one says so with ``change_queue`` or
``change_worker``. What was changed since it was written last cannot be brought back one by one: whoever undoes more than
that reads the rows again. Everything else (configuration, status, who serves what)
is written by the command itself, and remembered by the same function. Only numbers that the machine counts itself wait
for the end of the entry: nothing that a command carries can fail there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from quorl.cluster.machine import schema
from quorl.cluster.machine.events import Event, QueueCounted

_QUEUES_REMEMBERED_MAX = 10_000
_WORKERS_REMEMBERED_MAX = 20_000
"""With more at work all of them are forgotten, and read back one by one: slower, and bounded."""
_COLUMNS = {table.name: table.columns for table in schema.TABLES}
_STATES = ("scheduled", "queued", "processing", "retry", "success", "failed", "cancelled", "expired")
_TOTALS = ("total_started", "total_succeeded", "total_failed_attempts", "total_lost", "total_failed")
_COUNTED = (*_STATES, *_TOTALS)
_CONFIG = tuple(column for column in _COLUMNS["queues"] if column not in _COUNTED)
_QUEUE = f"SELECT {', '.join((*_CONFIG, *_COUNTED))} FROM queues"
QUEUE_BY_NAME = f"{_QUEUE} WHERE name = ? AND deleted = 0"
"""The row that ``Queue.of`` reads."""
_QUEUE_BY_ID = f"{_QUEUE} WHERE queue_id = ?"
_WRITE_QUEUE = (
    f"UPDATE queues SET next_partition = ?, submitted = ?, {', '.join(f'{column} = ?' for column in _COUNTED)}"
    " WHERE queue_id = ?"
)
_OWNERS = "SELECT worker_id, partition FROM owners WHERE queue_id = ? AND worker_id IS NOT NULL ORDER BY partition"
_WORKER = f"SELECT {', '.join(_COLUMNS['workers'])} FROM workers WHERE worker_id = ?"
_WORKER_QUEUES = "SELECT queue, active FROM worker_queues WHERE worker_id = ? ORDER BY position"
_RUNNING = ("alarm_ms", "beat_ms", "beat_wall_ms", "noted_ms", "beats", "leases", "succeeded", "failed", "lost")
_CHANGING = ("status", "filled", "quiet", "terminate", "ended_ms", *_RUNNING)
_WRITE_WORKER = f"UPDATE workers SET {', '.join(f'{column} = ?' for column in _CHANGING)} WHERE worker_id = ?"
_KEEP_WORKER = f"UPDATE workers SET {', '.join(f'{column} = ?' for column in _RUNNING)} WHERE worker_id = ?"
"""Without the columns of other indexes than that of alarms, which would be written, too."""
_running = attrgetter(*_RUNNING, "worker_id")
_changing = attrgetter(*_CHANGING, "worker_id")


STARTED, SUCCEEDED, FAILED_ATTEMPTS, LOST, FAILED = range(5)
"""Where they stand in ``Queue.totals``."""

Tally = tuple[int, ...]
"""What was ever submitted, started, succeeded, failed_attempts, lost, failed; and how many tasks wait and run now."""
NOTHING: Tally = (0,) * 8
"""The tally of a new queue."""


class Queue(msgspec.Struct):
    """A queue's row; ``counts`` has a number for each state, ``owned`` the partitions of each worker that has some.

    ``told`` is its tally after the last entry that changed it.
    """

    queue_id: int
    name: str
    deleted: int
    paused: int
    sealed: int
    partitions: int
    next_partition: int
    default_attempts: int
    max_lost: int
    backoff: str
    timeout_ms: int | None
    keep_finished_ms: int
    max_depth: int
    submitted: int
    sampled: str
    created_ms: int
    counts: list[int]
    totals: list[int]
    told: Tally = NOTHING
    owned: dict[int, tuple[int, ...]] = {}

    @classmethod
    def of(cls, row: tuple[Any, ...]) -> Queue:
        """The queue of a row, without owners."""
        counted = list(row[len(_CONFIG) :])
        counts, totals = counted[: len(_STATES)], counted[len(_STATES) :]
        queue = cls(**dict(zip(_CONFIG, row, strict=False)), counts=counts, totals=totals)
        queue.told = queue.tally
        return queue

    @property
    def waiting(self) -> int:
        """How many tasks wait: SCHEDULED, QUEUED, RETRY."""
        return self.counts[0] + self.counts[1] + self.counts[3]

    @property
    def tally(self) -> Tally:
        """See ``Tally``."""
        return (self.submitted, *self.totals, self.waiting, self.counts[2])

    @property
    def drained(self) -> bool:
        """Whether nothing waits or runs, and nothing will come."""
        return bool(self.sealed) and not self.waiting and not self.counts[2]


class Worker(msgspec.Struct):
    """A worker's row; ``queues`` are those it counts for, in its own order, ``active`` those of which it gets tasks."""

    worker_id: int
    name: str
    status: int
    standby: int
    filled: int
    quiet: int
    terminate: int
    heartbeat_ms: int
    dead_after_ms: int
    alarm_ms: int
    beat_ms: int
    beat_wall_ms: int
    noted_ms: int
    beats: int
    leases: int
    succeeded: int
    failed: int
    lost: int
    registered_ms: int
    ended_ms: int | None
    queues: tuple[str, ...] = ()
    active: frozenset[str] = frozenset()


assert Queue.__struct_fields__[: len(_CONFIG)] == _CONFIG
assert Worker.__struct_fields__[: len(_COLUMNS["workers"])] == _COLUMNS["workers"]


class Coming(NamedTuple):
    """What tasks that came share; what is not there is 0 or an empty text, which only the first ``RARE`` may be."""

    given_id: str
    alarm_ms: int
    calendar_ms: int
    due_ms: int
    expiry_ms: int
    timeout_ms: int
    die: int
    queue_id: int
    partition: int
    state: int
    rank: int
    since_ms: int
    name: str
    max_attempts: int
    max_lost: int
    created_index: int
    created_term: int
    created_ms: int


RARE = Coming._fields.index("timeout_ms") + 1


class Books:
    """Queues and workers, remembered."""

    execute: Callable[..., sqlite3.Cursor]
    execute_many: Callable[..., sqlite3.Cursor]
    events: list[Event]

    def __init__(self) -> None:
        """Begin with nothing remembered."""
        self._queues: dict[int, Queue] = {}
        self._queue_ids: dict[str, int] = {}
        """Of those that are not deleted."""
        self._workers: dict[int, Worker] = {}
        self._unwritten_queues: set[int] = set()
        self.unsampled_queues: set[int] | None = None
        """Those that may have another tally than when they were sampled last; None: any."""
        self._unwritten_workers: set[int] = set()
        self.coming: list[tuple[Coming, list[int]]] = []
        """Rows of tasks that came and wait to be written (see ``waiting``): what some share, then ordinal and size of each."""
        self.handed: list[tuple[Coming, list[int | str]]] = []
        """Those that were leased meanwhile: what some share, then ordinal, size and token of each, number of the claim, worker and its name."""
        self.bodies: list[int | bytes] = []
        """Ordinals and bodies of those that have nothing else in their payload."""
        self.payloads: list[tuple[int, bytes | str, str, bytes]] = []
        """The payloads of the others."""
        self.done: dict[int, list[int]] = {}
        """The tasks of each queue that are done, and wait to be written, with their results."""
        self.results: list[int | bytes] = []
        self.calm_tasks_ms = self.calm_calendar_ms = self.calm_workers_ms = 0
        """Until then no row says that something is due: an alarm of a task, its date, an alarm of a worker. 0: not known."""

    # -- looking ------------------------------------------------------------------------------------------------
    def queue(self, name: str) -> Queue | None:
        """The queue of that name."""
        queue_id = self._queue_ids.get(name)
        if queue_id is not None:
            return self._queues[queue_id]
        row = self.execute(QUEUE_BY_NAME, (name,)).fetchone()
        return None if row is None else self._remember_queue(row)

    def queue_by_id(self, queue_id: int) -> Queue:
        """The queue of a task, which may be deleted."""
        found = self.find_queue(queue_id)
        assert found is not None, "the row of a queue stays while it has tasks"
        return found

    def find_queue(self, queue_id: int) -> Queue | None:
        """The queue with that id, which may be deleted; None if its row is gone."""
        found = self._queues.get(queue_id)
        if found is None:
            row = self.execute(_QUEUE_BY_ID, (queue_id,)).fetchone()
            return None if row is None else self._remember_queue(row)
        return found

    def worker(self, worker_id: int) -> Worker | None:
        """The worker with that id."""
        found = self._workers.get(worker_id)
        if found is None:
            row = self.execute(_WORKER, (worker_id,)).fetchone()
            if row is None:
                return None
            found = Worker(*row)
            served = self.execute(_WORKER_QUEUES, (worker_id,)).fetchall()
            found.queues = tuple(queue for queue, _ in served)
            found.active = frozenset(queue for queue, active in served if active)
            self._workers[worker_id] = found
        return found

    def remembered_worker(self, worker_id: int) -> Worker | None:
        """The worker, if it need not be read to be known."""
        return self._workers.get(worker_id)

    def _remember_queue(self, row: tuple[Any, ...]) -> Queue:
        queue = Queue.of(row)
        if queue.partitions and not queue.deleted:
            self._read_owners(queue)
        self._queues[queue.queue_id] = queue
        if not queue.deleted:
            self._queue_ids[queue.name] = queue.queue_id
        return queue

    def _read_owners(self, queue: Queue) -> None:
        owned: dict[int, tuple[int, ...]] = {}
        for worker_id, partition in self.execute(_OWNERS, (queue.queue_id,)).fetchall():
            owned[worker_id] = (*owned.get(worker_id, ()), partition)
        queue.owned = owned

    # -- changing -----------------------------------------------------------------------------------------------
    def change_queue(self, queue: Queue) -> None:
        """What is counted of the queue changes, and is written with the entry."""
        self._unwritten_queues.add(queue.queue_id)

    def change_worker(self, worker: Worker) -> None:
        """The worker's heartbeat or what is counted of it changes, and is written with the entry."""
        self._unwritten_workers.add(worker.worker_id)

    def wake(self, alarm_ms: int | None) -> None:
        """A task has that alarm from now on."""
        if alarm_ms is not None and alarm_ms < self.calm_tasks_ms:
            self.calm_tasks_ms = alarm_ms

    def add_queue(self, queue: Queue) -> None:
        """Remember a queue whose row is new."""
        self._unwritten_queues.add(queue.queue_id)
        self._queues[queue.queue_id] = queue
        self._queue_ids[queue.name] = queue.queue_id

    def add_worker(self, worker: Worker) -> None:
        """Remember a worker whose row is new."""
        self._unwritten_workers.add(worker.worker_id)
        self._workers[worker.worker_id] = worker

    def drop_queue(self, queue: Queue) -> None:
        """The name is free; the row stays while ``deleted`` is said there, or is gone."""
        self._queue_ids.pop(queue.name, None)

    def forget_queue(self, queue: Queue) -> None:
        """Remember a deleted queue no longer, because its row is gone."""
        del self._queues[queue.queue_id]

    def forget_worker(self, worker: Worker) -> None:
        """Remember a worker no longer, because its row is gone."""
        del self._workers[worker.worker_id]

    def forget_workers(self) -> None:
        """Remember no worker, because their rows are others now; all of them are written."""
        self._workers.clear()

    # -- entries and commands -----------------------------------------------------------------------------------
    def clear_books(self) -> None:
        """Forget everything; nothing of it is written."""
        self._queues.clear()
        self._queue_ids.clear()
        self._workers.clear()
        self.unsampled_queues = None
        self._unwritten_queues.clear()
        self._unwritten_workers.clear()
        self.coming, self.handed, self.bodies, self.payloads = [], [], [], []
        self.done, self.results = {}, []
        self.calm_tasks_ms = self.calm_calendar_ms = self.calm_workers_ms = 0

    def bound_books(self) -> None:
        """Forget everything if it has become too much; all of it is written."""
        if len(self._queues) > _QUEUES_REMEMBERED_MAX or len(self._workers) > _WORKERS_REMEMBERED_MAX:
            self.clear_books()

    def write_queue(self, queue: Queue) -> None:
        """Write what is counted of a queue."""
        counted = (*queue.counts, *queue.totals)
        self.execute(_WRITE_QUEUE, (queue.next_partition, queue.submitted, *counted, queue.queue_id))

    def write_worker(self, worker: Worker) -> None:
        """Write whatever of a worker ever changes, as who changes its status or what it is told does at once."""
        self.execute(_WRITE_WORKER, _changing(worker))
        self.calm_workers_ms = min(self.calm_workers_ms, worker.alarm_ms)

    def write_workers(self) -> None:
        """Write the workers that are not written yet, in order of their ids."""
        if self._unwritten_workers:
            found = [self._workers.get(worker_id) for worker_id in sorted(self._unwritten_workers)]
            workers = [worker for worker in found if worker is not None]
            self.execute_many(_KEEP_WORKER, map(_running, workers))
            self.calm_workers_ms = min([self.calm_workers_ms, *[worker.alarm_ms for worker in workers]])
            self._unwritten_workers.clear()

    def write_books(self) -> None:
        """Write everything that is not written yet, and tell how the tallies of queues have changed."""
        for queue_id in sorted(self._unwritten_queues):
            queue = self._queues.get(queue_id)
            if queue is not None:
                self.write_queue(queue)
                tally = queue.tally
                if tally != queue.told:
                    self.events.append(QueueCounted(queue.name, queue.told, tally))
                    queue.told = tally
        if self.unsampled_queues is not None:
            self.unsampled_queues |= self._unwritten_queues
        self._unwritten_queues.clear()
        self.write_workers()
