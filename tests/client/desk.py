"""Queues, tasks and workers without a machine: answers for a stand-in, and a queue that takes tasks in."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quorl.client.cli import asking
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Rejection
from tests.client.stand_in import StandIn

TRACEBACK = (
    'Traceback (most recent call last):\n  File "demo.py", line 9, in add\nValueError: no number: \x1b[31mejnf\n'
)


def at(second: float) -> str:
    """A moment: so many seconds after one o'clock."""
    return f"2026-01-01T13:{int(second) // 60:02}:{second % 60:06.3f}Z"


def error(message: str = "no number: 'ejnf'") -> k.TaskError:
    return k.TaskError(type="ValueError", message=message, traceback=TRACEBACK)


def lease(number: int, outcome: str, start: float, end: float | None, why: k.TaskError | None = None) -> k.AttemptInfo:
    return k.AttemptInfo(
        number=number,
        worker_id=number,
        worker=f"w{number}",
        token=10 + number,
        started_at=at(start),
        ended_at=None if end is None else at(end),
        outcome=outcome,  # type: ignore[arg-type]
        error=why,
    )


def info(status: str = "SUCCESS", **changes: Any) -> k.TaskInfo:
    """A task; a SUCCESS is one of the first attempt."""
    final = status in k.FINAL
    plain: dict[str, Any] = {
        "id": "t1",
        "name": "demo.add",
        "queue": "default",
        "partition": None,
        "status": status,
        "priority": 5,
        "args": msgspec.Raw(b"[4, 5]"),
        "kwargs": msgspec.Raw(b"{}"),
        "attempts": 1 if status == "SUCCESS" else 0,
        "max_attempts": 3,
        "lost": 0,
        "max_lost": 5,
        "tries": None,
        "key": None,
        "tags": [],
        "meta": {},
        "traceparent": None,
        "tracestate": None,
        "timeout_ms": None,
        "created_at": at(0),
        "due_at": None,
        "started_at": None,
        "finished_at": at(0.014) if final else None,
        "worker_id": None,
        "worker": None,
        "cancel_requested": False,
        "progress": None,
        "note": "",
        "result": msgspec.Raw(b"9" if status == "SUCCESS" else b"null"),
        "reason": None,
        "errors": [],
        "history": [lease(1, "success", 0.003, 0.004)] if status == "SUCCESS" else [],
    }
    return k.TaskInfo(**{**plain, **changes})


def failed(task_id: str = "t1") -> k.TaskInfo:
    """A task that failed three times."""
    return info(
        "FAILED",
        id=task_id,
        args=msgspec.Raw(b'["1", "ejnf"]'),
        attempts=3,
        finished_at=at(7),
        started_at=at(0.5),
        reason="ERROR",
        history=[lease(n, "failed", n, n + 0.002, error()) for n in (1, 2, 3)],
        errors=[k.AttemptError(attempt=n, **msgspec.structs.asdict(error())) for n in (1, 2, 3)],
    )


def summary(task_id: str, status: str = "FAILED", **changes: Any) -> k.TaskSummary:
    plain: dict[str, Any] = {
        "id": task_id,
        "name": "demo.add",
        "queue": "default",
        "partition": None,
        "status": status,
        "priority": 5,
        "args": msgspec.Raw(b'["1", "ejnf"]'),
        "attempts": 3,
        "max_attempts": 3,
        "lost": 0,
        "worker_id": 1,
        "worker": "w1",
        "created_at": at(0),
        "started_at": at(1),
        "finished_at": at(2),
        "reason": "ERROR",
        "error": "ValueError: no number: 'ejnf'",
    }
    return k.TaskSummary(**{**plain, **changes})


def queue_info(name: str = "default", *, counts: q.QueueCounts | None = None, **changes: Any) -> q.QueueInfo:
    plain: dict[str, Any] = {
        "name": name,
        "health": "ok",
        "counts": counts or q.QueueCounts(),
        "submitted": 0,
        "workers": 1,
        "oldest_ms": None,
        "paused": False,
        "sealed": False,
        "partitions": 0,
        "default_attempts": 3,
        "max_lost": 5,
        "backoff": q.Backoff(),
        "timeout_ms": None,
        "keep_finished_ms": 604_800_000,
        "max_depth": 0,
        "created_at": at(0),
    }
    return q.QueueInfo(**{**plain, **changes})


