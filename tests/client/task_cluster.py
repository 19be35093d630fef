"""A cluster of tasks in memory, for the tests of apps and workers: just enough of the table, no sockets, no consensus.

It serves both kinds of clients. What goes wrong is scripted: ``mishaps`` takes the next call of an operation.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import msgspec
from typing_extensions import override

from quorl.client import AsyncClient, Client
from quorl.client.aio_transport import AsyncTransport
from quorl.client.flow import Failure, Send
from quorl.client.sync_transport import Transport
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import problems, wire
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Rejection, Reply, Request
from quorl.cluster.protocol.wire import Answer

NULL = msgspec.Raw(b"null")
_LOOK_S = 0.02
BEFORE = Failure("unreachable", "connection refused")
AFTER = Failure("lost", "connection reset")
"""A mishap: the call is carried out, and its answer lost."""


class Task:
    """One task of the cluster, with all that was ever said about it."""

    def __init__(self, task_id: str, queue: str, new: b.NewTask) -> None:
        self.id = task_id
        self.queue = queue
        self.new = new
        self.body = msgspec.json.decode(b.queued(new).body, type=b.TaskBody)
        self.status: k.Status = "QUEUED"
        self.attempts = 0
        self.token = 0
        self.worker_id = 0
        self.claim = 0
        self.cancel = False
        self.result = NULL
        self.reason: str | None = None
        self.errors: list[k.TaskError] = []
        self.checkpoint = NULL
        self.progress: list[tuple[float | None, str]] = []
        self.runs: list[int] = []
        self.delays: list[int | None] = []


class TaskCluster:
    """The state, and a record of every call."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.workers: dict[int, w.RegisterWorker] = {}
        self.status: dict[int, str] = {}
        self.calls: list[tuple[str, Request[Any], str | None]] = []
        self.mishaps: dict[str, deque[Failure | Answer]] = defaultdict(deque)
        self.quiet = self.terminate = False
        self.lost: list[int] = []
        self.sealed = False
        self.beats: list[e.Beat] = []
        self.down = False
        self._receipts: dict[str, Reply | Rejection] = {}
        self._changed = threading.Condition()
        self._watchers: list[Callable[[], None]] = []

    # -- what tests do ------------------------------------------------------------------------------------------------
    def client(self) -> Client:
        return Client("http://a,http://b", transport=SyncFake(self), timeout_s=1)

    def aclient(self) -> AsyncClient:
        return AsyncClient("http://a,http://b", transport=AsyncFake(self), timeout_s=1)

    def add(self, name: str, *args: Any, queue: str = "default", **options: Any) -> Task:
        new = b.NewTask(name=name, args=msgspec.Raw(msgspec.json.encode(args)), **options)
        with self._changed:
            task = self.tasks[new.id or f"t-{len(self.tasks) + 1}"] = Task(
                new.id or f"t-{len(self.tasks) + 1}", queue, new
            )
        self.touch()
        return task

    def touch(self) -> None:
        with self._changed:
            self._changed.notify_all()
            watchers = list(self._watchers)
        for watcher in watchers:
            watcher()

    def until(self, condition: Callable[[], object], timeout_s: float = 30) -> None:
        """Wait until something is so: each call that is served is an occasion to look, and there are some without one."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while not condition():
                assert time.monotonic() < deadline_s, [vars(task) for task in self.tasks.values()]
                self._changed.wait(_LOOK_S)

    def named(self, operation: str) -> list[Request[Any]]:
        return [request for name, request, _ in self.calls if name == operation]

    def due(self, task: Task) -> None:
        """Let the moment of a task in RETRY come."""
        with self._changed:
            assert task.status == "RETRY"
            task.status = "QUEUED"
        self.touch()

    def kill(self, worker_id: int, status: str = "DEAD") -> None:
        """Take a worker for dead, or for what else it is said to be: its leases go back."""
        with self._changed:
            self.status[worker_id] = status
            for task in self.tasks.values():
                if task.status == "PROCESSING" and task.worker_id == worker_id:
                    task.status, task.token = "QUEUED", 0
        self.touch()

    # -- one call -----------------------------------------------------------------------------------------------------
    def serve(self, send: Send, *, patient: bool = True) -> tuple[Answer | Failure | None, float]:
        """Return the answer; or None and how long it may be held back."""
        row, request, options = wire.decode(send.call)
        with self._changed:
            if self.down:
                return BEFORE, 0
            wish = request.claim if isinstance(request, e.Sync) else request
            wait_s = float(getattr(wish, "wait", 0) or 0) if patient else 0
            if self.mishaps[row.name]:
                mishap = self.mishaps[row.name].popleft()
                if mishap is AFTER:
                    self._once(row.name, request, options.key)
                return mishap, 0
            value = self._once(row.name, request, options.key)
            if wait_s and not self._worth_answering(request, value):
                return None, wait_s
        self.touch()
        if isinstance(value, Rejection):
            answer = wire.answer_problem(
                problems.problem_of(value), instance="/", request_id="r", node="n1", leader="n1"
            )
            return answer, 0
        return wire.answer_reply(row, value), 0

    def _worth_answering(self, request: Request[Any], value: Reply | Rejection) -> bool:
        if isinstance(value, k.TaskResult):
            return value.status in k.FINAL
        if isinstance(value, e.Synced):
            return bool(value.tasks) or value.directives != e.Directives()
        return True

    def _once(self, name: str, request: Request[Any], key: str | None) -> Reply | Rejection:
        if not any(entry == (name, request, key) for entry in self.calls[-8:]):
            self.calls.append((name, request, key))
            self._changed.notify_all()
        if key is not None and key in self._receipts and not isinstance(request, e.Sync):
            return self._receipts[key]
        value = self._do(request, key)
        if key is not None:
            self._receipts[key] = value
        return value

    def _do(self, request: Request[Any], key: str | None) -> Reply | Rejection:
        match request:
            case b.Submit():
                return self._submit(request)
            case k.GetResult():
                task = self.tasks.get(request.id)
                return self._result(task) if task else k.TaskNotFound(detail=f"no task {request.id}")
            case k.CancelTask():
                task = self.tasks[request.id]
                task.cancel = True
                if task.status == "QUEUED":
                    task.status, task.reason = "CANCELLED", "CANCELLED"
                return k.Cancelled(id=task.id, status=task.status, cancel_requested=True)
            case q.GetQueue():
                return self._queue(request.queue)
            case w.RegisterWorker():
                return self.register(request)
            case w.RemoveWorker():
                self.kill(request.worker_id, "LEFT")
                return w.WorkerGone(worker_id=request.worker_id, released=0)
            case w.GetWorker():
                return self._worker(request.worker_id)
            case w.ListWorkers():
                alive = [
                    number
                    for number, status in self.status.items()
                    if status == request.status
                    and (request.queue is None or request.queue in self.workers[number].queues)
                ]
                return w.WorkerList(items=[self._worker(number) for number in alive], next=None)
            case e.Sync():
                return self._sync(request, key)
            case _:
                raise AssertionError(request)

    def _submit(self, request: b.Submit) -> Reply:
        items = []
        for new in request.tasks:
            task_id = new.id or f"t-{len(self.tasks) + 1}"
            existing = task_id in self.tasks
            task = self.tasks.setdefault(task_id, Task(task_id, request.queue, new))
            items.append(b.SubmittedTask(id=task_id, status=task.status, existing=existing))
        return b.Submitted(items=items)

    def _result(self, task: Task) -> k.TaskResult:
        return k.TaskResult(
            id=task.id,
            status=task.status,
            attempts=task.attempts,
            result=task.result,
            reason=task.reason,
            error=task.errors[-1] if task.errors and task.status == "FAILED" else None,
        )

    def _queue(self, name: str) -> Reply | Rejection:
        mine = [task.status for task in self.tasks.values() if task.queue == name]
        if not mine:
            return q.QueueNotFound()
        counts = q.QueueCounts(queued=mine.count("QUEUED"), retry=mine.count("RETRY"))
        return q.QueueInfo(
            name=name,
            health="ok",
            counts=counts,
            submitted=len(mine),
            workers=1,
            oldest_ms=None,
            paused=False,
            sealed=False,
            partitions=0,
            default_attempts=3,
            max_lost=5,
            backoff=q.Backoff(),
            timeout_ms=None,
            keep_finished_ms=0,
            max_depth=0,
            created_at="",
        )

    def register(self, request: w.RegisterWorker) -> Reply:
        worker_id = len(self.workers) + 1
        name = request.name or f"w-{worker_id}"
        self.workers[worker_id] = msgspec.structs.replace(request, name=name)
        self.status[worker_id] = "ALIVE"
        return w.WorkerRegistered(
            worker_id=worker_id,
            name=name,
            heartbeat_ms=request.heartbeat_ms or 5000,
            dead_after_ms=request.dead_after_ms or 15_000,
        )

    def _worker(self, worker_id: int) -> w.WorkerInfo:
        asked = self.workers[worker_id]
        return w.WorkerInfo(
            worker_id=worker_id,
            name=asked.name,
            status=self.status[worker_id],  # type: ignore[arg-type]
            state="FREE",
            quiet=False,
            host="",
            pid=0,
            version="",
            queues=list(asked.queues),
            concurrency=asked.concurrency,
            standby=asked.standby,
            active=True,
            handlers=list(asked.handlers),
            heartbeat_ms=0,
            dead_after_ms=0,
            registered_at="",
            last_heartbeat="",
            silent_ms=0,
            leases=0,
            succeeded=0,
            failed=0,
            lost=0,
            running=[],
            beats=[],
        )

    # -- the worker's call --------------------------------------------------------------------------------------------
    def _sync(self, request: e.Sync, key: str | None) -> Reply | Rejection:
        if self.status.get(request.worker_id) != "ALIVE":
            return w.WorkerNotAlive(detail=f"worker {request.worker_id} is {self.status.get(request.worker_id)}.")
        if request.beat is not None:
            self.beats.append(request.beat)
        receipt = self._receipts.get(f"{key}.s")
        settled = receipt if isinstance(receipt, e.Settled) else self._settle(request)
        if key is not None:
            self._receipts[f"{key}.s"] = settled
        earlier = self._receipts.get(key or "")
        if request.claim is None:
            tasks = []
        elif isinstance(earlier, e.Synced) and earlier.tasks:
            tasks = earlier.tasks
        else:
            tasks = self._claim(request.worker_id, request.claim)
        cancel = [
            one.id for one in self.tasks.values() if one.cancel and one.token and one.worker_id == request.worker_id
        ]
        directives = e.Directives(
            quiet=self.quiet,
            terminate=self.terminate,
            cancel=cancel,
            lost=self.lost if request.beat is not None else [],
            drained=self.sealed and all(task.status in k.FINAL for task in self.tasks.values()),
        )
        return e.Synced(accepted=settled.accepted, rejected=settled.rejected, tasks=tasks, directives=directives)

    def _settle(self, request: e.Sync) -> e.Settled:
        rejected = []
        accepted = 0
        reports: list[e.Completion | e.Failure | e.Return | e.Progress] = [*request.complete, *request.fail]
        for report in [*reports, *request.release, *request.progress]:
            task = self.tasks[report.task_id]
            if task.token != report.lease or task.status != "PROCESSING":
                rejected.append(e.Rejected(task_id=task.id, code="lease_lost"))
                continue
            accepted += 1
            self._report(task, report)
        return e.Settled(accepted=accepted, rejected=rejected, statuses=[])

    def _report(self, task: Task, report: e.Completion | e.Failure | e.Return | e.Progress) -> None:
        match report:
            case e.Completion():
                assert isinstance(report.result, msgspec.Raw)
                task.status, task.result, task.attempts = "SUCCESS", report.result.copy(), task.attempts + 1
            case e.Failure():
                task.attempts += 1
                task.errors.append(report.error)
                task.delays.append(report.delay_ms)
                again = report.retry and task.attempts < (task.new.max_attempts or 3)
                task.status, task.reason = ("QUEUED", None) if again else ("FAILED", "ERROR")
            case e.Return():
                task.status = "CANCELLED" if task.cancel else "RETRY" if report.delay_ms else "QUEUED"
                task.delays.append(report.delay_ms)
            case e.Progress():
                task.progress.append((report.progress, report.note))
                if isinstance(report.checkpoint, msgspec.Raw):
                    task.checkpoint = report.checkpoint.copy()
                return
        task.token = 0

    def _claim(self, worker_id: int, wish: e.Wish) -> list[e.ClaimedTask]:
        found: list[e.ClaimedTask] = []
        for task in self.tasks.values():
            if not self.quiet and task.status == "QUEUED" and task.queue in wish.queues and len(found) < wish.max:
                tokens = [run for one in self.tasks.values() for run in one.runs]
                task.token = max(tokens, default=0) + 1
                task.runs.append(task.token)
                task.status, task.worker_id, task.claim = "PROCESSING", worker_id, wish.number
                found.append(self._claimed(task))
        return found

    def _claimed(self, task: Task) -> e.ClaimedTask:
        return e.ClaimedTask(
            id=task.id,
            name=task.new.name or "",
            args=task.body.args,
            kwargs=task.body.kwargs,
            attempt=task.attempts + 1,
            max_attempts=task.new.max_attempts or 3,
            lease=e.Lease(token=task.token, expires_in_ms=15_000),
            queue=task.queue,
            partition=None,
            priority=5,
            timeout_ms=task.new.timeout_ms,
            checkpoint=task.checkpoint,
            meta={},
            traceparent=task.new.traceparent,
            tracestate=task.new.tracestate or msgspec.UNSET,
        )


class AsyncFake(AsyncTransport):
    """Serves calls on a loop; those that are held back wait for a change."""

    def __init__(self, cluster: TaskCluster) -> None:
        self._cluster = cluster

    @override
    async def send(self, send: Send) -> Answer | Failure:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()

        def watcher() -> None:
            loop.call_soon_threadsafe(changed.set)

        self._cluster._watchers.append(watcher)
        try:
            await asyncio.sleep(0)
            deadline: float | None = None
            while True:
                changed.clear()
                answer, wait_s = self._cluster.serve(send)
                if answer is not None:
                    return answer
                deadline = loop.time() + wait_s if deadline is None else deadline
                try:
                    async with asyncio.timeout_at(deadline):
                        await changed.wait()
                except TimeoutError:
                    answer, _ = self._cluster.serve(send, patient=False)
                    assert answer is not None
                    return answer
        finally:
            self._cluster._watchers.remove(watcher)

    @override
    def leave_behind(self) -> None:
        pass

    @override
    async def close(self) -> None:
        pass


class SyncFake(Transport):
    """Serves calls in the caller's thread."""

    def __init__(self, cluster: TaskCluster) -> None:
        self._cluster = cluster

    @override
    def send(self, send: Send) -> Answer | Failure:
        deadline: float | None = None
        with self._cluster._changed:  # from the look on: nothing that changes behind it is missed
            while True:
                answer, wait_s = self._cluster.serve(send, patient=deadline is None or time.monotonic() < deadline)
                if answer is not None:
                    return answer
                deadline = time.monotonic() + wait_s if deadline is None else deadline
                self._cluster._changed.wait(max(0.0, deadline - time.monotonic()))

    @override
    def close(self) -> None:
        pass
