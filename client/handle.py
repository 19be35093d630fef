"""``Handle``: a submitted task, and waiting for what it comes to.

Waiting is a long poll: a node answers as soon as the task is finished. Many handles of one app that are waited for in one
event loop share a bounded number of such polls.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec
from typing_extensions import override

from quorl.client import elsewhere
from quorl.client.errors import NotFinished, QuorlError, outward
from quorl.client.tasking import decode, outcome_of
from quorl.client.validated import from_json
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol.grammar import Consistency

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient
    from quorl.client.app import App

R_co = TypeVar("R_co", covariant=True)

POLLS_MAX = 64
"""Long polls that one event loop has open at the same time."""
ROUND_S = 20.0
"""Of one long poll: shorter than what proxies allow, longer than what would be felt as polling."""
CROWDED_ROUND_S = 1.0
"""While more wait than there are polls, each takes turns of so long."""


class Handle(Generic[R_co]):
    """A submitted task. Making a handle calls nobody; handles can be made from ids: ``app.handle(id)``."""

    __slots__ = ("_app", "_level", "_shape", "id")

    def __init__(self, app: App, task_id: str, shape: Any = None, *, submitted: bool = False) -> None:
        self.id = task_id
        self._app = app
        self._shape = shape
        self._level: Consistency | None = "session" if submitted else None
        """Of what this app has submitted, the app's route knows how new a copy of the state must be to have it."""

    if not TYPE_CHECKING:  # for them there is nothing

        def __getattr__(self, name: str) -> Any:
            raise elsewhere.no_attribute(self, name, elsewhere.HANDLE)

    def status(self) -> k.Status:
        """Return the state that the task is in now; raises ``TaskNotFound``."""
        return self._app.client.tasks.result(self.id).status

    def result(self, timeout: float | None = None) -> R_co:
        """Wait until the task is finished and return its result; ``timeout`` in seconds, None: as long as it takes.

        Raises ``TaskFailed`` (with the error and traceback of its last attempt), ``TaskCancelled``, ``TaskExpired``,
        ``NotFinished`` (a ``TimeoutError``) when the time is over, or ``TaskNotFound``.
        """
        try:
            found = self._app.client.tasks.wait(self.id, timeout_s=timeout, consistency=self._level)
            return self._value(found, timeout)
        except QuorlError as error:
            outward(error)
            raise

    def cancel(self) -> k.Cancelled:
        """Cancel the task: at once while it waits, through its worker while it runs."""
        return self._app.client.tasks.cancel(self.id)

    async def astatus(self) -> k.Status:
        """The same as ``status``, for asyncio."""
        return (await self._app.aclient.tasks.result(self.id)).status

    async def aresult(self, timeout: float | None = None) -> R_co:
        """The same as ``result``, for asyncio."""
        try:
            found = await self._app.awaiting.result(self.id, timeout, self._level)
            return self._value(found, timeout)
        except QuorlError as error:
            outward(error)
            raise

    async def acancel(self) -> k.Cancelled:
        """The same as ``cancel``, for asyncio."""
        return await self._app.aclient.tasks.cancel(self.id)

    @property
    def level(self) -> Consistency | None:
        """How fresh a copy of the state must be to answer for this task."""
        return self._level

    def _value(self, found: k.TaskResult, timeout: float | None) -> R_co:
        if found.status not in k.FINAL:
            raise NotFinished(self.id, found.status, timeout or 0.0)
        error = outcome_of(found)
        if error is not None:
            raise error
        result = bytes(found.result)
        if self._shape is not None:
            try:
                return cast("R_co", msgspec.json.decode(result, type=self._shape, dec_hook=from_json))
            except msgspec.ValidationError:
                pass  # not what the annotation says: the plain value is what there is
        return cast("R_co", decode(result))

    @override
    def __repr__(self) -> str:
        return f"Handle({self.id!r})"


class Waiting:
    """All waiting for results in one event loop."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client
        self._room = asyncio.Semaphore(POLLS_MAX)
        self._waiting = 0

    async def result(self, task_id: str, timeout_s: float | None, level: Consistency | None) -> k.TaskResult:
        """Return what a task has come to once it is finished, or as it is when the seconds are over."""
        clock = self._client.clock
        deadline = None if timeout_s is None else clock() + timeout_s
        self._waiting += 1
        try:
            while True:
                async with self._room:
                    wait_s = ROUND_S if self._waiting <= POLLS_MAX else CROWDED_ROUND_S
                    if deadline is not None:
                        wait_s = max(0.0, min(wait_s, deadline - clock()))
                    found = await self._client.tasks.result(task_id, wait_s=wait_s, consistency=level)
                level = "session"  # it has been seen, and what is final stays so
                if found.status in k.FINAL or (deadline is not None and clock() >= deadline):
                    return found
        finally:
            self._waiting -= 1
