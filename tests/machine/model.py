"""What the machine means, in plain Python: lists and dicts, no storage, no batches, nothing clever."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any

from quorl.cluster.protocol import topics as t


@dataclass
class Consumer:
    start: list[int]
    next: list[int]
    turn: int = 0


@dataclass
class Topic:
    partitions: list[list[Any]]
    producers: int = 0
    turn: int = 0
    consumers: list[Consumer] = field(default_factory=list)


@dataclass
class Model:
    """Answers are tuples and lists; a refusal is its code."""

    topics: dict[str, Topic] = field(default_factory=dict)
    receipts: dict[tuple[str, str], tuple[object, Any]] = field(default_factory=dict)

    def do(self, command: Any, key: str | None = None) -> Any:
        """The outcome of a command, and whether it came from a receipt."""
        slot = (type(command).__name__, key or "")
        if key is not None and slot in self.receipts:
            first, outcome = self.receipts[slot]
            return (outcome, True) if first == command else ("idempotency_key_reused", False)
        outcome = self._do(command)
        waits_on = isinstance(command, t.Consume) and command.wait > 0 and isinstance(outcome, tuple) and not outcome[0]
        if key is not None and not waits_on:
            self.receipts[slot] = (command, outcome)
        return outcome, False

    def _do(self, command: Any) -> Any:
        if isinstance(command, t.CreateTopic):
            return self._create(command)
        topic = self.topics.get(command.topic)
        if topic is None:
            return "topic_not_found"
        match command:
            case t.DeleteTopic():
                return self._delete(command, topic)
            case t.RegisterProducer():
                topic.producers += 1
                return topic.producers
            case t.RegisterConsumer():
                start = [len(p) if command.start == "latest" else 0 for p in topic.partitions]
                topic.consumers.append(Consumer(start, list(start)))
                return len(topic.consumers)
            case t.Append():
                return self._append(command, topic)
            case t.Consume():
                return self._consume(command, topic)
        raise AssertionError(command)

    def _create(self, command: t.CreateTopic) -> Any:
        found = self.topics.get(command.name)
        if found is None:
            self.topics[command.name] = Topic([[] for _ in range(command.partitions)])
        elif command.error_if_exists or len(found.partitions) != command.partitions:
            return "already_exists"
        return command.partitions, found is not None

    def _delete(self, command: t.DeleteTopic, topic: Topic) -> Any:
        count = sum(map(len, topic.partitions))
        if command.if_empty and count:
            return "topic_not_empty"
        del self.topics[command.topic]
        return count

    def _append(self, command: t.Append, topic: Topic) -> Any:
        if any((m.producer_id or 1) > max(topic.producers, m.producer_id is None) for m in command.messages):
            return "producer_not_found"
        ranges: dict[int, tuple[int, int]] = {}
        for message in command.messages:
            by_key = zlib.crc32((message.key or "").encode()) % len(topic.partitions)
            number = topic.turn if message.key is None else by_key
            partition = topic.partitions[number]
            ranges[number] = (ranges.get(number, (len(partition), 0))[0], len(partition))
            partition.append((bytes(message.value), message.key, message.headers, message.producer_id))
        topic.turn = (topic.turn + any(m.key is None for m in command.messages)) % len(topic.partitions)
        return [(number, *ranges[number]) for number in sorted(ranges)]

    def _consume(self, command: t.Consume, topic: Topic) -> Any:
        if command.consumer_id > len(topic.consumers):
            return "consumer_not_found"
        consumer = topic.consumers[command.consumer_id - 1]
        items: list[Any] = []
        first_turn = consumer.turn
        for step in range(len(topic.partitions)):
            number = (first_turn + step) % len(topic.partitions)
            at = consumer.next[number]
            taken = topic.partitions[number][at : at + command.max - len(items)]
            if taken:
                items += [(number, at + i, *item) for i, item in enumerate(taken)]
                consumer.next[number] += len(taken)
                consumer.turn = (number + 1) % len(topic.partitions)
        return items, sum(map(len, topic.partitions)) - sum(consumer.next)

    def read_by(self, name: str, partition: int, offset: int) -> list[int]:
        consumers = enumerate(self.topics[name].consumers, 1)
        return [number for number, c in consumers if c.start[partition] <= offset < c.next[partition]]
