"""Tasks as they finish, whatever they come to: one thing for threads and for asyncio, as ``asyncio.as_completed`` is.

A thread that waits for many has them waited for in an event loop of its own, which ends with the iteration: so both wait in
the same way, and a task costs no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import AsyncGenerator, Coroutine, Generator, Iterable
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from quorl.client.errors import LATE_SHOWN, NotFinished, QuorlError, outward

if TYPE_CHECKING:
    from quorl.client.app import App
    from quorl.client.handle import Handle

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

LATE_LOOK_S = 1.0
"""So long it is tried to learn what state late tasks are in: the time of whoever waited is over already."""


class Completed(Generic[R_co]):
    """Handles as their tasks finish, for ``for`` and ``async for``; raises ``NotFinished`` once the time is over."""

    def __init__(self, app: App, handles: Iterable[Handle[R_co]], timeout: float | None) -> None:
        self._what = (app, list(handles), timeout)
        self._here: Generator[Handle[R_co]] | None = None
        self._there: AsyncGenerator[Handle[R_co]] | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Handle[R_co]:
        """Return the handle of the task that finishes next."""
        if self._here is None:
            self._here = _in_a_thread(*self._what)
        try:
            return next(self._here)
        except QuorlError as error:
            outward(error)
            raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Handle[R_co]:
        """Return the handle of the task that finishes next."""
        if self._there is None:
            self._there = _finished(*self._what)
        try:
            return await anext(self._there)
        except QuorlError as error:
            outward(error)
            raise

    async def aclose(self) -> None:
        """Wait no longer."""
        if self._there is not None:
            await self._there.aclose()


# -- for asyncio ---------------------------------------------------------------------------------------------------
async def _finished(app: App, handles: list[Handle[R]], timeout: float | None) -> AsyncGenerator[Handle[R]]:
    waiting = {asyncio.ensure_future(app.awaiting.result(one.id, None, one.level)): one for one in handles}
    clock = asyncio.get_running_loop().time
    deadline = None if timeout is None else clock() + timeout
    try:
        while waiting:
            left_s = None if deadline is None else max(0.0, deadline - clock())
            done, _ = await asyncio.wait(waiting, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                raise await _late(app, list(waiting.values()), timeout or 0.0)
            for one in done:
                await one
                yield waiting.pop(one)
    finally:
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _late(app: App, late: list[Handle[Any]], waited_s: float) -> NotFinished:
    """Say of tasks that were waited for in vain what state the first of them are in, if that is soon known."""
    states = [""] * len(late)
    with contextlib.suppress(QuorlError, TimeoutError):
        async with asyncio.timeout(LATE_LOOK_S):
            asked = [app.aclient.tasks.result(one.id, consistency=one.level) for one in late[:LATE_SHOWN]]
            states[:LATE_SHOWN] = [found.status for found in await asyncio.gather(*asked)]
    (first, status), *others = zip([one.id for one in late], states, strict=True)
    return NotFinished(first, status, waited_s, tuple(others))


# -- for threads ---------------------------------------------------------------------------------------------------
def _in_a_thread(app: App, handles: list[Handle[R]], timeout: float | None) -> Generator[Handle[R]]:
    """The same, waited for in a thread that knows nothing of who iterates: once that one is gone, it ends."""
    told: queue.SimpleQueue[Handle[R] | BaseException | None] = queue.SimpleQueue()
    loop, errand = asyncio.new_event_loop(), _tell(app, _finished(app, handles, timeout), told)
    thread = threading.Thread(target=_run, args=(loop, errand, told), name="quorl-completed", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the system gives no other
        errand.close()
        loop.close()
        raise
    try:
        while (one := told.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one
    finally:
        with contextlib.suppress(RuntimeError):  # its loop has ended
            loop.call_soon_threadsafe(_cancel, errand)


async def _tell(app: App, finished: AsyncGenerator[Handle[R]], told: queue.SimpleQueue[Any]) -> None:
    async with app, contextlib.aclosing(finished):  # the connections of this loop alone
        async for one in finished:
            told.put(one)


def _run(loop: asyncio.AbstractEventLoop, errand: Coroutine[Any, Any, None], told: queue.SimpleQueue[Any]) -> None:
    """Run it in this thread, and say at the end what that was."""
    end: BaseException | None = None
    try:
        loop.run_until_complete(errand)
    except QuorlError as error:
        end = error.with_traceback(None)  # how it came about in this thread is of no use to whoever iterates
    except BaseException as error:
        end = error
    finally:
        loop.close()
        told.put(end)


def _cancel(errand: Coroutine[Any, Any, None]) -> None:
    for task in asyncio.all_tasks():
        if task.get_coro() is errand:
            task.cancel()
