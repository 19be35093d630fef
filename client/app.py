"""``App``: tasks as functions. What is decorated can be submitted, waited for, and run by a worker.

::

    app = App()  # QUORL_SERVER says where; nothing connects before the first call


    @app.task
    def add(x: int, y: int) -> int:
        return x + y


    add.delay(4, 5).result(timeout=5)  # 9
    add(2, 3)  # 5: still a function

Every submit returns once the task is on the disks of a majority. Submits that run at the same time travel together, from
threads and from coroutines alike. An app may be used from any number of threads and event loops.
"""

from __future__ import annotations

import asyncio
import pathlib
import sys
import weakref
from collections.abc import Callable, Coroutine, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, Self, TypeVar, overload

from typing_extensions import Unpack, override

from quorl.client import elsewhere
from quorl.client.completed import Completed
from quorl.client.definitions import AsyncTask, Call, Task, TaskBase
from quorl.client.errors import QuorlError, outward
from quorl.client.forking import Renewed, loading
from quorl.client.handle import Handle, Waiting
from quorl.client.locks import Lock
from quorl.client.route import Route, chosen_servers
from quorl.client.tasking import QUEUE_DEFAULT, TaskOptions, check_options, new_task, task_bytes
from quorl.cluster.protocol import limits

if TYPE_CHECKING:
    from quorl.client.aio import AsyncClient
    from quorl.client.sync import Client
    from quorl.client.worker import Worker

P = ParamSpec("P")
R = TypeVar("R")

BATCH_BYTES_MAX = 512 * 1024
"""What ``submit_many`` puts into one request."""


