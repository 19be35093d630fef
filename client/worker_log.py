"""What a worker says, for programs: one JSON object a line, with the names that the logs of nodes have.

``event`` is what happened (``task_failed``), ``worker`` who says it, ``time``, ``level`` and ``logger`` stand beside them. What
belongs to a task has its ``task_id``, ``task`` (its name), ``queue`` and ``attempt``. Arguments, results and tracebacks are left
out: they are the users', and may hold what nobody else is to read; ``quorl task show`` has them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from typing_extensions import override

from quorl import logs
from quorl.client.errors import QuorlError
from quorl.client.handlers import Handler
from quorl.client.worker_lines import LOGGER, Lines, Stderr, is_tried_again, reasons
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import workers as w

if TYPE_CHECKING:
    from quorl.client.worker_floor import Plan

ERROR_CHARS_MAX = 1_000
"""Of an error's message; the whole of it is with the task."""


to_stderr = Stderr(clock=False)
"""Writes a line as it is."""


class LoggedLines(Lines):
    """The lines of one worker as JSON objects, which ``write`` takes."""

    def __init__(self, write: Callable[[str], None], who: dict[str, str] | None = None) -> None:
        """``who`` is told its name once the cluster has given it one, for others that write lines of this worker."""
        super().__init__(write)
        self._who = {} if who is None else who
        self._log = logs.lines(LOGGER, self._who, self._say)

    @override
    def in_child(self) -> Callable[[], None]:
        return functools.partial(logs.configure, "json", "info", dict(self._who))

    # -- the worker ---------------------------------------------------------------------------------------------------
    @override
    def banner(self, plan: Plan, handlers: Mapping[str, Handler], servers: Sequence[str]) -> None:
        self._who["worker"] = plan.name
        self._log.info(
            "worker_started",
            queues=plan.queues,
            servers=list(servers),
            tasks=sorted(handlers),
            concurrency=plan.concurrency,
            pool=plan.pool,
            standby=plan.standby,
            burst=plan.burst,
            crash_at=plan.crash_at,
        )

    @override
    def registered(self, made: w.WorkerRegistered, *, standby: bool) -> None:
        self._who["worker"] = made.name
        beats = {"heartbeat_ms": made.heartbeat_ms, "dead_after_ms": made.dead_after_ms}
        self._log.info("worker_registered", worker_id=made.worker_id, **beats, standby=standby)

    @override
    def unanswered(self, why: QuorlError, kept: int | None) -> None:
        self._log.warning("cluster_silent", why=reasons(why), **_call(why), results_kept=kept or 0)

    @override
    def answered(self) -> None:
        self._log.info("cluster_answers")

    @override
    def heard(self, why: QuorlError | None) -> None:
        if why is None:
            self._log.info("heartbeats_heard")
        else:
            self._log.warning("heartbeats_unheard", why=reasons(why), **_call(why))

    @override
    def died(self, why: QuorlError, dropped: int) -> None:
        self._log.warning("worker_declared_dead", why=why.detail, **_call(why), tasks_dropped=dropped)

    @override
    def quiet(self) -> None:
        self._log.info("worker_quiet")

    @override
    def ending(self, why: str) -> None:
        self._log.info("worker_ending", why=why)

    @override
    def draining(self, running: int, grace_s: float) -> None:
        self._log.info("worker_stopping", running=running, grace_s=grace_s)

    @override
    def undelivered(self, reports: int) -> None:
        self._log.warning("reports_undelivered", reports=reports)

    @override
    def stopped(self, done: int, failed: int) -> None:
        self._log.info("worker_stopped", tasks_done=done, attempts_failed=failed)

    @override
    def crashing(self, number: int) -> None:
        self._log.warning("worker_crashing", task_number=number)

    # -- its tasks ----------------------------------------------------------------------------------------------------
    @override
    def started(self, task: e.ClaimedTask, worker: str) -> None:
        self._log.info("task_started", **_about(task))

    @override
    def succeeded(self, task: e.ClaimedTask, seconds: float, result: msgspec.Raw | msgspec.UnsetType) -> None:
        self._log.info("task_succeeded", **_about(task), ms=_ms(seconds))

    @override
    def failed(self, task: e.ClaimedTask, seconds: float, failure: e.Failure) -> None:
        again = is_tried_again(task, failure)
        error = {"error": failure.error.type, "error_message": failure.error.message[:ERROR_CHARS_MAX]}
        more = {"retry": again, "retry_in_ms": failure.delay_ms if again else None}
        self._log.warning("task_failed", **_about(task), ms=_ms(seconds), **error, **more)

    @override
    def released(self, task: e.ClaimedTask, why: str) -> None:
        self._log.info("task_returned", **_about(task), why=why)

    @override
    def dropped(self, task: e.ClaimedTask, why: str) -> None:
        self._log.warning("task_dropped", **_about(task), why=why)

    @override
    def cancelled(self, task: e.ClaimedTask) -> None:
        self._log.info("task_cancelled", **_about(task))


def _about(task: e.ClaimedTask) -> dict[str, Any]:
    names = {"task_id": task.id, "task": task.name, "queue": task.queue}
    trace = {} if task.traceparent is None else {"traceparent": task.traceparent}
    return {**names, "attempt": task.attempt, "max_attempts": task.max_attempts, **trace}


def _call(why: QuorlError) -> dict[str, str]:
    """Return what finds the call in the logs of nodes, if one of them answered it."""
    return {"request_id": why.request_id} if getattr(why, "request_id", "") else {}


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 3)
