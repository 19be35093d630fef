"""Handlers of a program that has set OpenTelemetry up; in a process of a pool it does so when it is imported there."""

from __future__ import annotations

import multiprocessing

from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

from quorl.client import NO_CONTEXT, Context

if multiprocessing.parent_process() is not None:
    trace.set_tracer_provider(TracerProvider())


def current(ctx: Context = NO_CONTEXT) -> list[str | None]:
    """What is going on: kind, trace and parent (in the traceparent's form) and state of the current span, and what came."""
    span = trace.get_current_span()
    assert isinstance(span, ReadableSpan)
    assert span.parent is not None
    assert span.context is not None
    parent = f"00-{span.context.trace_id:032x}-{span.parent.span_id:016x}-01"
    return [span.kind.name, parent, span.context.trace_state.to_header(), ctx.traceparent, ctx.tracestate]