class TaskMaker(Protocol):
    """What ``app.task(…)`` with options returns: the decorator."""

    @overload
    def __call__(  # type: ignore[overload-overlap] # of an async function the first that fits is meant
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class App(Renewed):
    """A set of tasks, and the cluster that they go to.

    ``servers``: addresses of nodes, a list or separated by commas; by default ``QUORL_SERVER``, else the three nodes of
    ``configs/`` on this machine. A host alone is the node there, on port 7101.
    ``queue``: that of tasks that name none.
    ``timeout_s``: bounds every call, repeats included; waiting for a result has a ``timeout`` of its own.
    """

    def __init__(
        self, servers: str | Iterable[str] | None = None, *, queue: str = QUEUE_DEFAULT, timeout_s: float = 10.0
    ) -> None:
        self.servers = servers if servers is None or isinstance(servers, str) else tuple(servers)
        self.queue = queue
        self.timeout_s = timeout_s
        self.tasks: dict[str, TaskBase[Any, Any]] = {}
        """By name."""
        self._route: Route | None = None
        self._client: Client | None = None
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[AsyncClient, Waiting]] = (
            weakref.WeakKeyDictionary()
        )
        super().__init__()

    if not TYPE_CHECKING:  # for them there is nothing

        def __getattr__(self, name: str) -> Any:
            raise elsewhere.no_attribute(self, name, elsewhere.APP)

    @override
    def _renew(self) -> None:
        self._opening = Lock()  # a signal handler may come while its thread has it

    # -- tasks --------------------------------------------------------------------------------------------------------
    @overload
    def task(  # type: ignore[overload-overlap] # of an async function the first that fits is meant
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...
    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...
    @overload
    def task(
        self, *, name: str | None = None, queue: str | None = None, **options: Unpack[TaskOptions]
    ) -> TaskMaker: ...
    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:  # type: ignore[misc] # unpacks
        """Make a task of a function, plain or async; queue and options are the defaults of its submits through this app.

        They travel with the task. One that is submitted by its name in another way (``client.tasks.submit``, the command
        line, HTTP) has only what is said there, and the defaults of its queue.

        Its name is that of its module and its own, with a dot between, unless ``name`` says otherwise.
        """
        name, queue = options.pop("name", None), options.pop("queue", None)
        if function is None:
            check_options(options)  # wrong ones are told where they stand
            return lambda decorated: self._task(decorated, name, queue, options)
        return self._task(function, name, queue, options)

    def _task(
        self, function: Callable[..., Any], name: str | None, queue: str | None, options: Mapping[str, Any]
    ) -> TaskBase[Any, Any]:
        made = TaskBase.of(self, function, name or _name_of(function), queue or self.queue, options)
        if made.name in self.tasks:
            known = self.tasks[made.name].function
            if (known.__module__, known.__qualname__) != (made.function.__module__, made.function.__qualname__):
                raise ValueError(f"there are two tasks named {made.name!r}: give one of them another name")
        self.tasks[made.name] = made
        return made

    # -- submitting ---------------------------------------------------------------------------------------------------
    def submit(
        self,
        name: str,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Handle[Any]:
        """Submit a task by its name, without having its code. Raises as ``client.tasks.submit`` does.

        If the app does have it, its queue and options are those of ``@app.task`` where nothing is said here, and wrong
        arguments raise ``TypeError``.
        """
        call = self._by_name(name, args, kwargs, queue, options)
        try:
            return self.send(call)
        except QuorlError as error:
            outward(error)
            raise

    async def asubmit(
        self,
        name: str,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        queue: str | None = None,
        **options: Unpack[TaskOptions],
    ) -> Handle[Any]:
        """The same as ``submit``, for asyncio."""
        call = self._by_name(name, args, kwargs, queue, options)
        try:
            return await self.asend(call)
        except QuorlError as error:
            outward(error)
            raise

    def _by_name(
        self,
        name: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None,
        queue: str | None,
        options: TaskOptions,
    ) -> Call[Any]:
        if name in self.tasks:
            call = self.tasks[name].options(queue=queue, **options).call(*args, **(kwargs or {}))
            return Call(call.queue, call.task)
        return Call(self.queue if queue is None else queue, new_task(name, args, kwargs, options))

    def send(self, call: Call[R]) -> Handle[R]:
        """Submit one call."""
        (made,) = self.client.submit(call.queue, [call.task])
        return Handle(self, made.id, call.shape, submitted=True)

    async def asend(self, call: Call[R]) -> Handle[R]:
        """The same as ``send``, for asyncio."""
        (made,) = await self.aclient.submit(call.queue, [call.task])
        return Handle(self, made.id, call.shape, submitted=True)

    def submit_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """Submit calls made with ``task.call(…)``, in as few requests as hold them: one for each queue and 512 KiB.

        Each request is submitted whole or not at all. When one fails, those before it stand.
        """
        batch = list(calls)
        ids: dict[int, str] = {}
        for queue, places in _requests(batch):
            made = self.client.submit(queue, [batch[place].task for place in places])
            ids.update(zip(places, (one.id for one in made), strict=True))
        return [Handle(self, ids[place], call.shape, submitted=True) for place, call in enumerate(batch)]

    async def asubmit_many(self, calls: Iterable[Call[R]]) -> list[Handle[R]]:
        """The same as ``submit_many``, for asyncio."""
        batch = list(calls)
        ids: dict[int, str] = {}
        for queue, places in _requests(batch):
            made = await self.aclient.submit(queue, [batch[place].task for place in places])
            ids.update(zip(places, (one.id for one in made), strict=True))
        return [Handle(self, ids[place], call.shape, submitted=True) for place, call in enumerate(batch)]

    # -- results ------------------------------------------------------------------------------------------------------
    def handle(self, task_id: str) -> Handle[Any]:
        """Return a handle of a task that was submitted elsewhere."""
        return Handle(self, task_id)

    def as_completed(self, handles: Iterable[Handle[R]], *, timeout: float | None = None) -> Completed[R]:
        """Iterate over handles as their tasks finish, whatever they come to: for ``for`` and for ``async for``.

        Raises ``NotFinished`` (a ``TimeoutError``) after so many seconds from the first step on; it names those that are
        not finished, and says what state they are in.
        """
        return Completed(self, handles, timeout)

    # -- connections --------------------------------------------------------------------------------------------------
    @property
    def client(self) -> Client:
        """The client for threads; made when it is first used."""
        with self._opening:
            if self._client is None:
                from quorl.client.sync import Client

                made = Client(timeout_s=self.timeout_s, route=self._one_route())
                if self._client is None:  # a signal handler may have made one meanwhile
                    self._client = made
            return self._client

    @property
    def aclient(self) -> AsyncClient:
        """The client of the running event loop; made when it is first used there."""
        return self._of_loop()[0]

    @property
    def awaiting(self) -> Waiting:
        """All waiting for results in the running event loop."""
        return self._of_loop()[1]

    def _of_loop(self) -> tuple[AsyncClient, Waiting]:
        loop = asyncio.get_running_loop()
        with self._opening:
            found = self._clients.get(loop)
            if found is None:
                with loading:
                    from quorl.client.aio import AsyncClient

                for other in [one for one in self._clients if one.is_closed()]:
                    self._clients.pop(other)[0]._leave_behind()  # noqa: SLF001 - not for users; else it would keep its loop alive
                client = AsyncClient(timeout_s=self.timeout_s, route=self._one_route())
                found = self._clients[loop] = (client, Waiting(client))
            return found

    def _one_route(self) -> Route:
        """All clients of an app share what they know: what one has written the others read."""
        if self._route is None:
            self._route = Route(chosen_servers(self.servers))
        return self._route

    def worker(self, queues: Iterable[str] | None = None, **options: Any) -> Worker:
        """Return a worker of this app's tasks; the options are those of ``Worker``."""
        from quorl.client.worker import Worker

        return Worker(self, queues, **options)

    def close(self) -> None:
        """Close the connections of threads; the next call opens new ones."""
        with self._opening:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        with self._opening:
            found = self._clients.pop(asyncio.get_running_loop(), None)
        if found is not None:
            await found[0].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _name_of(function: Callable[..., Any]) -> str:
    """The name of a task: that of its module, and its own. A script is a module too, by the name of its file."""
    module = function.__module__
    if module in {"__main__", "__mp_main__"}:
        main = sys.modules[module]
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        module = spec.name if spec else pathlib.Path(file).stem if file and file[0] != "<" else "main"
    return f"{module}.{function.__qualname__.replace('<locals>.', '')}"


def _requests(calls: list[Call[Any]]) -> list[tuple[str, list[int]]]:
    """Return which calls travel together, by their places: by queue, as many as a request holds."""
    found: list[tuple[str, list[int]]] = []
    open_: dict[str, tuple[list[int], int]] = {}
    for place, call in enumerate(calls):
        size = task_bytes(call.task)
        places, filled = open_.get(call.queue, ([], BATCH_BYTES_MAX))
        if filled + size > BATCH_BYTES_MAX or len(places) == limits.SUBMIT_TASKS_MAX:
            places, filled = [], 0
            found.append((call.queue, places))
        places.append(place)
        open_[call.queue] = (places, filled + size)
    return found
