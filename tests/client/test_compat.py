"""``MyQueue``, the founding interface."""

from __future__ import annotations

import threading

import pytest

import quorl.client
from quorl.client import MyQueue, OutcomeUnknown, QueueError, myQueue
from tests.client.scripted import problem
from tests.client.stand_in import StandIn


def test_a14_the_founding_interface(cluster: StandIn) -> None:
    q = MyQueue(cluster.urls[0])
    assert q.create_topic("payments") is True
    assert q.list_topics() == ["payments"]
    assert q.register_producer("payments") == 1
    assert q.register_consumer("payments") == 1
    assert q.enqueue("payments", 1, "Paid 10 EUR") is True
    assert q.get_size("payments", 1) == q.size("payments", 1) == q.getSize("payments", 1) == 1
    assert q.dequeue("payments", 1) == "Paid 10 EUR"
    assert q.dequeue("payments", 1) is None
    assert q.size("payments") == 1
    q.close()


def test_a14_the_other_spellings(cluster: StandIn) -> None:
    assert myQueue is MyQueue is quorl.client.myQueue
    with myQueue(cluster.servers) as q:
        q.createTopic("a")
        assert q.listTopics() == ["a"]
        assert (q.registerProducer("a"), q.registerConsumer("a")) == (1, 1)
    with MyQueue(cluster.urls) as q:
        assert q.list_topics() == ["a"]


def test_a4_a5_a6_ids_and_duplicates(cluster: StandIn) -> None:
    with MyQueue(cluster.servers) as q:
        q.create_topic("a")
        q.create_topic("b")
        with pytest.raises(QueueError, match="topic exists: a"):
            q.create_topic("a")
        assert [q.register_producer("a") for _ in range(3)] == [1, 2, 3]
        assert [q.register_consumer(topic) for topic in ("a", "b", "a")] == [1, 1, 2]


def test_a7_what_is_not_registered_is_refused(cluster: StandIn) -> None:
    with MyQueue(cluster.servers) as q:
        q.create_topic("a")
        for wrong in (
            lambda: q.enqueue("a", 1, "m"),
            lambda: q.dequeue("a", 1),
            lambda: q.size("a", 1),
            lambda: q.register_consumer("nope"),
            lambda: q.register_producer("nope"),
        ):
            with pytest.raises(QueueError):
                wrong()


def test_a2_a_late_consumer_sees_everything(cluster: StandIn) -> None:
    with MyQueue(cluster.servers) as q:
        q.create_topic("a")
        producer = q.register_producer("a")
        for n in range(3):
            q.enqueue("a", producer, f"m{n}")
        for _ in range(2):
            consumer = q.register_consumer("a")
            assert [q.dequeue("a", consumer) for _ in range(4)] == ["m0", "m1", "m2", None]


def test_a13_many_threads(cluster: StandIn) -> None:
    with MyQueue(cluster.servers) as q:
        q.create_topic("a")
        consumer = q.register_consumer("a")

        def work() -> None:
            me = q.register_producer("a")
            for n in range(10):
                q.enqueue("a", me, [me, n])

        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        got = [q.dequeue("a", consumer) for _ in range(100)]
        for me in range(1, 11):
            assert [n for who, n in got if who == me] == list(range(10))
        assert q.dequeue("a", consumer) is None


def test_d7_a_dequeue_whose_answer_is_lost_skips_nothing(cluster: StandIn) -> None:
    with MyQueue(cluster.urls[0], timeout_s=1.5) as q:
        q.create_topic("a")
        producer, consumer = q.register_producer("a"), q.register_consumer("a")
        for n in range(3):
            q.enqueue("a", producer, n)
        cluster.mishaps[0].extend(["reset after", "hang", "hang", "hang"])
        with pytest.raises(OutcomeUnknown):
            q.dequeue("a", consumer)
        cluster.mishaps[0].clear()
        cluster.mishaps[0].append(problem("no_leader", retry_after_ms=1))
        assert [q.dequeue("a", consumer) for _ in range(4)] == [0, 1, 2, None]
