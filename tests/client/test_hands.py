"""Both clients over real sockets: one set of stories, told through each hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from typing_extensions import override

from quorl.client import (
    AsyncClient,
    Client,
    Invalid,
    OutcomeUnknown,
    Placed,
    ProducerNotFound,
    QuorlError,
    TopicNotFound,
    Unavailable,
)
from quorl.client.flow import Failure, Send
from quorl.client.sync_transport import HttpTransport
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol import wire
from quorl.cluster.protocol.problems import Problem
from quorl.cluster.protocol.wire import Answer
from tests.client.scripted import problem
from tests.client.stand_in import StandIn, closed_port


def sync_create(servers: str, timeout_s: float) -> t.TopicCreated:
    with Client(servers, timeout_s=timeout_s) as client:
        return client.topics.create("x")


def aio_create(servers: str, timeout_s: float) -> t.TopicCreated:
    async def story() -> t.TopicCreated:
        async with AsyncClient(servers, timeout_s=timeout_s) as client:
            return await client.topics.create("x")

    return asyncio.run(story())


Create = Callable[[str, float], t.TopicCreated]
hands = pytest.mark.parametrize("create", [sync_create, aio_create])


@hands
def test_a_refused_connection_is_passed_over(cluster: StandIn, create: Create) -> None:
    assert create(f"{closed_port()},{cluster.urls[1]}", 10).name == "x"
    assert cluster.calls[0][1].headers["quorl-timeout-ms"] == "4000"


@hands
@pytest.mark.parametrize("mishap", ["reset before", "reset after"])
def test_d7_a_lost_answer_is_repeated_and_done_once(cluster: StandIn, create: Create, mishap: Any) -> None:
    cluster.mishaps[0].append(mishap)
    assert not create(cluster.servers, 10).existing
    keys = {call.headers["idempotency-key"] for _, call in cluster.calls}
    assert len(cluster.calls) == 2
    assert len(keys) == 1


@hands
@pytest.mark.parametrize("code", ["no_leader", "shutting_down", "too_many_requests", "commit_unknown"])
def test_problems_that_pass_are_repeated(cluster: StandIn, create: Create, code: str) -> None:
    cluster.mishaps[0].append(problem(code, retry_after_ms=10))
    assert create(cluster.servers, 10).name == "x"


@hands
def test_a_silent_node_is_given_up_in_time(cluster: StandIn, create: Create) -> None:
    cluster.mishaps[0].append("hang")
    assert create(cluster.servers, 2).name == "x"
    assert [name for name, _ in cluster.calls] == ["n1", "n2"]


@hands
def test_silence_everywhere_is_unknown(cluster: StandIn, create: Create) -> None:
    for mishaps in cluster.mishaps:
        mishaps.extend(["hang"] * 3)
    with pytest.raises(OutcomeUnknown, match="no answer in"):
        create(cluster.servers, 0.5)


@hands
def test_nobody_there_is_unavailable_and_says_why(create: Create) -> None:
    servers = [closed_port(), closed_port()]
    with pytest.raises(Unavailable) as caught:
        create(",".join(servers), 0.5)
    assert [(one.node, one.why) for one in caught.value.tries] == [(node, "connection refused") for node in servers]


@hands
def test_a_host_without_an_address_is_unavailable(create: Create) -> None:
    with pytest.raises(Unavailable):
        create("http://nowhere.invalid:1", 0.5)


@hands
def test_a_slow_answer_is_an_answer(cluster: StandIn, create: Create) -> None:
    slow = threading.Event()
    cluster.mishaps[0].append(slow)
    threading.Timer(0.3, slow.set).start()
    assert create(cluster.servers, 10).name == "x"
    assert len(cluster.calls) == 1


@hands
def test_a_stranger_on_the_port_is_named(cluster: StandIn, create: Create) -> None:
    for mishaps in cluster.mishaps:
        mishaps.append(Answer(404, {"content-type": "text/html"}, b"<html>nginx</html>"))
    with pytest.raises(Unavailable, match="404 unreadable_answer"):
        create(cluster.servers, 10)


@pytest.mark.parametrize("name", ["a/b c?d#e%2F", "ü🙂 " * 60, "x" * 200])
def test_a3_any_name_travels(cluster: StandIn, name: str) -> None:
    name = name[:200]
    with Client(cluster.urls[2]) as client:
        client.topics.create(name)
        client.topic(name).append("v")
        assert client.topics.get(name).messages == 1

    async def story() -> int:
        async with AsyncClient(cluster.urls[2]) as client:
            await client.topic(name).append("w")
            return await client.topic(name).size()

    assert asyncio.run(story()) == 2


def test_a3_names_that_are_none_are_invalid(cluster: StandIn) -> None:
    with Client(cluster.servers) as client:
        for name in ("", ".", "..", "x" * 201, "\ud800"):
            with pytest.raises(Invalid):
                client.topics.create(name)


VALUES = ["text", "", "42", 42, 1.5, None, True, [1, {"a": "ü🙂"}], {"b": None}, 2**53, "line\nline\u0000"]


def test_sync_story(cluster: StandIn) -> None:
    with Client(cluster.urls) as client:
        assert client.topics.create("logs", partitions=2).partitions == 2
        logs = client.topic("logs")
        assert [logs.register_producer("p"), logs.register_producer()] == [1, 2]
        places = [logs.append(value, key="k", headers={"h": "v"}, producer=1) for value in VALUES]
        partition = places[0].partition
        assert [place.offset for place in places] == list(range(len(VALUES)))
        back = logs.browse(partition=partition)
        assert [one.value for one in back] == VALUES
        assert {(one.topic, one.key, one.producer_id, one.headers["h"]) for one in back} == {("logs", "k", 1, "v")}
        assert logs.browse(len(VALUES) - 1, partition=partition)[0].raw == b'"line\\nline\\u0000"'
        (whole,) = logs.append_many(["a", "b"], producer=2)
        assert whole.last_offset == whole.first_offset + 1
        reader = logs.register_consumer(start="earliest")
        assert logs.size(reader) == logs.size() == len(VALUES) + 2
        assert len(logs.consume(reader, max=100)) == len(VALUES) + 2
        assert logs.consume(reader) == []
        with pytest.raises(TypeError, match=r"'billing' is none: register_consumer\('billing'\) makes one and returns"):
            logs.consumer("billing")  # type: ignore[arg-type]
        assert logs.message(partition, 0).read_by == [reader]
        assert [topic.name for topic in client.topics.list(prefix="lo")] == ["logs"]
        assert logs.info().consumers == 1
        assert client.cluster().leader == "n1"
        assert client.topics.delete("logs").messages == len(VALUES) + 2
        with pytest.raises(TopicNotFound):
            logs.info()


async def test_aio_story(cluster: StandIn) -> None:
    async with AsyncClient(cluster.urls) as client:
        await client.topics.create("logs", partitions=3)
        logs = client.topic("logs")
        places = await asyncio.gather(*(logs.append(n, key=f"k{n % 7}") for n in range(50)))
        assert len(set(places)) == 50
        for place, n in zip(places, range(50), strict=True):
            assert (await logs.message(*place)).message.value == n
        assert len([name for name in cluster.operations() if name == "append"]) == 1, "what waits goes together"
        reader = logs.consumer(name="r", stop_at_end=True)
        assert sorted([one.value async for one in reader]) == list(range(50))
        assert reader.consumer_id == 1
        seen = []
        async for one in logs.follow():
            seen.append(one.value)
            if len(seen) == 50:
                break
        assert sorted(seen) == list(range(50))
        assert (await client.cluster()).term == 7


async def test_following_waits_for_what_comes(cluster: StandIn) -> None:
    async with AsyncClient(cluster.urls[0]) as client:
        await client.topics.create("x")
        topic = client.topic("x")
        await topic.append("old")
        seen: asyncio.Queue[object] = asyncio.Queue()

        async def follow() -> None:
            async for one in topic.follow("latest"):
                await seen.put(one.value)

        following = asyncio.create_task(follow())
        while "browse" not in cluster.operations()[-1:] or "wait" not in cluster.calls[-1][1].query:
            cluster.arrived.clear()
            await asyncio.to_thread(cluster.arrived.wait, 5)
        await topic.append("new")
        assert await asyncio.wait_for(seen.get(), 5) == "new"
        following.cancel()


async def test_a_consumer_that_waits_is_woken(cluster: StandIn) -> None:
    async with AsyncClient(cluster.urls[0]) as client:
        await client.topics.create("x")
        consumer = await client.topic("x").consumer().register()
        cluster.arrived.clear()
        waiting = asyncio.create_task(consumer.__anext__())
        await asyncio.to_thread(cluster.arrived.wait, 5)
        await client.topic("x").append("hello")
        assert (await asyncio.wait_for(waiting, 5)).value == "hello"


def test_d7_a_fetch_whose_answer_is_lost_skips_nothing(cluster: StandIn) -> None:
    with Client(cluster.urls[0], timeout_s=1.5) as client:
        client.topics.create("x")
        client.topic("x").append_many(range(5))
        consumer = client.topic("x").consumer(max=2, stop_at_end=True).register()
        cluster.mishaps[0].extend(["reset after", "hang", "hang", "hang"])
        with pytest.raises(OutcomeUnknown):
            next(consumer)
        cluster.mishaps[0].clear()
        assert [one.value for one in consumer] == [0, 1, 2, 3, 4]


def test_d7_an_unknown_outcome_can_be_repeated(cluster: StandIn) -> None:
    with Client(cluster.urls[0], timeout_s=1.5) as client:
        client.topics.create("x")
        cluster.mishaps[0].extend(["reset after", "hang", "hang", "hang"])
        with pytest.raises(OutcomeUnknown) as caught:
            client.topic("x").append("once")
        cluster.mishaps[0].clear()
        reply = client.repeat(caught.value)
        assert isinstance(reply, t.Appended)
        assert client.topic("x").size() == 1


def test_d7_a_key_of_ones_own(cluster: StandIn) -> None:
    with Client(cluster.urls) as client:
        client.topics.create("x")
        places = {client.topic("x").append("once", idempotency_key="order-7") for _ in range(3)}
        assert len(places) == 1
        assert client.topic("x").size() == 1


def gather(client: Client, count: int) -> None:
    """Wait until so many appends wait for the flight to come back."""
    while (lane := client._lanes.get(("append", ""))) is None or len(lane.queue) < count:
        threading.Event().wait(0.001)


def test_threads_coalesce_and_each_keeps_its_order(cluster: StandIn) -> None:
    with Client(cluster.urls) as client:
        client.topics.create("x")
        topic = client.topic("x")
        places: dict[int, list[int]] = {}

        def work(worker: int) -> None:
            places[worker] = [topic.append([worker, n]).offset for n in range(25)]

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert sorted(offset for offsets in places.values() for offset in offsets) == list(range(400))
        stored = topic.browse(limit=1000)
        for worker, offsets in places.items():
            assert offsets == sorted(offsets)
            assert [stored[offset].value for offset in offsets] == [[worker, n] for n in range(25)]
        assert cluster.operations().count("append") < 300
        assert not client._lanes


def test_one_bad_append_among_threads_fails_alone(cluster: StandIn) -> None:
    with Client(cluster.urls[0]) as client:
        client.topics.create("x")
        away = threading.Event()
        cluster.mishaps[0].append(away)
        outcomes: dict[int, object] = {}

        def work(worker: int) -> None:
            try:
                outcomes[worker] = client.topic("x").append(worker, producer=77 if worker == 3 else None)
            except QuorlError as error:
                outcomes[worker] = error

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
        cluster.arrived.clear()
        threads[0].start()
        assert cluster.arrived.wait(5)
        for thread in threads[1:]:
            thread.start()
        gather(client, 5)
        away.set()
        for thread in threads:
            thread.join(30)
        assert isinstance(outcomes.pop(3), ProducerNotFound)
        assert not [outcome for outcome in outcomes.values() if isinstance(outcome, Exception)]
        assert sorted(one.value for one in client.topic("x").browse()) == [0, 1, 2, 4, 5]


async def test_a_cancelled_append_harms_nobody(cluster: StandIn) -> None:
    async with AsyncClient(cluster.urls[0]) as client:
        await client.topics.create("x")
        away = threading.Event()
        cluster.mishaps[0].append(away)
        cluster.arrived.clear()
        topic = client.topic("x")
        first = asyncio.create_task(topic.append("first"))
        await asyncio.to_thread(cluster.arrived.wait, 5)
        cancelled, kept = asyncio.create_task(topic.append("cancelled")), asyncio.create_task(topic.append("kept"))
        await asyncio.sleep(0)
        cancelled.cancel()
        away.set()
        assert [(await first).offset, (await kept).offset] == [0, 1]
        assert await topic.size() == 2


def test_a_producer_keeps_the_order_and_tells_offsets(cluster: StandIn) -> None:
    with Client(cluster.urls) as client:
        client.topics.create("x")
        with client.topic("x").producer(name="p") as producer:
            pending = [producer.send(n) for n in range(2000)]
            assert pending[0].offset() == 0
            assert producer.send_many(["a", "b"]).ranges()[0].first_offset == 2000
        assert producer.producer_id == 1
        assert all(one.done for one in pending)
        assert [one.offset() for one in pending] == list(range(2000))
        assert cluster.operations().count("append") < 200


async def test_an_async_producer_keeps_the_order(cluster: StandIn) -> None:
    async with AsyncClient(cluster.urls) as client:
        await client.topics.create("x", partitions=4)
        async with client.topic("x").producer() as producer:
            pending = [await producer.send(n, key=f"k{n % 9}") for n in range(500)]
        assert all(one.done for one in pending)
        for n, one in enumerate(pending[::50]):
            assert (await client.topic("x").message(*await one.place())).message.value == n * 50
            assert await one.offset() >= 0


def test_a_producer_stops_at_the_first_failure(cluster: StandIn) -> None:
    with Client(cluster.urls[0]) as client:
        producer = client.topic("absent").producer()
        pending = producer.send("a")
        with pytest.raises(TopicNotFound):
            pending.ranges()
        with pytest.raises(TopicNotFound):
            producer.send("b")
        with pytest.raises(TopicNotFound):
            producer.close()


async def test_an_async_producer_stops_at_the_first_failure(cluster: StandIn) -> None:
    async with AsyncClient(cluster.urls[0]) as client:
        producer = client.topic("absent").producer()
        pending = await producer.send("a")
        with pytest.raises(TopicNotFound):
            await pending.ranges()
        with pytest.raises(TopicNotFound):
            await producer.send("b")
        with pytest.raises(TopicNotFound):
            await producer.flush()


def test_a_value_that_no_node_takes_is_refused_before_it_waits(cluster: StandIn) -> None:
    with Client(cluster.urls[0]) as client:
        client.topics.create("x")
        with client.topic("x").producer() as producer:
            with pytest.raises(Invalid, match="262"):
                producer.send("v" * 262_144)
            producer.send("fine")
        assert client.topic("x").size() == 1


def test_the_servers_come_from_the_environment(cluster: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUORL_SERVER", cluster.servers)
    with Client() as client:
        assert client.servers == tuple(cluster.urls)
        client.topics.create("x")
    monkeypatch.setenv("QUORL_SERVER", "foo:bar")
    with pytest.raises(ValueError, match="^QUORL_SERVER in the environment: 'foo:bar' is no server address"):
        Client()
    monkeypatch.delenv("QUORL_SERVER")
    assert Client().servers == tuple(f"http://127.0.0.1:{port}" for port in (7101, 7102, 7103))


@pytest.mark.parametrize("servers", ["", "ftp://x", "http://", "http://a:port", [], "http://a?b"])
def test_servers_that_are_none_are_refused_at_once(servers: Any) -> None:
    with pytest.raises(ValueError, match=r"server|port|Port"):
        Client(servers or ["  "])


def test_a_leader_that_moves_is_followed(cluster: StandIn) -> None:
    with Client(cluster.urls) as client:
        client.topics.create("x")
        cluster.leader = "n3"
        for _ in range(5):
            client.topic("x").append(0)
        assert [name for name, _ in cluster.calls][-2:] == ["n3", "n3"]


def test_problems_have_their_details(cluster: StandIn) -> None:
    wrong = Problem("validation_failed", "`/x`: wrong")
    cluster.mishaps[0].append(wire.answer_problem(wrong, instance="/", request_id="r-1", node="n1", leader=None))
    with Client(cluster.urls[0]) as client, pytest.raises(Invalid) as caught:
        client.topics.create("x")
    assert caught.value.detail == "`/x`: wrong"
    assert caught.value.request_id == "r-1"


def test_a_closed_client_says_so(cluster: StandIn) -> None:
    client = Client(cluster.servers)
    client.topics.create("x")
    producer = client.topic("x").producer()
    client.close()
    for wrong in (client.cluster, lambda: client.topic("x").append(1)):
        with pytest.raises(Unavailable, match="closed"):
            wrong()
    pending = producer.send("late")
    with pytest.raises(Unavailable):
        pending.ranges()
    with pytest.raises(Unavailable, match="closed"):
        producer.close()


async def test_a_closed_async_client_says_so(cluster: StandIn) -> None:
    client = AsyncClient(cluster.servers)
    await client.topics.create("x")
    producer = client.topic("x").producer()
    await client.close()
    with pytest.raises(Unavailable, match="closed"):
        await client.cluster()
    with pytest.raises(Unavailable, match="closed"):
        await client.topic("x").append(1)
    pending = await producer.send("late")
    with pytest.raises(Unavailable):
        await pending.ranges()
    with pytest.raises(Unavailable, match="closed"):
        await producer.flush()


def test_a_thread_that_is_interrupted_leaves_nobody_waiting(cluster: StandIn) -> None:
    class Interrupted(HttpTransport):
        @override
        def send(self, send: Send) -> Answer | Failure:
            if b"fatal" in send.call.body:
                raise KeyboardInterrupt
            return super().send(send)

    with Client(cluster.urls[0], transport=Interrupted()) as client:
        client.topics.create("x")
        away = threading.Event()
        cluster.mishaps[0].append(away)
        cluster.arrived.clear()
        outcomes: dict[str, object] = {}

        def work(value: str) -> None:
            try:
                outcomes[value] = client.topic("x").append(value)
            except BaseException as error:
                outcomes[value] = error

        threads = [threading.Thread(target=work, args=(value,)) for value in ("first", "fatal", "with it")]
        threads[0].start()
        assert cluster.arrived.wait(5)
        for number, thread in enumerate(threads[1:], 1):
            thread.start()
            gather(client, number)
        away.set()
        for thread in threads:
            thread.join(20)
        kinds = {value: type(outcome) for value, outcome in outcomes.items()}
        assert kinds == {"first": Placed, "fatal": KeyboardInterrupt, "with it": OutcomeUnknown}
        assert client.topic("x").append("after").offset == 1
        assert not client._lanes
