"""What a user's type checker must accept, with the types that it must find."""

from __future__ import annotations

from typing import assert_type

from quorl.client import (
    AsyncClient,
    Client,
    Message,
    MyQueue,
    OutcomeUnknown,
    Placed,
    QuorlError,
    Rejected,
    TopicNotFound,
)
from quorl.cluster.protocol import topics as t


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
