"""What each command does, by feature."""

from __future__ import annotations

import msgspec
import pytest

from quorl.cluster.machine import events as e
from quorl.cluster.machine import machine as door
from quorl.cluster.machine import reading
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.appends import AppendAll, AppendBatches, AppendedAll, TopicAppend
from quorl.cluster.protocol.problems import CommandFailed
from quorl.cluster.protocol.system import Found, Founded
from tests.machine.rig import START_MS, Rig, message, seal, values


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    return rig


def test_a2_a_late_consumer_starts_at_the_first_message(rig: Rig) -> None:
    rig.do(t.RegisterConsumer(topic="t"), t.ConsumerInfo)
    rig.append("t", message(1), message(2))
    assert values(rig.consume("t", 1, 10).items) == [1, 2]
    late = rig.do(t.RegisterConsumer(topic="t", name="late"), t.ConsumerInfo)
    assert (late.consumer_id, late.lag, late.name) == (2, 2, "late")
    assert values(rig.consume("t", 2, 10).items) == [1, 2]


@pytest.mark.parametrize("name", ["x" * 200, "/ %?#", "🦆" * 200, "a\x00b", "\u202e", "..."])
def test_a3_names_may_be_any_text(name: str) -> None:
    rig = Rig()
    rig.do(t.CreateTopic(name=name), t.TopicCreated)
    rig.append(name, message("x"))
    assert rig.ask(t.GetTopic(topic=name), t.TopicInfo).messages == 1
    assert [info.name for info in rig.ask(t.ListTopics(), t.TopicList).items] == [name]


@pytest.mark.parametrize("name", [".", "..", "", "x" * 201])
def test_a3_names_that_slip_past_validation_spoil_only_their_command(name: str) -> None:
    rig = Rig()
    rig.do(t.CreateTopic(name=name), CommandFailed)
    assert rig.ask(t.ListTopics(), t.TopicList).items == []


def test_a4_creating_what_exists(rig: Rig) -> None:
    rig.wall_ms += 60_000
    again = rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    assert again == t.TopicCreated(name="t", partitions=1, created_at="2023-11-14T22:13:20.000Z", existing=True)
    differs = rig.do(t.CreateTopic(name="t", partitions=3), t.AlreadyExists)
    assert differs.detail == 'The topic "t" exists with 1 partition, not 3.'
    refused = rig.do(t.CreateTopic(name="t", error_if_exists=True), t.AlreadyExists)
    assert "2023-11-14T22:13:20.000Z" in refused.detail
    assert rig.apply().events == []


def test_a4_a_topic_created_anew_inherits_nothing(rig: Rig) -> None:
    rig.do(t.RegisterProducer(topic="t"), t.ProducerInfo)
    rig.do(t.RegisterConsumer(topic="t"), t.ConsumerInfo)
    rig.append("t", message(1))
    before = rig.do(t.Consume(topic="t", consumer_id=1), t.ConsumedSpans)
    assert rig.do(t.DeleteTopic(topic="t", if_empty=True), t.TopicNotEmpty).detail == 'The topic "t" holds 1 message.'
    applied = rig.apply(seal(t.DeleteTopic(topic="t")))
    assert applied.events == [e.TopicDeleted("t")]
    assert applied.outcomes[0].value == t.TopicDeleted(name="t", messages=1)
    assert rig.do(t.DeleteTopic(topic="t"), t.TopicNotFound).detail == 'There is no topic "t".'
    for table in ("partitions", "batches", "producers", "consumers", "cursors"):
        assert rig.connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,)
    rig.do(t.CreateTopic(name="t", partitions=2), t.TopicCreated)
    info = rig.ask(t.GetTopic(topic="t"), t.TopicInfo)
    assert (info.messages, info.producers, info.consumers, info.partitions) == (0, 0, 0, 2)
    assert rig.do(t.Consume(topic="t", consumer_id=1), t.ConsumerNotFound).detail
    assert isinstance(rig.machine.render(before), t.TopicNotFound)
    rig.sound()


def test_a4_deleting_an_empty_topic_only_if_it_is_empty(rig: Rig) -> None:
    assert rig.do(t.DeleteTopic(topic="t", if_empty=True), t.TopicDeleted).messages == 0


