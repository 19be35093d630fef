"""What one life of a worker holds: its leases, the claims that are out, the reports that wait. No socket, no clock.

The worker's loop, its heartbeat's thread and its handlers' threads share it.

Invariants: a heartbeat names every lease that the worker has learnt of and has not seen settled, and every claim whose
answer is still open, in one consistent look; a claim's number leaves the list of open ones in the same step in which its
leases join the tokens. A batch of reports keeps its body and its key until it is answered, however often it is sent. What a
task saved last reaches the cluster before the report that ends its lease.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from quorl.client.context import Context
from quorl.client.locks import Lock
from quorl.client.tasking import REPORT_OVERHEAD_BYTES, report_bytes
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol.together import OneReport

BATCH_BYTES_MAX = 512 * 1024
"""Of reports in one call: half of a request, for there is a claim, and all else that it says."""


@dataclass(eq=False, slots=True)
class Holding:
    """One lease: a task, and how far this worker has come with it."""

    task: e.ClaimedTask
    context: Context
    started: float = 0.0
    """Of the worker's clock; 0 until it runs."""
    lost: bool = False
    """The lease is gone: whatever comes of the task is dropped."""
    cancelled: bool = False
    """Somebody asked for the task to be stopped."""
    timed_out: bool = False
    reported: bool = False
    progress: tuple[float | None, str] | None = None
    """Said, and not sent yet."""
    saved: bytes | None = None
    """A checkpoint that has not been sent yet."""
    on_stop: Callable[[], None] | None = field(default=None, repr=False)
    """Stops what runs; called from any thread."""

    def stop(self) -> None:
        """Tell the handler to end."""
        self.context.stop()
        on_stop = self.on_stop
        if on_stop is not None:  # looked at once: the run may end meanwhile
            on_stop()


@dataclass(slots=True)
class Batch:
    """Reports that travel together, under one key."""

    key: str
    complete: list[e.Completion] = field(default_factory=list)
    fail: list[e.Failure] = field(default_factory=list)
    release: list[e.Return] = field(default_factory=list)
    progress: list[e.Progress] = field(default_factory=list)
    sent: bool = False

    def __len__(self) -> int:
        return len(self.complete) + len(self.fail) + len(self.release) + len(self.progress)

    def ending(self) -> list[OneReport]:
        """The reports that end a lease."""
        return [*self.complete, *self.fail, *self.release]

    def add(self, report: OneReport | e.Progress) -> None:
        """Take one report along."""
        match report:
            case e.Completion():
                self.complete.append(report)
            case e.Failure():
                self.fail.append(report)
            case e.Return():
                self.release.append(report)
            case e.Progress():
                self.progress.append(report)

    def sync(self, worker_id: int, claim: e.Wish | None = None) -> e.Sync:
        """Return the call that carries it, and perhaps a claim."""
        return e.Sync(
            worker_id=worker_id,
            complete=tuple(self.complete),
            fail=tuple(self.fail),
            release=tuple(self.release),
            progress=tuple(self.progress),
            claim=claim,
        )


