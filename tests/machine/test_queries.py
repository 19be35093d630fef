"""What can be asked, on any connection, and how answers are bounded."""

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from quorl.cluster.machine import guessing, pages, queries, reading
from quorl.cluster.machine.metric_queries import GetMetrics
from quorl.cluster.machine.overview_queries import GetGauges, GetSparks, LookOver
from quorl.cluster.machine.queries import BadCursor, BadStart
from quorl.cluster.machine.task_lists import GetBriefs
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import topics as t
from quorl.cluster.protocol.grammar import Query
from quorl.cluster.protocol.leases import GetDirectives
from quorl.cluster.protocol.operations import OPERATIONS
from quorl.cluster.protocol.system import GetCluster
from tests.machine.rig import START_MS, Rig, connect, message, seal, values


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.do(t.CreateTopic(name="emails"), t.TopicCreated)
    return rig


def test_the_machine_answers_every_query_of_the_table() -> None:
    asked = {row.request for row in OPERATIONS if issubclass(row.request, Query)}
    of_nodes = {
        queries.ListNames,
        queries.Heartbeats,
        GetDirectives,
        GetBriefs,
        LookOver,
        GetSparks,
        GetGauges,
        GetMetrics,
    }
    assert asked | of_nodes == set(queries.Read.__args__)
    rig = Rig()
    with pytest.raises(AssertionError):
        rig.machine.query(GetCluster())  # type: ignore[arg-type]


def test_a_misspelt_topic_is_told_what_was_perhaps_meant(rig: Rig) -> None:
    for request in (t.GetTopic(topic="email"), t.Browse(topic="email"), t.GetSize(topic="email")):
        found = rig.ask(request, t.TopicNotFound)
        assert found.detail == 'There is no topic "email". Did you mean "emails"?'
    assert rig.ask(t.GetTopic(topic="zzz"), t.TopicNotFound).detail == 'There is no topic "zzz".'
    rig.do(t.CreateTopic(name="a"), t.TopicCreated)
    for typed in ("emailss", "emals", "emaisl", "enails", "eemails"):
        assert guessing.suggest(rig.connection, "topics", typed) == "emails"
    for other in ("b", "e", "mails-of-mine", "emigrants"):
        assert guessing.suggest(rig.connection, "topics", other) is None


def test_the_search_for_what_was_meant_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[str] = []
    judge = guessing._differing

    def counting(name: str, other: str) -> int:
        judged.append(other)
        return judge(name, other)

    monkeypatch.setattr(guessing, "_differing", counting)
    short, long = "s" * (guessing.SUGGEST_CHARS_MAX - 3), "l" * limits.TOPIC_NAME_CHARS_MAX
    rig.apply(*(seal(t.CreateTopic(name=f"{stem[:197]}{i:03d}")) for i in range(200) for stem in (short, long)))
    assert guessing.suggest(rig.connection, "topics", f"{short}05") is not None
    assert 0 < len(judged) <= guessing.SUGGEST_CANDIDATES_MAX
    judged.clear()
    assert guessing.suggest(rig.connection, "topics", f"{long[:197]}05") is None
    assert judged == []
    assert guessing.suggest(rig.connection, "topics", "l" * guessing.SUGGEST_CHARS_MAX) is None
    assert judged == ["emails"]


def test_a_topic_is_described_with_its_partitions(rig: Rig) -> None:
    rig.do(t.CreateTopic(name="p", partitions=2), t.TopicCreated)
    rig.append("p", message("ab", key="ä"), message("c", key="ä"))
    info = rig.ask(t.GetTopic(topic="p"), t.TopicInfo)
    assert (info.messages, info.bytes, info.partitions) == (2, 11, 2)
    assert sorted((d.messages, d.bytes, d.first_offset, d.next_offset) for d in info.details) == [
        (0, 0, 0, 0),
        (2, 11, 0, 2),
    ]