def test_a5_a6_ids_count_from_one_per_topic(rig: Rig) -> None:
    rig.do(t.CreateTopic(name="u"), t.TopicCreated)
    producers = [rig.do(t.RegisterProducer(topic=name), t.ProducerInfo) for name in ("t", "t", "u")]
    consumers = [rig.do(t.RegisterConsumer(topic=name), t.ConsumerInfo) for name in ("t", "u", "t")]
    assert [p.producer_id for p in producers] == [1, 2, 1]
    assert [c.consumer_id for c in consumers] == [1, 1, 2]
    rig.machine.reload()
    assert rig.do(t.RegisterProducer(topic="t"), t.ProducerInfo).producer_id == 3
    assert rig.do(t.RegisterConsumer(topic="t"), t.ConsumerInfo).consumer_id == 3
    rig.sound()


def test_a7_ids_of_another_topic_are_refused(rig: Rig) -> None:
    rig.do(t.CreateTopic(name="u"), t.TopicCreated)
    rig.do(t.RegisterProducer(topic="u"), t.ProducerInfo)
    rig.do(t.RegisterConsumer(topic="u"), t.ConsumerInfo)
    refused = rig.do(t.Append(topic="t", messages=[message(1, producer_id=1)]), t.ProducerNotFound)
    assert refused.detail == 'No producer 1 is registered for the topic "t".'
    assert rig.do(t.Consume(topic="t", consumer_id=1), t.ConsumerNotFound).detail
    for missing in (
        t.RegisterProducer(topic="no"),
        t.RegisterConsumer(topic="no"),
        t.Append(topic="no", messages=[message(1)]),
        t.Consume(topic="no", consumer_id=1),
    ):
        assert rig.do(missing, t.TopicNotFound).detail == 'There is no topic "no".'
    assert rig.ask(t.GetSize(topic="t"), t.TopicSize).total == 0


def test_a8_a_message_keeps_what_it_came_with(rig: Rig) -> None:
    rig.do(t.RegisterProducer(topic="t", name="p"), t.ProducerInfo)
    raw = msgspec.Raw(b'{"b": 1.50, "a":"\\u00e4"}')
    rig.append("t", t.Message(value=raw, key="k", headers={"h": "v"}, producer_id=1))
    found = rig.ask(t.GetMessage(topic="t", partition=0, offset=0), t.MessageInfo)
    assert bytes(found.value) == bytes(raw)
    assert (found.key, found.headers, found.producer_id, found.read_by) == ("k", {"h": "v"}, 1, [])
    assert found.created_at == "2023-11-14T22:13:20.000Z"


def test_a9_every_consumer_has_a_cursor_of_its_own(rig: Rig) -> None:
    for start in ("earliest", "earliest"):
        rig.do(t.RegisterConsumer(topic="t", start=start), t.ConsumerInfo)
    rig.append("t", *(message(i) for i in range(5)))
    latest = rig.do(t.RegisterConsumer(topic="t", start="latest"), t.ConsumerInfo)
    assert (latest.lag, latest.cursors[0].next_offset) == (0, 5)
    rig.append("t", message(5))
    first = rig.consume("t", 1, 2)
    assert (values(first.items), first.remaining) == ([0, 1], 4)
    assert values(rig.consume("t", 1, 100).items) == [2, 3, 4, 5]
    assert rig.consume("t", 1) == t.Consumed(items=[], remaining=0)
    assert values(rig.consume("t", 2).items) == [0]
    assert values(rig.consume("t", 3).items) == [5]
    read_by = [rig.ask(t.GetMessage(topic="t", partition=0, offset=i), t.MessageInfo).read_by for i in (0, 1, 5)]
    assert read_by == [[1, 2], [1], [1, 3]]
    rig.sound()


def test_a9_partitions_are_served_in_turn(rig: Rig) -> None:
    rig.do(t.CreateTopic(name="p", partitions=3), t.TopicCreated)
    rig.do(t.RegisterConsumer(topic="p"), t.ConsumerInfo)
    for i in range(6):
        rig.append("p", message(i))
    assert [values(rig.consume("p", 1).items)[0] for _ in range(4)] == [0, 1, 2, 3]
    rest = rig.consume("p", 1, 100)
    assert (values(rest.items), rest.remaining) == ([4, 5], 0)


