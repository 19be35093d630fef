"""Appends of many messages: to several topics in one call, who flies with whom, what each is told, and whose they are."""

from __future__ import annotations

import asyncio

import msgspec

from quorl.client import AsyncClient, Client, Placed, TopicNotFound
from quorl.client import errors as e
from quorl.client.batching import Part
from quorl.client.lanes import AppendLane, AppendPart
from quorl.client.model import message, size_bytes
from quorl.cluster.protocol import appends as a
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.placement import partition_of
from quorl.cluster.protocol.wire import Answer
from tests.client.scripted import World, appended, problem, reply
from tests.client.stand_in import StandIn
from tests.client.test_batching import ranges


class Wide(World):
    """A world with a lane to all topics."""

    def __init__(self) -> None:
        super().__init__()
        self.lane = AppendLane(self.route, "", timeout_s=10)

    def add(self, topic: str, *values: object, producer: int | None = None, key: str | None = None) -> AppendPart:
        batch = [message(value, producer=producer, key=key) for value in values]
        part: AppendPart = Part(batch, size_bytes(batch), self.clock.now + 10, lambda _: None, topic)
        self.lane.queue.append(part)
        return part

    def fly(self, *events: object) -> None:
        self.play(self.lane.fly(), *events)  # type: ignore[arg-type]

    @property
    def appends(self) -> list[object]:
        """What each call asked to append, by topic."""
        asked: list[object] = []
        for send in self.sends:
            body = msgspec.json.decode(send.call.body)
            if send.call.path == "/v1/appends":
                asked.append({one["topic"]: [m["value"] for m in one["messages"]] for one in body["appends"]})
            else:
                asked.append((send.call.path, [m["value"] for m in body["messages"]]))
        return asked


def stored(topic: str, first: int, last: int) -> a.TopicAppended:
    return a.TopicAppended(topic=topic, ranges=[t.Range(partition=0, first_offset=first, last_offset=last)])


def all_appended(*items: a.TopicAppended) -> Answer:
    return reply("append_all", a.AppendedAll(items=list(items)))


def test_appends_to_several_topics_travel_in_one_call_in_their_order() -> None:
    wide = Wide()
    parts = [wide.add("x", 1), wide.add("y", 2, 3), wide.add("x", 4)]
    wide.fly(all_appended(stored("x", 5, 6), stored("y", 0, 1)))
    assert wide.appends == [{"x": [1, 4], "y": [2, 3]}]
    assert [ranges(part) for part in parts] == [[(0, 5, 5)], [(0, 0, 1)], [(0, 6, 6)]]


def test_appends_to_one_of_all_topics_are_the_plain_call() -> None:
    wide = Wide()
    parts = [wide.add("x", 1), wide.add("x", 2)]
    wide.fly(appended(2))
    assert wide.appends == [("/v1/topics/x/messages", [1, 2])]
    assert [ranges(part) for part in parts] == [[(0, 0, 0)], [(0, 1, 1)]]


def test_a_topic_that_is_missing_concerns_its_own_appends_alone() -> None:
    wide = Wide()
    lost, found, lost_too = wide.add("gone", 1), wide.add("x", 2), wide.add("gone", 3)
    wide.fly(all_appended(a.TopicAppended(topic="gone", code="topic_not_found", detail="no gone"), stored("x", 0, 0)))
    assert len(wide.appends) == 1
    assert isinstance(lost.outcome, e.TopicNotFound)
    assert isinstance(lost_too.outcome, e.TopicNotFound)
    assert "no gone" in str(lost.outcome)
    assert ranges(found) == [(0, 0, 0)]


def test_who_shares_a_topic_with_a_refused_producer_goes_again_by_himself() -> None:
    wide = Wide()
    good, bad, other = wide.add("x", 1), wide.add("x", 2, producer=9), wide.add("y", 3)
    refused = a.TopicAppended(topic="x", code="producer_not_found", detail="9")
    wide.fly(all_appended(refused, stored("y", 0, 0)), appended(1), problem("producer_not_found"))
    assert wide.appends[1:] == [("/v1/topics/x/messages", [1]), ("/v1/topics/x/messages", [2])]
    assert (ranges(good), ranges(other)) == ([(0, 0, 0)], [(0, 0, 0)])
    assert isinstance(bad.outcome, e.ProducerNotFound)
    again, elsewhere = wide.add("x", 4, producer=9), wide.add("y", 5, producer=9)
    wide.fly(problem("producer_not_found"))
    assert wide.appends[3:] == [("/v1/topics/x/messages", [4])]
    wide.fly(appended(1))
    assert isinstance(again.outcome, e.ProducerNotFound)
    assert ranges(elsewhere) == [(0, 0, 0)]


