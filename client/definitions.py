"""What ``@app.task`` makes of a function: itself, and ways to submit it with the types of its own parameters."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, ParamSpec, TypeVar, cast

from typing_extensions import Unpack, override

from quorl.client import elsewhere
from quorl.client.errors import QuorlError, outward
from quorl.client.handle import Handle
from quorl.client.handlers import Signature, handler
from quorl.client.tasking import TaskOptions, annotations_of, check_options, new_task, shape_of
from quorl.cluster.protocol import submitting as b

if TYPE_CHECKING:
    from quorl.client.app import App

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


_SAME = (("retries", "max_attempts"), ("delay", "run_at"))
"""Options of which the later one takes the place of the other."""


class _Called(NamedTuple):
    queue: str
    task: b.NewTask
    shape: Any = None


class Call(_Called, Generic[R_co]):
    """A task to submit: what ``submit_many`` takes. ``R`` is the type of its result."""

    __slots__ = ()


class Prepared(Generic[P, R]):
    """A task with options, ready to be submitted."""

    def __init__(
        self, app: App, name: str, queue: str, options: Mapping[str, Any], signature: Signature, shape: Any
    ) -> None:
        self.app = app
        """Whose it is."""
        self.name = name
        """That of the function's module and its own, unless another was given."""
        self.queue = queue
        """Where its submits go."""
        self._options = dict(options)
        self._signature = signature
        self._shape = shape

    if not TYPE_CHECKING:  # for them there is nothing

        def __getattr__(self, name: str) -> Any:
            raise elsewhere.no_attribute(self, name, elsewhere.TASK)

    def check(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise ``TypeError`` for arguments that the function would not take."""
        try:
            self._signature.check(args, kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}() {error}") from None

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        """Return the call, to be submitted with others; raises ``TypeError`` for wrong arguments."""
        try:
            self.check(args, kwargs)
        except TypeError as error:
            outward(error)
            raise
        return Call(self.queue, new_task(self.name, args, kwargs, self._options), self._shape)

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """Submit the task; returns once it is stored on a majority of the nodes.

        Raises ``TypeError`` for wrong arguments, and what ``client.tasks.submit`` raises.
        """
        try:
            return self.app.send(self.call(*args, **kwargs))
        except QuorlError as error:
            outward(error)
            raise

    def handle(self, task_id: str) -> Handle[R]:
        """Return a handle of such a task that was submitted elsewhere; its result has the type that the function says."""
        return Handle(self.app, task_id, self._shape)

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> Handle[R]:
        """The same as ``delay``, for asyncio."""
        try:
            return await self.app.asend(self.call(*args, **kwargs))
        except QuorlError as error:
            outward(error)
            raise

    def options(self, *, queue: str | None = None, **options: Unpack[TaskOptions]) -> Prepared[P, R]:
        """Return the task with other options for its next submits: ``add.options(priority=9).delay(1, 2)``.

        Raises ``TypeError`` for what is no option, and ``Invalid`` for a value that no node would take.
        """
        merged = {**self._options, **options}
        for said, otherwise in (*_SAME, *[(other, one) for one, other in _SAME]):
            if said in options and otherwise not in options:  # both at once are refused, as they are in ``@app.task``
                merged.pop(otherwise, None)
        try:
            check_options(merged)  # here, and not where somebody else submits it
        except QuorlError as error:
            outward(error)
            raise
        return Prepared(
            self.app, self.name, self.queue if queue is None else queue, merged, self._signature, self._shape
        )


class TaskBase(Prepared[P, R]):
    """A function that is a task."""

    def __init__(self, app: App, function: Callable[P, Any], name: str, queue: str, options: Mapping[str, Any]) -> None:
        shape = shape_of(annotations_of(function).get("return", inspect.Parameter.empty))
        super().__init__(app, name, queue, options, handler(name, function).signature, shape)
        functools.update_wrapper(cast("Any", self), function)
        self.function = function
        """The function as it was written."""

    @staticmethod
    def of(
        app: App, function: Callable[..., Any], name: str, queue: str, options: Mapping[str, Any]
    ) -> TaskBase[Any, Any]:
        """Make a task of a function, plain or async."""
        function = getattr(function, "function", function)  # of what is a task already
        kind = AsyncTask if handler(name, function).is_async else Task
        return kind(app, function, name, queue, options)

    @override
    def __repr__(self) -> str:
        return f"<task {self.name} on {self.queue}>"


class Task(TaskBase[P, R]):
    """A plain function that is a task; an async one is an ``AsyncTask``, which differs in that calling it makes a coroutine."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function here and now."""
        return cast("R", self.function(*args, **kwargs))


class AsyncTask(TaskBase[P, R]):
    """An async function that is a task."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        """Return the coroutine of the function, to be run here."""
        return cast("Coroutine[Any, Any, R]", self.function(*args, **kwargs))