def worker_info(worker_id: int, name: str, status: str = "ALIVE", **changes: Any) -> w.WorkerInfo:
    plain: dict[str, Any] = {
        "worker_id": worker_id,
        "name": name,
        "status": status,
        "state": "FREE",
        "quiet": False,
        "host": "web-1",
        "pid": 4121,
        "version": "0.1.0",
        "queues": ["default"],
        "concurrency": 4,
        "standby": False,
        "active": True,
        "handlers": [w.Handler(name="demo.add", signature="(x: int, y: int) -> int", doc="Add.\n\nMore.")],
        "heartbeat_ms": 5_000,
        "dead_after_ms": 15_000,
        "registered_at": at(0),
        "last_heartbeat": at(9),
        "silent_ms": 900,
        "leases": 0,
        "succeeded": 10_412,
        "failed": 17,
        "lost": 0,
        "running": [],
        "beats": [],
    }
    return w.WorkerInfo(**{**plain, **changes})


class Desk:
    """A queue of a stand-in that takes tasks in, as the machine does."""

    def __init__(self, cluster: StandIn, queue: str = "jobs") -> None:
        self.queue = queue
        self.known: q.QueueInfo | None = None
        self.tasks: dict[str, b.NewTask] = {}
        self.batches: list[int] = []
        self.refuse: Rejection | None = None
        cluster.answers |= {
            "get_queue": self.get,
            "put_queue": self.put,
            "patch_queue": self.patch,
            "submit": self.submit,
        }

    def get(self, request: q.GetQueue) -> q.QueueInfo | Rejection:
        return self.known if self.known is not None else q.QueueNotFound(detail=f"no queue {request.queue}")

    def put(self, request: q.PutQueue) -> q.QueueInfo | Rejection:
        if self.known is not None and self.known.partitions != request.partitions:
            return q.QueueDiffers(detail="other partitions")
        self.known = queue_info(request.queue, partitions=request.partitions, max_depth=request.max_depth)
        return self.known

    def patch(self, request: q.PatchQueue) -> q.QueueInfo | Rejection:
        if self.known is None:
            return q.QueueNotFound(detail="no such queue")
        names = {"sealed_": "sealed"}
        given = {
            names.get(name, name): value
            for name in request.__struct_fields__
            if (value := getattr(request, name)) is not msgspec.UNSET and name != "queue"
        }
        self.known = msgspec.structs.replace(self.known, **given)
        return self.known

    def submit(self, request: b.Submit) -> b.Submitted | Rejection:
        assert request.queue == self.queue
        if self.refuse is not None:
            refusal, self.refuse = self.refuse, None
            return refusal
        if self.known is not None and self.known.sealed:
            return q.QueueSealed(detail="sealed")
        self.batches.append(len(request.tasks))
        items = []
        for task in request.tasks:
            queued = b.queued(task)
            before = self.tasks.get(str(queued.id))
            if before is not None and b.queued(before) != queued:
                return k.TaskExists(detail=f"the id {queued.id} is taken")
            items.append(b.SubmittedTask(id=str(queued.id), status="QUEUED", existing=before is not None))
        self.tasks |= {str(b.queued(task).id): task for task in request.tasks}
        return b.Submitted(items=items)


def tasks_of(cluster: StandIn, *known: k.TaskInfo) -> None:
    """Let the cluster know these tasks."""
    by_id = {one.id: one for one in known}

    def get(request: k.GetTask) -> Any:
        return by_id.get(request.id) or k.TaskNotFound(detail=f"no task {request.id}")

    cluster.answers["get_task"] = get


def listed(cluster: StandIn, operation: str, reply: type[Any], *items: Any) -> list[Any]:
    """Let a list be answered in pages of two; returns what was asked for."""
    asked: list[Any] = []

    def answer(request: Any) -> Any:
        asked.append(request)
        place = int(request.cursor or 0)
        page = items[place : place + min(2, request.limit)]
        after = place + len(page)
        return reply(items=list(page), next=str(after) if after < len(items) else None)

    cluster.answers[operation] = answer
    return asked


def somebody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody is there to answer."""
    monkeypatch.setattr(asking, "can_ask", lambda: True)
