"""D15: one trace from whoever submits, through the task, to its handler and to what that submits in turn."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from quorl.client import NO_CONTEXT, App, Context, Retry
from quorl.client import tracing as own
from tests.client.task_cluster import TaskCluster
from tests.client.traced_tasks import current
from tests.client.worker_kit import burst

GIVEN = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STATE = "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"


@pytest.fixture
def cluster() -> TaskCluster:
    return TaskCluster()


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """A program that has set an SDK up; its finished spans."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    provider.shutdown()


def app_on(cluster: TaskCluster) -> App:
    app = App("http://a")
    app._client = cluster.client()
    return app


def named(spans: InMemorySpanExporter, name: str) -> ReadableSpan:
    (found,) = [one for one in spans.get_finished_spans() if one.name == name]
    return found


def parent_of(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    return int(span.context.span_id)


def test_d15_one_trace_from_submit_to_handler_to_what_it_submits(
    cluster: TaskCluster, spans: InMemorySpanExporter
) -> None:
    app = app_on(cluster)

    @app.task(name="inner", queue="second")
    async def inner(ctx: Context = NO_CONTEXT) -> str | None:
        return ctx.traceparent

    @app.task(name="outer", queue="first")
    def outer() -> None:
        inner.delay()

    with trace.get_tracer("shop").start_as_current_span("buy") as buy:
        handle = outer.delay()
    burst(cluster, {"outer": outer.function}, queues=["first"])
    burst(cluster, {"inner": inner.function}, queues=["second"])
    chain = [named(spans, name) for name in ("buy", "send first", "process first", "send second", "process second")]
    assert [parent_of(one) for one in chain[1:]] == [id_of(one) for one in chain[:-1]]
    assert {one.context.trace_id for one in chain if one.context} == {buy.get_span_context().trace_id}
    kinds = [one.kind for one in chain[1:]]
    assert kinds == [SpanKind.PRODUCER, SpanKind.CONSUMER, SpanKind.PRODUCER, SpanKind.CONSUMER]
    assert dict(chain[2].attributes or {}) == {
        "messaging.system": "quorl",
        "messaging.destination.name": "first",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": handle.id,
        "quorl.task.name": "outer",
        "quorl.task.attempt": 1,
    }
    last = next(one for one in cluster.tasks.values() if one.new.name == "inner")
    assert msgspec.json.decode(bytes(last.result)) == last.new.traceparent
    assert int((last.new.traceparent or "").split("-")[2], 16) == id_of(chain[3])


def test_d15_what_a_handler_submits_carries_the_state_on(cluster: TaskCluster, spans: InMemorySpanExporter) -> None:
    app = app_on(cluster)

    @app.task(name="inner", queue="second")
    def inner() -> None: ...

    @app.task(name="outer", queue="first")
    def outer() -> None:
        inner.delay()

    app.submit_many([outer.options(traceparent=GIVEN, tracestate=STATE).call()])
    burst(cluster, {"outer": outer.function}, queues=["first"])
    assert [task.new.tracestate for task in cluster.tasks.values()] == [STATE, STATE]


@pytest.mark.parametrize("pool", ["thread", "process"])
def test_d15_a_plain_handler_runs_within_the_trace(
    cluster: TaskCluster, spans: InMemorySpanExporter, pool: str
) -> None:
    cluster.add("current", traceparent=GIVEN, tracestate=STATE)
    burst(cluster, {"current": current}, pool=pool)
    (task,) = cluster.tasks.values()
    assert msgspec.json.decode(bytes(task.result)) == ["CONSUMER", GIVEN, STATE, GIVEN, STATE]
    # what runs in another process is told of by that process
    assert len(spans.get_finished_spans()) == (pool == "thread")


def test_d15_what_a_handler_raises_is_on_its_span(cluster: TaskCluster, spans: InMemorySpanExporter) -> None:
    def bad() -> None:
        raise ValueError("no such customer")

    async def again() -> None:
        raise Retry(in_=0, reason="later")

    for name in ("bad", "again", "odd"):
        cluster.add(name, queue=name, max_attempts=1, traceparent=GIVEN)
    burst(cluster, {"bad": bad, "again": again, "odd": object}, queues=["bad", "again", "odd"])
    found = named(spans, "process bad")
    assert (found.status.status_code, found.status.description) == (StatusCode.ERROR, "ValueError: no such customer")
    assert (found.attributes or {})["error.type"] == "ValueError"
    assert [event.name for event in found.events] == ["exception"]
    assert named(spans, "process again").status.description == "Retry: later"
    odd = named(spans, "process odd")  # nothing was raised: its result has no JSON form
    assert ((odd.attributes or {})["error.type"], len(odd.events)) == ("ResultNotJson", 0)


def test_d15_a_task_of_no_trace_begins_one(cluster: TaskCluster, spans: InMemorySpanExporter) -> None:
    cluster.add("x")
    with trace.get_tracer("worker").start_as_current_span("run"):
        burst(cluster, {"x": lambda: None})
    assert named(spans, "process default").parent is None


async def test_d15_the_asyncio_client_submits_within_the_trace(
    cluster: TaskCluster, spans: InMemorySpanExporter
) -> None:
    client = cluster.aclient()
    with trace.get_tracer("shop").start_as_current_span("buy") as buy:
        await client.tasks.submit("x", id="one")
        await client.tasks.submit("x", id="two", idempotency_key="k")
        await client.tasks.submit("x", id="given", traceparent=GIVEN)
    sent = [one for one in spans.get_finished_spans() if one.name == "send default"]
    assert [parent_of(one) for one in sent] == [buy.get_span_context().span_id] * 2
    assert [(one.attributes or {})["messaging.message.id"] for one in sent] == ["one", "two"]
    carried = [cluster.tasks[name].new.traceparent or "" for name in ("one", "two", "given")]
    assert [int(one.split("-")[2], 16) for one in carried[:2]] == [id_of(one) for one in sent]
    assert carried[2] == GIVEN
    await client.close()


def test_d15_many_tasks_share_a_span_and_keep_their_own_word(cluster: TaskCluster, spans: InMemorySpanExporter) -> None:
    app = app_on(cluster)

    @app.task(name="x")
    def x() -> None:
        """Nothing."""

    app.submit_many([x.call(), x.options(traceparent=GIVEN).call()])
    sent = named(spans, "send default")
    assert (sent.attributes or {})["messaging.batch.message_count"] == 2
    first, second = [task.new.traceparent for task in cluster.tasks.values()]
    assert second == GIVEN
    assert first is not None
    assert int(first.split("-")[2], 16) == id_of(sent)


def test_d15_a_submit_that_fails_is_an_error_of_its_span(
    cluster: TaskCluster, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = cluster.client()

    def refuse(*_: Any) -> None:
        raise ValueError("there is another task")

    monkeypatch.setattr(client, "_travel", refuse)
    with pytest.raises(ValueError, match="another"):
        client.tasks.submit("x")
    sent = named(spans, "send default")
    assert (sent.status.status_code, (sent.attributes or {})["error.type"]) == (StatusCode.ERROR, "ValueError")


def test_d15_without_a_span_and_an_sdk_nothing_is_added(cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    cluster.client().tasks.submit("x")
    (task,) = cluster.tasks.values()
    assert task.new.traceparent is None


def test_d15_without_the_extra_the_traceparent_is_handed_on_all_the_same(
    cluster: TaskCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    own._api.cache_clear()
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    try:
        cluster.client().tasks.submit("x", traceparent=GIVEN)
        cluster.client().tasks.submit("x")
        burst(cluster, {"x": lambda ctx: ctx.traceparent})
        assert own._api() is None
    finally:
        own._api.cache_clear()
    first, second = cluster.tasks.values()
    assert (msgspec.json.decode(bytes(first.result)), second.new.traceparent) == (GIVEN, None)


def test_d15_nothing_is_imported_by_a_program_that_does_not_trace() -> None:
    program = (
        "import sys; from quorl.client import tracing; from quorl.client import Worker, App, new_task\n"
        "with tracing.sending('q', [new_task('x')]) as tasks: assert tasks[0].traceparent is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
