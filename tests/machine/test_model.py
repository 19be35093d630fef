"""The machine against the model: whatever commands come, both say the same and hold the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from quorl.cluster.machine.digest import content_digest
from quorl.cluster.machine.dump import dump, load
from quorl.cluster.machine.machine import Machine, Outcome
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Command, Rejection
from tests.machine.model import Model
from tests.machine.rig import Rig, connect, expect, message, seal

names = st.sampled_from(["a", "b", "ß/🦆 ", "a\x00b"])
ids = st.integers(1, 3)
messages = st.builds(
    message,
    st.one_of(st.integers(-9, 9), st.text(max_size=5), st.none(), st.lists(st.booleans(), max_size=2)),
    key=st.one_of(st.none(), st.none(), st.sampled_from(["", "k", "Schlüssel", "q" * 9])),
    producer_id=st.one_of(st.none(), st.none(), ids),
)
commands: st.SearchStrategy[Command[Any]] = st.one_of(
    st.builds(t.CreateTopic, name=names, partitions=st.sampled_from([1, 1, 3]), error_if_exists=st.booleans()),
    st.builds(t.DeleteTopic, topic=names, if_empty=st.booleans()),
    st.builds(t.RegisterProducer, topic=names),
    st.builds(t.RegisterConsumer, topic=names, start=st.sampled_from(["earliest", "latest"])),
    *[st.builds(t.Append, topic=names, messages=st.lists(messages, min_size=1, max_size=5))] * 3,
    *[st.builds(t.Consume, topic=names, consumer_id=ids, max=st.sampled_from([1, 100]), wait=st.sampled_from([0, 1]))]
    * 3,
)
keys = st.one_of(st.none(), st.none(), st.sampled_from(["k1", "k2"]))
entries = st.lists(st.lists(st.tuples(commands, keys), max_size=6), max_size=12)


@pytest.fixture(autouse=True, scope="module")
def graves_that_stay_open_for_long() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "PURGED_ROWS_PER_ENTRY", 7)
        patch.setattr(limits, "PURGED_ROWS_PER_COMMAND", 0)
        yield


def empty_then_full(wait: float) -> list[list[tuple[Command[Any], str | None]]]:
    """A repeat of a ``Consume`` that found nothing the first time."""
    consume = t.Consume(topic="a", consumer_id=1, wait=wait)
    before: list[Command[Any]] = [t.CreateTopic(name="a"), t.RegisterConsumer(topic="a")]
    between = t.Append(topic="a", messages=[message(1)])
    asked: list[tuple[Command[Any], str | None]] = [(command, None) for command in before]
    return [[*asked, (consume, "k"), (between, None), (consume, "k")]]


def plain(machine: Machine, outcome: Outcome) -> tuple[Any, bool]:
    """An outcome as the model says it."""
    value = outcome.value
    said: Any
    match value:
        case Rejection():
            said = str(value.__struct_config__.tag)
        case t.TopicCreated():
            said = (value.partitions, value.existing)
        case t.TopicDeleted():
            said = value.messages
        case t.ProducerInfo():
            said = value.producer_id
        case t.ConsumerInfo():
            said = value.consumer_id
        case t.Appended():
            said = [(r.partition, r.first_offset, r.last_offset) for r in value.ranges]
        case _:
            spans = expect(value, t.ConsumedSpans)
            read = machine.render(spans)
            if isinstance(read, t.TopicNotFound):  # a repeat, after the topic was deleted
                return None, outcome.replayed
            consumed = expect(read, t.Consumed)
            items = [(i.partition, i.offset, bytes(i.value), i.key, i.headers, i.producer_id) for i in consumed.items]
            said = (items, consumed.remaining)
    return said, outcome.replayed


def agree(model: Model, rig: Rig) -> None:
    """Both hold the same topics, messages, readers and sizes."""
    listed = rig.ask(t.ListTopics(), t.TopicList).items
    assert [info.name for info in listed] == sorted(model.topics)
    for info in listed:
        topic = model.topics[info.name]
        assert (info.producers, info.consumers) == (topic.producers, len(topic.consumers))
        for number, partition in enumerate(topic.partitions):
            page = rig.ask(t.Browse(topic=info.name, partition=number), t.MessagePage)
            assert [(bytes(i.value), i.key, i.headers, i.producer_id) for i in page.items] == partition
            for offset in range(len(partition)):
                found = rig.ask(t.GetMessage(topic=info.name, partition=number, offset=offset), t.MessageInfo)
                assert found.read_by == model.read_by(info.name, number, offset)
        for consumer_id, consumer in enumerate(topic.consumers, 1):
            size = rig.ask(t.GetSize(topic=info.name, consumer_id=consumer_id), t.TopicSize)
            assert size.size == sum(map(len, topic.partitions)) - sum(consumer.next)


@settings(max_examples=150)
@given(entries)
@example(empty_then_full(wait=0))
@example(empty_then_full(wait=1))
def test_the_machine_does_what_the_model_does(run: list[list[tuple[Command[Any], str | None]]]) -> None:
    rig, model = Rig(), Model()
    for entry in run:
        rig.now_ms += 7
        rig.wall_ms += 3
        # Reading comes after the whole entry; so a topic deleted in the same entry is gone by then.
        outcomes = rig.apply(*(seal(command, key) for command, key in entry)).outcomes
        assert len(outcomes) == len(entry)
        for (command, key), outcome in zip(entry, outcomes, strict=True):
            expected, got = model.do(command, key), plain(rig.machine, outcome)
            assert got == expected or (got == (None, expected[1]) and isinstance(command, t.Consume))
        rig.sound()
    agree(model, rig)


@settings(max_examples=60)
@given(entries, st.integers(0, 12))
def test_replicas_agree_also_after_a_dump_in_the_middle(
    run: list[list[tuple[Command[Any], str | None]]], middle: int
) -> None:
    one, other = Rig(), Rig(first_way=1)
    for number, entry in enumerate(run):
        if number == middle:
            connection = connect()
            load(connection, list(dump(other.connection)))
            assert content_digest(connection) == content_digest(other.connection)
            other.connection, other.machine = connection, Machine(connection)
        payload = one.payload(*(seal(command, key) for command, key in entry))
        assert one.apply_raw(payload) == other.apply_raw(payload)
    assert one.machine.digest == other.machine.digest
    assert one.machine.position == other.machine.position
    assert content_digest(one.connection) == content_digest(other.connection)


def test_the_model_compares_raw_values_by_their_bytes() -> None:
    assert message(1) != message(2)
    assert bytes(message("x").value) == msgspec.json.encode("x")
