"""Queues, tasks and workers, as a program that uses asyncio sees them. ``tasks.py`` is derived from this file by ``scripts/derive_client.py``.

Every method is one call of the table, named and typed for people; what a call guarantees is said in ``flow``. Each may
raise ``Rejected`` (the classes that are named), ``Unavailable`` and ``OutcomeUnknown``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from msgspec import UNSET, UnsetType
from typing_extensions import Unpack

from quorl.client.errors import QuorlError, outward
from quorl.client.tasking import QUEUE_DEFAULT, BackoffLike, TaskOptions, new_task, read_backoff
from quorl.client.tracing import sending
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import workers as w
from quorl.cluster.protocol.grammar import Consistency

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient

WAIT_ROUND_S = 20.0
"""How long one request waits at the node for a task to finish."""


def _ms(seconds: float | UnsetType | None) -> int | UnsetType | None:
    return round(seconds * 1000) if isinstance(seconds, (int, float)) else seconds


class AsyncQueues:
    """All queues of the cluster."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def put(
        self,
        name: str,
        *,
        partitions: int = 0,
        default_attempts: int | None = None,
        max_lost: int = limits.LOST_DEFAULT,
        backoff: BackoffLike | None = None,
        timeout_s: float | None = None,
        keep_finished_s: float = limits.KEEP_FINISHED_MS_DEFAULT / 1000,
        max_depth: int = 0,
    ) -> q.QueueInfo:
        """Create a queue, or replace the configuration of one that exists; raises ``QueueDiffers`` for other partitions.

        ``timeout_s`` bounds one run of its tasks; finished ones are forgotten after ``keep_finished_s`` (0: never);
        ``max_depth`` bounds those that wait (0: no bound).
        """
        request = q.PutQueue(
            queue=name,
            partitions=partitions,
            default_attempts=default_attempts,
            max_lost=max_lost,
            backoff=q.Backoff() if backoff is None else read_backoff(backoff),
            timeout_ms=None if timeout_s is None else round(timeout_s * 1000),
            keep_finished_ms=round(keep_finished_s * 1000),
            max_depth=max_depth,
        )
        return await self._client.call(request)

    async def patch(
        self,
        name: str,
        *,
        paused: bool | UnsetType = UNSET,
        sealed: bool | UnsetType = UNSET,
        default_attempts: int | UnsetType = UNSET,
        max_lost: int | UnsetType = UNSET,
        backoff: BackoffLike | UnsetType = UNSET,
        timeout_s: float | UnsetType | None = UNSET,
        keep_finished_s: float | UnsetType = UNSET,
        max_depth: int | UnsetType = UNSET,
    ) -> q.QueueInfo:
        """Change what is given of a queue's configuration; raises ``QueueNotFound``. ``timeout_s=None``: runs have no bound."""
        keep_finished_ms = _ms(keep_finished_s)
        assert keep_finished_ms is not None, "only timeout_s may be None"
        request = q.PatchQueue(
            queue=name,
            paused=paused,
            sealed_=sealed,
            default_attempts=default_attempts,
            max_lost=max_lost,
            backoff=UNSET if isinstance(backoff, UnsetType) else read_backoff(backoff),
            timeout_ms=_ms(timeout_s),
            keep_finished_ms=keep_finished_ms,
            max_depth=max_depth,
        )
        return await self._client.call(request)

    async def pause(self, name: str) -> q.QueueInfo:
        """Hand nothing out until the queue is resumed; raises ``QueueNotFound``."""
        return await self.patch(name, paused=True)

    async def resume(self, name: str) -> q.QueueInfo:
        """Hand tasks out again; raises ``QueueNotFound``."""
        return await self.patch(name, paused=False)

    async def seal(self, name: str) -> q.QueueInfo:
        """Take no new tasks in; once all are finished, the queue's workers end. Raises ``QueueNotFound``."""
        return await self.patch(name, sealed=True)

    async def unseal(self, name: str) -> q.QueueInfo:
        """Take new tasks in again; raises ``QueueNotFound``."""
        return await self.patch(name, sealed=False)

    async def get(self, name: str) -> q.QueueInfo:
        """Describe a queue; raises ``QueueNotFound``."""
        return await self._client.call(q.GetQueue(queue=name))

    async def list(self, *, prefix: str = "", consistency: Consistency | None = None) -> list[q.QueueInfo]:
        """Return all queues whose name begins with ``prefix``, in order of their names."""
        found: list[q.QueueInfo] = []
        cursor = ""
        while True:
            request = q.ListQueues(prefix=prefix, limit=limits.PAGE_ITEMS_MAX, cursor=cursor)
            page = await self._client.call(request, consistency=consistency)
            found += page.items
            if page.next is None:
                return found
            cursor = page.next

    async def purge(
        self, name: str, states: Sequence[q.PurgeState] = ("SCHEDULED", "QUEUED", "RETRY"), *, dry_run: bool = False
    ) -> q.Purged:
        """Take all tasks in these states out: those that wait become CANCELLED, finished ones are forgotten.

        With ``dry_run`` they are only counted. Raises ``QueueNotFound``.
        """
        removed = 0
        while True:
            reply = await self._client.call(q.PurgeQueue(queue=name, states=tuple(states), dry_run=dry_run))
            removed += reply.removed
            if dry_run or not reply.remaining or not reply.removed:
                return q.Purged(removed=removed, remaining=reply.remaining)

    async def delete(self, name: str) -> q.QueueDeleted:
        """Delete a queue without unfinished tasks; raises ``QueueNotFound`` or ``QueueNotEmpty``."""
        return await self._client.call(q.DeleteQueue(queue=name))


