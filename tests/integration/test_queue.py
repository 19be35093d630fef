"""The distributed logging queue, as its users see it through any node: features A1 to A14."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from urllib.parse import quote

import pytest

from quorl.client import Client, MyQueue, QueueError, myQueue
from tests.harness import ROOT, LocalCluster, call, converge, stored

WIDE = "Größe / 大きさ 🦑 é\u0301 %2F?#& "
NAME_200 = "".join(islice(cycle(WIDE), 200))


def each_node(cluster: LocalCluster, count: int) -> list[str]:
    """So many addresses, going round the nodes."""
    return list(islice(cycle(cluster.urls), count))


def test_a1_eight_producers_through_three_nodes(cluster: LocalCluster) -> None:
    with MyQueue(cluster.urls) as queue:
        queue.create_topic("a1")

    def produce(number: int, url: str) -> int:
        with MyQueue(url, timeout_s=60) as queue:
            producer_id = queue.register_producer("a1")
            for count in range(40):
                assert queue.enqueue("a1", producer_id, f"{number} {count}")
            return producer_id

    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(produce, range(8), each_node(cluster, 8)))
    converge(cluster)
    first, *others = [stored(node, "a1") for node in cluster.nodes.values()]
    assert all(copy == first for copy in others)
    assert len(first) == 8 * 40
    for number, producer_id in enumerate(ids):
        own = [message.value for message in first if message.producer_id == producer_id]
        assert own == [f"{number} {count}" for count in range(40)]


def test_a2_a_new_consumer_begins_at_the_first_message(cluster: LocalCluster) -> None:
    with MyQueue(cluster.urls) as queue:
        queue.create_topic("a2")
        producer_id, early = queue.register_producer("a2"), queue.register_consumer("a2")
        for text in ("one", "two", "three"):
            queue.enqueue("a2", producer_id, text)
        assert [queue.dequeue("a2", early) for _ in range(4)] == ["one", "two", "three", None]
        late = queue.register_consumer("a2")
        assert [queue.dequeue("a2", late) for _ in range(4)] == ["one", "two", "three", None]


@pytest.mark.parametrize(
    ("name", "why"),
    [("", "at least 1 character"), ("x" * 201, "at most 200 characters"), ("ß" * 201, "at most 200 characters")],
)
def test_a3_empty_and_overlong_names_are_refused_with_the_reason(cluster: LocalCluster, name: str, why: str) -> None:
    founding = call(cluster.urls[1], "POST", "/topics", {"name": name})
    assert founding.status == 400
    assert founding.json["status"] == "failure"
    modern = call(cluster.urls[1], "POST", "/v1/topics", {"name": name})
    assert modern.status == 422
    assert modern.json["errors"][0]["pointer"] == "/name"
    for said in (founding.json["message"], modern.json["detail"]):
        assert why in said
        assert "name" in said


def test_a3_two_hundred_characters_of_any_kind_work_everywhere(cluster: LocalCluster) -> None:
    """Characters are counted, not bytes; slashes, spaces and signs are nothing special."""
    assert len(NAME_200) == 200 < len(NAME_200.encode())
    n1, n2, n3 = cluster.urls
    assert call(n1, "POST", "/topics", {"name": NAME_200}).status == 200
    path = f"/v1/topics/{quote(NAME_200, safe='')}"
    assert call(n2, "GET", path).json["name"] == NAME_200
    with Client(n2) as client:
        assert client.topic(NAME_200).append("äöü 🦑").offset == 0
    command = [sys.executable, "-m", "quorl.client.cli", "topic", "produce", NAME_200, "--value", "two", "--server", n3]
    subprocess.run(command, check=True, cwd=ROOT / "src", capture_output=True)
    command = [sys.executable, "-m", "quorl.client.cli", "topic", "ls", "--json", "--server", n3]
    assert NAME_200 in subprocess.run(command, check=True, cwd=ROOT / "src", capture_output=True, text=True).stdout
    items = call(n1, "GET", f"{path}/messages").json["items"]
    assert [item["value"] for item in items] == ["äöü 🦑", "two"]


def test_a4_a_duplicate_is_refused_and_every_node_lists_the_same(cluster: LocalCluster) -> None:
    for url, name in zip(cluster.urls, ("a4 c", "a4 a", "a4 b"), strict=True):
        assert call(url, "POST", "/topics", {"name": name}).status == 200
        for other in cluster.urls:
            again = call(other, "POST", "/topics", {"name": name})
            assert again.status == 409
            assert again.json["status"] == "failure"
    lists = [call(url, "GET", "/topics").json["topics"] for url in cluster.urls]
    assert lists[0] == lists[1] == lists[2] == sorted(lists[0])
    assert {"a4 a", "a4 b", "a4 c"} <= set(lists[0])


@pytest.mark.parametrize("kind", ["producer", "consumer"])
def test_a5_a6_ids_are_sequential_under_concurrency(cluster: LocalCluster, kind: str) -> None:
    for topic in (f"a5 {kind}", f"a6 {kind}"):
        assert call(cluster.urls[0], "POST", "/topics", {"name": topic}).status == 200

        def register(url: str, topic: str = topic) -> int:
            return int(call(url, "POST", f"/{kind}/register", {"topic": topic}).json[f"{kind}_id"])

        with ThreadPoolExecutor(12) as threads:
            ids = list(threads.map(register, each_node(cluster, 36)))
        assert sorted(ids) == list(range(1, 37))


def test_a7_an_id_is_good_for_its_topic_only(cluster: LocalCluster) -> None:
    with MyQueue(cluster.urls) as queue:
        for topic in ("a7 x", "a7 y"):
            queue.create_topic(topic)
        assert queue.register_producer("a7 x") == 1
        assert queue.register_producer("a7 x") == 2
        assert queue.register_consumer("a7 x") == 1
        with pytest.raises(QueueError, match="2"):
            queue.enqueue("a7 y", 2, "text")
        with pytest.raises(QueueError, match="1"):
            queue.dequeue("a7 y", 1)
        with pytest.raises(QueueError, match="1"):
            queue.size("a7 y", 1)
        with pytest.raises(QueueError, match="no such topic"):
            queue.register_producer("a7 z")
        assert queue.size("a7 x") == queue.size("a7 y") == 0
        assert queue.register_producer("a7 y") == 1  # one program, many topics
        assert queue.enqueue("a7 y", 1, "text")


def test_a8_a9_a_message_keeps_what_it_came_with_and_who_read_it(cluster: LocalCluster) -> None:
    topic = "/v1/topics/a8"
    assert call(cluster.urls[0], "POST", "/v1/topics", {"name": "a8"}).status == 201
    producers = [call(url, "POST", f"{topic}/producers", {}).json["producer_id"] for url in cluster.urls]
    for url, producer_id in zip(cluster.urls, producers, strict=True):
        body = {"messages": [{"value": f"by {producer_id}", "producer_id": producer_id}]}
        assert call(url, "POST", f"{topic}/messages", body).status == 201
    readers = [call(url, "POST", f"{topic}/consumers", {}).json["consumer_id"] for url in cluster.urls]
    with MyQueue(cluster.urls) as queue:
        assert queue.dequeue("a8", readers[0]) == "by 1"
        assert queue.dequeue("a8", readers[2]) == "by 1"
        assert queue.dequeue("a8", readers[2]) == "by 2"
    seen = [call(url, "GET", f"{topic}/messages/0/0").json for url in cluster.urls]
    assert seen[0] == seen[1] == seen[2]
    assert (seen[0]["value"], seen[0]["producer_id"], seen[0]["read_by"]) == ("by 1", 1, [1, 3])
    assert seen[0]["created_at"].endswith("Z")
    assert call(cluster.urls[1], "GET", f"{topic}/messages/0/1").json["read_by"] == [3]
    assert call(cluster.urls[1], "GET", f"{topic}/messages/0/2").json["read_by"] == []


def test_a9_a10_cursor_and_size_are_the_same_through_every_node(cluster: LocalCluster) -> None:
    with MyQueue(cluster.urls) as queue:
        queue.create_topic("a9")
        producer_id, one, two = (
            queue.register_producer("a9"),
            queue.register_consumer("a9"),
            queue.register_consumer("a9"),
        )
        for count in range(9):
            queue.enqueue("a9", producer_id, count)
    for count, url in enumerate(each_node(cluster, 9)):
        with MyQueue(url) as queue:
            assert queue.size("a9", one) == 9 - count
            assert queue.dequeue("a9", one) == count
    for url in cluster.urls:
        with MyQueue(url) as queue:
            assert queue.dequeue("a9", one) is None
            assert (queue.size("a9", one), queue.size("a9", two), queue.size("a9")) == (0, 9, 9)


def test_a12_the_time_of_creation_never_decreases(cluster: LocalCluster) -> None:
    with Client(cluster.urls) as client:
        client.topics.create("a12")
        for url in each_node(cluster, 12):
            with Client(url) as one:
                one.topic("a12").append("x")
    converge(cluster)
    times = [message.created_at for message in stored(cluster["n1"], "a12")]
    assert times == sorted(times)
    assert len(times) == 12


def test_a13_two_hundred_parallel_clients(cluster: LocalCluster) -> None:
    """No answer of the server's own fault, and every invariant holds."""
    assert call(cluster.urls[0], "POST", "/topics", {"name": "a13"}).status == 200

    def use(number: int, url: str) -> list[int]:
        statuses = []

        def ask(method: str, path: str, body: object = None) -> dict[str, object]:
            reply = call(url, method, path, body, timeout_s=120)
            statuses.append(reply.status)
            answer: dict[str, object] = reply.json
            return answer

        producer_id = ask("POST", "/producer/register", {"topic": "a13"})["producer_id"]
        consumer_id = ask("POST", "/consumer/register", {"topic": "a13"})["consumer_id"]
        message = {"topic": "a13", "producer_id": producer_id, "message": f"{number}"}
        assert ask("POST", "/producer/produce", message)["status"] == "success"
        assert ask("GET", f"/consumer/consume?topic=a13&consumer_id={consumer_id}")["status"] == "success"
        ask("GET", f"/size?topic=a13&consumer_id={consumer_id}")
        return statuses

    with ThreadPoolExecutor(200) as threads:
        statuses = Counter(
            status for all_of_one in threads.map(use, range(200), each_node(cluster, 200)) for status in all_of_one
        )
    assert statuses == {200: 1000}
    converge(cluster)
    copies = [stored(node, "a13") for node in cluster.nodes.values()]
    assert copies[0] == copies[1] == copies[2]
    assert sorted(int(message.value) for message in copies[0]) == list(range(200))
    assert sorted(message.producer_id for message in copies[0]) == list(range(1, 201))


def test_a14_my_queue_under_both_names(cluster: LocalCluster) -> None:
    assert myQueue is MyQueue
    with MyQueue(",".join(cluster.urls)) as queue:
        assert queue.create_topic("a14")
        with pytest.raises(QueueError, match="exists"):
            queue.create_topic("a14")
        assert "a14" in queue.list_topics()
        producer_id, consumer_id = queue.register_producer("a14"), queue.register_consumer("a14")
        assert queue.enqueue("a14", producer_id, json.dumps({"any": "text"}))
        assert queue.size("a14", consumer_id) == 1
        assert queue.dequeue("a14", consumer_id) == '{"any": "text"}'
        assert queue.dequeue("a14", consumer_id) is None
