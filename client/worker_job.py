"""Running one task: from what was claimed to a verdict that can be reported. The same in a thread, in a process, on the loop.

A handler that forks may come back twice. Only the process that was given the task has anything to report; its copy ends where
the handler does.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from quorl.client.context import Context, NoRetry, Retry, Stopped
from quorl.client.handlers import Handler, WrongValue
from quorl.client.tasking import decode, encode
from quorl.client.tracing import Running, running
from quorl.client.worker_lines import error_of, made_error
from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import tasks as k


class Verdict(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What a run came to: a result, an error, or neither because it was told to stop or is for somebody else (``why``).

    ``delay_ms``: so long it waits then, in place of its back-off, or before anybody gets it again.
    """

    result: msgspec.Raw | UnsetType = UNSET
    error: k.TaskError | None = None
    retry: bool = True
    delay_ms: int | None = None
    why: str = ""

    @property
    def stopped(self) -> bool:
        """Whether it came to nothing."""
        return self.result is UNSET and self.error is None

    def report(self, task: e.ClaimedTask) -> e.Completion | e.Failure | e.Return:
        """Return the report of it."""
        token = task.lease.token
        if self.result is not UNSET:
            return e.Completion(task_id=task.id, lease=token, result=self.result)
        if self.error is not None:
            return e.Failure(task_id=task.id, lease=token, error=self.error, retry=self.retry, delay_ms=self.delay_ms)
        return e.Return(task_id=task.id, lease=token, delay_ms=self.delay_ms or 0)


def run_plain(one: Handler, task: e.ClaimedTask, context: Context) -> Verdict:
    """Run a plain function. Nothing is raised, whatever it does."""
    here = os.getpid()
    with running(task) as span:
        try:
            args, kwargs = arguments(one, task, context)
            value = one.function(*args, **kwargs)
            _end_copy(here)
            return _noted(span, value_verdict(value))
        except BaseException as error:  # SystemExit too: a handler does not end the worker
            _end_copy(here, error)
            return _noted(span, misfit_verdict(one, task, error) or error_verdict(error), error)


async def run_async(one: Handler, task: e.ClaimedTask, context: Context) -> Verdict:
    """Run an async function. Nothing is raised but being cancelled."""
    here = os.getpid()
    with running(task) as span:
        try:
            args, kwargs = arguments(one, task, context)
            value = await one.function(*args, **kwargs)
            _end_copy(here)
            return _noted(span, value_verdict(value))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit too: a handler does not end the worker
            _end_copy(here, error)
            return _noted(span, misfit_verdict(one, task, error) or error_verdict(error), error)


def _end_copy(here: int, raised: BaseException | None = None) -> None:
    """End this process if it is a copy that the handler made, with the code that it would end with by itself."""
    if os.getpid() == here:
        return
    code = raised.code if isinstance(raised, SystemExit) else raised
    os._exit(code if isinstance(code, int) else int(code is not None))


def _noted(span: Running, verdict: Verdict, raised: BaseException | None = None) -> Verdict:
    if verdict.error is not None:
        span.failed(verdict.error, raised)
    return verdict


def arguments(one: Handler, task: e.ClaimedTask, context: Context) -> tuple[list[Any], dict[str, Any]]:
    """Return what to call the function with."""
    args, kwargs = decode(task.args), decode(task.kwargs)
    return one.signature.arguments(args, kwargs, context)


def value_verdict(value: Any) -> Verdict:
    """Return the verdict for a result: one without a JSON form, or too large, fails the task at once."""
    try:
        result = encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        message = f"the result, of type {type(value).__name__}, has no JSON form: {error}"
        return Verdict(error=made_error("ResultNotJson", message), retry=False)
    if len(result) > limits.RESULT_BYTES_MAX:
        message = (
            f"the result has {len(result)} bytes as JSON; {limits.RESULT_BYTES_MAX} are allowed: "
            "store large data elsewhere and return where"
        )
        return Verdict(error=made_error("ResultTooLarge", message), retry=False)
    return Verdict(result=msgspec.Raw(result))


def error_verdict(error: BaseException) -> Verdict:
    """Return the verdict for an exception."""
    if isinstance(error, Stopped):
        return Verdict()
    if isinstance(error, Retry):
        delay_ms = None if error.in_ is None else min(limits.DELAY_MS_MAX, max(0, round(1000 * error.in_)))
        return Verdict(error=error_of(error), delay_ms=delay_ms)
    return Verdict(error=error_of(error), retry=not isinstance(error, NoRetry))


def misfit_verdict(one: Handler, task: e.ClaimedTask, error: BaseException) -> Verdict | None:
    """Return the verdict for a call that the handler's signature or its annotations do not take, or None: no attempt would help.

    Asked only after a ``TypeError``, so that calls that are right pay nothing for it; and none that the function itself
    raised counts, for a decorator may pass it other arguments than the task has.
    """
    if not isinstance(error, TypeError) or one.entered(error):
        return None
    try:
        one.signature.check(decode(task.args), decode(task.kwargs))
    except TypeError as misfit:
        error = misfit
    else:
        if not isinstance(error, WrongValue):
            return None
    message = f"the arguments do not fit {one.name}{one.shown()}: {error}; submit it with others, or mend the handler"
    return Verdict(error=made_error("ArgumentsRefused", message), retry=False)


def context_of(task: e.ClaimedTask, reporter: Any) -> Context:
    """Return the context in which a task runs."""
    return Context(
        task_id=task.id,
        name=task.name,
        queue=task.queue,
        attempt=task.attempt,
        max_attempts=task.max_attempts,
        token=task.lease.token,
        checkpoint=decode(task.checkpoint),
        meta=task.meta,
        traceparent=task.traceparent,
        tracestate=task.tracestate or None,
        reporter=reporter,
    )