def test_a_producer_that_is_refused_for_itself_among_topics_flies_alone_afterwards() -> None:
    wide = Wide()
    bad, good = wide.add("x", 1, producer=9), wide.add("y", 2)
    refused = a.TopicAppended(topic="x", code="producer_not_found", detail="9")
    wide.fly(all_appended(refused, stored("y", 0, 0)))
    assert isinstance(bad.outcome, e.ProducerNotFound)
    assert ranges(good) == [(0, 0, 0)]
    wide.add("x", 3, producer=9), wide.add("y", 4)
    wide.fly(appended(1))
    assert wide.appends[1:] == [("/v1/topics/x/messages", [3])]


def test_a_place_that_cannot_be_told_is_unknown_for_its_topic_alone() -> None:
    wide = Wide()
    parts = [wide.add("x", 1, key="k0"), wide.add("x", 2, key="k1"), wide.add("y", 3)]
    spread = [t.Range(partition=p, first_offset=0, last_offset=0) for p in (0, 1)]
    item = a.TopicAppended(topic="x", ranges=spread)  # without their number
    wide.fly(all_appended(item, stored("y", 0, 0)))
    assert [type(part.outcome) for part in parts[:2]] == [e.OutcomeUnknown] * 2
    assert "append to 2 topics was applied" in str(parts[0].outcome)
    assert ranges(parts[2]) == [(0, 0, 0)]


def test_an_answer_about_other_appends_tells_nothing() -> None:
    wide = Wide()
    parts = [wide.add("x", 1), wide.add("y", 2)]
    wide.fly(all_appended(stored("x", 0, 0)))
    assert [type(part.outcome) for part in parts] == [e.OutcomeUnknown] * 2


def test_a_cluster_without_appends_to_several_topics_gets_them_one_by_one() -> None:
    wide = Wide()
    parts = [wide.add("x", 1), wide.add("y", 2)]
    wide.fly(problem("route_not_found"), appended(1), appended(1, first=4))
    assert [ranges(part) for part in parts] == [[(0, 0, 0)], [(0, 4, 4)]]


async def test_appends_to_many_topics_travel_together_and_each_is_told_its_own(cluster: StandIn) -> None:
    async with AsyncClient(cluster.urls[0]) as client:
        for number in range(5):
            await client.topics.create(f"t{number}")
        calls = len(cluster.calls)
        topics = [client.topic(f"t{number % 6}") for number in range(12)]
        told = await asyncio.gather(*[one.append(i) for i, one in enumerate(topics)], return_exceptions=True)
        assert len(cluster.calls) == calls + 1
        for number in range(5):
            read = await client.topic(f"t{number}").browse()
            assert [(one.offset, one.value) for one in read] == [(0, number), (1, number + 6)]
            assert [one.offset for one in (told[number], told[number + 6]) if isinstance(one, Placed)] == [0, 1]
        assert [type(told[number]) for number in (5, 11)] == [TopicNotFound] * 2


async def test_a_topic_that_is_made_again_with_other_partitions_mixes_up_nobodys_place(cluster: StandIn) -> None:
    places = {key: (partition_of(key, 4), partition_of(key, 3)) for key in map(str, range(100))}
    one = next(key for key, (before, after) in places.items() if before != after and before < 3)
    other = next(key for key, crossed in places.items() if crossed == places[one][::-1])
    async with AsyncClient(cluster.urls[0]) as client:
        await client.topics.create("y")
        for partitions in (4, 3):
            await client.topics.create("x", partitions=partitions)
            topic = client.topic("x")
            for beside in ([], ["y"]):  # a call of their own, and one with another topic
                calls = [topic.append(key, key=key) for key in (one, other)]
                placed = await asyncio.gather(*calls, *[client.topic(name).append(0) for name in beside])
                for key, place in zip((one, other), placed, strict=False):
                    (found,) = await topic.browse(place.offset, partition=place.partition, limit=1)
                    assert found.value == key
            await client.topics.delete("x")


def test_a8_a_message_without_a_producer_gets_that_of_its_batch(cluster: StandIn) -> None:
    with Client(cluster.urls) as client:
        client.topics.create("logs")
        logs = client.topic("logs")
        assert [logs.register_producer() for _ in range(3)] == [1, 2, 3]
        logs.append_many([message("made"), "plain", message("named", producer=1)], producer=2)
        with logs.producer(3) as producer:
            producer.send_many([message("sent")])
        said = {one.value: one.producer_id for one in logs.browse()}
        assert said == {"made": 2, "plain": 2, "named": 1, "sent": 3}
