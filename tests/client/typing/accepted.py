"""What a user's type checker must accept, with the types that it must find."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, assert_type

from quorl import App as FromTop
from quorl.client import (
    NO_CONTEXT,
    App,
    AsyncClient,
    Call,
    Client,
    Context,
    Handle,
    Message,
    MyQueue,
    OutcomeUnknown,
    Placed,
    QuorlError,
    Rejected,
    TaskFailed,
    TopicNotFound,
    Worker,
    new_task,
)
from quorl.cluster.protocol import submitting as b
from quorl.cluster.protocol import tasks as k
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import workers as w


def threads(client: Client) -> None:
    assert_type(client.topic("x").append({"any": ["json", 1]}, key="k"), Placed)
    assert_type(client.call(t.GetTopic(topic="x")), t.TopicInfo)
    assert_type(client.topics.list(), list[t.TopicInfo])
    assert_type(client.topic("x").consume(1, max=5), list[Message])
    for message in client.topic("x").follow():
        assert_type(message, Message)
        assert_type(message.offset, int)
    with client.topic("x").producer() as producer:
        assert_type(producer.send("v").offset(), int)
    try:
        client.topics.get("x")
    except TopicNotFound as error:
        assert_type(error.status, int)
    except OutcomeUnknown as error:
        assert_type(error.key, str)
    except QuorlError as error:
        assert_type(error.hint, str)


async def tasks(client: AsyncClient) -> None:
    assert_type(await client.topic("x").append(b"bytes"), Placed)
    assert_type(await client.call(t.Consume(topic="x", consumer_id=1)), t.Consumed)
    async for message in client.topic("x").consumer(1):
        assert_type(message, Message)
    async with client.topic("x").producer(name="p") as producer:
        pending = await producer.send("v")
        assert_type(await pending.offset(), int)


def founding(queue: MyQueue) -> None:
    assert_type(queue.register_producer("x"), int)
    assert_type(queue.getSize("x", 1), int)


refused: type[QuorlError] = Rejected
app = App()
top: type[App] = FromTop


@app.task
def add(x: int, y: int) -> int:
    return x + y


@app.task(queue="emails", retries=5, backoff="exponential", timeout=600)
async def send(to: str, *, body: str = "") -> bool:
    return bool(to + body)


@app.task(max_attempts=2)
def resize(path: str, ctx: Context = NO_CONTEXT) -> str:
    ctx.progress(50, "half")
    ctx.save({"at": 1})
    assert_type(ctx.cancelled, bool)
    return path


def submits() -> None:
    assert_type(add(2, 3), int)
    assert_type(add.delay(4, y=5), Handle[int])
    assert_type(add.delay(4, 5).result(timeout=5), int)
    assert_type(add.delay(4, 5).status(), k.Status)
    assert_type(add.options(queue="slow", delay=60, priority=9, key="k").delay(1, 2), Handle[int])
    assert_type(add.call(1, 2), Call[int])
    assert_type(app.submit_many([add.call(1, 2)]), list[Handle[int]])
    assert_type(app.submit_many([add.call(1, 2), resize.call("p")]), list[Handle[object]])
    both: list[Handle[object]] = [add.delay(1, 2), resize.delay("p")]
    assert_type(next(app.as_completed(both)), Handle[object])
    assert_type(app.submit("other.task", 1, 2, queue="x", priority=9), Handle[Any])
    assert_type(resize.delay("p").result(), str)
    assert_type(resize.handle("id"), Handle[str])
    try:
        send.delay("a", body="b").result(timeout=1)
    except TaskFailed as error:
        assert_type(error.remote_type, str)
    Worker(app, ["q"], concurrency=4, pool="process", crash_between=(3, 5)).run()
    Worker({"add": add, "print": print}).stop(now=True)


async def asubmits(client: AsyncClient, blocking: Client) -> None:
    running: Coroutine[Any, Any, bool] = send("a", body="b")
    assert_type(await running, bool)
    assert_type(await (await send.adelay("a")).aresult(), bool)
    handles = await app.asubmit_many([send.call("a")])
    async for one in app.as_completed(handles, timeout=60):
        assert_type(await one.aresult(), bool)
    for one in app.as_completed(app.submit_many([send.call("a")])):
        assert_type(one, Handle[bool])
    assert_type(next(app.as_completed([add.delay(1, 2)])).result(), int)
    assert_type(await client.tasks.submit("x", [1], {"a": 2}, queue="q", delay=5), b.SubmittedTask)
    assert_type(blocking.tasks.submit_many([new_task("x")]), list[b.SubmittedTask])
    assert_type(blocking.tasks.wait("id", timeout_s=5), k.TaskResult)
    assert_type(blocking.queues.pause("q").paused, bool)
    assert_type(await client.workers.list(), list[w.WorkerInfo])