def walk(rig: Rig, request: Any, kind: Any) -> list[Any]:
    """All items of a list, page by page."""
    items: list[Any] = []
    cursor = ""
    for _ in range(100):
        page = rig.ask(type(request)(**{**dict_of(request), "cursor": cursor}), kind)
        items += page.items
        if page.next is None:
            return items
        assert page.items
        cursor = page.next
    raise AssertionError("the pages never end")


def dict_of(request: Any) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__struct_fields__}


NAMES = ["a", "a/b", "ab", "b\x00", "ß", "\uffff", "\U0010ffff", "\U0001f986" * 200]


@pytest.mark.parametrize("limit", [1, 3, 8, 100])
def test_a4_topics_are_listed_in_pages_in_order_of_their_names(limit: int) -> None:
    rig = Rig()
    rig.apply(*(seal(t.CreateTopic(name=name)) for name in reversed(NAMES)))
    listed = walk(rig, t.ListTopics(limit=limit), t.TopicList)
    assert [info.name for info in listed] == sorted(NAMES)
    for prefix in ("a", "ab", "\U0001f986", "\U0010ffff", "none"):
        listed = walk(rig, t.ListTopics(limit=limit, prefix=prefix), t.TopicList)
        assert [info.name for info in listed] == [name for name in sorted(NAMES) if name.startswith(prefix)]
    names: list[str] = []
    while (page := rig.ask(queries.ListNames(after=names[-1] if names else "", limit=limit), queries.Names)).more:
        assert len(page.names) == limit
        names += page.names
    assert names + page.names == sorted(NAMES)


def test_a_page_ends_where_it_grows_too_large(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 600)
    rig.apply(*(seal(t.CreateTopic(name=name)) for name in "abc"))
    assert len(rig.ask(t.ListTopics(), t.TopicList).items) == 1
    assert len(walk(rig, t.ListTopics(), t.TopicList)) == 4


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_producers_and_consumers_are_listed_in_pages(rig: Rig, limit: int) -> None:
    rig.append("emails", message(1))
    for i in range(5):
        rig.do(t.RegisterProducer(topic="emails", name=f"p{i}"), t.ProducerInfo)
        rig.do(t.RegisterConsumer(topic="emails", name=f"c{i}"), t.ConsumerInfo)
    producers = walk(rig, t.ListProducers(topic="emails", limit=limit), t.ProducerList)
    assert [(p.producer_id, p.name) for p in producers] == [(i + 1, f"p{i}") for i in range(5)]
    rig.consume("emails", 2)
    consumers = walk(rig, t.ListConsumers(topic="emails", limit=limit), t.ConsumerList)
    assert [(c.consumer_id, c.name, c.lag) for c in consumers] == [(i + 1, f"c{i}", int(i != 1)) for i in range(5)]
    one = rig.ask(t.GetConsumer(topic="emails", consumer_id=2), t.ConsumerInfo)
    assert one == consumers[1]
    missing = rig.ask(t.GetConsumer(topic="emails", consumer_id=6), t.ConsumerNotFound)
    assert missing.detail == 'No consumer 6 is registered for the topic "emails".'


@pytest.mark.parametrize(
    "cursor",
    ["!", "ä", "x", "AAAA", pages.encode_cursor("topic", "x"), pages.encode_cursor("producer", "٣"),
     pages.encode_cursor("producer", "9" * 30), base64.urlsafe_b64encode(b"\xff\xfe\xfd").decode(),
     base64.urlsafe_b64encode(b"producer").decode()],
)  # fmt: skip
def test_a_cursor_from_elsewhere_is_refused(rig: Rig, cursor: str) -> None:
    with pytest.raises(BadCursor, match="first page"):
        rig.machine.query(t.ListProducers(topic="emails", cursor=cursor))
    assert not rig.connection.in_transaction
    if not cursor.startswith(pages.encode_cursor("topic", "")[:6]):
        with pytest.raises(BadCursor):
            rig.machine.query(t.ListTopics(cursor=cursor))