class AsyncTasks:
    """All tasks of the cluster."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def submit(
        self,
        name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        queue: str = QUEUE_DEFAULT,
        idempotency_key: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> b.SubmittedTask:
        """Submit one task and return its id. Submits that run at the same time travel together.

        Raises ``TaskExists``, ``QueueSealed``, ``QueueFull``. With an ``idempotency_key`` of your own the task travels
        alone, and submitting it again under that key changes nothing.
        """
        one = new_task(name, args, kwargs, options)
        try:
            return (await self.submit_many([one], queue=queue, idempotency_key=idempotency_key))[0]
        except QuorlError as error:
            outward(error)
            raise

    async def submit_many(
        self, tasks: Iterable[b.NewTask], *, queue: str = QUEUE_DEFAULT, idempotency_key: str | None = None
    ) -> list[b.SubmittedTask]:
        """Submit tasks made with ``new_task``, all or none, in one request; answers in their order.

        Raises ``TaskExists``, ``QueueSealed``, ``QueueFull``, and ``Invalid`` for more than one request holds.
        """
        batch = list(tasks)
        if not batch:
            return []
        if idempotency_key is None:
            return await self._client.submit(queue, batch)
        with sending(queue, batch) as traced:
            request = b.Submit(queue=queue, tasks=traced)
            return (await self._client.call(request, idempotency_key=idempotency_key)).items

    async def get(self, task_id: str, *, wait_s: float = 0) -> k.TaskInfo:
        """Describe a task with its history; with ``wait_s``, once it is finished or the seconds are over.

        Raises ``TaskNotFound``.
        """
        return await self._client.call(k.GetTask(id=task_id, wait=wait_s))

    async def result(self, task_id: str, *, wait_s: float = 0, consistency: Consistency | None = None) -> k.TaskResult:
        """Return what a task has come to so far; with ``wait_s``, once it is finished or the seconds are over.

        Raises ``TaskNotFound``. The result is raw JSON: ``msgspec.json.decode(found.result)``.
        """
        return await self._client.call(k.GetResult(id=task_id, wait=wait_s), consistency=consistency)

    async def wait(
        self, task_id: str, *, timeout_s: float | None = None, consistency: Consistency | None = None
    ) -> k.TaskResult:
        """Return what a task has come to once it is finished, or as it is when the seconds are over.

        Without ``timeout_s`` it is waited for as long as it takes. Raises ``TaskNotFound``. With the consistency
        ``session`` a task that this client has submitted costs the cluster no write to look at.
        """
        clock = self._client.clock
        deadline = None if timeout_s is None else clock() + timeout_s
        while True:
            left_s = WAIT_ROUND_S if deadline is None else max(0.0, min(WAIT_ROUND_S, deadline - clock()))
            found = await self.result(task_id, wait_s=left_s, consistency=consistency)
            consistency = "session"  # it has been seen, and what is final stays so
            if found.status in k.FINAL or (deadline is not None and clock() >= deadline):
                return found

    async def events(self, task_id: str) -> list[k.TaskEvent]:
        """Return every transition of a task in the order of the log; raises ``TaskNotFound``."""
        return (await self._client.call(k.GetTaskEvents(id=task_id))).items

    async def why(self, task_id: str) -> list[k.Reason]:
        """Return why a task is not running now, the weightiest reason first; raises ``TaskNotFound``."""
        return (await self._client.call(k.GetTaskWhy(id=task_id))).reasons

    async def cancel(self, task_id: str) -> k.Cancelled:
        """Cancel a task: at once while it waits, through its worker while it runs.

        Raises ``TaskNotFound``, or ``WrongState`` for one that is finished.
        """
        return await self._client.call(k.CancelTask(id=task_id))

    async def retry(self, task_id: str) -> k.TaskStatus:
        """Queue a task again that is FAILED, CANCELLED or EXPIRED; raises ``TaskNotFound`` or ``WrongState``."""
        return await self._client.call(k.RetryTask(id=task_id))

    async def forget(self, task_id: str) -> k.TaskForgotten:
        """Forget a finished task now; raises ``TaskNotFound`` or ``WrongState``."""
        return await self._client.call(k.ForgetTask(id=task_id))

    async def list(
        self,
        *,
        queue: str | None = None,
        status: str | Iterable[k.Status] | None = None,
        name: str | None = None,
        worker_id: int | None = None,
        order: Literal["newest", "oldest"] = "newest",
        max: int = limits.PAGE_ITEMS_DEFAULT,  # noqa: A002
        consistency: Consistency | None = None,
    ) -> list[k.TaskSummary]:
        """Return up to ``max`` tasks that fit; ``status`` may be several. Raises ``QueueNotFound``."""
        words = status if status is None or isinstance(status, str) else ",".join(status)
        found: list[k.TaskSummary] = []
        cursor = ""
        while True:
            request = k.ListTasks(
                queue=queue,
                status=words or None,
                name=name,
                worker_id=worker_id,
                order=order,
                limit=min(limits.PAGE_ITEMS_MAX, max - len(found)),
                cursor=cursor,
            )
            page = await self._client.call(request, consistency=consistency)
            found += page.items
            if page.next is None or len(found) >= max:
                return found
            cursor = page.next


class AsyncWorkers:
    """All workers that the cluster knows."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def list(
        self,
        *,
        status: Literal["ALIVE", "DEAD", "LEFT"] | None = None,
        queue: str | None = None,
        consistency: Consistency | None = None,
    ) -> list[w.WorkerInfo]:
        """Return the workers that are alive, and those that died or left lately, in order of their ids."""
        found: list[w.WorkerInfo] = []
        cursor = ""
        while True:
            request = w.ListWorkers(status=status, queue=queue, limit=limits.PAGE_ITEMS_MAX, cursor=cursor)
            page = await self._client.call(request, consistency=consistency)
            found += page.items
            if page.next is None:
                return found
            cursor = page.next

    async def get(self, worker_id: int) -> w.WorkerInfo:
        """Describe a worker, with what it runs and its last heartbeats; raises ``WorkerNotFound``."""
        return await self._client.call(w.GetWorker(worker_id=worker_id))

    async def quiet(self, worker_id: int) -> w.WorkerTold:
        """Tell a worker to claim nothing more; raises ``WorkerNotFound`` or ``WorkerNotAlive``."""
        return await self._client.call(w.QuietWorker(worker_id=worker_id))

    async def terminate(self, worker_id: int) -> w.WorkerTold:
        """Tell a worker to finish what it has, and to end; raises ``WorkerNotFound`` or ``WorkerNotAlive``."""
        return await self._client.call(w.TerminateWorker(worker_id=worker_id))

    async def remove(self, worker_id: int) -> w.WorkerGone:
        """Let a worker leave, its leases going back at once; one that is DEAD is forgotten. Raises ``WorkerNotFound``."""
        return await self._client.call(w.RemoveWorker(worker_id=worker_id))
