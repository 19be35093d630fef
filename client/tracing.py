"""Spans of OpenTelemetry around submitting and running tasks, where it is installed (the extra ``otel``).

Invariants: without it nothing is imported, and a call costs one look. Spans follow the semantic conventions for
messaging; they go where the program has set up an SDK, and nowhere otherwise. ``traceparent`` and ``tracestate`` travel with the task,
so what a handler submits belongs to the trace in which its own task was submitted.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from quorl.cluster.protocol import leases as e
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_API = "opentelemetry.trace"
_NAME = "quorl"


class Running(Protocol):
    """The span of one run, or what stands for it where there is none."""

    def failed(self, error: k.TaskError, raised: BaseException | None = None) -> None:
        """Note what the attempt has failed of."""


class _Untraced:
    """No span."""

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing was begun."""

    def failed(self, error: k.TaskError, raised: BaseException | None = None) -> None:
        """See ``Running``."""


_UNTRACED = _Untraced()


class _Traced:
    """A consumer span."""

    def __init__(self, span: Span) -> None:
        self._span = span

    def failed(self, error: k.TaskError, raised: BaseException | None = None) -> None:
        """See ``Running``."""
        if raised is not None:
            self._span.record_exception(raised)
        _fail(self._span, error.type, error.message)


@functools.cache
def _api() -> Any:
    """The module ``opentelemetry.trace``; None where the extra is not installed."""
    try:
        from opentelemetry import trace
    except ImportError:
        return None
    return trace


# -- submitting ----------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _sending(queue: str, tasks: list[b.NewTask]) -> Iterator[list[b.NewTask]]:
    api = _api()
    attributes = _attributes("send", queue)
    if len(tasks) == 1:
        attributes |= {"quorl.task.name": tasks[0].name or ""}
        attributes |= {} if tasks[0].id is None else {"messaging.message.id": tasks[0].id}
    else:
        attributes["messaging.batch.message_count"] = len(tasks)
    made = api.get_tracer(_NAME).start_as_current_span(
        f"send {queue}",
        kind=api.SpanKind.PRODUCER,
        attributes=attributes,
        record_exception=True,
        set_status_on_exception=False,
    )
    with made as span:
        spoken = span.get_span_context()
        if spoken.is_valid:
            text = tracing.Trace(spoken.trace_id, spoken.span_id, int(spoken.trace_flags)).text()
            state = spoken.trace_state.to_header() or None
            tasks = [
                task
                if task.traceparent is not None
                else msgspec.structs.replace(task, traceparent=text, tracestate=state)
                for task in tasks
            ]
        try:
            yield tasks
        except BaseException as error:
            _fail(span, type(error).__name__, str(error))
            raise


def sending(queue: str, tasks: list[b.NewTask]) -> contextlib.AbstractContextManager[list[b.NewTask]]:
    """Submit tasks within a producer span; gives them with its ``traceparent``, save those that have one already.

    A program that has a span, or an SDK, has imported OpenTelemetry; one that has not pays nothing for it.
    """
    if _API not in sys.modules or all(task.traceparent is not None for task in tasks):
        return contextlib.nullcontext(tasks)
    return _sending(queue, tasks)


# -- running -------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _running(api: Any, task: e.ClaimedTask) -> Iterator[Running]:
    from opentelemetry.context import Context

    context, trace = Context(), tracing.read_trace(task.traceparent)
    if trace is not None:
        submitter = api.SpanContext(
            trace.trace_id,
            trace.span_id,
            is_remote=True,
            trace_flags=api.TraceFlags(trace.flags),
            trace_state=api.TraceState.from_header([task.tracestate] if task.tracestate else []),
        )
        context = api.set_span_in_context(api.NonRecordingSpan(submitter), context)
    attributes = _attributes("process", task.queue) | {
        "messaging.message.id": task.id,
        "quorl.task.name": task.name,
        "quorl.task.attempt": task.attempt,
    }
    if task.partition is not None:
        attributes["messaging.destination.partition.id"] = str(task.partition)
    made = api.get_tracer(_NAME).start_as_current_span(
        f"process {task.queue}",
        context=context,
        kind=api.SpanKind.CONSUMER,
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    )
    with made as span:
        yield _Traced(span)


def running(task: e.ClaimedTask) -> contextlib.AbstractContextManager[Running]:
    """Run a task within a consumer span whose parent is the span that submitted it.

    Where nobody has imported OpenTelemetry, and the task belongs to no trace, there is nothing to tell.
    """
    api = _api() if task.traceparent is not None or _API in sys.modules else None
    return _UNTRACED if api is None else _running(api, task)


def _attributes(operation: str, queue: str) -> dict[str, Any]:
    return {
        "messaging.system": "quorl",
        "messaging.destination.name": queue,
        "messaging.operation.name": operation,
        "messaging.operation.type": operation,
    }


def _fail(span: Span, kind: str, message: str) -> None:
    from opentelemetry.trace import Status, StatusCode

    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR, f"{kind}: {message}"))