def test_browsing_from_anywhere(rig: Rig) -> None:
    for i in range(4):
        rig.wall_ms = START_MS + 1000 * i
        rig.append("emails", *(message(3 * i + j) for j in range(3)))

    def browse(start: str, limit: int = 100) -> tuple[list[Any], int]:
        page = rig.ask(t.Browse(topic="emails", start=start, limit=limit), t.MessagePage)
        return values(page.items), page.next

    assert browse("earliest") == (list(range(12)), 12)
    assert browse("earliest", 4) == ([0, 1, 2, 3], 4)
    assert browse("4", 4) == ([4, 5, 6, 7], 8)
    assert browse("latest") == ([], 12)
    assert browse("12") == ([], 12)
    assert browse(str(limits.INTEGER_MAX)) == ([], 12)
    assert browse("ts:2023-11-14T22:13:21Z") == (list(range(3, 12)), 12)
    assert browse("ts:2023-11-14T22:13:21.001Z") == (list(range(6, 12)), 12)
    assert browse("ts:1970-01-01T00:00:00Z") == (list(range(12)), 12)
    assert browse("ts:2999-01-01T00:00:00+01:00") == ([], 12)


@pytest.mark.parametrize("start", ["", "-1", "first", "1.5", "²", "٣", "9" * 17, str(2**53), "ts:", "ts:yesterday"])
def test_what_nobody_can_start_from_is_refused(rig: Rig, start: str) -> None:
    with pytest.raises(BadStart, match='"from"'):
        rig.machine.query(t.Browse(topic="emails", start=start))


def test_partitions_and_offsets_that_do_not_exist(rig: Rig) -> None:
    rig.append("emails", message(1))
    for request in (t.Browse(topic="emails", partition=1), t.GetMessage(topic="emails", partition=1, offset=0)):
        assert "1 partition, and none is number 1" in rig.ask(request, t.PartitionNotFound).detail
    missing = rig.ask(t.GetMessage(topic="emails", partition=0, offset=1), t.MessageNotFound)
    assert missing.detail == 'Partition 0 of the topic "emails" ends before offset 1.'


def test_a_page_of_messages_is_bounded_in_bytes_but_never_empty(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (10, 3000, 10, 10):
        rig.append("emails", message("x" * size))
    monkeypatch.setattr(reading.messages, "__defaults__", (1000,))
    counts = []
    at = 0
    while (page := rig.ask(t.Browse(topic="emails", start=str(at)), t.MessagePage)).items:
        counts.append(len(page.items))
        at = page.next
    assert counts == [1, 1, 2]


def test_an_answer_comes_from_one_moment_also_while_another_connection_writes(tmp_path: Path) -> None:
    path = str(tmp_path / "state.db")
    rig = Rig(path)
    rig.do(t.CreateTopic(name="t"), t.TopicCreated)
    rig.do(t.RegisterConsumer(topic="t"), t.ConsumerInfo)
    rig.append("t", message(1))
    spans = rig.do(t.Consume(topic="t", consumer_id=1), t.ConsumedSpans)
    reader = connect(path)
    with reading.one_moment(reader):
        assert isinstance(queries.query(reader, t.GetTopic(topic="t")), t.TopicInfo)
        rig.do(t.DeleteTopic(topic="t"), t.TopicDeleted)
        assert isinstance(queries.query(reader, t.GetTopic(topic="t")), t.TopicInfo)
        assert isinstance(reading.consumed(reader, spans), t.Consumed)
    assert isinstance(queries.query(reader, t.GetTopic(topic="t")), t.TopicNotFound)
    assert isinstance(reading.consumed(reader, spans), t.TopicNotFound)


def test_a_broken_file_is_not_taken_for_an_answer(rig: Rig) -> None:
    rig.connection.execute("DROP TABLE partitions")
    with pytest.raises(sqlite3.OperationalError):
        rig.machine.query(t.GetTopic(topic="emails"))
    assert not rig.connection.in_transaction
