"""A shadow of the tasks that follows the log: what every entry must have made of them, told without the machine's own code.

Where an entry leaves a choice (which task a claim gets, whether a lease ended by its time-out or with its worker), the shadow
looks at what the outcome or the row says and asks whether that was right; everything else it knows by itself. After each
entry ``task_checks`` compares it with the rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import together as g
from quorl.cluster.protocol.entry import AnyCommand
from tests.simulation.task_history import Orders

WAITING = frozenset({"SCHEDULED", "QUEUED", "RETRY"})
Span = tuple[int, int]


class Lease(NamedTuple):
    """A lease as it was granted; times are cluster time."""

    token: int
    task_id: str
    worker_id: int
    claim: int
    granted_ms: int


@dataclass(slots=True)
class Shadow:
    """One task."""

    id: str
    ordinal: int
    queue: str
    partition: int
    serial: int
    rank: int
    state: str
    max_attempts: int
    max_lost: int
    timeout_ms: int | None
    backoff: q.Backoff | None
    due: Span | None = None
    """The cluster time at which it is due, between these two."""
    run_at_ms: int | None = None
    expiry_ms: int | None = None
    lease: Lease | None = None
    attempts: int = 0
    lost: int = 0
    cancel: bool = False
    final_retry: bool = False
    """Whether its last failure said that it was the last."""
    reason: str | None = None
    result: bytes | None = None
    ended: int = 0
    """How many of its leases ended, but not as a SUCCESS."""
    rounds: int = 0


@dataclass
class QueueFacts:
    """What of a queue decides about its tasks."""

    default_attempts: int
    max_lost: int
    backoff: q.Backoff
    partitions: int


@dataclass
class Shadows:
    """All tasks, and the entry that is being followed."""

    problem: Callable[[str], None]
    tasks: dict[str, Shadow] = field(default_factory=dict)
    active: dict[str, Shadow] = field(default_factory=dict)
    by_ordinal: dict[int, Shadow] = field(default_factory=dict)
    leases: dict[int, Lease] = field(default_factory=dict)
    ends: dict[int, str] = field(default_factory=dict)
    """How each lease that is over ended."""
    created: dict[int, str] = field(default_factory=dict)
    """By serial: the task that it became."""
    forgotten: dict[str, Shadow] = field(default_factory=dict)
    highest_token: int = 0
    now_ms: int = 0
    wall_ms: int = 0
    evidence: dict[int, str] = field(default_factory=dict)
    """Of this entry: how leases ended, by token, as the rows say."""
    touched: set[str] = field(default_factory=set)
    purging: bool = False
    """Whether this entry may forget a task together with the evidence of how its lease has ended."""

    def speakers(self, command: AnyCommand) -> list[int]:
        """The workers of which a command may be a sign of life."""
        tokens: list[int] = [getattr(command, "lease", 0)]
        said: list[int] = [getattr(command, "worker_id", 0)]
        if isinstance(command, g.ReportBatch):
            tokens += [one.lease for some in (command.complete, command.fail, command.release) for one in some]
        elif isinstance(command, g.ClaimBatch):
            said += [seat.worker_id for seat in command.claims]
        return said + [self.leases[token].worker_id for token in tokens if token in self.leases]

    # -- coming and going ------------------------------------------------------------------------------------------
    def submit(self, queue: str, facts: QueueFacts, task: b.QueuedTask, task_id: str, ordinal: int, at: int) -> None:
        """A task is new."""
        orders = _orders(task.body)
        if orders.serial in self.created:
            self.problem(f"DOUBLED: what came as {self.created[orders.serial]} came again as {task_id}")
        self.created[orders.serial] = task_id
        scheduled = task.delay_ms > 0 or (task.run_at_ms is not None and task.run_at_ms > self.wall_ms)
        due = self.now_ms + task.delay_ms
        shadow = Shadow(
            id=task_id,
            ordinal=ordinal,
            queue=queue,
            partition=at,
            serial=orders.serial,
            rank=9 - task.priority,
            state="SCHEDULED" if scheduled else "QUEUED",
            max_attempts=task.max_attempts or facts.default_attempts,
            max_lost=task.max_lost or facts.max_lost,
            timeout_ms=task.timeout_ms,
            backoff=task.backoff,
            due=(due, due) if task.delay_ms else None,
            run_at_ms=task.run_at_ms if scheduled else None,
            expiry_ms=None if task.expires_ms is None else self.now_ms + task.expires_ms,
        )
        self.tasks[task_id] = self.active[task_id] = self.by_ordinal[ordinal] = shadow
        self.touched.add(task_id)

    def forget(self, task_id: str) -> None:
        """A task is gone."""
        shadow = self.tasks.pop(task_id)
        self.by_ordinal.pop(shadow.ordinal, None)
        self.active.pop(task_id, None)
        if shadow.state not in k.FINAL:
            self.problem(f"VANISHED: {task_id} is gone, and was {shadow.state}")
        self.forgotten[task_id] = shadow

    def move(self, shadow: Shadow, state: str, reason: str | None = None) -> None:
        """A task comes into another state."""
        shadow.state, shadow.reason = state, reason
        self.touched.add(shadow.id)
        if state in k.FINAL:
            self.active.pop(shadow.id, None)
            shadow.due = shadow.run_at_ms = None
        else:
            self.active[shadow.id] = shadow
        if state == "QUEUED":
            shadow.due = shadow.run_at_ms = None

    # -- what comes due --------------------------------------------------------------------------------------------
    def fall_due(self, row_states: dict[str, tuple[str, str | None]]) -> None:
        """Whatever the moment of this entry brings, before its commands."""
        for shadow in list(self.active.values()):
            if shadow.state in {"SCHEDULED", "RETRY"} and self._is_due(shadow, row_states):
                was = shadow.state
                self.move(shadow, "QUEUED")
                if was == "SCHEDULED" and self._has_expired(shadow, row_states):
                    self._expire(shadow)  # both moments lay between two entries
            elif shadow.state in WAITING and shadow.expiry_ms is not None and shadow.expiry_ms <= self.now_ms:
                self._expire(shadow)
            elif shadow.state == "PROCESSING":
                self._run_out(shadow)

    def _is_due(self, shadow: Shadow, row_states: dict[str, tuple[str, str | None]]) -> bool:
        if shadow.run_at_ms is not None:
            return shadow.run_at_ms <= self.wall_ms
        assert shadow.due is not None, shadow
        low, high = shadow.due
        if high <= self.now_ms:
            return True
        # Between the bounds of its jitter only the row can tell.
        return low <= self.now_ms and row_states.get(shadow.id, ("", None))[0] != shadow.state

    def _has_expired(self, shadow: Shadow, row_states: dict[str, tuple[str, str | None]]) -> bool:
        over = shadow.expiry_ms is not None and shadow.expiry_ms <= self.now_ms
        return over and row_states.get(shadow.id, ("", None))[0] == "EXPIRED"

    def _expire(self, shadow: Shadow) -> None:
        shadow.expiry_ms = None
        self.move(shadow, "EXPIRED", "EXPIRED")

    def _run_out(self, shadow: Shadow) -> None:
        """A lease whose time is over ends now, unless it ended with its worker."""
        lease, timeout_ms = shadow.lease, shadow.timeout_ms
        assert lease is not None, shadow
        if timeout_ms is None or lease.granted_ms + timeout_ms > self.now_ms:
            if self.evidence.get(lease.token) == "timeout":
                self.problem(f"EARLY-TIMEOUT: {shadow} at {self.now_ms}")
            return
        if self.evidence.get(lease.token) not in {"lost", "released"}:
            self.end(lease, "timeout")

    def next_ms(self) -> int | None:
        """The next moment of cluster time at which something must happen to a task."""
        moments = []
        for shadow in self.active.values():
            if shadow.due is not None:
                moments.append(shadow.due[1])
            if shadow.expiry_ms is not None and shadow.state in WAITING:
                moments.append(shadow.expiry_ms)
            if shadow.lease is not None and shadow.timeout_ms is not None:
                moments.append(shadow.lease.granted_ms + shadow.timeout_ms)
        return min(moments, default=None)

    # -- leases ----------------------------------------------------------------------------------------------------
    def grant(self, ordinal: int, token: int, worker_id: int, claim: int) -> Shadow | None:
        """A claim got a task."""
        shadow = self.by_ordinal.get(ordinal)
        if token <= self.highest_token:
            self.problem(f"TOKEN-REPEATED: {token} for task {ordinal}, after {self.highest_token}")
        self.highest_token = max(self.highest_token, token)
        if shadow is None:
            self.problem(f"GRANTED-NOTHING: task {ordinal}, which nobody knows, to worker {worker_id}")
            return None
        if shadow.lease is not None:
            self.problem(f"DOUBLE-LEASE: {shadow.id} to worker {worker_id}, while {shadow.lease} lives")
        elif shadow.state != "QUEUED":
            self.problem(f"GRANTED-{shadow.state}: {shadow.id} to worker {worker_id}")
        shadow.lease = self.leases[token] = Lease(token, shadow.id, worker_id, claim, self.now_ms)
        shadow.expiry_ms = None
        self.move(shadow, "PROCESSING")
        return shadow

    def complete(self, token: int, task_id: str, result: bytes) -> None:
        """A report was accepted."""
        shadow = self._settle(token, task_id)
        if shadow is not None:
            shadow.attempts += 1
            shadow.result = result
            self.move(shadow, "SUCCESS")

    def fail(self, token: int, task_id: str, *, retry: bool, delay_ms: int | None, facts: QueueFacts) -> None:
        """A failure was accepted."""
        shadow = self._settle(token, task_id)
        if shadow is not None:
            self._expect(token, {"failed", "cancelled"})
            self._failed(shadow, "ERROR", retry=retry, delay_ms=delay_ms, facts=facts)

    def _failed(self, shadow: Shadow, why: str, *, retry: bool, delay_ms: int | None, facts: QueueFacts) -> None:
        shadow.ended += 1
        shadow.attempts += 1
        if shadow.cancel:
            self.move(shadow, "CANCELLED", "CANCELLED")
        elif not retry:
            self.move(shadow, "FAILED", "NO_RETRY")
        elif shadow.attempts >= shadow.max_attempts:
            self.move(shadow, "FAILED", why)
        else:
            low, high = (delay_ms, delay_ms) if delay_ms is not None else back_off(shadow, facts)
            if high == 0:
                self.move(shadow, "QUEUED")
            else:
                self.move(shadow, "RETRY")
                shadow.due = (self.now_ms + low, self.now_ms + high)

    def release(self, token: int, task_id: str, delay_ms: int) -> None:
        """A task was given back by its worker's word, to be handed out again so much later."""
        shadow = self._settle(token, task_id)
        if shadow is not None:
            self._expect(token, {"released", "cancelled"})
            self._given_back(shadow, delay_ms)

    def _given_back(self, shadow: Shadow, delay_ms: int = 0) -> None:
        shadow.ended += 1
        if shadow.cancel:
            self.move(shadow, "CANCELLED", "CANCELLED")
        elif delay_ms:
            self.move(shadow, "RETRY")
            shadow.due = (self.now_ms + delay_ms, self.now_ms + delay_ms)
        else:
            self.move(shadow, "QUEUED")

    def _settle(self, token: int, task_id: str) -> Shadow | None:
        """The task whose lease an accepted report ends: it must be the current one."""
        lease = self.leases.pop(token, None)
        if lease is None or lease.task_id != task_id:
            self.problem(
                f"OLD-TOKEN: a report under {token} for {task_id} was accepted; {self.ends.get(token, 'unknown')}"
            )
            return None
        self.ends[token] = "settled"
        shadow = self.tasks[task_id]
        shadow.lease = None
        return shadow

    def end(self, lease: Lease, how: str, facts: QueueFacts | None = None) -> None:
        """A lease ends without a report: ``lost``, ``timeout`` or ``released``."""
        shadow = self.tasks[lease.task_id]
        self.leases.pop(lease.token, None)
        self.ends[lease.token] = how
        shadow.lease = None
        self._expect(lease.token, {how, "cancelled"})
        if how == "released":
            self._given_back(shadow)
        elif how == "timeout":
            self._failed(shadow, "TIMEOUT", retry=True, delay_ms=None, facts=facts or self.facts_of(shadow.queue))
        else:
            shadow.ended += 1
            shadow.lost += 1
            if shadow.cancel:
                self.move(shadow, "CANCELLED", "CANCELLED")
            elif shadow.lost >= shadow.max_lost:
                self.move(shadow, "FAILED", "POISON")
            else:
                self.move(shadow, "QUEUED")

    facts_of: Callable[[str], QueueFacts] = field(default=lambda name: QueueFacts(3, 5, q.Backoff(), 0))

    def _expect(self, token: int, words: set[str]) -> None:
        """The rows must tell the same of a lease's end."""
        told = self.evidence.pop(token, None)
        if told not in words and not (told is None and self.purging):
            self.problem(f"HISTORY: lease {token} ended as one of {sorted(words)}, and the rows say {told}")

    def unheld(self, worker_id: int, sign: e.Beat) -> list[Lease]:
        """The leases that go back because of what a sign of life says."""
        assert sign.tokens is not None
        return [
            lease
            for lease in self.leases.values()
            if lease.worker_id == worker_id
            and 0 < lease.claim <= sign.claimed
            and lease.token not in sign.tokens
            and lease.claim not in sign.claims
        ]

    # -- commands of others ------------------------------------------------------------------------------------------
    def cancel(self, task_id: str, status: str) -> None:
        """A cancellation was accepted."""
        shadow = self.tasks[task_id]
        if shadow.state == "PROCESSING":
            shadow.cancel = True
        elif shadow.state in WAITING:
            self.move(shadow, "CANCELLED", "CANCELLED")
        elif status != shadow.state:
            self.problem(f"CANCELLED-{shadow.state}: {task_id} is said to be {status}")

    def retry(self, task_id: str, facts: QueueFacts) -> None:
        """A task is queued again."""
        shadow = self.tasks[task_id]
        if shadow.state not in {"FAILED", "CANCELLED", "EXPIRED"}:
            self.problem(f"RETRIED-{shadow.state}: {task_id}")
        shadow.max_attempts = shadow.attempts + facts.default_attempts
        shadow.max_lost = shadow.lost + facts.max_lost
        shadow.cancel = False
        shadow.expiry_ms = None
        shadow.rounds += 1
        self.move(shadow, "QUEUED")


def back_off(shadow: Shadow, facts: QueueFacts) -> Span:
    """How long a task waits after its last failure: at least and at most."""
    policy, times = shadow.backoff or facts.backoff, shadow.attempts
    match policy.kind:
        case "fixed":
            base = policy.first_ms
        case "linear":
            base = policy.first_ms * times
        case "exponential":
            base = policy.first_ms * 2 ** (times - 1)
        case "list":
            base = policy.delays_ms[min(times, len(policy.delays_ms)) - 1]
    base = min(base, policy.max_ms)
    return int(base * (1 - policy.jitter)), base


_decode_body = msgspec.json.Decoder(b.TaskBody).decode
_decode_orders = msgspec.json.Decoder(Orders).decode


def _orders(body: bytes) -> Orders:
    return _decode_orders(_decode_body(body).args)
