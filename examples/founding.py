"""The founding scenario: five producers, three consumers, three topics, and who writes and reads what.

    python -m examples.founding                      # needs a running cluster: quorl up

Every producer and every consumer is a thread with a ``MyQueue`` of its own, each beginning at another node. Producers number
their messages, so that at the end everything can be counted: nothing lost, nothing doubled, every producer's own order
kept, and every consumer of a topic has read it in the same order.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count, pairwise
from typing import NamedTuple

from quorl.client import MyQueue, QueueError

PRODUCERS = {
    "till 1": ("orders", "payments"),
    "till 2": ("orders", "payments"),
    "web shop": ("orders", "visits"),
    "terminal": ("payments",),
    "gate": ("visits",),
}
CONSUMERS = {
    "ledger": ("orders", "payments"),
    "archive": ("orders", "payments", "visits"),
    "advisor": ("orders", "visits"),
}
TOPICS = ("orders", "payments", "visits")
MESSAGES = 300
"""By each producer, in turn to each of its topics."""
PATIENCE_S = 60.0
"""How long a call may take on a very busy machine; failing over takes about a second."""


class Sent(NamedTuple):
    """Who sent what where; this is the message, too."""

    topic: str
    producer: str
    number: int

    @property
    def text(self) -> str:
        """What is stored."""
        return f"{self.producer} #{self.number}"


Reading = dict[str, list[str]]
"""What one consumer read: the messages of each topic in the order in which they came."""


class Progress:
    """What has been acknowledged, when. ``at_half`` is called, once, when half of all messages are."""

    def __init__(self, expected: int, at_half: Callable[[], None]) -> None:
        self.sent: list[Sent] = []
        self._times_s: list[float] = []
        self._half = expected // 2
        self._at_half = at_half
        self._lock = threading.Lock()

    def acknowledged(self, message: Sent) -> None:
        """Note one message that the cluster says is stored."""
        with self._lock:
            self._times_s.append(time.monotonic())
            self.sent.append(message)
            half = len(self.sent) == self._half
        if half:
            self._at_half()

    @property
    def longest_gap_s(self) -> float:
        """The longest time in which nothing was acknowledged."""
        return max((later - earlier for earlier, later in pairwise(self._times_s)), default=0.0)


class Verdict(NamedTuple):
    """What came of it."""

    sent: int
    read: dict[str, int]
    """Messages that each consumer read."""
    lost: int
    doubled: int
    disordered: int
    """Messages of one producer that overtook another of its own, and topics that consumers read in different orders."""
    longest_gap_s: float
    took_s: float

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return self.sent > 0 and not (self.lost or self.doubled or self.disordered)


def run(servers: Sequence[str], *, messages: int = MESSAGES, at_half: Callable[[], None] = lambda: None) -> Verdict:
    """Play the scenario on a cluster and judge it. Every run has topics of its own."""
    started_s = time.monotonic()
    names = create_topics(servers)
    progress = Progress(messages * len(PRODUCERS), at_half)
    written = threading.Event()
    beginnings = [_rotated(servers, turn) for turn in range(len(PRODUCERS) + len(CONSUMERS))]
    with ThreadPoolExecutor(len(beginnings)) as threads:
        reading = {name: threads.submit(consume, name, beginnings.pop(), names, written) for name in CONSUMERS}
        writing = [threads.submit(produce, name, beginnings.pop(), names, messages, progress) for name in PRODUCERS]
        try:
            for writer in writing:
                writer.result()
        finally:
            written.set()
        read = {name: reader.result() for name, reader in reading.items()}
    return judge(progress, read, time.monotonic() - started_s)


def create_topics(servers: Sequence[str]) -> dict[str, str]:
    """Create the topics, under names that no earlier run has used, and return those."""
    with MyQueue(servers, timeout_s=PATIENCE_S) as queue:
        for turn in count(1):
            names = {topic: topic if turn == 1 else f"{topic}, run {turn}" for topic in TOPICS}
            try:
                for name in names.values():
                    queue.create_topic(name)
            except QueueError:  # it exists
                continue
            return names
    raise AssertionError("count() never ends")


def _rotated(servers: Sequence[str], turn: int) -> list[str]:
    first = turn % len(servers)
    return [*servers[first:], *servers[:first]]


def produce(name: str, servers: Sequence[str], names: dict[str, str], messages: int, progress: Progress) -> None:
    """Register with every topic and write to them in turn, one message after the other."""
    topics = PRODUCERS[name]
    with MyQueue(servers, timeout_s=PATIENCE_S) as queue:
        ids = {topic: queue.register_producer(names[topic]) for topic in topics}
        for number in range(messages):
            message = Sent(topics[number % len(topics)], name, number)
            queue.enqueue(names[message.topic], ids[message.topic], message.text)
            progress.acknowledged(message)


def consume(name: str, servers: Sequence[str], names: dict[str, str], written: threading.Event) -> Reading:
    """Register with every topic and read them in turn, until everything is written and nothing new comes."""
    read: Reading = {topic: [] for topic in CONSUMERS[name]}
    with MyQueue(servers, timeout_s=PATIENCE_S) as queue:
        ids = {topic: queue.register_consumer(names[topic]) for topic in read}
        while True:
            all_is_written = written.is_set()
            news = 0
            for topic, consumer_id in ids.items():
                message = queue.dequeue(names[topic], consumer_id)
                if message is not None:
                    read[topic].append(message)
                    news += 1
            if all_is_written and not news:
                return read
            if not news:
                written.wait(0.05)


def judge(progress: Progress, read: dict[str, Reading], took_s: float) -> Verdict:
    """Count what is missing, what came twice, and what came in the wrong order."""
    expected = {topic: Counter(m.text for m in progress.sent if m.topic == topic) for topic in TOPICS}
    lost = doubled = disordered = 0
    orders: dict[str, set[tuple[str, ...]]] = {topic: set() for topic in TOPICS}
    for reading in read.values():
        for topic, texts in reading.items():
            seen = Counter(texts)
            lost += (expected[topic] - seen).total()
            doubled += (seen - expected[topic]).total()
            disordered += overtaken(texts)
            orders[topic].add(tuple(texts))
    disordered += sum(len(different) - 1 for different in orders.values() if different)
    counts = {name: sum(map(len, reading.values())) for name, reading in read.items()}
    return Verdict(len(progress.sent), counts, lost, doubled, disordered, progress.longest_gap_s, took_s)


def overtaken(texts: Iterable[str]) -> int:
    """How many messages came after a later one of the same producer."""
    latest: dict[str, int] = {}
    overtakings = 0
    for text in texts:
        producer, _, number = text.rpartition(" #")
        overtakings += int(number) < latest.get(producer, -1)
        latest[producer] = max(int(number), latest.get(producer, -1))
    return overtakings


def report(verdict: Verdict) -> str:
    """The verdict as a small table."""
    rows = [
        ("messages sent", f"{verdict.sent}"),
        *((f"read by {name}", f"{number}") for name, number in verdict.read.items()),
        ("lost", f"{verdict.lost}"),
        ("doubled", f"{verdict.doubled}"),
        ("out of order", f"{verdict.disordered}"),
        ("longest gap between two acknowledged writes", f"{verdict.longest_gap_s:.2f} s"),
        ("time", f"{verdict.took_s:.1f} s"),
    ]
    return "\n".join(f"  {what:<44}{figure:>10}" for what, figure in rows)


def main() -> int:
    """Run on the cluster at ``--server``."""
    parser = argparse.ArgumentParser(description="The founding scenario, on a cluster that runs already.")
    parser.add_argument("--server", default="127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103", help="where the nodes are")
    parser.add_argument("--messages", type=int, default=MESSAGES, help="by each producer")
    arguments = parser.parse_args()
    verdict = run(arguments.server.split(","), messages=arguments.messages)
    print(report(verdict))
    return 0 if verdict.good else 1


if __name__ == "__main__":
    sys.exit(main())
