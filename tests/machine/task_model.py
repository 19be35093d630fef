"""What queues, tasks and workers mean, in plain Python: one list of tasks and one of workers, looked through from end to end.

Times are cluster time. Back-offs are a fixed second without jitter, finished tasks are kept for ``KEEP_MS``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

BACKOFF_MS = 1_000
KEEP_MS = 50_000
DEAD_MS = 10_000
MAX_LOST = 2
ATTEMPTS = 2
FINAL = ("SUCCESS", "FAILED", "CANCELLED", "EXPIRED")


@dataclass
class Task:
    number: int
    queue: str
    partition: int
    priority: int
    state: str
    due: int | None
    expiry: int | None
    timeout: int | None
    attempts: int = 0
    lost: int = 0
    max_attempts: int = ATTEMPTS
    max_lost: int = MAX_LOST
    token: int = 0
    worker: int = 0
    claim: int = 0
    ends: int | None = None
    """When its run is over its time."""
    cancel: bool = False
    forgotten: int | None = None
    outcomes: list[str] = field(default_factory=list)


@dataclass
class Worker:
    number: int
    name: str
    queues: tuple[str, ...]
    standby: bool
    beat: int
    status: str = "ALIVE"
    filled: bool = False
    quiet: bool = False

    def serves(self, queue: str) -> bool:
        return self.status == "ALIVE" and not self.quiet and queue in self.queues

    def misses(self, queue: str) -> bool:
        return self.status == "DEAD" and not (self.filled or self.standby or self.quiet) and queue in self.queues


@dataclass
class Queue:
    partitions: int
    paused: bool = False
    sealed: bool = False
    turn: int = 0
    owners: dict[int, int | None] = field(default_factory=dict)
    tokens: int = 0


class TaskModel:
    def __init__(self) -> None:
        self.now = 0
        self.queues: dict[str, Queue] = {}
        self.tasks: list[Task] = []
        self.workers: list[Worker] = []
        self.tokens = 0
        self.submitted = 0

    # -- what happens by itself ---------------------------------------------------------------------------------
    def entry(self, now: int, beating: tuple[int, ...], refresh: bool) -> None:
        self.now = now
        for worker in self.workers:
            if worker.status == "ALIVE" and (refresh or worker.number in beating):
                worker.beat = now
        for task in sorted(self.tasks, key=lambda one: one.number):
            self._due(task)
        self.tasks = [task for task in self.tasks if task.forgotten is None or task.forgotten > now]
        for worker in sorted(self.workers, key=lambda one: (one.beat, one.number)):
            if worker.status == "ALIVE" and worker.beat + DEAD_MS <= now:
                self._over(worker, "DEAD")

    def _due(self, task: Task) -> None:
        if task.state in {"SCHEDULED", "QUEUED", "RETRY"} and task.expiry is not None and task.expiry <= self.now:
            self._finish(task, "EXPIRED")
        elif task.due is not None and task.due <= self.now:
            task.state, task.due = "QUEUED", None
        elif task.state == "PROCESSING" and task.ends is not None and task.ends <= self.now:
            self._end(task, "timeout")

    def _finish(self, task: Task, state: str) -> None:
        task.state, task.due, task.expiry, task.forgotten = state, None, None, self.now + KEEP_MS
        task.cancel = False

    def _end(self, task: Task, how: str, retry: bool = True, delay_ms: int = 0) -> None:
        task.outcomes.append("cancelled" if task.cancel and how in {"failed", "released"} else how)
        task.attempts += task.outcomes[-1] in {"failed", "timeout", "success"}
        task.lost += how == "lost"
        if how == "success":
            self._finish(task, "SUCCESS")
        elif task.cancel:
            self._finish(task, "CANCELLED")
        elif delay_ms:
            task.state, task.due = "RETRY", self.now + delay_ms
        elif how == "released" or (how == "lost" and task.lost < task.max_lost):
            task.state = "QUEUED"
        elif how == "lost" or not retry or task.attempts >= task.max_attempts:
            self._finish(task, "FAILED")
        else:
            task.state, task.due = "RETRY", self.now + BACKOFF_MS

    # -- workers ------------------------------------------------------------------------------------------------
    def enrol(self, name: str, queues: tuple[str, ...], standby: bool) -> int:
        former = [one for one in self.workers if one.name == name]
        same = [one for one in former if one.status == "ALIVE" or one.misses(one.queues[0])]
        for one in same:
            if one.status == "ALIVE":
                self._over(one, "DEAD")
            one.filled = True
        if not standby and not same:
            missed = [one for one in self.workers if any(one.misses(queue) for queue in queues)]
            for one in missed[:1]:
                one.filled = True
        number = len(self.workers) + 1
        self.workers.append(Worker(number, name, queues, standby, self.now))
        self._deal()
        return number

    def _over(self, worker: Worker, status: str) -> None:
        worker.status = status
        for task in self.tasks:
            if task.state == "PROCESSING" and task.worker == worker.number:
                self._end(task, "lost" if status == "DEAD" else "released")
        self._deal()

    def active(self, queue: str) -> list[int]:
        serving = [one for one in self.workers if one.serves(queue)]
        missing = sum(one.misses(queue) for one in self.workers)
        if all(one.standby for one in serving):
            missing = max(missing, 1)
        first = [one.number for one in serving if one.standby][:missing]
        return [one.number for one in serving if not one.standby or one.number in first]

    def _deal(self) -> None:
        """Partitions of workers that are not active any more have no owner here; ``deal`` says who has them."""
        for name, queue in self.queues.items():
            active = self.active(name)
            for partition, owner in queue.owners.items():
                if owner not in active:
                    queue.owners[partition] = None

    def deal(self, name: str, owners: dict[int, int | None]) -> None:
        """Take over what the machine has decided, if it is fair: even, and nothing moved that could stay."""
        queue, active = self.queues[name], self.active(name)
        if not active:
            assert set(owners.values()) <= {None}
        else:
            assert set(owners.values()) <= set(active)
            shares = [sum(owner == one for owner in owners.values()) for one in active]
            assert max(shares) - min(shares) <= 1
        queue.owners = dict(owners)

    # -- commands -----------------------------------------------------------------------------------------------
    def submit(self, queue: str, priority: int, delay: int, expires: int | None, timeout: int | None) -> Any:
        found = self.queues.setdefault(queue, Queue(0))
        if found.sealed:
            return "queue_sealed"
        self.submitted += 1
        partition = -1
        if found.partitions:
            partition, found.turn = found.turn, (found.turn + 1) % found.partitions
        due = self.now + delay if delay else None
        expiry = None if expires is None else self.now + expires
        state = "SCHEDULED" if delay else "QUEUED"
        self.tasks.append(Task(self.submitted, queue, partition, priority, state, due, expiry, timeout))
        return state

    def claim(self, number: int, most: int, claim: int) -> Any:
        worker = self.worker(number)
        if isinstance(worker, str):
            return worker
        worker.beat = self.now
        got: list[tuple[int, int, int]] = []
        for name in () if worker.quiet else worker.queues:
            queue = self.queues.get(name)
            if queue is None or queue.paused:
                continue
            ready = [task for task in self.tasks if task.queue == name and task.state == "QUEUED"]
            if queue.partitions:
                ready = [task for task in ready if queue.owners.get(task.partition) == number]
            elif number not in self.active(name):
                ready = []
            for task in sorted(ready, key=lambda one: (-one.priority, one.number))[: most - len(got)]:
                self.tokens += 1
                task.state, task.token, task.worker, task.claim = "PROCESSING", self.tokens, number, claim
                task.ends = None if task.timeout is None else self.now + task.timeout
                task.expiry = None
                got.append((task.number, task.token, task.attempts + 1))
        return got

    def worker(self, number: int) -> Worker | str:
        if not 1 <= number <= len(self.workers):
            return "worker_not_found"
        worker = self.workers[number - 1]
        return worker if worker.status == "ALIVE" else "worker_not_alive"

    def report(self, number: int, token: int, how: str, retry: bool = True, delay_ms: int = 0) -> Any:
        task = self.find(number)
        if task is None:
            return "task_not_found"
        if task.state != "PROCESSING" or task.token != token:
            return "lease_lost"
        self.workers[task.worker - 1].beat = self.now
        self._end(task, how, retry, delay_ms)
        return task.state

    def find(self, number: int) -> Task | None:
        return next((task for task in self.tasks if task.number == number), None)

    def cancel(self, number: int) -> Any:
        task = self.find(number)
        if task is None:
            return "task_not_found"
        if task.state in {"SUCCESS", "FAILED", "EXPIRED"}:
            return "wrong_state"
        if task.state == "PROCESSING":
            task.cancel = True
        elif task.state != "CANCELLED":
            self._finish(task, "CANCELLED")
        return task.state

    def retry(self, number: int) -> Any:
        task = self.find(number)
        if task is None:
            return "task_not_found"
        if task.state not in FINAL or task.state == "SUCCESS":
            return "wrong_state"
        task.state, task.forgotten = "QUEUED", None
        task.max_attempts, task.max_lost = task.attempts + ATTEMPTS, task.lost + MAX_LOST
        return "QUEUED"

    def lost_answers(self, number: int, tokens: tuple[int, ...], claims: tuple[int, ...], claimed: int) -> None:
        for task in self.tasks:
            mine = task.state == "PROCESSING" and task.worker == number
            if mine and 0 < task.claim <= claimed and task.token not in tokens and task.claim not in claims:
                self._end(task, "released")

    def counts(self, queue: str) -> dict[str, int]:
        states = [task.state.lower() for task in self.tasks if task.queue == queue]
        return {state: states.count(state) for state in set(states)}