def test_a9_what_is_given_out_at_once_is_bounded_in_bytes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 2500)
    rig.do(t.CreateTopic(name="p", partitions=2), t.TopicCreated)
    rig.do(t.RegisterConsumer(topic="p"), t.ConsumerInfo)
    for _ in range(6):
        rig.append("p", message("x" * 1000))
    sizes = []
    while (got := rig.consume("p", 1, 100)).items:
        sizes.append([(i.partition, i.offset) for i in got.items])
    assert sizes == [[(0, 0), (0, 1)], [(1, 0), (1, 1)], [(0, 2), (1, 2)]]
    rig.append("p", message("x" * 3000))
    rig.append("p", message("y"))
    assert len(rig.consume("p", 1, 100).items) == 1
    assert len(rig.consume("p", 1, 100).items) == 1
    rig.do(t.RegisterConsumer(topic="p"), t.ConsumerInfo)
    assert rig.consume("p", 2, 1).remaining == 7
    rig.sound()


def test_a9_one_message_more_than_fits_is_given_out_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 10)
    rig.do(t.RegisterConsumer(topic="t"), t.ConsumerInfo)
    rig.append("t", message("x" * 50), message("y"))
    rig.append("t", message("z"))
    assert values(rig.consume("t", 1, 10).items) == ["x" * 50, "y"]
    assert values(rig.consume("t", 1, 10).items) == ["z"]


def packed(topic: str, *messages: t.Message) -> t.AppendBatch:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "PACKED_BYTES_MIN", 1)
        patch.setattr(limits, "PACKED_SHARE_MAX", 100)
        found = t.Append(topic=topic, messages=list(messages)).sealed().packed()
    assert found.body[:1] != b"["
    return found


def test_a9_packed_messages_are_read_as_they_were_sent_and_counted_as_long_as_they_are(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 2500)
    rig.do(t.RegisterConsumer(topic="t"), t.ConsumerInfo)
    for number in range(3):
        rig.do(packed("t", message("x" * 1000, key=str(number), h="1")), t.Appended)
    assert rig.connection.execute("SELECT max(length(body)) < 200 FROM batches").fetchone() == (1,)
    page = reading.messages(rig.connection, 1, 0, 0, 100, limits.PAGE_BYTES_MAX)
    assert [(i.offset, i.key, i.headers, len(i.value)) for i in page] == [
        (0, "0", {"h": "1"}, 1002),
        (1, "1", {"h": "1"}, 1002),
    ]
    assert [len(rig.consume("t", 1, 100).items) for _ in range(3)] == [2, 1, 0]
    assert rig.ask(t.GetTopic(topic="t"), t.TopicInfo).bytes == 3 * 1003
    rig.sound()


def test_packed_messages_are_dealt_out_by_their_keys_and_stay_packed_where_all_go_to_one_place(rig: Rig) -> None:
    rig.do(t.CreateTopic(name="p", partitions=4), t.TopicCreated)
    together = packed("p", *(message(number) for number in range(20)))
    for turn in range(2):
        assert rig.do(together, t.Appended).partition == turn
    assert rig.connection.execute("SELECT DISTINCT body FROM batches").fetchall() == [(together.body,)]
    keyed = [message(number, key=str(number)) for number in range(20)]
    dealt = rig.do(packed("p", *keyed), t.Appended)
    assert len(dealt.ranges) > 1
    assert dealt.ranges == [
        msgspec.structs.replace(one, first_offset=one.first_offset - n, last_offset=one.last_offset - n)
        for one, n in zip(rig.append("p", *keyed).ranges, map(_count, dealt.ranges), strict=True)
    ]
    rig.sound()


def _count(one: t.Range) -> int:
    return one.last_offset - one.first_offset + 1


@pytest.mark.parametrize("partitions", [1, 2])
def test_a_packed_append_that_lies_about_its_body_is_spoiled(rig: Rig, partitions: int) -> None:
    rig.do(t.CreateTopic(name="x", partitions=partitions), t.TopicCreated)
    good = packed("x", message(1), message(2))
    unchecked = msgspec.structs.replace(good, checksum=None)
    for lie in ({"count": 3}, {"size_bytes": good.size_bytes + 1}, {"body": good.body[:-1]}, {"body": good.body[:5]}):
        for one in (good, unchecked):
            assert isinstance(rig.outcome(msgspec.structs.replace(one, **lie)).value, CommandFailed)
    for one in (good, unchecked):
        rig.do(one, t.Appended)
    rig.sound()


