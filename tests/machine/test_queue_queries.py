"""What is told of queues."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quorl.cluster.machine import queue_queries
from quorl.cluster.machine.queries import BadCursor
from quorl.cluster.protocol import limits
from quorl.cluster.protocol import queues as q
from tests.machine.rows import NOW_MS, Rows


def told(rows: Rows, name: str = "q") -> q.QueueInfo:
    return rows.rig.ask(q.GetQueue(queue=name), q.QueueInfo)


def test_a_queue_is_told_with_its_configuration_and_counts() -> None:
    rows = Rows()
    backoff = q.Backoff(kind="list", delays_ms=(1, 2), jitter=0)
    numbers: dict[str, Any] = {word: number for number, word in enumerate(q.QueueCounts.__struct_fields__, 1)}
    rows.queue(
        partitions=2,
        default_attempts=1,
        max_lost=2,
        backoff=msgspec.json.encode(backoff).decode(),
        timeout_ms=3,
        keep_finished_ms=4,
        max_depth=5,
        submitted=36,
        **numbers,
    )
    info = told(rows)
    assert info.counts == q.QueueCounts(
        scheduled=1, queued=2, processing=3, retry=4, success=5, failed=6, cancelled=7, expired=8
    )
    assert (info.partitions, info.default_attempts, info.max_lost, info.backoff) == (2, 1, 2, backoff)
    assert (info.timeout_ms, info.keep_finished_ms, info.max_depth, info.submitted) == (3, 4, 5, 36)
    assert (info.name, info.paused, info.sealed, info.created_at) == ("q", False, False, "2023-11-14T22:13:20.000Z")


@pytest.mark.parametrize(
    ("values", "workers", "health"),
    [
        ({}, 0, "ok"),
        ({"queued": 1}, 0, "no_workers"),
        ({"scheduled": 1}, 0, "no_workers"),
        ({"retry": 1, "sealed": 1}, 0, "no_workers"),
        ({"queued": 1}, 1, "ok"),
        ({"queued": 1, "paused": 1}, 0, "paused"),
        ({"queued": 1, "sealed": 1}, 1, "sealed"),
        ({"success": 1, "sealed": 1}, 0, "sealed"),
    ],
)
def test_the_health_of_a_queue_says_what_keeps_it(values: dict[str, Any], workers: int, health: str) -> None:
    rows = Rows()
    rows.queue(**values)
    for _ in range(workers):
        rows.worker()
    rows.worker(status=1)
    rows.worker("other")
    assert (told(rows).health, told(rows).workers) == (health, workers)


def test_stand_bys_count_as_workers() -> None:
    rows = Rows()
    rows.queue(queued=1)
    rows.worker(standby=1)
    assert (told(rows).workers, told(rows).health) == (1, "ok")


def test_the_oldest_is_the_one_that_would_be_handed_out_first() -> None:
    rows = Rows()
    rows.queue()
    assert told(rows).oldest_ms is None
    rows.task(since_ms=NOW_MS - 500)
    rows.task(since_ms=NOW_MS - 400, rank=0)
    assert told(rows).oldest_ms == 400
    rows.queue("p", partitions=3)
    for partition, waited_ms in ((0, 10), (2, 30), (2, 20)):
        rows.task(queue_id=2, partition=partition, since_ms=NOW_MS - waited_ms)
    assert told(rows, "p").oldest_ms == 30


def test_a_queue_that_is_not_there_is_not_found() -> None:
    rows = Rows()
    rows.queue("emails")
    rows.queue("gone", deleted=1)
    missing = rows.rig.ask(q.GetQueue(queue="emials"), q.QueueNotFound)
    assert missing.detail == 'There is no queue "emials". Did you mean "emails"?'
    assert rows.rig.ask(q.GetQueue(queue="gone"), q.QueueNotFound).detail == 'There is no queue "gone".'
    rows.queue("gone")
    assert told(rows, "gone").name == "gone"


NAMES = ["a", "a/b", "ab", "ß", "\U0001f986" * 200]


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_queues_are_listed_in_pages_in_order_of_their_names(limit: int) -> None:
    rows = Rows()
    for name in reversed(NAMES):
        rows.queue(name)
    rows.queue("aa", deleted=1)

    def listed(prefix: str) -> list[str]:
        names: list[str] = []
        cursor = ""
        while True:
            page = rows.rig.ask(q.ListQueues(prefix=prefix, limit=limit, cursor=cursor), q.QueueList)
            names += [info.name for info in page.items]
            if page.next is None:
                return names
            cursor = page.next

    assert listed("") == NAMES
    assert listed("a") == ["a", "a/b", "ab"]
    assert listed("none") == []
    with pytest.raises(BadCursor):
        rows.rig.machine.query(q.ListQueues(cursor="x"))


def test_a_page_ends_where_it_costs_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = Rows()
    for name in ("a", "b", "c"):
        rows.queue(name, partitions=2)
    monkeypatch.setattr(limits, "PAGE_BYTES_MAX", 3_000)
    page = rows.rig.ask(q.ListQueues(), q.QueueList)
    assert [info.name for info in page.items] == ["a"]


@pytest.mark.parametrize("statement", ["_BY_NAME", "_AFTER", "_FROM", "_FIRST", "_WORKERS"])
def test_queues_are_found_without_looking_at_others(statement: str) -> None:
    rows = Rows()
    sql = getattr(queue_queries, statement)
    (step,) = rows.plan_of(sql, *["1"] * sql.count("?"))
    assert step.startswith("SEARCH")