class Ledger:
    """One life: from a registration until the worker leaves or is taken for dead."""

    def __init__(self, worker_id: int, name: str, dead_after_s: float, make_key: Callable[[], str]) -> None:
        self.worker_id = worker_id
        self.name = name
        self.dead_after_s = dead_after_s
        self._make_key = make_key
        self._lock = Lock()  # a signal handler may come while a handler of the loop says something
        self._held: dict[int, Holding] = {}
        self._open_claims: set[int] = set()
        self._claimed = 0
        self._waiting: deque[OneReport] = deque()
        self._told: dict[int, Holding] = {}
        """Those with progress to send, by token."""
        self._again: deque[Batch] = deque()
        self._out = 0

    # -- looking ------------------------------------------------------------------------------------------------------
    def beat(self) -> e.Beat:
        """Return a heartbeat that is true at this moment."""
        with self._lock:
            return e.Beat(
                tokens=tuple(self._held)[: limits.WORKER_LEASES_MAX],
                claims=tuple(sorted(self._open_claims)),
                claimed=self._claimed,
            )

    def holdings(self) -> list[Holding]:
        """Return the leases that are held, the oldest first."""
        with self._lock:
            return list(self._held.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is held and nothing is to be delivered."""
        with self._lock:
            return not (self._held or self._waiting or self._again or self._out)

    @property
    def unfinished(self) -> int:
        """How many leases are held of which nothing has been reported."""
        with self._lock:
            return sum(1 for holding in self._held.values() if not holding.reported)

    @property
    def undelivered(self) -> int:
        """How many reports that end a lease have not been answered."""
        with self._lock:
            return sum(1 for holding in self._held.values() if holding.reported)

    @property
    def has_reports(self) -> bool:
        """Whether something that ends a lease waits to be sent."""
        with self._lock:
            return bool(self._waiting or self._again)

    @property
    def has_news(self) -> bool:
        """Whether anything at all waits to be sent."""
        with self._lock:
            return bool(self._waiting or self._again or self._told)

    # -- claiming -----------------------------------------------------------------------------------------------------
    def open_claim(self) -> int:
        """Return the number of the claim that is sent now."""
        with self._lock:
            self._claimed += 1
            self._open_claims.add(self._claimed)
            return self._claimed

    def close_claim(self, number: int, granted: Sequence[Holding] = ()) -> list[Holding]:
        """Take what a claim was answered with. Returns older leases of the same tasks, which are lost by that."""
        with self._lock:
            ids = {holding.task.id for holding in granted}
            stale = [holding for holding in self._held.values() if holding.task.id in ids]
            for holding in stale:
                self._drop(holding)
            for holding in granted:
                self._held[holding.task.lease.token] = holding
            self._open_claims.discard(number)
            return stale

    # -- reporting ----------------------------------------------------------------------------------------------------
    def progress(self, holding: Holding, percent: float | None, note: str) -> bool:
        """Note what a handler says of its task; says whether nothing of it was waiting to be sent."""
        with self._lock:
            holding.progress = (percent, note)
            return self._tell(holding)

    def checkpoint(self, holding: Holding, value: bytes) -> bool:
        """Note what a handler wants kept; says whether nothing of it was waiting to be sent."""
        with self._lock:
            holding.saved = value
            return self._tell(holding)

    def _tell(self, holding: Holding) -> bool:
        token = holding.task.lease.token
        if holding.reported or holding.lost or token in self._told:
            return False
        self._told[token] = holding
        return True

    def report(self, holding: Holding, report: OneReport) -> bool:
        """Take the report that ends a lease; False if the lease is lost, so that it is dropped."""
        with self._lock:
            token = holding.task.lease.token
            if holding.lost or holding.reported or token not in self._held:
                return False
            holding.reported = True
            if isinstance(report, e.Completion):
                self._told.pop(token, None)  # a result makes them pointless
            self._waiting.append(report)
            return True

    def take(self) -> Batch | None:
        """Return what is to be sent next: what must be sent again, else what waits; None if nothing does."""
        with self._lock:
            if self._again:
                self._out += 1
                return self._again.popleft()
            batch = Batch(self._make_key())
            size = self._take_told(batch)
            behind = {one.lease for one in batch.progress}
            later: list[OneReport] = []
            while self._waiting and len(batch) < limits.SETTLE_TASKS_MAX:
                report = self._waiting[0]
                size += report_bytes(report)
                if len(batch) and size > BATCH_BYTES_MAX:
                    break
                self._waiting.popleft()
                if report.lease in behind:
                    later.append(report)
                else:
                    batch.add(report)
            self._waiting.extendleft(reversed(later))
            if not len(batch):
                return None
            self._out += 1
            return batch

    def _take_told(self, batch: Batch) -> int:
        size = 0
        for token, holding in list(self._told.items()):
            if len(batch) >= limits.SETTLE_TASKS_MAX or size > BATCH_BYTES_MAX // 2:
                break
            percent, note = holding.progress or (None, "")
            saved = msgspec.UNSET if holding.saved is None else msgspec.Raw(holding.saved)
            one = e.Progress(task_id=holding.task.id, lease=token, progress=percent, note=note, checkpoint=saved)
            size += REPORT_OVERHEAD_BYTES + 6 * len(note) + len(holding.saved or b"")
            holding.saved = None
            del self._told[token]
            batch.add(one)
        return size

    def answered(self, batch: Batch, rejected: Iterable[e.Rejected]) -> list[Holding]:
        """Take note that a batch has arrived; returns the holdings whose lease turned out to be lost."""
        refused = Counter(one.task_id for one in rejected)
        with self._lock:
            self._landed(batch)
            lost = []
            # Of several leases of one task the later ones can count: a refusal, which names the task, is of the first.
            for report in sorted((*batch.ending(), *batch.progress), key=lambda one: one.lease):
                holding = self._held.get(report.lease)
                if refused[report.task_id]:
                    refused[report.task_id] -= 1
                    if holding is not None:
                        lost.append(holding)
                        self._drop(holding)
                elif holding is not None and not isinstance(report, e.Progress):
                    del self._held[report.lease]
            return lost

    def unanswered(self, batch: Batch) -> None:
        """Keep a batch that may not have arrived: it is sent again, as it is and under the same key."""
        with self._lock:
            self._landed(batch)
            if len(batch):
                self._again.append(batch)

    def refused(self, batch: Batch) -> list[Holding]:
        """Take back a batch that no node takes: each report goes again by itself. One that went alone is given up."""
        with self._lock:
            self._landed(batch)
            ending = batch.ending()
            if len(batch) > 1:
                for report in (*batch.progress, *ending):
                    one = Batch(self._make_key())
                    one.add(report)
                    self._again.append(one)
                return []
            given_up = [holding for one in ending if (holding := self._held.get(one.lease)) is not None]
            for holding in given_up:
                holding.reported = False
            return given_up

    def _landed(self, batch: Batch) -> None:
        self._out -= 1 if len(batch) else 0  # an empty one carries a claim only, and was not taken from here

    # -- losing -------------------------------------------------------------------------------------------------------
    def lose(self, tokens: Iterable[int]) -> list[Holding]:
        """Drop leases that the cluster says are gone; returns them. A report on its way gets an answer of its own."""
        with self._lock:
            lost = [
                holding for token in tokens if (holding := self._held.get(token)) is not None and not holding.reported
            ]
            for holding in lost:
                self._drop(holding)
            return lost

    def cancel(self, task_ids: Iterable[str]) -> list[Holding]:
        """Note that tasks are to be stopped; returns those for which that is news."""
        wanted = set(task_ids)
        with self._lock:
            news = [
                holding
                for holding in self._held.values()
                if holding.task.id in wanted and not holding.cancelled and not holding.reported
            ]
            for holding in news:
                holding.cancelled = True
            return news

    def end(self) -> list[Holding]:
        """Drop everything: this life is over. Returns what was held."""
        with self._lock:
            held = list(self._held.values())
            for holding in held:
                self._drop(holding)
            self._waiting.clear()
            self._again.clear()
            self._told.clear()
            self._open_claims.clear()
            return held

    def _drop(self, holding: Holding) -> None:
        holding.lost = True
        token = holding.task.lease.token
        self._held.pop(token, None)
        self._told.pop(token, None)


class Voice:
    """What a context of a holding tells goes here."""

    def __init__(self, ledger: Ledger, wake: Callable[[], Any]) -> None:
        self._ledger = ledger
        self._wake = wake
        self.holding: Holding | None = None

    def progress(self, percent: float | None, note: str) -> None:
        """Note how far the task has come."""
        if self.holding is not None and self._ledger.progress(self.holding, percent, note):
            self._wake()

    def checkpoint(self, value: bytes) -> None:
        """Keep a JSON value for the next attempt."""
        if self.holding is not None and self._ledger.checkpoint(self.holding, value):
            self._wake()
