"""Tasks that this worker has no handler for: given back for a worker that has one, FAILED where nobody has.

The cluster is asked who is alive on the task's queue, after the task has been leased: a worker that had registered before
the task was submitted is certainly seen. The lease goes back uncounted and for later, so that the same task does not come
straight back here. How much later depends on how many tasks are being put off: few come again soon, for a worker that has
the handler to be the one that takes them; of many no more come here in a second than can well be sent away, and what stands
behind them in the queue gets its turn.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import OrderedDict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from quorl.client.errors import QuorlError
from quorl.client.worker_job import Verdict
from quorl.client.worker_lines import clean, made_error
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import workers as w

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient

LATER_MS_MIN = 250
LATER_MS_MAX = 15_000
EACH_MS = 5
"""A task is put off for so long times the tasks that were put off lately, between the two bounds; half of it at least."""
LATELY_S = 30.0
LATELY_MAX = 10_000
"""What is remembered of them."""
NAMED_MAX = 10
"""Workers, and names of tasks of each, that an error tells of."""

_dice = random.SystemRandom()


class Elsewhere:
    """Who else has the handlers that this worker lacks. All on the worker's loop."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._put_off: OrderedDict[str, float] = OrderedDict()
        """When a task was put off last, by its id and in the order of that."""
        self._numbers = itertools.count()
        self._asking = asyncio.Lock()
        self._alive: dict[str, tuple[int, list[w.WorkerInfo]]] = {}
        """Who is alive on a queue, and the number of the question."""

    async def verdict(self, task: e.ClaimedTask, worker_id: int) -> Verdict:
        """Return what is to become of a task whose name this worker does not know."""
        try:
            alive = await self._alive_on(task.queue)
        except QuorlError:
            return self._later(task, "no handler for it here, and the cluster does not say who has one")
        others = [one for one in alive if one.worker_id != worker_id]
        able = [one for one in others if _may_have(one, task.name)]
        if able:
            return self._later(task, f"no handler for it here, and worker {clean(able[0].name)} has one")
        mine = next((one for one in alive if one.worker_id == worker_id), None)
        here = [handler.name for handler in mine.handlers] if mine else ()
        there = "; ".join(
            f"{one.name}: {_some(handler.name for handler in one.handlers)}" for one in others[:NAMED_MAX]
        )
        more = f"; and {len(others) - NAMED_MAX} more workers" if len(others) > NAMED_MAX else ""
        beside = (
            f"; beside it on queue {task.queue!r}: {there}{more}"
            if others
            else "; no other worker is alive on its queue"
        )
        message = f"no handler named {task.name!r}; this worker knows: {_some(here)}{beside}"
        return Verdict(error=made_error("UnknownTask", message), retry=False)

    async def _alive_on(self, queue: str) -> list[w.WorkerInfo]:
        """Return the workers that are alive on a queue now: those who ask meanwhile share the next answer."""
        mine = next(self._numbers)
        async with self._asking:
            number, workers = self._alive.get(queue, (-1, []))
            if number < mine:
                number = next(self._numbers)
                workers = await self._client.workers.list(status="ALIVE", queue=queue, consistency="linearizable")
                self._alive = {queue: (number, workers)}
            return workers

    def _later(self, task: e.ClaimedTask, why: str) -> Verdict:
        now = asyncio.get_running_loop().time()
        lately = self._put_off
        lately[task.id] = now
        lately.move_to_end(task.id)
        while len(lately) > LATELY_MAX or next(iter(lately.values())) < now - LATELY_S:
            lately.popitem(last=False)
        most_ms = min(LATER_MS_MAX, max(LATER_MS_MIN, EACH_MS * len(lately)))
        return Verdict(delay_ms=round(most_ms * _dice.uniform(0.5, 1)), why=why)


def _may_have(worker: w.WorkerInfo, name: str) -> bool:
    """Whether a worker can run the task; who named no handlers, or as many as can be named, may have any."""
    handlers = worker.handlers
    unsaid = not handlers or len(handlers) >= limits.WORKER_HANDLERS_MAX
    return unsaid or any(one.name == name for one in handlers)


def _some(names: Iterable[str]) -> str:
    """Return the first names of some, in order."""
    known = sorted(names)
    more = f" and {len(known) - NAMED_MAX} more" if len(known) > NAMED_MAX else ""
    return ", ".join(known[:NAMED_MAX]) + more or "none"