def test_a10_size_counts_what_is_unread_and_all(rig: Rig) -> None:
    rig.do(t.RegisterConsumer(topic="t"), t.ConsumerInfo)
    rig.append("t", *(message(i) for i in range(4)))
    rig.consume("t", 1, 3)
    assert rig.ask(t.GetSize(topic="t", consumer_id=1), t.TopicSize) == t.TopicSize(size=1, total=4, consumer_id=1)
    assert rig.ask(t.GetSize(topic="t"), t.TopicSize) == t.TopicSize(size=4, total=4)
    assert rig.ask(t.GetSize(topic="t", consumer_id=2), t.ConsumerNotFound).detail


def test_a12_creation_times_never_decrease(rig: Rig) -> None:
    for wall_ms, now_ms in ((START_MS + 5000, 10), (START_MS, 5), (START_MS + 6000, 20)):
        rig.wall_ms, rig.now_ms = wall_ms, now_ms
        rig.append("t", message(wall_ms))
    page = rig.ask(t.Browse(topic="t"), t.MessagePage)
    assert [i.created_at[-7:] for i in page.items] == ["25.000Z", "25.000Z", "26.000Z"]
    assert (rig.machine.wall_ms, rig.machine.now_ms) == (START_MS + 6000, 20)
    rig.sound()


def test_keys_decide_the_partition_and_others_go_round(rig: Rig) -> None:
    rig.do(t.CreateTopic(name="p", partitions=4), t.TopicCreated)
    keyed = [message(i, key=f"k{i % 3}") for i in range(6)]
    first = rig.append("p", *keyed, message("a"), message("b"))
    assert sum(r.last_offset - r.first_offset + 1 for r in first.ranges) == 8
    assert [r.partition for r in first.ranges] == sorted(r.partition for r in first.ranges)
    assert first.partition is msgspec.UNSET
    again = rig.append("p", message("k0 again", key="k0"))
    home = again.partition
    assert isinstance(home, int)
    page = rig.ask(t.Browse(topic="p", partition=home), t.MessagePage)
    assert [v for v, i in zip(values(page.items), page.items, strict=True) if i.key == "k0"] == [0, 3, "k0 again"]
    assert [rig.append("p", message(i)).partition for i in range(4)] == [1, 2, 3, 0]
    rig.sound()


def test_events_say_what_has_happened(rig: Rig) -> None:
    applied = rig.apply(
        seal(t.CreateTopic(name="new")),
        seal(t.Append(topic="new", messages=[message(1), message(2)])),
        seal(t.CreateTopic(name="")),
    )
    created, appended, spoiled = applied.events
    assert (created, appended) == (e.TopicCreated("new"), e.Appended("new", 0, 2, 2))
    assert isinstance(spoiled, e.CommandSpoiled)
    assert "ValidationError" in spoiled.reason


def test_a_cluster_is_founded_once() -> None:
    rig = Rig()
    assert rig.machine.cluster_id is None
    assert rig.do(Found(cluster_id="first"), Founded).cluster_id == "first"
    assert rig.do(Found(cluster_id="second"), Founded).cluster_id == "first"
    rig.machine.reload()
    assert rig.machine.cluster_id == "first"


