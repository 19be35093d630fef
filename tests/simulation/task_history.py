"""What submitters, workers and waiters of a simulated cluster asked, did and were told, for the verdict in the end.

A task carries its serial number in its arguments, so that whatever a node holds can be led back to who submitted it.
``Life`` is one life of a worker as its program knows it: which leases it holds, and which beats were acknowledged.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from quorl.cluster.protocol import submitting as b

Kind = Literal["ok", "fail", "flaky", "stop", "poison", "give_back", "slow", "hold"]
"""What a task does to its worker."""


class Orders(msgspec.Struct, frozen=True, array_like=True):
    """The arguments of every task here: who it is, what it does, and for how long."""

    serial: int
    kind: str
    run_ms: int


@dataclass
class Submission:
    """One submit: its tasks, and what it came to (``ok``, ``no`` or ``maybe``)."""

    queue: str
    tasks: list[b.NewTask]
    serials: list[int]
    started: float
    outcome: str = "maybe"
    ids: list[str] = field(default_factory=list)


@dataclass
class Seen:
    """One look at a task: no status if there was no such task. The sequences bound the moment that it tells of."""

    task_id: str
    status: str | None
    low: int
    high: int
    result: bytes | None = None


@dataclass
class Life:
    """One life of one worker's program."""

    worker_id: int
    name: str
    dead_after_ms: int
    held: dict[int, str] = field(default_factory=dict)
    """The leases that it has been told of and has not done with: token and task."""
    waiting: dict[int, None] = field(default_factory=dict)
    """The claims that it waits for."""
    claimed: int = 0
    beaten_at: float = 0.0
    """When the last beat that was acknowledged had been sent."""
    over: bool = False


@dataclass
class TaskHistory:
    """Everything that the clients of tasks saw."""

    submissions: list[Submission] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    lives: dict[int, Life] = field(default_factory=dict)
    results: dict[str, bytes] = field(default_factory=dict)
    """Results that somebody was told of."""
    settled: dict[int, tuple[str, str]] = field(default_factory=dict)
    """By token: the task, and the status that its worker was told."""
    refused: dict[int, str] = field(default_factory=dict)
    """By token: the task whose report was refused as ``lease_lost``."""
    known: list[str] = field(default_factory=list)
    """The ids of tasks that were acknowledged."""
    conflicts: list[str] = field(default_factory=list)
    calm: bool = False
    """No mischief any more: workers are honest, and nobody submits or meddles."""
    serials: Any = field(default_factory=lambda: itertools.count(1))
    sequence: int = 0
    """The highest sequence that anybody has seen."""
    tally: dict[str, int] = field(default_factory=dict)

    def count(self, what: str, number: int = 1) -> None:
        """One more of these."""
        self.tally[what] = self.tally.get(what, 0) + number

    def conflict(self, text: str) -> None:
        """Somebody was told what cannot be."""
        if len(self.conflicts) < 20:
            self.conflicts.append(text)

    def told(self, task_id: str, result: bytes, where: str) -> None:
        """A result was seen; it must be the same for everybody, for ever."""
        known = self.results.setdefault(task_id, result)
        if known != result:
            self.conflict(f"RESULT-CHANGED {task_id}: {known!r} and, {where}, {result!r}")