def test_a_remembered_topic_is_read_again_when_too_many_are(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quorl.cluster.machine.state._TOPICS_REMEMBERED_MAX", 2)
    for name in "abc":
        rig.do(t.CreateTopic(name=name), t.TopicCreated)
    for i in range(3):
        for name in "abc":
            assert rig.append(name, message(i)).first_offset == i
    rig.sound()


@pytest.mark.parametrize("partitions", [1, 2])
@pytest.mark.parametrize("checked", [True, False])
def test_an_append_that_lies_about_its_body_is_spoiled(rig: Rig, partitions: int, checked: bool) -> None:
    rig.do(t.CreateTopic(name="x", partitions=partitions), t.TopicCreated)
    good = t.Append(topic="x", messages=[message(1), message(2)]).sealed()
    if not checked:  # as nodes sealed it that made no checksum
        good = msgspec.structs.replace(good, checksum=None)
    for lie in (
        {"count": 3},
        {"count": 0, "body": b"[]"},
        {"size_bytes": -1},
        {"size_bytes": 10_000},
        {"size_bytes": good.size_bytes - 1},
        {"size_bytes": good.size_bytes + 1},
        {"body": b"[" * 100_000},
        {"body": b"\xff"},
        {"producers": [0]},
        {"producers": [2**63]},
    ):
        value = rig.outcome(msgspec.structs.replace(good, **lie)).value
        assert isinstance(value, CommandFailed | t.ProducerNotFound)
    assert isinstance(rig.outcome(good).value, t.Appended)
    assert rig.append("x", message(1)).first_offset in {0, 2}
    rig.sound()


def test_appends_to_several_topics_count_one_by_one(rig: Rig) -> None:
    rig.do(t.CreateTopic(name="p", partitions=2), t.TopicCreated)

    def append(topic: str, *messages: t.Message) -> TopicAppend:
        return TopicAppend(topic=topic, messages=list(messages))

    keyed = [t.Message(value=msgspec.Raw(b"1"), key=key) for key in "abcd"]
    stranger = t.Message(value=msgspec.Raw(b"2"), producer_id=1)
    request = AppendAll(
        appends=(
            append("t", message(1), message(2)),
            append("gone", message(3)),
            append("p", *keyed),
            append("t", stranger),
            append("t", message(4)),
        )
    )
    told = rig.do(request, AppendedAll).items
    assert [(one.topic, one.code) for one in told] == [
        ("t", None),
        ("gone", "topic_not_found"),
        ("p", None),
        ("t", "producer_not_found"),
        ("t", None),
    ]
    assert told[0].ranges == [t.Range(partition=0, first_offset=0, last_offset=1)]
    assert sum(one.last_offset - one.first_offset + 1 for one in told[2].ranges) == len(keyed)
    assert told[4].ranges == [t.Range(partition=0, first_offset=2, last_offset=2)]
    assert told[1].detail
    assert not told[1].ranges
    rig.sound()


def test_one_append_of_several_that_lies_spoils_all_of_them(rig: Rig) -> None:
    good = t.Append(topic="t", messages=[message(1)]).sealed()
    spoiled = AppendBatches(appends=(good, msgspec.structs.replace(good, count=2)))
    assert isinstance(rig.outcome(spoiled).value, CommandFailed)
    assert rig.append("t", message(1)).first_offset == 0
    rig.sound()


def test_an_empty_append_is_spoiled_whatever_its_checksum_says(rig: Rig) -> None:
    empty = t.AppendBatch(
        topic="t", count=0, size_bytes=0, producers=[], body=b"[]", checksum=t.checksum_of(0, 0, b"[]")
    )
    assert isinstance(rig.outcome(empty).value, CommandFailed)
    rig.sound()


def test_a_size_is_counted_in_the_same_way_before_and_in_the_log(rig: Rig) -> None:
    rig.do(t.CreateTopic(name="p", partitions=3), t.TopicCreated)
    for topic in ("t", "p"):
        body = (
            f'{{"topic":"{topic}","messages":[{{"value": \n {{"a" : 1.0 }}\t, "key":"\\u00e4🦆"}},{{"value" :""}} ]}}'
        )
        request = msgspec.json.decode(body, type=t.Append)
        assert request.sealed().size_bytes == len('{"a" : 1.0 }') + len("ä🦆".encode()) + len('""')
        rig.do(request, t.Appended)
        assert rig.ask(t.GetTopic(topic=topic), t.TopicInfo).bytes == request.sealed().size_bytes
    rig.sound()


def test_every_limit_that_bounds_a_page_of_messages_is_below_a_frame() -> None:
    assert limits.PAGE_BYTES_MAX + 2 * limits.REQUEST_BYTES_MAX < limits.FRAME_BYTES_MAX
    assert door.Machine.VERSION == 1


def test_the_machine_tells_how_many_partitions_a_topic_has() -> None:
    rig = Rig()
    assert rig.machine.partitions("t") is None
    rig.do(t.CreateTopic(name="t", partitions=3), t.TopicCreated)
    assert rig.machine.partitions("t") == 3
    rig.do(t.DeleteTopic(topic="t"), t.TopicDeleted)
    assert rig.machine.partitions("t") is None
